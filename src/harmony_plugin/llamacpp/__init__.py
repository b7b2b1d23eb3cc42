"""llama-cpp-python adapter: a chat handler for gpt-oss, registered as chat format `harmony` when this is imported.

Needs the extra `llamacpp`; importing without llama-cpp-python gives one clear `ImportError`.
"""

from ..api.defaults import Defaults
from ..api.reply import Usage
from .engine import register as _register
from .handler import HarmonyChatHandler, ProcessorFactory

__all__ = ["Defaults", "HarmonyChatHandler", "ProcessorFactory", "Usage"]

_register("harmony", HarmonyChatHandler())
