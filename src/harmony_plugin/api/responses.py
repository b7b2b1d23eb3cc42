"""OpenAI's Responses API: items to chat messages on the way in, a reply's pieces to items and events on the way out.

Pure translation: no HTTP, no engine, no Harmony. A whole reply goes through the same `ResponseWriter` that streams.
Source: OpenAI's API reference and the types of its Python client, against which the tests check every item and event.
gpt-oss's reasoning is raw, so it stands in a reasoning item's `content` (`reasoning_text`), as OpenAI asks of those who
serve gpt-oss, and never in `summary`; `tools` knows the tools that the API defines by type.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..core import Message, RequestError, Started, Text, ToolCallDelta
from ..prompts import content_text, custom_arguments
from . import tools
from .conversation import Conversation, string_of
from .errors import from_validation
from .hosted import HostedTool, HostedTools, ToolResult, failure
from .reply import Ending, Piece, Usage, Writer
from .tools import OfferedTool, Toolbox

__all__ = [
    "ResponseWriter",
    "ResponsesRequest",
    "WarmUp",
    "as_function",
    "brought_tools",
    "call_events",
    "call_item",
    "check",
    "choice_of",
    "input_items",
    "is_call_or_result",
    "new_id",
    "resolve",
    "to_chat",
]

Json: TypeAlias = "dict[str, Any]"

ENCRYPTED = "reasoning.encrypted_content"
SUMMARY = "Of this conversation, what is not shown above was left out to save room. This is its summary:\n\n"
"""What the model is shown in front of the summary that a `compaction` item holds."""


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
    generate: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tool_calls: Annotated[int, Field(ge=1)] | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    truncation: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None


PASSED_ON = (
    "model",
    "parallel_tool_calls",
    "max_tool_calls",
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
SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
"""What a response tells of how it is sampled."""
RENAMED = {"messages": "input", "response_format": "text.format", "reasoning_effort": "reasoning.effort"}


def check(body: Any) -> ResponsesRequest:
    """The request in `body`, a JSON value.

    Raises:
        RequestError: naming the first field that is wrong or that this server cannot serve.
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
    if body.get("grammar") is not None:
        raise RequestError("grammar is not supported: use text.format.", "grammar", "unsupported_parameter")
    return request


def resolve(request: ResponsesRequest, item: Callable[[str, str], Json]) -> ResponsesRequest:
    """The request with the items that its references name.

    Args:
        item: gives an item by its id; raises `RequestError` for one that it does not know, naming the field given.
    """
    if isinstance(request.input, str):
        return request
    items = []
    for i, given in enumerate(request.input):
        refers = given.get("type") == "item_reference" or given.keys() == {"id"}
        items.append(item(string_of(given, "id", f"input[{i}]"), f"input[{i}].id") if refers else given)
    return request.model_copy(update={"input": items})


def input_items(request: ResponsesRequest) -> list[Json]:
    """The request's input as items with ids."""
    given = request.input
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return [_input_item(item) for item in given]


def brought_tools(given: str | Sequence[Json], earlier: Sequence[Json] = ()) -> dict[str, list[Json]]:
    """The tools that items bring, by the items' paths: Codex sends all of its tools so, or finds them by a search.

    Args:
        given: a request's input.
        earlier: as for `to_chat`.

    Raises:
        RequestError: an item's tools are no list of tools.
    """
    given = [] if isinstance(given, str) else given
    brought: dict[str, list[Json]] = {}
    for i, item in enumerate([*earlier, *given], -len(earlier)):
        if item.get("type") in BRINGING:
            where = f"input[{i}]" if i >= 0 else f"previous_response_id[{i}]"
            found = item.get("tools")
            if not isinstance(found, list) or not all(isinstance(tool, Mapping) for tool in found):
                raise RequestError(f"{where}.tools is not a list of tools.", f"{where}.tools", "invalid_type")
            brought[where] = found
    return brought


def page(items: Sequence[Json], query: Mapping[str, str]) -> Json:
    """OpenAI's list of `items`, newest first unless `order` says `asc`.

    Args:
        query: `order`, `after` (an item's id) and `limit` (1 to 100), as the client sent them.

    Raises:
        RequestError: one of them is wrong.
    """
    order, limit, after = query.get("order", "desc"), query.get("limit", "20"), query.get("after")
    if order not in ("asc", "desc"):
        raise RequestError(f"order {order!r} is not one of asc, desc", "order", "invalid_value")
    if not limit.isdecimal() or not 1 <= int(limit) <= 100:
        raise RequestError(f"limit {limit!r} is not a number from 1 to 100", "limit", "invalid_value")
    listed = list(items) if order == "asc" else list(reversed(items))
    if after is not None:
        place = next((i for i, item in enumerate(listed) if item["id"] == after), None)
        if place is None:
            raise RequestError(f"after names {after!r}, which is not in the list", "after", "invalid_value")
        listed = listed[place + 1 :]
    data = listed[: int(limit)]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ends, "has_more": len(listed) > len(data)}


def _input_item(item: Json) -> Json:
    kind = item.get("type", "message")
    if kind == "message":
        content = item.get("content")
        if isinstance(content, str):
            written = item.get("role") == "assistant"
            part = {"type": "output_text", "annotations": []} if written else {"type": "input_text"}
            content = [{**part, "text": content}]
        item = {**item, "type": "message", "content": content}
    item = {"status": "completed", **item}
    if isinstance(item.get("id"), str):
        return item
    return {**item, "id": new_id(ID_PREFIXES.get(str(kind), str(kind)))}


BRINGING = ("additional_tools", "tool_search_output")
CALLS = ("function_call", "custom_tool_call", *tools.KINDS)
RESULTS = ("tool_search_output", *(f"{call}_output" for call in CALLS if call != "tool_search_call"))
ID_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "local_shell_call": "lsc",
    "shell_call": "sc",
    "apply_patch_call": "apc",
    "tool_search_call": "tsc",
    "compaction": "cmp",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
}


def to_chat(
    request: ResponsesRequest,
    toolbox: Toolbox,
    earlier: Sequence[Json] = (),
    unseal: Callable[[Any], str | None] = lambda sealed: None,
    hosted: HostedTools | None = None,
) -> Json:
    """The body of the chat request that means the same.

    Args:
        toolbox: the request's tools.
        earlier: the items that led to the response that `previous_response_id` names, and its own.
        unseal: opens a reasoning item's `encrypted_content`.
        hosted: the tools that the server runs.

    Raises:
        RequestError: for an item or tool that cannot be translated.
    """
    given = [{"role": "user", "content": request.input}] if isinstance(request.input, str) else request.input
    history = _Input(toolbox, unseal, hosted or HostedTools())
    history.add([*earlier, *given], len(earlier))
    opening = [{"role": "developer", "content": request.instructions}] if request.instructions else []
    fields = request.model_dump()
    chat: Json = {name: fields[name] for name in PASSED_ON if fields.get(name) is not None}
    chat["messages"] = opening + history.messages
    if toolbox.chat:
        chat["tools"] = toolbox.chat
    choice = _tool_choice(request.tool_choice, toolbox)
    if choice is not None:
        chat["tool_choice"] = choice
    if request.reasoning is not None and request.reasoning.effort is not None:
        chat["reasoning_effort"] = request.reasoning.effort
    if request.generate is False:
        chat["max_completion_tokens"] = 1  # the least there is: the prompt is what is wanted
    elif request.max_output_tokens is not None:
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
    return chat


def rename(error: RequestError) -> RequestError:
    """A complaint about a chat field, in the terms of the Responses request it came from."""
    param = error.param
    for chat, ours in RENAMED.items():
        # Item numbers differ from message numbers, so a path into the messages is no help to the client.
        if param is not None and (param == chat or param.startswith((f"{chat}.", f"{chat}["))):
            return RequestError(error.message, ours, error.code, error.status)
    return error


class _Input(Conversation):
    """Items as chat messages."""

    def __init__(self, toolbox: Toolbox, unseal: Callable[[Any], str | None], hosted: HostedTools) -> None:
        super().__init__()
        self._hosted = hosted
        self._toolbox = toolbox
        self._unseal = unseal
        self._readers: dict[str, Callable[[Json, str], None]] = {
            "mcp_call": self._hosted_call,
            "compaction": self._compaction,
        }

    def add(self, items: Sequence[Json], earlier: int) -> None:
        """Read `items`, of which the first `earlier` are not the request's own."""
        said = (i for i, item in enumerate(items) if item.get("type", "message") == "message")
        newest = max((i for i in said if items[i].get("role") == "user"), default=-1)
        compacted = max((i for i, item in enumerate(items) if item.get("type") == "compaction"), default=-1)
        for i, item in enumerate(items):
            where = f"input[{i - earlier}]" if i >= earlier else "previous_response_id"
            kind = item.get("type", "message")
            if i < compacted and (kind != "message" or item.get("role") == "assistant"):
                continue  # the summary has it
            if kind == "message":
                self._message(item, where, media=i != newest)
            elif kind == "reasoning":
                self._reasoning(item, where, past=i < newest)
            elif kind == "compaction_trigger":
                if earlier <= i < len(items) - 1:
                    raise RequestError(f"{where}: compaction_trigger is not the last item.", where, "invalid_value")
            elif kind not in ("additional_tools", "mcp_list_tools"):  # what is on offer now is what counts
                self._reader(kind, where)(item, where)

    def _reader(self, kind: Any, where: str) -> Callable[[Json, str], None]:
        """What reads items of a kind that need nothing but themselves."""
        if isinstance(kind, str):
            if kind in self._readers:
                return self._readers[kind]
            if kind in (*CALLS, *RESULTS):
                return self._function
        raise RequestError(f"{where}.type is {kind!r}, which is not supported.", f"{where}.type", "invalid_value")

    def _message(self, item: Json, where: str, *, media: bool) -> None:
        role = item.get("role")
        if role == "assistant":
            phase = item.get("phase")
            text = content_text(item.get("content"), f"{where}.content", media=True)
            self.content(text, phase if isinstance(phase, str) else None)
        elif role in ("user", "system", "developer"):
            self.say(role, content_text(item.get("content"), f"{where}.content", media=role == "user" and media))
        else:
            raise RequestError(f"{where}.role is {role!r}.", f"{where}.role", "invalid_value")

    def _reasoning(self, item: Json, where: str, *, past: bool) -> None:
        sealed = item.get("encrypted_content")
        thought = self._unseal(sealed) if sealed else None
        if thought is None:
            thought = _reasoning_text(item, where)
            if sealed and not thought and not past:  # what led to an answer is not shown again
                raise _sealed(where, "Leave the item out.")
        if thought:
            self.reasoning(thought)

    def _compaction(self, item: Json, where: str) -> None:
        summary = self._unseal(string_of(item, "encrypted_content", where, filled=True))
        if summary is None:
            raise _sealed(where, "Send the conversation itself; `reasoning_key` lets such items outlive a server.")
        # As the user's: behind a word of the assistant's own, it would have nothing more to say.
        self.say("user", f"{SUMMARY}{summary}")

    def _function(self, item: Json, where: str) -> None:
        plain = as_function(item, where, self._toolbox)
        if plain["type"] == "function_call":
            function = {name: plain[name] for name in ("name", "arguments")}
            self.call({"id": plain["call_id"], "type": "function", "function": function})
        else:
            self.result(plain["call_id"], plain["output"])

    def _hosted_call(self, item: Json, where: str) -> None:
        """A call that the server ran, and what it came to."""
        identifier, server, name, arguments = (
            string_of(item, field, where) for field in ("id", "server_label", "name", "arguments")
        )
        self.call({"id": identifier, "type": "function", "function": self._hosted.call(server, name, arguments)})
        output, error = item.get("output"), item.get("error")
        if error is not None:
            output = failure(_error_text(error))
        self.result(identifier, output if isinstance(output, str) else failure("the call was broken off"))


def is_call_or_result(item: Mapping[str, Any]) -> bool:
    """Whether `as_function` knows an item: the call of a tool that the client runs, or what came of it."""
    return item.get("type") in (*CALLS, *RESULTS)


def as_function(item: Json, where: str, toolbox: Toolbox) -> Json:
    """A call of a tool of any kind, or its result, as the item of a function's, with the name that the model knows.

    Args:
        where: the item's path.

    Raises:
        RequestError: the item lacks something.
    """
    kind = item["type"]
    if kind in CALLS:
        return _function_call(kind, item, where, toolbox)
    # A local shell's result has its call's id as `id` in OpenAI's types, as `call_id` in its guide.
    name = "id" if kind == "local_shell_call_output" and "call_id" not in item else "call_id"
    call = string_of(item, name, where, filled=name == "call_id")
    if kind == "tool_search_output":  # the tools themselves are shown with the others
        names = [name for tool in item["tools"] for name in toolbox.names(tool)]
        output = f"Found, and ready to be called: {', '.join(names)}" if names else "No tool was found."
    else:
        told = tools.shell_output(item.get("output")) if kind == "shell_call_output" else item.get("output")
        if kind == "apply_patch_call_output" and told is None:
            told = item.get("status")
        output = content_text(told, f"{where}.output", media=True, between="\n")
    return {"type": "function_call_output", "call_id": call, "output": output}


def _function_call(kind: str, item: Json, where: str, toolbox: Toolbox) -> Json:
    call = {"type": "function_call", "call_id": string_of(item, "call_id", where, filled=True)}
    if kind in tools.KINDS:
        return {**call, "name": toolbox.offered(tools.KINDS[kind]), "arguments": tools.call_arguments(item)}
    namespace = item.get("namespace")
    name = string_of(item, "name", where, filled=True)
    name = toolbox.offered(name, namespace if isinstance(namespace, str) and namespace else None)
    if kind == "custom_tool_call":
        return {**call, "name": name, "arguments": custom_arguments(string_of(item, "input", where))}
    return {**call, "name": name, "arguments": string_of(item, "arguments", where)}


def _sealed(where: str, advice: str) -> RequestError:
    return RequestError(
        f"{where}.encrypted_content cannot be read: another server or key made it, or this server was started anew. "
        f"{advice}",
        f"{where}.encrypted_content",
        "invalid_encrypted_content",
    )


def _error_text(error: Any) -> str:
    """What an `mcp_call` item tells of why it failed."""
    if isinstance(error, Mapping) and isinstance(error.get("content"), list):
        return "\n".join(str(part.get("text") or "") for part in error["content"] if isinstance(part, Mapping))
    return str(error.get("message") or "") if isinstance(error, Mapping) else str(error)


def _reasoning_text(item: Mapping[str, Any], where: str) -> str:
    """A reasoning item's raw text; its summary, where a client sends only that."""
    for name in ("content", "summary"):
        parts = item.get(name) or []
        if not isinstance(parts, list):
            raise RequestError(f"{where}.{name} is not a list.", f"{where}.{name}", "invalid_type")
        texts = [
            string_of(part, "text", f"{where}.{name}[{i}]") if isinstance(part, Mapping) else ""
            for i, part in enumerate(parts)
        ]
        if any(texts):
            return "\n".join(texts)
    return ""


def _tool_choice(choice: Any, toolbox: Toolbox) -> Any:
    """The choice with its tools as chat's `tool_choice` names them."""
    if choice is None or isinstance(choice, str):
        return choice
    listed = choice.get("tools")
    if choice.get("type") != "allowed_tools" or not isinstance(listed, list):
        return choice if choice.get("type") == "allowed_tools" else choice_of(choice, "tool_choice", toolbox)
    named = [choice_of(tool, f"tool_choice.tools[{i}]", toolbox) for i, tool in enumerate(listed)]
    return {"mode": "auto", **choice, "tools": named}


def choice_of(choice: Any, where: str, toolbox: Toolbox) -> Json:
    """The choice of one tool, as chat has it.

    Raises:
        RequestError: it is none of the client's tools.
    """
    kind = choice.get("type") if isinstance(choice, Mapping) else None
    if isinstance(kind, str) and kind in tools.TYPED:
        return {"type": "function", "function": {"name": toolbox.offered(kind)}}
    if kind not in ("function", "custom"):
        raise RequestError(f"{where}.type is {kind!r}, which is not supported.", f"{where}.type", "invalid_value")
    namespace = choice.get("namespace")
    name = toolbox.offered(
        string_of(choice, "name", where, filled=True), namespace if isinstance(namespace, str) else None
    )
    return {"type": kind, kind: {"name": name}}


#: The events of calls whose arguments are told as they are written, by the kind of item.
ARGUMENTS = {"function_call": "response.function_call_arguments", "mcp_call": "response.mcp_call_arguments"}


@dataclass
class _Open:
    """The output item being written. `call`: of a tool's, that tool; `hosted`: the tool, if the server runs it."""

    index: int
    item: Json
    call: ToolCallDelta | None = None
    tool: tools.OfferedTool | None = None
    hosted: HostedTool | None = None
    text: list[str] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)


class ResponseWriter(Writer):
    """A reply's pieces in, Responses events out: an item a message. `response` is the whole reply at any time.

    Args:
        request: what was asked, echoed in the reply as OpenAI does.
        model: the name of the model that answers.
        toolbox: the request's tools.
        seal: makes the `encrypted_content` of reasoning, where the request wants that.
        sampling: what is sampled by, in OpenAI's names; what is not in it is as the request says.
        hosted: the tools that the server runs.
        listed: labels of the servers whose tools the conversation has a list of already.
    """

    def __init__(
        self,
        request: ResponsesRequest,
        model: str,
        toolbox: Toolbox,
        seal: Callable[[str], str] | None = None,
        sampling: Mapping[str, float] | None = None,
        hosted: HostedTools | None = None,
        listed: Container[str] = (),
    ) -> None:
        self._toolbox = toolbox
        self._seal = seal if ENCRYPTED in (request.include or ()) else None
        self._sequence = 0
        self._message: Message | None = None
        self._open: _Open | None = None
        self._ending: Ending | None = None
        self._hosted = hosted or HostedTools()
        self._unlisted = [pair for pair in self._hosted.by_server().items() if pair[0] not in listed]
        #: Items of calls that run, and their places, by the ids of the calls.
        self._running: dict[str, tuple[int, Json]] = {}
        self.response: Json = _opening(request, model, toolbox, sampling or {})
        self.identifier = self.response["id"]

    def start(self, usage: Usage) -> Iterator[Json]:
        yield self._event("response.created", response=self._snapshot())
        yield self._event("response.in_progress", response=self._snapshot())

    def feed(self, piece: Piece) -> Iterator[Json]:
        yield from self._list_tools()
        logprobs = [entry.to_openai() for entry in piece.logprobs]
        for event in piece.events:
            if isinstance(event, Text):
                if event.index is not None:
                    yield from self._arguments(event.text)
                elif event.field == "reasoning":
                    yield from self._text("reasoning", event.text)
                else:
                    yield from self._text("message", event.text, logprobs)
                    logprobs = []
            elif isinstance(event, Started):
                yield from self._close("completed")
                self._message = event.message
                if event.call is not None:
                    yield from self._begin_call(event.call)
            elif event.message.complete:
                yield from self._close("completed")
        if piece.result is not None:
            yield from self._result(piece.result)
        self._ending = piece.ending or self._ending

    def finish(self, usage: Usage) -> Iterator[Json]:
        incomplete = self._ending is not None and self._ending.finish_reason == "length"
        yield from self._close("incomplete" if incomplete else "completed")
        yield from self._break_off()
        self.response["status"] = "incomplete" if incomplete else "completed"
        if incomplete:
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            self.response["completed_at"] = int(time.time())
        self.response["usage"] = usage.to_responses()
        if self._ending is not None and self._ending.told is not None:
            self.response["harmony"] = self._ending.told
        yield self._event("response.incomplete" if incomplete else "response.completed", response=self._snapshot())

    def fail(self, error: RequestError) -> Iterator[Json]:
        yield from self._close("incomplete")
        yield from self._break_off()
        self.response["status"] = "failed"
        self.response["error"] = {"code": "server_error", "message": error.message}
        yield self._event("response.failed", response=self._snapshot())

    def whole(self, pieces: Iterable[Piece], usage: Usage) -> Json:
        self._run(pieces, usage)
        return self.response

    def _event(self, type: str, **fields: Any) -> Json:
        event = {"type": type, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event

    def _snapshot(self) -> Json:
        return {**self.response, "output": list(self.response["output"])}

    def _text(self, kind: str, text: str, logprobs: Sequence[Json] = ()) -> Iterator[Json]:
        if self._open is None:
            yield from self._begin(kind)
        assert self._open is not None
        self._open.text.append(text)
        fields = {"item_id": self._open.item["id"], "output_index": self._open.index, "content_index": 0, "delta": text}
        if kind == "reasoning":
            yield self._event("response.reasoning_text.delta", **fields)
        else:
            self._open.logprobs += logprobs
            yield self._event("response.output_text.delta", **fields, logprobs=list(logprobs))

    def _arguments(self, text: str) -> Iterator[Json]:
        opened = self._open
        assert opened is not None
        opened.text.append(text)
        # Other kinds of calls are told once they are complete.
        if text and opened.item.get("type") in ARGUMENTS and (opened.hosted is None or opened.hosted.code is None):
            yield self._event(
                f"{ARGUMENTS[opened.item['type']]}.delta",
                item_id=opened.item["id"],
                output_index=opened.index,
                delta=text,
            )

    def _begin(self, kind: str) -> Iterator[Json]:
        index = len(self.response["output"])
        item: Json
        if kind == "reasoning":
            item = {"id": new_id("rs"), "type": "reasoning", "summary": [], "content": [], "status": "in_progress"}
        else:
            item = {"id": new_id("msg"), "type": "message", "role": "assistant", "content": [], "status": "in_progress"}
            preamble = self._message is not None and self._message.channel == "commentary"
            item["phase"] = "commentary" if preamble else "final_answer"
        self._open = _Open(index, item)
        yield self._event("response.output_item.added", output_index=index, item=dict(item))
        yield self._event(
            "response.content_part.added",
            item_id=item["id"],
            output_index=index,
            content_index=0,
            part=_part(item, "", []),
        )

    def _begin_call(self, call: ToolCallDelta) -> Iterator[Json]:
        assert call.name is not None
        hosted = self._hosted.get(call.name)
        if hosted is not None:
            yield from self._begin_hosted(call, hosted)
            return
        tool = self._toolbox.tool(call.name)
        self._open = _Open(len(self.response["output"]), {}, call, tool)
        if not tool.whole:
            self._open.item = self._call_item(self._open, "in_progress")
            yield self._event("response.output_item.added", output_index=self._open.index, item=dict(self._open.item))

    @staticmethod
    def _call_item(opened: _Open, status: str) -> Json:
        assert opened.call is not None
        assert opened.tool is not None
        assert opened.call.id is not None
        return call_item(opened.tool, "".join(opened.text), opened.call.id, status, opened.item.get("id"))

    def _close(self, status: str) -> Iterator[Json]:
        opened = self._open
        if opened is None:
            return
        if opened.hosted is not None:
            yield from self._close_hosted(opened, opened.hosted)
            return
        if opened.call is not None:
            opened.item = yield from self._close_call(opened, status)
        else:
            yield from self._close_text(opened, status)
        self._open = None
        self.response["output"].append(opened.item)
        yield self._event("response.output_item.done", output_index=opened.index, item=opened.item)

    def _list_tools(self) -> Iterator[Json]:
        unlisted, self._unlisted = self._unlisted, []
        for server, offered in unlisted:
            index, item = len(self.response["output"]), _tool_list(server, offered)
            place = {"item_id": item["id"], "output_index": index}
            yield self._event("response.output_item.added", output_index=index, item={**item, "tools": []})
            yield self._event("response.mcp_list_tools.in_progress", **place)
            yield self._event("response.mcp_list_tools.completed", **place)
            self.response["output"].append(item)
            yield self._event("response.output_item.done", output_index=index, item=item)

    def _begin_hosted(self, call: ToolCallDelta, hosted: HostedTool) -> Iterator[Json]:
        item: Json = {
            "id": new_id("mcp"),
            "type": "mcp_call",
            "approval_request_id": None,
            "arguments": "",
            "error": None,
            "name": hosted.name,
            "output": None,
            "server_label": hosted.server,
            "status": "in_progress",
        }
        index = len(self.response["output"])
        self._open = _Open(index, item, call, hosted=hosted)
        yield self._event("response.output_item.added", output_index=index, item=dict(item))
        yield self._event("response.mcp_call.in_progress", item_id=item["id"], output_index=index)

    def _close_hosted(self, opened: _Open, hosted: HostedTool) -> Iterator[Json]:
        """The arguments are there; the item stays open until the call was run."""
        assert opened.call is not None
        assert opened.call.id is not None
        item, place = opened.item, {"item_id": opened.item["id"], "output_index": opened.index}
        item["arguments"] = hosted.arguments("".join(opened.text))
        if hosted.code is not None:
            yield self._event("response.mcp_call_arguments.delta", **place, delta=item["arguments"])
        yield self._event("response.mcp_call_arguments.done", **place, arguments=item["arguments"])
        self._open = None
        self.response["output"].append(item)
        self._running[opened.call.id] = opened.index, item

    def _result(self, result: ToolResult) -> Iterator[Json]:
        yield from self._close("completed")
        index, item = self._running.pop(result.call)
        if result.failed:
            content = [{"type": "text", "text": result.output}]
            item |= {"status": "failed", "error": {"type": "mcp_tool_execution_error", "content": content}}
        else:
            item |= {"status": "completed", "output": result.output}
        yield self._event(f"response.mcp_call.{item['status']}", item_id=item["id"], output_index=index)
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _break_off(self) -> Iterator[Json]:
        """End the items of calls that were not run."""
        for index, item in self._running.values():
            item["status"] = "incomplete"
            yield self._event("response.output_item.done", output_index=index, item=item)
        self._running.clear()

    def _close_text(self, opened: _Open, status: str) -> Iterator[Json]:
        item, text = opened.item, "".join(opened.text)
        place = {"item_id": item["id"], "output_index": opened.index, "content_index": 0}
        part = _part(item, text, opened.logprobs)
        item |= {"status": status, "content": [part]}
        if item["type"] == "reasoning":
            if self._seal is not None:
                item["encrypted_content"] = self._seal(text)
            yield self._event("response.reasoning_text.done", **place, text=text)
        else:
            yield self._event("response.output_text.done", **place, text=text, logprobs=opened.logprobs)
        yield self._event("response.content_part.done", **place, part=part)

    def _close_call(self, opened: _Open, status: str) -> Generator[Json, None, Json]:
        item = self._call_item(opened, status)
        place = {"item_id": item["id"], "output_index": opened.index}
        if not opened.item:
            added = {**item, "status": "in_progress"}
            yield self._event("response.output_item.added", output_index=opened.index, item=added)
        for event in call_events(item, place):
            yield self._event(**event)
        return item


class WarmUp(ResponseWriter):
    """The reply to ``generate: false``: nothing is written, and a later request may go on from it."""

    def feed(self, piece: Piece) -> Iterator[Json]:
        return iter(())


def call_item(tool: OfferedTool, arguments: str, call: str, status: str, identifier: str | None = None) -> Json:
    """The item of a call.

    Args:
        call: the call's id.
        identifier: the item's; None: a new one.
    """
    item = tool.item(arguments)
    named = {"id": identifier or new_id(ID_PREFIXES[item["type"]]), "call_id": call}
    return {**named, **item} | ({} if item["type"] == "custom_tool_call" else {"status": status})


def call_events(item: Json, place: Json) -> Iterator[Json]:
    """The events, but for their numbers, that tell a call's arguments once they are complete, by the kind of its item.

    Args:
        place: what each event says of where the item is.
    """
    if item["type"] == "custom_tool_call":
        if item["input"]:
            yield {"type": "response.custom_tool_call_input.delta", **place, "delta": item["input"]}
        yield {"type": "response.custom_tool_call_input.done", **place, "input": item["input"]}
    elif item["type"] == "function_call":
        told: Json = {name: item[name] for name in ("name", "namespace", "arguments") if name in item}
        yield {"type": "response.function_call_arguments.done", **place, **told}


def _tool_list(server: str, offered: Sequence[HostedTool]) -> Json:
    listed = [
        {"name": tool.name, "description": tool.description, "input_schema": tool.parameters, "annotations": None}
        for tool in offered
    ]
    return {"id": new_id("mcpl"), "type": "mcp_list_tools", "server_label": server, "tools": listed, "error": None}


def _opening(request: ResponsesRequest, model: str, toolbox: Toolbox, sampling: Mapping[str, float]) -> Json:
    """The response before it says anything, with every field that the Open Responses specification asks for."""
    given = request.model_dump()
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "model": model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {
            "effort": request.reasoning.effort if request.reasoning else None,
            "summary": None,
        },
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": request.store is not False,
        **{name: sampling.get(name, given.get(name)) for name in SAMPLING},
        "text": {"format": (request.text.format if request.text else None) or {"type": "text"}},
        "tool_choice": request.tool_choice if request.tool_choice is not None else "auto",
        "tools": toolbox.echo,
        "top_logprobs": request.top_logprobs or 0,
        "truncation": "disabled",
        "usage": None,
        "user": request.user,
        "metadata": request.metadata or {},
    }


def _part(item: Json, text: str, logprobs: list[Json]) -> Json:
    if item["type"] == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def new_id(prefix: str) -> str:
    """An id that nothing else has."""
    return f"{prefix}_{secrets.token_hex(16)}"
