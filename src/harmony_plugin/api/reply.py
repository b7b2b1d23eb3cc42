"""What a server hands to those who write a reply down: its pieces as they come, how it ended, and what it came to.

Knows the core's events, and neither a server nor an API.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ..core import Code, Event, RequestError, Stream
from .hosted import ToolResult

__all__ = ["Ending", "Outcome", "Piece", "TokenLogprob", "Usage", "Writer"]


class TokenLogprob(NamedTuple):
    """A content token's bytes, its log probability, and the likeliest tokens at its place with theirs."""

    piece: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()

    def to_openai(self) -> dict[str, Any]:
        """The entry as both of OpenAI's APIs have it."""
        return {
            **_token(self.piece, self.logprob),
            "top_logprobs": [_token(piece, logprob) for piece, logprob in self.top],
        }


def _token(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}


class Ending(NamedTuple):
    """How a choice ended. ``stop_string``: the one that did it. ``told``: what debugging shows of it (`api.debug`)."""

    finish_reason: Literal["length", "tool_calls", "stop"]
    stop_string: str | None = None
    told: dict[str, Any] | None = None


class Piece(NamedTuple):
    """What comes next of a reply: events, and the log probabilities of the content tokens that begin in them.

    ``ending``: this is the last piece of its choice. ``index``: the choice's number. ``result``: what a call came to
    that the server ran, in a piece of its own.
    """

    events: list[Event]
    logprobs: Sequence[TokenLogprob] = ()
    ending: Ending | None = None
    index: int = 0  # type: ignore[assignment]  # shadows tuple.index
    result: ToolResult | None = None


class Outcome(NamedTuple):
    """What is counted of a reply that has ended."""

    issues: tuple[Code, ...]
    channels: Mapping[str | None, int]
    calls: int
    reasoning: int

    @classmethod
    def of(cls, stream: Stream) -> Outcome:
        codes = tuple(issue.code for issue in stream.issues)
        return cls(codes, dict(stream.message_counts), stream.tool_call_count, stream.reasoning_tokens)


@dataclass
class Usage:
    """What a request came to: its prompt once, and all its choices. Right when the reply has ended, however it did.

    Attributes:
        prompt: ids of the prompt; known as soon as the request was taken.
        cached: those of them that were not evaluated again; None: nothing was generated.
        completion: ids generated or put in, markers included.
        reasoning: those of them whose text is reasoning.
        first: `time.monotonic()` when the first text was there; None: there was none.
        rate: tokens a second from then on; None where there were too few to tell.
        finish: the finish reason of the choice that ended last; None: none did.
        issues: codes of what was wrong with the output.
        outcomes: how each choice that is whole came out, for the metrics.
        reading: seconds that the prompt took; `writing`: that the rest took, from there on; None: not measured.
    """

    prompt: int = 0
    cached: int | None = None
    completion: int = 0
    reasoning: int = 0
    first: float | None = None
    rate: float | None = None
    finish: str | None = None
    issues: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    reading: float | None = None
    writing: float | None = None

    def add(self, more: Usage) -> None:
        """Add what another round of the same request came to, less its prompt, which counts from when it was taken."""
        if more.cached is not None:
            self.cached = (self.cached or 0) + more.cached
        self.completion += more.completion
        self.reasoning += more.reasoning
        self.first = self.first or more.first
        self.rate = more.rate or self.rate
        self.finish = more.finish
        self.issues += more.issues
        self.outcomes += more.outcomes
        if more.reading is not None and more.writing is not None:
            self.reading, self.writing = (self.reading or 0) + more.reading, (self.writing or 0) + more.writing

    def timings(self) -> dict[str, Any] | None:
        """As llama.cpp's `llama-server` has them; None: they were not measured."""
        if self.reading is None or self.writing is None:
            return None
        read = self.prompt - (self.cached or 0)
        return {
            "cache_n": self.cached or 0,
            **_pace("prompt", read, self.reading),
            **_pace("predicted", self.completion, self.writing),
        }

    def to_openai(self) -> dict[str, Any]:
        """As ``/v1/chat/completions`` has it."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached or 0},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }

    def to_responses(self) -> dict[str, Any]:
        """As ``/v1/responses`` has it."""
        return {
            "input_tokens": self.prompt,
            "input_tokens_details": {"cached_tokens": self.cached or 0, "cache_write_tokens": 0},
            "output_tokens": self.completion,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.prompt + self.completion,
        }

    def to_anthropic(self) -> dict[str, Any]:
        """As ``/v1/messages`` has it, which counts the tokens read from the cache apart from ``input_tokens``."""
        cached = self.cached or 0
        return {
            "input_tokens": max(0, self.prompt - cached),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": self.completion,
        }


def _pace(what: str, count: int, seconds: float) -> dict[str, Any]:
    return {
        f"{what}_n": count,
        f"{what}_ms": seconds * 1e3,
        f"{what}_per_token_ms": seconds * 1e3 / count if count else 0.0,
        f"{what}_per_second": count / seconds if seconds else 0.0,
    }


class Writer(ABC):
    """Writes one reply down as an API has it: streamed, by all methods but `whole`, or by `whole` alone.

    Attributes:
        identifier: the reply's id, as its client gets it.
    """

    identifier = ""

    def start(self, usage: Usage) -> Iterator[dict[str, Any]]:
        """What is sent before the first piece, if anything. Of the usage, only the prompt's length is known."""
        return iter(())

    @abstractmethod
    def feed(self, piece: Piece) -> Iterator[dict[str, Any]]:
        """What a piece brings."""

    def finish(self, usage: Usage) -> Iterator[dict[str, Any]]:
        """What is sent after the last piece, if anything."""
        return iter(())

    @abstractmethod
    def fail(self, error: RequestError) -> Iterator[dict[str, Any]]:
        """What is sent instead when no more pieces will come."""

    @abstractmethod
    def whole(self, pieces: Iterable[Piece], usage: Usage) -> dict[str, Any]:
        """The whole reply. The usage is read once the pieces have come."""

    def _run(self, pieces: Iterable[Piece], usage: Usage) -> None:
        """Write all of it, for those whose whole reply is what a stream leaves behind."""
        for piece in pieces:
            deque(self.feed(piece), 0)
        deque(self.finish(usage), 0)
