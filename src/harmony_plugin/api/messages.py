"""Anthropic's Messages API: blocks to chat messages on the way in, a reply's pieces to blocks and events on the way
out.

Pure translation: no HTTP, no engine, no Harmony. A whole reply goes through the same `MessageWriter` that streams.
Source: Anthropic's API reference and the types of its Python client, against which the tests check every block and
event. gpt-oss always reasons: its reasoning is returned as thinking blocks unless the request says `thinking:
disabled`, and what the client sends back of it is shown to the model again. `tools` knows the tools that the API
defines by type.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..core import RequestError, Started, Text, ToolCallDelta
from ..prompts import placeholder
from .conversation import Conversation, string_of
from .errors import ThreadsUnsupported, error_body, from_validation
from .hosted import HostedTool, HostedTools, ToolResult, failure
from .reply import Piece, Usage, Writer
from .tools import anthropic_function

__all__ = ["MessageWriter", "MessagesRequest", "check", "to_chat"]

Json: TypeAlias = "dict[str, Any]"

SIGNATURE = "unsigned"
"""Clients want a signature on thinking blocks and send it back; there is nothing here to protect with one."""

BILLING = "x-anthropic-billing-header:"

# Fields that chat has, too, and their names there.
PASSED_ON = {
    **{name: name for name in ("temperature", "top_p", "top_k", "metadata", "stream")},
    "max_tokens": "max_completion_tokens",
    "stop_sequences": "stop",
}
BLOCKS = {"reasoning": "thinking", "content": "text"}
CALL_BLOCKS = ("tool_use", "mcp_tool_use")
#: What a stream tells of a message at its end.
ENDS = ("stop_reason", "stop_sequence", "harmony")
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class InputMessage(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class Thinking(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    type: str
    budget_tokens: Annotated[int, Field(ge=1)] | None = None


class OutputConfig(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    effort: str | None = None
    format: dict[str, Any] | None = None


class InputTool(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class MessagesRequest(BaseModel):
    """The body of a Messages request, as far as this server reads it; unknown fields are let through."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    messages: list[InputMessage] = Field(min_length=1)
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    tools: list[InputTool] | None = None
    tool_choice: ToolChoice | None = None
    metadata: dict[str, Any] | None = None
    mcp_servers: list[dict[str, Any]] | None = None


def check(body: Any, *, counting: bool = False) -> MessagesRequest:
    """The request in `body`, a JSON value.

    Args:
        counting: for `count_tokens`, which needs no `max_tokens`.

    Raises:
        RequestError: naming the first field that is wrong.
    """
    if not isinstance(body, dict):
        raise RequestError("The body is not a JSON object.", None, "invalid_type")
    if body.get("thread") is not None:
        # Before all else: what goes on from a thread has no messages of its own. The client then sends them all.
        raise ThreadsUnsupported
    if body.get("grammar") is not None:
        raise RequestError("grammar is not supported: use output_config.format.", "grammar", "unsupported_parameter")
    try:
        request = MessagesRequest.model_validate(body)
    except ValidationError as error:
        raise from_validation(error) from error
    for i, server in enumerate(request.mcp_servers or ()):
        raise RequestError(
            f"mcp_servers[{i}]: this server would have to call {server.get('name')!r}, and calls none: connect to it "
            "in your program, and offer its tools.",
            "mcp_servers",
            "unsupported_parameter",
        )
    if request.max_tokens is None and not counting:
        raise RequestError("max_tokens: Field required", "max_tokens", "missing_required_parameter")
    return request


def to_chat(request: MessagesRequest, hosted: HostedTools | None = None) -> Json:
    """The body of the chat request that means the same.

    Args:
        hosted: the tools that the server runs.

    Raises:
        RequestError: for a block or tool that cannot be translated.
    """
    chat: Json = {"model": request.model, "messages": _messages(request, hosted or HostedTools())}
    for name, chats in PASSED_ON.items():
        value = getattr(request, name)
        if value is not None and value != []:
            chat[chats] = value
    tools = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(request.tools or ())]
    if tools:
        chat["tools"] = tools
    if request.tool_choice is not None:
        chat |= _tool_choice(request.tool_choice)
    thinking, config = request.thinking, request.output_config
    if thinking is not None and thinking.type == "disabled":
        chat["reasoning_effort"] = "none"
    elif thinking is not None and thinking.budget_tokens is not None:
        chat["max_reasoning_tokens"] = thinking.budget_tokens
    if config is not None and config.effort is not None:
        chat["reasoning_effort"] = config.effort
    if config is not None and config.format is not None:
        chat["response_format"] = _response_format(config.format)
    return chat


def _messages(request: MessagesRequest, hosted: HostedTools) -> list[Json]:
    conversation = Conversation()
    system = _without_billing(_text(request.system, "system")) if request.system else ""
    if system:
        conversation.say("system", system)
    newest = max((i for i, message in enumerate(request.messages) if _says(message)), default=-1)
    for i, message in enumerate(request.messages):
        where = f"messages[{i}].content"
        if message.role == "assistant":
            _assistant(message.content, where, conversation, hosted)
        elif message.role == "system":
            conversation.say("system", _text(message.content, where))
        else:
            _user(message.content, where, conversation, media=i != newest)
    return conversation.messages


def _tool_choice(choice: ToolChoice) -> Json:
    one = choice.disable_parallel_tool_use
    chat: Json = {} if one is None else {"parallel_tool_calls": not one}
    if choice.type != "tool":
        return {**chat, "tool_choice": {"auto": "auto", "any": "required", "none": "none"}[choice.type]}
    if not choice.name:
        raise RequestError("tool_choice.name: Field required", "tool_choice.name", "missing_required_parameter")
    return {**chat, "tool_choice": {"type": "function", "function": {"name": choice.name}}}


def _response_format(shape: Json) -> Json:
    where = "output_config.format"
    if shape.get("type") != "json_schema":
        raise RequestError(f"{where}.type is {shape.get('type')!r}.", f"{where}.type", "invalid_value")
    schema = shape.get("schema")
    if not isinstance(schema, dict):
        raise RequestError(f"{where}.schema: Field required", f"{where}.schema", "missing_required_parameter")
    return {"type": "json_schema", "json_schema": {"name": "response", "schema": schema, "strict": True}}


def _without_billing(system: str) -> str:
    """Claude Code's first block names its release and a hash, another one in each session: nothing for the model, and
    with it no prompt begins as one that was evaluated before."""
    first, _, rest = system.partition("\n")
    return rest.lstrip("\n") if first.startswith(BILLING) else system


def _tool(tool: InputTool, where: str) -> Json:
    """A chat tool."""
    if tool.type not in (None, "custom", "function"):
        kind = str(tool.type)
        return {"type": "function", "function": anthropic_function(kind, tool.name or kind, where)}
    for field in ("name", "input_schema"):
        if not getattr(tool, field) and getattr(tool, field) != {}:
            raise RequestError(f"{where}.{field}: Field required", f"{where}.{field}", "missing_required_parameter")
    function: Json = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _says(message: InputMessage) -> bool:
    """Whether a user message is a person's: what stands beside tools' results comes from the agent, as they do."""
    blocks = message.content if isinstance(message.content, list) else ()
    return message.role == "user" and not any(block.get("type") == "tool_result" for block in blocks)


def _assistant(content: str | Sequence[Json], where: str, conversation: Conversation, hosted: HostedTools) -> None:
    if isinstance(content, str):
        conversation.content(content)
        return
    for i, block in enumerate(content):
        at = f"{where}[{i}]"
        kind = block.get("type")
        if kind == "text":
            # More of the turn follows: that was no answer yet.
            conversation.content(string_of(block, "text", at), "commentary" if i + 1 < len(content) else None)
        elif kind == "thinking":
            conversation.reasoning(string_of(block, "thinking", at))
        elif kind in ("tool_use", "mcp_tool_use"):
            given = block.get("input")
            if not isinstance(given, dict):
                raise RequestError(f"{at}.input is not an object.", f"{at}.input", "invalid_type")
            function = {"name": string_of(block, "name", at), "arguments": json.dumps(given, ensure_ascii=False)}
            if kind == "mcp_tool_use":
                function = hosted.call(string_of(block, "server_name", at), **function)
            conversation.call({"id": string_of(block, "id", at), "type": "function", "function": function})
        elif kind == "mcp_tool_result":
            _result(block, at, conversation)
        elif kind != "redacted_thinking":  # not ours: nothing can be read in it
            raise RequestError(f"{at}.type is {kind!r}, which is not supported.", f"{at}.type", "invalid_value")


def _user(content: str | Sequence[Json], where: str, conversation: Conversation, *, media: bool) -> None:
    """Add the chat messages that a user message's blocks are. `media`: see `_block_text`."""
    if isinstance(content, str):
        conversation.say("user", content)
        return
    texts: list[str] = []
    for i, block in enumerate(content):
        at = f"{where}[{i}]"
        if block.get("type") != "tool_result":
            texts.append(_block_text(block, at, media))
            continue
        if texts:
            conversation.say("user", "\n".join(texts))
            texts = []
        _result(block, at, conversation)
    if texts:
        conversation.say("user", "\n".join(texts))


def _result(block: Json, at: str, conversation: Conversation) -> None:
    text = _text(block.get("content") or "", f"{at}.content", media=True)
    if block.get("is_error"):
        text = failure(text)
    conversation.result(string_of(block, "tool_use_id", at), text)


def _text(content: Any, where: str, *, media: bool = False) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RequestError(f"{where} is neither a string nor a list of blocks.", where, "invalid_type")
    texts = []
    for i, block in enumerate(content):
        if not isinstance(block, Mapping):
            raise RequestError(f"{where}[{i}] is not an object.", f"{where}[{i}]", "invalid_type")
        texts.append(_block_text(block, f"{where}[{i}]", media))
    return "\n".join(texts)


def _block_text(block: Mapping[str, Any], at: str, media: bool) -> str:
    """A block's text. `media`: whether a placeholder may stand for one that is no text."""
    kind = block.get("type")
    if kind == "text":
        return string_of(block, "text", at)
    source, title = block.get("source"), block.get("title")
    heading = f"{title}\n" if isinstance(title, str) else ""
    if kind == "search_result":
        return f"{heading}{source if isinstance(source, str) else ''}\n" + _text(block.get("content"), f"{at}.content")
    if kind == "document" and isinstance(source, Mapping):
        if source.get("type") == "text":
            return heading + string_of(source, "data", f"{at}.source")
        if source.get("type") == "content":
            return heading + _text(source.get("content"), f"{at}.source.content", media=media)
    if kind == "tool_reference":
        return string_of(block, "tool_name", at)
    if media and isinstance(kind, str):
        return placeholder(block)
    raise RequestError(f"{at}.type is {kind!r}: gpt-oss reads text only.", f"{at}.type", "invalid_value")


class MessageWriter(Writer):
    """A reply's pieces in, Messages events out: a block a message. `message` is the whole reply at any time.

    Args:
        model: the name of the model that answers.
        thinking: whether reasoning is given out.
        hosted: the tools that the server runs.
    """

    def __init__(self, model: str, *, thinking: bool = True, hosted: HostedTools | None = None) -> None:
        self._thinking = thinking
        self._hosted = hosted or HostedTools()
        self._running: HostedTool | None = None  # the hosted tool whose call is being written
        self._open: str | None = None  # the type of the block being written
        self._written: list[str] = []  # the pieces of that block, put together once it ends
        self.identifier = f"msg_{secrets.token_hex(12)}"
        self.message: Json = {
            "id": self.identifier,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": Usage().to_anthropic(),
        }

    def start(self, usage: Usage) -> Iterator[Json]:
        self.message["usage"] = usage.to_anthropic()
        yield {"type": "message_start", "message": {**self.message, "content": []}}

    def feed(self, piece: Piece) -> Iterator[Json]:
        for event in piece.events:
            if isinstance(event, Text):
                yield from self._text(event)
                continue
            yield from self.close()
            if isinstance(event, Started) and event.call is not None:
                yield self._begin_call(event.call)
        if piece.result is not None:
            yield from self._result(piece.result)
        if piece.ending is not None:
            self.message["stop_reason"] = STOP_REASONS[piece.ending.finish_reason]
            if piece.ending.stop_string is not None:
                self.message |= {"stop_reason": "stop_sequence", "stop_sequence": piece.ending.stop_string}
            if piece.ending.told is not None:
                self.message["harmony"] = piece.ending.told

    def close(self) -> Iterator[Json]:
        """The events that end the block being written, if there is one."""
        if self._open is None:
            return
        kind, written = self._open, "".join(self._written)
        self._written.clear()
        block = self.message["content"][-1]
        if self._running is not None and self._running.code is not None:
            written = self._running.arguments(written)
            yield self._delta("input_json", partial_json=written)
        if kind in CALL_BLOCKS:
            block["input"] = _input(written)
        else:
            block[kind] = written
        if kind == "thinking":
            block["signature"] = SIGNATURE
            yield self._delta("signature", signature=SIGNATURE)
        self._open = self._running = None
        yield {"type": "content_block_stop", "index": self._index()}

    def finish(self, usage: Usage) -> Iterator[Json]:
        yield from self.close()
        self.message["usage"] = usage.to_anthropic()
        yield {
            "type": "message_delta",
            "delta": {name: self.message[name] for name in ENDS if name in self.message},
            "usage": self.message["usage"],
        }
        yield {"type": "message_stop"}

    def whole(self, pieces: Iterable[Piece], usage: Usage) -> Json:
        self._run(pieces, usage)
        return self.message

    def fail(self, error: RequestError) -> Iterator[Json]:
        yield error_body(error, anthropic=True)

    def _text(self, event: Text) -> Iterator[Json]:
        if event.index is not None:
            self._written.append(event.text)
            # What is no JSON of the model's is told as some once it is complete.
            if event.text and (self._running is None or self._running.code is None):
                yield self._delta("input_json", partial_json=event.text)
            return
        kind = BLOCKS[event.field]
        if kind == "thinking" and not self._thinking:
            return
        if self._open is None:
            yield self._begin(kind, **{kind: ""}, **({"signature": ""} if kind == "thinking" else {}))
        self._written.append(event.text)
        yield self._delta(kind, **{kind: event.text})

    def _begin_call(self, call: ToolCallDelta) -> Json:
        tool = self._running = self._hosted.get(call.name)
        if tool is None:
            return self._begin("tool_use", id=call.id, name=call.name, input={})
        return self._begin("mcp_tool_use", id=call.id, name=tool.name, server_name=tool.server, input={})

    def _result(self, result: ToolResult) -> Iterator[Json]:
        yield from self.close()
        content = [{"type": "text", "text": result.output, "citations": None}]
        yield self._begin(
            "mcp_tool_result", tool_use_id=result.call, is_error=result.failed, content=content if result.output else []
        )
        self._open = None
        yield {"type": "content_block_stop", "index": self._index()}

    def _begin(self, kind: str, **fields: Any) -> Json:
        self._open = kind
        block = {"type": kind, **fields}
        self.message["content"].append(block)
        return {"type": "content_block_start", "index": self._index(), "content_block": dict(block)}

    def _delta(self, kind: str, **fields: Any) -> Json:
        delta = {"type": f"{kind}_delta", **fields}
        return {"type": "content_block_delta", "index": self._index(), "delta": delta}

    def _index(self) -> int:
        return len(self.message["content"]) - 1


def _input(arguments: str) -> Any:
    """The object that `tool_use` must hold. Arguments that are not one object are kept, under a name of their own, so
    that nothing is lost and the client can tell the model."""
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"arguments": arguments}
