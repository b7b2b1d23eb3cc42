"""Asks a server for a scripted reply through the official clients, and puts the answers of all three APIs in one shape.

Nothing here decides what is right: tests compare a `Told` with what the core gives on the same ids.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import anthropic
import openai

from harmony_plugin.core import Field, harmony_encoding

from .server import MODEL

Api = Literal["chat", "responses", "messages"]
APIS: tuple[Api, ...] = ("chat", "responses", "messages")
STOP_IDS = frozenset((200_002, 199_999, 200_012))
FIELDS: dict[str, Field] = {
    "reasoning": "reasoning",
    "message": "content",
    "function_call": "tool_call",
    "thinking": "reasoning",
    "text": "content",
    "tool_use": "tool_call",
}
"""The fields of items of /v1/responses and of blocks of /v1/messages, by their types."""
BLOCK_TEXTS = {"thinking_delta": "thinking", "text_delta": "text", "input_json_delta": "partial_json"}
QUESTION = [{"role": "user", "content": "Say what the script says."}]


def encode(text: str) -> list[int]:
    """Ids of a text in which marker strings are markers."""
    return list(harmony_encoding().encode(text, allowed_special="all"))


def encode_plain(text: str) -> list[int]:
    """Ids of a text in which marker strings are ordinary characters."""
    return list(harmony_encoding().encode(text, disallowed_special=()))


@dataclass(frozen=True)
class Script:
    """What the model says, and the ids that a server will see of it."""

    ids: tuple[int, ...]
    past_stops: bool = False  # go on behind <|return|> and <|call|> (vLLM's `ignore_eos`)

    @property
    def seen(self) -> tuple[int, ...]:
        """The ids generated: up to the first stop id."""
        if self.past_stops:
            return self.ids
        for i, token in enumerate(self.ids):
            if token in STOP_IDS:
                return self.ids[: i + 1]
        return self.ids

    @property
    def cut(self) -> bool:
        """Whether generation ends by the token limit: the script has no stop id, or they are ignored."""
        return self.past_stops or not (self.seen and self.seen[-1] in STOP_IDS)

    @property
    def limit(self) -> int:
        return len(self.seen) if self.cut else len(self.seen) + 16


class Item(NamedTuple):
    """An item of /v1/responses, or a block of /v1/messages. ``text``: a call's arguments; ``name``: its tool's."""

    field: Field
    text: str
    name: str | None = None


@dataclass
class Told:
    """A reply as a client got it. Absent fields are None, in every mode."""

    reasoning: str | None = None
    content: str | None = None
    tool_calls: list[tuple[str, str]] = field(default_factory=list)
    finish: str | None = None
    reasoning_tokens: int | None = None
    completion_tokens: int | None = None
    token_ids: list[int] | None = None
    prompt_ids: list[int] | None = None
    call_ids: list[str] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    chunks: list[Any] = field(default_factory=list, repr=False)
    raw: Any = field(default=None, repr=False)

    @property
    def fields(self) -> Fields:
        return self.reasoning, self.content, self.tool_calls


Fields = tuple[str | None, str | None, list[tuple[str, str]]]
"""Reasoning, content, and the calls' names and arguments."""


def comparable(fields: Fields, api: Api, stream: bool) -> Fields:
    """Fields as they compare: a whole /v1/messages reply has arguments as an object, not as the model's text."""
    if api != "messages" or stream:
        return fields
    reasoning, content, calls = fields
    return reasoning, content, [(name, json.dumps(json.loads(arguments), sort_keys=True)) for name, arguments in calls]


def function_tool(name: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A tool as /v1/chat/completions takes it."""
    schema = dict(parameters) if parameters is not None else {"type": "object", "properties": {}}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def for_api(tools: Sequence[Mapping[str, Any]], api: Api) -> list[dict[str, Any]]:
    """The same tools in another API's shape."""
    functions = [tool["function"] for tool in tools]
    if api == "responses":
        return [{"type": "function", "strict": False, **function} for function in functions]
    if api == "messages":
        return [{"name": f["name"], "input_schema": f["parameters"]} for f in functions]
    return [dict(tool) for tool in tools]


# A connection a request: uvicorn closes idle ones after 5 s, and a client that takes one up at that moment gets a read
# error, which says nothing of the reply. No retries either: a failure is a failure.
_CLIENT: dict[str, Any] = {
    "api_key": "none",
    "max_retries": 0,
    "timeout": 240,
    "default_headers": {"Connection": "close"},
}


def openai_client(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url + "/v1", **_CLIENT)


def anthropic_client(url: str) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=url, **_CLIENT)


def _extra(script: Script, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    extra: dict[str, Any] = {"vllm_xargs": {"script": list(script.ids)}}
    if script.past_stops:
        extra["ignore_eos"] = True
    return extra | dict(more or {})


def _or_none(parts: Iterable[str]) -> str | None:
    return "".join(parts) or None


async def _read(events: Any, leave_after: int | None) -> list[Any] | None:
    """All events of a stream; or None, hanging up after so many."""
    read: list[Any] = []
    async for event in events:
        read.append(event)
        if leave_after is not None and len(read) >= leave_after:
            await events.close()
            return None
    return read


LEFT = "left"
"""`finish` of a stream that the client hung up on."""


async def chat(
    client: openai.AsyncOpenAI,
    script: Script,
    *,
    stream: bool,
    tools: Sequence[Mapping[str, Any]] = (),
    extra: Mapping[str, Any] | None = None,
    leave_after: int | None = None,
    **options: Any,
) -> Told:
    """One reply through /v1/chat/completions. `extra` goes into the body as vLLM's own fields."""
    tolds = await chat_choices(
        client, script, stream=stream, tools=tools, extra=extra, leave_after=leave_after, **options
    )
    return tolds[0]


async def chat_choices(
    client: openai.AsyncOpenAI,
    script: Script,
    *,
    stream: bool,
    tools: Sequence[Mapping[str, Any]] = (),
    extra: Mapping[str, Any] | None = None,
    leave_after: int | None = None,
    **options: Any,
) -> list[Told]:
    """Like `chat`, with every choice of a request with `n` > 1."""
    options = {"messages": QUESTION, "temperature": 0, "max_completion_tokens": script.limit} | options
    if tools:
        options["tools"] = for_api(tools, "chat")
    if not stream:
        extra = {"return_token_ids": True} | dict(extra or {})
        whole = await client.chat.completions.create(model=MODEL, extra_body=_extra(script, extra), **options)
        return [_told_of_choice(whole, choice) for choice in whole.choices]
    options.setdefault("stream_options", {"include_usage": True})
    chunks = await client.chat.completions.create(model=MODEL, stream=True, extra_body=_extra(script, extra), **options)
    read = await _read(chunks, leave_after)
    return gather_chat(read) if read is not None else [Told(finish=LEFT)]


def _told_of_choice(whole: Any, choice: Any) -> Told:
    message = choice.message
    extra = message.model_extra or {}
    details = whole.usage.completion_tokens_details
    calls = message.tool_calls or []
    return Told(
        reasoning=extra.get("reasoning"),
        content=message.content,
        tool_calls=[(call.function.name, call.function.arguments) for call in calls],
        finish=choice.finish_reason,
        reasoning_tokens=details.reasoning_tokens if details else None,
        completion_tokens=whole.usage.completion_tokens,
        token_ids=(choice.model_extra or {}).get("token_ids"),
        prompt_ids=(whole.model_extra or {}).get("prompt_token_ids"),
        call_ids=[call.id for call in calls],
        raw=whole,
    )


def gather_chat(chunks: Sequence[Any]) -> list[Told]:
    """Add up the chunks of a stream; asserts what holds for every stream whatever it says."""
    tolds: dict[int, Told] = {}
    calls: dict[int, dict[int, list[Any]]] = {}
    usage = None
    parts: dict[int, dict[str, list[str]]] = {}
    for chunk in chunks:
        error = (chunk.model_extra or {}).get("error")
        assert error is None, f"the stream carries an error: {error}"
        if chunk.usage is not None:
            usage = chunk.usage
        for choice in chunk.choices:
            told = tolds.setdefault(choice.index, Told())
            told.chunks.append(choice)
            part = parts.setdefault(choice.index, {"reasoning": [], "content": []})
            delta = choice.delta
            extra = delta.model_extra or {}
            part["reasoning"].append(extra.get("reasoning") or "")
            part["content"].append(delta.content or "")
            for call in delta.tool_calls or []:
                known = calls.setdefault(choice.index, {})
                if call.index not in known:
                    assert call.index == len(known), "tool call indices count from 0"
                    assert call.id, "a call's first delta has its id"
                    assert call.function.name, "a call's first delta has its name"
                    known[call.index] = [call.id, call.function.name, []]
                else:
                    assert call.id is None, "id comes once"
                    assert call.function.name is None, "name comes once"
                known[call.index][2].append(call.function.arguments or "")
            if choice.finish_reason:
                assert told.finish is None, "one finish reason a choice"
                told.finish = choice.finish_reason
    for index, told in tolds.items():
        told.reasoning = _or_none(parts[index]["reasoning"])
        told.content = _or_none(parts[index]["content"])
        told.tool_calls = [(name, "".join(text)) for _, name, text in calls.get(index, {}).values()]
        told.call_ids = [call_id for call_id, _, _ in calls.get(index, {}).values()]
        if usage is not None:
            details = usage.completion_tokens_details
            told.reasoning_tokens = details.reasoning_tokens if details else None
            told.completion_tokens = usage.completion_tokens
    return [tolds[index] for index in sorted(tolds)]


def _joined(texts: Iterable[str]) -> str | None:
    """Items of one kind as the core joins messages of one field."""
    return "\n".join(text for text in texts if text) or None


def _of_items(items: Sequence[Item], **rest: Any) -> Told:
    """A reply that consists of items, with its fields as the core joins them."""
    reasoning, content = (
        _joined(item.text for item in items if item.field == each) for each in ("reasoning", "content")
    )
    calls = [(item.name or "", item.text) for item in items if item.field == "tool_call"]
    return Told(reasoning, content, calls, items=list(items), **rest)


def told_of_response(response: Any) -> Told:
    """A whole response object."""
    items: list[Item] = []
    for item in response.output:
        if item.type == "function_call":
            items.append(Item("tool_call", item.arguments, item.name))
        else:  # an item of an unexpected type has no field
            items.append(Item(FIELDS[item.type], "".join(part.text for part in item.content or [])))
    usage = response.usage
    return _of_items(
        items,
        finish=response.status,
        reasoning_tokens=usage.output_tokens_details.reasoning_tokens if usage else None,
        completion_tokens=usage.output_tokens if usage else None,
        call_ids=[item.call_id for item in response.output if item.type == "function_call"],
        raw=response,
    )


async def responses(
    client: openai.AsyncOpenAI,
    script: Script,
    *,
    stream: bool,
    tools: Sequence[Mapping[str, Any]] = (),
    extra: Mapping[str, Any] | None = None,
    leave_after: int | None = None,
    **options: Any,
) -> Told:
    """One reply through /v1/responses. Of a stream, what its deltas add up to; its end is in `raw`."""
    options = {"input": QUESTION[0]["content"], "temperature": 0, "max_output_tokens": script.limit} | options
    if tools:
        options["tools"] = for_api(tools, "responses")
    if not stream:
        return told_of_response(await client.responses.create(model=MODEL, extra_body=_extra(script, extra), **options))
    events = await client.responses.create(model=MODEL, stream=True, extra_body=_extra(script, extra), **options)
    read = await _read(events, leave_after)
    return gather_responses(read) if read is not None else Told(finish=LEFT)


def gather_responses(events: Sequence[Any]) -> Told:
    """Add up a Responses stream item by item, and hold its three accounts (deltas, done events, end) side by side."""
    texts: dict[int, tuple[str, list[str]]] = {}
    names: dict[int, str] = {}
    done: dict[int, Any] = {}
    last = None
    for number, event in enumerate(events):
        assert event.type != "error", f"the stream carries an error: {event}"
        assert event.sequence_number == number, "sequence numbers count from 0"
        if event.type == "response.output_item.added":
            assert event.output_index not in texts, "an item is added once"
            texts[event.output_index] = (event.item.type, [])
            if event.item.type == "function_call":
                names[event.output_index] = event.item.name
        elif event.type in (
            "response.reasoning_text.delta",
            "response.output_text.delta",
            "response.function_call_arguments.delta",
        ):
            texts[event.output_index][1].append(event.delta)
        elif event.type == "response.output_item.done":
            done[event.output_index] = event.item
        last = event
    assert last is not None
    assert last.type in ("response.completed", "response.incomplete"), last.type
    told = told_of_response(last.response)
    account = [done[index] for index in sorted(done)]
    account = told_of_response(SimpleNamespace(output=account, usage=None, status=told.finish)).items
    assert account == told.items, f"done events say {account}, the end says {told.items}"
    items = [Item(FIELDS[kind], "".join(parts), names.get(index)) for index, (kind, parts) in sorted(texts.items())]
    return _of_items(
        items,
        finish=told.finish,
        reasoning_tokens=told.reasoning_tokens,
        completion_tokens=told.completion_tokens,
        call_ids=told.call_ids,
        chunks=list(events),
        raw=last.response,
    )


async def messages(
    client: anthropic.AsyncAnthropic,
    script: Script,
    *,
    stream: bool,
    tools: Sequence[Mapping[str, Any]] = (),
    extra: Mapping[str, Any] | None = None,
    leave_after: int | None = None,
    **options: Any,
) -> Told:
    """One reply through /v1/messages. Arguments of a whole reply are the `input` object as compact JSON."""
    assert not script.past_stops, "this API has no way to go on behind a stop id"
    # Through `extra_body`: newer releases of the client have no `temperature` argument.
    body = {"temperature": 0} | _extra(script, extra)
    options = {"messages": QUESTION, "max_tokens": script.limit} | options
    if tools:
        options["tools"] = for_api(tools, "messages")
    if not stream:
        whole = await client.messages.create(model=MODEL, extra_body=body, **options)
        return _of_items(
            [_block(block) for block in whole.content],
            finish=whole.stop_reason,
            completion_tokens=whole.usage.output_tokens,
            call_ids=[block.id for block in whole.content if block.type == "tool_use"],
            raw=whole,
        )
    events = await client.messages.create(model=MODEL, stream=True, extra_body=body, **options)
    read = await _read(events, leave_after)
    return gather_messages(read) if read is not None else Told(finish=LEFT)


def _block(block: Any, text: str | None = None) -> Item:
    """A block with its text as it streamed; None: as the whole block holds it."""
    if block.type == "tool_use":
        return Item("tool_call", json.dumps(block.input, ensure_ascii=False) if text is None else text, block.name)
    whole = block.thinking if block.type == "thinking" else block.text
    return Item(FIELDS[block.type], whole if text is None else text)


def gather_messages(events: Sequence[Any]) -> Told:
    """Add up a Messages stream; arguments are the model's text."""
    blocks: dict[int, tuple[Any, list[str]]] = {}
    finish = completion_tokens = None
    ended = False
    for event in events:
        assert event.type != "error", f"the stream carries an error: {event}"
        if event.type == "content_block_start":
            assert event.index == len(blocks), "one block is open at a time"
            blocks[event.index] = (event.content_block, [])
        elif event.type == "content_block_delta" and event.delta.type in BLOCK_TEXTS:
            blocks[event.index][1].append(getattr(event.delta, BLOCK_TEXTS[event.delta.type]))
        elif event.type == "message_delta":
            finish, completion_tokens = event.delta.stop_reason, event.usage.output_tokens
        elif event.type == "message_stop":
            ended = True
    assert ended, "the stream ends with message_stop"
    return _of_items(
        [_block(block, "".join(texts)) for block, texts in blocks.values()],
        finish=finish,
        completion_tokens=completion_tokens,
        call_ids=[block.id for block, _ in blocks.values() if block.type == "tool_use"],
        chunks=list(events),
    )


class Clients:
    """Both clients for one server, and the three APIs by name."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.openai = openai_client(url)
        self.anthropic = anthropic_client(url)

    async def __aenter__(self) -> Clients:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(self.openai.close(), self.anthropic.close())

    def ask(self, api: Api, script: Script, **options: Any) -> Awaitable[Told]:
        if api == "chat":
            return chat(self.openai, script, **options)
        if api == "responses":
            return responses(self.openai, script, **options)
        return messages(self.anthropic, script, **options)


async def gather_bounded(jobs: Sequence[Awaitable[Any]], at_once: int = 48) -> list[Any]:
    """Results in order; an exception stands in its job's place, so that one failure is one test's failure."""
    gate = asyncio.Semaphore(at_once)

    async def one(job: Awaitable[Any]) -> Any:
        async with gate:
            return await job

    return await asyncio.gather(*(one(job) for job in jobs), return_exceptions=True)
