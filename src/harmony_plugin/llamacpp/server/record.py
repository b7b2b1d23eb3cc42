"""What became of one request: for the metrics, and for its one line in the log.

Knows no HTTP beyond a status. Nothing that a model or a client wrote gets into the line: models have the names that
they are served under, and paths are routes where there is one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ...core import RequestError
from .. import Usage
from .engine import Generation

__all__ = ["Record"]

log = logging.getLogger("harmony_plugin.server")

# What others ask again and again.
QUIET = frozenset({"/health", "/readyz", "/metrics"})


class Record:
    """Filled in by whoever knows.

    :param method: the HTTP method.
    :param identifier: the request's id, as its client got it.
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
        self.finish: str | None = None
        self.first: float | None = None
        self.generation: Generation | None = None
        self._tokens: dict[str, int | None] = {}
        self._rate: float | None = None
        self._issues: list[str] = []

    def observe(self, usage: Usage) -> None:
        """Take over what the chat handler counted, of a reply that is complete or not. Called in any thread."""
        self._tokens = {
            "in": usage.prompt,
            "cached": usage.cached,
            "out": usage.completion,
            "reasoning": usage.reasoning,
        }
        self.first, self._rate, self._issues = usage.first or self.first, usage.rate, usage.issues

    def chunk(self, chunk: Mapping[str, Any]) -> None:
        """Take note of a chat completion, or of a chunk of one."""
        usage = chunk.get("usage")
        if usage and not self._tokens and "completion_tokens" in usage:
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
            reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
            self._tokens = {
                "in": usage.get("prompt_tokens"),
                "cached": cached,
                "out": usage["completion_tokens"],
                "reasoning": reasoning,
            }
        for choice in chunk.get("choices") or ():
            self.finish = choice.get("finish_reason") or self.finish

    def close(self) -> None:
        """The reply was sent, or nobody waits for it. Logged once the engine is done with it, too: a reply that was
        broken off is counted only then."""
        self.ended = time.monotonic()
        if self.generation is None:
            self._log()
        else:
            self.generation.when_done(self._log)

    def _log(self) -> None:
        level = logging.WARNING if self.status >= 500 else logging.INFO
        if self.endpoint in QUIET and self.status < 400:
            level = logging.DEBUG
        log.log(level, "%s", self.line())

    def line(self) -> str:
        """The request in one line: words, then `name=value`."""
        assert self.ended is not None
        outcome = "cancelled" if self.cancelled else self.finish
        if self.error is not None:
            outcome = self.error.code or "error"
        where = self.endpoint if self.path is None else quote(self.path)[:80]
        words = [self.method, where, str(self.status or "-"), outcome]
        fields = {
            "model": self.model,
            **self._tokens,
            "first": None if self.first is None else f"{self.first - self.since:.3f}s",
            "rate": None if self._rate is None else f"{self._rate:.1f}tok/s",
            "total": f"{self.ended - self.since:.3f}s",
            "issues": ",".join(sorted(set(self._issues))) or None,
            "stream": "yes" if self.streamed else None,
            "id": self.identifier,
        }
        words += [f"{name}={value}" for name, value in fields.items() if value is not None]
        return " ".join(word for word in words if word)
