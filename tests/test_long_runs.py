"""Long runs (SPEC section 7): work per chunk is that of the chunk, memory that of the held text and what is kept.

Work is counted in calls that the interpreter makes, not in seconds, so that a busy machine changes nothing; what calls
do not show (text copied again and again) shows in the sizes themselves, which could not be finished.

The sizes are a tenth of what they are with HARMONY_SOAK=1 (`make soak`).
"""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from feeding import encode
from harmony_plugin import Options, Stream
from harmony_plugin.core.vocabulary import harmony_encoding

pytestmark = pytest.mark.no_cover  # measuring would take three times as long, and other tests reach the same lines

SHARE = 1 if os.environ.get("HARMONY_SOAK") else 10
MILLION = 1_000_000 // SHARE
ANALYSIS = encode("<|channel|>analysis<|message|>")
CALL = encode("<|channel|>commentary to=functions.write <|constrain|>json<|message|>")
WORDS = encode(" the weather in Paris is 21 °C and München has 🦀, naïve as that may be")


def calls_of(work: Callable[[], object]) -> int:
    """How many calls, Python's and C's, a piece of work makes."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def peak_of(work: Callable[[], object]) -> int:
    """The most bytes that a piece of work holds at once, beyond what was held before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def body(size: int) -> Iterator[int]:
    for place in range(size):
        yield WORDS[place % len(WORDS)]


def feed(stream: Stream, ids: Iterable[int], step: int = 1) -> int:
    """Feed ids in chunks of one size; gives how many characters the deltas hold."""
    told = 0
    chunk: list[int] = []
    for token in ids:
        chunk.append(token)
        if len(chunk) == step:
            told += size_of(stream.feed(chunk))
            chunk = []
    return told + size_of(stream.feed(chunk)) + size_of(stream.finish())


def size_of(delta: Any) -> int:
    return (
        len(delta.reasoning_content or "")
        + len(delta.content or "")
        + sum(len(call.arguments) for call in delta.tool_calls)
    )


def whole_text(size: int) -> str:
    """The text of `body(size)`, by the Harmony library."""
    return str(harmony_encoding().decode(list(body(size))))


def test_a_body_of_a_million_tokens() -> None:
    stream = Stream()
    stream.feed(ANALYSIS)
    told = feed(stream, body(MILLION))
    reply = stream.reply
    assert reply.reasoning_tokens == MILLION
    assert reply.reasoning_content == whole_text(MILLION)
    assert len(reply.reasoning_content) == told
    assert reply.issues == ()


def test_an_argument_string_of_ten_megabytes() -> None:
    unit = "0123456789 the weather in München is fine 🦀\\n"
    size = 10_000_000 // SHARE
    count = size // len(unit.encode()) + 1
    arguments = '{"content": "' + unit * count + '"}'
    ids = [*encode('{"content": "'), *encode(unit) * count, *encode('"}')]
    assert len(arguments.encode()) > size
    for step in (1, 1000, len(ids)):
        stream = Stream(tools=["write"])
        stream.feed(CALL)
        told = feed(stream, ids, step)
        assert [(call.name, call.arguments) for call in stream.reply.tool_calls] == [("write", arguments)]
        assert told == len(arguments)
        assert stream.issues == ()


def test_ten_thousand_messages_in_one_reply() -> None:
    parts = [
        "<|channel|>analysis<|message|>thought {}<|end|>",
        '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{{"n": {}}}<|call|>',
        "<|channel|>final<|message|>answer {}<|end|>",
        "<|channel|>commentary<|message|>note {}<|end|>",
    ]
    count = 10_000 // SHARE
    ids = encode("<|start|>assistant".join(parts[n % 4].format(n) for n in range(count)))
    stream = Stream()
    feed(stream, ids)
    reply = stream.reply
    assert len(reply.messages) == count
    assert [call.arguments for call in reply.tool_calls] == [f'{{"n": {n}}}' for n in range(1, count, 4)]
    assert len({call.id for call in reply.tool_calls}) == count // 4
    assert reply.reasoning_content == "\n".join(f"thought {n}" for n in range(0, count, 4))
    assert reply.content == "\n".join(f"{'answer' if n % 4 == 2 else 'note'} {n}" for n in range(count) if n % 4 > 1)
    assert reply.issues == ()


def body_run(size: int) -> Callable[[], object]:
    return lambda: feed_all(ANALYSIS, body(size))


def feed_all(head: list[int], ids: Iterable[int]) -> None:
    stream = Stream()
    stream.feed(head)
    feed(stream, ids)


def messages_run(size: int) -> Callable[[], object]:
    ids = encode("<|start|>assistant".join(["<|channel|>final<|message|>x<|end|>"] * (size // 10)))
    return lambda: feed_all([], ids)


def calls_run(size: int) -> Callable[[], object]:
    ids = encode("<|start|>assistant".join(['<|channel|>commentary to=f<|message|>{"a": 1}<|call|>'] * (size // 10)))
    return lambda: feed_all([], ids)


def headers_run(size: int) -> Callable[[], object]:
    """Header after header that is none, and loose text that waits for a marker."""
    ids = encode("<|channel|>??<|end|>loose<|end|> to=x<|channel|>final<|start|>" * (size // 16))
    return lambda: feed_all([], ids)


def loose_run(size: int) -> Callable[[], object]:
    return lambda: feed_all([], body(size))


@pytest.mark.parametrize("run", [body_run, messages_run, calls_run, headers_run, loose_run])
def test_work_is_linear(run: Callable[[int], Callable[[], object]]) -> None:
    run(500)()  # the vocabulary learns, the caches fill
    few, many = calls_of(run(5_000)), calls_of(run(40_000))
    assert many < 8.2 * few


def test_memory_stays_flat_where_nothing_is_kept() -> None:
    """A body that nobody keeps costs no memory, however long."""

    def run(size: int) -> Callable[[], object]:
        def work() -> None:
            stream = Stream(options=Options(keep=False))
            stream.feed(ANALYSIS)
            feed(stream, body(size))

        return work

    run(100)()
    few, many = peak_of(run(2_000)), peak_of(run(MILLION // 10))
    assert many < few + 4_096


def test_memory_is_the_message_where_it_is_kept() -> None:
    def run(size: int) -> Callable[[], object]:
        return lambda: feed_all(ANALYSIS, body(size))

    run(100)()
    few, many = peak_of(run(5_000)), peak_of(run(50_000))
    # The list of pieces grows by doubling, so its size is not exactly proportional.
    assert many < 13 * few


def test_a_hundred_thousand_streams_at_once() -> None:
    """Interleaved, a token of each at a time: no stream knows of another, and each costs a few kilobytes."""
    said = [*ANALYSIS, *encode("Let me"), *encode("<|end|><|channel|>final<|message|>It is ")]
    count, sampled = 100_000 // SHARE, 2_000
    streams = [Stream() for _ in range(count - sampled)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        streams += [Stream() for _ in range(sampled)]
        for token in said:
            for stream in streams[-sampled:]:
                stream.feed([token])
        each = (tracemalloc.get_traced_memory()[0] - before) / sampled
    finally:
        tracemalloc.stop()
    assert each < 4_096, f"{each:.0f} bytes a stream"
    for token in said:
        for stream in streams[:-sampled]:
            stream.feed([token])
    numbers = [encode(str(number)) for number in range(1000)]
    for number, stream in enumerate(streams):
        stream.feed(numbers[number % 1000])
        stream.finish()
        assert (stream.reply.reasoning_content, stream.reply.content) == ("Let me", f"It is {number % 1000}")
