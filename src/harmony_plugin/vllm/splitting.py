"""One reply as vLLM generates it: token ids in, the core's deltas or events out, cut at the request's stop strings.

The core does the splitting. This module adds the one thing that only the server knows: where generation was stopped.
vLLM looks for stop strings in its detokenized text and cuts that text, but hands the parser every token id, so that the
text which the core makes of them still holds the stop string (and, in a stream, has to be held back while it may become
one). Knows no class of vLLM's.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from harmony_plugin import Delta, Ended, Options, Stream, Text
from harmony_plugin.events import Event, Joiner
from harmony_plugin.vocabulary import Vocabulary

__all__ = ["NO_STOP", "Splitter", "Stop"]


@dataclass(frozen=True)
class Stop:
    """What ends generation besides the markers, as the request has it.

    Args:
        strings: stop strings; the reply is cut where the first one begins.
        include: vLLM's ``include_stop_str_in_output``: cut where it ends instead.
        min_tokens: they do not count before so many tokens.
        token_ids: ``stop_token_ids`` that are no markers: not part of the reply, unless ``include``.
    """

    strings: tuple[str, ...] = ()
    include: bool = False
    min_tokens: int = 0
    token_ids: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.strings or self.token_ids)


NO_STOP = Stop()


class Splitter:
    """A `Stream` over one reply. Use ``feed``/``finish`` or ``feed_events``/``finish_events``, as with the core."""

    __slots__ = ("_cut", "_joiner", "feed", "stream")

    def __init__(
        self,
        prompt: Sequence[int] | None,
        tools: Sequence[str] | None,
        options: Options,
        vocabulary: Vocabulary,
        stop: Stop = NO_STOP,
    ) -> None:
        self.stream = Stream(prompt, tools, options, vocabulary)
        self._cut = _StopStrings(self.stream, stop, options.dialect.ids.values()) if stop else None
        self._joiner = Joiner()
        #: ids -> `Delta`. The core's own where there is nothing to cut: no layer in between on the token path.
        self.feed = self.stream.feed if self._cut is None else self._feed

    def finish(self) -> Delta:
        """The reply ends: what was held."""
        return self.stream.finish() if self._cut is None else self._joiner.delta(self._cut.finish())

    def feed_events(self, ids: Sequence[int]) -> list[Event]:
        """ids -> events, `Text` cut at stop strings. The messages in `Ended` are not: add up the texts."""
        return self.stream.feed_events(ids) if self._cut is None else self._cut.feed(ids)

    def finish_events(self) -> list[Event]:
        """The reply ends: the events that were held."""
        return self.stream.finish_events() if self._cut is None else self._cut.finish()

    def _feed(self, ids: Sequence[int]) -> Delta:
        assert self._cut is not None
        return self._joiner.delta(self._cut.feed(ids))


class _StopStrings:
    """Holds back what may become a stop string, and cuts where one was found and generation ended.

    Like vLLM's detokenizer: a match ends in the text of the newest token, and the one that ends first counts. Unlike
    it, stop strings are sought in the text of one message at a time, never across a header.
    """

    def __init__(self, stream: Stream, stop: Stop, markers: Any) -> None:
        self._stream = stream
        self._stop = stop
        self._skipped: Container[int] = frozenset() if stop.include else stop.token_ids - set(markers)
        self._longest = max((len(text) for text in stop.strings), default=1) - 1
        # How much of the window must wait; with `include` nothing is taken back, so nothing waits.
        self._hold = 0 if stop.include else self._longest
        self._count = 0
        # The end of the open message's text, and how much of it (from its beginning) was given out.
        self._window = ""
        self._given = 0
        self._lane: Text | None = None
        # After a match: where the reply is cut, and the ids behind it, in case generation goes on all the same.
        self._cut: int | None = None
        self._behind: Sequence[int] = ()

    def feed(self, ids: Sequence[int]) -> list[Event]:
        out: list[Event] = []
        if self._cut is not None:
            # More came: to vLLM that was no match (it began in a header, say). Nothing may be lost.
            self._cut = None
            ids = [*self._behind, *ids]
        for place, token in enumerate(ids):
            self._count += 1
            if token in self._skipped:
                continue
            before = len(self._window)
            for event in self._stream.feed_events((token,)):
                if isinstance(event, Text):
                    self._lane = event
                    self._window += event.text
                else:
                    self._release(out)
                    out.append(event)
                    before = 0
            if len(self._window) > before and self._count > self._stop.min_tokens:
                self._cut = self._match(before)
                if self._cut is not None:
                    self._behind = ids[place + 1 :]
                    break
            self._give(len(self._window) - self._hold, out)
            spare = len(self._window) - self._longest
            if spare > 0:
                self._window = self._window[spare:]
                self._given = max(self._given - spare, 0)
        return out

    def finish(self) -> list[Event]:
        out: list[Event] = []
        rest = self._stream.finish_events()
        if self._cut is None:
            self._release(out)
            return out + rest
        self._give(self._cut, out)
        return out + [event for event in rest if isinstance(event, Ended)]

    def _match(self, before: int) -> int | None:
        """Where to cut: the match that ends first, and ends in the text behind ``before``."""
        best: tuple[int, int] | None = None
        for text in self._stop.strings:
            begin = self._window.find(text, max(before - len(text) + 1, 0))
            if begin >= 0 and (best is None or begin + len(text) < best[1]):
                best = begin, begin + len(text)
        if best is None:
            return None
        return best[1] if self._stop.include else best[0]

    def _give(self, end: int, out: list[Event]) -> None:
        """Give out the window's text up to ``end``."""
        if self._lane is not None and end > self._given:
            out.append(self._lane._replace(text=self._window[self._given : end]))
            self._given = end

    def _release(self, out: list[Event]) -> None:
        """The message's text is complete: nothing of it can become a stop string any more."""
        self._give(len(self._window), out)
        self._window, self._given, self._lane = "", 0, None
