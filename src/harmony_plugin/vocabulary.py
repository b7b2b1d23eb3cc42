"""Vocabulary: from a token id to its text, learnt id by id and kept.

The one place of the core that may load the Harmony library, and only when ids come without a ``decode``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .dialect import Dialect

__all__ = ["Special", "Vocabulary", "harmony_encoding", "harmony_vocabulary"]


class Special:
    """A piece that is no text: a reserved id or one that the vocabulary lacks."""

    __slots__ = ("code", "text")

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        self.text = text


class _Pieces(dict[int, "str | bytes | Special"]):
    """id -> str (whole UTF-8), bytes (a part of a character) or `Special`, decoded once."""

    def __init__(self, learn: Callable[[int], str | bytes | Special]) -> None:
        self._learn = learn

    def __missing__(self, token: int) -> str | bytes | Special:
        piece = self[token] = self._learn(token)
        return piece


class Vocabulary:
    """The pieces of one vocabulary. Share one among streams: they learn together. Safe to share among threads.

    Args:
        decode: id -> its bytes. May raise for ids it does not know: they are dropped with an issue.
        reserved: special ids that are not markers: dropped with an issue.
    """

    __slots__ = ("_decode", "_reserved", "pieces", "text")

    def __init__(self, decode: Callable[[int], bytes], dialect: Dialect | None = None) -> None:
        self._decode = decode
        self._reserved = (dialect or Dialect()).reserved
        #: Learnt pieces by id, of every sort.
        self.pieces = _Pieces(self._learn)
        #: Those of them that are whole text: the fast path's table.
        self.text: dict[int, str] = {}

    def _learn(self, token: int) -> str | bytes | Special:
        if not hasattr(token, "__index__"):
            raise TypeError(f"token ids are integers, not {type(token).__name__}")
        try:
            data = self._decode(int(token))
        except Exception:  # any decoder, any error: the id is not of this vocabulary
            return Special("unknown_token", str(int(token)))
        if token in self._reserved:
            return Special("reserved_token", data.decode("utf-8", "replace"))
        try:
            piece = data.decode("utf-8")
        except UnicodeDecodeError:
            return data
        self.text[token] = piece
        return piece


@functools.lru_cache(maxsize=1)
def harmony_encoding() -> Any:
    """The Harmony library's encoding for gpt-oss, loaded once.

    Raises:
        ImportError: no Harmony library is installed, or it cannot load its vocabulary.
    """
    try:
        import openai_harmony
    except ImportError as error:
        raise ImportError(
            "token ids need the Harmony library's vocabulary: pip install 'harmony-plugin[harmony]', "
            "or pass decode= (a function from a token id to its bytes)"
        ) from error
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
    size = 201088

    def decode(token: int) -> bytes:
        if not 0 <= token < size:
            raise KeyError(token)
        return decode_bytes([token])

    return Vocabulary(decode, dialect)
