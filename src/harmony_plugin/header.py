"""Header reader: the words between ``<|start|>`` and ``<|message|>``, well-formed or not.

A pure function of the header's sections: no state, no output, no idea which field a message goes to. Every rule of SPEC
section 5 about what stands *inside* a header is here; rules about *where* a header ends are the machine's.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import NamedTuple

from .lexer import CHANNEL, CONSTRAIN, START

__all__ = [
    "CHANNELS",
    "LIMIT",
    "NOBODY",
    "TYPES",
    "Header",
    "Sections",
    "body_behind",
    "could_become_header",
    "is_filler",
    "read_header",
]

#: A header has at most this many characters; and as many markers.
LIMIT = 512

CHANNELS = ("analysis", "commentary", "final")
#: Names for the analysis channel that other models use.
_SYNONYMS = ("thinking", "thought", "reasoning")
_OTHER_ROLES = ("user", "system", "developer", "tool")
TYPES = ("json", "code")
#: Recipients that are none: the model speaks to itself or to everybody.
NOBODY = ("assistant", "all")

#: ``(kind, text)`` in order: START for the role section, then CHANNEL and CONSTRAIN clauses.
Sections = tuple[tuple[int, str], ...]

# A recipient begins a word, or is glued to a word of the format.
_TO = re.compile(r"(?:(?<![^\W_])|(?<=assistant)|(?<=analysis)|(?<=commentary)|(?<=final))to=")
_NAME = re.compile(r"[\w.\-/:]*")
_FUNCTIONS_WORD = re.compile(r"functions\.[\w.\-/:]+")
_FORMAT_WORDS = re.compile(r"((?:assistant|analysis|commentary|final)+)((?:[^A-Za-z].*)?)", re.DOTALL)
_FORMAT_WORD = re.compile(r"assistant|analysis|commentary|final")
_ROLE_AND_CHANNEL = re.compile(r"\s*(?:assistant\s*)*(?:analysis|commentary|final)")
_OTHER_ROLE = re.compile(rf"({'|'.join(_OTHER_ROLES)})\b")
_LETTERS = re.compile(r"[^\W\d_]+")
_TYPE_WORD = re.compile(r"[A-Za-z][\w./+\-]*")
_KNOWN = re.compile(r"analysis|commentary|final")
_SYNONYM = re.compile(rf"(?:{'|'.join(_SYNONYMS)})(?![\w-])")
# A bare type in front of a body whose <|message|> is missing: final json {"a": 1}
_BARE_TYPE = re.compile(r"\s*(?:json|code)(?=\s*(?:[\[{\"]|$))")
# The type behind <|constrain|>, a body behind it; any other word there is the body's.
_CONSTRAINED = re.compile(r"\s*(?:json|code)(?![\w.\-])")


class Header(NamedTuple):
    """What a header says. ``issues`` are ``(code, text)``; ``known``: the channel is one that somebody knows.

    ``target`` is set where the machine, not the header, decides where the text goes: "reasoning" or "content".
    """

    role: str = "assistant"
    author: str | None = None
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    known: bool = False
    issues: tuple[tuple[str, str], ...] = ()
    target: str | None = None
    #: The channel as the model spelled it; ``channel`` is the one meant.
    written: str | None = None

    @property
    def addressed(self) -> bool:
        """Whether the message is for somebody but the model itself."""
        return self.recipient is not None and self.recipient not in NOBODY


def _name_end(text: str, place: int) -> int:
    """Where the name that begins at ``place`` ends: letters and digits of any script, and ``_ . - / :``."""
    while True:
        place = _NAME.match(text, place).end()  # type: ignore[union-attr]  # it matches the empty name, too
        if place >= len(text) or unicodedata.category(text[place])[0] != "M":
            return place
        place += 1


def _take_recipients(text: str, declared: tuple[str, ...]) -> tuple[str, list[str], list[str]]:
    """The text without its ``to=`` clauses, their recipients in order, and the clauses that are spelled wrong."""
    found: list[str] = []
    odd: list[str] = []
    rest: list[str] = []
    place = 0
    while match := _TO.search(text, place):
        rest.append(text[place : match.start()])
        begin = match.end()
        end = _name_end(text, begin)
        for name in declared:  # a declared tool is known by its whole name, whatever it holds
            for whole in (name, f"functions.{name}"):
                stop = begin + len(whole)
                if stop > end and text.startswith(whole, begin) and _name_end(text, stop) == stop:
                    end = stop
        recipient = text[begin:end]
        if recipient == "functions":
            # "to=functions NAME": the dot was left out
            name_begin = end + len(text[end:]) - len(text[end:].lstrip())
            name_end = _name_end(text, name_begin)
            name = text[name_begin:name_end]
            if name_begin > end and name and name not in TYPES and not _FORMAT_WORDS.fullmatch(name) and name != "to":
                recipient, end = f"functions.{name}", name_end
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


def _distance(one: str, other: str) -> int:
    """Levenshtein distance, for short words."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def _near(word: str, words: tuple[str, ...]) -> str | None:
    """The one of ``words`` that ``word`` misspells: edit distance 1 or 2, case aside."""
    word = word.lower()
    near = [(_distance(word, known), known) for known in words if abs(len(word) - len(known)) <= 2]
    return min(near)[1] if near and min(near)[0] <= 2 else None


class _Clause(NamedTuple):
    """A channel word at the beginning of a clause: the channel meant, as written, where it ends, who knows it."""

    channel: str
    written: str
    end: int
    known: bool


@functools.lru_cache(maxsize=256)
def _channel_word(text: str, custom: tuple[str, ...], glued: bool = True) -> _Clause | None:
    """The channel that a clause begins with, if it begins with one. ``glued``: a body may touch it."""
    begin = len(text) - len(text.lstrip())
    word_end = _name_end(text, begin)
    for name in custom:
        stop = begin + len(name)
        if text.startswith(name, begin) and _name_end(text, stop) == stop:
            return _Clause(name, name, stop, True)
    letters = _LETTERS.match(text, begin)
    run = letters.group() if letters else ""
    word = text[begin:word_end]
    if match := _KNOWN.match(text, begin):
        if not glued and word != match.group() and (near := _near(word, CHANNELS)):
            return _Clause(near, word, word_end, True)
        return _Clause(match.group(), match.group(), match.end(), True)
    if match := _SYNONYM.match(text, begin):
        return _Clause("analysis", match.group(), match.end(), True)
    if not word or word in TYPES or _FUNCTIONS_WORD.match(word):
        return None
    if letters and (near := _near(run, CHANNELS)):
        return _Clause(near, run, letters.end(), True)
    return _Clause(word, word, word_end, False)


@functools.lru_cache(maxsize=1024)
def read_header(
    sections: Sections, role: str | None = None, custom: tuple[str, ...] = (), declared: tuple[str, ...] = ()
) -> Header:
    """What a header says.

    Args:
        sections: the role section and the clauses, markers taken off.
        role: the role where it is known before the header (from the prompt, or carried on).
        custom: channels that the settings name. declared: the names of the tools on offer.
    """
    issues: list[tuple[str, str]] = []
    recipients: list[str] = []
    misplaced: list[str] = []
    channels: list[_Clause] = []
    types: list[str] = []
    ignored: list[str] = []
    candidates: list[str] = []
    clauses = 0
    author: str | None = None
    for number, (kind, text) in enumerate(sections):
        rest, found, odd = _take_recipients(text, declared)
        recipients += found
        issues += [("misplaced_recipient", clause) for clause in odd]
        last = number == len(sections) - 1
        if kind == START:
            words = rest.split()
            for place, word in enumerate(words):
                if match := _FORMAT_WORDS.fullmatch(word):
                    for name in _FORMAT_WORD.findall(match[1]):
                        if name != "assistant":
                            channels.append(_Clause(name, name, 0, True))
                            issues.append(("missing_channel", name))
                        elif role is None:
                            role = name
                        else:
                            issues.append(("repeated_role", name))
                    if match[2]:
                        ignored.append(match[2])
                elif role is None and place == 0:
                    if match := _OTHER_ROLE.match(word):
                        role = match[1]
                        author = word if role == "tool" else None
                    elif _FUNCTIONS_WORD.match(word) or word in declared or "assistant" in found:
                        role, author = "tool", word
                    elif _near(word, ("assistant",)):
                        role = "assistant"
                        issues.append(("misspelled_role", word))
                    else:
                        ignored.append(word)
                elif match := _FUNCTIONS_WORD.match(word):
                    misplaced.append(match.group())
                elif word in TYPES:
                    types.append(word)
                elif found and last and place == len(words) - 1 and _TYPE_WORD.fullmatch(word):
                    candidates.append(word)
                else:
                    ignored.append(word)
        elif kind == CHANNEL:
            clauses += 1
            while match := re.match(r"\s*assistant(?![\w])", rest):  # the role word, misplaced
                rest = rest[match.end() :]
            clause = _channel_word(rest, custom, glued=False)
            if clause and not clause.known and clause.channel in declared:
                misplaced.append(clause.channel)
                rest = rest[clause.end :]
            elif clause:
                channels.append(clause)
                rest = rest[clause.end :]
                if clause.known and clause.written != clause.channel:
                    issues.append(("misspelled_channel", clause.written))
            words = rest.split()
            for word in words:
                if match := _FUNCTIONS_WORD.match(word):
                    misplaced.append(match.group())
                    ignored += [word[match.end() :]] if match.end() < len(word) else []
                elif word in TYPES:
                    types.append(word)
                elif last and _TYPE_WORD.fullmatch(word) and not _FORMAT_WORDS.fullmatch(word):
                    candidates.append(word)
                else:
                    ignored.append(word)
        else:
            words = rest.split()
            plain = [word for word in words if not _FUNCTIONS_WORD.match(word)]
            misplaced += [m.group() for word in words if (m := _FUNCTIONS_WORD.match(word))]
            best = next((word for word in plain if word in TYPES), plain[0] if plain else "")
            if match := _TYPE_WORD.match(best):
                types.insert(0, f"<|constrain|>{match.group()}")
                plain.remove(best)
                plain += [best[match.end() :]] if match.end() < len(best) else []
            ignored += plain
    if role is None:
        role = "assistant"
        issues.append(("missing_role", ""))

    real = [name for name in recipients if name not in NOBODY]
    recipient = next(iter(real), None)
    if len(recipients) > 1:
        issues.append(("repeated_recipient", " ".join(recipients[1:])))
    if recipient is None and misplaced:
        recipient = misplaced.pop(0)
        issues.append(("misplaced_recipient", recipient))
    if recipient is None and recipients:
        recipient = recipients[0]
    ignored += misplaced

    known = [clause for clause in channels if clause.known]
    chosen = known[-1] if known else channels[-1] if channels else None
    if clauses > 1 or (clauses == 1 and len(channels) > 1):
        issues.append(("repeated_channel", " ".join(clause.written for clause in channels if clause is not chosen)))
    if clauses and not channels and not recipient:
        issues.append(("unknown_channel", ""))
    content_type = types[0] if types else None
    others = [name.removeprefix("<|constrain|>") for name in types[1:]]
    ignored += [other for other in others if other not in TYPES]
    if len(candidates) == 1 and content_type is None:
        content_type = candidates[0]
    else:
        ignored += candidates
    if ignored:
        issues.append(("header_words", " ".join(ignored)))
    return Header(
        role,
        author,
        chosen.channel if chosen else None,
        recipient,
        content_type,
        bool(known),
        tuple(issues),
        written=chosen.written if chosen else None,
    )


def body_behind(sections: Sections, custom: tuple[str, ...] = ()) -> tuple[str, str, str | None]:
    """The words before and behind the channel that counts, for a header whose ``<|message|>`` is missing.

    And the channel as written: the body may be glued to it. None where it stands in the place of the role.
    """
    written: str | None = None
    for number in range(len(sections) - 1, 0, -1):
        kind, text = sections[number]
        clause = _channel_word(text, custom) if kind == CHANNEL else None
        if clause and clause.known:
            end, written = clause.end, clause.written
            break
    else:  # the channel stands in the place of the role
        number, text = 0, sections[0][1]
        match = _ROLE_AND_CHANNEL.match(text)
        end = match.end() if match else 0
    before = [other.strip() for _, other in sections[:number]]
    behind = [text[end:]]
    for kind, text in sections[number + 1 :]:
        if kind == CONSTRAIN:
            match = _CONSTRAINED.match(text)
            text = text[match.end() :] if match else text
        behind.append(text)
    joined = "".join(behind)
    if match := _BARE_TYPE.match(joined):
        joined = joined[match.end() :]
    words = [_without_format(word) for part in before for word in part.split()]
    return " ".join(filter(None, words)), joined.lstrip(), written


def _without_format(word: str) -> str:
    """What is glued to the role and channel words that a word begins with; all of it where it begins with none."""
    match = _FORMAT_WORDS.fullmatch(word)
    return match[2] if match else word


def is_filler(sections: Sections, opening: bool) -> bool:
    """Whether a header without clauses holds but role and channel words (opening a reply: the format's own)."""
    words = "".join(text for _, text in sections).split()
    return bool(words) and all(
        ((match := _FORMAT_WORDS.fullmatch(word)) and not match[2]) or (not opening and word in _OTHER_ROLES)
        for word in words
    )


def _begins(word: str, words: tuple[str, ...], least: int = 1) -> bool:
    return any(known.startswith(word) and len(word) >= min(least, len(known)) for known in words)


def could_become_header(sections: Sections, opening: bool) -> bool:
    """Whether a header that the end of the output cut off could have become one, had the model gone on.

    At the opening of a reply a word needs three letters to count as the beginning of a role or channel.
    """
    least = 3 if opening else 1
    for number, (kind, text) in enumerate(sections):
        rest, _, _ = _take_recipients(text, ())
        words = rest.split()
        if kind == CHANNEL:
            clause = _channel_word(rest, ())
            words = rest[clause.end :].split() if clause else words
        elif kind == CONSTRAIN and words and _TYPE_WORD.fullmatch(words[0]):
            words = words[1:]
        for place, word in enumerate(words):
            tail = number == len(sections) - 1 and place == len(words) - 1
            if _FORMAT_WORDS.fullmatch(word) or word in TYPES or (_FUNCTIONS_WORD.fullmatch(word) and kind != START):
                continue
            if kind == START and place == 0 and not opening and _begins(word, _OTHER_ROLES):
                continue
            glued = _FORMAT_WORDS.sub("", word, count=1) if _FORMAT_WORD.match(word) else word
            if tail and (
                _begins(glued, ("assistant", *CHANNELS) if kind == START else TYPES, least)
                or (number and _begins(glued, ("to=",)))
                or (not number and len(glued) >= min(least, 2) and _begins(glued, ("to=",)))
            ):
                continue
            return False
    return True
