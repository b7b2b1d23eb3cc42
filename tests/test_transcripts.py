"""Whole transcripts: what they are, what is wrong with them, other ways to write them, and many at once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from feeding import encode, encode_plain, without_call_ids
from harmony_plugin import (
    CODES,
    Dialect,
    HarmonyParseError,
    Options,
    from_think,
    is_harmony,
    messages_by_channel,
    parse,
    parse_many,
    repair,
    to_think,
    token_statistics,
    validate,
)
from harmony_plugin.transcripts import _SUGGESTIONS
from test_cases import cases, how, ids_of, inputs

SOUND = "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>"
CALLS = (
    "<|channel|>analysis<|message|>Two.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
    '<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'
    "<|start|>assistant<|channel|>commentary to=functions.g <|constrain|>json<|message|>{}<|call|>"
)


def test_whether_it_is_harmony() -> None:
    assert is_harmony(SOUND)
    assert is_harmony(encode(SOUND))
    assert not is_harmony("Just text, with <|endoftext|>")
    assert not is_harmony(encode_plain(SOUND)), "look-alikes of ordinary tokens are text"
    assert is_harmony("<|im_start|>assistant", dialect=Dialect(markers={"start": "<|im_start|>"}))
    assert not is_harmony("")


def test_by_channel() -> None:
    found = messages_by_channel(CALLS)
    assert {channel: [message.text for message in messages] for channel, messages in found.items()} == {
        "analysis": ["Two."],
        "commentary": ["I look.", '{"a": 1}', "{}"],
    }


def test_problems_in_order_with_what_would_mend_them() -> None:
    assert validate(SOUND) == validate(encode(SOUND)) == []
    problems = validate("<|channel|>analysis<|message|>Hm.<|channel|>finl<|message|>Hi<|message|>")
    assert [(problem.code, problem.offset, problem.unit) for problem in problems] == [
        ("missing_end", 33, "characters"),
        ("missing_start", 33, "characters"),
        ("misspelled_channel", 33, "characters"),
        ("stray_marker", 61, "characters"),
    ]
    assert problems[2].text == "finl"
    assert problems[2].suggestion == "spell the channel analysis, commentary or final"
    assert "text:" not in problems[2].meaning


def test_each_code_has_a_suggestion() -> None:
    assert set(_SUGGESTIONS) == set(CODES)


@cases
def test_statistics_add_up(case: dict[str, Any]) -> None:
    ids = ids_of(case)
    total, *parts = token_statistics(ids, **how(case))
    assert total == len(ids) == sum(parts)
    assert parts[0] <= (parse(ids, **how(case)).reasoning_tokens or 0)


def test_statistics_want_tokens() -> None:
    statistics = token_statistics(encode(CALLS))
    assert statistics.reasoning == len(encode("Two."))
    assert statistics.content == len(encode("I look."))
    assert statistics.tool_calls == len(encode('{"a": 1}')) + len(encode("{}"))
    with pytest.raises(TypeError, match="token ids, not text"):
        token_statistics(SOUND)  # type: ignore[arg-type]


@cases
def test_repaired_is_well_formed_and_says_the_same(case: dict[str, Any]) -> None:
    for output in inputs(case):
        before = parse(output, **how(case))
        mended = repair(output, **how(case))
        assert type(mended) is (str if isinstance(output, str) else list)
        after = parse(mended)
        assert {issue.code for issue in after.issues} <= {"arguments_not_json"}
        assert (after.reasoning_content, after.content) == (before.reasoning_content, before.content)
        assert [call[1:] for call in after.tool_calls] == [call[1:] for call in before.tool_calls]
        assert repair(mended) == mended


def test_what_is_well_formed_stays() -> None:
    assert repair(SOUND) == SOUND
    assert repair(CALLS) == CALLS
    assert repair(encode(CALLS)) == encode(CALLS)


def test_think() -> None:
    assert to_think(SOUND) == "<think>Easy.</think>4"
    assert from_think("<think>\nEasy.\n</think>\n\n4") == SOUND
    written = to_think(parse(CALLS))
    assert written == (
        '<think>Two.</think>I look.<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
        '<tool_call>{"name": "g", "arguments": {}}</tool_call>'
    )
    assert from_think(written) == CALLS
    assert from_think("Hi") == "<|channel|>final<|message|>Hi<|return|>"
    assert from_think("<think>cut") == "<|channel|>analysis<|message|>cut<|end|>"
    text = '<tool_call>{"arguments": {}}</tool_call>'
    assert parse(from_think(text)).content == text
    called = from_think('<tool_call>\n{"name": "f", "arguments": "{\\"a\\": 1}"}\n</tool_call>')
    assert json.loads(parse(called).tool_calls[0].arguments) == {"a": 1}
    assert from_think("") == ""


def outputs(count: int) -> Iterator[str]:
    for number in range(count):
        yield f"<|channel|>final<|message|>{number}<|return|>"


@pytest.mark.parametrize("processes", [None, 2])
def test_many_in_order(processes: int | None) -> None:
    replies = parse_many(outputs(500), processes=processes, chunk_size=7)
    assert [reply.content for reply in replies] == [str(number) for number in range(500)]


def test_many_are_read_as_they_are_needed() -> None:
    """An endless source, of which a part is wanted."""
    endless = (f"<|channel|>final<|message|>{number}" for number in itertools.count())
    replies = parse_many(endless, processes=2, chunk_size=4)
    assert [reply.content for reply in itertools.islice(replies, 10)] == [str(number) for number in range(10)]
    replies.close()  # type: ignore[attr-defined]
    assert next(endless) != "<|channel|>final<|message|>10", "some were read ahead"


def test_many_with_settings_and_strictness() -> None:
    given = [encode(SOUND), encode(CALLS)]
    for processes in (None, 1):
        split = list(parse_many(given, processes=processes, tools=["f", "g"], options=Options(reasoning="drop")))
        assert [reply.reasoning_content for reply in split] == [None, None]
        assert without_call_ids(split[1]) == without_call_ids(
            parse(given[1], tools=["f", "g"], options=Options(reasoning="drop"))
        )
        with pytest.raises(HarmonyParseError):
            list(parse_many([SOUND, "<|channel|>finl<|message|>x"], processes=processes, options=Options(strict=True)))
    with pytest.raises(ValueError, match="1 or more"):
        parse_many([], processes=0)
