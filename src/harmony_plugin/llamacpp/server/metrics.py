"""Prometheus metrics of the server, named by Prometheus' rules (base units, `_total`). Knows no HTTP."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ...api.reply import Usage

__all__ = ["Metrics"]

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counters of one server, in a registry of their own (several servers may live in one process).

    Args:
        waiting: tells how many requests wait.
        running: tells how many run.
    """

    def __init__(self, waiting: Callable[[], int], running: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "harmony_requests",
            "Requests answered, by endpoint and HTTP status",
            ["endpoint", "status"],
            registry=self.registry,
        )
        self.cancelled = Counter(
            "harmony_requests_cancelled", "Requests whose client went away", ["endpoint"], registry=self.registry
        )
        self._tokens = Counter("harmony_tokens", "Tokens, by kind", ["model", "kind"], registry=self.registry)
        self.chunks = Counter("harmony_chunks", "Chunks of streams and finished whole replies", registry=self.registry)
        self.first = Histogram(
            "harmony_time_to_first_chunk_seconds",
            "From the request to the first text, waiting included",
            ["endpoint"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.duration = Histogram(
            "harmony_request_duration_seconds",
            "From the request to its end, waiting included",
            ["endpoint"],
            buckets=SECONDS,
            registry=self.registry,
        )
        Gauge("harmony_requests_waiting", "Requests in line", registry=self.registry).set_function(waiting)
        Gauge("harmony_requests_running", "Requests generating", registry=self.registry).set_function(running)

    def tokens(self, model: str, usage: Usage) -> None:
        """Count a finished reply."""
        kinds = {
            "prompt": usage.prompt,
            "prompt_cached": usage.cached,
            "completion": usage.completion,
            "reasoning": usage.reasoning,
        }
        for kind, count in kinds.items():
            if count:
                self._tokens.labels(model, kind).inc(count)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
