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

ROWS = 128
"""How many weights are summed together. They lie apart, one in each row of a table, as rows are quick to add up."""

MANY = 4_096
"""Scores from which on what is far below the top is left for later."""
NEAR = 15.0
"""How far that is, in the logarithm of the weight: 200,000 of these weigh less than 0.07 of the top together."""

STEEP = 1e20
"""What scores are multiplied by for the temperature is at most this and at least 1 / this: single precision has no room
for much more, and neither makes a difference."""


class Draw:
    """Draws the ids of one reply. The same seed and the same scores give the same ids.

    Args:
        temperature: 0: always the likeliest; below 0: as 1, and nothing is cut off.
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
        if temperature < 0:
            temperature, top_k, top_p, min_p = 1.0, 0, 1.0, 0.0
        self._greedy = temperature == 0
        self._scale = np.float32(min(max(1 / (temperature or 1), 1 / STEEP), STEEP))
        self._reach = np.float32(NEAR) / self._scale
        self._top_k = top_k
        self._top_p = top_p
        # In single precision, as llama.cpp has it; the likeliest always stays.
        self._min_p = np.float32(min(math.log(np.float32(min_p)), 0.0)) if min_p > 0 else None
        self._penalties = repeat_penalty, presence_penalty, frequency_penalty
        self._penalised = self._penalties != (1.0, 0.0, 0.0)
        self._lately: deque[int] = deque()
        self._last = penalty_last
        self._counts: Counter[int] = Counter()
        self._random = random.Random(seed)
        self._weights = np.empty(-(-size // ROWS) * ROWS, np.float32)

    def __call__(self, logits: Any, only: Any = None) -> int:
        """The next id. Takes one random number, or none where there is no choice.

        Args:
            logits: float32, a score for each id; may be written to. -inf (and what is not a number): not that one.
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
        if math.isnan(scores[best]):
            scores = np.where(np.isnan(scores), np.float32(-np.inf), scores)
            best = int(scores.argmax())
        top = scores[best]
        if self._greedy or not math.isfinite(top):
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
            likeliest = self._likeliest(among, top)
            kept = likeliest if kept is None else kept[likeliest]
        if self._min_p is not None:
            least = top + self._min_p
            kept = np.flatnonzero(scores >= least) if kept is None else kept[scores[kept] >= least]
        return kept

    def _likeliest(self, scores: Any, top: Any) -> Any:
        """The places of the largest scores that have the share `top_p` of the probability together."""
        sums = self._weigh(scores, top, np.float32(1))
        weights, total = self._weights[: len(scores)], float(sums[-1])
        wanted = self._top_p * total
        # All that are smaller than this weigh less together than what may be missing.
        mask = weights >= np.float32(0.99 * (1 - max(self._top_p, 0.0)) * total / len(weights))
        found = weights[np.flatnonzero(mask)] if np.count_nonzero(mask) * 2 < len(weights) else weights
        count = 0
        # Sorting many takes long, so only those about the least one that stays are.
        while len(found) > MANY:
            half = len(found) // 2
            found = np.partition(found, half)
            upper = float(found[half:].sum(dtype=np.float64))
            if upper >= wanted:
                found = found[half:]
            else:
                wanted -= upper
                count += len(found) - half
                found = found[:half]
        found = np.sort(found)[::-1]
        last = min(int(np.cumsum(found, dtype=np.float64).searchsorted(wanted)), len(found) - 1)
        return _from(weights, found[last], count + last + 1)

    def _fall(self, scores: Any, top: Any) -> int:
        """Where a number between 0 and the sum of all weights falls.

        Of a whole vocabulary nearly all is far below the top, and weighing it is most of the work. So what is far is
        taken for more than it can weigh, and is weighed only should the number fall there. Where it falls behind all
        weights even so, how far behind is a number by chance as well, and tells the place. The ids come as often as
        without.
        """
        number = self._random.random()
        if len(scores) >= MANY:
            mask = scores >= top - self._reach
            if np.count_nonzero(mask) * 4 < len(scores):
                return self._fall_near(scores, top, np.flatnonzero(mask), number)
        sums = self._weigh(scores, top, self._scale)
        return self._at(sums, number * float(sums[-1]))

    def _fall_near(self, scores: Any, top: Any, near: Any, number: float) -> int:
        sums = np.cumsum(np.exp((scores[near] - top) * self._scale), dtype=np.float64)
        inside, outside = float(sums[-1]), len(scores) * math.exp(-NEAR)
        number *= inside + outside
        if number >= inside:
            far = self._weigh(scores, top, self._scale, near)
            weight = float(far[-1])
            behind = number - inside - weight
            if behind >= 0:
                number = behind / max(outside - weight, behind) * (inside + weight)
            if number >= inside and weight:
                return self._at(far, number - inside)
        return int(near[min(int(sums.searchsorted(number, side="right")), len(near) - 1)])

    def _weigh(self, scores: Any, top: Any, scale: Any, but: Any = None) -> Any:
        """The weights, those of the places `but` left out, as sums up to each column of the table."""
        size = len(scores)
        columns = -(-size // ROWS)
        weights = self._weights[: columns * ROWS]
        np.subtract(scores, top, out=weights[:size])
        if scale != 1:
            weights[:size] *= scale
        np.exp(weights[:size], out=weights[:size])
        weights[size:] = 0
        if but is not None:
            weights[but] = 0
        return np.cumsum(weights.reshape(ROWS, columns).sum(axis=0), dtype=np.float64)

    def _at(self, sums: Any, number: float) -> int:
        """The place whose weight `number` falls into."""
        columns = len(sums)
        # Rounding may point behind the last weight there is.
        column = min(int(sums.searchsorted(number, side="right")), int(sums.searchsorted(sums[-1])))
        left = number - (float(sums[column - 1]) if column else 0.0)
        weights = self._weights[column : columns * ROWS : columns]
        some = np.flatnonzero(weights)
        inside = np.cumsum(weights[some], dtype=np.float64)
        return column + columns * int(some[min(int(inside.searchsorted(left, side="right")), len(some) - 1)])


def _largest(scores: Any, count: int) -> Any:
    """The places of the `count` largest scores; of equal ones the first."""
    whole = len(scores) // ROWS
    if whole > count:
        # As many parts of the row have a score of at least this, so what is smaller cannot be among them.
        least = np.partition(scores[: whole * ROWS].reshape(ROWS, whole).max(axis=0), -count)[-count]
        places = np.flatnonzero(scores >= least)
        scores = scores[places]
    else:
        places = None
    found = _from(scores, np.partition(scores, -count)[-count], count)
    return found if places is None else places[found]


def _from(scores: Any, least: Any, count: int) -> Any:
    """The places of the `count` largest scores, given the least of them; of equal ones the first."""
    found = np.flatnonzero(scores >= least)
    if len(found) > count:
        equal = np.flatnonzero(scores[found] == least)
        found = np.delete(found, equal[count - len(found) :])
    return found
