"""What becomes of a check. Knows no API and no server."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

__all__ = ["Cut", "Fails", "Missed", "Outcome", "Result", "SetupError", "Unclear", "shortened"]

LONGEST = 240
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Outcome(str, Enum):
    HOLDS = "holds"
    FAILS = "fails"
    UNCLEAR = "cannot tell"
    NOT_SERVED = "not served"


class Fails(Exception):
    """The server is wrong, whatever the model says: no further pass can help."""


class Missed(Exception):
    """The model did not do what was asked, or the server did not let it: fails, if it is so in every pass."""


class Unclear(Exception):
    """What came does not tell; where no pass holds, the check cannot tell."""


class Cut(Unclear):
    """A reply ended at the limit of tokens, and shows nothing."""


class SetupError(Exception):
    """Nothing can be checked; the message says what to do."""


@dataclass
class Result:
    """A check's outcome on one API. `passes`: how often it was asked; `more`: what only JSON tells."""

    check: str
    api: str
    outcome: Outcome
    detail: str
    passes: int = 0
    more: dict[str, Any] = field(default_factory=dict)


def shortened(text: object, longest: int = LONGEST) -> str:
    """`text` in one line that a terminal can show: what came from elsewhere may hold anything."""
    line = CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))
    return line if len(line) <= longest else line[: longest - 1] + "…"
