"""`python -m agents.libraries`: the libraries that agents are written with, against both servers; prints a table.

Each library in an environment of its own, of the release that was the newest when it was first run, against the real
servers whose choice of tokens is scripted: a tool loop, whole and streamed, and answers of a schema. What a library
asks of other addresses is refused and named. The exit status is 1 if something went wrong that is not known to; a
library that cannot be installed here is skipped with its reason.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack

from .. import command, recording
from ..install import Unavailable
from ..run import place
from ..servers import SERVERS
from . import run
from .clients import LIBRARIES, Library

RECORDED = recording.RECORDED.with_name("library_requests.jsonl")


def table(outcomes: Sequence[run.Outcome]) -> str:
    """The outcomes as Markdown, and what is known of those that are not well."""
    loops = ("tool loop", "streamed loop", "structured output", "reasoning shown", "reasoning back", "usage")
    heads: tuple[str, ...] = ("library", "version", "API", "server", *loops, "two calls at once")
    rows = [heads, tuple("---" for _ in heads)]
    why: list[str] = []
    for outcome in outcomes:
        marks = [_mark(outcome, name, why) for name in run.LOOPS]
        marks.append(", ".join(f"{name} {_mark(outcome, name, why)}" for name in run.SHAPES if name in outcome.checks))
        marks += [_mark(outcome, name, why) for name in ("reasoning shown", "reasoning back", "usage")]
        calls = "both" if outcome.several else "the first" if "usage" in outcome.checks else _missing(outcome)
        rows.append((outcome.library, outcome.version, outcome.api, outcome.server, *marks, calls))
    notes = "".join(f"\n{number}. {reason}" for number, reason in enumerate(why, 1))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + (f"\n{notes}" if notes else "")


def _mark(outcome: run.Outcome, name: str, why: list[str]) -> str:
    """A cell; what is known of it is put in `why`, once, and named by its number."""
    wrong = outcome.checks.get(name)
    if wrong is None:
        return _missing(outcome)
    if not wrong:
        return outcome.back if name == "reasoning back" else "ok"
    reason = outcome.known.get(name)
    if reason is None:
        return f"**{wrong}**"
    if reason not in why:
        why.append(reason)
    return f"no ({why.index(reason) + 1})"


def _missing(outcome: run.Outcome) -> str:
    """What a cell says of what was not judged: a loop that failed leaves nothing to look at."""
    return "not reached" if outcome.checks.get("loop") and "usage" not in outcome.checks else "none"


def main() -> int:
    names = {library.key: library for library in LIBRARIES}
    given = command.read("agents.libraries", __doc__, "library", names)
    programs: list[tuple[Library, run.Program]] = []
    for name in given.library or names:
        try:
            print(f"{name}: looking for it ...", file=sys.stderr, flush=True)
            programs.append((names[name], run.Program(names[name], latest=given.update)))
        except Unavailable as reason:
            print(f"{name}: skipped, {reason}", file=sys.stderr)
    return command.tell(given, lambda server, recorded: drive(server, programs, recorded=recorded), table, "libraries")


def drive(server: str, programs: Sequence[tuple[Library, run.Program]], *, recorded: bool = False) -> list[run.Outcome]:
    """Every library against one server. `recorded`: whether what they send is kept for the tests."""
    outcomes: list[run.Outcome] = []
    lines: list[recording.Json] = []
    said = [text for library, _ in programs for text in run.scripts(library).replies()]
    with ExitStack() as stack:
        running = stack.enter_context(SERVERS[server](said))
        for library, program in programs:
            for api in library.apis:
                print(f"{library.key}, {api}, against {server} ...", file=sys.stderr, flush=True)
                here = stack.enter_context(place())
                outcomes.append(run.run(library, api, program, here, running))
                _tell(outcomes[-1])
                name = f"{library.key}, {api}"
                words = [f"task-{word}." for word in ("streamed", "schema", "tool")]
                lines += recording.lines(name, program.version, outcomes[-1].exchanges, words, here)
    if recorded:
        recording.write(RECORDED, lines)
    return outcomes


def _tell(outcome: run.Outcome) -> None:
    """What the table has no room for."""
    for name, wrong in outcome.checks.items():
        if wrong:
            print(f"  {name}: {wrong}; known: {outcome.known.get(name, 'no')}", file=sys.stderr)
    if outcome.outside:
        print(f"  also asked for, and refused: {', '.join(outcome.outside)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
