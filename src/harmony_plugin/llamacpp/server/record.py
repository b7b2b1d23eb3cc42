"""What became of one request: for the metrics, and for its one line in the log.

Knows no HTTP beyond a status. Nothing that a model or a client wrote gets into the line: models have the names that
they are served under, and paths are routes where there is one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote

from ...api.reply import Usage
from ...core import RequestError

__all__ = ["Record"]

log = logging.getLogger("harmony_plugin.server")

# What others ask again and again, and the files of the page.
QUIET = frozenset({"/health", "/readyz", "/metrics", "/ui/{name}"})


class Waited(Protocol):
    """What generates a request's reply."""

    def when_done(self, call: Callable[[], None]) -> None:
        """Call `call` when nothing more is generated for it."""


class Record:
    """Filled in by whoever knows.

    Args:
        method: the HTTP method.
        identifier: the request's id, as its client got it.
    """

    def __init__(self, method: str, identifier: str) -> None:
        self.since = time.monotonic()
        self.ended: float | None = None
        self.method = method
        self.identifier = identifier
        self.endpoint = "other"
        #: What was asked for where nothing is served.
        self.path: str | None = None
        self.status = 0
        #: The model that answers.
        self.model: str | None = None
        self.streamed = False
        self.cancelled = False
        self.error: RequestError | None = None
        self.first: float | None = None
        self.turn: Waited | None = None
        self.usage: Usage | None = None

    def observe(self, usage: Usage) -> None:
        """Take over what a reply came to that has ended, complete or not. Called in the engine's thread."""
        self.usage = usage

    def close(self) -> None:
        """The reply was sent, or nobody waits for it. Logged once the engine is done with it, too: a reply that was
        broken off is counted only then."""
        self.ended = time.monotonic()
        if self.turn is None:
            self._log()
        else:
            self.turn.when_done(self._log)

    def _log(self) -> None:
        level = logging.WARNING if self.status >= 500 else logging.INFO
        if self.endpoint in QUIET and self.status < 400:
            level = logging.DEBUG
        log.log(level, "%s", self.line())

    def line(self) -> str:
        """The request in one line: words, then `name=value`."""
        assert self.ended is not None
        usage = self.usage or Usage()
        outcome = "cancelled" if self.cancelled else usage.finish
        if self.error is not None:
            outcome = self.error.code or "error"
        where = self.endpoint if self.path is None else quote(self.path)[:80]
        words = [self.method, where, str(self.status or "-"), outcome]
        first = usage.first or self.first
        counted = {"in": usage.prompt, "cached": usage.cached, "out": usage.completion, "reasoning": usage.reasoning}
        fields = {
            "model": self.model,
            **({} if self.usage is None else counted),
            "first": None if first is None else f"{first - self.since:.3f}s",
            "rate": None if usage.rate is None else f"{usage.rate:.1f}tok/s",
            "total": f"{self.ended - self.since:.3f}s",
            "issues": ",".join(sorted(set(usage.issues))) or None,
            "stream": "yes" if self.streamed else None,
            "id": self.identifier,
        }
        words += [f"{name}={value}" for name, value in fields.items() if value is not None]
        return " ".join(word for word in words if word)
