"""Lexer: token ids or text in, markers and text runs out.

Knows the dialect and UTF-8; knows nothing of headers or messages. SPEC section 2.
A token is ``(kind, text, offset, ids)``: the kind, its text (a marker's spelling), where it began in the output (in ids
or characters) and how many ids it took (0 for text input).
"""

from __future__ import annotations

import codecs
import functools
import re
from collections.abc import Callable, Sequence
from operator import index

from .dialect import Dialect
from .vocabulary import Special, Vocabulary

__all__ = [
    "CALL",
    "CHANNEL",
    "CONSTRAIN",
    "END",
    "INVALID",
    "MESSAGE",
    "RESERVED",
    "RETURN",
    "START",
    "TEXT",
    "UNKNOWN",
    "IdLexer",
    "TextLexer",
    "Token",
]

#: Kinds of token. The last three are nothing for the message: a reserved id, an unknown id, bytes that are not UTF-8.
TEXT, START, MESSAGE, CHANNEL, CONSTRAIN, END, CALL, RETURN, RESERVED, UNKNOWN, INVALID = range(11)

_SPECIAL = {"reserved_token": RESERVED, "unknown_token": UNKNOWN}

_KIND = {
    "start": START,
    "message": MESSAGE,
    "channel": CHANNEL,
    "constrain": CONSTRAIN,
    "end": END,
    "call": CALL,
    "return": RETURN,
    "endoftext": RETURN,
}

Token = tuple[int, str, int, int]

# Ids are searched for markers in blocks: one C call clears a block that has none.
_BLOCK = 256


@functools.lru_cache(maxsize=64)
def _id_table(dialect: Dialect) -> tuple[dict[int, tuple[int, str]], Callable[[Sequence[int]], bool]]:
    table = {token: (_KIND[kind], dialect.markers[kind]) for kind, token in dialect.ids.items()}
    return table, frozenset(table).isdisjoint


class IdLexer:
    """Token ids in. Only marker ids are markers; a character cut across ids is held until whole."""

    __slots__ = ("_held", "_isdisjoint", "_markers", "_pending", "_vocabulary", "offset")

    def __init__(self, dialect: Dialect, vocabulary: Vocabulary) -> None:
        self._markers, self._isdisjoint = _id_table(dialect)
        self._vocabulary = vocabulary
        # The bytes of a character that is not whole yet, and where it began.
        self._held = b""
        self._pending = 0
        #: How many ids have been read.
        self.offset = 0

    @property
    def holding(self) -> bool:
        """Whether bytes of an unfinished character are held."""
        return bool(self._held)

    def feed(self, ids: Sequence[int]) -> list[Token]:
        tokens: list[Token] = []
        markers = self._markers
        base = self.offset
        begin = 0
        size = len(ids)
        for block in range(0, size, _BLOCK):
            part = ids[block : block + _BLOCK] if size > _BLOCK else ids
            if self._isdisjoint(part):
                continue
            for place, token in enumerate(part, block):
                if token in markers:
                    if place > begin:
                        self._run(ids[begin:place], base + begin, tokens)
                    if self._held:
                        self._flush(tokens)
                    kind, text = markers[token]
                    tokens.append((kind, text, base + place, 1))
                    begin = place + 1
        if begin < size:
            self._run(ids[begin:] if begin else ids, base + begin, tokens)
        self.offset = base + size
        return tokens

    def finish(self) -> list[Token]:
        tokens: list[Token] = []
        if self._held:
            self._flush(tokens)
        return tokens

    def _run(self, ids: Sequence[int], offset: int, tokens: list[Token]) -> None:
        """Text ids, no marker among them."""
        if not self._held:
            try:
                tokens.append((TEXT, "".join(map(self._vocabulary.pieces.__getitem__, ids)), offset, len(ids)))  # type: ignore[arg-type]
                return
            except TypeError:  # a piece is no whole text, or an id no integer: one by one tells which
                pass
        for place, token in enumerate(ids, offset):
            index(token)
            piece = self._vocabulary.pieces[token]
            if isinstance(piece, Special):
                tokens.append((_SPECIAL[piece.code], piece.text, place, 1))
            elif not self._held and isinstance(piece, str):
                tokens.append((TEXT, piece, place, 1))
            else:
                self._bytes(piece.encode() if isinstance(piece, str) else piece, place, tokens)

    def _bytes(self, data: bytes, place: int, tokens: list[Token]) -> None:
        if not self._held:
            self._pending = place
        data = self._held + data
        try:
            text, done = codecs.utf_8_decode(data, "strict", False)
        except UnicodeDecodeError:
            # Bytes that can never become a character: U+FFFD, at the place where they stood.
            tokens.append((INVALID, "", self._pending, 0))
            text, done = codecs.utf_8_decode(data, "replace", False)
        tokens.append((TEXT, text, place, 1))
        self._held = data[done:]
        if done:
            self._pending = place

    def _flush(self, tokens: list[Token]) -> None:
        tokens.append((INVALID, "", self._pending, 0))
        tokens.append((TEXT, self._held.decode("utf-8", "replace"), self._pending, 0))
        self._held = b""


@functools.lru_cache(maxsize=64)
def _text_table(dialect: Dialect) -> tuple[re.Pattern[str], dict[str, int], frozenset[str], int]:
    table = {text: _KIND[kind] for kind, text in dialect.markers.items()}
    words = list(table)
    # A common beginning in front of the choice lets the search skip to it.
    shared = next(n for n in range(min(map(len, words)), -1, -1) if len({word[:n] for word in words}) == 1)
    choice = "|".join(re.escape(word[shared:]) for word in sorted(words, key=len, reverse=True))
    pattern = re.compile(f"{re.escape(words[0][:shared])}(?:{choice})")
    begun = frozenset(word[:n] for word in words for n in range(1, len(word)))
    return pattern, table, begun, max(map(len, words))


class TextLexer:
    """Text in. The marker strings are markers wherever they stand; what may still become one is held."""

    __slots__ = ("_begun", "_held", "_longest", "_pattern", "_table", "offset")

    def __init__(self, dialect: Dialect) -> None:
        self._pattern, self._table, self._begun, self._longest = _text_table(dialect)
        self._held = ""
        #: How many characters have been read and given out.
        self.offset = 0

    @property
    def holding(self) -> bool:
        """Whether the beginning of a marker is held."""
        return bool(self._held)

    def feed(self, text: str) -> list[Token]:
        if self._held:
            text = self._held + text
        tokens: list[Token] = []
        base = self.offset
        begin = 0
        for match in self._pattern.finditer(text):
            place = match.start()
            if place > begin:
                tokens.append((TEXT, text[begin:place], base + begin, 0))
            spelled = match.group()
            tokens.append((self._table[spelled], spelled, base + place, 0))
            begin = match.end()
        size = len(text)
        end = size
        for place in range(max(begin, size - self._longest + 1), size):
            if text[place:] in self._begun:
                end = place
                break
        if end > begin:
            tokens.append((TEXT, text[begin:end] if begin or end < size else text, base + begin, 0))
        self._held = text[end:]
        self.offset = base + end
        return tokens

    def finish(self) -> list[Token]:
        held, self._held = self._held, ""
        offset = self.offset
        self.offset += len(held)
        return [(TEXT, held, offset, 0)] if held else []
