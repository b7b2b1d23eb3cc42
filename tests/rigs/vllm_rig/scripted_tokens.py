"""A vLLM logits processor that makes the model say what a test wrote: one forced token a step.

It stands where a model's wishes stand and nowhere else: vLLM's scheduler, sampler, grammar masks, detokenizer and
server run as always. A request carries its script as `vllm_xargs`, which all three APIs take:

    script        the token ids to say
    script_N      the same for choice N of a request with `n` > 1 and `seed` 0 (choice N gets seed N)
    script_pause  seconds that each step takes longer while the request runs: a real model's time

After the script's last token comes `<|return|>`. Where a grammar is active it has the last word: a scripted token that
it forbids is passed over and the next that it allows is said, so that a test can see the grammar at work. If it allows
none of them, the (random) model chooses.

A request without one is answered from the file that `VLLM_RIG_ANSWERS` names, if it does: the scripts of
`harmony_plugin.demo.script`, chosen by the last question in the prompt.

vLLM loads this in its engine processes, through `--logits-processors vllm_rig.scripted_tokens:ScriptedTokens`.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

if TYPE_CHECKING:
    from vllm import SamplingParams

RETURN = 200_002
WINDOW = 64  # how far a script is looked through for a token that is allowed
FORCED = 1e6  # far above any logit of a random model, so temperature does not matter; below what vLLM itself forces


def script_of(params: SamplingParams) -> Sequence[int] | None:
    """The script that a request carries, or None."""
    extra: dict[str, Any] = params.extra_args or {}
    return extra.get(f"script_{params.seed}") or extra.get("script")


@functools.cache
def _answers() -> tuple[Any, Any] | None:
    """The scripts of the file, and what decodes prompts; None: there is no file."""
    from harmony_plugin.core import harmony_encoding
    from harmony_plugin.demo.script import Scripts

    file = os.environ.get("VLLM_RIG_ANSWERS")
    return None if file is None else (Scripts.load(file), harmony_encoding().decode)


def answer_to(prompt: Sequence[int]) -> Sequence[int] | None:
    """What answers a prompt, by its last question and how many results of tools came since; None: nothing does."""
    answers = _answers()
    if answers is None:
        return None
    scripts, decode = answers
    question, _, since = decode(list(prompt)).rpartition("<|start|>user<|message|>")[2].partition("<|end|>")
    script = scripts.choose({"messages": [{"role": "user", "content": question}]})
    if script is None:
        return None
    results = since.count("<|start|>functions.")
    replies: Sequence[Sequence[int]] = script.replies
    return replies[min(results, len(replies) - 1)]


def force(logits: torch.Tensor, script: Sequence[int], place: int) -> int | None:
    """Have the script's next token sampled, or the next that is allowed: how many were passed over; None: all."""
    for passed, token in enumerate((*script[place : place + WINDOW], RETURN)):
        if logits[token] > float("-inf"):
            logits[token] = FORCED
            return passed
    return None


class _Turn:
    """One request being generated: its script, and how much of it was passed over."""

    def __init__(self, script: Sequence[int], said: list[int], pause: float) -> None:
        self.script = script
        self.pause = pause
        self.said = said  # vLLM's own list, which grows as tokens are accepted
        self.passed_over = 0

    def force(self, logits: torch.Tensor) -> None:
        passed = force(logits, self.script, len(self.said) + self.passed_over)
        # Nothing scripted is allowed here: the grammar and the model settle this token; go on from the same place.
        self.passed_over += -1 if passed is None else passed


class ScriptedTokens(LogitsProcessor):
    """Forces each request's scripted tokens, row by row of the batch."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.turns: dict[int, _Turn] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        def new_turn(params: SamplingParams, prompt: list[int] | None, said: list[int]) -> _Turn | None:
            script = script_of(params) or answer_to(prompt or ())
            pause = float((params.extra_args or {}).get("script_pause", 0))
            return _Turn(script, said, pause) if script is not None else None

        process_dict_updates(self.turns, batch_update, new_turn)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        for row, turn in self.turns.items():
            turn.force(logits[row])
        if pause := max((turn.pause for turn in self.turns.values()), default=0):
            time.sleep(pause)
        return logits
