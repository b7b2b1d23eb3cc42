"""`python -m agents`: Codex, Claude Code and OpenCode through whole tool loops against both servers; prints a table.

The real programs, of npm, each in a home folder of its own, against the real servers whose choice of tokens is
scripted. What an agent asks of other addresses is refused and named. The exit status is 1 if an agent failed, or a
server refused one of its requests; an agent that cannot be installed here is skipped with its reason.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from . import command, recording, run
from .clients import AGENTS, Agent, Place
from .install import Installed, Unavailable, install
from .servers import SERVERS

COLUMNS = ("loop", "reasoning back", "structured output", "cancel")


def table(outcomes: Sequence[run.Outcome]) -> str:
    """The outcomes as Markdown."""
    heads = (
        "client",
        "version",
        "API",
        "server",
        *COLUMNS,
        "two calls at once",
        "cached, turn 2",
        "cached, new session",
    )
    rows = [heads, tuple("---" for _ in heads)]
    for outcome in outcomes:
        marks = [_mark(outcome.checks.get(name)) for name in COLUMNS]
        calls = "not asked" if outcome.several is None else "both" if outcome.several else "the first"
        cached = [_share(outcome.cached.get(name)) for name in ("second turn", "second session")]
        rows.append((outcome.agent, outcome.version, outcome.api, outcome.server, *marks, calls, *cached))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _mark(check: str | None) -> str:
    return "not offered" if check is None else f"**{check}**" if check else "ok"


def _share(cached: tuple[int, int] | None) -> str:
    return f"{cached[1]:,} of {cached[0]:,}" if cached else "not measured"


def drive(server: str, agents: Sequence[tuple[Agent, Installed]], *, recorded: bool = False) -> list[run.Outcome]:
    """Every agent against one server. `recorded`: whether what they send is kept for the tests."""
    with ExitStack() as stack:
        places = [stack.enter_context(run.place()) for _ in agents]
        said = [run.scripts(agent, place) for (agent, _), place in zip(agents, places, strict=True)]
        running = stack.enter_context(SERVERS[server](text for each in said for text in each.replies()))
        outcomes: list[run.Outcome] = []
        for (agent, installed), place, each in zip(agents, places, said, strict=True):
            print(f"{agent.name} {installed.version} against {server} ...", file=sys.stderr, flush=True)
            outcomes.append(run.run(agent, installed, place, running, each))
            _tell(outcomes[-1], place)
        if recorded:
            recording.record(outcomes, places)
        return outcomes


def _tell(outcome: run.Outcome, place: Place) -> None:
    """What the table has no room for."""
    for fault in outcome.faults:
        print(f"  refused: {fault}", file=sys.stderr)
    if outcome.outside:
        print(f"  also asked for, and refused: {', '.join(outcome.outside)}", file=sys.stderr)
    errors = Path(place.home, "errors.log")
    if not outcome.sound and errors.exists():
        print("  " + "\n  ".join(errors.read_text("utf-8", "replace").splitlines()[-10:]), file=sys.stderr)


def main() -> int:
    names = {agent.key: agent for agent in AGENTS}
    given = command.read("agents", __doc__, "agent", names)
    agents: list[tuple[Agent, Installed]] = []
    for name in given.agent or names:
        agent = names[name]
        try:
            agents.append((agent, install(agent.package, agent.program, latest=given.update)))
        except Unavailable as reason:
            print(f"{agent.name}: skipped, {reason}", file=sys.stderr)
    return command.tell(given, lambda server, recorded: drive(server, agents, recorded=recorded), table, "agents")


if __name__ == "__main__":
    sys.exit(main())
