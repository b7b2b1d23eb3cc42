"""One reply: tokens out of the engine's decode loop, through the core's stream, to events.

Decides when a reply is over (markers, limits, stop strings), and puts ids into the token stream that the model did not
sample (the end of reasoning whose budget is spent). Knows nothing of how a request or a chunk is written down, and
nothing of how Harmony is split: it asks the stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..api.reply import Ending, Piece, TokenLogprob
from ..core import ContentTokens, Event, StopStrings, Stream
from .engine import Engine, Processor, Processors

if TYPE_CHECKING:
    from ..api.request import ChatRequest
    from .constraints import Constraint

__all__ = ["Cancelled", "Generation"]


class Cancelled(Exception):
    """Nobody waits for the rest of a reply. It is raised rather than ending the reply: half a reply is none, and `n`
    choices must not go on with the next."""


class Opening(NamedTuple):
    """Ids that begin the answer when no reasoning may follow."""

    after_reasoning: Sequence[int]
    at_start: Sequence[int]


class Generation:
    """Runs once. Iterating gives its pieces, the last with its ending; the counters are right when that has come.

    Closing the iterator ends the engine's loop at once; `cancelled` is asked before each token, see `Cancelled`.

    Attributes:
        completion_tokens: ids sampled or put in, markers included.
        cached_tokens: prompt ids that the engine did not evaluate again.
        cut: whether a limit ended the reply.
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
        extra: dict[str, Any] | None = None,
        seed: int | None = None,
        index: int = 0,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self.stream = stream
        self._index = index
        self.completion_tokens = 0
        self.cached_tokens = 0
        self.cut = False
        self._cancelled = cancelled
        self._engine = engine
        self._prompt = prompt
        self._request = request
        self._markers = markers
        self._opening = opening
        self._constraint = constraint
        self._seed = seed
        self._sampling = {**request.sampling, **(extra or {})}
        self._recorder = Recorder(request.top_logprobs, engine.piece) if request.logprobs else None
        self._bias = Bias(request.logit_bias) if request.logit_bias else None
        self._processors = list(processors)

    def __iter__(self) -> Iterator[Piece]:
        if self._request.stop or self._recorder is not None:
            yield from self._watched(StopStrings(self._request.stop))
            return
        stream, index, tokens = self.stream, self._index, self._tokens()
        try:
            for token in tokens:
                if events := stream.feed_events((token,)):
                    yield Piece(events, (), None, index)
        finally:
            tokens.close()
        events = stream.finish_events()
        yield Piece(events, (), Ending(stream.finish_reason(self.cut)), index)

    def _watched(self, stops: StopStrings) -> Iterator[Piece]:
        """The same where text is cut at stop strings or lined up with log probabilities."""
        stream, recorder = self.stream, self._recorder
        contents: ContentTokens[TokenLogprob | None] = ContentTokens()
        marked = frozenset(self._markers.values())

        def piece(events: list[Event], ending: Ending | None = None) -> Piece:
            logprobs = [entry for entry in contents.given(events) if entry is not None]
            return Piece(events, logprobs, ending, self._index)

        tokens = self._tokens()
        try:
            for token in tokens:
                events = stream.feed_events((token,))
                if recorder is not None:
                    text = b"" if token in marked else self._engine.piece(token)
                    # In the body of another field no token can become content; to note one costs something.
                    elsewhere = stream.in_body and stream.field != "content"
                    contents.add(text, None if elsewhere or not text else recorder.entry(token), events)
                if events := stops.feed(events):
                    yield piece(events)
                if stops.matched is not None:
                    break
        finally:
            tokens.close()
        events = stream.finish_events()
        contents.finish(events)
        # A call that was cut is not to be run.
        reason = "stop" if stops.in_call else stream.finish_reason(self.cut)
        yield piece(stops.finish(events), Ending(reason, stops.matched))

    def _tokens(self) -> Generator[int, None, None]:
        """The reply's ids, those put in by the budget included, until the reply is over."""
        stream, engine, constraint = self.stream, self._engine, self._constraint
        ids = list(self._prompt)
        room = engine.context_size - len(ids)
        limit = min(self._request.max_tokens or room, room)
        budget = math.inf if self._request.max_reasoning_tokens is None else self._request.max_reasoning_tokens
        if budget <= 0:
            yield from self._put(self._opening.at_start if constraint is None else constraint.answer(), ids, limit)
            budget = math.inf
        engine.seed(self._seed)
        processors = self._active()
        engine.restore(ids)
        before, given = engine.evaluated(), len(ids)
        sampled = engine.generate(ids, self._sampling, processors)
        first = True
        try:
            while self.completion_tokens < limit:
                if self._cancelled is not None and self._cancelled():
                    raise Cancelled
                token = next(sampled)
                if first:
                    reused = given - (engine.evaluated() - before)
                    self.cached_tokens = max(0, min(reused, len(self._prompt)))
                    first = False
                if constraint is not None:
                    if constraint.failed:
                        break
                    constraint.accept(token)
                self.completion_tokens += 1
                ids.append(token)
                yield token
                if self._over(token):
                    return
                if budget < math.inf and stream.field == "reasoning" and stream.reasoning_tokens >= budget:
                    budget = math.inf
                    put = self._opening.after_reasoning if constraint is None else constraint.answer()
                    yield from self._put(put, ids, limit)
                    sampled.close()
                    sampled = engine.generate(ids, self._sampling, processors)
            self.cut = True
        except StopIteration:
            self.cut = True
        finally:
            sampled.close()
            engine.save(ids)

    def _put(self, put: Sequence[int], ids: list[int], limit: int) -> Iterator[int]:
        for token in put:
            if self.completion_tokens >= limit:
                return
            self.completion_tokens += 1
            ids.append(token)
            if self._constraint is not None:
                self._constraint.accept(token)
            yield token

    def _over(self, token: int) -> bool:
        stream, markers, parallel = self.stream, self._markers, self._request.parallel
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

    def _active(self) -> Processors | None:
        """The processors of this reply, in order: the raw scores' record, the bias, the mask, the caller's own."""
        recorder, bias, constraint, own = self._recorder, self._bias, self._constraint, self._processors
        if recorder is None and bias is None and constraint is None and not own:
            return None
        active = [p for p in (recorder, bias, constraint, *own) if p is not None]
        return Processors(active, constraint if len(active) == 1 else None)


class Recorder:
    """A processor that notes the model's own log probabilities, before anything changes the scores."""

    def __init__(self, top: int, piece: Callable[[int], bytes]) -> None:
        self._top = top
        self._piece = piece
        self._logprobs: Any = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import numpy as np

        logits = np.array(scores, dtype=np.float64)
        logits -= logits.max()
        self._logprobs = logits - math.log(np.exp(logits).sum())
        return scores

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
    """A processor that adds OpenAI's `logit_bias`."""

    def __init__(self, bias: Any) -> None:
        import numpy as np

        self._ids = np.fromiter(bias, dtype=np.intp)
        self._values = np.fromiter(bias.values(), dtype=np.float32)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        scores[self._ids] += self._values
        return scores
