"""Mutation fuzzing (SPEC promises 1 to 4): valid transcripts, broken on purpose.

Markers dropped, doubled, swapped, moved, cut; header words scrambled; tokens replaced at random, reserved ids and ids
out of range included; bodies and headers inked with words of their own (see `promises`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from harmony_plugin import Options

from . import grammar
from .promises import Broken, check
from .transcript import Piece, from_raw, marker, text, to_ids, to_text
from .vocabulary import KINDS, SIZE, SPECIAL, encoding

CASES = Path(__file__).parent.parent / "tests" / "cases" / "split.jsonl"
_HEADER_WORDS = (
    "assistant",
    "analysis",
    "commentary",
    "final",
    "user",
    "tool",
    " to=functions.search",
    " to=functions",
    " to=",
    "to=python",
    " to=browser.open",
    " to=assistant",
    " to=all",
    " to=srv.get",
    " to=undeclared",
    "functions.search",
    "functions.search to=assistant",
    " json",
    " code",
    "json",
    "thinking",
    "finel",
    "comment",
    "–",
    "??",
    " ",
    "\n",
    "\n\n",
    "{}",
    '{"a": 1}',
    "</assistant",
    "assistantassistant",
    "assistantfinal",
    "get_weather",
    "search",
    "my channel",
    "side",
)
_PROMPTS: tuple[str | None, ...] = (
    None,
    None,
    None,
    None,
    "<|start|>system<|message|>be good<|end|><|start|>assistant",
    "<|start|>assistant<|channel|>final<|message|>",
    "<|start|>assistant<|channel|>analysis<|message|>",
    "<|start|>assistant<|channel|>",
    "<|start|>assistant<|channel|>commentary to=functions.search",
    "<|start|>assistant<|channel|>commentary to=functions.search <|constrain|>json<|message|>{",
    "<|start|>assistant<|channel|>analysis",
    "<|start|>",
    "no marker at all",
)
_TOOLS: tuple[tuple[str, ...] | None, ...] = (
    None,
    None,
    (),
    ("search", "get_weather"),
    ("srv.get", "search", "assistant", "json", "a b"),
    ("python", "browser.open"),
)
_OPTIONS = (
    *[Options()] * 4,
    Options(commentary="reasoning"),
    Options(commentary="drop", channels={"side": "reasoning", "my": "content", "analysis": "reasoning"}),
    Options(builtin_tools="tool_calls"),
    Options(tool_choice="none"),
    Options(arguments="repair"),
)


def seeds() -> list[list[Piece]]:
    """The cases of tests/, as pieces."""
    return [from_raw(json.loads(line)["raw"]) for line in CASES.read_text(encoding="utf-8").splitlines()]


_SEEDS: list[list[Piece]] = []


class Ink:
    """Unique words. A digit in front, so that none is taken for the end of a misspelled channel that it is glued to."""

    def __init__(self) -> None:
        self.used = 0

    def __call__(self) -> str:
        self.used += 1
        return f"0Q{self.used}Z"


def _inked(pieces: Sequence[Piece], random: Random, ink: Ink) -> list[Piece]:
    """Pieces with unique words in their bodies, sometimes in their headers, each a piece of its own."""
    out: list[Piece] = []
    body = False
    for kind, value in pieces:
        if kind == "marker":
            body = value == "message" or (body and value == "constrain")
            out.append((kind, value))
            if body and random.random() < 0.9:
                out += [text(f" {ink()}" if random.random() < 0.8 else ink()) for _ in range(random.randint(1, 4))]
        elif body:
            out += from_raw(str(value)) if random.random() < 0.5 else [(kind, value)]
            if random.random() < 0.5:
                out.append(text(f" {ink()}"))
        else:
            out.append((kind, value))
            if random.random() < 0.05:
                out.append(text(f" {ink()}"))
    return out


def _token(random: Random) -> Piece:
    style = random.random()
    if style < 0.4:
        return ("id", random.randrange(SPECIAL))
    if style < 0.6:
        return marker(random.choice(KINDS))
    if style < 0.8:
        return ("id", random.choice((SPECIAL, 200000, 200001, 200004, 200009, 200011, 200013, 201000, SIZE - 1)))
    if style < 0.9:
        return ("id", random.choice((SIZE, SIZE + 7, 1 << 20, 1 << 31, 1 << 40, 1 << 63, 1 << 70, -1, -5, -(1 << 40))))
    return ("id", random.randrange(256))  # single bytes: half a character at best


def _marker(out: list[Piece], place: int, places: Sequence[int], style: int, random: Random) -> None:
    """A marker dropped, doubled, swapped, moved, cut or replaced."""
    if style == 0:
        del out[place]
    elif style == 1:
        out.insert(place, out[place])
    elif style == 2:
        other = random.choice(places)
        out[place], out[other] = out[other], out[place]
    elif style == 3:
        out.insert(random.randint(0, len(out)), out.pop(place))
    elif style == 4:
        spelled = to_text([out[place]])
        cut = random.randint(1, len(spelled) - 1)
        out[place] = text(spelled[:cut] if random.random() < 0.5 else spelled[cut:])
    else:
        out[place] = marker(random.choice(KINDS))


def _scramble(out: list[Piece], random: Random) -> None:
    """A header's words in another order, some of them gone."""
    starts = [n for n in range(len(out)) if out[n] in (marker("start"), marker("channel"))]
    if not starts:
        return
    begin = random.choice(starts) + 1
    end = next((n for n in range(begin, len(out)) if out[n] == marker("message")), len(out))
    header = out[begin:end]
    words = [part for piece in header for part in (from_raw(str(piece[1])) if piece[0] == "text" else [piece])]
    random.shuffle(words)
    if random.random() < 0.3:
        words = words[: random.randint(0, len(words))]
    out[begin:end] = words


def _repeat(out: list[Piece], random: Random) -> None:
    begin = random.randint(0, len(out))
    part = out[begin : begin + random.randint(1, 6)]
    place = random.randint(0, len(out))
    out[place:place] = part


def _lengthen(out: list[Piece], random: Random, ink: Ink) -> None:
    """Words around the longest header there may be."""
    size = random.choice((490, 500, 505, 509, 510, 511, 512, 513, 514, 520, 900))
    filler = random.choice(("x", "x ", "é", "\U0001f980", " "))
    words = (filler * size)[: size - random.randint(0, 12)]
    where = [n + 1 for n in range(len(out)) if out[n] in (marker("start"), marker("channel"), marker("end"))]
    place = random.choice(where) if where else 0
    out[place:place] = [text(ink()), text(words), text(f" {ink()} {ink()}")]


def mutate(pieces: list[Piece], random: Random, ink: Ink) -> list[Piece]:
    """One mutation."""
    out = list(pieces)
    places = [n for n, piece in enumerate(out) if piece[0] == "marker"]
    style = random.randrange(14)
    if style < 6 and places:
        _marker(out, random.choice(places), places, style, random)
    elif style == 6:
        out.insert(random.randint(0, len(out)), text(random.choice(_HEADER_WORDS)))
    elif style == 7:
        _scramble(out, random)
    elif style == 8:
        out.insert(random.randint(0, len(out)), _token(random))
    elif style == 9 and out:
        out[random.randrange(len(out))] = _token(random)
    elif style == 10:
        del out[random.randint(0, len(out)) :]
    elif style == 11:
        del out[: random.randint(0, len(out))]
    elif style == 12:
        _repeat(out, random)
    else:
        _lengthen(out, random, ink)
    return out


def generate(random: Random) -> tuple[list[Piece], Ink]:
    """A mutated transcript."""
    if not _SEEDS:
        _SEEDS.extend(seeds())
    ink = Ink()
    if random.random() < 0.4:
        pieces = list(random.choice(_SEEDS))
    else:
        pieces = [
            piece for message in grammar.reply(random, random.choice((4, 20, 60)))[:12] for piece in message.pieces
        ]
    pieces = _inked(pieces, random, ink)
    for _ in range(random.choice((0, 1, 1, 2, 3, 5, 12))):
        pieces = mutate(pieces, random, ink)
    return pieces, ink


def setting(random: Random) -> dict[str, Any]:
    """A prompt, tools and options."""
    return {
        "prompt": random.choice(_PROMPTS),
        "tools": random.choice(_TOOLS),
        "options": random.choice(_OPTIONS),
    }


def try_pieces(pieces: Sequence[Piece], seed: int, as_text: bool, settings: dict[str, Any]) -> tuple[int, str | None]:
    """How long the output is, and which promise it breaks, if any."""
    random = Random(seed)
    output: str | list[int] = to_text(pieces) if as_text else to_ids(pieces, random)
    if not as_text and settings["prompt"] is not None:
        settings = {**settings, "prompt": encoding().encode(settings["prompt"], allowed_special="all")}
    try:
        check(output, random, **settings)
    except Broken as error:
        return len(output), str(error)
    except Exception as error:
        return len(output), f"total: {type(error).__name__}: {error}"
    return len(output), None


def check_seed(seed: int) -> tuple[int, str | None]:
    """One mutated transcript by ids or by text: how many tokens it has, and what broke, shrunk."""
    random = Random(seed)
    pieces, _ = generate(random)
    settings = setting(random)
    as_text = random.random() < 0.4
    size, broken = try_pieces(pieces, seed, as_text, settings)
    tokens = size if not as_text else len(to_ids(pieces))
    if broken is None:
        return tokens, None
    return tokens, report(pieces, seed, as_text, settings)


def report(pieces: Sequence[Piece], seed: int, as_text: bool, settings: dict[str, Any]) -> str:
    """What an output breaks, with the least of it that does."""
    _, broken = try_pieces(pieces, seed, as_text, settings)
    if broken is None:
        return "nothing"
    small, broken = shrink(pieces, seed, as_text, settings, broken)
    given: object = to_text(small) if as_text else small
    options = {
        field.name: getattr(settings["options"], field.name)
        for field in dataclasses.fields(Options)
        if getattr(settings["options"], field.name) != getattr(Options(), field.name)
    }
    asked = f"prompt={settings['prompt']!r}, tools={settings['tools']!r}, Options({options})"
    return f"{broken}\n    {'text' if as_text else 'ids'} {given!r}\n    {asked}"


def shrink(
    pieces: Sequence[Piece], seed: int, as_text: bool, settings: dict[str, Any], broken: str
) -> tuple[list[Piece], str]:
    """Fewer pieces that break the same promise."""
    small = list(pieces)
    promise = broken.partition(":")[0]
    size = max(1, len(small) // 2)
    while size:
        place = 0
        while place < len(small):
            less = small[:place] + small[place + size :]
            # Chunks are drawn from the seed: a few tries each.
            for attempt in range(seed, seed + 12):
                _, now = try_pieces(less, attempt, as_text, settings)
                if now is not None and now.partition(":")[0] == promise:
                    small, broken = less, now
                    break
            else:
                place += size
        size //= 2
    return small, broken
