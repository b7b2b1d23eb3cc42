"""Lines in, Harmony token ids out, through the Harmony library.

Text that people, tools or models wrote is always encoded as ordinary tokens: whatever it spells, it cannot become a
marker. Knows nothing of any server or engine, and nothing of how output is split. Source: OpenAI's format guide
(openai/harmony, docs/format.md). The library writes system and developer messages; the headers of all others are
written here as the guide writes them, since the library's order of a tool result's header is another one
(``functions.f<|channel|>commentary to=assistant``).
"""

from __future__ import annotations

import datetime
import json
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ..core import Dialect, RequestError, harmony_encoding, harmony_library
from .history import History, Line
from .parts import encodable
from .schema import MAX_SCHEMA_DEPTH, nests_too_deep
from .tools import described

if TYPE_CHECKING:
    import openai_harmony as harmony

__all__ = ["REASONING_EFFORTS", "PromptOptions", "Prompts", "render_prompt"]

Effort = Literal["low", "medium", "high"]

#: OpenAI's ``reasoning_effort`` values and the level that gpt-oss is told; it was trained on three.
REASONING_EFFORTS: Mapping[str, Effort] = {
    "none": "low",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}

IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
BUILTIN_TOOLS = ("browser", "python")
#: How many ids of encoded messages a `Prompts` keeps (4 bytes each, and their texts).
CACHED_IDS = 1_000_000


@dataclass(frozen=True)
class PromptOptions:
    """What the system message says. All of it is part of the prompt, so a change of any value is a new prefix.

    Args:
        model_identity: the first line.
        knowledge_cutoff: as ``2024-06``; None leaves the line out.
        current_date: ``today`` (the local date when the prompt is made), a fixed ISO date, a function that returns one,
            or None to leave the line out. The date stands near the start: with ``today``, a prompt shares no prefix
            with yesterday's.
        reasoning_effort: for requests that name none; a key of `REASONING_EFFORTS`.
        channels: the channels that the model is told to use.
        builtin_tools: gpt-oss's own tools to describe, of ``browser`` and ``python``, for hosts that run them.

    Raises:
        ValueError: an effort or a tool that there is none of.
    """

    model_identity: str = IDENTITY
    knowledge_cutoff: str | None = "2024-06"
    current_date: str | Callable[[], str | datetime.date] | None = "today"
    reasoning_effort: str = "medium"
    channels: tuple[str, ...] = ("analysis", "commentary", "final")
    builtin_tools: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.reasoning_effort not in REASONING_EFFORTS:
            raise ValueError(f"reasoning_effort {self.reasoning_effort!r} is not one of {', '.join(REASONING_EFFORTS)}")
        for name in self.builtin_tools:
            if name not in BUILTIN_TOOLS:
                raise ValueError(f"builtin_tools: {name!r} is not one of {', '.join(BUILTIN_TOOLS)}")

    def date(self) -> str | None:
        """The date that a prompt made now carries, as ``YYYY-MM-DD``."""
        if callable(self.current_date):
            return str(self.current_date())
        if self.current_date == "today":
            return datetime.date.today().isoformat()
        return self.current_date


class Prompts:
    """Builds prompts, and remembers the ids of messages that it has encoded, so that a long history costs little.

    One object serves any number of threads.

    Args:
        options: see `PromptOptions`.

    Raises:
        ImportError: there is no Harmony library.
    """

    def __init__(self, options: PromptOptions | None = None) -> None:
        self.options = options or PromptOptions()
        self._harmony = harmony_library()
        self._encoding = harmony_encoding()
        self._cache: OrderedDict[Any, array[int]] = OrderedDict()
        self._cached_ids = 0
        self._lock = threading.Lock()
        role = self._harmony.Role.ASSISTANT
        nothing = self._harmony.Conversation.from_messages([])
        self._opening = array("i", self._encoding.render_conversation_for_completion(nothing, role))
        self._markers = Dialect().ids

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        response_format: Mapping[str, Any] | None = None,
        reasoning_effort: str | None = None,
        builtin_tools: Sequence[str] = (),
    ) -> list[int]:
        """The ids of the whole prompt, up to and with ``<|start|>assistant``.

        Args:
            messages: OpenAI chat messages (role system, developer, user, assistant, tool or function). An assistant
                message may carry ``reasoning_content`` (or ``reasoning``), and ``phase: commentary`` where its content
                was said in front of the answer.
            tools: OpenAI function and custom tools that are described to the model.
            response_format: OpenAI's; a schema is shown to the model, not enforced, here.
            reasoning_effort: a key of `REASONING_EFFORTS`; None: as the options say.
            builtin_tools: described besides those of the options.

        Raises:
            RequestError: names the message and the field that cannot be rendered.
        """
        ids: array[int] = array("i")
        for line in self._lines(messages, tools, response_format, reasoning_effort, builtin_tools):
            ids.extend(self._encode(line))
        ids.extend(self._opening)
        return ids.tolist()

    def messages(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        response_format: Mapping[str, Any] | None = None,
        reasoning_effort: str | None = None,
    ) -> list[harmony.Message]:
        """What `render` encodes, as the Harmony library's messages, whose headers it writes in an order of its own."""
        lines = self._lines(messages, tools, response_format, reasoning_effort)
        return [self._message(line) for line in lines]

    def encode(self, text: str) -> list[int]:
        """The ids of ordinary text, in which no marker is a marker."""
        return list(self._encoding.encode(encodable(text), disallowed_special=()))

    def _lines(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        response_format: Mapping[str, Any] | None,
        reasoning_effort: str | None,
        builtin_tools: Sequence[str] = (),
    ) -> list[Line]:
        effort = REASONING_EFFORTS.get(reasoning_effort or self.options.reasoning_effort)
        if effort is None:
            known = ", ".join(REASONING_EFFORTS)
            raise RequestError(
                f"reasoning_effort {reasoning_effort!r} is not one of {known}", "reasoning_effort", "invalid_value"
            )
        history = History(messages, tools)
        descriptions = tuple(described(tool, f"tools[{i}]") for i, tool in enumerate(tools or ()))
        builtins = sorted({*self.options.builtin_tools, *builtin_tools})
        system = (str(bool(descriptions)), self.options.date() or "", *builtins)
        lines = [Line("system", text=effort, tools=system)]
        shape = _response_section(response_format)
        if history.instructions is not None or descriptions or shape:
            lines.append(Line("developer", text=history.instructions or "", tools=descriptions, shape=shape))
        return lines + history.lines

    def _encode(self, line: Line) -> array[int]:
        with self._lock:
            ids = self._cache.get(line)
            if ids is not None:
                self._cache.move_to_end(line)
                return ids
        if line.role in ("system", "developer"):
            ids = self._rendered(line)
        elif line.text:
            # The frame around a text comes again and again.
            frame = self._encode(replace(line, text=""))
            ids = frame[:-1] + array("i", self._encoding.encode(line.text, disallowed_special=())) + frame[-1:]
        else:
            ids = self._frame(line)
        with self._lock:
            if line not in self._cache and len(ids) <= CACHED_IDS:
                self._cache[line] = ids
                self._cached_ids += len(ids)
                while self._cached_ids > CACHED_IDS:
                    self._cached_ids -= len(self._cache.popitem(last=False)[1])
        return ids

    def _frame(self, line: Line) -> array[int]:
        """A message without text, its header as OpenAI's guide writes it."""
        mark = self._markers
        author, recipient, channel = line.name or line.role, line.recipient, line.channel
        # gpt-oss names a function behind the channel, and its own tools, like an author's recipient, in front of it.
        behind = recipient is not None and line.role == "assistant" and channel == "commentary"
        header = author if recipient is None or behind else f"{author} to={recipient}"
        ids = array("i", [mark["start"], *self.encode(header)])
        if channel is not None:
            ids.append(mark["channel"])
            ids.extend(self.encode(f"{channel} to={recipient}" if behind else channel))
        if line.content_type is not None:
            ids.extend(self.encode(" "))
            ids.append(mark["constrain"])
            ids.extend(self.encode(line.content_type))
        ids.append(mark["message"])
        ids.append(mark["call" if line.role == "assistant" and recipient is not None else "end"])
        return ids

    def _rendered(self, line: Line) -> array[int]:
        # A conversation with function tools says so in its system message; no other message depends on it.
        options = self._harmony.RenderOptions(conversation_has_function_tools=line.tools[:1] == ("True",))
        try:
            return array("i", self._encoding.render(self._message(line, checked=False), options))
        except Exception:  # the library raises its own error and pyo3's
            return array("i", self._encoding.render(self._message(line), options))

    def _message(self, line: Line, *, checked: bool = True) -> harmony.Message:
        """The library's message. ``checked``: with tools that it can render."""
        lib = self._harmony
        content: list[Any]
        if line.role == "system":
            system = lib.SystemContent(
                model_identity=encodable(self.options.model_identity),
                reasoning_effort=lib.ReasoningEffort[line.text.upper()],
                conversation_start_date=line.tools[1] or None,
                knowledge_cutoff=self.options.knowledge_cutoff,
                channel_config=lib.ChannelConfig.require_channels(list(self.options.channels)),
            )
            if "browser" in line.tools[2:]:
                system = system.with_browser_tool()
            if "python" in line.tools[2:]:
                system = system.with_python_tool()
            content = [system]
        elif line.role == "developer":
            developer = lib.DeveloperContent(instructions=line.text or None)
            if line.tools:
                developer = developer.with_function_tools([self._description(tool, checked) for tool in line.tools])
            content = [developer]
            if line.shape:
                gap = "\n\n" if line.text or line.tools else ""
                content.append(lib.TextContent(text=gap + line.shape))
        else:
            content = [lib.TextContent(text=line.text)]
        return lib.Message(
            author=lib.Author(role=lib.Role(line.role), name=line.name),
            content=content,
            channel=line.channel,
            recipient=line.recipient,
            content_type=line.content_type,
        )

    def _description(self, text: str, checked: bool) -> harmony.ToolDescription:
        """A tool for the library; ``checked``: parameters that it cannot render are shown as ``any``."""
        tool = json.loads(text)

        def shown(parameters: Any) -> harmony.ToolDescription:
            return self._harmony.ToolDescription(
                name=tool["name"], description=tool["description"], parameters=parameters
            )

        if not checked:
            return shown(tool["parameters"])
        parameters: Any
        for parameters in (tool["parameters"], {}):
            description = shown(parameters)
            content = self._harmony.DeveloperContent().with_function_tools([description])
            message = self._harmony.Message.from_role_and_content(self._harmony.Role.DEVELOPER, content)
            try:
                self._encoding.render(message)
            except Exception:  # the library raises its own error and pyo3's
                continue
            return description
        return shown(None)


def render_prompt(
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    response_format: Mapping[str, Any] | None = None,
    reasoning_effort: str | None = None,
    options: PromptOptions | None = None,
) -> list[int]:
    """One prompt's ids; see `Prompts.render`. Keep a `Prompts` where there are many."""
    return Prompts(options).render(
        messages, tools=tools, response_format=response_format, reasoning_effort=reasoning_effort
    )


def _response_section(response_format: Mapping[str, Any] | None) -> str:
    """The developer message's section on the shape of the answer; empty for plain text."""
    if response_format is None:
        return ""
    where = "response_format"
    if not isinstance(response_format, Mapping):
        raise RequestError(f"{where} is not an object", where, "invalid_type")
    kind = response_format.get("type")
    if kind == "text":
        return ""
    if kind == "json_object":
        # llama-cpp-python's own extension: a schema beside the type.
        schema = response_format.get("schema") or {"type": "object"}
        name, description = "json_object", None
    elif kind == "json_schema":
        inner = response_format.get("json_schema", response_format)
        if not isinstance(inner, Mapping):
            raise RequestError(f"{where}.json_schema is not an object", f"{where}.json_schema", "invalid_type")
        name, description, schema = inner.get("name", "response"), inner.get("description"), inner.get("schema", {})
        if not isinstance(name, str):
            raise RequestError(f"{where}.json_schema.name is not a string", f"{where}.json_schema.name", "invalid_type")
    else:
        raise RequestError(
            f"{where}.type is {kind!r}, not one of text, json_object, json_schema", f"{where}.type", "invalid_value"
        )
    if nests_too_deep(schema):
        raise RequestError(f"{where}: the schema nests deeper than {MAX_SCHEMA_DEPTH}", where, "invalid_json_schema")
    lines = ["# Response Formats", "", f"## {name}", ""]
    if isinstance(description, str) and description:
        lines += [f"// {line}" for line in description.splitlines()]
    lines.append(json.dumps(schema, ensure_ascii=False, separators=(",", ":")))
    return encodable("\n".join(lines))
