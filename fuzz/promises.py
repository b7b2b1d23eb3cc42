"""Promises 1 to 4 of docs/spec.md, checked on any output, well-formed or not.

An oracle of its own: it reads the output with a second, much simpler eye (below), and never asks the parser what a
marker means. Words such as ``0Q17Z`` are the ink: bodies and headers are full of them, and each must be found where it
belongs, exactly as often as it was written.

- *total*: nothing raises but `HarmonyParseError` in strict mode, and that with the first issue of the lenient reply.
- *conserved*: every word of a body, and of text outside any message, is found exactly once among reasoning, content,
  arguments and issue texts; every word of a header that opened a message is found nowhere in the fields, but said by an
  issue or by the message (channel, recipient, content type). A whole body stands unbroken in one of them. As many
  reserved and unknown ids are reported as there are.
- *no leak*: no marker in any field or tool name that ordinary tokens did not spell; no body of a header that says
  ``<|channel|>analysis`` in content.
- *chunk-invariant*: for any cuts, through deltas and through events, the same reply, issues and counts included.

What the eye sees: markers and text runs. A ``<|message|>`` opens a body unless one is open; every other marker but
``<|constrain|>`` ends it. What lies between bodies is header if a ``<|message|>`` ends it, else loose.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from harmony_plugin import CODES, Delta, Ended, Event, HarmonyParseError, Options, Reply, Started, Stream, Text, parse
from harmony_plugin.core import BY_SETTING

from .transcript import MARKER, cuts
from .vocabulary import KIND_OF, SPECIAL, SPELLED, piece

INK = re.compile(r"0Q\d+Z")
#: Text input has no id for these; ids that are no text.
RESERVED, UNKNOWN = "reserved", "unknown"
_LIMIT = 512


class Broken(AssertionError):
    """A promise is broken."""


class Run(NamedTuple):
    """Text between markers as the simple eye sees it. ``place``: "body", "header" or "loose".

    ``analysis``: the header in front of a body says analysis, and nothing else could be meant. ``parts``: the text
    with its markers apart, as ``(kind, text)``.
    """

    place: str
    text: str
    analysis: bool
    parts: tuple[tuple[str, str], ...]


def symbols(output: str | Sequence[int]) -> list[tuple[str, str]]:
    """``(kind, text)``: markers by kind, text runs as "text", ids that are none as `RESERVED` or `UNKNOWN`."""
    found: list[tuple[str, str]] = []
    if isinstance(output, str):
        place = 0
        for match in MARKER.finditer(output):
            if match.start() > place:
                found.append(("text", output[place : match.start()]))
            found.append((match.group()[2:-2], match.group()))
            place = match.end()
        return found + ([("text", output[place:])] if place < len(output) else [])
    data = b""
    for token in output:
        if token in KIND_OF:
            if data:
                found.append(("text", data.decode("utf-8", "replace")))
                data = b""
            found.append((KIND_OF[token], SPELLED[KIND_OF[token]]))
            continue
        bytes_ = piece(token)
        if bytes_ is None:
            found.append((UNKNOWN, ""))
        elif token >= SPECIAL:
            found.append((RESERVED, ""))
        else:
            data += bytes_
    return found + ([("text", data.decode("utf-8", "replace"))] if data else [])


_ENDS = {"start", "end", "call", "return", "endoftext"}


def runs(output: str | Sequence[int], in_body: bool = False, analysis: bool = False) -> list[Run]:
    """The output's runs. ``in_body``: the prompt left a message open; ``analysis``: on that channel."""
    found: list[Run] = []
    parts: list[tuple[str, str]] = []
    body = in_body

    def close(place: str) -> None:
        text = "".join(words for kind, words in parts if kind == "text")
        if parts or place == "header":
            found.append(Run(place, text, analysis if place == "body" else False, tuple(parts)))
        parts.clear()

    for kind, text in symbols(output):
        if kind in (RESERVED, UNKNOWN):
            continue
        if kind == "message" and not body:
            close("header")
            analysis = _says_analysis(found[-1].parts)
            body = True
        elif kind in _ENDS or (kind == "channel" and body):
            close("body" if body else "loose")
            body = False
            if kind in ("channel", "start"):
                parts.append((kind, ""))
        else:
            parts.append((kind, text))
    close("body" if body else "loose")
    return found


def _too_long(run: Run, first: bool) -> bool:
    """Whether a header is longer than a header may be; the first may have begun in the prompt."""
    return len(run.text) > _LIMIT - (80 if first else 0)


def _last_clause(run: Run, in_clause: bool) -> str:
    """A header's text behind its last ``<|channel|>``: in front of it, another may have stood for ``<|message|>``.

    ``in_clause``: the prompt held a ``<|channel|>`` of this header.
    """
    channels = [place for place, (kind, _) in enumerate(run.parts) if kind == "channel"]
    begin = channels[-1] if len(channels) + in_clause > 1 else 0
    return "".join(words for kind, words in run.parts[begin:] if kind == "text")


def _says_analysis(parts: Sequence[tuple[str, str]]) -> bool:
    """Whether a header has one channel clause and it is ``analysis``, alone or in front of white space."""
    clauses = [place for place, (kind, _) in enumerate(parts) if kind == "channel"]
    others = "".join(words for kind, words in parts if kind == "text")
    if len(clauses) != 1 or len(re.findall("analysis|commentary|final", others)) != 1:
        return False
    after = parts[clauses[0] + 1 : clauses[0] + 2]
    return bool(after) and after[0][0] == "text" and re.match(r"analysis(\s|$)", after[0][1]) is not None


def spoken(reply: Reply) -> tuple[list[str], list[str]]:
    """The texts of the fields, and those of the issues."""
    fields = [reply.reasoning_content or "", reply.content or ""]
    return fields + [call.arguments for call in reply.tool_calls], [issue.text for issue in reply.issues]


def ink(texts: Sequence[str]) -> Counter[str]:
    return Counter(word for text in texts for word in INK.findall(text))


class Account(NamedTuple):
    """What was written, and where its words were found.

    ``must``: words of bodies and loose text, to be found exactly as often as they were written; ``may``: of headers.
    """

    output: str | Sequence[int]
    reply: Reply
    found: list[Run]
    fields: list[str]
    issues: list[str]
    must: Counter[str]
    may: Counter[str]

    @property
    def everywhere(self) -> Counter[str]:
        return ink(self.fields) + ink(self.issues)


def check_text(
    output: str | Sequence[int], reply: Reply, in_body: bool, analysis: bool, repair: bool, in_clause: bool = False
) -> None:
    """Promises 2 and 3 for one reply."""
    must: Counter[str] = Counter()
    may: Counter[str] = Counter()
    found = runs(output, in_body, analysis)
    for run in found:
        # Of a header longer than a header may be some is text, and some may have been read as a header.
        (may if run.place == "header" else must).update(ink([run.text]))
    account = Account(output, reply, found, *spoken(reply), must, may)
    _check_headers_stay(account, in_clause)
    _check_words(account, repair)
    if not repair:
        _check_bodies_are_whole(account)
    _check_analysis_stays(account)
    _check_markers_stay(account)
    _check_issues(account)


def _check_headers_stay(account: Account, in_clause: bool) -> None:
    in_fields = ink(account.fields)
    for number, run in enumerate(account.found):
        if run.place != "header" or _too_long(run, number == 0):
            continue
        words, last = ink([run.text]), ink([_last_clause(run, in_clause and number == 0)])
        others = [other.text for other in account.found if other is not run]
        for word in last:
            if in_fields[word] > words[word] - last[word] and not any(word in text for text in others):
                raise Broken(f"no leak: header word {word} is in a field")


def _check_words(account: Account, repair: bool) -> None:
    """Each word as often as it was written, and no header word in silence."""
    reply, must, may, everywhere = account.reply, account.must, account.may, account.everywhere
    in_fields = ink(account.fields)
    for word, times in must.items():
        # A header's word may be quoted by two issues: `to=functions f` is misplaced, and one recipient too many.
        if not times <= everywhere[word] <= times + 2 * may[word] and not repair:
            raise Broken(f"conserved: {word} was written {times} times outside headers, found {everywhere[word]}")
    said = ink(
        [str(part) for message in reply.messages for part in message[:4]] + [call.name for call in reply.tool_calls]
    )
    # A word may be cut between two issues: a misspelled channel, and what is glued to it.
    said += ink(["".join(account.issues)])
    # The author of a message that is not the assistant's is not told.
    authors = any(issue.code in ("foreign_role", "swapped_call") for issue in reply.issues)
    for word, times in may.items():
        # A repeated clause may be quoted by one issue of each kind it breaks; in the fields it is counted above.
        if in_fields[word] > times + must[word]:
            raise Broken(f"conserved: {word} was written {times + must[word]} times, found {in_fields[word]} in fields")
        if not everywhere[word] and not said[word] and not authors:
            raise Broken(f"not silent: header word {word} is in no issue, no message and no tool name")
    for word in everywhere:
        if not must[word] and not may[word]:
            raise Broken(f"conserved: {word} was never written")


def _check_bodies_are_whole(account: Account) -> None:
    texts = account.fields + account.issues
    for run in account.found:
        # A call's white space became {}.
        if run.place == "body" and run.text.strip() and not any(run.text in text for text in texts):
            raise Broken(f"conserved: the body {run.text[:80]!r} stands nowhere as a whole")


def _check_analysis_stays(account: Account) -> None:
    content, written = account.reply.content or "", account.must + account.may
    for run in account.found:
        if run.place == "body" and run.analysis:
            for word, times in ink([run.text]).items():
                if word in content and times == written[word]:
                    raise Broken(f"no leak: {word} of analysis is in content")


def _check_markers_stay(account: Account) -> None:
    # Ordinary tokens may spell a marker; in text, its halves may stand on both sides of a marker that is dropped.
    ordinary = "".join("".join(words for kind, words in run.parts if kind == "text") for run in account.found)
    spelled = Counter(MARKER.findall(ordinary))
    names = [call.name for call in account.reply.tool_calls]
    for text in (*account.fields, *names):
        for word, times in Counter(MARKER.findall(text)).items():
            if times > spelled[word]:
                raise Broken(f"no leak: {word} in {text[:80]!r}")
    for name in names:
        if not name or re.search(r"\s", name):
            raise Broken(f"no leak: tool name {name!r}")


def _check_issues(account: Account) -> None:
    issues = account.reply.issues
    for issue in issues:
        if issue.code not in CODES:
            raise Broken(f"issue code {issue.code!r} is not documented")
        if not 0 <= issue.offset <= len(account.output):
            raise Broken(f"issue offset {issue.offset} of {len(account.output)}")
    kinds = Counter(kind for kind, _ in symbols(account.output))
    codes = Counter(issue.code for issue in issues)
    for kind, code in ((RESERVED, "reserved_token"), (UNKNOWN, "unknown_token")):
        if kinds[kind] != codes[code]:
            raise Broken(f"conserved: {kinds[kind]} {kind} ids, {codes[code]} issues {code}")


def plain(told: Reply | Delta) -> tuple[Any, ...]:
    """What is told, without what is random in it: the fields, and the rest of a reply."""
    calls = tuple((call.name, call.arguments) for call in told.tool_calls)
    return told.reasoning_content, told.content, calls, *(told[3:] if isinstance(told, Reply) else ())


def _from_deltas(deltas: Sequence[Delta]) -> Delta:
    """The deltas added up; each call must have begun before its arguments, and in its turn."""
    begun = 0
    for delta in deltas:
        for call in delta.tool_calls:
            if call.id is None and call.index >= begun:
                raise Broken("chunk-invariant: arguments before their call")
            if call.id is not None:
                if call.index != begun:
                    raise Broken(f"chunk-invariant: call {call.index} began after {begun} calls")
                begun += 1
    return sum(deltas, Delta())


def _from_events(events: Sequence[Event], stream: Stream) -> Reply:
    """The events added up; messages must begin and end in turns, with their text in between."""
    is_open = False
    for event in events:
        if isinstance(event, Started) == is_open:
            raise Broken(f"events: {type(event).__name__} {'inside' if is_open else 'outside'} a message")
        if isinstance(event, Text) and not event.text:
            raise Broken("events: Text that is empty")
        is_open = not isinstance(event, Ended)
    if is_open:
        raise Broken("events: a message never ended")
    return Reply.of(events, stream.issues, stream.reply.reasoning_tokens)


def check(
    output: str | Sequence[int],
    random: Random,
    prompt: str | Sequence[int] | None = None,
    tools: Sequence[str] | None = None,
    options: Options | None = None,
) -> Reply:
    """Check all promises on one output. Raises `Broken`, or whatever the parser raises (promise 1)."""
    options = options or Options()
    settings: dict[str, Any] = {"prompt": prompt, "tools": tools, "options": options}
    reply = parse(output, **settings)
    in_body = analysis = in_clause = False
    if prompt is not None:
        before = symbols(prompt)
        before = before[max((n for n, (kind, _) in enumerate(before) if kind == "start"), default=len(before)) :]
        kinds = [kind for kind, _ in before]
        in_body = "message" in kinds
        in_clause = "channel" in kinds and not in_body
        analysis = in_body and _says_analysis(before[1 : kinds.index("message")])
    check_text(output, reply, in_body, analysis, options.arguments == "repair", in_clause)
    whole = plain(reply)
    for by_events in (False, True):
        places = cuts(len(output), random)
        stream = Stream(prompt, tools, options)
        chunks = [output[begin:end] for begin, end in itertools.pairwise(places)]
        if by_events:
            events = [event for chunk in chunks for event in stream.feed_events(chunk)] + stream.finish_events()
            told = plain(_from_events(events, stream))
        else:
            told = plain(_from_deltas([*map(stream.feed, chunks), stream.finish()]))
        if told != whole[: len(told)]:
            raise Broken(f"chunk-invariant: {told} instead of {whole}, cut at {places}")
        if plain(stream.reply) != whole:
            raise Broken(f"chunk-invariant: {plain(stream.reply)} instead of {whole}, cut at {places}")
        if stream.tool_call_count != len(reply.tool_calls) or stream.reasoning_tokens != (reply.reasoning_tokens or 0):
            raise Broken(f"chunk-invariant: counts, cut at {places}")
    if random.random() < 0.1:
        _check_strict(output, settings, reply, cuts(len(output), random))
    return reply


def _check_strict(output: str | Sequence[int], settings: dict[str, Any], reply: Reply, places: list[int]) -> None:
    from dataclasses import replace

    wanted = next((issue for issue in reply.issues if issue.code not in BY_SETTING), None)
    stream = Stream(settings["prompt"], settings["tools"], replace(settings["options"], strict=True))
    raised = None
    try:
        for begin, end in itertools.pairwise(places):
            stream.feed(output[begin:end])
        stream.finish()
    except HarmonyParseError as error:
        raised = error.issue
    if raised != wanted:
        raise Broken(f"strict: raised {raised}, the first issue is {wanted}, cut at {places}")
