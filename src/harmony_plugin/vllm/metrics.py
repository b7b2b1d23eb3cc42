"""Counters in vLLM's own ``/metrics``: how replies came out, and what splitting them took. Knows no class of vLLM's.

They are in the registry that vLLM gives out, also where several API servers share one (prometheus_client's mode for
several processes). A reply is counted once, when it ends; one that its client gave up is not. Seconds are measured of
one reply in `SHARE`, for all of them: to look at the clock twice a token would cost a tenth of what splitting does.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

from prometheus_client import Counter

from harmony_plugin import Stream
from harmony_plugin.api.counting import ReplyCounters
from harmony_plugin.api.reply import Outcome

from .settings import from_environment

__all__ = ["SHARE", "Clock", "count", "timed"]

SHARE = 16

_Given = TypeVar("_Given")

_replies = ReplyCounters()
_seconds = Counter("harmony_splitting_seconds", "Seconds that splitting took")


def timed(feed: Callable[[Sequence[int]], _Given], clock: Clock | None = None) -> Callable[[Sequence[int]], _Given]:
    """What takes a reply's ids, measured in one reply of `SHARE`, or wherever there is a clock; else itself."""
    counted = from_environment().metrics and not random.randrange(SHARE)
    if clock is None and not counted:
        return feed

    def measured(ids: Sequence[int]) -> _Given:
        began = perf_counter()
        given = feed(ids)
        spent = perf_counter() - began
        if counted:
            _seconds.inc(spent * SHARE)
        if clock is not None:
            clock.seconds += spent
        return given

    return measured


@dataclass
class Clock:
    """What splitting one reply took."""

    seconds: float = 0.0


def count(stream: Stream) -> None:
    """Count a reply that has ended, where that is wanted."""
    if not from_environment().metrics:
        return
    _replies.count(Outcome.of(stream))
