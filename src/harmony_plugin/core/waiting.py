"""How long a reply may go on without an answer. Knows events, and a clock that it is handed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .events import Event, Started

__all__ = ["Wait"]


class Wait:
    """Waits for one reply to begin its answer: a call, or content that is no preamble.

    Args:
        tokens: most tokens without one; None: no bound.
        seconds: most seconds without one, from now on; None: no bound.
        clock: tells the time in seconds; needed where ``seconds`` is.
    """

    __slots__ = ("_clock", "_count", "_end", "_most", "answered")

    def __init__(self, tokens: int | None, seconds: float | None, clock: Callable[[], float]) -> None:
        self._most, self._clock, self._count = tokens, clock, 0
        self._end = None if seconds is None else clock() + seconds
        self.answered = False

    def over(self, events: Iterable[Event], count: int) -> bool:
        """Whether the time is over with these events, which so many tokens brought."""
        if self.answered:
            return False
        self._count += count
        if any(isinstance(event, Started) and _answers(event) for event in events):
            self.answered = True
            return False
        late = self._end is not None and self._clock() >= self._end
        return late or (self._most is not None and self._count >= self._most)


def _answers(event: Started) -> bool:
    if event.field == "content":
        return event.message.channel != "commentary" or event.message.recipient is not None
    return event.field == "tool_call"
