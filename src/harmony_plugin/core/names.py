"""Names: where a tool's name begins and ends in the words of a header, and who its ``to=`` clauses speak to.

Knows the tools on offer by name, and nothing of channels or sections.
"""

from __future__ import annotations

import re
import unicodedata

from .words import FORMAT, FORMAT_WORD, FORMAT_WORDS, TYPES, is_mark

__all__ = ["FUNCTIONS_WORD", "name_end", "take_name", "take_recipients", "without_glued"]

# A recipient begins a word, or is glued to a word of the format.
_TO = re.compile(rf"(?:(?<![^\W_])|{'|'.join(f'(?<={word})' for word in FORMAT)})to=")
_NAME = re.compile(r"[\w.\-/:]*")
FUNCTIONS_WORD = re.compile(r"functions\.[\w.\-/:]+")


def name_end(text: str, place: int) -> int:
    """Where the name that begins at ``place`` ends: letters and digits of any script, and ``_ . - / :``."""
    while True:
        place = _NAME.match(text, place).end()  # type: ignore[union-attr]  # it matches the empty name, too
        if place >= len(text) or unicodedata.category(text[place])[0] != "M":
            return place
        place += 1


def take_name(text: str, begin: int, declared: tuple[str, ...]) -> tuple[str, int, bool]:
    """The name that stands at ``begin``, where it ends, and whether it is a misspelled one: ``functions NAME``."""
    end = name_end(text, begin)
    for name in declared:  # a declared tool is known by its whole name, whatever it holds
        for whole in (name, f"functions.{name}"):
            stop = begin + len(whole)
            if stop > end and text.startswith(whole, begin) and name_end(text, stop) == stop:
                end = stop
    if text[begin:end] != "functions":
        name = without_glued(text[begin:end], declared)
        return name, begin + len(name), False
    apart = end + len(text[end:]) - len(text[end:].lstrip())
    stop = name_end(text, apart)
    name = text[apart:stop]
    if apart > end and name and name not in TYPES and not FORMAT_WORDS.fullmatch(name) and name != "to":
        name = without_glued(name, declared)
        return f"functions.{name}", apart + len(name), True
    return "functions", end, False


def without_glued(name: str, declared: tuple[str, ...]) -> str:
    """``name``, or the declared one that it begins with if but a type or letters of another script are glued to it."""
    if not declared or name in declared:
        return name
    begin = 0
    for _ in range(4):  # with a namespace in front, or several
        best = ""
        for tool in declared:
            if name.startswith(tool, begin):
                if len(name) == begin + len(tool):
                    return name
                if len(tool) > len(best) and _is_glued(name, begin + len(tool)):
                    best = tool
        if best:
            return name[: begin + len(best)]
        begin = name.find(".", begin) + 1
        if not begin:
            break
    return name


def _is_glued(name: str, end: int) -> bool:
    """Whether what stands in ``name`` from ``end`` on is glued to a name that ends there."""
    rest = name[end:]
    kind = next((kind for kind in TYPES if rest.startswith(kind)), "")
    rest = rest[len(kind) :]
    if not rest:
        return True
    before = next((c for c in reversed(name[:end]) if c.isalpha()), "")
    return rest[0].isalpha() and _script(rest[0]) != _script(before)


def _script(letter: str) -> str:
    """The script of a letter: the first word of its name in Unicode."""
    return unicodedata.name(letter, "").partition(" ")[0] if letter else ""


def take_recipients(text: str, declared: tuple[str, ...]) -> tuple[str, list[str], list[str]]:
    """The text without its ``to=`` clauses, their recipients in order, and the clauses that are spelled wrong."""
    found: list[str] = []
    odd: list[str] = []
    rest: list[str] = []
    place = 0
    for match in _TO.finditer(text):
        if match.start() < place:
            continue  # inside a name
        recipient, end, apart = take_name(text, match.end(), declared)
        if _is_inside_word(text, place, match.start()) and not (
            recipient.startswith("functions.") or recipient in declared
        ):
            continue  # as in ?from=eur&to=usd
        rest.append(text[place : match.start()])
        if apart:
            odd.append(text[match.start() : end])
        if recipient in TYPES and recipient not in declared:
            rest.append(f" {recipient} ")  # a content type is never a recipient
            odd.append(text[match.start() : end])
        elif recipient:
            found.append(recipient)
        else:
            odd.append("to=")
        place = end
        rest.append(" ")
    rest.append(text[place:])
    return "".join(rest), found, odd


def _is_inside_word(text: str, begin: int, end: int) -> bool:
    """Whether a word that is none of the format's touches ``end``; it begins at ``begin`` or behind it."""
    glued = text[begin:end]
    if glued[-1:].isspace() or not glued:
        return False
    return not is_mark(FORMAT_WORD.sub("", glued.split()[-1]))
