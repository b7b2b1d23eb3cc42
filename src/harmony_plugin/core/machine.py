"""Machine: tokens in, messages out. The whole state machine, as a table.

Three states. HEADER: a header is due or being read; its text is held. BODY: a message is open; its text goes out at
once. LOOSE: text with no message around it, too long for a header; held until a marker tells what it was. What may
still turn out to be something else is held and never taken back, so any way to cut the output gives the same events
(SPEC promise 4).

Everything that decides where a message begins and ends is in this file (SPEC section 5); what a header *says* is the
header reader's; which field a message goes to is routing's, and the machine does not know fields. An event is a tuple:
``(OPEN, Header, offset)``, ``(BODY_TEXT, text, ids)``, ``(CLOSE, complete, offset)``, ``(ISSUE, code, offset, text)``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import tokens as kinds
from .header import (
    LIMIT,
    Header,
    Sections,
    Span,
    bodies_in_front,
    body_behind,
    could_become_header,
    is_filler,
    loose_words,
    read_header,
)
from .issues import Code
from .tokens import CALL, CHANNEL, CONSTRAIN, END, INVALID, RESERVED, RETURN, START, TEXT, UNKNOWN, Token
from .words import TYPES, is_mark

__all__ = ["BODY_TEXT", "CLOSE", "ISSUE", "OPEN", "Machine", "Verbatim"]

OPEN, BODY_TEXT, CLOSE, ISSUE = range(4)
HEADER, BODY, LOOSE = range(3)

Event = tuple[Any, ...]

_NOTES: dict[int, Code] = {RESERVED: "reserved_token", UNKNOWN: "unknown_token", INVALID: "invalid_utf8"}

# A channel's name, whole or not.
_NAME_BEGUN = re.compile(r"\s{0,8}[^\W\d_]{0,24}")


class Machine:
    """The state of one reply. Feed it tokens; `take` hands out the events since the last call.

    Args:
        custom: channels that the settings name. declared: names of the tools on offer.
    """

    def __init__(self, custom: tuple[str, ...] = (), declared: tuple[str, ...] = ()) -> None:
        self._custom = custom
        self._declared = declared
        #: From a text run's offset and ids to its pieces, id by id: the lexer's.
        self.apart: Callable[[int, int], Iterable[tuple[str, int]]] | None = None
        self._events: list[Event] = []
        # Loose text whose field a later marker decides: (text, closed by, offset, ids).
        self._pending: list[tuple[str, int, int, int]] = []
        #: Whether nothing has come yet but markers.
        self._opening = True
        self.state = HEADER
        self._header: Header | None = None
        self._begin_header(0, explicit=True, role="assistant")
        self._prompted = True

    # What the states do with each kind of token; a row of SPEC section 5 stands where it binds.

    def feed(self, tokens: Iterable[Token]) -> None:
        """Take tokens, in order."""
        for kind, text, offset, ids in tokens:
            _TABLE[self.state][kind](self, text, offset, ids)
        if self._unread:
            self._read_runs()

    def take(self) -> list[Event]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events

    def prime(self, tokens: Iterable[Token]) -> None:
        """Take the end of the prompt, from its last ``<|start|>`` on: only the state stays (SPEC section 2)."""
        self._begin_header(0, explicit=True)
        self.feed(tokens)
        self.take()
        self._pending.clear()
        self._opening = self.state != BODY
        if self.state == BODY:
            # The message is open: it begins for the client with its first text.
            self._events = [(OPEN, self._header, 0)]
        elif self.state == LOOSE:
            self._begin_header(0, explicit=True, role="assistant")
            self._prompted = True
        else:
            role = self._words().strip()
            if not self._sections and role in ("assistant", ""):
                # The role is whole: the model's own words do not continue it.
                self._begin_header(0, explicit=self._explicit, role=role or None)
            self._rebase(0)
            self._prompted = self._explicit
            self._seeded = self._runs_at = len(self._words())

    def finish(self, offset: int) -> None:
        """The output ends here."""
        if self.state == BODY:
            self._close(False, offset)
        elif self.state == LOOSE:
            self._loose_ends(RETURN)
        else:
            self._end_of_output(offset)
        for text, _, begin, ids in self._pending:
            self._issue("loose_text", begin)
            self._emit_loose(text, "content", ids)
        self._pending.clear()

    def _issue(self, code: Code, offset: int, text: str = "") -> None:
        self._events.append((ISSUE, code, offset, text))

    # HEADER

    def _begin_header(self, offset: int, *, explicit: bool, role: str | None = None) -> None:
        self.state = HEADER
        # The clauses that are whole, and the one being read.
        self._sections: Sections = ()
        self._kind, self._text = START, ""
        self._role = role
        self._explicit = explicit
        self._implied = not explicit
        self._prompted = False
        self._seeded = 0
        self._rebase(offset)

    def _rebase(self, offset: int) -> None:
        self._offset = offset
        self._length = 0
        # The text held, run by run: length, ids, offset. Runs of several ids are taken apart once somebody counts, or
        # the chunk that they came in ends.
        self._runs: list[tuple[int, int, int]] = []
        self._unread = False
        # Where the first of them begins in the header's text.
        self._runs_at = 0

    def _hold(self, text: str, offset: int, ids: int) -> None:
        size, room = len(text), LIMIT - self._length
        if size > room:
            # A channel's or type's name is not cut in two: what it says would be lost, and analysis with it.
            name = _NAME_BEGUN.match(self._text + text)
            room = max(room, name.end() - len(self._text))  # type: ignore[union-attr]  # it matches the empty name, too
        if size > room:
            if ids > 1 and self.apart:
                # Id by id, so that those behind the limit count where their text goes.
                for piece, place in self.apart(offset, ids):
                    _TABLE[self.state][TEXT](self, piece, place, 1)
                return
            # A header has at most 512 characters. The rest is body or loose text, wherever the chunk was cut.
            self._text += text[: room + 1]
            self._runs.append((room + 1, ids, offset))
            self._too_long(offset)
            _TABLE[self.state][TEXT](self, text[room + 1 :], offset, 0)
            return
        self._text += text
        self._length += size
        self._runs.append((size, ids, offset))
        if ids > 1:
            self._unread = True

    def _clause(self, kind: int, offset: int) -> None:
        if self._kind == kind and not self._text.strip():
            return  # an empty clause: the next one counts
        if len(self._sections) >= LIMIT:
            self._issue("stray_marker", offset)
            return
        self._sections = self._frozen()
        self._kind, self._text = kind, ""

    def _channel_clause(self, text: str, offset: int, ids: int) -> None:
        self._clause(CHANNEL, offset)

    def _constrain_clause(self, text: str, offset: int, ids: int) -> None:
        self._clause(CONSTRAIN, offset)

    def _read(self) -> Header:
        return read_header(self._frozen(), self._role, self._custom, self._declared)

    def _frozen(self) -> Sections:
        return (*self._sections, (self._kind, self._text))

    def _words(self) -> str:
        """The header's text, without what the prompt held of it."""
        if not self._sections:
            return self._text[self._seeded :]
        return "".join([text for _, text in self._frozen()])[self._seeded :]

    def _read_runs(self) -> None:
        """Take the runs of several ids apart, id by id."""
        runs: list[tuple[int, int, int]] = []
        for run in self._runs:
            _, ids, offset = run
            if ids > 1 and self.apart:
                runs += [(len(piece), 1, place) for piece, place in self.apart(offset, ids)]
            else:
                runs.append(run)
        self._runs, self._unread = runs, False

    def _count(self, spans: Sequence[Span]) -> int:
        """How many ids the text at ``spans`` came in."""
        if self._unread:
            self._read_runs()
        count = waiting = 0
        place = self._runs_at
        for length, ids, _ in self._runs:
            waiting += ids  # an id may add nothing but the beginning of a character
            if length:
                if any(begin < place + length and place < end for begin, end in spans):
                    count += waiting
                waiting = 0
                place += length
        return count

    def _spoken(self, spans: Iterable[Span]) -> tuple[str, int]:
        """The text at ``spans``, without what the prompt held of it, and how many ids it came in."""
        joined = "".join([text for _, text in self._frozen()])
        own = [(max(begin, self._seeded), end) for begin, end in spans if end > self._seeded]
        return "".join([joined[begin:end] for begin, end in own]), self._count(own)

    def _loose_words(self) -> tuple[str, int]:
        """The header's words as loose text, and how many ids they came in."""
        return self._spoken(loose_words(self._frozen(), self._explicit and self._role is None))

    def _is_foreign(self, header: Header) -> bool:
        """Whether the model plays another role. With no marker in front and none behind, the word is a text's first.

        So is a tool's name in front of other words, spoken to nobody.
        """
        if header.author not in (None, "tool") and header.wordy and header.recipient is None:
            return False
        return header.role != "assistant" and (self._explicit or bool(self._sections))

    def _take_bodies_in_front(self, offset: int) -> None:
        """``<|channel|>`` stood in the place of ``<|message|>``: the messages in front of the last channel."""
        if len(self._sections) == 2 and self._kind != CHANNEL:
            return  # but one channel
        sections, begin = self._frozen(), 0
        role = self._read().role
        for end in bodies_in_front(sections, role, self._custom, self._declared):
            front = sections[begin:end] if begin == 0 else ((START, ""), *sections[begin:end])
            self._sections, (self._kind, self._text) = front[:-1], front[-1]
            self._message_behind(self._read(), True, offset, None)
            # The header goes on behind it.
            taken = sum(len(text) for _, text in front)
            self._seeded = max(0, self._seeded - taken)
            self._runs_at -= taken
            self._role, self._implied, self.state = role, False, HEADER
            self._sections, (self._kind, self._text) = ((START, ""), *sections[end:-1]), sections[-1]
            begin = end

    def _open_message(self, text: str, offset: int, ids: int) -> None:
        if len(self._sections) > 1:
            self._take_bodies_in_front(offset)
        header = self._read()
        if self._implied:
            self._issue("missing_start", self._offset)
        for code, words in header.issues:
            if code != "missing_role" or not self._implied:  # with <|start|>, the role was left out, too
                self._issue(code, self._offset, words)
        self._open(header, offset + 1 if ids else offset + len(text))

    def _open(self, header: Header, offset: int) -> None:
        self._message_follows()
        self._header = header
        self.state = BODY
        self._events.append((OPEN, header, offset))

    def _restart(self, text: str, offset: int, ids: int) -> None:
        # <|start|> inside a header: the header is abandoned, a new one begins.
        if self._length or self._sections or not (self._implied or self._prompted):
            self._unopened(START, offset)
        self._begin_header(offset, explicit=True)

    def _end_in_header(self, kind: int, text: str, offset: int, ids: int) -> None:
        if not self._sections and not self._words().strip() and (self._implied or self._prompted):
            # An end marker where no message is open.
            if self._words():
                self._issue("loose_text", self._offset, self._words())
            self._issue("stray_marker", offset, text)
        else:
            self._unopened(kind, offset)
        self._begin_header(offset + (1 if ids else len(text)), explicit=False)

    def _unopened(self, closed_by: int, offset: int) -> None:
        """A header that ends without ``<|message|>``, at a marker."""
        if len(self._sections) > 1:
            self._take_bodies_in_front(offset)
        words = self._words()
        sections = self._frozen()
        if not words.strip() and len(sections) == 1:
            if words:
                self._issue("loose_text", self._offset, words)
            elif not self._prompted:
                self._issue("stray_marker", self._offset)
            return
        header = self._read()
        if self._is_foreign(header):
            self._issue("foreign_role", self._offset, words)
        elif header.bare_call:
            self._issue("missing_message", self._offset, words)
        elif self._says_channel(header):
            self._message_behind(header, closed_by != START, offset)
        elif not words.strip():
            self._issue("missing_message", self._offset)
        elif len(sections) == 1 and is_filler(sections, self._opening):
            self._issue("filler", self._offset, words)
        else:
            words, ids = self._loose_words()
            self._loose_text(words, closed_by, self._offset, ids)

    def _says_channel(self, header: Header) -> bool:
        """Whether a header without ``<|message|>`` names a known channel: in a clause, or as role behind a start."""
        return header.known and (bool(self._sections) or (self._explicit and self._role is None))

    def _message_behind(
        self, header: Header, complete: bool | None, offset: int, target: str | None = "reasoning"
    ) -> None:
        """``<|message|>`` is missing: the words behind the channel are the body. ``complete`` None: it goes on.

        ``target``: where they go behind analysis and commentary; None: where they would with ``<|message|>``.
        """
        body = body_behind(self._frozen(), self._custom)
        behind, ids = self._spoken(body.spans)
        written = body.written or header.written
        self._issue("missing_message", self._offset)
        for code, words in header.issues:
            if code == "misspelled_channel" and words == written:
                self._issue(code, self._offset, words)
        if body.before:
            self._issue("header_words", self._offset, body.before)
        if not behind and complete is not None:
            return
        # A recipient is in the words, or nothing came for it.
        header = header._replace(channel=body.channel or header.channel, recipient=None)
        if header.channel not in ("analysis", "commentary"):
            target = "content" if header.channel == "final" else None
        # Another word that was read as the type is the body's first.
        kind = header.content_type
        if kind is not None and kind.removeprefix("<|constrain|>") not in TYPES:
            kind = None
        self._open(header._replace(target=target, content_type=kind, issues=(), written=written), self._offset)
        if behind:
            self._events.append((BODY_TEXT, behind, ids))
        if complete is not None:
            self._close(complete, offset)

    def _too_long(self, offset: int) -> None:
        self._issue("header_too_long", self._offset)
        if len(self._sections) > 1:
            self._take_bodies_in_front(offset)
        header = self._read()
        if self._is_foreign(header) or header.bare_call:
            # Not a call, nobody's text: the rest of it goes where its words go, to an issue.
            words = self._words()
            self._open(header._replace(target="issue", issues=()), self._offset)
            self._events.append((BODY_TEXT, words, 0))
        elif self._says_channel(header):
            self._message_behind(header, None, offset)
        else:
            self.state = LOOSE
            words, self._loose_ids = self._loose_words()
            self._held = [words]

    def _end_of_output(self, offset: int) -> None:
        if len(self._sections) > 1:
            self._take_bodies_in_front(offset)
        words = self._words()
        sections = self._frozen()
        if not words and len(sections) == 1:
            if self._explicit and not self._prompted:
                self._issue("incomplete_header", self._offset)
            return
        if not words.strip() and len(sections) == 1:
            self._issue("loose_text", self._offset, words)
        elif could_become_header(sections, self._opening and self._prompted, self._custom, self._declared):
            self._issue("incomplete_header", self._offset, words)
        else:
            header = self._read()
            if self._is_foreign(header):
                self._issue("foreign_role", self._offset, words)
            elif header.bare_call:
                self._issue("incomplete_header", self._offset, words)
            elif self._says_channel(header):
                self._message_behind(header, False, offset)
            else:
                words, ids = self._loose_words()
                self._loose_text(words, RETURN, self._offset, ids)

    # LOOSE

    def _loose_text(self, text: str, closed_by: int, offset: int, ids: int) -> None:
        """Loose text that has ended: what closed it tells where it goes, or that a later marker will."""
        if is_mark(text):
            if text:
                self._issue("loose_text", offset, text)
            return
        opening = self._opening
        self._message_follows()
        if closed_by == RETURN or (closed_by == START and opening):
            self._issue("loose_text", offset)
            self._emit_loose(text, "content", ids)
        else:
            self._pending.append((text, closed_by, offset, ids))

    def _message_follows(self) -> None:
        """A message begins: loose text in front of it was thought aloud, or stood between two messages."""
        self._opening = False
        for text, closed_by, offset, ids in self._pending:
            if closed_by == START:
                self._issue("loose_text", offset, text)
            else:
                self._issue("loose_text", offset)
                self._emit_loose(text, "reasoning", ids)
        self._pending.clear()

    def _emit_loose(self, text: str, target: str, ids: int) -> None:
        channel = "analysis" if target == "reasoning" else None
        self._events += [
            (OPEN, Header(channel=channel, target=target), self._offset),
            (BODY_TEXT, text, ids),
            (CLOSE, False, self._offset),
        ]

    def _more_loose(self, text: str, offset: int, ids: int) -> None:
        self._held.append(text)
        self._loose_ids += ids

    def _loose_ends(self, closed_by: int) -> None:
        self._loose_text("".join(self._held), closed_by, self._offset, self._loose_ids)
        self._held = []

    def _loose_to_start(self, text: str, offset: int, ids: int) -> None:
        self._loose_ends(START)
        self._begin_header(offset, explicit=True)

    def _loose_to_channel(self, text: str, offset: int, ids: int) -> None:
        self._loose_ends(START)
        self._begin_header(offset, explicit=False)
        self._clause(CHANNEL, offset)

    def _loose_to_constrain(self, text: str, offset: int, ids: int) -> None:
        self._loose_ends(START)
        self._begin_header(offset, explicit=False)
        self._clause(CONSTRAIN, offset)

    def _loose_to_message(self, text: str, offset: int, ids: int) -> None:
        self._loose_ends(START)
        self._begin_header(offset, explicit=False, role="assistant")
        self._open_message(text, offset, ids)

    def _end_in_loose(self, kind: int, text: str, offset: int, ids: int) -> None:
        self._loose_ends(kind)
        self._begin_header(offset + (1 if ids else len(text)), explicit=False)

    # BODY

    def _body(self, text: str, offset: int, ids: int) -> None:
        self._events.append((BODY_TEXT, text, ids))

    def _close(self, complete: bool, offset: int) -> None:
        self._events.append((CLOSE, complete, offset))

    def _end_in_body(self, kind: int, text: str, offset: int, ids: int) -> None:
        self._close(True, offset)
        self._begin_header(offset + (1 if ids else len(text)), explicit=False)

    def _start_in_body(self, text: str, offset: int, ids: int) -> None:
        # The end marker was left out.
        self._issue("missing_end", offset)
        self._close(False, offset)
        self._begin_header(offset, explicit=True)

    def _channel_in_body(self, text: str, offset: int, ids: int) -> None:
        # End and start were left out: a header of the same role, at its channel.
        assert self._header is not None
        self._issue("missing_end", offset)
        self._close(False, offset)
        self._begin_header(offset, explicit=False, role=self._header.role)
        self._clause(CHANNEL, offset)

    # Everywhere

    def _stray(self, text: str, offset: int, ids: int) -> None:
        self._issue("stray_marker", offset, text)


_Move = Callable[[Machine, str, int, int], None]


def _note(kind: int) -> _Move:
    return lambda machine, text, offset, ids: machine._issue(_NOTES[kind], offset, text)


def _end(move: Callable[[Machine, int, str, int, int], None], kind: int) -> _Move:
    return lambda machine, text, offset, ids: move(machine, kind, text, offset, ids)


def _row(**moves: Any) -> tuple[_Move, ...]:
    """One state's moves, by kind of token. ``end`` serves the three end markers."""
    end = moves.pop("end")
    by_kind: dict[int, _Move] = {getattr(kinds, name.upper()): move for name, move in moves.items()}
    by_kind |= {kind: _end(end, kind) for kind in (END, CALL, RETURN)}
    by_kind |= {kind: _note(kind) for kind in _NOTES}
    return tuple(by_kind[kind] for kind in range(len(by_kind)))


_M = Machine
_TABLE: dict[int, tuple[_Move, ...]] = {
    HEADER: _row(
        text=_M._hold,
        start=_M._restart,
        channel=_M._channel_clause,
        constrain=_M._constrain_clause,
        message=_M._open_message,
        end=_M._end_in_header,
    ),
    BODY: _row(
        text=_M._body,
        start=_M._start_in_body,
        channel=_M._channel_in_body,
        constrain=_M._stray,
        message=_M._stray,
        end=_M._end_in_body,
    ),
    LOOSE: _row(
        text=_M._more_loose,
        start=_M._loose_to_start,
        channel=_M._loose_to_channel,
        constrain=_M._loose_to_constrain,
        message=_M._loose_to_message,
        end=_M._end_in_loose,
    ),
}


class Verbatim(Machine):
    """In place of the machine where nothing is to be split: one message, in which markers are text."""

    def feed(self, tokens: Iterable[Token]) -> None:
        for kind, text, offset, ids in tokens:
            if self.state != BODY:
                self.state = BODY
                self._events.append((OPEN, Header(), 0))
            if kind in (UNKNOWN, INVALID):
                self._issue(_NOTES[kind], offset, text)
            else:
                self._events.append((BODY_TEXT, text, ids))
