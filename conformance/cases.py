"""The project's own cases against `openai_harmony`, strict and not: where the core differs, a line that says why.

Reads tests/cases/split.jsonl; the reasons are found by looking at what each side gives, never by the case's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import openai_harmony as library

from harmony_plugin import Dialect, Message, Reply, parse
from harmony_plugin.core import harmony_encoding

CASES = Path(__file__).resolve().parent.parent / "tests" / "cases" / "split.jsonl"

#: Code of the core's issue: what it means for a difference. The first that a case has is its reason.
REASONS = {
    "missing_start": "`<|start|>` is missing: SPEC 5 goes on as the assistant",
    "missing_end": "an end marker is missing: SPEC 5 closes the message, the library takes the markers for body",
    "missing_message": "`<|message|>` is missing: SPEC 5 keeps the words",
    "incomplete_header": "the output ends inside a header",
    "header_words": "words that mean nothing in a header: SPEC 5 ignores them with an issue",
    "stray_marker": "a marker with no meaning where it stands: SPEC 5 drops it",
    "filler": "a role or channel word alone: SPEC 5 drops it",
    "loose_text": "text outside any message: SPEC 5 keeps it",
    "repeated_channel": "several channels: SPEC 5 takes the last known one",
    "repeated_recipient": "several recipients: SPEC 5 takes the first",
    "misplaced_recipient": "a recipient outside `to=`: SPEC 5 finds it",
    "missing_channel": "a channel word without its marker: SPEC 5 takes it for the channel",
    "misspelled_channel": "a misspelled channel: SPEC 4 takes it for the one meant",
    "unknown_channel": "a channel that nobody knows",
    "repeated_role": "the role stands twice: SPEC 5",
}


class Row(NamedTuple):
    """One case. ``strict`` and ``lenient``: "same", "differs" or the library's error; ``why``: the reason, or ""."""

    id: str
    strict: str
    lenient: str
    why: str


def ids_of(case: Mapping[str, Any]) -> list[int]:
    encoding = harmony_encoding()
    if case.get("token_ids"):
        return list(case["token_ids"])
    if case.get("segments"):
        ids: list[int] = []
        for kind, text in case["segments"]:
            ids += encoding.encode(
                text, **({"allowed_special": "all"} if kind == "special" else {"disallowed_special": ()})
            )
        return ids
    return list(encoding.encode(case["raw"], allowed_special="all"))


def _said(message: Message) -> tuple[Any, ...]:
    return message.role, message.channel, message.recipient, message.content_type, message.text


def _theirs(ids: list[int], strict: bool) -> list[tuple[Any, ...]] | str:
    # Where the output has its own <|start|>, the library must not be told of a role before it.
    role = None if ids[:1] == [Dialect().ids["start"]] else library.Role.ASSISTANT
    parser = library.StreamableParser(harmony_encoding(), role, strict=strict)
    try:
        for token in ids:
            parser.process(token)
        parser.process_eos()
    except library.HarmonyError as error:
        return f"error: {str(error).partition(':')[0]}"
    return [
        (
            m.author.role.value,
            m.channel,
            m.recipient,
            m.content_type,
            "".join(getattr(c, "text", "") for c in m.content),
        )
        for m in parser.messages
    ]


def _as_type(message: tuple[Any, ...]) -> tuple[Any, ...]:
    """The library takes a content type for the recipient where there is none; SPEC 5: a content type never is one."""
    role, channel, recipient, kind, text = message
    if kind is None and recipient and recipient.removeprefix("<|constrain|>") in ("json", "code"):
        return role, channel, None, recipient, text
    return message


def _why(reply: Reply, ours: list[tuple[Any, ...]], theirs: list[tuple[Any, ...]] | str) -> str:
    codes = [issue.code for issue in reply.issues]
    if isinstance(theirs, list) and [_as_type(message) for message in theirs] == ours:
        return "the library takes the content type for the recipient; SPEC 5: a content type never is one"
    for code, reason in REASONS.items():
        if code in codes:
            return reason
    return "UNEXPLAINED"


def rows() -> list[Row]:
    """Every case, in the file's order."""
    found = []
    for line in CASES.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        ids = ids_of(case)
        reply = parse(ids, tools=case.get("tools"))
        ours = [_said(message) for message in reply.messages]
        marks, why = [], ""
        for strict in (True, False):
            theirs = _theirs(ids, strict)
            marks.append(theirs if isinstance(theirs, str) else "same" if theirs == ours else "differs")
            if marks[-1] != "same":
                why = _why(reply, ours, theirs)
        found.append(Row(case["id"], marks[0], marks[1], why))
    return found
