"""What the settings of the split change, on every case: nothing but what they say, and nothing is lost by them."""

from __future__ import annotations

from typing import Any

import pytest

from feeding import check_chunks, cut, encode, split
from harmony_plugin import Options, Reply, Stream, parse
from test_cases import by_text, cases, how, ids_of

CALL = (
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.f "
    "<|constrain|>json<|message|>%s<|call|><|start|>assistant<|channel|>final<|message|>OK<|return|>"
)


def codes(reply: Reply) -> list[str]:
    return [issue.code for issue in reply.issues]


def taken(ids: list[int], **how: Any) -> Reply:
    """A reply, the same token by token and in halves."""
    reply = parse(ids, **how)
    check_chunks([[token] for token in ids], reply, **how)
    check_chunks(cut(ids, [len(ids) // 2]), reply, **how)
    return reply


@cases
def test_off_gives_the_output_as_it_is(case: dict[str, Any]) -> None:
    off = Options(enabled=False)
    if by_text(case):
        reply = parse(case["raw"], options=off, **how(case))
        assert (reply.content or "") == case["raw"]
        assert (reply.reasoning_content, reply.tool_calls, reply.issues) == (None, (), ())
    ids = ids_of(case)
    whole = parse(ids, options=off, **how(case))
    stream = Stream(options=off, **how(case))
    pieces = [stream.feed([token]) for token in ids] + [stream.finish()]
    assert "".join(piece.content or "" for piece in pieces) == (whole.content or "")
    if by_text(case) and encode(case["raw"]) == ids:
        assert (whole.content or "") == case["raw"]


@cases
def test_dropped_reasoning_is_in_issues(case: dict[str, Any]) -> None:
    ids = ids_of(case)
    kept = parse(ids, **how(case))
    dropped = taken(ids, options=Options(reasoning="drop"), **how(case))
    assert dropped.reasoning_content is None
    assert dropped.content == kept.content
    assert [call[1:] for call in dropped.tool_calls] == [call[1:] for call in kept.tool_calls]
    assert dropped.reasoning_tokens == kept.reasoning_tokens
    texts = [issue.text for issue in dropped.issues if issue.code == "dropped_text"]
    assert "\n".join(texts) == (kept.reasoning_content or "")


@cases
def test_calls_left_out_are_in_issues(case: dict[str, Any]) -> None:
    ids = ids_of(case)
    kept = parse(ids, **how(case))
    left = taken(ids, options=Options(output="final_only"), **how(case))
    assert left.tool_calls == ()
    assert (left.reasoning_content, left.content) == (kept.reasoning_content, kept.content)
    assert codes(left).count("dropped_call") == len(kept.tool_calls)


@cases
def test_calls_as_text(case: dict[str, Any]) -> None:
    ids = ids_of(case)
    kept = parse(ids, **how(case))
    shown = taken(ids, options=Options(output="final_plus_tools_text"), **how(case))
    assert shown.tool_calls == ()
    assert shown.reasoning_content == kept.reasoning_content
    for call in kept.tool_calls:
        assert f"{call.name}({call.arguments})" in (shown.content or "")
    written = sum(len(call.name) + len(call.arguments) + 2 for call in kept.tool_calls)
    parts = len(kept.tool_calls) + (kept.content is not None)
    most = len(kept.content or "") + written + max(0, parts - 1) + (kept.content or "").count("\n")
    assert len(shown.content or "") <= most


@pytest.mark.parametrize(
    ("arguments", "content"),
    [('{"a": 1}', 'f({"a": 1})\nOK'), ("", "f({})\nOK"), (" \n", "f({})\nOK"), ("{a:1", "f({a:1)\nOK")],
)
def test_how_calls_are_written(arguments: str, content: str) -> None:
    reply = split(CALL % arguments, options=Options(output="final_plus_tools_text"), tools=["f"])
    assert reply.content == content
    assert reply.finish_reason() == "stop"


def test_repaired_arguments_in_text() -> None:
    pytest.importorskip("json_repair", reason="needs the extra repair")
    options = Options(output="final_plus_tools_text", arguments="repair")
    reply = split(CALL % "{a:1", options=options, tools=["f"])
    assert reply.content == 'f({"a": 1})\nOK'
    assert codes(reply) == ["arguments_repaired"]


def test_settings_at_work_are_no_fault() -> None:
    """Strict mode does not raise on what a setting drops."""
    options = Options(strict=True, reasoning="drop", output="final_only")
    assert codes(parse(CALL % "{}", options=options, tools=["f"])) == ["dropped_text", "dropped_call"]


def test_state_while_reasoning_is_dropped() -> None:
    """Budgets go on counting."""
    stream = Stream(options=Options(reasoning="drop", keep=False))
    for token in encode("<|channel|>analysis<|message|>one two three"):
        assert not stream.feed([token])
    assert (stream.field, stream.reasoning_tokens) == ("reasoning", 3)
    stream.finish()
    (issue,) = stream.issues
    assert (issue.code, issue.text) == ("dropped_text", "one two three")


@pytest.mark.parametrize("name", ["output", "reasoning"])
def test_a_value_that_is_none(name: str) -> None:
    with pytest.raises(ValueError, match=rf"Options\({name}='nope'\): it is one of"):
        Options(**{name: "nope"})  # type: ignore[arg-type]
