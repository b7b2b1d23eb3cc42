"""The plain-Python examples run on the real engine, its model's choices scripted."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from harmony_plugin.llamacpp import HarmonyChatHandler

from .conftest import Script, ids_of

EXAMPLES = Path(__file__).parents[2] / "examples"
CALL = (
    "<|channel|>analysis<|message|>Ask.<|end|><|start|>assistant<|channel|>commentary to=functions.get_temperature"
    ' <|constrain|>json<|message|>{"city": "Rome"}<|call|>'
)


def scripted(name: str, replies: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[dict[str, Any]]]:
    """The example as a module whose model writes `replies`, one a request; and the requests that it will have made."""
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / name)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    seen: list[dict[str, Any]] = []

    def script(prompt: Any, request: Any) -> list[Script]:
        seen.append(request)
        return [Script(ids_of(replies[len(seen) - 1]), len(prompt))]

    monkeypatch.setattr(example, "HarmonyChatHandler", lambda: HarmonyChatHandler(logits_processors=script))
    return example, seen


def test_tool_loop(llama: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    replies = [CALL, "<|channel|>final<|message|>It is 24 degrees.<|return|>"]
    example, seen = scripted("llamacpp_tool_loop.py", replies, monkeypatch)
    assert example.ask(llama, "How warm is Rome?") == "It is 24 degrees."
    assert seen[1]["messages"][-2]["content"] == '{"city": "Rome", "celsius": 24}'
    assert "get_temperature" in capsys.readouterr().out


def test_offline_batch(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = [
        "<|channel|>analysis<|message|>Light.<|end|><|start|>assistant<|channel|>final<|message|>Blue.<|return|>",
        "<|channel|>final<|message|>Five.<|return|>",
    ]
    example, seen = scripted("llamacpp_offline_batch.py", replies, monkeypatch)
    first, second = example.replies(llama, ["Why is the sky blue?", "What is 2 + 3?"])
    assert first == {
        "question": "Why is the sky blue?",
        "reasoning": "Light.",
        "answer": "Blue.",
        "finish_reason": "stop",
        "reasoning_tokens": 2,
        "issues": [],
    }
    assert (second["question"], second["reasoning"], second["answer"]) == ("What is 2 + 3?", None, "Five.")
    assert [request["messages"][-1]["content"] for request in seen] == ["Why is the sky blue?", "What is 2 + 3?"]
