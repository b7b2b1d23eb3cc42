"""Analysis that repeats itself: which does, and what is put in its place."""

from __future__ import annotations

import random
from typing import Any

import pytest

from feeding import encode
from harmony_plugin.core import harmony_encoding
from harmony_plugin.vllm.loops import LEAST, LONGEST, TIMES, Repeats

from .asking import PROMPT
from .conftest import o200k


def first_repeat(tokens: list[int]) -> int | None:
    """How many tokens there were when a loop was seen."""
    repeats = Repeats()
    return next((count for count, token in enumerate(tokens, 1) if repeats.add(token)), None)


@pytest.mark.parametrize("period", [1, 2, 3, 16, 17, 64, LONGEST])
def test_a_passage_over_and_over(period: int) -> None:
    passage = list(range(1, period + 1))
    expected = max(LEAST, TIMES * period)
    before = [7_000 + number for number in range(300)]
    assert first_repeat(before + passage * 100) == len(before) + expected
    assert first_repeat(before + (passage * 100)[: expected - 1] + before) is None


@pytest.mark.parametrize("seed", range(5))
def test_what_is_no_loop(seed: int) -> None:
    chance = random.Random(seed)
    assert first_repeat([chance.randrange(50) for _ in range(5_000)]) is None
    passage = [chance.randrange(1_000) for _ in range(LONGEST + 1)]
    assert first_repeat(passage * 10) is None, "it is too long for the rule"
    counting = [token for number in range(300) for token in (1, 2, 1_000 + number, 3)]
    assert first_repeat(counting) is None, "a table, a count"


def test_the_work_a_token_is_always_the_same() -> None:
    repeats = Repeats()
    for token in range(1_000):
        repeats.add(token)
    assert len(repeats._last) == len(repeats._equal) == LONGEST


def said(script: list[int], grammar: Any = None) -> str:
    """What a model says that means to say ``script``, with the processor in its way; once out of the way it goes on
    with a final message."""
    torch = pytest.importorskip("torch")
    from harmony_plugin.settings import Settings
    from harmony_plugin.vllm.loops import _Reply
    from harmony_plugin.vllm.tokenizers import tokens_of

    final, commentary = encode("final"), encode("commentary")
    processor = _Reply(tokens_of(o200k(), Settings()), encode("assistant"), final + commentary)
    output: list[int] = []
    rest = iter([*encode("<|message|>Enough.<|return|>")])
    for token in script:
        logits = torch.zeros(201_088)
        logits[token] = 5.0
        logits[final[0]] += 1
        if grammar is not None:
            logits[grammar] = float("-inf")
        chosen = int(processor(PROMPT, output, logits).argmax())
        output.append(chosen)
        if chosen == final[0] and chosen != token:
            output += rest
            break
    return harmony_encoding().decode(output)


def test_a_loop_is_closed_and_the_answer_opened() -> None:
    script = encode("<|channel|>analysis<|message|>So:" + " again and" * 500)
    loop = " again and" * (LEAST // 2)
    closed = "<|end|><|start|>assistant<|channel|>final<|message|>Enough.<|return|>"
    assert said(script) == f"<|channel|>analysis<|message|>So:{loop}{closed}"


def test_only_analysis_is_looked_at() -> None:
    for head in ("<|channel|>final<|message|>", "<|channel|>commentary to=functions.f json<|message|>"):
        script = encode(head + " again and" * 300)
        assert said(script) == harmony_encoding().decode(script)


def test_a_grammar_has_the_last_word() -> None:
    script = encode("<|channel|>analysis<|message|>" + " again and" * 100)
    assert said(script, grammar=encode("<|end|>")) == harmony_encoding().decode(script)
