"""Rows as `ray.data.llm` hands them over, split. Needs no Ray."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vllm_rig import cases
from vllm_rig.replies import encode

from harmony_plugin import HarmonyParseError, Options, parse
from harmony_plugin.ray import FIELDS, Columns, split
from harmony_plugin.ray.rows import options_from_environment

TEXT = "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>"


def without_ids(calls: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Calls by name and arguments; their ids are drawn anew."""
    assert all(call["type"] == "function" and call["id"] for call in calls)
    return [(call["function"]["name"], call["function"]["arguments"]) for call in calls]


@pytest.mark.parametrize("case", cases.load(), ids=lambda case: case.id)
def test_every_case_comes_out_as_the_core_has_it(case: cases.Case) -> None:
    reply = parse(case.ids, tools=case.tools)
    row = split({"id": 1, "generated_tokens": list(case.ids), "tools": list(case.tools)})
    assert (row["reasoning_content"], row["content"], without_ids(row["tool_calls"])) == case.expected
    assert row["reasoning_tokens"] == reply.reasoning_tokens
    assert row["issues"] == [issue.code for issue in reply.issues]
    assert row["id"] == 1
    assert set(row) == {"id", "generated_tokens", "tools", *FIELDS}


def test_ids_may_be_an_array() -> None:
    numpy = pytest.importorskip("numpy")
    row = split({"generated_tokens": numpy.array(encode(TEXT)), "prompt_token_ids": numpy.array(encode("<|start|>"))})
    assert row["content"] == "4"


def test_the_prompt_says_where_the_output_goes_on() -> None:
    prompt = encode("<|start|>user<|message|>2 + 2?<|end|><|start|>assistant<|channel|>final<|message|>It is ")
    row = split({"generated_tokens": encode("4<|return|>"), "prompt_token_ids": prompt})
    assert (row["content"], row["issues"]) == ("4", [])


@pytest.mark.parametrize("tools", [["f"], json.dumps(["f"]), [{"type": "function", "function": {"name": "f"}}]])
def test_tools_are_those_of_the_row(tools: Any) -> None:
    output = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>"
    assert without_ids(split({"generated_tokens": encode(output), "tools": tools})["tool_calls"]) == [("f", "{}")]


def test_columns_have_the_names_that_are_said() -> None:
    row = split({"text": TEXT, "generated_tokens": None}, Columns(output="text"))
    assert (row["content"], row["reasoning_content"], row["reasoning_tokens"]) == ("4", "Easy.", None)


def test_an_output_of_none_is_an_empty_reply() -> None:
    row = split({"generated_tokens": None})
    assert (row["content"], row["reasoning_content"], row["tool_calls"]) == (None, None, [])


def test_an_earlier_split_is_replaced() -> None:
    assert split({"generated_tokens": encode(TEXT), "content": "old"})["content"] == "4"


def test_a_row_without_the_column_says_which() -> None:
    with pytest.raises(KeyError, match="generated_tokens"):
        split({"generated_text": TEXT})


def test_the_workers_environment_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARMONY_REASONING", "drop")
    options_from_environment.cache_clear()
    try:
        assert split({"generated_tokens": encode(TEXT)})["reasoning_content"] is None
        assert split({"generated_tokens": encode(TEXT)}, options=Options())["reasoning_content"] == "Easy."
    finally:
        options_from_environment.cache_clear()


def test_strict_raises() -> None:
    with pytest.raises(HarmonyParseError):
        split({"generated_tokens": encode("loose")}, options=Options(strict=True))
