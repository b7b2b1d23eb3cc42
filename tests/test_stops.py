"""Stop strings over events, for every way of cutting the output."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from feeding import Total, encode, encode_plain
from harmony_plugin import Ended, Field, Options, Started, Stream, Text
from harmony_plugin.core.attribution import ContentTokens
from harmony_plugin.core.deltas import Joiner
from harmony_plugin.core.stops import StopStrings
from harmony_plugin.core.vocabulary import harmony_vocabulary
from stopping import STOPPING, Stopping

TOOLS = ["get_weather"]


def by(size: int, ids: Sequence[int]) -> list[Sequence[int]]:
    return [ids[place : place + size] for place in range(0, len(ids), size)]


def split(case: Stopping, chunks: Sequence[str | Sequence[int]]) -> tuple[Total, StopStrings]:
    stream, total, joiner = Stream(tools=TOOLS), Total(), Joiner()
    stops = StopStrings(case.stop, include=case.include)
    for chunk in chunks:
        total.add(joiner.delta(stops.feed(stream.feed_events(chunk))))
    total.add(joiner.delta(stops.finish(stream.finish_events())))
    return total, stops


@pytest.mark.parametrize("case", STOPPING, ids=lambda case: case.name)
def test_the_reply_is_cut(case: Stopping) -> None:
    ids, raw = encode(case.raw), case.raw
    ways = [[ids], *(by(size, ids) for size in (1, 2, 7)), [raw], list(raw), by(5, raw)]  # type: ignore[arg-type]
    for chunks in ways:
        total, stops = split(case, chunks)  # type: ignore[arg-type]
        assert total.fields == case.fields
        assert (stops.matched, stops.in_call) == (case.matched, case.in_call)


def test_text_is_held_no_longer_than_it_may_be_a_stop_string() -> None:
    stops = StopStrings(["STOP", "TOO"])

    def feed(text: str) -> str:
        return "".join(event.text for event in stops.feed([Text("content", text)]) if isinstance(event, Text))

    assert [feed(text) for text in ("a", "S", "T", "O", "x", "ST", "ART", "OP")] == [
        "a",
        "",
        "",
        "",
        "STOx",
        "",
        "STAR",
        "TOP",
    ]
    assert feed("S") == ""
    assert stops.finish() == [Text("content", "S")]


def test_after_a_match_only_the_end_of_its_message() -> None:
    stream = Stream(tools=TOOLS)
    stops = StopStrings(["B"])
    raw = "<|channel|>final<|message|>AB<|end|><|start|>assistant<|channel|>final<|message|>C<|return|>"
    events = stops.feed(stream.feed_events(encode(raw)))
    events += stops.finish(stream.finish_events())
    assert [type(event) for event in events] == [Started, Text, Ended]
    assert stops.matched == "B"


def test_fields_that_the_client_does_not_see_are_not_searched() -> None:
    case = next(case for case in STOPPING if case.name == "in-reasoning")
    shown: tuple[Field, ...] = ("content",)
    stream, stops = Stream(tools=TOOLS), StopStrings(case.stop, shown=shown)
    events = stops.feed(stream.feed_events(encode(case.raw))) + stops.finish(stream.finish_events())
    assert [e.text for e in events if isinstance(e, Text)] == ["Let me think.", "It is sunny."]
    assert stops.matched is None


def test_unarmed_text_stops_nothing() -> None:
    stops = StopStrings(["one"])
    assert stops.feed([Text("content", "one, o")], armed=False) == [Text("content", "one, ")]
    assert stops.matched is None
    assert stops.feed([Text("content", "ne")]) == []
    assert stops.matched == "one"


def test_random_text_against_a_plain_search() -> None:
    dice = random.Random(5)
    for _ in range(3000):
        text = "".join(dice.choices("abc", k=dice.randint(0, 24)))
        strings = ["".join(dice.choices("abc", k=dice.randint(1, 5))) for _ in range(dice.randint(1, 4))]
        found = [
            (begin + len(string), begin, string)
            for string in strings
            for begin in range(len(text))
            if text.startswith(string, begin)
        ]
        _, begin, matched = min(found, default=(len(text), len(text), None))
        stops, out, place = StopStrings(strings), "", 0
        while place < len(text):
            size = dice.randint(1, 6)
            events = stops.feed([Text("content", text[place : place + size])])
            out += "".join(event.text for event in events if isinstance(event, Text))
            place += size
        out += "".join(event.text for event in stops.finish() if isinstance(event, Text))
        assert (out, stops.matched) == (text[:begin], matched), (text, strings)


# Which tokens the content came from.

VOCABULARY = harmony_vocabulary(Options().dialect)


def pieces_of_content(
    ids: Sequence[int], stop: Sequence[str] = (), prompt: str | None = None
) -> tuple[list[bytes], str]:
    """The bytes of the content's tokens, and the content, for a stream by token."""
    stream, stops = Stream(prompt, TOOLS, Options(keep=False), VOCABULARY), StopStrings(stop)
    contents: ContentTokens[bytes] = ContentTokens()
    entries: list[bytes] = []
    text = ""
    for token in ids:
        events = stream.feed_events((token,))
        piece = b"" if token in VOCABULARY.by_id else VOCABULARY.piece(token)
        data = piece.encode() if isinstance(piece, str) else piece
        assert isinstance(data, bytes)
        contents.add(data, data, events)
        given = stops.feed(events)
        entries += contents.given(given)
        text += "".join(e.text for e in given if isinstance(e, Text) and e.field == "content")
        if stops.matched:
            break
    events = stream.finish_events()
    contents.finish(events)
    given = stops.finish(events)
    entries += contents.given(given)
    return entries, text + "".join(e.text for e in given if isinstance(e, Text) and e.field == "content")


@pytest.mark.parametrize(
    "raw",
    [
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>🦀🫠, 北京 நன்.<|return|>",
        "<|channel|>final<|message|>one<|end|><|start|>assistant<|channel|>final<|message|>two<|return|>",
        "It is sunny.<|return|>",
        '<|channel|>final{"a": 1}<|return|>',
        "<|channel|>analysis<|message|>final<|end|><|start|>assistant<|channel|>final<|message|>final<|return|>",
        "<|channel|>commentary to=functions.get_weather json<|message|>{}<|call|>",
    ],
)
def test_tokens_of_the_content(raw: str) -> None:
    entries, content = pieces_of_content(encode(raw))
    assert b"".join(entries).decode() == content


def test_tokens_of_content_that_is_cut() -> None:
    entries, content = pieces_of_content(
        encode("<|channel|>final<|message|>It is sunny. Observation: none"), ["Observ"]
    )
    assert (content, entries) == ("It is sunny. ", [b"It", b" is", b" sunny", b".", b" Observation"])
    entries, content = pieces_of_content(encode("<|channel|>final<|message|>One, two"), [", two"])
    assert (content, entries) == ("One", [b"One"])


def test_tokens_of_bytes_that_are_no_character() -> None:
    half = encode_plain("🫠")[0]
    entries, content = pieces_of_content([*encode("<|channel|>final<|message|>ok"), half, *encode(" then<|return|>")])
    assert content == "ok\ufffd then"
    assert b"".join(entries).decode("utf-8", "replace") == content
