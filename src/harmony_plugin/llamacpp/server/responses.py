"""OpenAI's Responses API in terms of its chat API: items to messages on the way in, chunks to items and events on the
way out.

Pure translation: no HTTP, no engine, no Harmony. A whole reply is one chunk through the same `Translation` that
streams. Source: OpenAI's API reference and the types of its Python client, against which the tests check every item
and event. gpt-oss's reasoning is raw, so it stands in a reasoning item's `content` (`reasoning_text`), as OpenAI asks
of those who serve gpt-oss, and never in `summary`. Tools that OpenAI hosts (web search, ...) are not offered to the
model.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import RequestError
from ...prompts import content_text
from .errors import from_validation

__all__ = ["ResponsesRequest", "Store", "Translation", "check", "chunk_of", "to_chat"]

Json: TypeAlias = "dict[str, Any]"

FUNCTION_LIKE = ("function", "custom")
CUSTOM_PARAMETERS = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


class Reasoning(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    effort: str | None = None
    summary: str | None = None


class TextConfig(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    format: dict[str, Any] | None = None


class ResponsesRequest(BaseModel):
    """The body of a Responses request, as far as this server reads it; unknown fields are let through."""

    model_config = ConfigDict(extra="allow", strict=True)

    input: str | list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    truncation: str | None = None


PASSED_ON = (
    "model",
    "parallel_tool_calls",
    "temperature",
    "top_p",
    "metadata",
    "user",
    # Not OpenAI's: the sampling fields of the chat route, and the reasoning budget.
    "seed",
    "stop",
    "top_k",
    "min_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "max_reasoning_tokens",
)
RENAMED = {"messages": "input", "response_format": "text.format", "reasoning_effort": "reasoning.effort"}


def check(body: Any) -> ResponsesRequest:
    """The request in `body`, a JSON value.

    :raises RequestError: naming the first field that is wrong or that this server cannot serve.
    """
    if not isinstance(body, dict):
        raise RequestError("The body is not a JSON object.", None, "invalid_type")
    try:
        request = ResponsesRequest.model_validate(body)
    except ValidationError as error:
        raise from_validation(error) from error
    if request.background:
        raise RequestError("Background responses are not supported.", "background", "unsupported_parameter")
    for name in ("conversation", "prompt"):
        if body.get(name) is not None:
            raise RequestError(f"'{name}' is not supported: send the input itself.", name, "unsupported_parameter")
    return request


@dataclass
class Stored:
    """One reply that later requests can go on from."""

    messages: list[Json]
    response: Json


class Store:
    """The last replies, in memory: the oldest goes when the bound is reached.

    :param bound: how many are kept.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._kept: OrderedDict[str, Stored] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, messages: Sequence[Json], response: Json) -> None:
        """Keep a finished reply with the messages that led to it, its own included."""
        if self._bound:
            self._kept[response["id"]] = Stored(list(messages), response)
            while len(self._kept) > self._bound:
                self._kept.popitem(last=False)

    def get(self, identifier: str, param: str | None = None) -> Stored:
        """:raises RequestError: 404 (400 where it is a field of a request: `param`) when it is not there (any more)."""
        found = self._kept.get(identifier)
        if found is None:
            if param:
                raise RequestError(
                    f"Previous response with id '{identifier}' not found.", param, "previous_response_not_found"
                )
            raise RequestError(f"Response with id '{identifier}' not found.", None, None, 404)
        self._kept.move_to_end(identifier)
        return found

    def drop(self, identifier: str) -> None:
        """:raises RequestError: 404 when it is not there."""
        self.get(identifier)
        del self._kept[identifier]


def to_chat(request: ResponsesRequest, earlier: Sequence[Json] = ()) -> tuple[Json, list[Json]]:
    """The body of the chat request that means the same, and its messages without the instructions (to be stored).

    :param earlier: the messages of the response that `previous_response_id` names.
    :raises RequestError: for an item or tool that cannot be translated.
    """
    messages = list(earlier)
    _add_input(messages, request.input)
    opening = [{"role": "developer", "content": request.instructions}] if request.instructions else []
    given = request.model_dump()
    chat: Json = {name: given[name] for name in PASSED_ON if given.get(name) is not None}
    chat["messages"] = opening + messages
    tools = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(request.tools or ())]
    offered = [tool for tool in tools if tool is not None]
    if offered:
        chat["tools"] = offered
    choice = _tool_choice(request.tool_choice, offered)
    if choice is not None:
        chat["tool_choice"] = choice
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        names = {tool["function"]["name"] for tool in choice["allowed_tools"]["tools"]}
        chat["tools"] = [tool for tool in offered if tool["function"]["name"] in names]
        chat["tool_choice"] = choice["allowed_tools"]["mode"]
    if request.reasoning is not None and request.reasoning.effort is not None:
        chat["reasoning_effort"] = request.reasoning.effort
    if request.max_output_tokens is not None:
        chat["max_completion_tokens"] = request.max_output_tokens
    if request.text is not None and request.text.format is not None:
        shape = request.text.format
        if shape.get("type") == "json_schema":
            shape = {"type": "json_schema", "json_schema": {k: v for k, v in shape.items() if k != "type"}}
        chat["response_format"] = shape
    if request.top_logprobs or "message.output_text.logprobs" in (request.include or ()):
        chat["logprobs"] = True
        chat["top_logprobs"] = request.top_logprobs or 0
    if request.stream:
        chat["stream"] = True
    return chat, messages


def rename(error: RequestError) -> RequestError:
    """A complaint about a chat field, in the terms of the Responses request it came from."""
    param = error.param
    for chat, ours in RENAMED.items():
        # Item numbers differ from message numbers, so a path into the messages is no help to the client.
        if param is not None and (param == chat or param.startswith((f"{chat}.", f"{chat}["))):
            return RequestError(error.message, ours, error.code, error.status)
    return error


def _add_input(messages: list[Json], given: str | Sequence[Json]) -> None:
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
        return
    start = len(messages)
    users = (
        i for i, item in enumerate(given) if item.get("type", "message") == "message" and item.get("role") == "user"
    )
    newest = max(users, default=-1)
    for i, item in enumerate(given):
        where = f"input[{i}]"
        kind = item.get("type", "message")
        if kind == "message":
            role = item.get("role")
            if role == "assistant":
                said = content_text(item.get("content"), f"{where}.content", media=True)
                message = _assistant(messages, start, ("content", "tool_calls"))
                message["content"] = said
            elif role in ("user", "system", "developer"):
                text = content_text(item.get("content"), f"{where}.content", media=role == "user" and i != newest)
                messages.append({"role": role, "content": text})
            else:
                raise RequestError(f"{where}.role is {role!r}.", f"{where}.role", "invalid_value")
        elif kind == "reasoning":
            thought = _reasoning_text(item, where)
            if thought:
                message = _assistant(messages, start, ("content", "tool_calls"))
                before = message.get("reasoning_content")
                message["reasoning_content"] = thought if before is None else f"{before}\n{thought}"
        elif kind in ("function_call", "custom_tool_call"):
            name, call = _string(item, "name", where), _string(item, "call_id", where)
            if kind == "function_call":
                arguments = _string(item, "arguments", where)
            else:
                arguments = json.dumps({"input": _string(item, "input", where)}, ensure_ascii=False)
            message = _assistant(messages, start, ())
            message.setdefault("tool_calls", []).append(
                {"id": call, "type": "function", "function": {"name": name, "arguments": arguments}}
            )
        elif kind in ("function_call_output", "custom_tool_call_output"):
            result = content_text(item.get("output"), f"{where}.output", media=True, between="\n")
            messages.append({"role": "tool", "tool_call_id": _string(item, "call_id", where), "content": result})
        else:
            raise RequestError(f"{where}.type is {kind!r}, which is not supported.", f"{where}.type", "invalid_value")


def _assistant(messages: list[Json], start: int, closed_by: Sequence[str]) -> Json:
    """The assistant message that an item belongs to: the last one, unless it is of an earlier turn or already holds
    what comes after such an item."""
    if len(messages) > start and messages[-1]["role"] == "assistant":
        last = messages[-1]
        if not any(last.get(name) for name in closed_by):
            return last
    messages.append({"role": "assistant", "content": None})
    return messages[-1]


def _string(item: Mapping[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or (not value and name in ("name", "call_id")):
        code = "invalid_type" if name in item else "missing_required_parameter"
        raise RequestError(f"{where}.{name} is not a string.", f"{where}.{name}", code)
    return value


def _reasoning_text(item: Mapping[str, Any], where: str) -> str:
    """A reasoning item's raw text; its summary, where a client sends only that."""
    for name in ("content", "summary"):
        parts = item.get(name) or []
        if not isinstance(parts, list):
            raise RequestError(f"{where}.{name} is not a list.", f"{where}.{name}", "invalid_type")
        texts = [
            _string(part, "text", f"{where}.{name}[{i}]") if isinstance(part, Mapping) else ""
            for i, part in enumerate(parts)
        ]
        if any(texts):
            return "\n".join(texts)
    return ""


def _tool(tool: Mapping[str, Any], where: str) -> Json | None:
    """A chat tool; None for tools that OpenAI would run itself."""
    kind = tool.get("type")
    if not isinstance(kind, str):
        raise RequestError(f"{where}.type is not a string.", f"{where}.type", "invalid_type")
    if kind not in FUNCTION_LIKE:
        return None
    function = {"name": _string(tool, "name", where)}
    for name in ("description", "strict"):
        if tool.get(name) is not None:
            function[name] = tool[name]
    if kind == "function":
        parameters = tool.get("parameters")
        if parameters is not None and not isinstance(parameters, Mapping):
            raise RequestError(f"{where}.parameters is not an object.", f"{where}.parameters", "invalid_type")
        if parameters is not None:
            function["parameters"] = parameters  # type: ignore[assignment]
    else:
        # A custom tool takes free text: for the model, a function with one string.
        function["parameters"] = CUSTOM_PARAMETERS  # type: ignore[assignment]
    return {"type": "function", "function": function}


def _tool_choice(choice: Any, offered: Sequence[Json]) -> Any:
    if choice is None or isinstance(choice, str):
        return choice
    kind = choice.get("type")
    if kind in FUNCTION_LIKE:
        return {"type": "function", "function": {"name": _string(choice, "name", "tool_choice")}}
    if kind == "allowed_tools":
        tools = choice.get("tools")
        mode = choice.get("mode", "auto")
        if not isinstance(tools, list) or mode not in ("auto", "required"):
            raise RequestError("tool_choice needs `tools` and a `mode`.", "tool_choice", "invalid_value")
        names = [
            {"type": "function", "function": {"name": _string(tool, "name", f"tool_choice.tools[{i}]")}}
            for i, tool in enumerate(tools)
            if isinstance(tool, Mapping) and tool.get("type") in FUNCTION_LIKE
        ]
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": names}}
    raise RequestError(f"tool_choice.type is {kind!r}, which is not supported.", "tool_choice.type", "invalid_value")


def chunk_of(completion: Mapping[str, Any]) -> Json:
    """A whole chat completion as one chunk."""
    choice = completion["choices"][0]
    message = choice["message"]
    delta = {name: message[name] for name in ("role", "reasoning", "content") if message.get(name) is not None}
    if message.get("tool_calls"):
        delta["tool_calls"] = [{**call, "index": i} for i, call in enumerate(message["tool_calls"])]
    return {
        "choices": [{**{k: v for k, v in choice.items() if k != "message"}, "delta": delta}],
        "usage": completion.get("usage"),
    }


@dataclass
class _Open:
    """The output item being written."""

    kind: str
    index: int
    item: Json
    call: int | None = None
    text: list[str] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)


class Translation:
    """Chat chunks in, Responses events out; `response` is the whole reply at any time.

    :param request: what was asked, echoed in the reply as OpenAI does.
    :param model: the name of the model that answers.
    """

    def __init__(self, request: ResponsesRequest, model: str) -> None:
        self._custom = {t.get("name") for t in request.tools or () if t.get("type") == "custom"}
        self._sequence = 0
        self._open: _Open | None = None
        self._finish: str | None = None
        self._usage: Json | None = None
        self.response: Json = _opening(request, model)

    def start(self) -> Iterator[Json]:
        """The events before the first chunk."""
        yield self._event("response.created", response=self._snapshot())
        yield self._event("response.in_progress", response=self._snapshot())

    def feed(self, chunk: Mapping[str, Any]) -> Iterator[Json]:
        """The events that a chat chunk brings."""
        if chunk.get("usage"):
            self._usage = _usage(chunk["usage"])
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if delta.get("reasoning"):
                yield from self._text("reasoning", delta["reasoning"])
            if delta.get("content"):
                logprobs = (choice.get("logprobs") or {}).get("content") or []
                yield from self._text("message", delta["content"], logprobs)
            for call in delta.get("tool_calls") or ():
                yield from self._call(call)
            self._finish = choice.get("finish_reason") or self._finish

    def finish(self) -> Iterator[Json]:
        """The events after the last chunk."""
        incomplete = self._finish == "length"
        yield from self._close("incomplete" if incomplete else "completed")
        self.response["status"] = "incomplete" if incomplete else "completed"
        if incomplete:
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            self.response["completed_at"] = int(time.time())
        self.response["usage"] = self._usage
        yield self._event("response.incomplete" if incomplete else "response.completed", response=self._snapshot())

    def fail(self, error: RequestError) -> Iterator[Json]:
        """The events when the engine failed half-way."""
        yield from self._close("incomplete")
        self.response["status"] = "failed"
        self.response["error"] = {"code": "server_error", "message": error.message}
        yield self._event("response.failed", response=self._snapshot())

    def message(self) -> Json | None:
        """The reply as a chat message, for the history of what follows; None for an empty one."""
        message: Json = {"role": "assistant", "content": None}
        for item in self.response["output"]:
            if item["type"] == "reasoning":
                _join(message, "reasoning_content", item["content"][0]["text"])
            elif item["type"] == "message":
                _join(message, "content", item["content"][0]["text"])
            else:
                custom = item["type"] == "custom_tool_call"
                arguments = json.dumps({"input": item["input"]}, ensure_ascii=False) if custom else item["arguments"]
                function = {"name": item["name"], "arguments": arguments}
                message.setdefault("tool_calls", []).append(
                    {"id": item["call_id"], "type": "function", "function": function}
                )
        return message if self.response["output"] else None

    def _event(self, kind: str, **fields: Any) -> Json:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event

    def _snapshot(self) -> Json:
        return {**self.response, "output": list(self.response["output"])}

    def _text(self, kind: str, text: str, logprobs: Sequence[Json] = ()) -> Iterator[Json]:
        if self._open is None or self._open.kind != kind:
            yield from self._begin(kind)
        assert self._open is not None
        self._open.text.append(text)
        fields = {"item_id": self._open.item["id"], "output_index": self._open.index, "content_index": 0, "delta": text}
        if kind == "reasoning":
            yield self._event("response.reasoning_text.delta", **fields)
        else:
            self._open.logprobs += logprobs
            yield self._event("response.output_text.delta", **fields, logprobs=list(logprobs))

    def _call(self, call: Mapping[str, Any]) -> Iterator[Json]:
        function = call.get("function") or {}
        if self._open is None or self._open.call != call["index"]:
            yield from self._begin("call", call)
        assert self._open is not None
        arguments = function.get("arguments")
        if arguments:
            self._open.text.append(arguments)
            if self._open.item["type"] == "function_call":
                yield self._event(
                    "response.function_call_arguments.delta",
                    item_id=self._open.item["id"],
                    output_index=self._open.index,
                    delta=arguments,
                )

    def _begin(self, kind: str, call: Mapping[str, Any] | None = None) -> Iterator[Json]:
        yield from self._close("completed")
        item: Json
        if call is not None:
            name = call["function"]["name"]
            item = {"id": _id("fc"), "call_id": call["id"], "name": name}
            if name in self._custom:
                item |= {"id": _id("ctc"), "type": "custom_tool_call", "input": ""}
            else:
                item |= {"type": "function_call", "arguments": "", "status": "in_progress"}
        elif kind == "reasoning":
            item = {"id": _id("rs"), "type": "reasoning", "summary": [], "content": [], "status": "in_progress"}
        else:
            item = {"id": _id("msg"), "type": "message", "role": "assistant", "content": [], "status": "in_progress"}
        index = len(self.response["output"])
        self._open = _Open(kind, index, item, call["index"] if call is not None else None)
        yield self._event("response.output_item.added", output_index=index, item=dict(item))
        if call is None:
            yield self._event(
                "response.content_part.added",
                item_id=item["id"],
                output_index=index,
                content_index=0,
                part=_part(kind, "", []),
            )

    def _close(self, status: str) -> Iterator[Json]:
        if self._open is None:
            return
        item, index, text = self._open.item, self._open.index, "".join(self._open.text)
        place = {"item_id": item["id"], "output_index": index}
        if item["type"] == "custom_tool_call":
            item["input"] = _custom_input(text)
            if item["input"]:
                yield self._event("response.custom_tool_call_input.delta", **place, delta=item["input"])
            yield self._event("response.custom_tool_call_input.done", **place, input=item["input"])
        else:
            item["status"] = status
            if item["type"] == "function_call":
                item["arguments"] = text
                yield self._event("response.function_call_arguments.done", **place, name=item["name"], arguments=text)
            else:
                part = _part(self._open.kind, text, self._open.logprobs)
                item["content"] = [part]
                place["content_index"] = 0
                if item["type"] == "reasoning":
                    yield self._event("response.reasoning_text.done", **place, text=text)
                else:
                    yield self._event("response.output_text.done", **place, text=text, logprobs=self._open.logprobs)
                yield self._event("response.content_part.done", **place, part=part)
        self._open = None
        self.response["output"].append(item)
        yield self._event("response.output_item.done", output_index=index, item=item)


def _opening(request: ResponsesRequest, model: str) -> Json:
    given = request.model_dump()
    return {
        "id": _id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "model": model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "reasoning": {
            "effort": request.reasoning.effort if request.reasoning else None,
            "summary": None,
        },
        "store": request.store is not False,
        "temperature": given.get("temperature"),
        "text": {"format": (request.text.format if request.text else None) or {"type": "text"}},
        "tool_choice": request.tool_choice if request.tool_choice is not None else "auto",
        "tools": [_echo(tool) for tool in request.tools or () if tool.get("type") in FUNCTION_LIKE],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": given.get("top_p"),
        "truncation": "disabled",
        "usage": None,
        "user": request.user,
        "metadata": request.metadata or {},
    }


def _echo(tool: Mapping[str, Any]) -> Json:
    """A function tool as the reply repeats it: with `parameters` and `strict`, even if the request left them out."""
    return dict(tool) if tool.get("type") != "function" else {"parameters": None, "strict": None, **tool}


def _usage(usage: Mapping[str, Any]) -> Json:
    prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
            "cache_write_tokens": 0,
        },
        "output_tokens": completion,
        "output_tokens_details": {
            "reasoning_tokens": (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
        },
        "total_tokens": prompt + completion,
    }


def _part(kind: str, text: str, logprobs: list[Json]) -> Json:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _custom_input(arguments: str) -> str:
    """The free text of a custom tool's call; what is not the object asked for is passed on as it stands."""
    try:
        value = json.loads(arguments)
    except ValueError:
        return arguments
    return value["input"] if isinstance(value, dict) and isinstance(value.get("input"), str) else arguments


def _join(message: Json, name: str, text: str) -> None:
    message[name] = text if message.get(name) is None else f"{message[name]}\n{text}"


def _id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"
