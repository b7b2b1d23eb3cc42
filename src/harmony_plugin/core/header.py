"""Header reader: the words between ``<|start|>`` and ``<|message|>``, well-formed or not.

A pure function of the header's sections: no state, no output, no idea which field a message goes to. Every rule of SPEC
section 5 about what stands *inside* a header is here (`words` spells its words, `names` those of tools); rules about
*where* a header ends are the machine's. What could still become a header is read as one, and `spellings` writes them.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from .issues import Code
from .names import FUNCTIONS_WORD, name_end, take_name, take_recipients, without_glued
from .tokens import CHANNEL, CONSTRAIN, START
from .words import (
    ASSISTANT,
    CHANNELS,
    FORMAT,
    FORMAT_WORD,
    FORMAT_WORDS,
    HEADER_WORDS,
    NOBODY,
    OTHER_ROLES,
    SYNONYMS,
    TYPE_WORD,
    TYPES,
    any_of,
    is_mark,
    near,
)

__all__ = [
    "LIMIT",
    "Body",
    "Header",
    "Sections",
    "Span",
    "bodies_in_front",
    "body_behind",
    "could_become_header",
    "is_filler",
    "loose_words",
    "read_header",
    "spellings",
]

#: A header has at most this many characters; and as many markers.
LIMIT = 512

#: ``(kind, text)`` in order: START for the role section, then CHANNEL and CONSTRAIN clauses.
Sections = tuple[tuple[int, str], ...]
#: Where a piece of text begins and ends in the header's text, that is in its sections' texts joined.
Span = tuple[int, int]

_ROLE_AND_CHANNEL = re.compile(rf"\s*(?:{ASSISTANT}\s*)*({any_of(CHANNELS)})")
_OTHER_ROLE = re.compile(rf"({any_of(OTHER_ROLES)})\b")
# The role word in the place of the channel, or in front of it.
_ASSISTANT = re.compile(rf"\s*{ASSISTANT}(?!\w)")
# The same where no <|message|> came, so that text follows it.
_ASSISTANT_BEGUN = re.compile(rf"\s*(?:{ASSISTANT}(?:(?![a-z])|(?={ASSISTANT}))\s*)+")
_ROLE_BEGUN = re.compile(rf"\s*(?:{any_of((ASSISTANT, *OTHER_ROLES))}(?!\w)\s*)+")
# A recipient in front of any word that is none of the format's.
_RECIPIENT_FIRST = re.compile(rf"(?:[\W_]|{any_of((*FORMAT, *TYPES))}\b)*(?:to=|functions\.)")
_LETTERS = re.compile(r"[^\W\d_]+")
_KNOWN = re.compile(any_of(CHANNELS))
_SYNONYM = re.compile(rf"{any_of(SYNONYMS)}(?![\w-])")
# A marker that the end of the output cut off, where the output is text.
_MARKER_BEGUN = re.compile(r"<\|?[a-z]*\|?")
# What stands between a channel and a body: spaces, or the end of the line. An indentation is the body's.
_GAP = re.compile(r"\s*\n|\s*")
# A bare type in front of a body whose <|message|> is missing: final json {"a": 1}
_BARE_TYPE = re.compile(rf"\s*{any_of(TYPES)}(?=\s*(?:[\[{{\"]|$))")
# The type behind <|constrain|>, a body behind it; any other word there is the body's.
_CONSTRAINED = re.compile(rf"\s*{any_of(TYPES)}(?![\w.\-])")


class Header(NamedTuple):
    """What a header says. ``issues`` are ``(code, text)``; ``known``: the channel is one that somebody knows.

    ``target`` is set where the machine, not the header, decides where the text goes: "reasoning" or "content".
    """

    role: str = ASSISTANT
    author: str | None = None
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    known: bool = False
    issues: tuple[tuple[Code, str], ...] = ()
    target: str | None = None
    #: The channel as the model spelled it; ``channel`` is the one meant.
    written: str | None = None
    #: Whether it holds words that are no part of a header: without a ``<|message|>`` they are text.
    wordy: bool = False

    @property
    def addressed(self) -> bool:
        """Whether the message is for somebody but the model itself."""
        return self.recipient is not None and self.recipient not in NOBODY

    @property
    def bare_call(self) -> bool:
        """Whether it is nothing but the header of a call: without a ``<|message|>``, the call never came."""
        return self.addressed and not self.wordy


# Channels


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
    word_end = name_end(text, begin)
    for name in custom:
        stop = begin + len(name)
        if text.startswith(name, begin) and name_end(text, stop) == stop:
            return _Clause(name, name, stop, True)
    letters = _LETTERS.match(text, begin)
    run = letters.group() if letters else ""
    word = text[begin:word_end]
    if match := _KNOWN.match(text, begin):
        if not glued and word != match.group() and (meant := near(word, CHANNELS)):
            return _Clause(meant, word, word_end, True)
        return _Clause(match.group(), match.group(), match.end(), True)
    if match := _SYNONYM.match(text, begin):
        return _Clause("analysis", match.group(), match.end(), True)
    if not word or word in TYPES or FUNCTIONS_WORD.match(word):
        return None
    if letters and (meant := near(run, CHANNELS)):
        return _Clause(meant, run, letters.end(), True)
    return _Clause(word, word, word_end, False)


def _clause_of(text: str, custom: tuple[str, ...], later: bool, glued: bool = True) -> _Clause | None:
    """Like `_channel_word`, past a role word. ``later``: a known channel stands in front of this clause.

    There a misspelled one counts alone only: a word of prose may look like one (``Find it``).
    """
    role = 0
    while match := _ASSISTANT.match(text, role):
        role = match.end()
    clause = _channel_word(text[role:], custom, glued)
    if clause is None:
        return None
    if later and clause.known and clause.written not in (*CHANNELS, *SYNONYMS, *custom):
        for word in text[role + clause.end :].split():
            if not (is_mark(word) or word in TYPES or word.startswith("to=") or FUNCTIONS_WORD.match(word)):
                return _Clause(clause.written, clause.written, role + clause.end, False)
    return clause._replace(end=role + clause.end)


def _channels(sections: Sections, custom: tuple[str, ...]) -> Iterator[tuple[int, _Clause]]:
    """The clauses that name a channel, with their places among the sections: known ones, or the first if alone."""
    later = False
    for number, (kind, text) in enumerate(sections):
        if kind == CHANNEL:
            clause = _clause_of(text, custom, later)
            if clause and (clause.known or (not later and is_mark(text[clause.end :]))):
                yield number, clause
            later = later or bool(clause)


# Headers


class _Reading:
    """A header while it is read: a method for each kind of section, in order, then `header`."""

    def __init__(self, role: str | None, custom: tuple[str, ...], declared: tuple[str, ...]) -> None:
        self._role = role
        self._author: str | None = None
        self._custom = custom
        self._declared = declared
        self._issues: list[tuple[Code, str]] = []
        self._recipients: list[str] = []
        # functions.NAME without to=, in the order of the header.
        self._misplaced: list[str] = []
        self._channels: list[_Clause] = []
        self._clauses = 0
        self._types: list[str] = []
        # The last words of clauses: each may be a content type that nobody knows.
        self._candidates: list[str] = []
        self._ignored: list[str] = []
        # Whether there are words that only a <|message|> makes part of the header; those behind a <|constrain|> are
        # type words where the header names a recipient.
        self._wordy = False

    def section(self, kind: int, text: str, last: bool) -> None:
        rest, found, odd = take_recipients(text, self._declared)
        self._recipients += found
        self._issues += [("misplaced_recipient", clause) for clause in odd]
        if kind == START:
            self._role_section(rest, found, last)
        elif kind == CHANNEL:
            self._channel_clause(rest, last)
        else:
            self._type_clause(rest)

    def _role_section(self, text: str, found: list[str], last: bool) -> None:
        if self._role is None:
            text = self._take_author(text, found)
        words = text.split()
        for place, word in enumerate(words):
            if not self._wordy and (match := FORMAT_WORDS.fullmatch(word)):
                self._format_words(match[1])
                self._ignore(match[2])
            elif self._role is None and place == 0 and (match := _OTHER_ROLE.match(word)):
                self._role = match[1]
                self._author = word if match[1] == "tool" else None
            elif self._role is None and place == 0 and near(word, (ASSISTANT,)):
                self._role = ASSISTANT
                self._issues.append(("misspelled_role", word))
            elif self._is_functions(word):
                self._wordy |= last  # with no clause behind it, it may be what a sentence begins with
            elif word in TYPES:
                self._types.append(word)
            elif found and last and place == len(words) - 1 and self._role is not None and TYPE_WORD.fullmatch(word):
                self._candidates.append(word)
            else:
                self._ignore(word)

    def _take_author(self, text: str, found: list[str]) -> str:
        """The text without the author that it begins with, if it begins with one: a tool, by the rules of names."""
        begin = len(text) - len(text.lstrip())
        first = text[begin:].split(maxsplit=1)[:1]
        if not first or FORMAT_WORDS.fullmatch(first[0]) or _OTHER_ROLE.match(first[0]):
            return text
        name, end, _ = take_name(text, begin, self._declared)
        if name and (name.startswith("functions.") or name in self._declared or ASSISTANT in found):
            self._role, self._author = "tool", name
            return text[end:]
        return text

    def _format_words(self, text: str) -> None:
        for name in FORMAT_WORD.findall(text):
            if name != ASSISTANT:
                self._channels.append(_Clause(name, name, 0, True))
                self._issues.append(("missing_channel", name))
            elif self._role is None:
                self._role = name
            else:
                self._issues.append(("repeated_role", name))

    def _channel_clause(self, text: str, last: bool) -> None:
        self._clauses += 1
        later = bool(self._channels)
        clause = _clause_of(text, self._custom, later, glued=False)
        if clause and not clause.known and (name := without_glued(clause.channel, self._declared)) in self._declared:
            self._misplaced.append(name)
            text = text[clause.end - len(clause.channel) + len(name) :]
        elif clause:
            self._channels.append(clause)
            text = text[clause.end :]
            if clause.known and clause.written != clause.channel:
                self._issues.append(("misspelled_channel", clause.written))
            self._wordy |= later and not clause.known
        else:
            while match := _ASSISTANT.match(text):
                text = text[match.end() :]
        for word in text.split():
            if self._is_functions(word):
                continue
            if word in TYPES:
                self._types.append(word)
            elif last and TYPE_WORD.fullmatch(word) and not FORMAT_WORDS.fullmatch(word):
                self._candidates.append(word)
            else:
                self._ignore(word)

    def _type_clause(self, text: str) -> None:
        plain = [word for word in text.split() if not self._is_functions(word)]
        best = next((word for word in plain if word in TYPES), plain[0] if plain else "")
        known = best in TYPES or _CONSTRAINED.match(text)
        if match := TYPE_WORD.match(best):
            self._types.insert(0, f"<|constrain|>{match.group()}")
            plain.remove(best)
            plain += [best[match.end() :]] if match.end() < len(best) else []
        for word in plain:
            if known:
                self._ignore(word)
            else:
                self._ignored.append(word)

    def _ignore(self, word: str) -> None:
        """Take a word that means nothing in a header."""
        if word:
            self._ignored.append(word)
            self._wordy |= not is_mark(word)

    def _is_functions(self, word: str) -> bool:
        """Whether a word is ``functions.NAME``: a recipient where there is no other. What is glued to it is ignored."""
        match = FUNCTIONS_WORD.match(word)
        if not match:
            return False
        name = without_glued(match.group(), self._declared)
        self._misplaced.append(name)
        self._ignore(word[len(name) :])
        return True

    def header(self) -> Header:
        if self._role is None:
            self._role = ASSISTANT
            self._issues.append(("missing_role", ""))
        recipient = self._recipient()
        chosen = self._channel(recipient)
        content_type = self._content_type(recipient)
        if recipient is None or recipient in NOBODY:
            self._wordy |= not all(map(is_mark, self._ignored))
        if self._ignored:
            self._issues.append(("header_words", " ".join(self._ignored)))
        return Header(
            self._role,
            self._author,
            chosen.channel if chosen else None,
            recipient,
            content_type,
            bool(chosen and chosen.known),
            tuple(self._issues),
            written=chosen.written if chosen else None,
            wordy=self._wordy,
        )

    def _recipient(self) -> str | None:
        """The first that is not the assistant counts; ``functions.NAME`` elsewhere where there is none."""
        recipients = self._recipients
        recipient = next((name for name in recipients if name not in NOBODY), None)
        if len(recipients) > 1:
            self._issues.append(("repeated_recipient", " ".join(recipients[1:])))
        if recipient is None and self._misplaced:
            recipient = self._misplaced.pop(0)
            self._issues.append(("misplaced_recipient", recipient))
        self._ignored += self._misplaced
        return recipients[0] if recipient is None and recipients else recipient

    def _channel(self, recipient: str | None) -> _Clause | None:
        """The last known channel counts; the last where none is known."""
        channels = self._channels
        known = [clause for clause in channels if clause.known]
        chosen = known[-1] if known else channels[-1] if channels else None
        if self._clauses > 1 or (self._clauses == 1 and len(channels) > 1):
            others = " ".join(clause.written for clause in channels if clause != chosen)
            self._issues.append(("repeated_channel", others))
        if self._clauses and not channels and not recipient:
            self._issues.append(("unknown_channel", ""))
        return chosen

    def _content_type(self, recipient: str | None) -> str | None:
        """The first type; else the one word that may be one."""
        content_type = self._types[0] if self._types else None
        others = [name.removeprefix("<|constrain|>") for name in self._types[1:]]
        self._ignored += [other for other in others if other not in TYPES]
        if len(self._candidates) == 1 and content_type is None:
            content_type = self._candidates[0]
            # Unless it is spelled like one, text/plain, it is one only in front of a <|message|>.
            self._wordy |= recipient is None or "/" not in content_type
        else:
            for word in self._candidates:
                self._ignore(word)
        return content_type


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
    reading = _Reading(role, custom, declared)
    for number, (kind, text) in enumerate(sections):
        reading.section(kind, text, number == len(sections) - 1)
    return reading.header()


# Headers whose <|message|> is missing


class Body(NamedTuple):
    """The text behind a channel. ``before``: words in front of the channel. ``spans``: where the text stands.

    ``written``: the channel as the model spelled it, None where it stands in the place of the role.
    """

    before: str
    written: str | None
    spans: tuple[Span, ...]
    channel: str | None


def body_behind(sections: Sections, custom: tuple[str, ...] = ()) -> Body:
    """The words before and behind the channel that counts, for a header whose ``<|message|>`` is missing."""
    channel = written = None
    number, end = 0, 0
    clauses = list(_channels(sections, custom))
    in_role = _ROLE_AND_CHANNEL.match(sections[0][1])
    if in_role and not any(clause.known for _, clause in clauses):
        end, channel = in_role.end(), in_role[1]
    elif clauses:
        number, (channel, written, end, _) = clauses[-1]
    begin = sum(len(text) for _, text in sections[:number])
    spans: list[Span] = []
    for place, (kind, text) in enumerate(sections[number:]):
        skip = end if place == 0 else 0
        if place and kind == CONSTRAIN and (match := _CONSTRAINED.match(text)):
            skip = match.end()
        spans.append((begin + skip, begin + len(text)))
        begin += len(text)
    joined = "".join(text for _, text in sections)
    behind = "".join(joined[slice(*span)] for span in spans)
    bare = _BARE_TYPE.match(behind)
    skip = bare.end() if bare else 0
    skip = _GAP.match(behind, skip).end()  # type: ignore[union-attr]  # it matches no space, too
    words = [_without_format(word) for _, text in sections[:number] for word in text.split()]
    return Body(" ".join(filter(None, words)), written, tuple(_later_spans(spans, skip)), channel)


def _later_spans(spans: list[Span], skip: int) -> Iterator[Span]:
    """The spans without their first ``skip`` characters."""
    for begin, end in spans:
        taken = min(skip, end - begin)
        skip -= taken
        yield begin + taken, end


def loose_words(sections: Sections, explicit: bool) -> tuple[Span, ...]:
    """Where the words stand that are loose text: all of a header but a role word in its own place.

    ``explicit``: the role section stands behind a ``<|start|>``.
    """
    spans: list[Span] = []
    begin = 0
    for kind, text in sections:
        role = _ROLE_BEGUN.match(text) if kind == CHANNEL else None
        if kind == START and explicit:
            word = text.split(maxsplit=1)[:1]
            role = _ASSISTANT_BEGUN.match(text)
            if not role and word and near(word[0], (ASSISTANT,)):
                role = re.match(rf"\s*{re.escape(word[0])}\s*", text)
        spans.append((begin + (role.end() if role else 0), begin + len(text)))
        begin += len(text)
    return tuple(_later_spans(spans, 0))


def bodies_in_front(
    sections: Sections, role: str, custom: tuple[str, ...] = (), declared: tuple[str, ...] = ()
) -> Iterator[int]:
    """Where clauses end that are messages of their own, ``<|channel|>`` standing in the place of ``<|message|>``.

    That is in front of a known channel, if behind the one before it there are words of no header.
    """
    for begin, end in itertools.pairwise([number for number, _ in _channels(sections, custom)]):
        clauses = sections[begin:end]
        header = read_header(clauses, role, custom, declared)
        if header.wordy and not (header.addressed and _RECIPIENT_FIRST.match(" ".join(text for _, text in clauses))):
            yield end


def _without_format(word: str) -> str:
    """What is glued to the role and channel words that a word begins with; all of it where it begins with none."""
    match = FORMAT_WORDS.fullmatch(word)
    return match[2] if match else word


def is_filler(sections: Sections, opening: bool) -> bool:
    """Whether a header without clauses holds but role and channel words (opening a reply: the format's own)."""
    words = "".join(text for _, text in sections).split()
    return bool(words) and all(
        ((match := FORMAT_WORDS.fullmatch(word)) and not match[2]) or (not opening and word in OTHER_ROLES)
        for word in words
    )


def could_become_header(
    sections: Sections, opening: bool, custom: tuple[str, ...] = (), declared: tuple[str, ...] = ()
) -> bool:
    """Whether a header that the end of the output cut off could have become one, had the model gone on.

    It could where it is one but for its last word, which may be the beginning of one that goes there.
    """
    whole = _without_begun(sections, opening)
    header = read_header(whole, ASSISTANT if opening else None, custom, declared)
    if header.wordy or header.author not in (None, "tool"):
        return False
    if header.role != ASSISTANT and whole[0][1].split()[0] != header.role:
        return False  # something is glued to it
    return all(code not in ("header_words", "misspelled_role") for code, _ in header.issues)


def _without_begun(sections: Sections, opening: bool) -> Sections:
    """The sections without the beginning of a word that they end in. ``opening``: of the reply; prose begins alike."""
    kind, text = sections[-1]
    words = text.split()
    if not words:
        return sections
    glued = FORMAT_WORDS.match(words[-1])
    begun = words[-1][glued.end(1) :] if glued else words[-1]
    first, later = HEADER_WORDS[kind]
    least = 1
    if opening and kind == START:
        first, least = later, 3
    goes_there = (*(first if words == [begun] else later), "to=")
    if any(word.startswith(begun) and len(begun) >= min(least, len(word) - 1) for word in goes_there) or (
        _MARKER_BEGUN.fullmatch(begun) and (glued or len(begun) >= least)
    ):
        return (*sections[:-1], (kind, text.rstrip().removesuffix(begun)))
    return sections


# Headers as models write them


def spellings(
    channel: str, recipient: str | None = None, content_type: str | None = None
) -> list[tuple[tuple[str, str], ...]]:
    """A message's header behind ``<|start|>assistant``, in each way that models write it; the most usual comes first.

    Each is its sections: the marker's name, and the text behind it. `read_header` reads them all alike.
    """
    places = [("", channel)]
    if recipient is not None:
        places = [("", f"{channel} to={recipient}"), (f" to={recipient}", channel)]
    untyped = [(("start", role), ("channel", clause)) for role, clause in places]
    if content_type is None:
        return [*untyped]
    typed = [
        form
        for start, (marker, clause) in untyped
        for form in (
            (start, (marker, f"{clause} "), ("constrain", content_type)),
            (start, (marker, clause), ("constrain", content_type)),
            (start, (marker, f"{clause} {content_type}")),
        )
    ]
    return [*untyped, *typed] if recipient is None else [*typed, *untyped]
