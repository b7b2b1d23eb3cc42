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
from harmony_plugin.core import BY_SETTING, CHANNELS

from .settings import from_environment

__all__ = ["SHARE", "Clock", "count", "timed"]

SHARE = 16

_Given = TypeVar("_Given")

_replies = Counter(
    "harmony_replies",
    "Replies split, by outcome: clean, or repaired (it had an issue of malformed output)",
    ["outcome"],
)
_issues = Counter("harmony_issues", "What was wrong with the output of replies, or hidden by a setting", ["code"])
_messages = Counter("harmony_messages", "Messages of replies, by the channel that they were taken for", ["channel"])
_calls = Counter("harmony_tool_calls", "Tool calls in replies")
_reasoning = Counter("harmony_reasoning_tokens", "Tokens whose text was reasoning")
_seconds = Counter("harmony_splitting_seconds", "Seconds that splitting took")
_clean, _repaired = (_replies.labels(outcome) for outcome in ("clean", "repaired"))
_by_channel = {channel: _messages.labels(channel) for channel in (*CHANNELS, "none", "other")}


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
    issues = stream.issues
    (_repaired if any(issue.code not in BY_SETTING for issue in issues) else _clean).inc()
    for issue in issues:
        _issues.labels(issue.code).inc()
    for channel, number in stream.message_counts.items():
        # Models make channels up: a label of their own would be one more series each.
        _by_channel["none" if channel is None else channel if channel in CHANNELS else "other"].inc(number)
    if stream.tool_call_count:
        _calls.inc(stream.tool_call_count)
    if stream.reasoning_tokens:
        _reasoning.inc(stream.reasoning_tokens)
