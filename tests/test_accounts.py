"""What the recoveries write down beside the text: offsets, token counts, channels, whether a message is whole.

Mutation testing found these unwatched (docs/mutation.md).
"""

from __future__ import annotations

import pytest

from feeding import encode
from harmony_plugin import Stream, parse

LONG = "word " * 200


@pytest.mark.parametrize(
    ("raw", "by_ids", "by_text"),
    [
        # A header that is due behind an end marker begins behind the marker.
        (
            "<|channel|>final<|message|>x<|end|><|channel|>final<|message|>y",
            [("missing_start", 5)],
            [("missing_start", 35)],
        ),
        ("<|end|>commentary<|end|>", [("stray_marker", 0), ("filler", 1)], [("stray_marker", 0), ("filler", 7)]),
        ("??<|end|>!<|end|>", [("loose_text", 0), ("loose_text", 2)], [("loose_text", 0), ("loose_text", 9)]),
        (
            f"<|channel|>analysis {LONG}<|end|>zz",
            [("header_too_long", 0), ("missing_message", 0), ("loose_text", 204)],
            [("header_too_long", 0), ("missing_message", 0), ("loose_text", 1027)],
        ),
        (
            f"{LONG}<|end|>assistant<|channel|>final<|message|>x",
            [("header_too_long", 0), ("missing_start", 202), ("loose_text", 0)],
            [("header_too_long", 0), ("missing_start", 1007), ("loose_text", 0)],
        ),
        (
            f"{LONG}<|channel|>final<|message|>x",
            [("header_too_long", 0), ("loose_text", 0), ("missing_start", 201)],
            [("header_too_long", 0), ("loose_text", 0), ("missing_start", 1000)],
        ),
        ("<|channel|>final<|message|>a<|message|>b", [("stray_marker", 4)], [("stray_marker", 28)]),
        ("<|channel|>final<|message|>a<|start|>assistant<|message|>b", [("missing_end", 4)], [("missing_end", 28)]),
    ],
)
def test_issues_say_where(raw: str, by_ids: list[tuple[str, int]], by_text: list[tuple[str, int]]) -> None:
    assert [(issue.code, issue.offset) for issue in parse(encode(raw)).issues] == by_ids
    assert [(issue.code, issue.offset) for issue in parse(raw).issues] == by_text


@pytest.mark.parametrize(
    ("raw", "count"),
    [
        ("<|channel|>analysis I must think<|end|>", 3),
        ("<|channel|>analysis I must think", 3),
        ("<|channel|>commentary I must think<|end|>", 3),  # its name takes two ids
        ("<|channel|>analysis I<|end|>", 1),
        ("<|channel|>analysis<|end|>", 0),
        ("loose one<|end|><|channel|>final<|message|>x", 3),
        ("loose one<|end|>", 0),
        ("loose one<|return|>", 0),
        ("<|channel|>commentary to=assistant<|message|>I note it<|end|>", 3),
        (f"<|channel|>analysis<|message|>{LONG}<|end|>", 201),
        ("<|channel|>final<|message|>I note it<|end|>", 0),
    ],
)
def test_reasoning_tokens_are_the_ids_of_its_text(raw: str, count: int) -> None:
    ids = encode(raw)
    assert parse(ids).reasoning_tokens == count
    stream = Stream()
    for token in ids:
        stream.feed([token])
    stream.finish()
    assert stream.reasoning_tokens == count


@pytest.mark.parametrize(
    ("raw", "complete"),
    [
        ("<|channel|>analysis I must think<|end|>", True),
        ("<|channel|>analysis I must think<|return|>", True),
        ("<|channel|>analysis I must think", False),
        ("<|channel|>analysis I must think<|start|>", False),
        ("<|channel|>final<|message|>x<|call|>", True),
        ("<|channel|>final<|message|>x", False),
        ("<|channel|>final<|message|>x<|channel|>", False),
        ("loose", False),
        ("loose<|end|>", False),
    ],
)
def test_a_message_is_complete_where_an_end_marker_closed_it(raw: str, complete: bool) -> None:
    for output in (raw, encode(raw)):
        assert [message.complete for message in parse(output).messages] == [complete]


def test_loose_text_has_the_channel_that_it_is_taken_for() -> None:
    assert parse("thought<|end|><|channel|>final<|message|>x").messages[0].channel == "analysis"
    assert parse("answer<|return|>").messages[0].channel is None
