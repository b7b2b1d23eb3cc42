"""Deltas and replies add up: `Delta`'s sum, the join, and `Reply.of`."""

from __future__ import annotations

from typing import Any

import pytest

from feeding import encode
from harmony_plugin import Delta, Event, Options, Reply, Stream, ToolCallDelta, parse
from harmony_plugin.core import StopStrings

RAW = (
    "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=functions.f<|message|>{}"
    "<|call|><|start|>assistant<|channel|>commentary to=functions.g<|message|>[1]<|call|>"
    "<|start|>assistant<|channel|>analysis<|message|>b<|end|><|start|>assistant<|channel|>final<|message|>c"
)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_deltas_add_up(size: int) -> None:
    total = sum((Stream().deltas(RAW[place : place + size] for place in range(0, len(RAW), size))), Delta())
    whole = parse(RAW)
    assert (total.reasoning_content, total.content) == (whole.reasoning_content, whole.content) == ("a\nb", "c")
    assert [(call.index, call.name, call.arguments) for call in total.tool_calls] == [(0, "f", "{}"), (1, "g", "[1]")]
    assert all(call.id for call in total.tool_calls)


def test_deltas_are_values_when_they_add_up() -> None:
    one, other = Delta(content="a"), Delta(content="b", tool_calls=(ToolCallDelta(0, "x", "f", "{"),))
    assert one + other == Delta(content="ab", tool_calls=(ToolCallDelta(0, "x", "f", "{"),))
    assert (one, other.content) == (Delta(content="a"), "b")
    with pytest.raises(TypeError):
        one + "b"  # type: ignore[operator]


def events_of(stream: Stream, chunks: list[Any]) -> list[Event]:
    return [event for chunk in chunks for event in stream.feed_events(chunk)] + stream.finish_events()


CALL = "<|start|>assistant<|channel|>commentary to=functions.f<|message|>{}<|call|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>{}<|end|>"
REPLIES = [
    RAW,
    "loose <|start|>user<|message|>no<|end|>" + FINAL.format("") + FINAL.format("a") + FINAL.format("b"),
    CALL.format("") + CALL.format(" ") + CALL.format("{}") + CALL.format("{a: 1}") + CALL.format("  {}"),
    "<|channel|>commentary to=functions.f<|message|>",
    "",
]


@pytest.mark.parametrize("raw", REPLIES)
@pytest.mark.parametrize("arguments", ["verbatim", "repair"])
@pytest.mark.parametrize("as_text", [True, False])
def test_events_add_up_to_the_streams_own_reply(raw: str, arguments: Any, as_text: bool) -> None:
    chunks: list[Any] = list(raw) if as_text else [[token] for token in encode(raw)]
    stream = Stream(options=Options(arguments=arguments))
    events = events_of(stream, chunks)
    reply = stream.reply
    assert Reply.of(events, stream.issues, reply.reasoning_tokens) == reply


@pytest.mark.parametrize("raw", REPLIES)
def test_without_keep_the_fields_are_the_same(raw: str) -> None:
    stream = Stream(options=Options(keep=False))
    reply, whole = Reply.of(events_of(stream, [raw])), parse(raw)
    assert (reply.reasoning_content, reply.content) == (whole.reasoning_content, whole.content)
    assert [call[1:] for call in reply.tool_calls] == [call[1:] for call in whole.tool_calls]
    assert [m.text for m in reply.messages if not m.recipient] == [
        m.text if m.role == "assistant" else "" for m in whole.messages if not m.recipient
    ]
    assert (reply.issues, reply.reasoning_tokens) == ((), None)


@pytest.mark.parametrize(
    ("stop", "content", "arguments"),
    [("lo", "Hel", []), ("Hello", None, []), ("B", "Hello", ['{"a": "'])],
)
def test_events_that_were_cut_add_up_as_cut(stop: str, content: str | None, arguments: list[str]) -> None:
    raw = FINAL.format("Hello") + CALL.format('{"a": "B"}')
    for chunks in ([raw], list(raw)):
        stream, stops = Stream(), StopStrings([stop])
        events = [event for chunk in chunks for event in stops.feed(stream.feed_events(chunk))]
        reply = Reply.of(events + stops.finish(stream.finish_events()))
        assert reply.content == content
        assert [call.arguments for call in reply.tool_calls] == arguments
        assert [message.text for message in reply.messages] == [content or "", *arguments]


def test_what_has_not_ended_counts_as_far_as_it_came() -> None:
    stream = Stream()
    events = stream.feed_events(FINAL.format("a") + CALL.format('{"a').removesuffix("<|call|>"))
    reply = Reply.of(events)
    assert (reply.content, reply.tool_calls[0].arguments) == ("a", '{"a')
    assert [message.complete for message in reply.messages] == [True, False]
    assert Reply.of(stream.feed_events("b")) == Reply(None, None, (), (), (), None)  # its beginning came before
