"""The command line of `python -m agents` and `python -m agents.libraries`. Knows what they run by name alone."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from scripts.generated import Part

from .servers import SERVERS

__all__ = ["read", "tell"]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "agents.md"
Outcome = TypeVar("Outcome", bound=Any)


def read(program: str, about: str | None, what: str, names: Iterable[str]) -> argparse.Namespace:
    """The arguments, and the process set up to end what it started.

    Args:
        about: the program's docstring.
        what: what it runs, as the argument that names some is called.
        names: what may be named.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that agents and servers are ended, too
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=(about or "").split("\n")[0])
    parser.add_argument(what, nargs="*", choices=[*names, []], help="which; all of them by default")
    parser.add_argument("--server", action="append", choices=[*SERVERS], help="which; both by default")
    parser.add_argument("--update", action="store_true", help="install the newest releases, rather than use the cache")
    parser.add_argument("--json", action="store_true", help="print JSON, rather than a table")
    parser.add_argument("--record", action="store_true", help="keep what they send to llamacpp for the tests")
    parser.add_argument("--write", action="store_true", help="put the table into docs/agents.md")
    return parser.parse_args()


def tell(
    given: argparse.Namespace,
    drive: Callable[[str, bool], Iterable[Outcome]],
    table: Callable[[Sequence[Outcome]], str],
    part: str,
) -> int:
    """Run everything against each server, and tell what came of it; gives the exit status.

    Args:
        drive: runs everything against one server; also told whether what is sent is to be kept for the tests.
        table: the outcomes as Markdown.
        part: the name of the table's place in the document.
    """
    outcomes = [
        outcome
        for server in given.server or SERVERS
        for outcome in drive(server, given.record and server == "llamacpp")
    ]
    if given.write:
        Part(PAGE, part).write(table(outcomes) + "\n")
    if given.json:
        fields = [{k: v for k, v in asdict(outcome).items() if k != "exchanges"} for outcome in outcomes]
        print(json.dumps(fields, indent=2, ensure_ascii=False))
    else:
        print(table(outcomes))
    return 0 if all(outcome.sound for outcome in outcomes) else 1
