"""The core: chunks of what the model writes in, events out. Standard library only; no I/O, no server, no clock.

What other rooms use of it is named here; they import nothing from the modules behind.
"""

from .attribution import ContentTokens
from .deltas import Delta, Joiner, Reply, ToolCall
from .dialect import Dialect
from .errors import HarmonyError, RequestError
from .events import FIELDS, Ended, Event, Field, Message, Started, Text, ToolCallDelta
from .header import spellings
from .issues import BY_SETTING, CODES, Code, HarmonyParseError, Issue, Unit, meaning
from .options import Options, Output, Target
from .routing import tool_names
from .stops import StopStrings
from .stream import Stream, is_json, parse
from .tokens import SPECIAL_IDS, VOCABULARY_SIZE
from .tracing import Explanation, Kind, Segment, Shown, Trace
from .vocabulary import Special, Vocabulary, harmony_encoding, harmony_library, harmony_vocabulary, vocabulary_of
from .waiting import Wait
from .words import BUILTIN_NAMESPACES, BUILTIN_RECIPIENTS, CHANNELS

__all__ = [
    "BUILTIN_NAMESPACES",
    "BUILTIN_RECIPIENTS",
    "BY_SETTING",
    "CHANNELS",
    "CODES",
    "FIELDS",
    "SPECIAL_IDS",
    "VOCABULARY_SIZE",
    "Code",
    "ContentTokens",
    "Delta",
    "Dialect",
    "Ended",
    "Event",
    "Explanation",
    "Field",
    "HarmonyError",
    "HarmonyParseError",
    "Issue",
    "Joiner",
    "Kind",
    "Message",
    "Options",
    "Output",
    "Reply",
    "RequestError",
    "Segment",
    "Shown",
    "Special",
    "Started",
    "StopStrings",
    "Stream",
    "Target",
    "Text",
    "ToolCall",
    "ToolCallDelta",
    "Trace",
    "Unit",
    "Vocabulary",
    "Wait",
    "harmony_encoding",
    "harmony_library",
    "harmony_vocabulary",
    "is_json",
    "meaning",
    "parse",
    "spellings",
    "tool_names",
    "vocabulary_of",
]
