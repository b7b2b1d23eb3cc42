"""OpenAI chat messages in, Harmony token ids out, through the Harmony library.

Text that people, tools or models wrote is always encoded as ordinary tokens: whatever it spells, it cannot become a
marker. Knows nothing of any server or engine, and nothing of how output is split. Source: OpenAI's format guide
(openai/harmony, docs/format.md). The library writes system and developer messages; the headers of all others are
written here as the guide writes them, since the library's order of a tool result's header is another one
(`functions.f<|channel|>commentary to=assistant`).
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

from ..core import Dialect, RequestError, harmony_encoding

if TYPE_CHECKING:
    import openai_harmony as harmony

__all__ = ["REASONING_EFFORTS", "PromptOptions", "Prompts", "referenced", "render_prompt"]

Effort = Literal["low", "medium", "high"]

REASONING_EFFORTS: Mapping[str, Effort] = {
    "none": "low",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
"""OpenAI's `reasoning_effort` values and the level that gpt-oss is told; it was trained on three."""

IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
BUILTIN_TOOLS = ("browser", "python")
BUILTIN_NAMESPACES = ("browser", "python", "container")
# Kinds of content parts, of OpenAI's two APIs: those that hold text, and the field that does.
TEXT_PARTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
}
MEDIA = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "computer_screenshot": "image",
    "audio": "audio",
    "input_audio": "audio",
    "video_url": "video",
    "file": "file",
    "input_file": "file",
    "document": "file",
}

# Deeper schemas would only come from an attack; the library's JSON reader gives up at 128.
MAX_SCHEMA_DEPTH = 64
CACHED_IDS = 1_000_000
"""How many ids of encoded messages a `Prompts` keeps (4 bytes each, and their texts)."""


@dataclass(frozen=True)
class PromptOptions:
    """What the system message says. All of it is part of the prompt, so a change of any value is a new prefix.

    :ivar model_identity: the first line.
    :ivar knowledge_cutoff: as `2024-06`; None leaves the line out.
    :ivar current_date: `today` (the local date when the prompt is made), a fixed ISO date, a function that returns one,
        or None to leave the line out. The date stands near the start: with `today`, a prompt shares no prefix with
        yesterday's.
    :ivar reasoning_effort: for requests that name none; a key of `REASONING_EFFORTS`.
    :ivar channels: the channels that the model is told to use.
    :ivar builtin_tools: gpt-oss's own tools to describe, of `browser` and `python`, for hosts that run them.
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
        """The date that a prompt made now carries, as `YYYY-MM-DD`."""
        if callable(self.current_date):
            return str(self.current_date())
        if self.current_date == "today":
            return datetime.date.today().isoformat()
        return self.current_date


class Prompts:
    """Builds prompts, and remembers the ids of messages that it has encoded, so that a long history costs little.

    One object serves any number of threads.

    :param options: see `PromptOptions`.
    :raises ImportError: without the Harmony library.
    """

    def __init__(self, options: PromptOptions | None = None) -> None:
        self.options = options or PromptOptions()
        self._harmony = _library()
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
    ) -> list[int]:
        """The ids of the whole prompt, up to and with `<|start|>assistant`.

        :param messages: OpenAI chat messages (role system, developer, user, assistant, tool or function). An assistant
            message may carry `reasoning_content` (or `reasoning`).
        :param tools: OpenAI function tools that are described to the model.
        :param response_format: OpenAI's `response_format`; a schema is shown to the model, not enforced, here.
        :param reasoning_effort: a key of `REASONING_EFFORTS`; None: as the options say.
        :raises RequestError: names the message and the field that cannot be rendered.
        """
        ids: array[int] = array("i")
        for message in self._lines(messages, tools, response_format, reasoning_effort):
            ids.extend(self._encode(message))
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
        return list(self._encoding.encode(_clean(text), disallowed_special=()))

    # A line is one Harmony message as plain values, so that it can be the key of the cache.

    def _lines(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        response_format: Mapping[str, Any] | None,
        reasoning_effort: str | None,
    ) -> list[_Line]:
        effort = REASONING_EFFORTS.get(reasoning_effort or self.options.reasoning_effort)
        if effort is None:
            known = ", ".join(REASONING_EFFORTS)
            raise RequestError(
                f"reasoning_effort {reasoning_effort!r} is not one of {known}", "reasoning_effort", "invalid_value"
            )
        history = History(messages, tools)
        described = tuple(_described(tool, f"tools[{i}]") for i, tool in enumerate(tools or ()))
        lines = [_Line("system", text=effort, tools=(str(bool(described)), self.options.date() or ""))]
        shape = _response_section(response_format)
        if history.instructions is not None or described or shape:
            lines.append(_Line("developer", text=history.instructions or "", tools=described, shape=shape))
        return lines + history.lines

    def _encode(self, line: _Line) -> array[int]:
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

    def _frame(self, line: _Line) -> array[int]:
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

    def _rendered(self, line: _Line) -> array[int]:
        # A conversation with function tools says so in its system message; no other message depends on it.
        options = self._harmony.RenderOptions(conversation_has_function_tools=line.tools[:1] == ("True",))
        try:
            return array("i", self._encoding.render(self._message(line, checked=False), options))
        except Exception:  # the library raises its own error and pyo3's
            return array("i", self._encoding.render(self._message(line), options))

    def _message(self, line: _Line, *, checked: bool = True) -> harmony.Message:
        """The library's message. ``checked``: with tools that it can render."""
        lib = self._harmony
        content: list[Any]
        if line.role == "system":
            system = lib.SystemContent(
                model_identity=_clean(self.options.model_identity),
                reasoning_effort=lib.ReasoningEffort[line.text.upper()],
                conversation_start_date=line.tools[1] or None,
                knowledge_cutoff=self.options.knowledge_cutoff,
                channel_config=lib.ChannelConfig.require_channels(list(self.options.channels)),
            )
            if "browser" in self.options.builtin_tools:
                system = system.with_browser_tool()
            if "python" in self.options.builtin_tools:
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

    def _description(self, described: str, checked: bool) -> harmony.ToolDescription:
        """A tool for the library; ``checked``: parameters that it cannot render are shown as `any`."""
        tool = json.loads(described)

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


@dataclass(frozen=True)
class _Line:
    """One Harmony message. For `system`: text is the effort, tools are (has function tools, date)."""

    role: str
    name: str | None = None
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    text: str = ""
    tools: tuple[str, ...] = ()
    shape: str = ""


class History:
    """OpenAI messages, read in order, as Harmony lines.

    Pictures and files, which gpt-oss cannot read, are refused in the newest user message, where somebody asks about
    them; in what came before and in tools' results a placeholder tells the model that they were there.

    :ivar instructions: the text of the system and developer messages that open the conversation; None without any.
    :ivar lines: everything after them.
    """

    def __init__(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None) -> None:
        if not isinstance(messages, Sequence) or isinstance(messages, str | bytes) or not messages:
            raise RequestError("messages is a list with at least one message", "messages", "invalid_type")
        self._declared = {tool_name(tool, f"tools[{i}]") for i, tool in enumerate(tools or ())}
        self._recipients: dict[str, str] = {}
        self.lines: list[_Line] = []
        opening: list[str] = []
        users = (i for i, m in enumerate(messages) if isinstance(m, Mapping) and m.get("role") == "user")
        newest = max(users, default=-1)
        for i, message in enumerate(messages):
            where = f"messages[{i}]"
            if not isinstance(message, Mapping):
                raise RequestError(f"{where} is not an object", where, "invalid_type")
            role = message.get("role")
            if role in ("system", "developer"):
                text = content_text(message.get("content"), f"{where}.content")
                if len(opening) == i:
                    opening.append(text)
                else:
                    self.lines.append(_Line("developer", text=text))
            elif role == "user":
                text = content_text(message.get("content"), f"{where}.content", media=i != newest)
                self.lines.append(_Line("user", text=text))
            elif role == "assistant":
                self._assistant(message, where)
            elif role in ("tool", "function"):
                self._result(message, where)
            else:
                raise RequestError(
                    f"{where}.role is {role!r}, not one of system, developer, user, assistant, tool",
                    f"{where}.role",
                    "invalid_value",
                )
        self.instructions = "\n\n".join(text for text in opening if text) if opening else None
        self._drop_old_reasoning()

    def _assistant(self, message: Mapping[str, Any], where: str) -> None:
        reasoning, content = _reasoning(message)
        if reasoning:
            self.lines.append(_Line("assistant", channel="analysis", text=_clean(reasoning)))
        calls = message.get("tool_calls") or []
        if not isinstance(calls, Sequence) or isinstance(calls, str | bytes):
            raise RequestError(f"{where}.tool_calls is not a list", f"{where}.tool_calls", "invalid_type")
        legacy = message.get("function_call")
        text = content_text(content, f"{where}.content", optional=True, media=True)
        if not text and isinstance(message.get("refusal"), str):
            text = _clean(message["refusal"])
        if text:
            # Words beside calls are what the model said before calling: a preamble.
            channel = "commentary" if calls or legacy else "final"
            self.lines.append(_Line("assistant", channel=channel, text=text))
        for j, call in enumerate(calls):
            at = f"{where}.tool_calls[{j}]"
            if not isinstance(call, Mapping):
                raise RequestError(f"{at} is not an object", at, "invalid_type")
            kind = "custom" if call.get("type") == "custom" else "function"
            function = call.get(kind)
            if not isinstance(function, Mapping):
                raise RequestError(f"{at}.{kind} is missing", f"{at}.{kind}", "missing_required_parameter")
            if kind == "custom":
                if not isinstance(function.get("input"), str):
                    raise RequestError(f"{at}.custom.input is not a string", f"{at}.custom.input", "invalid_type")
                function = {"name": function.get("name"), "arguments": custom_arguments(function["input"])}
            recipient = self._call(function, f"{at}.{kind}")
            if isinstance(call.get("id"), str):
                self._recipients[call["id"]] = recipient
        if legacy is not None:
            if not isinstance(legacy, Mapping):
                raise RequestError(f"{where}.function_call is not an object", f"{where}.function_call", "invalid_type")
            self._call(legacy, f"{where}.function_call")

    def _call(self, function: Mapping[str, Any], where: str) -> str:
        name, arguments = function.get("name"), function.get("arguments")
        if not isinstance(name, str) or not name:
            raise RequestError(f"{where}.name is missing", f"{where}.name", "missing_required_parameter")
        if isinstance(arguments, Mapping):
            arguments = json.dumps(arguments, ensure_ascii=False)
        if arguments is None:
            arguments = "{}"
        if not isinstance(arguments, str):
            raise RequestError(f"{where}.arguments is not a string", f"{where}.arguments", "invalid_type")
        recipient = self._recipient(_clean(name))
        builtin = not recipient.startswith("functions.")
        self.lines.append(
            _Line(
                "assistant",
                # gpt-oss calls its own tools while it thinks, and functions where the user may see them.
                channel="analysis" if builtin else "commentary",
                recipient=recipient,
                content_type="code" if builtin else "json",
                text=_clean(arguments),
            )
        )
        return recipient

    def _recipient(self, name: str) -> str:
        if name not in self._declared and name.split(".", 1)[0] in BUILTIN_NAMESPACES:
            return name
        return name if name.startswith("functions.") and name not in self._declared else f"functions.{name}"

    def _result(self, message: Mapping[str, Any], where: str) -> None:
        if message["role"] == "function":
            name = message.get("name")
            if not isinstance(name, str) or not name:
                raise RequestError(f"{where}.name is missing", f"{where}.name", "missing_required_parameter")
            author = self._recipient(_clean(name))
        else:
            call = message.get("tool_call_id")
            if not isinstance(call, str):
                raise RequestError(
                    f"{where}.tool_call_id is missing", f"{where}.tool_call_id", "missing_required_parameter"
                )
            if call not in self._recipients:
                raise RequestError(
                    f"{where}.tool_call_id {call!r} is not the id of a tool call in an assistant message before it",
                    f"{where}.tool_call_id",
                    "invalid_value",
                )
            author = self._recipients[call]
        text = content_text(message.get("content"), f"{where}.content", optional=True, media=True, between="\n")
        self.lines.append(_Line("tool", name=author, channel="commentary", recipient="assistant", text=text))

    def _drop_old_reasoning(self) -> None:
        """OpenAI's rule: reasoning that led to a final answer is not shown again; that of a running tool loop is."""
        last = max((i for i, line in enumerate(self.lines) if line.channel == "final"), default=-1)
        self.lines = [
            line
            for i, line in enumerate(self.lines)
            if i > last or line.channel != "analysis" or line.recipient is not None
        ]


def tool_name(tool: Mapping[str, Any], where: str) -> str:
    """The name of an OpenAI function or custom tool, in chat or responses shape.

    :raises RequestError: for anything else, with `where` as the path of the field.
    """
    if not isinstance(tool, Mapping):
        raise RequestError(f"{where} is not an object", where, "invalid_type")
    kind = tool.get("type", "function")
    if kind not in ("function", "custom"):
        raise RequestError(
            f"{where}.type is {kind!r}; only function and custom tools can be served", f"{where}.type", "invalid_value"
        )
    inner = tool.get(kind, tool)
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(name, str) or not name.strip():
        raise RequestError(f"{where}.{kind}.name is missing", f"{where}.{kind}.name", "missing_required_parameter")
    return _clean(name)


def tool_function(tool: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """What the model is offered for a tool: a custom tool, which takes free text, is a function with one string.

    :raises RequestError: for anything that is neither, with `where` as the path of the field.
    """
    name = tool_name(tool, where)
    if tool.get("type") != "custom":
        return tool.get("function", tool)  # type: ignore[no-any-return]
    custom = tool.get("custom", tool)
    text: dict[str, Any] = {"type": "string"}
    form = custom.get("format")
    if form is not None and not isinstance(form, Mapping):
        raise RequestError(f"{where}.custom.format is not an object", f"{where}.custom.format", "invalid_type")
    grammar = form.get("grammar", form) if form is not None and form.get("type") == "grammar" else None
    if isinstance(grammar, Mapping) and isinstance(grammar.get("definition"), str):
        text["description"] = f"Follows this {grammar.get('syntax', 'lark')} grammar:\n{grammar['definition']}"
    parameters = {"type": "object", "properties": {"input": text}, "required": ["input"], "additionalProperties": False}
    return {"name": name, "description": custom.get("description"), "parameters": parameters}


def custom_arguments(text: str) -> str:
    """The arguments that stand for a custom tool's `input`."""
    return json.dumps({"input": text}, ensure_ascii=False)


def custom_input(arguments: str) -> str:
    """The `input` of a custom tool's call; what is not the object asked for is passed on as it stands."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value["input"] if isinstance(value, dict) and isinstance(value.get("input"), str) else arguments


def _described(tool: Mapping[str, Any], where: str) -> str:
    """A tool as JSON text with name, description and parameters; parameters too deep for any reader become `{}`."""
    function = tool_function(tool, where)
    description = function.get("description")
    parameters = function.get("parameters")
    if parameters is not None and (not isinstance(parameters, Mapping) or _depth(parameters) > MAX_SCHEMA_DEPTH):
        parameters = {}
    value = {
        "name": tool_name(tool, where),
        "description": description if isinstance(description, str) else "",
        "parameters": parameters and Inlined(parameters).schema,
    }
    return _clean(json.dumps(value, ensure_ascii=False))


class Inlined:
    """A schema with its local references (`#/$defs/…`, as pydantic writes them) put in place, which the library cannot.

    A reference to something around itself, to nowhere, or one too many becomes `{}`: any value.

    :ivar schema: the result.
    """

    MOST_VALUES = 20_000

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = self.MOST_VALUES
        text = "$ref" in root or "$defs" in root or "definitions" in root
        self.schema: Any = self._walk(root, ()) if text else root

    def _walk(self, value: Any, inside: tuple[str, ...]) -> Any:
        self._left -= 1
        if isinstance(value, list | tuple):
            return [self._walk(item, inside) for item in value]
        if not isinstance(value, Mapping):
            return value
        reference = value.get("$ref")
        if not isinstance(reference, str):
            return {k: self._walk(v, inside) for k, v in value.items() if k not in ("$defs", "definitions")}
        beside = {k: self._walk(v, inside) for k, v in value.items() if k != "$ref"}
        target = referenced(self._root, reference)
        if reference in inside or not isinstance(target, Mapping) or self._left <= 0 or len(inside) >= MAX_SCHEMA_DEPTH:
            return beside
        return {**self._walk(target, (*inside, reference)), **beside}


def referenced(root: Any, reference: str) -> Any:
    """What a local reference (`#/$defs/…`) in a JSON Schema stands for; None for nothing. `root`: the whole schema."""
    value = root
    for step in reference.removeprefix("#").split("/")[1:] if reference.startswith("#/") else [""]:
        value = value.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(value, Mapping) else None
    return value


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
    if _depth(schema) > MAX_SCHEMA_DEPTH:
        raise RequestError(f"{where}: the schema nests deeper than {MAX_SCHEMA_DEPTH}", where, "invalid_json_schema")
    lines = ["# Response Formats", "", f"## {name}", ""]
    if isinstance(description, str) and description:
        lines += [f"// {line}" for line in description.splitlines()]
    lines.append(json.dumps(schema, ensure_ascii=False, separators=(",", ":")))
    return _clean("\n".join(lines))


def content_text(content: Any, where: str, *, optional: bool = False, media: bool = False, between: str = "") -> str:
    """The text of `content`: a string, or parts (of the chat or the Responses API).

    :param optional: whether it may be None: no text.
    :param media: whether a placeholder may stand for a part that is no text.
    :param between: what is put between parts. What a person says is put together as it stands.
    :raises RequestError: with `where` as the path of the field.
    """
    if isinstance(content, str):
        return _clean(content)
    if content is None and optional:
        return ""
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise RequestError(f"{where} is neither a string nor a list of parts", where, "invalid_type")
    texts = []
    for i, part in enumerate(content):
        at = f"{where}[{i}]"
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(kind, str) or (kind not in TEXT_PARTS and not media):
            raise RequestError(
                f"{at}.type is {kind!r}: gpt-oss reads text parts only", f"{at}.type", "unsupported_content_part"
            )
        if kind not in TEXT_PARTS:
            texts.append(placeholder(part))
            continue
        field = TEXT_PARTS[kind]
        text = part.get(field)
        if not isinstance(text, str):
            raise RequestError(f"{at}.{field} is not a string", f"{at}.{field}", "invalid_type")
        texts.append(text)
    return _clean(between.join(texts))


def placeholder(part: Mapping[str, Any]) -> str:
    """What the model is shown in the place of a content part that it cannot read, of any API."""
    kind = part["type"]
    inner = part.get(kind)
    names = (value.get(key) for value in (part, inner) if isinstance(value, Mapping) for key in ("filename", "title"))
    name = next((f" {name[:200]!r}" for name in names if isinstance(name, str) and name), "")
    return f"[{MEDIA.get(kind, kind[:50])}{name} left out: this model reads text only]"


def _reasoning(message: Mapping[str, Any]) -> tuple[str, Any]:
    """The reasoning that an assistant message carries, wherever clients put it, and its content without it.

    `reasoning_content` (DeepSeek's field), `reasoning` (OpenRouter's and vLLM's), `thinking` (Ollama's),
    `reasoning_details` (OpenRouter's list) and `thinking` parts of the content (Mistral's, LiteLLM's).
    """
    content = message.get("content")
    thoughts: list[str] = []
    if isinstance(content, list | tuple):
        thoughts = [_thought(part) for part in content if _is_thought(part)]
        content = [part for part in content if not _is_thought(part)]
    for field in ("reasoning_content", "reasoning", "thinking"):
        if isinstance(message.get(field), str) and message[field]:
            return message[field], content
    details = message.get("reasoning_details")
    if not thoughts and isinstance(details, list | tuple):
        place: Any = None
        for part in details:
            thought = _thought(part)
            if not thought:
                continue
            # A stream's pieces of one text have its index.
            if thoughts and place is not None and part.get("index") == place:
                thoughts[-1] += thought
            else:
                thoughts.append(thought)
            place = part.get("index")
    return "\n".join(filter(None, thoughts)), content


def _is_thought(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("thinking", "redacted_thinking", "reasoning")


def _thought(part: Any) -> str:
    """The text of a piece of reasoning; empty for what cannot be read (encrypted, or of another shape)."""
    if not isinstance(part, Mapping):
        return ""
    for field in ("text", "thinking", "summary"):
        if isinstance(part.get(field), str):
            return str(part[field])
    return "".join(_thought(inner) for inner in part["thinking"]) if isinstance(part.get("thinking"), list) else ""


def _clean(text: str) -> str:
    """`text` with surrogates paired or, where they stand alone, replaced: UTF-8 has no room for them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _depth(value: Any) -> int:
    """How deep a JSON value nests, counted without recursion, up to one past `MAX_SCHEMA_DEPTH`."""
    depth, level = 0, [value]
    while level and depth <= MAX_SCHEMA_DEPTH:
        depth += 1
        level = [
            child
            for item in level
            if isinstance(item, Mapping | list | tuple)
            for child in (item.values() if isinstance(item, Mapping) else item)
        ]
    return depth


def _library() -> Any:
    try:
        import openai_harmony
    except ImportError as error:
        raise ImportError(
            "prompts are built with the Harmony library: pip install 'harmony-plugin[harmony]' "
            "(or any distribution of openai_harmony)"
        ) from error
    return openai_harmony
