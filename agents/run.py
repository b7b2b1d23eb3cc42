"""Runs an agent against a server and judges what came of it. Knows agents, scripts and the relay; prints nothing."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from .clients import Agent, Place
from .install import Installed
from .relay import Exchange, Relay, history
from .scripts import ENDLESS, THOUGHT, Scripts, calls, says
from .servers import Server

__all__ = ["Outcome", "run", "scripts"]

Json: TypeAlias = "dict[str, Any]"

LOOP, AGAIN, SHAPED, CANCEL, HELPER = ("task-alpha", "task-beta", "task-gamma", "task-delta", "task-epsilon")
NOTE = "The secret word is halibut.\nold\n"
DONE = "All done, the loop is closed."
VALUE = {"sum": 5555}
SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}},
    "required": ["sum"],
    "additionalProperties": False,
}
# What the agent has to hand in for the call of a step. Of two calls in one reply, what the second one prints.
EVIDENCE = {"shell": "halibut", "MCP": "5555"}
SECOND = "quokka"
TIMEOUT = 240


@dataclass
class Outcome:
    """What came of an agent's runs. Each of `checks` is empty where all is well, else it says what is not.

    Attributes:
        several: whether it got both calls of a reply with two; None: it was given none.
        cached: prompt tokens and how many of them were cached: of the loop's second request, and of a second session's
            first.
        outside: addresses other than the server's that it asked for, and was refused.
        faults: requests that the server refused, with its words.
    """

    agent: str
    version: str
    api: str
    server: str
    checks: dict[str, str] = field(default_factory=dict)
    several: bool | None = None
    cached: dict[str, tuple[int, int]] = field(default_factory=dict)
    requests: int = 0
    outside: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not any(self.checks.values()) and not self.faults


def scripts(agent: Agent, place: Place) -> Scripts:
    """What the model says in all of an agent's runs."""
    steps = agent.steps(place, f"Do {HELPER}.")
    loop = [
        calls(*wanted, thought=THOUGHT.format(i), preamble="First, a look." if i == 0 else None)
        for i, wanted in enumerate(steps.values())
    ]
    wanted = agent.answer(VALUE)
    shaped = [calls(*wanted)] if wanted else []
    return Scripts(
        {
            LOOP: [*loop, says(DONE, THOUGHT.format(len(loop)))],
            AGAIN: [says("Nothing to do.")],
            SHAPED: [*shaped, says(json.dumps(VALUE), json_type=True)],
            CANCEL: [ENDLESS],
            HELPER: [says("I have helped.", "A helper's thought.")],
        }
    )


def run(agent: Agent, installed: Installed, place: Place, server: Server, said: Scripts) -> Outcome:
    """Drive one agent through all runs."""
    outcome = Outcome(agent.name, installed.version, agent.api, server.name)

    def script(exchange: Exchange, body: Json) -> None:
        said.answer(exchange, body)
        server.say(exchange.path, body, exchange.said)

    with Relay(server.url, script) as relay:
        place = Place(place.home, place.work, relay.url)
        settings = agent.prepare(place)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(place.home),
            "TERM": "dumb",
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), relay.url),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
            **settings,
        }
        session = _Session(agent, installed, place, environment, relay, server)
        outcome.checks["loop"] = session.loop()
        outcome.checks["reasoning back"] = session.reasoning()
        outcome.checks["second session"] = session.again()
        if agent.structured:
            outcome.checks["structured output"] = session.shaped()
        outcome.checks["cancel"] = session.cancel()
        outcome.several = session.several()
        outcome.cached = session.cached
        outcome.exchanges = relay.exchanges
        outcome.requests = sum(exchange.generates for exchange in relay.exchanges)
        outcome.outside = list(dict.fromkeys(relay.outside))
        outcome.faults = [
            f"{e.method} {e.path} {e.status}: {e.reply.decode('utf-8', 'replace')[:300]}"
            for e in relay.exchanges
            if e.status >= 400
        ]
    return outcome


@dataclass
class _Session:
    agent: Agent
    installed: Installed
    place: Place
    environment: dict[str, str]
    relay: Relay
    server: Server
    cached: dict[str, tuple[int, int]] = field(default_factory=dict)

    def loop(self) -> str:
        (self.place.work / "note.txt").write_text(NOTE, "utf-8")
        (self.place.work / "picture.png").write_bytes(_picture())
        code, output = self._start(f"Do {LOOP}.")
        main = self._of(LOOP)
        if len(main) > 1:
            self.cached["second turn"] = _cached(main[1])
        last = json.dumps(history(main[-1].path, main[-1].body or {})) if main else ""
        steps = list(self.agent.steps(self.place, ""))
        wrong = [f"{step}: no result" for step in steps if step in EVIDENCE and EVIDENCE[step] not in last]
        done = {
            "picture": "image" in last,
            "edit": (self.place.work / "note.txt").read_text("utf-8") == NOTE.replace("old", "new"),
            "agent": bool(self._of(HELPER)),
        }
        wrong += [f"{step}: not done" for step, right in done.items() if step in steps and not right]
        wrong += ["not streamed"] * (not all((exchange.body or {}).get("stream") for exchange in main))
        wrong += [f"ended with {code}"] * (code != 0) + ["the answer is not printed"] * (DONE not in output)
        return "; ".join(wrong)

    def reasoning(self) -> str:
        main = self._of(LOOP)
        last = json.dumps(history(main[-1].path, main[-1].body or {})) if main else ""
        lacking = [i for i in range(len(self.agent.steps(self.place, ""))) if THOUGHT.format(i) not in last]
        return f"not of replies {', '.join(map(str, lacking))}" if lacking else ""

    def several(self) -> bool | None:
        if "two calls" not in self.agent.steps(self.place, ""):
            return None
        main = self._of(LOOP)
        return bool(main) and f"{SECOND}\\n" in json.dumps(history(main[-1].path, main[-1].body or {}))

    def again(self) -> str:
        code, _ = self._start(f"Do {AGAIN}.")
        main = self._of(AGAIN)
        if main:
            self.cached["second session"] = _cached(main[0])
        return f"ended with {code}" if code else ""

    def shaped(self) -> str:
        schema = self.place.home / "schema.json"
        schema.write_text(json.dumps(SCHEMA), "utf-8")
        code, output = self._start(f"Do {SHAPED}.", schema)
        if code:
            return f"ended with {code}"
        given = self.agent.given(output)
        return "" if given == VALUE else f"gave {given!r}"

    def cancel(self) -> str:
        """Whether the server stops when the agent is interrupted, as by Ctrl+C."""
        process = self._popen(f"Do {CANCEL}.")

        def began() -> bool:
            return any(len(exchange.reply) > 4_000 for exchange in self._of(CANCEL))

        try:
            if not _wait(began, 120):
                return "the reply did not begin"
            time.sleep(1)  # OpenCode has gone on when interrupted at the first chunks
            os.killpg(process.pid, signal.SIGINT)
            stopped = _wait(lambda: self._of(CANCEL)[0].left and not self.server.running(), 15)
        finally:
            _end(process)
        return "" if stopped else "the server went on"

    def _of(self, conversation: str) -> list[Exchange]:
        return [exchange for exchange in self.relay.exchanges if exchange.conversation == conversation]

    def _start(self, prompt: str, schema: Path | None = None) -> tuple[int, str]:
        """The exit code, and what was printed."""
        process = self._popen(prompt, schema)
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return -1, ""
        finally:
            _end(process)
        return process.returncode, output

    def _popen(self, prompt: str, schema: Path | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.installed.path), *self.agent.command(self.place, prompt, schema)],
            cwd=self.place.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=(self.place.home / "errors.log").open("a"),
            text=True,
            start_new_session=True,
        )


@contextmanager
def place() -> Iterator[Place]:
    """Folders for an agent, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="agents-", ignore_cleanup_errors=True) as folder:
        home = Path(folder, "home")
        work = home / "work"
        work.mkdir(parents=True)
        yield Place(home, work, "")


def _wait(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _end(process: subprocess.Popen[str]) -> None:
    """End what is left of an agent and of all it started: they are one process group."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            break
        if _wait(lambda: process.poll() is not None, 5):
            break
    if process.stdout is not None:
        process.stdout.close()
    process.wait()


def _cached(exchange: Exchange) -> tuple[int, int]:
    """Prompt tokens, and those that were cached, as the reply's usage has them on any API."""
    usage = exchange.usage()
    if "prompt_tokens" in usage:
        return usage["prompt_tokens"], (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    if "input_tokens_details" in usage:
        return usage["input_tokens"], usage["input_tokens_details"].get("cached_tokens") or 0
    cached = usage.get("cache_read_input_tokens") or 0
    return (usage.get("input_tokens") or 0) + (usage.get("cache_creation_input_tokens") or 0) + cached, cached


def _picture() -> bytes:
    """A PNG of one red pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0\xff\0\0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
