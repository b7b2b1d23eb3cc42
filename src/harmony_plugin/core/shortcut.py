"""Short cut: one id of plain text in an open body, the common case by far, straight to its delta or event.

Every line of `TokenPath.feed` and `TokenPath.feed_events` costs on the token path; `benchmarks/core_before.py` guards
them: the rows for one-token chunks, beside an earlier commit. Whatever is no such id goes the stream's own way, where
chunks are checked.

What it shares with the stream is said in calls, and neither writes what is the other's: the stream aims it at each
message's field, learns how many ids took it, and says behind each chunk which ids may take it next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .deltas import BareDelta, Delta
from .events import Event, Field, Text, ToolCallDelta

__all__ = ["NO_PIECES", "TokenPath"]

#: No id may take the short cut.
NO_PIECES: Mapping[int, str] = {}


class TokenPath:
    """The short cut of a stream, which adds the long ways: `_feed_slowly` and `_events_slowly`."""

    __slots__ = ("_call_index", "_eventful", "_index", "_into", "_keep", "_pieces", "_taken")

    def __init__(self) -> None:
        # The ids that may take it, with their text: to a delta, to an event. A stream gives one or the other.
        self._pieces = self._eventful = NO_PIECES
        # How many took it since the last chunk that went the long way.
        self._taken = 0

    def feed(self, chunk: str | Sequence[int]) -> Delta:
        """Take a chunk of the output: text, or token ids. Gives what it adds to the reply.

        Raises:
            HarmonyParseError: strict mode met an issue.
            RuntimeError: the stream is finished, or gives events. TypeError: neither text nor ids, or not what came
                before.
        """
        try:
            match chunk:
                case [token]:  # the quickest way to tell a sequence of one
                    piece = self._pieces.get(token)
                    if piece is not None:
                        self._taken += 1
                        self._keep(piece)
                        delta: Delta = BareDelta()
                        field = self._into
                        if field == "reasoning":
                            delta.reasoning_content = piece
                            delta.content = None
                            delta.tool_calls = ()
                        elif field == "content":
                            delta.reasoning_content = None
                            delta.content = piece
                            delta.tool_calls = ()
                        else:
                            delta.reasoning_content = delta.content = None
                            delta.tool_calls = (ToolCallDelta(self._index, None, None, piece),)
                        return delta
        except TypeError:  # what is no id; nothing else there can raise it
            pass
        delta, self._pieces = self._feed_slowly(chunk, self._close_path())
        return delta

    def feed_events(self, chunk: str | Sequence[int]) -> list[Event]:
        """Like `feed`, as a list of `Started`, `Text` and `Ended` in the order of the output, for APIs made of items.

        The text has no separators between messages.

        Raises:
            RuntimeError: this stream gave deltas; a stream gives one or the other.
        """
        try:
            match chunk:
                case [token]:
                    piece = self._eventful.get(token)
                    if piece is not None:
                        self._taken += 1
                        self._keep(piece)
                        return [Text(self._into, piece, self._call_index)]
        except TypeError:
            pass
        events, self._eventful = self._events_slowly(chunk, self._close_path())
        return events

    def _feed_slowly(self, chunk: str | Sequence[int], taken: int) -> tuple[Delta, Mapping[int, str]]:
        """Take a chunk behind so many ids that took the short cut. Gives the delta, and which ids may take it next."""
        raise NotImplementedError

    def _events_slowly(self, chunk: str | Sequence[int], taken: int) -> tuple[list[Event], Mapping[int, str]]:
        """The same, with events."""
        raise NotImplementedError

    def _aim_path(self, field: Field, index: int, keep: Callable[[str], object]) -> None:
        """A message begins: its text is of ``field`` (and of call ``index``), and ``keep`` is given it, too."""
        self._into, self._index, self._keep = field, index, keep
        self._call_index = index if field == "tool_call" else None

    def _close_path(self) -> int:
        """Let no id take it. Gives how many did."""
        taken, self._taken = self._taken, 0
        self._pieces = self._eventful = NO_PIECES
        return taken
