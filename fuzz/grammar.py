"""Well-formed Harmony from a grammar (SPEC section 3), and the messages it stands for.

Any number of messages, both recipient places, every form of content type, Unicode of every plane, empty bodies.
"""

from __future__ import annotations

import json
from random import Random
from typing import NamedTuple

from .transcript import Piece, marker, text

_PLANES = [
    (0x20, 0x7E, 60),
    (0x00, 0x1F, 3),
    (0x7F, 0x24F, 6),
    (0x300, 0x36F, 2),
    (0x370, 0x1FFF, 6),
    (0x2000, 0x206F, 2),
    (0x2070, 0xD7FF, 8),
    (0xE000, 0xFFFF, 3),
    (0x10000, 0x1FFFF, 6),
    (0x20000, 0x3FFFF, 2),
    (0x40000, 0xDFFFF, 1),
    (0xE0000, 0xEFFFF, 1),
    (0xF0000, 0x10FFFF, 1),
]
_RANGES = [(low, high) for low, high, _ in _PLANES]
_WEIGHTS = [weight for _, _, weight in _PLANES]
_WORDS = (
    *("the", "call", "returns", "weather", "in", "Paris,", "and", "so", "on:", "we", "should", "answer."),
    *("München", "東京", "is", "21", "°C", "\U0001f980", "\U0001f469\u200d\U0001f469\u200d\U0001f467", "naïve"),
)
_LOOKALIKES = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>", "<|return|>", "<|", "|>", "<|end", "�")
_NAMES = (
    "get_weather",
    "search",
    "noop",
    "a",
    "db.query",
    "x-y",
    "ns/run:now",
    "获取天气",
    "поиск_1",
    "ünï",
    "ति",
    "x" * 60,
)
_FREE = ("python", "browser.search", "browser.open", "container.exec", "ms_output", "srv.tool", "python_2", "wiki/get")


class WellFormed(NamedTuple):
    """One message of a well-formed reply: what stands for it, and what it is."""

    pieces: tuple[Piece, ...]
    role: str
    channel: str | None
    recipient: str | None
    content_type: str | None
    body: str
    author: str = ""


def body(random: Random, longest: int = 60) -> str:
    """Text of any kind, empty included."""
    style = random.random()
    if style < 0.08:
        return ""
    size = random.randint(1, longest)
    if style < 0.45:
        return " ".join(random.choice(_WORDS) for _ in range(size))
    if style < 0.6:
        value = {random.choice(_WORDS): [random.choice(_WORDS), random.random(), None] for _ in range(size // 8)}
        return json.dumps(value, ensure_ascii=random.random() < 0.5, indent=random.choice((None, 2)))
    if style < 0.7:
        return "".join(random.choice((*_LOOKALIKES, random.choice(_WORDS), " ")) for _ in range(size // 4 + 1))
    if style < 0.75:
        return random.choice((" ", "\n", "\t\r\n", " ", "  \n  "))
    ranges = random.choices(_RANGES, _WEIGHTS, k=size)
    return "".join(chr(random.randint(low, high)) for low, high in ranges)


def recipient(random: Random) -> str:
    style = random.random()
    if style < 0.7:
        return "functions." + random.choice(_NAMES)
    return random.choice(_FREE) if style < 0.9 else random.choice(("assistant", "all"))


def _role(random: Random) -> tuple[str, str]:
    """A role, and the words that say it: a tool's are its name."""
    style = random.random()
    if style < 0.9:
        return "assistant", "assistant"
    if style < 0.95:
        role = random.choice(("user", "system", "developer"))
        return role, role
    return "tool", "functions." + random.choice(_NAMES)


def message(random: Random, first: bool, last: bool, longest: int = 60) -> WellFormed:
    """One well-formed message. The first goes on from a prompt that ends in ``<|start|>assistant``."""
    pieces: list[Piece] = []
    kind = channel = None
    role, words = "assistant", ""
    if not first:
        pieces.append(marker("start"))
        role, words = _role(random)
    author, to = (words, "assistant") if role == "tool" else ("", None)
    if role == "assistant":
        to = recipient(random) if random.random() < 0.5 else None
        channel = random.choice(("analysis", "commentary", "final", "analysis", "commentary", "final", None))
    elif role == "tool":
        channel = random.choice(("commentary", "analysis", None))
    in_role = to is not None and (channel is None or role == "tool" or random.random() < 0.5)
    if in_role:
        words += f" to={to}"
    if channel is not None:
        if words:
            pieces.append(text(words))
        pieces.append(marker("channel"))
        words = channel
        if to is not None and not in_role:
            words += random.choice((" ", " ", "  ")) + f"to={to}"
    # openai_harmony takes a content type for the recipient where there is none; SPEC section 5 does not.
    if to is not None and random.random() < 0.7:
        kind = random.choice(("json", "json", "code", "text", "xml", "text/plain", "application/json", "python3"))
        form = random.choice(("bare", "constrain", "touching"))
        words += "" if form == "touching" else " "
        if form == "bare":
            words += kind
        else:
            pieces += [text(words)] if words else []
            pieces.append(marker("constrain"))
            words, kind = kind, f"<|constrain|>{kind}"
        if random.random() < 0.1:
            words += " "
    pieces += [text(words)] if words else []
    pieces.append(marker("message"))
    content = body(random, longest)
    pieces += [text(content)] if content else []
    if not last or random.random() < 0.9:
        pieces.append(marker(random.choice(("end", "end", "call", "return"))))
    return WellFormed(tuple(pieces), role, channel, to, kind, content, author)


def reply(random: Random, longest: int = 60) -> list[WellFormed]:
    """A well-formed reply of one to eight messages, sometimes many."""
    size = random.choice((1, 1, 2, 2, 3, 4, 8, 8 if random.random() < 0.9 else 60))
    return [message(random, place == 0, place == size - 1, longest) for place in range(size)]
