"""Drawing the next id straight from a row of scores.

The rules are those of llama.cpp's sampler chain as llama-cpp-python puts it together: penalties, top_k, top_p, min_p,
temperature, and then the draw. Over a vocabulary of 200,000 ids that chain takes four times as long as this, since it
makes a list of candidates that it sorts or sums one by one.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from typing import Any

import numpy as np

__all__ = ["Draw"]

BLOCK = 128
"""Scores that are summed together; where in a block the draw falls is looked for there alone."""

MANY = 4_096
"""Scores from which on what is far below the top is left for later."""
NEAR = 15.0
"""How far that is, in the logarithm of the weight: 200,000 of these weigh less than 0.07 of the top together."""


class Draw:
    """Draws the ids of one reply. The same seed and the same scores give the same ids.

    Args:
        temperature: 0: always the likeliest.
        top_k: only the k likeliest; 0 or less: all.
        top_p: only the likeliest that have this probability together, temperature aside; 1.0: all.
        min_p: only those that have this share of the likeliest one's probability; 0.0: all.
        repeat_penalty: divides the scores of ids written lately (multiplies those below 0).
        presence_penalty: is taken from them, once.
        frequency_penalty: is taken from them for each time.
        penalty_last: how many ids count as lately.
        size: the vocabulary's.
    """

    def __init__(
        self,
        *,
        temperature: float,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repeat_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        penalty_last: int = 64,
        seed: int,
        size: int,
    ) -> None:
        self._temperature = temperature
        self._top_k = top_k
        self._top_p = top_p
        self._min_p = min_p
        self._penalties = repeat_penalty, presence_penalty, frequency_penalty
        self._penalised = self._penalties != (1.0, 0.0, 0.0)
        self._lately: deque[int] = deque()
        self._last = penalty_last
        self._counts: Counter[int] = Counter()
        self._random = random.Random(seed)
        self._size = size
        # What is behind the last score stays 0.
        self._weights = np.zeros(-(-size // BLOCK) * BLOCK, np.float32)

    def __call__(self, logits: Any, only: Any = None) -> int:
        """The next id.

        Args:
            logits: float32, a score for each id; may be written to. -inf: not that one.
            only: nothing but these ids is looked at; never empty.

        Returns:
            the id; the first there is, should none be allowed.
        """
        if self._counts:
            self._penalise(logits)
        if only is None:
            return self._pick(logits)
        if len(only) == 1:
            return int(only[0])
        return int(only[self._pick(logits[only])])

    def accept(self, token: int) -> None:
        """The reply goes on with `token`, drawn or not."""
        if not self._penalised:
            return
        self._lately.append(token)
        self._counts[token] += 1
        if len(self._lately) > self._last:
            oldest = self._lately.popleft()
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]

    def _penalise(self, logits: Any) -> None:
        repeat, presence, frequency = self._penalties
        ids = np.fromiter(self._counts, np.intp, len(self._counts))
        counts = np.fromiter(self._counts.values(), np.float32, len(ids))
        scores = logits[ids]
        scores = np.where(scores <= 0, scores * np.float32(repeat), scores / np.float32(repeat))
        logits[ids] = scores - counts * np.float32(frequency) - np.float32(presence)

    def _pick(self, scores: Any) -> int:
        """The place of the one that is drawn."""
        best = int(scores.argmax())
        top = scores[best]
        if self._temperature == 0 or not math.isfinite(top):
            return best
        kept = self.kept(scores, top)
        if kept is None:
            return self._fall(scores, top)
        if len(kept) == 1:
            return int(kept[0])
        return int(kept[self._fall(scores[kept], top)])

    def kept(self, scores: Any, top: Any) -> Any:
        """The places that the cuts leave; None: all."""
        kept = None
        if 0 < self._top_k < len(scores):
            kept = _largest(scores, self._top_k)
        if self._top_p < 1:
            among = scores if kept is None else scores[kept]
            likeliest = _likeliest(among, top, self._top_p)
            kept = likeliest if kept is None else kept[likeliest]
        if self._min_p > 0:
            least = top + math.log(self._min_p)
            kept = np.flatnonzero(scores >= least) if kept is None else kept[scores[kept] >= least]
        return kept

    def _fall(self, scores: Any, top: Any) -> int:
        """Where a number between 0 and the sum of all weights falls.

        Of a whole vocabulary nearly all is far below the top, and weighing it is most of the work. So what is far is
        taken for more than it can weigh; should the number fall there, it is weighed after all, and where it weighs
        less than that, the number counts for nothing, and another one is drawn. The ids come as often as without.
        """
        if len(scores) >= MANY:
            near = np.flatnonzero(scores > top - np.float32(NEAR * self._temperature))
            if len(near) * 4 < len(scores):
                return self._fall_near(scores, top, near)
        sums = self._weigh(scores, top)
        return self._at(sums, self._random.random() * float(sums[-1]))

    def _fall_near(self, scores: Any, top: Any, near: Any) -> int:
        weights = np.exp((scores[near] - top) * np.float32(1 / self._temperature))
        sums = np.cumsum(weights, dtype=np.float64)
        inside, outside = float(sums[-1]), len(scores) * math.exp(-NEAR)
        while True:
            number = self._random.random() * (inside + outside)
            if number < inside:
                return int(near[sums.searchsorted(number, side="right")])
            far = self._weigh(scores, top, near)
            if number - inside < float(far[-1]):
                return self._at(far, number - inside)

    def _weigh(self, scores: Any, top: Any, but: Any = None) -> Any:
        """The weights, those of the places `but` left out, as sums up to the end of each block."""
        size = len(scores)
        weights = self._weights[: -(-size // BLOCK) * BLOCK]
        np.subtract(scores, top, out=weights[:size])
        if self._temperature != 1:
            weights[:size] *= np.float32(1 / self._temperature)
        np.exp(weights[:size], out=weights[:size])
        weights[size:] = 0
        if but is not None:
            weights[but] = 0
        return np.cumsum(weights.reshape(-1, BLOCK).sum(axis=1), dtype=np.float64)

    def _at(self, sums: Any, number: float) -> int:
        """The place whose weight `number` falls into."""
        # Rounding may point behind the last weight there is.
        block = min(int(sums.searchsorted(number, side="right")), int(sums.searchsorted(sums[-1])))
        left = number - (float(sums[block - 1]) if block else 0.0)
        weights = self._weights[block * BLOCK : (block + 1) * BLOCK]
        some = np.flatnonzero(weights)
        inside = np.cumsum(weights[some], dtype=np.float64)
        return block * BLOCK + int(some[min(int(inside.searchsorted(left, side="right")), len(some) - 1)])


def _largest(scores: Any, count: int) -> Any:
    """The places of the `count` largest scores, the largest first."""
    whole = len(scores) // BLOCK
    if whole > count:
        # As many blocks have a score of at least this, so what is smaller cannot be among them.
        least = np.partition(scores[: whole * BLOCK].reshape(-1, BLOCK).max(axis=1), -count)[-count]
        places = np.flatnonzero(scores >= least)
    else:
        places = np.arange(len(scores))
    return places[np.argsort(-scores[places], kind="stable")][:count]


def _likeliest(scores: Any, top: Any, share: float) -> Any:
    """The places of the largest scores that have this share of the probability together, the largest first."""
    weights = np.exp(scores - top)
    wanted = share * float(weights.sum(dtype=np.float64))
    depth = 4.0
    while True:
        places = np.flatnonzero(weights >= math.exp(-depth))
        found = weights[places]
        # Below what single precision can tell from 0 there is nothing.
        if len(places) == len(scores) or depth > 80 or float(found.sum(dtype=np.float64)) >= wanted:
            break
        depth *= 1.6
    order = np.argsort(-found, kind="stable")
    sums = np.cumsum(found[order], dtype=np.float64)
    return places[order][: int(sums.searchsorted(wanted, side="left")) + 1]
