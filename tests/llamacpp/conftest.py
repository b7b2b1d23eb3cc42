"""The engine's tests run on the real llama.cpp with a tiny random model that has the whole Harmony vocabulary.

What a reply says is scripted where a test needs it, by a logits processor in the real decode loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

llama_cpp = pytest.importorskip("llama_cpp")

from harmony_plugin import Options  # noqa: E402
from harmony_plugin.core.vocabulary import harmony_encoding  # noqa: E402
from harmony_plugin.demo.model import build_model  # noqa: E402
from harmony_plugin.llamacpp import Defaults, HarmonyChatHandler  # noqa: E402
from harmony_plugin.prompts import PromptOptions  # noqa: E402

USER = {"role": "user", "content": "hi"}


def ids_of(text: str) -> list[int]:
    """Ids of text in which spelled markers are markers."""
    return list(harmony_encoding().encode(text, allowed_special="all"))


class Script:
    """Lifts the next recorded id above all others; one that the constraint forbids stays forbidden."""

    def __init__(self, ids: Sequence[int], start: int) -> None:
        self.ids, self.start = ids, start

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        place = len(input_ids) - self.start
        if place < len(self.ids):
            scores[self.ids[place]] += 1e4
        return scores


@pytest.fixture(scope="session")
def llama() -> Any:
    # One thread: the machine's other work would make llama.cpp's threads wait for each other.
    return llama_cpp.Llama(str(build_model()), n_ctx=2048, n_threads=1, n_threads_batch=1, verbose=False)


@pytest.fixture(scope="session")
def handler() -> HarmonyChatHandler:
    """Unscripted."""
    return HarmonyChatHandler(prompt=PromptOptions(current_date="2026-01-02"))


@pytest.fixture
def say(llama: Any) -> Callable[..., Any]:
    """`say(output, **request)`: the reply when the model is made to write `output` behind `<|start|>assistant`."""

    def call(output: str | Sequence[int], *, options: Options | None = None, **request: Any) -> Any:
        ids = ids_of(output) if isinstance(output, str) else output
        scripted = HarmonyChatHandler(
            options,
            Defaults(headers=request.pop("headers", "constrain")),
            prompt=PromptOptions(current_date="2026-01-02"),
            logits_processors=lambda prompt, fields: [Script(ids, len(prompt))],
        )
        request.setdefault("messages", [USER])
        request.setdefault("max_tokens", 200)
        request.setdefault("seed", 1)
        return scripted(llama=llama, **request)

    return call


def message_of(completion: dict[str, Any]) -> dict[str, Any]:
    return dict(completion["choices"][0]["message"])


def add_up(chunks: Sequence[dict[str, Any]], index: int = 0) -> dict[str, Any]:
    """A stream's chunks as the whole message, with its finish reason."""
    message: dict[str, Any] = dict.fromkeys(("role", "content", "reasoning", "reasoning_content"))
    reason = None
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] != index:
                continue
            reason = choice["finish_reason"] or reason
            delta = choice["delta"]
            message["role"] = delta.get("role", message["role"])
            for field in ("content", "reasoning", "reasoning_content"):
                if delta.get(field) is not None:
                    message[field] = (message[field] or "") + delta[field]
            for call in delta.get("tool_calls", ()):
                calls = message.setdefault("tool_calls", [])
                if "id" in call:
                    calls.append({"id": call["id"], "type": call["type"], "function": dict(call["function"])})
                else:
                    calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    return {"message": message, "finish_reason": reason}
