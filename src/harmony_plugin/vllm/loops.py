"""Ends analysis that repeats itself: a logits processor for ``vllm serve --logits-processors``. Off unless named there.

    vllm serve MODEL … --logits-processors harmony_plugin.vllm.loops:LoopBreaker

The rule: the last tokens of the analysis are one passage of at most `LONGEST` tokens, `TIMES` times or more in a row
and `LEAST` tokens or more in all. Then the analysis is closed, and the answer, a preamble or a call opened.

vLLM runs it in its engines, behind the masks of grammars, which keep the last word. Needs no parser of the plugin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from harmony_plugin import Stream

from .settings import from_environment
from .tokenizers import Tokens, tokens_of

__all__ = ["LEAST", "LONGEST", "TIMES", "LoopBreaker", "Repeats"]

LONGEST = 128
LEAST = 64
TIMES = 4

_PERIODS = np.arange(1, LONGEST + 1)
#: How often in a row a token must equal the one a period before it.
_ENOUGH = np.maximum(LEAST, TIMES * _PERIODS) - _PERIODS


class Repeats:
    """Whether the last of the tokens so far are one passage over and over. The work a token is always the same.

    >>> repeats = Repeats()
    >>> [repeats.add(token) for token in [1, 2, 3, 4] * 16].index(True)
    63
    """

    def __init__(self) -> None:
        self._last = np.full(LONGEST, -1)  # the newest first
        self._equal = np.zeros(LONGEST, dtype=np.int64)

    def add(self, token: int) -> bool:
        self._equal = np.where(self._last == token, self._equal + 1, 0)
        self._last = np.concatenate(([token], self._last[:-1]))
        return bool((self._equal >= _ENOUGH).any())


class LoopBreaker(AdapterLogitsProcessor):
    """The logits processor, as vLLM makes it: one for all requests of an engine."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        self._tokenizer = cached_tokenizer_from_config(vllm_config.model_config)
        self._tokens = tokens_of(self._tokenizer, from_environment())

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: Any) -> Any:
        def ids(word: str) -> list[int]:
            return list(self._tokenizer.encode(word, add_special_tokens=False))

        return _Reply(self._tokens, ids("assistant"), [ids(word)[0] for word in ("final", "commentary")])


class _Reply:
    """One reply: called for each of its tokens with all of them so far, and the logits of the next."""

    def __init__(self, tokens: Tokens, assistant: Sequence[int], channels: Sequence[int]) -> None:
        self._tokens = tokens
        ids = tokens.options.dialect.ids
        self._closing = [[token] for token in (ids["end"], ids["start"], *assistant, ids["channel"])] + [list(channels)]
        self._stream: Stream | None = None
        self._repeats = Repeats()
        self._seen = 0
        # What comes next, where a loop was met: the ids of which one is allowed.
        self._due: list[list[int]] = []

    def __call__(self, prompt: Sequence[int], output: Sequence[int], logits: Any) -> Any:
        if self._stream is None:
            self._stream = Stream(prompt, None, self._tokens.options, self._tokens.vocabulary)
        looped = False
        for token in output[self._seen :]:
            before = self._stream.field
            self._stream.feed([token])
            if self._stream.field == before == "reasoning":
                looped = self._repeats.add(token)
            elif self._stream.field != before:
                self._repeats = Repeats()
        self._seen = len(output)
        if looped and not self._due:
            self._due = list(self._closing)
            self._repeats = Repeats()
        if self._due:
            allowed = self._due.pop(0)
            kept = logits[allowed].clone()
            if kept.max() > float("-inf"):
                logits.fill_(float("-inf"))
                logits[allowed] = kept
            else:  # a grammar forbids it
                self._due = []
        return logits
