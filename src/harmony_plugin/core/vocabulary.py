"""Vocabulary: from a token id to its text, learnt id by id and kept.

The one place of the core that may load the Harmony library, and only when ids come without a ``decode``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from operator import index
from typing import Any

from .dialect import Dialect
from .tokens import KIND_OF, RESERVED, UNKNOWN, VOCABULARY_SIZE

__all__ = [
    "MARK",
    "Special",
    "Vocabulary",
    "harmony_encoding",
    "harmony_library",
    "harmony_vocabulary",
    "vocabulary_of",
]


class Special:
    """A piece that is no text: a reserved id or one that the vocabulary lacks, by its kind of token."""

    __slots__ = ("kind", "text")

    def __init__(self, kind: int, text: str) -> None:
        self.kind = kind
        self.text = text


# Ids up to here get a place in the table; larger ones (there are none) are decoded each time.
_LARGEST = 1 << 20

#: Stands in front of a marker's number among joined pieces. NUL, so that ASCII stays ASCII, which is joined and split
#: fastest; pieces that hold one themselves are not joined.
MARK = "\x00"


class Vocabulary:
    """The pieces of one vocabulary. Share one among streams: they learn together. Safe to share among threads.

    Args:
        decode: id -> its bytes. May raise for ids it does not know: they are dropped with an issue.
        dialect: the markers, and the special ids that are none; gpt-oss's own by default.
    """

    __slots__ = ("_decode", "_reserved", "by_id", "dialect", "markers", "table", "text")

    def __init__(self, decode: Callable[[int], bytes], dialect: Dialect | None = None) -> None:
        self._decode = decode
        self.dialect = dialect = dialect or Dialect()
        self._reserved = dialect.reserved
        #: ``(id, spelling, kind of token)`` of every marker, and the same by id.
        self.markers = [(token, dialect.markers[name], KIND_OF[name]) for name, token in dialect.ids.items()]
        self.by_id = {marker[0]: marker for marker in self.markers}
        #: Learnt ids whose piece is whole text.
        self.text: dict[int, str] = {}
        #: Pieces by id, to be joined: text, a part of a character with its bytes as surrogates (PEP 383), or `MARK` and
        #: the marker's number. None for all else. The upper half is empty: a negative id indexes from the end.
        self.table: list[str | None] = []
        for number, (token, _, _) in enumerate(self.markers):
            self._keep(token, MARK + chr(number + 1))

    def _keep(self, token: int, piece: str) -> None:
        if 0 <= token < _LARGEST:
            half = len(self.table) // 2
            if token >= half:
                size = 1 << max(token.bit_length(), 10)
                self.table = [*self.table[:half], *[None] * (2 * size - half)]
            self.table[token] = piece

    def piece(self, token: int) -> str | bytes | Special:
        """What an id stands for: text, a part of a character, or nothing that is text.

        Raises:
            TypeError: ``token`` is no integer.
        """
        token = index(token)
        known = self.text.get(token)
        if known is not None:
            return known
        try:
            data = self._decode(token)
        except Exception:  # any decoder, any error: the id is not of this vocabulary
            return Special(UNKNOWN, str(token))
        if token in self._reserved:
            return Special(RESERVED, data.decode("utf-8", "replace"))
        try:
            piece = data.decode("utf-8")
        except UnicodeDecodeError:
            if b"\0" not in data:
                self._keep(token, data.decode("utf-8", "surrogateescape"))
            return data
        if piece:  # an id without text is nothing to give out
            self.text[token] = piece
        if MARK not in piece:
            self._keep(token, piece)
        return piece


@functools.lru_cache(maxsize=8)
def vocabulary_of(decode: Callable[[int], bytes], dialect: Dialect) -> Vocabulary:
    """The vocabulary of a decoder, so that streams that are given the same one learn together."""
    return Vocabulary(decode, dialect)


def harmony_library() -> Any:
    """The Harmony library, whichever distribution has it. It is imported here and nowhere else.

    Raises:
        ImportError: there is none.
    """
    try:
        import openai_harmony
    except ImportError as error:
        raise ImportError(
            "prompts and token ids need the Harmony library: pip install 'harmony-plugin[harmony]' (or any "
            "distribution of openai_harmony); to split ids without it, pass decode= (from a token id to its bytes)"
        ) from error
    return openai_harmony


@functools.lru_cache(maxsize=1)
def harmony_encoding() -> Any:
    """The Harmony library's encoding for gpt-oss, loaded once.

    Raises:
        ImportError: no Harmony library is installed, or it cannot load its vocabulary.
    """
    openai_harmony = harmony_library()
    try:
        return openai_harmony.load_harmony_encoding(openai_harmony.HarmonyEncodingName.HARMONY_GPT_OSS)
    except Exception as error:
        raise ImportError(
            f"the Harmony library could not load its vocabulary ({error}): openai-harmony downloads it at first use; "
            "oss-harmony has it embedded (pip uninstall openai-harmony && pip install oss-harmony)"
        ) from error


@functools.lru_cache(maxsize=4)
def harmony_vocabulary(dialect: Dialect) -> Vocabulary:
    """The o200k_harmony vocabulary, from the Harmony library."""
    inner = getattr(harmony_encoding(), "_inner", None)
    decode_bytes: Callable[[list[int]], bytes] | None = getattr(inner, "decode_bytes", None)
    if decode_bytes is None:
        raise ImportError(
            "this openai_harmony has no decode_bytes; known to work: oss-harmony 0.0.11, openai-harmony 0.0.8"
        )

    def decode(token: int) -> bytes:
        if not 0 <= token < VOCABULARY_SIZE:
            raise KeyError(token)
        return decode_bytes([token])

    return Vocabulary(decode, dialect)
