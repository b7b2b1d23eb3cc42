"""Which generated tokens a reply's content came from, for log probabilities that line up with it.

Content may come later than its tokens (text that might have been a header, half a character, what might have been a
stop string) and without some of them (markers, headers, what was cut). Knows tokens' bytes and events; splits nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

from .events import Event, Text

__all__ = ["ContentTokens"]

Entry = TypeVar("Entry")


class ContentTokens(Generic[Entry]):
    """Follows one reply, token by token, and gives back the entries of those whose text was given out as content.

    Entries are the caller's: a token's log probability, or its place. Those of other text are dropped as it comes.
    """

    __slots__ = ("_given", "_made", "_ready", "_seen")

    def __init__(self) -> None:
        # Tokens whose text no event has held yet, with their bytes.
        self._seen: list[tuple[bytes, Entry]] = []
        # Content tokens whose text was not given out yet: where in the content they begin, in bytes.
        self._ready: deque[tuple[int, Entry]] = deque()
        # The content that the stream made so far, and that was given out, in bytes.
        self._made = self._given = 0

    def add(self, piece: bytes, entry: Entry, events: Iterable[Event]) -> None:
        """The next token's bytes (none for a marker), its entry, and the events that the stream gave for it."""
        if piece:
            self._seen.append((piece, entry))
        self.finish(events)

    def finish(self, events: Iterable[Event]) -> None:
        """Events of the reply's end: they belong to no token of their own."""
        for event in events:
            if isinstance(event, Text):
                self._text(event)

    def given(self, events: Iterable[Event]) -> list[Entry]:
        """The entries of the tokens whose content begins in these events, which are given out now."""
        self._given += sum(len(e.text.encode()) for e in events if isinstance(e, Text) and e.field == "content")
        entries = []
        while self._ready and self._ready[0][0] < self._given:
            entries.append(self._ready.popleft()[1])
        return entries

    def _text(self, event: Text) -> None:
        """Find the tokens that this text came from: they are the last ones seen that spell it."""
        seen, self._seen = self._seen, []
        if event.field != "content":
            return
        data = event.text.encode()
        spelled = b"".join(piece for piece, _ in seen)
        begin = spelled.rfind(data)
        # Not found: a character's last bytes, whose first came with text in front of it, or bytes that are none.
        begin, end = (begin, begin + len(data)) if begin >= 0 else (0, len(spelled))
        offset = 0
        for piece, entry in seen:
            if offset < end and offset + len(piece) > begin:
                self._ready.append((self._made + max(0, offset - begin), entry))
            offset += len(piece)
        self._made += len(data)
