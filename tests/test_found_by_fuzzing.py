"""What fuzzing found, one test each, named for what was wrong. `fuzz/README.md` tells how to look for more."""

from __future__ import annotations

import pytest

from feeding import encode, fields, split, texts
from harmony_plugin import Stream, parse


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("<|channel|>final<|constrain|>I must refuse<|return|>", (None, "I must refuse", [])),
        ("<|channel|>commentary<|constrain|> refuse<|return|>", ("refuse", None, [])),
        ("<|channel|>analysis<|constrain|>text/plain yes", ("text/plain yes", None, [])),
        ('<|channel|>final<|constrain|>json {"a":1}<|return|>', (None, '{"a":1}', [])),
    ],
)
def test_a_word_behind_constrain_is_body_where_message_is_missing(raw: str, expected: object) -> None:
    """It vanished: taken for the content type, though only json and code are known ones."""
    assert fields(split(raw)) == expected


@pytest.mark.parametrize("size", range(488, 514))
def test_analysis_is_not_content_where_the_header_limit_cuts_its_name(size: int) -> None:
    """The limit fell inside the word: an unknown channel was left, and its body was content."""
    raw = f"{'word ' * 200}"[: size - len("assistant")] + "assistant<|channel|>analysis<|message|>secret<|end|>"
    reply = split(raw)
    assert "secret" in (reply.reasoning_content or "")
    assert "secret" not in (reply.content or "")


@pytest.mark.parametrize("size", [500, 504, 505, 513, 700])
def test_reasoning_tokens_of_a_long_header_do_not_depend_on_chunks(size: int) -> None:
    """The ids of a whole run of text counted as the header's, although the limit cut it."""
    ids = encode(f"<|channel|>analysis{' word' * size}")
    whole = parse(ids)
    for step in (1, 2, 3, 50, len(ids) - 1):
        stream = Stream()
        for begin in range(0, len(ids), step):
            stream.feed(ids[begin : begin + step])
        stream.finish()
        assert stream.reply == whole


def test_an_unfinished_character_stands_in_front_of_a_run_that_is_too_long() -> None:
    ids = [*encode("<|channel|>analysis 🦙🦙"), *encode(" naïve" * 400)]
    whole = parse(ids)
    for place in range(1, 30):
        stream = Stream()
        stream.feed(ids[:place])
        stream.feed(ids[place:])
        stream.finish()
        assert stream.reply == whole


@pytest.mark.parametrize(
    ("header", "code", "text"),
    [
        ("<|channel|>commentary<|channel|> side<|message|>", "repeated_channel", "side"),
        ("final<|channel|> side<|message|>", "repeated_channel", "side"),
        ("<|channel|>one<|channel|>two<|message|>", "repeated_channel", "one"),
        ("<|channel|>final<|constrain|> odd<|constrain|>json<|message|>", "header_words", "odd"),
    ],
)
def test_words_of_a_clause_that_does_not_count_are_in_an_issue(header: str, code: str, text: str) -> None:
    """They were nowhere."""
    assert texts(split(f"{header}x<|end|>"), code) == [text]


@pytest.mark.parametrize("end", ["", "<|end|>", "<|return|>"])
def test_words_glued_to_a_channel_that_does_not_count_are_in_an_issue(end: str) -> None:
    """They vanished with the channel's name, where <|message|> is missing. Words of prose are text: see test_header."""
    reply = split(f"<|channel|>analysis??<|channel|>analysis{end}")
    assert texts(reply, "header_words") == ["??"]


def test_a_misspelled_channel_without_message_is_told() -> None:
    reply = parse("<|channel|>finel Hello<|return|>")
    assert reply.content == "Hello"
    assert ("misspelled_channel", "finel") in [(issue.code, issue.text) for issue in reply.issues]
