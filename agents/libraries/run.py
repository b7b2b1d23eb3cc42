"""Runs a library's program against a server and judges what came of it. Knows libraries, scripts and the relay; prints
nothing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from platformdirs import user_cache_path

from ..clients import Place
from ..install import by_npm, by_pip
from ..relay import Exchange, Relay, history
from ..scripts import THOUGHT, Scripts, calls, says
from ..servers import MODEL, Server
from .clients import Library

__all__ = ["DONE", "LOOPS", "SHAPES", "VALUE", "Outcome", "Program", "judge", "run", "scripts"]

Json: TypeAlias = "dict[str, Any]"

PROGRAMS = Path(__file__).with_name("programs")
LOOPS = ("loop", "streamed")
SHAPES = ("schema", "tool", "partial")
"""Answers of a schema: by the API's format, by a tool that has to be called, and by the format as it comes."""

DONE = "All done, the loop is closed."
VALUE = {"sum": 5555, "word": "Größe"}
FIRST, BOTH = {"a": 1234, "b": 4321}, ({"a": 1000, "b": 111}, {"a": 2000, "b": 222})
REPLIES = 3
TIMEOUT = 240


class Program:
    """A library as it is installed: what starts its program, and its `version`."""

    def __init__(self, library: Library, *, latest: bool = False) -> None:
        folder = user_cache_path("harmony-plugin") / "libraries" / library.key
        if library.npm:
            self._by_npm(library, folder, latest)
        else:
            by_pip(folder, *library.requirements, latest=latest)
            self.command = [str(folder / "bin" / "python"), str(PROGRAMS / library.program)]
            self.version = _versions(folder, library.requirements[0].partition(">")[0].partition("[")[0], "openai")

    def _by_npm(self, library: Library, folder: Path, latest: bool) -> None:
        names = [requirement.rpartition("@")[0] for requirement in library.requirements]
        manifests = [folder / "node_modules" / name / "package.json" for name in names]
        if latest or not all(manifest.exists() for manifest in manifests):
            by_npm(folder, *library.requirements)
        # Node looks for packages beside the program.
        self.command = ["node", str(shutil.copy(PROGRAMS / library.program, folder))]
        versions = [json.loads(manifest.read_text("utf-8"))["version"] for manifest in manifests]
        self.version = ", ".join(
            f"{name} {version}" for name, version in zip(names, versions, strict=True) if name != "zod"
        )


def _versions(folder: Path, *names: str) -> str:
    places = [str(place) for place in folder.glob("lib/python*/site-packages")]
    found = {name: next(iter(importlib.metadata.distributions(name=name, path=places))).version for name in names}
    return ", ".join(version if name == names[0] else f"{name} {version}" for name, version in found.items())


@dataclass
class Outcome:
    """What came of a library's runs. Each of `checks` is empty where all is well, else it says what is not; one that is
    missing was not asked for.

    Attributes:
        back: how reasoning comes back with the next request of a loop; empty: it does not.
        several: whether both calls of a reply with two were handed in.
        outside: addresses other than the server's that were asked for, and refused.
        errors: what the program wrote besides.
        known: why, for those of `checks` that are not well and were known not to be.
    """

    library: str
    version: str
    api: str
    server: str
    checks: dict[str, str] = field(default_factory=dict)
    back: str = ""
    several: bool = False
    outside: list[str] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    errors: str = ""
    known: dict[str, str] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return not any(wrong for check, wrong in self.checks.items() if check not in self.known)


def scripts(library: Library) -> Scripts:
    """What the model says in all of a library's runs."""
    loop = [
        calls(("add", FIRST), thought=THOUGHT.format(0), preamble="First, a sum."),
        calls(*(("add", arguments) for arguments in BOTH), thought=THOUGHT.format(1)),
        says(DONE, THOUGHT.format(2)),
    ]
    shape = [says(json.dumps(VALUE, ensure_ascii=False), "A value.", json_type=True)]
    shapes = {"schema": shape, "partial": shape, "tool": [calls((library.tool, VALUE), thought="A value.")]}
    return Scripts({**{_word(name): loop for name in LOOPS}, **{_word(k): v for k, v in shapes.items()}}, aside=False)


def run(library: Library, api: str, program: Program, place: Place, server: Server) -> Outcome:
    """Have a library's program do all of its runs."""
    outcome = Outcome(library.key, program.version, api, server.name)
    said = scripts(library)

    def script(exchange: Exchange, body: Json) -> None:
        said.answer(exchange, body)
        server.say(exchange.path, body, exchange.said)

    with Relay(server.url, script) as relay:
        proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(place.home),
            **dict.fromkeys(proxies, relay.url),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
        }
        command = [*program.command, relay.url, MODEL, api]
        options: Json = {"cwd": place.work, "env": environment, "capture_output": True, "text": True}
        try:
            done = subprocess.run(command, **options, timeout=TIMEOUT, check=False)
        except subprocess.TimeoutExpired:
            outcome.checks["loop"] = f"the program took more than {TIMEOUT} s"
            return outcome
        outcome.exchanges = relay.exchanges
        outcome.outside = list(dict.fromkeys(relay.outside))
    outcome.errors = done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"run"')]
    if not told:
        outcome.checks["loop"] = f"the program ended with {done.returncode}"
    judge(outcome, {each["run"]: each for each in told})
    outcome.known = {
        check: known.why
        for check, wrong in outcome.checks.items()
        for known in library.known
        if wrong and known.covers(check, api, server.name)
    }
    return outcome


def _word(name: str) -> str:
    return f"task-{name}."


def judge(outcome: Outcome, told: Mapping[str, Json]) -> None:
    """Hold what a program told of each run to what passed between it and the server."""
    for name, each in told.items():
        exchanges = [e for e in outcome.exchanges if e.conversation == _word(name)]
        outcome.checks[name] = _refused(exchanges) or each.get("error") or _wrong(name, each, exchanges)
    loops = {name: told[name] for name in LOOPS if name in told and "error" not in told[name]}
    if not loops:
        return
    if all(each["thoughts"] is not None for each in loops.values()):
        outcome.checks["reasoning shown"] = "; ".join(_unseen(name, each) for name, each in loops.items()).strip("; ")
    sent = {name: [e for e in outcome.exchanges if e.conversation == _word(name)] for name in loops}
    outcome.checks["usage"] = "; ".join(
        f"{name}: {each['usage']}, not {_used(sent[name], each['usage'])}"
        for name, each in loops.items()
        if each["usage"] != _used(sent[name], each["usage"])
    )
    last = next(reversed(sent.values()))[-1]
    outcome.back = _back(last)
    outcome.checks["reasoning back"] = "" if outcome.back else "no"
    outcome.several = _result(BOTH[1]) in _said(last)


def _refused(exchanges: Iterable[Exchange]) -> str:
    refused = [e for e in exchanges if e.status >= 400]
    return "; ".join(f"{e.status}: {e.reply.decode('utf-8', 'replace')[:300]}" for e in refused)


def _wrong(name: str, told: Json, exchanges: list[Exchange]) -> str:
    if name in SHAPES:
        return "" if told["value"] == VALUE else f"gave {told['value']!r}"
    streamed = [bool((exchange.body or {}).get("stream")) for exchange in exchanges]
    wrong = ["not streamed"] * (name == "streamed" and not all(streamed))
    wrong += [f"{len(exchanges)} requests"] * (len(exchanges) != REPLIES)
    wrong += ["no result"] * (not exchanges or _result(FIRST) not in _said(exchanges[-1]))
    wrong += [f"answered {told['answer']!r}"] * (told["answer"] != DONE)
    return "; ".join(wrong)


def _unseen(name: str, told: Json) -> str:
    """What of the reasoning a loop did not show, or showed twice."""
    shown = "".join(told["thoughts"])
    counts = [shown.count(THOUGHT.format(i)) for i in range(REPLIES)]
    if not any(counts):
        return f"{name}: none"
    return "" if set(counts) == {1} else f"{name}: of the replies, {counts} times"


def _used(exchanges: Iterable[Exchange], like: Mapping[str, int]) -> dict[str, int]:
    """The tokens that the server told, of the kinds that `like` has."""
    told = dict.fromkeys(like, 0)
    for usage in (exchange.usage() for exchange in exchanges):
        chat = "prompt_tokens" in usage
        details = usage.get("completion_tokens_details" if chat else "output_tokens_details") or {}
        counted = {
            "input": usage.get("prompt_tokens" if chat else "input_tokens") or 0,
            "output": usage.get("completion_tokens" if chat else "output_tokens") or 0,
            "reasoning": details.get("reasoning_tokens") or 0,
        }
        told = {name: count + counted[name] for name, count in told.items()}
    return told


def _back(last: Exchange) -> str:
    if THOUGHT.format(0) in _said(last):
        return "as text"
    if '"encrypted_content": "' in _said(last):
        return "sealed"
    refers = (last.body or {}).get("previous_response_id") or '"item_reference"' in _said(last)
    return "by reference" if refers else ""


def _result(arguments: Mapping[str, int]) -> str:
    return str(sum(arguments.values()))


def _said(exchange: Exchange) -> str:
    return json.dumps(history(exchange.path, exchange.body or {}), ensure_ascii=False)
