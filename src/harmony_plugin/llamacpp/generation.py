"""One reply: scores in, the next id drawn, and what it brings out, through the core's stream, as pieces.

Decides when a reply is over (markers, limits, stop strings), and puts ids into the token stream that the model did not
sample (the end of reasoning whose budget is spent, and ids that are the only ones allowed). Evaluates nothing: it is
handed the scores. Knows nothing of how a request or a chunk is written down, and nothing of how Harmony is split: it
asks the stream.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..api.reply import Ending, Piece, TokenLogprob
from ..core import ContentTokens, Event, StopStrings, Stream, Wait
from .draw import Draw
from .engine import Engine, Only, Processor, Without
from .ids import Ids

if TYPE_CHECKING:
    from ..api.request import ChatRequest
    from .constraints import Constraint

__all__ = ["Generation", "Opening"]

FORBIDDEN = float("-inf")


class Opening(NamedTuple):
    """Ids that begin the answer when no reasoning may follow."""

    after_reasoning: Sequence[int]
    at_start: Sequence[int]


class Generation:
    """`start` once, then `step` with the scores behind the last of `ids`, until it has `ended`.

    Attributes:
        ids: the prompt, and what was generated or put in so far.
        completion_tokens: ids sampled or put in, markers included.
        cached_tokens: prompt ids that were not evaluated for this; None: nothing was yet.
        ended: whether the reply is over.
        cut: whether a limit ended the reply.
        parting: ids of the prompt behind which other conversations may go another way; 0: not known.
        splitting: seconds spent on events.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: Sequence[int],
        request: ChatRequest,
        stream: Stream,
        *,
        markers: Mapping[str, int],
        opening: Opening,
        constraint: Constraint | None = None,
        processors: Sequence[Processor] = (),
        grammar: Any = None,
        seed: int | None = None,
        index: int = 0,
        parting: int = 0,
        cancelled: Callable[[], bool] | None = None,
        told: Callable[[Stream], dict[str, Any]] | None = None,
    ) -> None:
        self.stream = stream
        self.prompt_tokens = len(prompt)
        room = engine.context_size - len(prompt)
        self._limit = min(request.max_tokens or room, room)
        self.ids = Ids(prompt)
        self.completion_tokens = 0
        self.cached_tokens: int | None = None
        self.ended = self.cut = False
        self.parting = parting
        self.splitting = 0.0
        self.cancelled: Callable[[], bool] = cancelled or (lambda: False)
        self._index = index
        self._engine = engine
        self._parallel = request.parallel
        self._budget = math.inf if request.max_reasoning_tokens is None else request.max_reasoning_tokens
        self._markers = markers
        self._opening = opening
        self._constraint = constraint
        self._mask: Only | Without | None = None
        self._mask_known = False
        self._bias = Bias(request.logit_bias) if request.logit_bias else None
        self._recorder = Recorder(request.top_logprobs, engine.piece) if request.logprobs else None
        self._processors = list(processors)
        # Text is cut at stop strings or lined up with log probabilities.
        self._stops = StopStrings(request.stop) if request.stop or self._recorder is not None else None
        self._contents: ContentTokens[TokenLogprob | None] = ContentTokens()
        self._told = told
        # Made at the start, when the prompt was evaluated.
        self._patience = request.max_tokens_before_final, request.max_seconds_before_final
        self._wait: Wait | None = None
        self._marked = frozenset(markers.values())
        seed = engine.seed(seed)
        self._draw: Draw | None = None
        self._chain: Callable[[int], int] | None = None
        if grammar is None and _plain(request.sampling):
            self._draw = _draw(request.sampling, seed, engine.vocabulary_size)
        else:
            extra = {} if grammar is None else {"grammar": grammar}
            self._chain = engine.chain({**request.sampling, **extra}, seed)
        # An id that is the only one allowed needs no scores, unless somebody wants to see them.
        self._skips = self._draw is not None and not self._processors and self._recorder is None

    def start(self) -> list[Piece]:
        """Put in what stands in front of everything sampled, if anything."""
        pieces: list[Piece] = []
        if self._patience != (None, None):
            self._wait = Wait(*self._patience, time.monotonic)
        if self._budget <= 0:
            self._answer(self._opening.at_start, pieces)
        self._skip(pieces)
        return pieces

    def step(self, scores: Any, place: int) -> list[Piece]:
        """Draw the next id and go on behind it.

        Args:
            scores: behind the last of `ids`; may be written to.
            place: the last id's place in the batch that was evaluated.
        """
        pieces: list[Piece] = []
        token = self._choose(scores, place)
        if self._constraint is not None and self._constraint.failed:
            self._end(pieces, cut=True)
        else:
            self._take(token, pieces)
            self._skip(pieces)
        return pieces

    def end(self) -> list[Piece]:
        """End the reply here: there is no room for more."""
        pieces: list[Piece] = []
        self._end(pieces, cut=True)
        return pieces

    def close_reasoning(self) -> list[Piece]:
        """Open the answer now, as if the budget were spent. For a reply that is reasoning."""
        pieces: list[Piece] = []
        self._answer(self._opening.after_reasoning, pieces)
        self._skip(pieces)
        return pieces

    def _choose(self, scores: Any, place: int) -> int:
        recorder, processors = self._recorder, self._processors
        if recorder is not None and not self._elsewhere():
            recorder.note(scores)
        if self._bias is not None:
            self._bias.add(scores)
        mask = self._allowed()
        if isinstance(mask, Only) and self._draw is not None and not processors:
            return self._draw(scores, mask.ids)
        if isinstance(mask, Only):
            kept = scores[mask.ids]
            scores[:] = FORBIDDEN
            scores[mask.ids] = kept
        elif mask is not None:
            scores[mask.ids] = FORBIDDEN
        for processor in processors:
            result = processor(self.ids.view(), scores)
            if result is not scores:
                scores[:] = result
        if self._draw is not None:
            return self._draw(scores)
        assert self._chain is not None
        return self._chain(place)

    def _allowed(self) -> Only | Without | None:
        """The mask of the next id, asked for once."""
        if not self._mask_known:
            self._mask = None if self._constraint is None else self._constraint.mask()
            self._mask_known = True
        return self._mask

    def _skip(self, pieces: list[Piece]) -> None:
        """Take the ids that are certain, if the reply goes on."""
        if self._constraint is None or not self._skips:
            return
        while not self.ended:
            mask = self._allowed()
            if not isinstance(mask, Only) or len(mask.ids) != 1 or self._constraint.failed:
                return
            self._take(int(mask.ids[0]), pieces)

    def _take(self, token: int, pieces: list[Piece]) -> None:
        self._add(token, pieces)
        if self.ended:
            return
        stream = self.stream
        if self._over(token):
            self._end(pieces)
        elif self.completion_tokens >= self._limit:
            self._end(pieces, cut=True)
        elif self._budget < math.inf and stream.field == "reasoning" and stream.reasoning_tokens >= self._budget:
            self._answer(self._opening.after_reasoning, pieces)

    def _answer(self, opening: Sequence[int], pieces: list[Piece]) -> None:
        """Let no more reasoning come, and put in `opening`, or what the constraint has in its place."""
        self._budget = math.inf
        self._mask_known = False
        for token in opening if self._constraint is None else self._constraint.answer():
            self._add(token, pieces)
            if self.completion_tokens >= self._limit and not self.ended:
                self._end(pieces, cut=True)
            if self.ended:
                return

    def _add(self, token: int, pieces: list[Piece]) -> None:
        """Go on behind `token`, which was sampled or put in."""
        self.completion_tokens += 1
        self.ids.append(token)
        if self._constraint is not None:
            self._constraint.accept(token)
            self._mask_known = False
        if self._draw is not None:
            self._draw.accept(token)
        began = time.perf_counter()
        events = self.stream.feed_events((token,))
        if self._wait is not None and self._wait.over(events, 1):
            self._limit = 0
        if self._stops is not None:
            events = self._watched(token, events, self._stops)
            if events:
                pieces.append(self._piece(events))
            if self._stops.matched is not None:
                self._end(pieces)
        elif events:
            pieces.append(Piece(events, (), None, self._index))
        self.splitting += time.perf_counter() - began

    def _watched(self, token: int, events: list[Event], stops: StopStrings) -> list[Event]:
        recorder = self._recorder
        if recorder is not None:
            text = b"" if token in self._marked else self._engine.piece(token)
            # In the body of another field no token can become content; to note one costs something.
            entry = None if self._elsewhere() or not text else recorder.entry(token)
            self._contents.add(text, entry, events)
        return stops.feed(events)

    def _elsewhere(self) -> bool:
        return self.stream.in_body and self.stream.field != "content"

    def _piece(self, events: list[Event], ending: Ending | None = None) -> Piece:
        logprobs = [entry for entry in self._contents.given(events) if entry is not None]
        return Piece(events, logprobs, ending, self._index)

    def _end(self, pieces: list[Piece], *, cut: bool = False) -> None:
        self.ended, self.cut = True, cut
        events, reason = self.stream.finish_events(), self.stream.finish_reason(self.cut)
        told = None if self._told is None else self._told(self.stream)
        if self._stops is None:
            pieces.append(Piece(events, (), Ending(reason, None, told), self._index))
            return
        self._contents.finish(events)
        # A call that was cut is not to be run.
        ending = Ending("stop" if self._stops.in_call else reason, self._stops.matched, told)
        pieces.append(self._piece(self._stops.finish(events), ending))

    def _over(self, token: int) -> bool:
        stream, markers, parallel = self.stream, self._markers, self._parallel
        if token == markers["call"]:
            return parallel is not True
        if token != markers["end"] and self._engine.ends(token):
            return True
        if parallel is not None and stream.tool_call_count:
            if parallel:
                # Past its calls the model may play the tool that answers: that text is nobody's.
                return stream.in_body and stream.field is None
            return stream.field != "tool_call"
        return False


def _plain(sampling: Mapping[str, Any]) -> bool:
    """Whether what is asked for is drawn here; the rest is left to llama.cpp's own samplers."""
    return sampling["typical_p"] >= 1 and not sampling["mirostat_mode"]


def _draw(sampling: Mapping[str, Any], seed: int, size: int) -> Draw:
    return Draw(
        temperature=sampling["temp"],
        top_k=sampling["top_k"],
        top_p=sampling["top_p"],
        min_p=sampling["min_p"],
        repeat_penalty=sampling["repeat_penalty"],
        presence_penalty=sampling["presence_penalty"],
        frequency_penalty=sampling["frequency_penalty"],
        seed=seed,
        size=size,
    )


class Recorder:
    """Notes the model's own log probabilities, before anything changes the scores."""

    def __init__(self, top: int, piece: Callable[[int], bytes]) -> None:
        self._top = top
        self._piece = piece
        self._logprobs: Any = None

    def note(self, scores: Any) -> None:
        import numpy as np

        logits = np.array(scores, dtype=np.float64)
        logits -= logits.max()
        self._logprobs = logits - math.log(np.exp(logits).sum())

    def entry(self, token: int) -> TokenLogprob:
        import numpy as np

        values, piece = self._logprobs, self._piece
        if values is None:
            return TokenLogprob(piece(token), 0.0)
        top: tuple[tuple[bytes, float], ...] = ()
        if self._top:
            best = np.argpartition(values, -self._top)[-self._top :]
            best = best[np.argsort(values[best])[::-1]]
            top = tuple((piece(int(i)), float(values[i])) for i in best)
        return TokenLogprob(piece(token), float(values[token]), top)


class Bias:
    """OpenAI's `logit_bias`."""

    def __init__(self, bias: Any) -> None:
        import numpy as np

        self._ids = np.fromiter(bias, dtype=np.intp)
        self._values = np.fromiter(bias.values(), dtype=np.float32)

    def add(self, scores: Any) -> None:
        scores[self._ids] += self._values
