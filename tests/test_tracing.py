"""Tracing: on every case, what is shown is the whole output, and each field's pieces spell that field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from feeding import encode, encode_plain, without_call_ids
from harmony_plugin import Options, parse
from harmony_plugin.core import Explanation, Trace, harmony_vocabulary
from test_cases import cases, how, ids_of, inputs


def explain(output: str | Sequence[int], *, size: int | None = None, **how: Any) -> Explanation:
    trace = Trace(**how)
    for place in range(0, len(output), size or max(1, len(output))):
        trace.feed(output[place : place + (size or len(output))])
    return trace.finish()


def texts(explanation: Explanation, kind: str, message: int) -> str:
    return "".join(part.text for part in explanation.segments if (part.kind, part.message) == (kind, message))


def check(output: Any, explanation: Explanation, **how: Any) -> None:
    segments = explanation.segments
    if isinstance(output, str):
        assert "".join(part.text for part in segments) == output
        assert all(output[part.offset :].startswith(part.text) for part in segments)
        assert explanation.unit == "characters"
    else:
        assert [token for part in segments for token in part.ids or ()] == list(output)
        assert explanation.unit == "tokens"
    assert without_call_ids(explanation.reply) == without_call_ids(parse(output, **how))
    assert tuple(shown.message for shown in explanation.messages) == explanation.reply.messages
    for number, shown in enumerate(explanation.messages):
        if shown.field is not None:
            assert texts(explanation, shown.field, number) == shown.message.text
        elif shown.message.text.strip():
            assert shown.message.text in "".join(part.text for part in segments if part.kind == "dropped")


@cases
def test_every_case(case: dict[str, Any]) -> None:
    for output in inputs(case):
        whole = explain(output, **how(case))
        check(output, whole, **how(case))
        for size in (1, 3):
            assert without_ids(explain(output, size=size, **how(case))) == without_ids(whole)


def without_ids(explanation: Explanation) -> dict[str, Any]:
    told = explanation.to_dict()
    for call in told["message"].get("tool_calls", ()):
        call.pop("id")
    return told


@cases
def test_settled_segments_are_never_taken_back(case: dict[str, Any]) -> None:
    trace, taken = Trace(**how(case)), []
    for token in ids_of(case):
        trace.feed([token])
        taken += trace.take()
    whole = trace.finish()
    taken += trace.take()
    assert [token for part in taken for token in part.ids or ()] == ids_of(case)
    for kind in ("reasoning", "content", "tool_call", "dropped", "marker"):
        assert "".join(part.text for part in taken if part.kind == kind) == "".join(
            part.text for part in whole.segments if part.kind == kind
        )


@pytest.mark.parametrize("options", [Options(output="final_plus_tools_text"), Options(reasoning="drop")])
def test_settings(options: Options) -> None:
    output = (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.f "
        '<|constrain|>json<|message|>{"a": 1}<|call|>'
    )
    explanation = explain(output, options=options, tools=["f"])
    assert "".join(part.text for part in explanation.segments) == output
    kinds = {part.text: part.kind for part in explanation.segments}
    assert kinds["Hm."] == ("dropped" if options.reasoning == "drop" else "reasoning")
    assert kinds['{"a": 1}'] == ("content" if options.output == "final_plus_tools_text" else "tool_call")


def test_off() -> None:
    output = "<|channel|>final<|message|>Hi<|return|>"
    explanation = explain(output, options=Options(enabled=False))
    assert [part.kind for part in explanation.segments if part.kind == "header"] == []
    assert "".join(part.text for part in explanation.segments) == output


def test_characters_in_pieces_and_bytes_that_are_none() -> None:
    crab = encode_plain("🦀")
    assert len(crab) > 1
    broken = crab[:1]
    ids = [*encode("<|channel|>final<|message|>"), *crab, *broken, *encode("<|end|>"), 200_020]
    explanation = explain(ids, size=1)
    check(ids, explanation)
    assert [(part.kind, part.text) for part in explanation.segments[3:]] == [
        ("content", "🦀\ufffd"),
        ("marker", "<|end|>"),
        ("dropped", "<|reserved_200020|>"),
    ]
    assert explanation.segments[3].ids == (*crab, *broken)


def test_repaired_arguments_are_the_models() -> None:
    pytest.importorskip("json_repair", reason="needs the extra repair")
    output = "<|channel|>commentary to=functions.f<|message|>{a:1<|call|>"
    explanation = explain(output, options=Options(arguments="repair"))
    assert [part.text for part in explanation.segments if part.kind == "tool_call"] == ["{a:1"]


def test_text_and_ids_do_not_mix() -> None:
    trace = Trace(decode=harmony_vocabulary(Options().dialect))
    trace.feed("<|channel|>final<|message|>Hi")
    with pytest.raises(TypeError, match="this stream takes text"):
        trace.feed([200_007])
    trace = Trace()
    trace.feed([200_005])
    with pytest.raises(TypeError, match="this stream takes token ids"):
        trace.feed("analysis")


def test_as_json() -> None:
    told = explain("<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>Hi").to_dict()
    assert told["unit"] == "characters"
    assert told["segments"][0] == {
        "kind": "marker",
        "text": "<|channel|>",
        "offset": 0,
        "ids": None,
        "message": 0,
    }
    assert told["messages"][1] == {
        "field": "content",
        "role": "assistant",
        "channel": "final",
        "recipient": None,
        "content_type": None,
        "text": "Hi",
        "complete": False,
        "name": None,
    }
    assert [issue["code"] for issue in told["issues"]] == ["missing_end", "missing_start"]
    assert told["issues"][0]["meaning"].startswith("a message ended without an end marker")
    assert told["message"]["content"] == "Hi"
