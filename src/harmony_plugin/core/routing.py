"""Routing: which field a message goes to (SPEC section 4, row by row).

Knows headers, the tools on offer and the settings; knows nothing of markers, text or deltas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .events import Field
from .header import Header
from .issues import Code
from .options import Options
from .words import BUILTIN_NAMESPACES, CHANNELS

__all__ = ["Route", "Router", "tool_names"]


class Route(NamedTuple):
    """Where a message goes. ``name``: the tool's; with ``field`` content, a call that is written there. ``issue``: a
    code to report, with the body if ``field`` is None. ``shown``: False where a setting drops what was meant for it."""

    field: Field | None
    name: str | None = None
    issue: Code | None = None
    shown: bool = True


_REASONING = Route("reasoning")
_CONTENT = Route("content")


def tool_names(tools: Iterable[str | Mapping[str, Any]] | None) -> tuple[str, ...] | None:
    """The names of tools given as names or as OpenAI tool dicts (chat or responses shape). None: not known.

    Tools without a name of their own (``{"type": "web_search"}``) are passed over.

    Raises:
        TypeError: something that is neither.
    """
    if tools is None:
        return None
    if isinstance(tools, (str, bytes, Mapping)):
        raise TypeError("tools: a sequence of names or of OpenAI tool dicts, or None")
    names: list[str] = []
    for tool in tools:
        if isinstance(tool, str):
            names.append(tool)
        elif isinstance(tool, Mapping):
            function = tool.get("function")
            name = (function if isinstance(function, Mapping) else tool).get("name")
            if isinstance(name, str):
                names.append(name)
        else:
            raise TypeError(f"tools: names or OpenAI tool dicts, not {type(tool).__name__}")
    return tuple(dict.fromkeys(name for name in names if name))


class Router:
    """Routes the messages of one reply, in order: a tool result is one only where a call asked for it."""

    __slots__ = ("_asked", "_declared", "_offers_none", "_options")

    def __init__(self, tools: tuple[str, ...] | None, options: Options) -> None:
        self._declared = frozenset(tools or ())
        self._offers_none = tools is not None and not tools
        self._options = options
        # Calls whose result has not come, by tool.
        self._asked: dict[str, int] = {}

    def route(self, header: Header) -> Route:
        """The field of the message that ``header`` opens."""
        route = self._routed(header)
        if route.field == "reasoning" and self._options.reasoning == "drop":
            return route._replace(shown=False)
        return route

    def _routed(self, header: Header) -> Route:
        if header.target == "issue":
            return Route(None, None, "missing_message")
        if header.target is not None:
            return _REASONING if header.target == "reasoning" else _CONTENT
        if header.role != "assistant":
            return self._other_role(header)
        if header.addressed:
            assert header.recipient is not None
            return self._recipient(header, header.recipient)
        if header.recipient == "assistant" and header.channel == "commentary":
            return _REASONING
        return self._channel(header)

    def declared(self, recipient: str) -> str | None:
        """The declared tool that a recipient means: by its name, or with a namespace in front."""
        name = recipient
        while name:
            if name in self._declared:
                return name
            if (trimmed := name.rstrip("./-:")) in self._declared:
                return trimmed
            name = name.partition(".")[2]
        return None

    def _call(self, name: str, issue: Code | None = None) -> Route:
        options = self._options
        if options.tool_choice == "none" or options.output == "final_only":
            return Route(None, None, "dropped_call")
        self._asked[name] = self._asked.get(name, 0) + 1
        return Route("tool_call" if options.output == "openai_tool_calls" else "content", name, issue)

    def _recipient(self, header: Header, recipient: str) -> Route:
        name = self.declared(recipient)
        if name is not None:
            return self._call(name)
        if recipient.startswith("functions.") and (name := recipient[len("functions.") :]):
            return self._call(name)
        if recipient.partition(".")[0] in BUILTIN_NAMESPACES and not recipient.startswith("python."):
            wanted = self._options.builtin_tools
            if wanted == "tool_calls" or (wanted == "auto" and self._declared):
                # An agent answers that there is no such tool, and the model goes on; an empty turn would end it.
                return self._call(recipient)
            return _REASONING if header.channel == "analysis" else Route(None, None, "builtin_tool")
        if self._offers_none:
            # Nothing can be called. Analysis stays reasoning all the same: it never reaches content.
            return _REASONING if header.channel == "analysis" else _CONTENT
        return self._call(recipient.removesuffix("."))

    def _other_role(self, header: Header) -> Route:
        if header.author is not None and header.recipient == "assistant":
            author = header.author
            name = self.declared(author) or (author[len("functions.") :] if author.startswith("functions.") else None)
            if name and not self._asked.get(name):
                return self._call(name, "swapped_call")
            if name:
                self._asked[name] -= 1
        return Route(None, None, "foreign_role")

    def _channel(self, header: Header) -> Route:
        channel = header.channel
        target = self._options.channels.get(channel) if channel is not None else None
        if target is None and channel == "commentary":
            target = self._options.commentary
        if target == "drop":
            return Route(None, None, "dropped_text")
        if target is not None:
            return _REASONING if target == "reasoning" else _CONTENT
        if channel == "analysis":
            return _REASONING
        return _CONTENT if channel is None or channel in CHANNELS else Route("content", None, "unknown_channel")
