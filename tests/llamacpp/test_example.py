"""The plain-Python example runs its tool loop on the real engine, its model's choices scripted."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from harmony_plugin.llamacpp import HarmonyChatHandler

from .conftest import Script, ids_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "llamacpp_tool_loop.py"
REPLIES = [
    "<|channel|>analysis<|message|>Ask.<|end|><|start|>assistant<|channel|>commentary to=functions.get_temperature"
    ' <|constrain|>json<|message|>{"city": "Rome"}<|call|>',
    "<|channel|>final<|message|>It is 24 degrees.<|return|>",
]


def test_tool_loop(llama: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    seen: list[dict[str, Any]] = []

    def script(prompt: Any, request: Any) -> list[Script]:
        seen.append(request)
        return [Script(ids_of(REPLIES[len(seen) - 1]), len(prompt))]

    monkeypatch.setattr(example, "HarmonyChatHandler", lambda: HarmonyChatHandler(logits_processors=script))
    assert example.ask(llama, "How warm is Rome?") == "It is 24 degrees."
    assert seen[1]["messages"][-2]["content"] == '{"city": "Rome", "celsius": 24}'
    assert "get_temperature" in capsys.readouterr().out
