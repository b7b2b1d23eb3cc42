"""The fuzzers, for a few seconds, and proof that their oracle sees what it is there to see. `make fuzz`: for long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import pytest
from fuzz import differential, mutation, prose
from fuzz.promises import Broken, check, check_text
from fuzz.transcript import to_ids

from harmony_plugin import Delta, Issue, Reply, Stream, parse
from harmony_plugin.core.events import Text

pytestmark = pytest.mark.no_cover  # measuring would take three times as long, and other tests reach the same lines

SIZE = 250


def test_differential() -> None:
    found = [(seed, broken) for seed in range(SIZE) if (broken := differential.check(seed)[1])]
    assert found == []


def test_mutation() -> None:
    found = [(seed, broken) for seed in range(2 * SIZE) if (broken := mutation.check_seed(seed)[1])]
    assert found == []


def test_prose() -> None:
    found = [(seed, broken) for seed in range(2 * SIZE) if (broken := prose.check_seed(seed)[1])]
    assert found == []


def test_guided() -> None:
    """The mapping from bytes to outputs takes any bytes, and nothing is found by a few of them."""
    from fuzz import guided

    random = Random(5)
    for _ in range(100):
        data = random.randbytes(random.randint(0, 60))
        guided.one(data, as_text=random.random() < 0.5)


RAW = (
    "<|channel|>analysis<|message|>0Q1Z 0Q2Z<|end|>"
    "<|start|>assistant<|channel|>commentary to=f 0Q3Z<|message|>0Q4Z<|call|>"
    "<|start|>assistant<|channel|>final<|message|>0Q5Z 0Q6Z<|end|>0Q7Z <|end|>"
)
RIGHT = parse(RAW)


def with_call(reply: Reply, **change: str) -> Reply:
    call = reply.tool_calls[0]._replace(**change)
    return reply._replace(tool_calls=(call,))


WRONG: dict[str, Callable[[Reply], Reply]] = {
    "a word vanishes": lambda r: r._replace(content="0Q5Z"),
    "a word is doubled": lambda r: r._replace(content="0Q5Z 0Q6Z 0Q6Z"),
    "a word is in two fields": lambda r: r._replace(reasoning_content="0Q1Z 0Q2Z 0Q5Z"),
    "a body is broken up": lambda r: r._replace(content="0Q5Z-0Q6Z"),
    "loose text vanishes": lambda r: r._replace(issues=(), content="0Q5Z 0Q6Z"),
    "a header word is in content": lambda r: r._replace(content=f"{r.content} 0Q3Z"),
    "a marker is in content": lambda r: r._replace(content=f"{r.content}<|end|>"),
    "a marker is in a tool name": lambda r: with_call(r, name="f<|channel|>"),
    "white space is in a tool name": lambda r: with_call(r, name="f json"),
    "analysis is in content": lambda r: r._replace(reasoning_content=None, content=f"0Q1Z 0Q2Z {r.content}"),
    "an issue has no known code": lambda r: r._replace(issues=(*r.issues, Issue("odd", 0, ""))),  # type: ignore[arg-type]
    "an issue lies outside": lambda r: r._replace(issues=(*r.issues, Issue("filler", 10_000, ""))),
    "text comes from nowhere": lambda r: r._replace(content=f"{r.content} 0Q99Z"),
}


def test_the_oracle_accepts_what_is_right() -> None:
    check_text(RAW, RIGHT, in_body=False, analysis=False, repair=False)


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_oracle_sees(wrong: Callable[[Reply], Reply]) -> None:
    with pytest.raises(Broken):
        check_text(RAW, wrong(RIGHT), in_body=False, analysis=False, repair=False)


@pytest.mark.parametrize("attribute", ["feed", "feed_events", "finish"])
def test_the_oracle_sees_that_chunks_matter(attribute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that loses something in chunks, or says something twice."""
    if attribute == "feed":
        usual = Stream.feed
        monkeypatch.setattr(Stream, "feed", lambda self, chunk: usual(self, chunk) if len(chunk) > 1 else Delta())
    elif attribute == "feed_events":
        events = Stream.feed_events
        monkeypatch.setattr(
            Stream, "feed_events", lambda self, chunk: [e for e in events(self, chunk) if not isinstance(e, Text)]
        )
    else:
        finish = Stream.finish

        def twice(self: Stream) -> Delta:
            delta = finish(self)
            delta.content = (delta.content or "") + "!"
            return delta

        monkeypatch.setattr(Stream, "finish", twice)
    with pytest.raises(Broken):
        any(check("<|channel|>final<|message|>0Q1Z 0Q2Z<|end|>", Random(seed)) is None for seed in range(20))


@pytest.mark.parametrize(
    "worse",
    [
        lambda reply: reply._replace(content=None),
        lambda reply: reply._replace(reasoning_content=None),
        lambda reply: reply._replace(content=f"{reply.reasoning_content}\n{reply.content}", reasoning_content=None),
    ],
    ids=["an answer is lost", "reasoning is lost", "reasoning is in content"],
)
def test_prose_sees(worse: Callable[[Reply], Reply], monkeypatch: pytest.MonkeyPatch) -> None:
    """The promise on prose alone, whatever the others say."""
    monkeypatch.setattr(prose, "check", lambda output, random, **settings: worse(parse(output, **settings)))
    assert any("0Q" in (prose.check_seed(seed)[1] or "") for seed in range(20))


def test_differential_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """One character of one body."""

    def worse(ids: Sequence[int]) -> Reply:
        reply = parse(ids)
        return reply._replace(messages=tuple(m._replace(text=m.text[:-1]) for m in reply.messages))

    monkeypatch.setattr(differential, "parse", worse)
    assert any(differential.check(seed)[1] for seed in range(20))


def test_ids_out_of_range_are_told_to_the_oracle() -> None:
    ids = to_ids([("marker", "channel"), ("text", "final"), ("marker", "message"), ("id", 1 << 70), ("id", -3)])
    reply = check(ids, Random(1))
    assert [issue.code for issue in reply.issues] == ["unknown_token", "unknown_token"]
