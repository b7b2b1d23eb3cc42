"""`python -m agents.compaction`: Codex over a WebSocket, and with a conversation that the server compacts.

Straight at the llama.cpp server, whose log says what came: the relay of the other runs knows no WebSockets.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from harmony_plugin.demo.process import ServerProcess

from . import run
from .clients import Codex, Place
from .install import Unavailable, install
from .scripts import calls, says
from .servers import scripted

ANSWER, RESUMED = "All done, the loop is closed.", "All done, from the summary."
SCRIPTS = (
    {"id": "summary", "when": "Sum this conversation up", "raw": says("The note was read.", "What mattered?")},
    {"id": "resumed", "when": "This is its summary", "raw": says(RESUMED)},
    {
        "id": "loop",
        "when": "task-alpha",
        "replies": [
            *({"raw": calls(("exec_command", {"cmd": f"cat note.txt; echo {i}"}), thought="Look.")} for i in range(2)),
            {"raw": says(ANSWER)},
        ],
    },
)


class Case(NamedTuple):
    """``method``: how its requests come, as the server's log has it. ``answer``: what is printed in the end."""

    name: str
    codex: Codex
    method: str
    answer: str


CASES = (
    Case("a loop over a WebSocket", Codex(websockets=True), "WS", ANSWER),
    Case("a compacted loop over a WebSocket", Codex("OpenAI", websockets=True, compact_at=200), "WS", RESUMED),
    Case("a compacted loop", Codex("OpenAI", compact_at=200), "POST", RESUMED),
)


def drive(case: Case, program: Path, place: Place, server: ServerProcess) -> str:
    """What is wrong; nothing: all is well."""
    case.codex.prepare(place)
    environment = {"PATH": os.environ["PATH"], "HOME": str(place.home), "TERM": "dumb", "OPENAI_API_KEY": "none"}
    environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9") | {"NO_PROXY": "127.0.0.1"}
    logged = len(server.output())
    done = subprocess.run(
        [program, *case.codex.command(place, "Do task-alpha.")],
        cwd=place.work,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=run.TIMEOUT,
        check=False,
    )
    if done.returncode or case.answer not in done.stdout:
        return f"exit status {done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}"
    seen = re.findall(r"INFO (WS|POST) /v1/responses (\d+)", server.output()[logged:])
    if {method for method, _ in seen} != {case.method}:
        return f"came as {seen}"
    return "" if {status for _, status in seen} == {"200"} else f"refused: {seen}"


def main() -> int:
    try:
        codex = install(Codex.package, Codex.program)
    except Unavailable as reason:
        print(f"Codex: skipped, {reason}", file=sys.stderr)
        return 0
    faults = []
    with scripted(SCRIPTS) as server:
        for case in CASES:
            with run.place() as place:
                faults.append(drive(case, codex.path, Place(place.home, place.work, server.url), server))
    for case, fault in zip(CASES, faults, strict=True):
        print(f"Codex {codex.version}, {case.name}: {fault or 'ok'}")
    return 1 if any(faults) else 0


if __name__ == "__main__":
    sys.exit(main())
