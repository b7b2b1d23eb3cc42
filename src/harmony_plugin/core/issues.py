"""Issues: what was wrong with the output, as a fixed, documented set of codes.

Knows nothing of how they are found. SPEC: "Nothing is lost silently": text that reaches no field is in an issue's text.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from .errors import HarmonyError

__all__ = ["CODES", "Code", "HarmonyParseError", "Issue", "Unit", "meaning"]

Code = Literal[
    "missing_start",
    "missing_end",
    "missing_message",
    "missing_role",
    "incomplete_header",
    "header_words",
    "header_too_long",
    "stray_marker",
    "filler",
    "loose_text",
    "missing_channel",
    "repeated_channel",
    "misspelled_channel",
    "unknown_channel",
    "repeated_recipient",
    "misplaced_recipient",
    "misspelled_role",
    "repeated_role",
    "foreign_role",
    "swapped_call",
    "builtin_tool",
    "dropped_call",
    "dropped_text",
    "arguments_not_json",
    "arguments_repaired",
    "reserved_token",
    "unknown_token",
    "invalid_utf8",
]
#: What an issue's offset counts.
Unit = Literal["tokens", "characters"]

#: Every code that an `Issue` can carry, with its meaning.
CODES: Final[dict[Code, str]] = {
    "missing_start": "a message began without <|start|>; taken as <|start|>assistant",
    "missing_end": "a message ended without an end marker, because another one began",
    "missing_message": "a header ended without <|message|>; text: what reached no field",
    "missing_role": "a header names no role; taken as assistant",
    "incomplete_header": "the output ended inside a header; text: the header's words",
    "header_words": "words in a header that mean nothing there; text: the words",
    "header_too_long": "a header of more than 512 characters; its words were taken as text",
    "stray_marker": "a marker that means nothing where it stood; text: the marker",
    "filler": "role or channel words alone between messages; text: the words",
    "loose_text": "text outside any message; text: it, where it reached no field",
    "missing_channel": "a channel word without <|channel|>; text: the word",
    "repeated_channel": "several channel clauses; the last known one counts",
    "misspelled_channel": "a channel that was taken for a known one; text: as written",
    "unknown_channel": "a channel nobody knows; its body is content; text: the channel",
    "repeated_recipient": "several recipients; the first that is not the assistant counts",
    "misplaced_recipient": "a recipient outside a to= clause, or to= without a recipient's name; text: as written",
    "misspelled_role": "a role that was taken for the assistant; text: as written",
    "repeated_role": "the role stood more than once",
    "foreign_role": "the model played another role; text: what it wrote as that role",
    "swapped_call": "author and recipient of a tool call were swapped",
    "builtin_tool": "a call of a built-in tool that nobody offered; text: its body",
    "dropped_call": "a tool call that the request (tool_choice none) or a setting (output) leaves out; text: its body",
    "dropped_text": "text that the settings drop, of a channel or all reasoning; text: it",
    "arguments_not_json": "the arguments of a tool call are not JSON; passed on as they are",
    "arguments_repaired": "the arguments of a tool call were not JSON and were repaired; text: as written",
    "reserved_token": "a reserved special token, dropped; text: the token",
    "unknown_token": "an id that the vocabulary does not have, dropped; text: the id",
    "invalid_utf8": "bytes that are not UTF-8; U+FFFD stands in their place",
}


def meaning(code: Code) -> str:
    """What a code means, without what its issues' text is."""
    return CODES[code].partition("; text:")[0]


#: Codes that tell of a setting at work, not of malformed output: strict mode does not raise on them.
BY_SETTING: Final = frozenset({"dropped_call", "dropped_text", "builtin_tool"})


class Issue(NamedTuple):
    """One thing that was wrong.

    ``code``: a key of `CODES`. ``offset``: where in the output, counted in ``unit``: token ids, or characters where the
    output was given as text. ``text``: the model's text that reached no other field, or the marker or word meant;
    else "".
    """

    code: Code
    offset: int
    text: str = ""
    unit: Unit = "characters"


class HarmonyParseError(HarmonyError, ValueError):
    """Strict mode met an issue. ``issue`` is that `Issue`; ``code``, ``offset``, ``text`` and ``unit`` are its own."""

    def __init__(self, issue: Issue) -> None:
        where = f"token {issue.offset}" if issue.unit == "tokens" else f"character {issue.offset}"
        super().__init__(f"{issue.code} at {where}: {CODES[issue.code]}" + (f" ({issue.text!r})" if issue.text else ""))
        self.issue = issue
        self.code, self.offset, self.text, self.unit = issue

    def __reduce__(self) -> tuple[type[HarmonyParseError], tuple[Issue]]:
        # An exception is made anew from its arguments, elsewhere (a pool of processes): its own is the issue.
        return type(self), (self.issue,)
