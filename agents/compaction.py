"""`python -m agents.compaction`: Codex over a WebSocket, and with a conversation that the server compacts.

Straight at the llama.cpp server, whose log says what came: the relay of the other runs knows no WebSockets.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

from . import run
from .clients import Codex, Place
from .install import Unavailable, install
from .scripts import calls, says
from .servers import CONTEXT, MODEL

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
    """``limit``: tokens at which Codex compacts; 0: it does not. ``answer``: what it prints in the end."""

    name: str
    websocket: bool
    limit: int
    answer: str


CASES = (
    Case("a loop over a WebSocket", True, 0, ANSWER),
    Case("a compacted loop over a WebSocket", True, 200, RESUMED),
    Case("a compacted loop", False, 200, RESUMED),
)


def drive(case: Case, program: Path, place: Place, server: ServerProcess) -> str:
    """What is wrong; nothing: all is well."""
    settings = place.home / ".codex" / "config.toml"
    if not settings.exists():
        Codex().prepare(place)
    text = re.sub(r'\nname = ".*"', f'\nname = "{"OpenAI" if case.limit else "local"}"', settings.read_text("utf-8"))
    text = re.sub(r"\nsupports_websockets.*|^model_auto_compact.*\n", "", text)
    text = text.replace(
        'wire_api = "responses"', f'wire_api = "responses"\nsupports_websockets = {case.websocket}'.lower()
    )
    if case.limit:
        text = f"model_auto_compact_token_limit = {case.limit}\n{text}"
    settings.write_text(text, "utf-8")
    environment = {"PATH": os.environ["PATH"], "HOME": str(place.home), "TERM": "dumb", "OPENAI_API_KEY": "none"}
    environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9") | {"NO_PROXY": "127.0.0.1"}
    logged = len(server.output())
    done = subprocess.run(
        [program, *Codex().command(place, "Do task-alpha.")],
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
    if {method for method, _ in seen} != {"WS" if case.websocket else "POST"}:
        return f"came as {seen}"
    return "" if {status for _, status in seen} == {"200"} else f"refused: {seen}"


def main() -> int:
    try:
        codex = install(Codex.package, Codex.program)
    except Unavailable as reason:
        print(f"Codex: skipped, {reason}", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as folder, run.place() as place:
        script = Path(folder, "script.jsonl")
        script.write_text("".join(json.dumps(each) + "\n" for each in SCRIPTS), "utf-8")
        flags = ("--model", str(build_model()), "--model_alias", MODEL, "--n_ctx", str(CONTEXT), "--n_threads", "1")
        with ServerProcess(["-m", "harmony_plugin.demo.server", "--script", str(script), *flags]) as server:
            place = Place(place.home, place.work, server.url)
            faults = [drive(case, codex.path, place, server) for case in CASES]
    for case, fault in zip(CASES, faults, strict=True):
        print(f"Codex {codex.version}, {case.name}: {fault or 'ok'}")
    return 1 if any(faults) else 0


if __name__ == "__main__":
    sys.exit(main())
