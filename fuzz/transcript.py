"""Transcripts as lists of pieces, and what the fuzzers turn them into: token ids or text.

A piece is ``("marker", kind)``, ``("text", str)`` or ``("id", int)``: one raw token id, special, out of range or not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from .vocabulary import MARKERS, SPELLED, byte_tokens, encode, piece

Piece = tuple[str, "str | int"]
MARKER = re.compile("|".join(map(re.escape, SPELLED.values())))
_KIND = {text: kind for kind, text in SPELLED.items()}


def marker(kind: str) -> Piece:
    return ("marker", kind)


def text(words: str) -> Piece:
    return ("text", words)


def to_ids(pieces: Sequence[Piece], random: Random | None = None) -> list[int]:
    """The ids of a transcript. With ``random``, text is cut into tokens anywhere, inside characters, too."""
    ids: list[int] = []
    for kind, value in pieces:
        if kind == "marker":
            ids.append(MARKERS[str(value)])
        elif kind == "id":
            ids.append(int(value))
        elif random is None or random.random() < 0.8:
            ids += encode(str(value))
        else:
            ids += _odd_tokens(str(value), random)
    return ids


def _odd_tokens(words: str, random: Random) -> list[int]:
    """Ids that spell the text, but not the ones that a tokenizer would choose."""
    ids: list[int] = []
    place = 0
    while place < len(words):
        end = place + random.choice((1, 2, 3, 5, 8))
        part = words[place:end]
        if random.random() < 0.5:
            ids += [byte_tokens()[value] for value in part.encode()]
        else:
            ids += encode(part)
        place = end
    return ids


def to_text(pieces: Sequence[Piece]) -> str:
    """The text of a transcript, markers spelled out."""
    out: list[str] = []
    for kind, value in pieces:
        if kind == "marker":
            out.append(SPELLED[str(value)])
        elif kind == "text":
            out.append(str(value))
        else:
            data = piece(int(value))
            out.append("" if data is None else data.decode("utf-8", "replace"))
    return "".join(out)


def from_raw(raw: str) -> list[Piece]:
    """The pieces of a transcript that is written as text, words apart so that mutations can take them one by one."""
    pieces: list[Piece] = []
    place = 0
    for match in MARKER.finditer(raw):
        pieces += [text(word) for word in re.findall(r"\s*\S+|\s+$", raw[place : match.start()])]
        pieces.append(marker(_KIND[match.group()]))
        place = match.end()
    return pieces + [text(word) for word in re.findall(r"\s*\S+|\s+$", raw[place:])]


def cuts(size: int, random: Random) -> list[int]:
    """Places to cut a sequence at: 0 first, ``size`` last, some chunks empty."""
    style = random.random()
    if style < 0.25:
        return list(range(size + 1)) if size else [0, 0]
    if style < 0.5:
        place = random.randint(0, size)
        return [0, place, size]
    longest = random.choice((2, 3, 7, 30, 200))
    places = [0]
    while places[-1] < size:
        places.append(min(size, places[-1] + random.randint(0 if random.random() < 0.1 else 1, longest)))
    return places if len(places) > 1 else [0, 0]
