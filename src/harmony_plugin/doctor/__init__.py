"""`harmony-plugin doctor`: what is wrong with an installation, a model or a server, and what to do about it.

Works in a bare installation: what is missing is a finding, never a traceback. Whatever is slow to import, or may crash,
is looked at in a process of its own (`probes`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from itertools import groupby

from .findings import Finding, State

__all__ = ["add_arguments", "examine", "run"]

MARKS = {State.OK: "ok", State.WARNING: "warning", State.PROBLEM: "PROBLEM", State.ABSENT: "-"}
STYLES = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "bold red", State.ABSENT: "dim"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments; `run` takes what comes of them."""
    parser.add_argument("--model", metavar="PATH", help="look at a model, too: a .gguf file, or a Hugging Face folder")
    parser.add_argument("--url", help="look at a running server, too, with two short requests")
    parser.add_argument("--api-key", help="the server's key")
    parser.add_argument("--all", action="store_true", help="show every setting, not only those that were changed")
    parser.add_argument("--quick", action="store_true", help="import neither vLLM nor llama.cpp, and try nothing out")
    parser.add_argument("--strict", action="store_true", help="warnings count as problems, for the exit code")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Examine, print, and give the exit code: 0 all well, 1 a problem (or, if strict, a warning)."""
    findings = []
    for finding in _shown_progress(examine(arguments)):
        findings.append(finding)
    if arguments.json:
        print(json.dumps([finding.to_dict() for finding in findings], ensure_ascii=False, indent=2))
    else:
        _print(findings)
    bad = {State.PROBLEM, State.WARNING} if arguments.strict else {State.PROBLEM}
    return int(any(finding.state in bad for finding in findings))


def examine(arguments: argparse.Namespace) -> Iterator[Finding]:
    """The findings, as they come."""
    from . import installation, live, model, servers

    yield from installation.examine(quick=arguments.quick)
    yield from servers.examine(quick=arguments.quick)
    yield from installation.settings(everything=arguments.all)
    if arguments.model is not None:
        yield from model.examine(arguments.model)
    if arguments.url is not None:
        yield from live.examine(arguments.url, arguments.api_key)


def _shown_progress(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The same; on a terminal a line says what is being looked at."""
    if not sys.stderr.isatty():
        yield from findings
        return
    for finding in findings:
        print(f"\r\x1b[K{finding.section}: {finding.name} …", end="", file=sys.stderr, flush=True)
        yield finding
    print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _print(findings: list[Finding]) -> None:
    line = _liner()
    for section, group in groupby(findings, key=lambda finding: finding.section):
        line(section, None)
        for finding in group:
            line(f"  {MARKS[finding.state]:<8} {finding.name}: {finding.told}", finding.state)
            if finding.do:
                line(f"           → {finding.do}", None)
        line("", None)
    counts = {state: sum(finding.state is state for finding in findings) for state in State}
    problems, warnings = counts[State.PROBLEM], counts[State.WARNING]
    state = State.PROBLEM if problems else State.WARNING if warnings else State.OK
    line(f"{_many(problems, 'problem')}, {_many(warnings, 'warning')}", state)


def _many(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"


def _liner() -> Callable[[str, State | None], None]:
    """What prints a line, in a state's colour where rich is there and the output is a terminal."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        return lambda text, state: print(text)
    console = Console(highlight=False, soft_wrap=True)

    def line(text: str, state: State | None) -> None:
        console.print(Text(text, STYLES[state] if state is not None else ""))

    return line
