"""Tokens: the kinds of token that the core tells apart, Harmony's markers, and o200k_harmony's numbers.

The one place that knows these numbers. Source: the o200k_harmony vocabulary (openai/harmony, docs/format.md).
"""

from __future__ import annotations

__all__ = [
    "CALL",
    "CHANNEL",
    "CONSTRAIN",
    "END",
    "INVALID",
    "KIND_OF",
    "MARKER_IDS",
    "MESSAGE",
    "RESERVED",
    "RETURN",
    "SPECIAL_IDS",
    "SPELLED",
    "START",
    "TEXT",
    "UNKNOWN",
    "VOCABULARY_SIZE",
    "Token",
]

#: Kinds of token. The last three are nothing for the message: a reserved id, an unknown id, bytes that are not UTF-8.
TEXT, START, MESSAGE, CHANNEL, CONSTRAIN, END, CALL, RETURN, RESERVED, UNKNOWN, INVALID = range(11)

#: ``(kind, text, offset, ids)``: its kind, its text (a marker's spelling), where it began in the output (in ids or
#: characters) and how many ids it took (0 for text input).
Token = tuple[int, str, int, int]

#: The kind of token that each marker is, by the marker's name. ``endoftext`` is not one of Harmony's seven, but ends
#: output like ``return``.
KIND_OF = {
    "start": START,
    "end": END,
    "message": MESSAGE,
    "channel": CHANNEL,
    "constrain": CONSTRAIN,
    "return": RETURN,
    "call": CALL,
    "endoftext": RETURN,
}
#: How Harmony spells them.
SPELLED = {name: f"<|{name}|>" for name in KIND_OF}
#: Their ids in o200k_harmony.
MARKER_IDS = {
    "start": 200006,
    "end": 200007,
    "message": 200008,
    "channel": 200005,
    "constrain": 200003,
    "return": 200002,
    "call": 200012,
    "endoftext": 199999,
}
#: gpt-oss's embedding rows.
VOCABULARY_SIZE = 201088
#: The ids behind the last ordinary one: markers, and those that mean nothing yet.
SPECIAL_IDS = range(199998, VOCABULARY_SIZE)
