"""Harmony in, OpenAI out: splits what gpt-oss models write into reasoning, content and tool calls.

The core: no I/O, no server, no dependencies. `parse` for a whole reply, `Stream` for one that is still coming;
`harmony_plugin.prompts` builds prompts, `harmony_plugin.vllm` and `harmony_plugin.llamacpp` serve.
"""

from .core import (
    CODES,
    Code,
    Delta,
    Dialect,
    Ended,
    Event,
    Field,
    HarmonyError,
    HarmonyParseError,
    Issue,
    Message,
    Options,
    Reply,
    RequestError,
    Started,
    Stream,
    Target,
    Text,
    ToolCall,
    ToolCallDelta,
    Vocabulary,
    parse,
)
from .transcripts import (
    Problem,
    TokenStatistics,
    from_think,
    is_harmony,
    messages_by_channel,
    parse_many,
    repair,
    to_think,
    token_statistics,
    validate,
)

#: Everything public, and nothing else is: a test holds this list and the signatures.
__all__ = [
    "CODES",
    "Code",
    "Delta",
    "Dialect",
    "Ended",
    "Event",
    "Field",
    "HarmonyError",
    "HarmonyParseError",
    "Issue",
    "Message",
    "Options",
    "Problem",
    "Reply",
    "RequestError",
    "Started",
    "Stream",
    "Target",
    "Text",
    "TokenStatistics",
    "ToolCall",
    "ToolCallDelta",
    "Vocabulary",
    "from_think",
    "is_harmony",
    "messages_by_channel",
    "parse",
    "parse_many",
    "repair",
    "to_think",
    "token_statistics",
    "validate",
]
__version__ = "0.1.0"

for _name in __all__:
    # Where a name is imported from is what it says of itself, in messages and in pickles.
    if getattr(globals()[_name], "__module__", "").startswith(f"{__name__}."):
        globals()[_name].__module__ = __name__
del _name
