"""What the programs of this folder share: the task, and how they tell what their library gave.

Runs in an environment that holds one library: the standard library only.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

URL, MODEL, API = (*sys.argv[1:], "", "", "")[:3]


@dataclass
class Told:
    """What a run came to, as the library shows it.

    Attributes:
        answer: the text.
        thoughts: the reasoning; None: the library has no place for it.
        usage: tokens: `input`, `output`, `reasoning`, those of them that the library tells.
        value: the answer of a schema.
    """

    answer: str = ""
    thoughts: list[str] | None = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    value: Any = None


def prompt(run: str) -> str:
    return f"Do task-{run}."


def add(a: int, b: int) -> int:
    """The sum of two numbers."""
    return a + b


def main(runs: Mapping[str, Callable[[], Told]]) -> None:
    """Do each of `runs`, and print a line of JSON for it."""
    for name, run in runs.items():
        try:
            told: dict[str, Any] = asdict(run())
        except Exception as error:
            traceback.print_exc()
            told = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}
        print(json.dumps({"run": name, **told}), flush=True)
