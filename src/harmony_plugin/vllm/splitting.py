"""One reply as vLLM generates it: token ids in, the core's deltas or events out, cut at the request's stop strings.

The core does the splitting and `stops` the cutting. This module puts them together for one reply, and can say how a
reply is to be split in a few words (`Plan.note`), so that the engine's side of the server splits it in the same way
(see `engine_stops`). Knows no class of vLLM's.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harmony_plugin import Delta, Options, Stream
from harmony_plugin.core import FIELDS, ContentTokens, Event, Field, Joiner, Special, StopStrings, Vocabulary
from harmony_plugin.settings import Settings

__all__ = ["NO_STOP", "Patience", "Plan", "Splitter", "Stop", "patience_of"]

#: The settings that a note carries; the rest are the server's.
_NOTED = ("commentary", "channels", "arguments", "builtin_tools", "tool_choice", "output", "reasoning")


@dataclass(frozen=True)
class Stop:
    """What ends generation besides the markers, as the request has it.

    Args:
        strings: stop strings, see `harmony_plugin.stops`.
        include: vLLM's ``include_stop_str_in_output``: cut where it ends instead of where it begins.
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


@dataclass(frozen=True)
class Patience:
    """How long a reply may go on without an answer or a call, in tokens and in seconds; None: as long as it likes."""

    tokens: int | None = None
    seconds: float | None = None

    def __bool__(self) -> bool:
        return self.tokens is not None or self.seconds is not None


def patience_of(settings: Settings) -> Patience:
    return Patience(settings.max_tokens_before_final, settings.max_seconds_before_final)


@dataclass(frozen=True)
class Plan:
    """How one request's replies are split.

    Args:
        tools: the names on offer.
        options: the core's settings, in the model's dialect.
        shown: the fields that the client sees.
        stop: what ends generation.
    """

    tools: tuple[str, ...]
    options: Options
    shown: frozenset[Field] = FIELDS
    stop: Stop = field(default=NO_STOP)

    def note(self) -> str:
        """The plan as text, less what a server knows anyway: the dialect, and the stop strings of the request."""
        settings = {name: getattr(self.options, name) for name in _NOTED}
        settings["channels"] = dict(self.options.channels)
        return json.dumps({"tools": self.tools, "shown": sorted(self.shown), "options": settings})

    @classmethod
    def of_note(cls, note: Any, options: Options, stop: Stop) -> Plan | None:
        """The plan that was noted; None for anything else, which a client may have sent under the same name."""
        try:
            noted = json.loads(note)
            settings = {name: value for name, value in noted["options"].items() if name in _NOTED}
            tools = tuple(name for name in noted["tools"] if isinstance(name, str))
            return cls(tools, replace(options, **settings), FIELDS & set(noted["shown"]), stop)
        except (TypeError, ValueError, KeyError, AttributeError):
            return None


class Splitter:
    """A `Stream` over one reply. Use ``feed``/``finish`` or ``feed_events``/``finish_events``, as with the core.

    Args:
        prompt: the prompt's ids, if known.
        plan: see there.
        vocabulary: the model's.
        follow: follow which tokens the content comes from: see `follow`.
        watch: is told of all events that the deltas are made of.
    """

    __slots__ = (
        "_contents",
        "_count",
        "_entries",
        "_joiner",
        "_skipped",
        "_stop",
        "_stops",
        "_vocabulary",
        "_watch",
        "feed",
        "lined_up",
        "stream",
    )

    def __init__(
        self,
        prompt: Sequence[int] | None,
        plan: Plan,
        vocabulary: Vocabulary,
        *,
        follow: bool = False,
        watch: Callable[[list[Event]], None] | None = None,
    ) -> None:
        stop = plan.stop
        self.stream = Stream(prompt, plan.tools, plan.options, vocabulary)
        self._vocabulary = vocabulary
        self._stop = stop
        self._watch = watch
        self._stops: StopStrings | None = None
        self._contents: ContentTokens[Any] | None = ContentTokens() if follow else None
        self._entries: deque[Any] = deque()
        #: Entries of the tokens whose content was given out; the caller takes them away.
        self.lined_up: list[Any] = []
        self._joiner = Joiner()
        self._count = 0
        skipped = stop.token_ids - set(plan.options.dialect.ids.values())
        self._skipped: frozenset[int] = frozenset() if stop.include else frozenset(skipped)
        if stop.strings or self._skipped or follow:
            self._stops = StopStrings(stop.strings, shown=plan.shown, include=stop.include)
        #: ids -> `Delta`. The core's own where nobody else wants its events: no layer in between on the token path.
        self.feed = self.stream.feed if self._stops is None and watch is None else self._feed

    @property
    def matched(self) -> str | None:
        """The stop string that ended the reply."""
        return None if self._stops is None else self._stops.matched

    @property
    def cut_call(self) -> bool:
        """Whether it stood in a call's arguments: that call is not whole."""
        return self._stops is not None and self._stops.in_call

    @property
    def count(self) -> int:
        """How many tokens there were, up to the one that completed a stop string (where there are any)."""
        return self._count

    def follow(self, entries: Iterable[Any]) -> None:
        """What belongs to each of the tokens that are fed next (their log probabilities): see `lined_up`."""
        self._entries.extend(entries)

    def finish(self) -> Delta:
        """The reply ends: what was held."""
        if self._stops is None and self._watch is None:
            return self.stream.finish()
        return self._delta(self.finish_events())

    def feed_events(self, ids: Sequence[int]) -> list[Event]:
        """ids -> events, `Text` cut at stop strings. The messages in `Ended` are not: add up the texts."""
        stops, stream = self._stops, self.stream
        if stops is None:
            return stream.feed_events(ids)
        out: list[Event] = []
        for token in ids:
            if stops.matched is not None:
                break
            self._count += 1
            if token in self._skipped:
                continue
            events = stream.feed_events((token,))
            if self._contents is not None:
                entry = self._entries.popleft() if self._entries else None
                self._contents.add(self._piece(token), entry, events)
            events = stops.feed(events, self._count > self._stop.min_tokens)
            self._line_up(events)
            out += events
        return out

    def finish_events(self) -> list[Event]:
        """The reply ends: the events that were held."""
        events = self.stream.finish_events()
        if self._stops is None:
            return events
        if self._contents is not None:
            self._contents.finish(events)
        events = self._stops.finish(events)
        self._line_up(events)
        return events

    def _feed(self, ids: Sequence[int]) -> Delta:
        return self._delta(self.feed_events(ids))

    def _delta(self, events: list[Event]) -> Delta:
        if self._watch is not None:
            self._watch(events)
        return self._joiner.delta(events)

    def _line_up(self, events: list[Event]) -> None:
        if self._contents is not None:
            self.lined_up += (entry for entry in self._contents.given(events) if entry is not None)

    def _piece(self, token: int) -> bytes:
        """A token's bytes; none where it is no text."""
        vocabulary = self._vocabulary
        if token in vocabulary.by_id:
            return b""
        piece = vocabulary.piece(token)
        return b"" if isinstance(piece, Special) else piece.encode() if isinstance(piece, str) else piece
