"""How replies came out, as Prometheus counters: the same names and labels on every server. Knows no server."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter

from ..core import BY_SETTING, CHANNELS
from .reply import Outcome

__all__ = ["ReplyCounters"]


class ReplyCounters:
    """The counters, in a registry. A reply is counted once, when it ends; one that its client gave up is not."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        replies = Counter(
            "harmony_replies",
            "Replies split, by outcome: clean, repaired (it had an issue of malformed output), or failed",
            ["outcome"],
            registry=registry,
        )
        # Made at once: rate() does not see a series begin.
        self._clean, self._repaired, self._failed = map(replies.labels, ("clean", "repaired", "failed"))
        self._issues = Counter(
            "harmony_issues",
            "What was wrong with the output of replies, or hidden by a setting",
            ["code"],
            registry=registry,
        )
        messages = Counter(
            "harmony_messages",
            "Messages of replies, by the channel that they were taken for",
            ["channel"],
            registry=registry,
        )
        self._by_channel = {channel: messages.labels(channel) for channel in (*CHANNELS, "none", "other")}
        self._calls = Counter("harmony_tool_calls", "Tool calls in replies", registry=registry)
        self._reasoning = Counter("harmony_reasoning_tokens", "Tokens whose text was reasoning", registry=registry)

    def count(self, outcome: Outcome) -> None:
        """Count a reply that has ended."""
        malformed = any(code not in BY_SETTING for code in outcome.issues)
        (self._repaired if malformed else self._clean).inc()
        for code in outcome.issues:
            self._issues.labels(code).inc()
        for channel, number in outcome.channels.items():
            # Models make channels up: a label of their own would be one more series each.
            name = "none" if channel is None else channel if channel in CHANNELS else "other"
            self._by_channel[name].inc(number)
        if outcome.calls:
            self._calls.inc(outcome.calls)
        if outcome.reasoning:
            self._reasoning.inc(outcome.reasoning)

    def fail(self) -> None:
        """Count a reply that an error ended."""
        self._failed.inc()
