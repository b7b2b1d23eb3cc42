"""Harmony in, OpenAI out: splits what gpt-oss models write into reasoning, content and tool calls.

The core: no I/O, no server, no dependencies. `parse` for a whole reply, `Stream` for one that is still coming;
`harmony_plugin.prompts` builds prompts, `harmony_plugin.vllm` and `harmony_plugin.llamacpp` serve.
"""

from .dialect import Dialect
from .events import Delta, Ended, Message, Reply, Started, Text, ToolCall, ToolCallDelta
from .issues import CODES, HarmonyParseError, Issue
from .options import Options
from .stream import Stream, parse
from .vocabulary import Vocabulary

__all__ = [
    "CODES",
    "Delta",
    "Dialect",
    "Ended",
    "HarmonyParseError",
    "Issue",
    "Message",
    "Options",
    "Reply",
    "Started",
    "Stream",
    "Text",
    "ToolCall",
    "ToolCallDelta",
    "Vocabulary",
    "parse",
]
__version__ = "0.1.0"
