"""llama-cpp-python adapter: a chat handler for gpt-oss, registered as chat format `harmony` when this is imported.

Needs the extra `llamacpp`; importing without llama-cpp-python gives one clear `ImportError`.
"""

from ..api.defaults import Defaults
from ._compat import register as _register
from .chat import HarmonyChatHandler, ProcessorFactory, Usage

__all__ = ["Defaults", "HarmonyChatHandler", "ProcessorFactory", "Usage"]

_register("harmony", HarmonyChatHandler())
