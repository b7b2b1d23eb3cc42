"""Tracing: what became of each piece of the output, for people who look at it. A stream with its eyes open.

Feeds a `Stream` token by token and sees which text its events hold; decides nothing itself. Several times slower than
the stream alone: for a reply that somebody looks at, not for the token path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from .deltas import Reply
from .events import Event, Field, Message, Started, Text, ToolCallDelta
from .issues import Code, Issue, Unit, meaning
from .lexer import IdLexer, TextLexer
from .options import Options
from .stream import Stream
from .tokens import CALL, END, RESERVED, RETURN, TEXT, UNKNOWN, Token
from .vocabulary import Vocabulary

__all__ = ["Explanation", "Kind", "Segment", "Shown", "Trace"]

#: What a piece of the output is: a marker, words of a header, text of a field, or text that only an issue has.
Kind = Literal["marker", "header", "reasoning", "content", "tool_call", "dropped"]

#: Issues whose text reached no field.
_LOST: frozenset[Code] = frozenset(
    {
        *("header_words", "incomplete_header", "missing_message", "filler", "loose_text"),
        *("foreign_role", "builtin_tool", "dropped_call", "dropped_text"),
    }
)


class Segment(NamedTuple):
    """A piece of the output. ``offset``: in ids or characters. ``ids``: its token ids, None for text input.
    ``message``: the number of the message that it belongs to."""

    kind: Kind
    text: str
    offset: int
    ids: tuple[int, ...] | None = None
    message: int | None = None


class Shown(NamedTuple):
    """A message, where its text went, and the name of the tool that it calls."""

    field: Field | None
    message: Message
    name: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"field": self.field, **self.message._asdict(), "name": self.name}


@dataclass(frozen=True)
class Explanation:
    """A reply with what became of each piece of it: in order, and nothing left out.

    ``unit``: what offsets count. ``reply``: what `parse` gives.
    """

    unit: Unit
    segments: tuple[Segment, ...]
    messages: tuple[Shown, ...]
    reply: Reply

    @property
    def issues(self) -> tuple[Issue, ...]:
        """What was wrong, in order of discovery."""
        return self.reply.issues

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        issues = [{**issue._asdict(), "meaning": meaning(issue.code)} for issue in self.issues]
        return {
            "unit": self.unit,
            "segments": [segment._asdict() for segment in self.segments],
            "messages": [shown.to_dict() for shown in self.messages],
            "issues": issues,
            "message": self.reply.to_openai(),
        }


class _Piece:
    """A segment in the making."""

    __slots__ = ("ids", "kind", "message", "offset", "text")

    def __init__(self, kind: Kind, text: str, offset: int, ids: tuple[int, ...] | None) -> None:
        self.kind, self.text, self.offset, self.ids = kind, text, offset, ids
        self.message: int | None = None

    def cut(self, place: int) -> _Piece:
        """Keep the text up to ``place``, and give the rest. The ids stay with what is kept."""
        rest = _Piece(self.kind, self.text[place:], self.offset, None if self.ids is None else ())
        if self.ids is None:
            rest.offset += place
        rest.message, self.text = self.message, self.text[:place]
        return rest


class Trace:
    """Follows one reply. Feed it as a `Stream`, then finish it; ``take`` gives the segments that are settled.

    >>> from harmony_plugin.core import Trace
    >>> trace = Trace()
    >>> trace.feed("<|channel|>final<|message|>It is 21 C.")
    >>> [(segment.kind, segment.text) for segment in trace.finish().segments]
    [('marker', '<|channel|>'), ('header', 'final'), ('marker', '<|message|>'), ('content', 'It is 21 C.')]

    Args: as `Stream` has them.
    """

    def __init__(
        self,
        prompt: str | Sequence[int] | None = None,
        tools: Iterable[str | Mapping[str, Any]] | None = None,
        options: Options | None = None,
        decode: Callable[[int], bytes] | Vocabulary | None = None,
    ) -> None:
        self._stream = Stream(prompt, tools, options, decode)
        self._lexer: IdLexer | TextLexer | None = None
        self._pieces: list[_Piece] = []
        # Text of which no event has told yet: the last pieces, from this one on.
        self._unsettled = 0
        # Ids whose character is not whole yet.
        self._waiting: tuple[int, ...] = ()
        self._messages: list[Shown] = []
        # Of the message that is open.
        self._call: ToolCallDelta | None = None
        self._given: list[str] = []
        # How many were looked at, and were taken.
        self._issues = self._taken = 0

    def feed(self, chunk: str | Sequence[int]) -> None:
        """Take a chunk of the output. Raises what `Stream.feed` does."""
        if not isinstance(chunk, str):
            for token in chunk:
                self._feed_id(token)
            return
        if self._lexer is None:
            self._lexer = TextLexer(self._stream._options.dialect)
        self._feed_text(self._lexer.feed(chunk) if isinstance(self._lexer, TextLexer) else [(TEXT, chunk, 0, 0)])

    def finish(self) -> Explanation:
        """The output ends."""
        lexer = self._lexer
        unit: Unit = "tokens" if isinstance(lexer, IdLexer) else "characters"
        if isinstance(lexer, TextLexer):
            self._feed_text(lexer.finish())
        elif lexer is not None:
            text = "".join(text for _, text, *_ in lexer.finish())
            self._add("header", text, lexer.offset - len(self._waiting), self._waiting)
        self._tell(self._stream.finish_events())
        self._unsettled = len(self._pieces)
        return Explanation(unit, tuple(_merged(self._pieces)), tuple(self._messages), self._stream.reply)

    @property
    def issues(self) -> tuple[Issue, ...]:
        """The issues so far."""
        return self._stream.issues

    def take(self) -> list[Segment]:
        """The segments that are settled, and were not taken yet."""
        settled = self._pieces[self._taken : self._unsettled]
        self._taken = max(self._taken, self._unsettled)
        return list(_merged(settled))

    def _feed_text(self, tokens: Iterable[Token]) -> None:
        for kind, text, offset, _ in tokens:
            self._add("header" if kind == TEXT else "marker", text, offset, None, kind)
            self._tell(self._stream.feed_events(text))
            self._settle_ends(kind)

    def _feed_id(self, token: int) -> None:
        if self._lexer is None:
            self._lexer = IdLexer(self._stream._vocabulary())
        if not isinstance(self._lexer, IdLexer):
            self._stream.feed_events((token,))  # which says what is wrong with that
            return
        offset, waiting = self._lexer.offset, self._waiting
        found = [each for each in self._lexer.feed((token,)) if each[1]]
        text = "".join(text for kind, text, *_ in found if kind == TEXT)
        kind = found[-1][0] if found else TEXT
        self._waiting = ()
        if kind != TEXT:
            self._add("header", text, offset - len(waiting), waiting)
            self._add("dropped" if kind in (RESERVED, UNKNOWN) else "marker", found[-1][1], offset, (token,), kind)
        elif text:
            self._add("header", text, offset - len(waiting), (*waiting, token))
        else:
            self._waiting = (*waiting, token)
        self._tell(self._stream.feed_events((token,)))
        self._settle_ends(kind)

    def _add(self, kind: Kind, text: str, offset: int, ids: tuple[int, ...] | None, token: int = TEXT) -> None:
        if text or ids:
            piece = _Piece(kind, text, offset, ids)
            if token in (END, CALL, RETURN) and self._stream.in_body:
                piece.message = len(self._messages)
            self._pieces.append(piece)

    def _settle_ends(self, kind: int) -> None:
        """Behind an end marker that closed a message, nothing of it is left open."""
        if kind in (END, CALL, RETURN) and self._pieces[-1].message is not None:
            self._unsettled = len(self._pieces)

    def _tell(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Started):
                self._call, self._given = event.call, []
                self._number()
            elif isinstance(event, Text):
                self._given.append(event.text)
                self._mark(event.text, event.field)
            else:
                message = event.message
                if "".join(self._given) != message.text:  # text that no event told: an issue's, or repaired
                    self._mark(message.text, event.field or "dropped")
                self._messages.append(Shown(event.field, message, None if self._call is None else self._call.name))
        for issue in self._stream.issues[self._issues :]:
            self._issues += 1
            if issue.code in _LOST and issue.text:
                self._mark(issue.text, "dropped", issue.offset)

    def _number(self) -> None:
        """What was seen since the last message belongs to the one that begins now."""
        number = len(self._messages)
        for piece in reversed(self._pieces):
            if piece.message is not None:
                break
            piece.message = number

    def _mark(self, text: str, kind: Kind, offset: int = 0) -> None:
        """Settle text: it is the last that spells this among what is not settled."""
        pieces = [each for each in self._pieces[self._unsettled :] if each.kind == "header" and each.offset >= offset]
        begin = "".join(piece.text for piece in pieces).rfind(text) if text else -1
        if begin < 0:
            return
        end, place, last = begin + len(text), 0, 0
        for piece in pieces:
            size = len(piece.text)
            if place < end and place + size > begin:
                last = self._colour(piece, max(0, begin - place), min(size, end - place), kind)
            place += size
        if kind != "dropped":
            self._unsettled = last + 1  # what stood in front of it was its header

    def _colour(self, piece: _Piece, begin: int, end: int, kind: Kind) -> int:
        """Give the text of a piece from ``begin`` to ``end`` its kind; what is around it stays. Gives its place."""
        at = self._pieces.index(piece, self._unsettled)
        if end < len(piece.text):
            self._pieces.insert(at + 1, piece.cut(end))
        if begin:
            piece = piece.cut(begin)
            at += 1
            self._pieces.insert(at, piece)
        piece.kind = kind
        if kind != "dropped":
            piece.message = len(self._messages)
        return at


def _merged(pieces: Iterable[_Piece]) -> Iterator[Segment]:
    """Pieces of one kind that stand side by side, as one."""
    last: Segment | None = None
    for piece in pieces:
        segment = Segment(piece.kind, piece.text, piece.offset, piece.ids, piece.message)
        if last is not None and segment.kind != "marker" and (last.kind, last.message) == (segment.kind, piece.message):
            ids = None if last.ids is None else (*last.ids, *(segment.ids or ()))
            last = last._replace(text=last.text + segment.text, ids=ids)
            continue
        if last is not None:
            yield last
        last = segment
    if last is not None:
        yield last
