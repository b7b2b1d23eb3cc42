"""What a request lets the model call: OpenAI's `tool_choice`, read in one place for every API and server."""

from __future__ import annotations

from typing import Any

import pytest

from harmony_plugin import RequestError
from harmony_plugin.api.request import AllowedCalls, allowed_calls

NAMES = ("f", "g", "p")
F, P = {"type": "function", "name": "f"}, {"type": "custom", "custom": {"name": "p"}}


def allowed(*tools: Any, mode: Any = "auto") -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, AllowedCalls("auto", NAMES, NAMES)),
        ("auto", AllowedCalls("auto", NAMES, NAMES)),
        ("required", AllowedCalls("required", NAMES, NAMES)),
        ("none", AllowedCalls("none", (), NAMES)),
        (F, AllowedCalls("required", ("f",), NAMES)),
        ({"type": "function", "function": {"name": "g"}}, AllowedCalls("required", ("g",), NAMES)),
        (P, AllowedCalls("required", ("p",), NAMES)),
        (allowed(P, F), AllowedCalls("auto", ("f", "p"), ("f", "p"))),
        ({"type": "allowed_tools", "mode": "required", "tools": [F]}, AllowedCalls("required", ("f",), ("f",))),
    ],
)
def test_choices(choice: Any, expected: AllowedCalls) -> None:
    assert allowed_calls(choice, [*NAMES, "f"]) == expected


@pytest.mark.parametrize(
    ("choice", "param", "told"),
    [
        ("f", "tool_choice", "'f' is not one of"),
        (5, "tool_choice", "5 is not one of"),
        ({"type": "function", "name": "x"}, "tool_choice", "names 'x', which is not in tools"),
        ({"type": "web_search"}, "tool_choice.type", "'web_search'"),
        (allowed(F, mode="none"), "tool_choice.mode", "is not auto or required"),
        (allowed(), "tool_choice.tools", "names no tool"),
        (allowed({"name": "x"}, F, {"name": "y"}), "tool_choice.tools", "names 'x', 'y', not in tools"),
        (allowed({"type": "function"}), "tool_choice.tools[0].function.name", "is missing"),
        ({"type": "allowed_tools", "allowed_tools": 3}, "tool_choice.mode", "is not auto or required"),
        ({"type": "allowed_tools", "mode": "auto", "tools": "f"}, "tool_choice.tools", "is not a list"),
    ],
)
def test_choices_that_are_none(choice: Any, param: str, told: str) -> None:
    with pytest.raises(RequestError) as refused:
        allowed_calls(choice, NAMES)
    assert (refused.value.param, refused.value.status) == (param, 400)
    assert told in refused.value.message


def test_a_call_where_there_are_no_tools() -> None:
    assert allowed_calls("auto", ()) == AllowedCalls("auto", (), ())
    with pytest.raises(RequestError, match="there are no tools"):
        allowed_calls("required", ())
