"""What is counted of replies, in the registry that vLLM's ``/metrics`` gives out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from prometheus_client import REGISTRY

from feeding import encode
from harmony_plugin.vllm import metrics

from .asking import chat, one_by_one, responses, streamed, whole
from .conftest import composed, o200k

CALL = "<|channel|>commentary to=functions.f json<|message|>{}<|call|>"
CLEAN = "<|channel|>analysis<|message|>Let me see.<|end|><|start|>assistant" + CALL
REPAIRED = "<|channel|>critic<|message|>No.<|channel|>final<|message|>Yes.<|return|>"


def counters(*unless: str) -> dict[tuple[str, str], float]:
    """Every counter of ours that is not 0, by its name and its label."""
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for metric in REGISTRY.collect()
        if metric.name.startswith("harmony_")
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.name not in unless and sample.value
    }


def by_process_chunk(parser: Any, request: Any, ids: list[int]) -> None:
    for token in ids:
        parser.process_chunk([token])
    parser.flush()


WAYS: Mapping[str, Callable[[Any, Any, list[int]], object]] = {
    "whole": whole,
    "streamed": lambda parser, request, ids: streamed(parser, request, one_by_one(ids)),
    "responses": by_process_chunk,
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_counted(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SHARE", 1)
    before = counters()
    for text in (CLEAN, CLEAN, REPAIRED):
        request = responses(["f"]) if way == "responses" else chat(["f"])
        WAYS[way](composed(gpt_oss=True)(o200k(), request.tools), request, encode(text))
    after = counters()
    counted = {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}
    assert counted.pop(("harmony_splitting_seconds_total", "")) > 0
    assert counted == {
        ("harmony_replies_total", "clean"): 2,
        ("harmony_replies_total", "repaired"): 1,
        ("harmony_issues_total", "unknown_channel"): 1,
        ("harmony_issues_total", "missing_end"): 1,
        ("harmony_issues_total", "missing_start"): 1,
        ("harmony_messages_total", "analysis"): 2,
        ("harmony_messages_total", "commentary"): 2,
        ("harmony_messages_total", "final"): 1,
        ("harmony_messages_total", "other"): 1,
        ("harmony_tool_calls_total", ""): 2,
        ("harmony_reasoning_tokens_total", ""): 2 * len(encode("Let me see.")),
    }


def test_a_reply_that_is_not_over_is_not_counted() -> None:
    before, request = counters("harmony_splitting_seconds_total"), chat()
    parser = composed(gpt_oss=True)(o200k(), None)
    parser.parse_delta("", encode(CLEAN), request, [], finished=False)
    assert counters("harmony_splitting_seconds_total") == before
