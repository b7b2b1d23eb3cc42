"""Lexer: token ids or text in, markers and text runs out.

Knows the dialect and UTF-8; knows nothing of headers or messages. SPEC section 2.
"""

from __future__ import annotations

import codecs
import functools
import re
from collections.abc import Iterator, Sequence
from operator import itemgetter

from .dialect import Dialect
from .tokens import INVALID, KIND_OF, TEXT, Token
from .vocabulary import MARK, Special, Vocabulary

__all__ = ["IdLexer", "TextLexer"]


class IdLexer:
    """Token ids in. Only marker ids are markers; a character cut across ids is held until whole."""

    __slots__ = ("_carried", "_chunk", "_held", "_pending", "offset", "vocabulary")

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        # The bytes of a character that is not whole yet, and where it began.
        self._held = b""
        self._pending = 0
        # The chunk being read, and the bytes held when it came: see apart().
        self._chunk: Sequence[int] = ()
        self._carried = b""
        #: How many ids have been read.
        self.offset = 0

    @property
    def holding(self) -> bool:
        """Whether bytes of an unfinished character are held."""
        return bool(self._held)

    def feed(self, ids: Sequence[int]) -> list[Token]:
        base = self.offset
        self._chunk, self._carried = ids, self._held
        tokens: list[Token] = []
        try:
            # One pass for all: the table's pieces mark markers with NUL and loose bytes with surrogates.
            # itemgetter: the quickest way to take many; of one it makes no tuple.
            table = self.vocabulary.table
            pieces = itemgetter(*ids)(table) if len(ids) > 1 else (table[ids[0]],)
            parts = "".join(pieces).split(MARK)  # type: ignore[arg-type]
        except (TypeError, IndexError):
            # An id that is new, reserved, or none at all: one by one tells.
            self._one_by_one(ids, base, tokens)
            self.offset = base + len(ids)
            return tokens
        begin = 0
        text = parts[0]
        if len(parts) > 1:
            find = ids.index if isinstance(ids, (list, tuple)) else list(ids).index
            markers = self.vocabulary.markers
            for part in parts[1:]:
                marker, spelled, kind = markers[ord(part[0]) - 1]
                place = find(marker, begin)
                if place > begin:
                    self._run(text, ids, begin, place, base, tokens)
                if self._held:
                    self._flush(tokens)
                tokens.append((kind, spelled, base + place, 1))
                begin = place + 1
                text = part[1:]
        if begin < len(ids):
            self._run(text, ids, begin, len(ids), base, tokens)
        self.offset = base + len(ids)
        return tokens

    def apart(self, offset: int, count: int) -> Iterator[tuple[str, int]]:
        """A text run of the chunk fed last, id by id: what each adds to the text, and its offset."""
        first = self.offset - len(self._chunk)
        decoder = codecs.getincrementaldecoder("utf-8")()
        if offset == first:
            decoder.decode(self._carried)
        for place in range(offset, offset + count):
            piece = self.vocabulary.piece(self._chunk[place - first])
            yield decoder.decode(piece.encode() if isinstance(piece, str) else piece), place  # type: ignore[arg-type]

    def finish(self) -> list[Token]:
        tokens: list[Token] = []
        if self._held:
            self._flush(tokens)
        return tokens

    def _run(self, text: str, ids: Sequence[int], begin: int, end: int, base: int, tokens: list[Token]) -> None:
        """Text ids: ``ids[begin:end]``, no marker among them; ``text`` is their pieces joined."""
        if self._held or not (text.isascii() or _is_whole(text)):
            data = self._held + text.encode("utf-8", "surrogateescape")
            try:
                text, done = codecs.utf_8_decode(data, "strict", False)
            except UnicodeDecodeError:
                self._one_by_one(ids[begin:end], base + begin, tokens)
                return
            # Where the unfinished character began, should it never become one.
            left, place = len(data) - done, end
            while left > 0 and place > begin:
                place -= 1
                piece = self.vocabulary.piece(ids[place])
                left -= len(piece.encode() if isinstance(piece, str) else piece)  # type: ignore[arg-type]
            if place < end and left <= 0:
                self._pending = base + place
            self._held = data[done:]
        tokens.append((TEXT, text, base + begin, end - begin))

    def _one_by_one(self, ids: Sequence[int], base: int, tokens: list[Token]) -> None:
        markers = self.vocabulary.by_id
        for place, token in enumerate(ids, base):
            if token in markers:
                if self._held:
                    self._flush(tokens)
                _, spelled, kind = markers[token]
                tokens.append((kind, spelled, place, 1))
                continue
            piece = self.vocabulary.piece(token)
            if isinstance(piece, Special):
                tokens.append((piece.kind, piece.text, place, 1))
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


def _is_whole(text: str) -> bool:
    """Whether joined pieces hold no loose bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@functools.lru_cache(maxsize=64)
def _text_table(dialect: Dialect) -> tuple[re.Pattern[str], dict[str, int], frozenset[str], int]:
    table = {text: KIND_OF[name] for name, text in dialect.markers.items()}
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
