"""The o200k_harmony vocabulary as the fuzzers see it, straight from the Harmony library.

Must not import the code under test: what ids mean is told here a second time, on purpose.
"""

from __future__ import annotations

import functools
from typing import Any

import openai_harmony

MARKERS = {
    "start": 200006,
    "end": 200007,
    "message": 200008,
    "channel": 200005,
    "constrain": 200003,
    "return": 200002,
    "call": 200012,
    "endoftext": 199999,
}
KINDS = tuple(MARKERS)
KIND_OF = {token: kind for kind, token in MARKERS.items()}
SPELLED = {kind: f"<|{kind}|>" for kind in KINDS}
#: Ordinary tokens are below; special ids are from here up to `SIZE`.
SPECIAL, SIZE = 199998, 201088


@functools.lru_cache(maxsize=1)
def encoding() -> Any:
    return openai_harmony.load_harmony_encoding(openai_harmony.HarmonyEncodingName.HARMONY_GPT_OSS)


@functools.lru_cache(maxsize=1 << 16)
def piece(token: int) -> bytes | None:
    """The bytes of an id; None where the vocabulary has no such id."""
    if not 0 <= token < SIZE:
        return None
    try:
        return bytes(encoding()._inner.decode_bytes([token]))
    except Exception:
        return None


@functools.lru_cache(maxsize=1)
def byte_tokens() -> tuple[int, ...]:
    """The id of each single byte, so that any text can be cut anywhere."""
    found: dict[bytes, int] = {}
    for token in range(512):
        data = piece(token)
        if data is not None and len(data) == 1:
            found[data] = token
    return tuple(found[bytes([value])] for value in range(256))


@functools.lru_cache(maxsize=1 << 14)
def encode(text: str) -> tuple[int, ...]:
    """Ordinary ids of a text, whatever it spells."""
    return tuple(encoding().encode(text, disallowed_special=()))
