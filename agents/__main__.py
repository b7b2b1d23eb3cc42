"""`python -m agents`: each agent through a whole tool loop, an answer by a schema, a second session, and a cancel.

The agents are real, from the npm registry; so are the servers and engines. What the model says is scripted, by the
engines' own sampling hooks. Nothing but this machine is reached: everything else is behind a proxy that is not there.
Prints a table; `--write` puts it into docs/agents.md.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .clients import AGENTS, Agent, Missing, binary

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "rigs")]

from harmony_plugin.demo.model import build_model  # noqa: E402
from harmony_plugin.demo.process import ServerProcess  # noqa: E402

PAGE = ROOT / "docs" / "agents.md"
BEGIN, END = "<!-- begin: agents -->\n", "<!-- end: agents -->\n"
SECONDS = 240
THOUGHT = "<|channel|>analysis<|message|>So be it.<|end|><|start|>assistant"
SAID = "It printed agent-said-hi."
ANSWER = '{"city":"Rome","degrees":21}'
REQUEST = re.compile(r" INFO POST (\S+) (\d+) (\S+).* in=(\d+) cached=(\d+)")


@dataclass
class Place:
    """A server: where it is, what it calls its model, and what it has said so far."""

    url: str
    model: str
    log: Callable[[], str]

    def requests(self) -> list[tuple[str, str, int, int]]:
        """Path, outcome, tokens of the prompt and those of them that were cached, of each request that has ended."""
        found = REQUEST.findall(self.log())
        return [(path, outcome, int(prompt), int(cached)) for path, _, outcome, prompt, cached in found]


def scripts(file: Path) -> Path:
    """What the model says, by what is asked."""
    lines = []
    for agent in AGENTS:
        tool, arguments = agent.tool
        call = f"{THOUGHT}<|channel|>commentary to=functions.{tool} <|constrain|>json<|message|>{arguments}<|call|>"
        final = f"{THOUGHT}<|channel|>final<|message|>"
        mark = agent.program.upper()
        lines += [
            {
                "id": f"{mark}-1",
                "when": f"{mark}-LOOP",
                "replies": [{"raw": call}, {"raw": f"{final}{SAID}<|return|>"}],
            },
            {"id": f"{mark}-2", "when": f"{mark}-SCHEMA", "raw": f"{final}{ANSWER}<|return|>"},
            {"id": f"{mark}-3", "when": f"{mark}-LONG", "raw": final + "on and " * 6000},
        ]
        if agent.program == "claude":  # it has a tool for its answer by a schema
            header = "<|channel|>commentary to=functions.StructuredOutput <|constrain|>json<|message|>"
            replies = [{"raw": f"{THOUGHT}{header}{ANSWER}<|call|>"}, {"raw": f"{final}{ANSWER}<|return|>"}]
            lines[-2] = {"id": f"{mark}-2", "when": f"{mark}-SCHEMA", "replies": replies}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return file


@contextmanager
def llamacpp(folder: Path) -> Iterator[Place]:
    """Our llama.cpp server."""
    model = ["--model", str(build_model()), "--model_alias", "tiny", "--n_ctx", "65536"]
    flags = ["--script", str(scripts(folder / "scripts.jsonl")), *model, "--n_threads", "2", "--n_threads_batch", "2"]
    with ServerProcess(["-m", "harmony_plugin.demo.server", *flags]) as server:
        yield Place(server.url, "tiny", server.output)


@contextmanager
def vllm(folder: Path) -> Iterator[Place]:
    """vLLM with the plugin."""
    from vllm_rig.server import Launch, running

    answers = ("VLLM_RIG_ANSWERS", str(scripts(folder / "scripts.jsonl")))
    with running(Launch(environment=(answers,), max_model_len=32768), folder / "vllm.log") as server:
        yield Place(server.url, "scripted", server.log_text)


SERVERS = {"llamacpp": llamacpp, "vllm": vllm}


class Trial:
    """One agent at one server."""

    def __init__(self, agent: Agent, place: Place, folder: Path) -> None:
        self._agent, self._place, self._folder = agent, place, folder
        self._program = str(binary(agent))
        self._environment = agent.prepare(folder, place.url, place.model)

    def version(self) -> str:
        done = self._start(["--version"]).communicate(timeout=60)[0]
        found = re.search(r"\d+\.\d+\.\d+", done)
        return found[0] if found else "?"

    def loop(self) -> str:
        """A question, a call of its tool, the result, an answer."""
        before = len(self._place.requests())
        said = self._ask(f"{self._agent.program.upper()}-LOOP: run the command, then say what it printed")
        if SAID not in said:
            return f"**fails**: {' '.join(said.split())[-200:]}"
        seen = self._place.requests()[before:]
        return "ok" if not seen else f"ok, {seen[-1][3]:,} of {seen[-1][2]:,} tokens cached on the last turn"

    def again(self) -> str:
        """Another session: how much of its prompt is known."""
        before = len(self._place.requests())
        said = self._ask(f"{self._agent.program.upper()}-LOOP: another session, the same question")
        seen = self._place.requests()[before:]
        if SAID not in said or not seen:
            return "–"
        longest = max(seen[:-1] or seen, key=lambda request: request[2])
        return f"{longest[3]:,} of {longest[2]:,}"

    def schema(self) -> str:
        """An answer by a schema."""
        if not self._agent.schema:
            return "it has none"
        said = self._ask(f"{self._agent.program.upper()}-SCHEMA: where is it how warm?", schema=True)
        return "ok" if ANSWER in said.replace(" ", "") else f"**fails**: {' '.join(said.split())[-200:]}"

    def cancel(self) -> str:
        """It is stopped in the middle of a reply: the server stops, too."""
        process = self._start(self._command("LONG: talk", False))
        began = time.monotonic()
        while time.monotonic() - began < SECONDS and not self._under_way():
            time.sleep(0.2)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        for _ in range(100):
            if not self._under_way():
                return "ok"
            time.sleep(0.2)
        return "**fails**: the reply goes on"

    def _under_way(self) -> bool:
        import urllib.request

        with urllib.request.urlopen(f"{self._place.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = re.search(r"^(?:harmony_requests_running|vllm:num_requests_running\S*) (\S+)$", text, re.MULTILINE)
        return found is not None and float(found[1]) > 0

    def _ask(self, prompt: str, schema: bool = False) -> str:
        process = self._start(self._agent.command(self._folder, prompt, schema))
        try:
            return process.communicate(timeout=SECONDS)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            return f"no answer in {SECONDS} s: {process.communicate()[0]}"

    def _command(self, prompt: str, schema: bool) -> list[str]:
        return self._agent.command(self._folder, f"{self._agent.program.upper()}-{prompt}", schema)

    def _start(self, arguments: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self._program, *arguments],
            cwd=self._folder / "work",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", choices=[*SERVERS], help="this one alone (default: both)")
    parser.add_argument("--only", action="append", choices=[agent.program for agent in AGENTS], help="this agent alone")
    parser.add_argument("--write", action="store_true", help="put the table into docs/agents.md")
    arguments = parser.parse_args()
    lines = [
        "| client | version | API | server | loop | a new session's tokens cached | structured output | cancel |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in arguments.server or SERVERS:
        with tempfile.TemporaryDirectory() as folder, SERVERS[name](Path(folder)) as place:
            for agent in AGENTS:
                if not arguments.only or agent.program in arguments.only:
                    lines.append(row(agent, name, place))
                    print(lines[-1], flush=True)
    table = "\n".join(lines) + "\n"
    print(f"\n{table}")
    if arguments.write:
        before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        PAGE.write_text(before + BEGIN + table + END + rest.partition(END)[2], "utf-8")
    return int("**fails**" in table)


def row(agent: Agent, server: str, place: Place) -> str:
    """What one agent did at one server."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            trial = Trial(agent, place, Path(folder))
        except Missing as missing:
            return f"| {agent.name} | – | {agent.api} | {server} | left out: {missing} | | | |"
        cells = [trial.version(), agent.api, server, trial.loop(), trial.again(), trial.schema(), trial.cancel()]
    return f"| {agent.name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
