"""Prometheus metrics of the server, named by Prometheus' rules (base units, `_total`). Knows no HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ...api.counting import ReplyCounters
from ...api.reply import Usage
from ..scheduler import Scheduler

__all__ = ["Metrics"]

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counters of one server, in a registry of their own (several servers may live in one process).

    Args:
        waiting: tells how many requests wait.
        running: tells how many run.
        schedulers: tells what generates, by the model's name.
    """

    def __init__(
        self,
        waiting: Callable[[], int],
        running: Callable[[], int],
        schedulers: Callable[[], Mapping[str, Scheduler]],
    ) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Engines(schedulers))
        self.replies = ReplyCounters(self.registry)
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
        for outcome in usage.outcomes:
            self.replies.count(outcome)
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


class _Engines(Collector):
    """What the schedulers count, read when it is asked for. A model that is unloaded begins at 0 when it comes back."""

    def __init__(self, schedulers: Callable[[], Mapping[str, Scheduler]]) -> None:
        self._schedulers = schedulers

    def collect(self) -> Iterator[Metric]:
        def counter(name: str, what: str, *labels: str) -> CounterMetricFamily:
            return CounterMetricFamily(f"harmony_{name}", what, labels=["model", *labels])

        steps = counter("engine_steps", "Steps of the engine, each of which goes on with all replies")
        evaluated = counter("engine_evaluated", "Tokens put through the model; over the steps: how many at a time")
        drafted = counter("engine_drafted", "Tokens that were guessed ahead")
        accepted = counter("engine_accepted", "Those of them that were right")
        seconds = counter("engine_seconds", "Seconds in llama.cpp, on masks and draws, and on splitting", "part")
        hits = counter("prompt_cache_hits", "Prompts that went on from what was known")
        evictions = counter("prompt_cache_evictions", "Prompts pushed out of the context")
        parked = GaugeMetricFamily(
            "harmony_prompt_cache_bytes", "Main memory that prompts pushed out take", labels=["model"]
        )
        for model, scheduler in self._schedulers().items():
            done, memory = scheduler.counters, scheduler.memory
            steps.add_metric([model], done.steps)
            evaluated.add_metric([model], done.evaluated)
            drafted.add_metric([model], done.drafted)
            accepted.add_metric([model], done.accepted)
            seconds.add_metric([model, "decoding"], done.decoding)
            seconds.add_metric([model, "sampling"], done.sampling)
            seconds.add_metric([model, "splitting"], done.splitting)
            hits.add_metric([model], memory.hits)
            evictions.add_metric([model], memory.evictions)
            parked.add_metric([model], memory.parked_bytes)
        yield from (steps, evaluated, drafted, accepted, seconds, hits, evictions, parked)
