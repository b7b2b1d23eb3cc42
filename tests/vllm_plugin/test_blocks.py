"""/v1/messages through vLLM's own converters: a block a message, whole and streamed, and why the reply ended."""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from comingback import MANY, OFFERED, A
from feeding import encode
from harmony_plugin import Options, Stream
from harmony_plugin.api.messages import MessageWriter
from harmony_plugin.api.reply import Ending, Piece, Usage
from harmony_plugin.vllm import blocks
from stopping import STOPPING, Stopping
from test_cases import LINES as CASES
from test_cases import how, ids_of

from .asking import PROMPT, by, chat, one_by_one
from .conftest import o200k

REPLIES = [
    *(pytest.param(ids_of(case), how(case), id=case["id"]) for case in CASES),
    *(pytest.param(encode(text), OFFERED, id=name) for name, (text, _) in MANY.items()),
]


def names_of(given: dict[str, Any]) -> list[str]:
    tools = given["tools"] or ["get_current_weather"]
    return [each if isinstance(each, str) else each.get("function", each)["name"] for each in tools]


def serving(parser_class: Any) -> Any:
    """vLLM's handler, as far as its converters need one; the parser has wrapped its class."""
    from vllm.entrypoints.anthropic.serving import AnthropicServingMessages

    parser_class(o200k(), None)
    handler: Any = object.__new__(AnthropicServingMessages)
    handler.parser_cls = parser_class
    # Releases up to 0.30.
    handler.stop_reason_map = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
    return handler


def whole(parser_class: Any, request: Any, ids: Sequence[int], prompt: Sequence[int], finish: str = "stop") -> Any:
    """The message that vLLM makes of a whole reply."""
    from vllm.entrypoints.openai.chat_completion import protocol

    def work() -> Any:
        blocks.collect()
        parser = parser_class(o200k(), request.tools)
        parser.set_prompt_token_ids(list(prompt))
        reasoning, content, calls = parser.parse("", request, True, list(ids))
        made = [{"function": {"name": call.name, "arguments": call.arguments}} for call in calls or ()]
        message = {"role": "assistant", "reasoning": reasoning, "content": content, "tool_calls": made}
        completion = protocol.ChatCompletionResponse.model_validate(
            {
                "model": "m",
                "choices": [{"index": 0, "message": message, "finish_reason": finish}],
                "usage": {"prompt_tokens": 3, "completion_tokens": len(ids), "total_tokens": 3 + len(ids)},
            }
        )
        return serving(parser_class).messages_full_converter(completion)

    return contextvars.copy_context().run(work)


def streamed(
    parser_class: Any,
    request: Any,
    chunks: Sequence[Sequence[int]],
    prompt: Sequence[int] = PROMPT,
    finish: str = "stop",
    fails_at: int | None = None,
    raises: bool = False,
) -> list[dict[str, Any]]:
    """The events that vLLM streams. ``raises``: chat fails with an exception, else with an error for a chunk."""
    from vllm.entrypoints.anthropic.serving import ErrorResponse
    from vllm.entrypoints.openai.chat_completion import protocol
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat

    as_text = not hasattr(OpenAIServingChat, "chat_completion_stream_generator_raw")
    usage = {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}

    def chunk(*choices: dict[str, Any]) -> Any:
        made = protocol.ChatCompletionStreamResponse.model_validate(
            {"model": "m", "choices": [{"index": 0, **choice} for choice in choices], "usage": usage}
        )
        return f"data: {made.model_dump_json(exclude_unset=True)}\n\n" if as_text else made

    async def chat_chunks() -> AsyncIterator[Any]:
        """As vLLM's chat makes them: none for a delta of nothing."""
        parser = parser_class(o200k(), request.tools)
        yield chunk({"delta": {"role": "assistant", "content": ""}})
        for number, ids in enumerate(chunks):
            if number == fails_at:
                if raises:
                    raise RuntimeError("no memory")
                error = ErrorResponse.model_validate({"error": {"message": "no memory", "type": "x", "code": 500}})
                yield f"data: {error.model_dump_json()}\n\n" if as_text else error
                break
            last = number == len(chunks) - 1
            delta = parser.parse_delta("", list(ids), request, list(prompt), finished=last)
            if delta is not None or last:
                said = delta.model_dump(exclude_unset=True) if delta is not None else {}
                yield chunk({"delta": said, **({"finish_reason": finish} if last else {})})
        else:
            yield chunk()
        if as_text:
            yield "data: [DONE]\n\n"

    async def work() -> list[str]:
        return [frame async for frame in serving(parser_class).message_stream_converter(chat_chunks())]

    events = []
    for frame in "".join(asyncio.run(work())).strip().split("\n\n"):
        head, _, data = frame.partition("\ndata: ")
        events.append(json.loads(data))
        assert head == f"event: {events[-1]['type']}"
    return events


def added_up(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks of a stream, as a client puts them together."""
    found: list[dict[str, Any]] = []
    opened = False
    for event in events:
        if event["type"] == "content_block_start":
            assert not opened
            assert event["index"] == len(found)
            found.append({name: "" if name == "input" else value for name, value in event["content_block"].items()})
            opened = True
        elif event["type"] == "content_block_delta":
            assert opened
            assert event["index"] == len(found) - 1
            for name, text in event["delta"].items():
                if name != "type":
                    name = "input" if name == "partial_json" else name
                    found[-1][name] += text
        elif event["type"] == "content_block_stop":
            assert opened
            opened = False
    assert not opened
    return found


def comparable(content: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without ids; a stream's arguments are text, and what is no object stands under a name of its own."""
    made = []
    for block in content:
        kept = {name: value for name, value in block.items() if name != "id" and value is not None}
        if isinstance(kept.get("input"), str):
            try:
                value = json.loads(kept["input"] or "{}")
            except ValueError:
                value = None
            kept["input"] = value if isinstance(value, dict) else {"arguments": kept["input"]}
        made.append(kept)
    return made


@pytest.mark.parametrize(("ids", "given"), REPLIES)
def test_streamed_is_whole(ids: list[int], given: dict[str, Any], parser_class: Any) -> None:
    """And both are what the other server writes."""
    prompt = encode(given.get("prompt") or "<|start|>assistant")
    request = chat(names_of(given))
    stream = Stream(prompt, names_of(given), Options(keep=False))
    pieces = [Piece(stream.feed_events(ids)), Piece(stream.finish_events(), ending=Ending(stream.finish_reason()))]
    right = MessageWriter("m").whole(pieces, Usage())
    content = right["content"] or [{"type": "text", "text": ""}]
    message = whole(parser_class, request, ids, prompt)
    assert comparable(message.model_dump(exclude_none=True)["content"]) == comparable(content)
    assert message.stop_reason == right["stop_reason"]
    for chunks in (one_by_one(ids), by(7, ids)):
        events = streamed(parser_class, request, chunks, prompt)
        assert comparable(added_up(events)) == comparable(content)
        types = [event["type"] for event in events]
        assert [types[0], *types[-2:]] == ["message_start", "message_delta", "message_stop"]
        assert all(kind.startswith("content_block_") for kind in types[1:-2])
        assert events[-2]["delta"] == {"stop_reason": right["stop_reason"], "stop_sequence": None}
        assert (events[0]["message"]["content"], events[-2]["usage"]["output_tokens"]) == ([], 7)


@pytest.mark.parametrize("name", MANY)
def test_a_block_is_a_message(name: str, parser_class: Any) -> None:
    text, kinds = MANY[name]
    events = streamed(parser_class, chat(OFFERED["tools"]), one_by_one(encode(text)))
    assert [block["type"] for block in added_up(events)] == [
        {"r": "thinking", "m": "text", "c": "tool_use"}[kind] for kind in kinds
    ]


@pytest.mark.parametrize("case", [case for case in STOPPING if all(case.stop)], ids=lambda case: case.name)
def test_stop_strings(case: Stopping, parser_class: Any) -> None:
    """Whatever stands in front of the match, a call that is whole even, the reply ended by it."""
    request = chat(["get_weather"], stop=list(case.stop), include_stop_str_in_output=case.include)
    ids = encode(case.raw)
    message = whole(parser_class, request, ids, PROMPT)
    events = streamed(parser_class, request, one_by_one(ids))
    unmatched = "tool_use" if case.tool_calls else "end_turn"
    reason = "stop_sequence" if case.matched else unmatched
    assert (message.stop_reason, message.stop_sequence) == (reason, case.matched)
    assert events[-2]["delta"] == {"stop_reason": reason, "stop_sequence": case.matched}
    assert comparable(added_up(events)) == comparable(message.model_dump(exclude_none=True)["content"])


def test_a_limit(parser_class: Any) -> None:
    ids = encode(f'{A}commentary to=functions.f json<|message|>{{"a": ')
    assert whole(parser_class, chat(["f"]), ids, PROMPT, "length").stop_reason == "max_tokens"
    events = streamed(parser_class, chat(["f"]), one_by_one(ids), finish="length")
    assert events[-2]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert added_up(events)[0]["input"] == '{"a": '


def test_one_call_at_most(parser_class: Any) -> None:
    text, _ = MANY["calls around a preamble"]
    request = chat(["f"], parallel_tool_calls=False)
    events = streamed(parser_class, request, one_by_one(encode(text)))
    assert [block["type"] for block in added_up(events)] == ["thinking", "tool_use", "text"]
    content = whole(parser_class, request, encode(text), PROMPT).model_dump(exclude_none=True)["content"]
    assert comparable(added_up(events)) == comparable(content)


def test_blocks_come_as_they_are_written(parser_class: Any) -> None:
    """Each token's text leaves with it, behind a call, too."""
    text, _ = MANY["reasoning between calls"]
    ids = encode(text)
    events = streamed(parser_class, chat(OFFERED["tools"]), one_by_one(ids))
    last = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert {"type": "text_delta", "text": "Done"} in last


@pytest.mark.parametrize("raises", [True, False])
def test_a_failure_half_way(raises: bool, parser_class: Any) -> None:
    """The block that is open is closed; then comes vLLM's error."""
    ids = encode(f"{A}final<|message|>It is sunny.<|return|>")
    events = streamed(parser_class, chat(), one_by_one(ids), fails_at=len(ids) - 2, raises=raises)
    assert added_up(events) == [{"type": "text", "text": "It is sunny"}]
    assert [event["type"] for event in events[-2:]] == ["content_block_stop", "error"]
    first = streamed(parser_class, chat(), one_by_one(ids), fails_at=0, raises=raises)
    assert [event["type"] for event in first] == ["message_start", "error"]


def test_other_parsers_replies_are_vllms(parser_class: Any) -> None:
    """What the wrapper gives is what it wraps gives."""
    handler = serving(parser_class)
    handler.parser_cls = None

    async def nothing() -> AsyncIterator[Any]:
        for chunk in list[Any]():
            yield chunk

    async def frames(converter: Any) -> list[str]:
        return [frame async for frame in converter(handler, nothing())]

    wrapped = type(handler).message_stream_converter
    assert asyncio.run(frames(wrapped)) == asyncio.run(frames(wrapped.__wrapped__))
    assert blocks.wanted() is None
