"""Anthropic's Messages API in terms of OpenAI's chat API: blocks to messages on the way in, chunks to blocks and
events on the way out.

Pure translation: no HTTP, no engine, no Harmony. A whole reply is one chunk through the same `Translation` that
streams. Source: Anthropic's API reference and the types of its Python client, against which the tests check every
block and event. gpt-oss always reasons: its reasoning is returned as thinking blocks unless the request says
`thinking: disabled`, and what the client sends back of it is shown to the model again. `tools` knows the tools that the
API defines by type.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..core import RequestError
from ..prompts import placeholder
from .errors import ThreadsUnsupported, from_validation
from .tools import anthropic_function

__all__ = ["MessagesRequest", "Translation", "check", "to_chat"]

Json: TypeAlias = "dict[str, Any]"

SIGNATURE = "unsigned"
"""Clients want a signature on thinking blocks and send it back; there is nothing here to protect with one."""

BILLING = "x-anthropic-billing-header:"

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class Message(BaseModel):
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


class Tool(BaseModel):
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
    messages: list[Message] = Field(min_length=1)
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    metadata: dict[str, Any] | None = None
    mcp_servers: list[dict[str, Any]] | None = None


def check(body: Any, *, counting: bool = False) -> MessagesRequest:
    """The request in `body`, a JSON value.

    :param counting: for `count_tokens`, which needs no `max_tokens`.
    :raises RequestError: naming the first field that is wrong.
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


def to_chat(request: MessagesRequest) -> Json:
    """The body of the chat request that means the same.

    :raises RequestError: for a block or tool that cannot be translated.
    """
    messages: list[Json] = []
    system = _without_billing(_text(request.system, "system")) if request.system else ""
    if system:
        messages.append({"role": "system", "content": system})
    newest = max((i for i, message in enumerate(request.messages) if _says(message)), default=-1)
    for i, message in enumerate(request.messages):
        where = f"messages[{i}].content"
        if message.role == "assistant":
            messages.append(_assistant(message.content, where))
        elif message.role == "system":
            messages.append({"role": "system", "content": _text(message.content, where)})
        else:
            messages += _user(message.content, where, media=i != newest)
    chat: Json = {"model": request.model, "messages": messages}
    for name in ("temperature", "top_p", "top_k", "metadata", "stream"):
        if getattr(request, name) is not None:
            chat[name] = getattr(request, name)
    if request.max_tokens is not None:
        chat["max_completion_tokens"] = request.max_tokens
    if request.stop_sequences:
        chat["stop"] = request.stop_sequences
    tools = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(request.tools or ())]
    if tools:
        chat["tools"] = tools
    choice = request.tool_choice
    if choice is not None:
        if choice.type == "tool":
            if not choice.name:
                raise RequestError("tool_choice.name: Field required", "tool_choice.name", "missing_required_parameter")
            chat["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        else:
            chat["tool_choice"] = {"auto": "auto", "any": "required", "none": "none"}[choice.type]
        if choice.disable_parallel_tool_use:
            chat["parallel_tool_calls"] = False
    config = request.output_config
    if request.thinking is not None:
        if request.thinking.type == "disabled":
            chat["reasoning_effort"] = "none"
        elif request.thinking.budget_tokens is not None:
            chat["max_reasoning_tokens"] = request.thinking.budget_tokens
    if config is not None and config.effort is not None:
        chat["reasoning_effort"] = config.effort
    if config is not None and config.format is not None:
        shape = config.format
        if shape.get("type") != "json_schema":
            raise RequestError(
                f"output_config.format.type is {shape.get('type')!r}.", "output_config.format.type", "invalid_value"
            )
        if not isinstance(shape.get("schema"), dict):
            where = "output_config.format.schema"
            raise RequestError(f"{where}: Field required", where, "missing_required_parameter")
        chat["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "response", "schema": shape.get("schema"), "strict": True},
        }
    return chat


def _without_billing(system: str) -> str:
    """Claude Code's first block names its release and a hash, another one in each session: nothing for the model, and
    with it no prompt begins as one that was evaluated before."""
    first, _, rest = system.partition("\n")
    return rest.lstrip("\n") if first.startswith(BILLING) else system


def _tool(tool: Tool, where: str) -> Json:
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


def _says(message: Message) -> bool:
    """Whether a user message is a person's: what stands beside tools' results comes from the agent, as they do."""
    blocks = message.content if isinstance(message.content, list) else ()
    return message.role == "user" and not any(block.get("type") == "tool_result" for block in blocks)


def _assistant(content: str | Sequence[Json], where: str) -> Json:
    message: Json = {"role": "assistant", "content": None}
    if isinstance(content, str):
        message["content"] = content
        return message
    texts, thoughts, calls = [], [], []
    for i, block in enumerate(content):
        at = f"{where}[{i}]"
        kind = block.get("type")
        if kind == "text":
            texts.append(_string(block, "text", at))
        elif kind == "thinking":
            thoughts.append(_string(block, "thinking", at))
        elif kind == "tool_use":
            given = block.get("input")
            if not isinstance(given, dict):
                raise RequestError(f"{at}.input is not an object.", f"{at}.input", "invalid_type")
            function = {"name": _string(block, "name", at), "arguments": json.dumps(given, ensure_ascii=False)}
            calls.append({"id": _string(block, "id", at), "type": "function", "function": function})
        elif kind != "redacted_thinking":  # not ours: nothing can be read in it
            raise RequestError(f"{at}.type is {kind!r}, which is not supported.", f"{at}.type", "invalid_value")
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    if texts:
        message["content"] = "\n".join(texts)
    if calls:
        message["tool_calls"] = calls
    return message


def _user(content: str | Sequence[Json], where: str, *, media: bool) -> list[Json]:
    """The chat messages that a user message's blocks are. `media`: see `_block_text`."""
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    messages: list[Json] = []
    for i, block in enumerate(content):
        at = f"{where}[{i}]"
        kind = block.get("type")
        if kind == "tool_result":
            text = _text(block.get("content") or "", f"{at}.content", media=True)
            if block.get("is_error"):
                text = f"Error: {text}" if text else "Error"
            messages.append({"role": "tool", "tool_call_id": _string(block, "tool_use_id", at), "content": text})
            continue
        text = _block_text(block, at, media)
        if messages and messages[-1]["role"] == "user":
            messages[-1]["content"] += f"\n{text}"
        else:
            messages.append({"role": "user", "content": text})
    return messages


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
        return _string(block, "text", at)
    source, title = block.get("source"), block.get("title")
    heading = f"{title}\n" if isinstance(title, str) else ""
    if kind == "search_result":
        return f"{heading}{source if isinstance(source, str) else ''}\n" + _text(block.get("content"), f"{at}.content")
    if kind == "document" and isinstance(source, Mapping):
        if source.get("type") == "text":
            return heading + _string(source, "data", f"{at}.source")
        if source.get("type") == "content":
            return heading + _text(source.get("content"), f"{at}.source.content", media=media)
    if kind == "tool_reference":
        return _string(block, "tool_name", at)
    if media and isinstance(kind, str):
        return placeholder(block)
    raise RequestError(f"{at}.type is {kind!r}: gpt-oss reads text only.", f"{at}.type", "invalid_value")


def _string(block: Mapping[str, Any], name: str, where: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        code = "invalid_type" if name in block else "missing_required_parameter"
        raise RequestError(f"{where}.{name} is not a string.", f"{where}.{name}", code)
    return value


class Translation:
    """Chat chunks in, Messages events out; `message` is the whole reply at any time.

    :param request: what was asked.
    :param model: the name of the model that answers.
    """

    def __init__(self, request: MessagesRequest, model: str) -> None:
        self._hide_thinking = request.thinking is not None and request.thinking.type == "disabled"
        self._open: tuple[str, Any] | None = None  # (kind, call index) of the block being written
        self._written: list[str] = []  # the pieces of that block, put together once it ends
        self.message: Json = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage({}),
        }

    def start(self, prompt_tokens: int) -> Iterator[Json]:
        """The events before the first chunk."""
        self.message["usage"]["input_tokens"] = prompt_tokens
        yield {"type": "message_start", "message": {**self.message, "content": []}}

    def feed(self, chunk: Mapping[str, Any]) -> Iterator[Json]:
        """The events that a chat chunk brings."""
        if chunk.get("usage"):
            self.message["usage"] = _usage(chunk["usage"])
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if delta.get("reasoning") and not self._hide_thinking:
                yield from self._text("thinking", delta["reasoning"])
            if delta.get("content"):
                yield from self._text("text", delta["content"])
            for call in delta.get("tool_calls") or ():
                yield from self._call(call)
            if choice.get("finish_reason"):
                self.message["stop_reason"] = STOP_REASONS.get(choice["finish_reason"], "end_turn")
                # vLLM's field for the stop string that ended the reply.
                if isinstance(choice.get("stop_reason"), str):
                    self.message["stop_reason"] = "stop_sequence"
                    self.message["stop_sequence"] = choice["stop_reason"]

    def finish(self) -> Iterator[Json]:
        """The events after the last chunk."""
        yield from self._close()
        yield {
            "type": "message_delta",
            "delta": {"stop_reason": self.message["stop_reason"], "stop_sequence": self.message["stop_sequence"]},
            "usage": self.message["usage"],
        }
        yield {"type": "message_stop"}

    @property
    def _block(self) -> Json:
        block: Json = self.message["content"][-1]
        return block

    def _index(self) -> int:
        return len(self.message["content"]) - 1

    def _begin(self, kind: tuple[str, Any], block: Json) -> Iterator[Json]:
        yield from self._close()
        self._open = kind
        self.message["content"].append(block)
        yield {"type": "content_block_start", "index": self._index(), "content_block": dict(block)}

    def _text(self, kind: str, text: str) -> Iterator[Json]:
        if self._open != (kind, None):
            block = {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})
            yield from self._begin((kind, None), block)
        self._written.append(text)
        yield {
            "type": "content_block_delta",
            "index": self._index(),
            "delta": {"type": f"{kind}_delta", kind: text},
        }

    def _call(self, call: Mapping[str, Any]) -> Iterator[Json]:
        function = call.get("function") or {}
        if self._open != ("tool_use", call["index"]):
            block = {"type": "tool_use", "id": call["id"], "name": function["name"], "input": {}}
            yield from self._begin(("tool_use", call["index"]), block)
        if function.get("arguments"):
            self._written.append(function["arguments"])
            yield {
                "type": "content_block_delta",
                "index": self._index(),
                "delta": {"type": "input_json_delta", "partial_json": function["arguments"]},
            }

    def _close(self) -> Iterator[Json]:
        if self._open is None:
            return
        kind, written = self._open[0], "".join(self._written)
        self._written.clear()
        if kind == "tool_use":
            self._block["input"] = _input(written)
        else:
            self._block[kind] = written
        if kind == "thinking":
            self._block["signature"] = SIGNATURE
            yield {
                "type": "content_block_delta",
                "index": self._index(),
                "delta": {"type": "signature_delta", "signature": SIGNATURE},
            }
        self._open = None
        yield {"type": "content_block_stop", "index": self._index()}


def _input(arguments: str) -> Any:
    """The object that `tool_use` must hold. Arguments that are not one object are kept, under a name of their own, so
    that nothing is lost and the client can tell the model."""
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"arguments": arguments}


def _usage(usage: Mapping[str, Any]) -> Json:
    """Anthropic counts the tokens read from the cache apart from `input_tokens`."""
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "input_tokens": max(0, usage.get("prompt_tokens", 0) - cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.get("completion_tokens", 0),
    }
