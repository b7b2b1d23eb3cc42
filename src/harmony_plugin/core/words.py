"""Words: what the words of a header are. Channels, roles, types, and how far a word may be from one of them.

The one place that spells them; knows no header and no order of words beyond `HEADER_WORDS`.
"""

from __future__ import annotations

import re
import unicodedata

from .tokens import CHANNEL, CONSTRAIN, START

__all__ = [
    "ASSISTANT",
    "BUILTIN_NAMESPACES",
    "BUILTIN_RECIPIENTS",
    "CHANNELS",
    "FORMAT",
    "FORMAT_WORD",
    "FORMAT_WORDS",
    "HEADER_WORDS",
    "NOBODY",
    "OTHER_ROLES",
    "SYNONYMS",
    "TYPES",
    "TYPE_WORD",
    "any_of",
    "is_mark",
    "near",
]

ASSISTANT = "assistant"
OTHER_ROLES = ("user", "system", "developer", "tool")
CHANNELS = ("analysis", "commentary", "final")
#: Names for the analysis channel that other models use.
SYNONYMS = ("thinking", "thought", "reasoning")
TYPES = ("json", "code")
#: Recipients that are none: the model speaks to itself or to everybody.
NOBODY = (ASSISTANT, "all")
#: Of gpt-oss's own tools.
BUILTIN_NAMESPACES = ("python", "browser", "container")
BUILTIN_RECIPIENTS = ("python", "browser.search", "browser.open", "browser.find")
#: Words that models repeat, glue together and leave the markers out of.
FORMAT = (ASSISTANT, *CHANNELS)

#: What a section of a header may begin with, and what may follow there, beside recipients.
HEADER_WORDS = {
    START: ((*FORMAT, *OTHER_ROLES), FORMAT),
    CHANNEL: (FORMAT, TYPES),
    CONSTRAIN: (TYPES, TYPES),
}


def any_of(words: tuple[str, ...]) -> str:
    """A pattern for one of the words."""
    return f"(?:{'|'.join(words)})"


FORMAT_WORD = re.compile(any_of(FORMAT))
#: Such words glued together, and what is glued to them.
FORMAT_WORDS = re.compile(rf"({any_of(FORMAT)}+)((?:[^A-Za-z].*)?)", re.DOTALL)
TYPE_WORD = re.compile(r"[A-Za-z][\w./+\-]*", re.ASCII)


def is_mark(text: str) -> bool:
    """Whether text is white space or punctuation alone."""
    return all(c.isspace() or c in "$+<=>^`|~" or unicodedata.category(c)[0] in "PC" for c in text)


def _distance(one: str, other: str) -> int:
    """Levenshtein distance, for short words."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def near(word: str, words: tuple[str, ...]) -> str | None:
    """The one of ``words`` that ``word`` misspells: edit distance 1 or 2, case aside."""
    word = word.lower()
    found = [(_distance(word, known), known) for known in words if abs(len(word) - len(known)) <= 2]
    return min(found)[1] if found and min(found)[0] <= 2 else None
