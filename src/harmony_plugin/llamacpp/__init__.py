"""llama-cpp-python adapter: a chat handler for gpt-oss, registered as chat format `harmony` when this is imported.

Needs the extra `llamacpp`; importing without llama-cpp-python gives one clear `ImportError`.
"""

import functools
import sys
from typing import Any

try:  # first: where llama-cpp-python is missing it says so
    from .engine import register as _register  # isort: skip
except ImportError as error:
    if sys.argv[:1] == ["-m"]:  # `python -m harmony_plugin.llamacpp`: there the message alone is wanted
        sys.exit(f"harmony-plugin: {error}")
    raise

from ..api.defaults import Defaults
from ..api.reply import Usage
from ..settings import read
from .handler import HarmonyChatHandler, ProcessorFactory

__all__ = ["Defaults", "HarmonyChatHandler", "ProcessorFactory", "Usage"]


@functools.lru_cache(maxsize=1)
def _from_environment() -> HarmonyChatHandler:
    return HarmonyChatHandler.of(read())


def _handle(**fields: Any) -> Any:
    """The chat format `harmony`, as ``HARMONY_*`` says; read at the first request, not by an import."""
    return _from_environment()(**fields)


_register("harmony", _handle)
