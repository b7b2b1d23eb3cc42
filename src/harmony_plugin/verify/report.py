"""What a run found: a table for people, JSON for programs. Knows results, and nothing of how they came about."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .checks import Check
from .results import Outcome, Result

__all__ = ["as_json", "exit_code", "show", "show_checks"]

STYLES = {Outcome.HOLDS: "green", Outcome.FAILS: "bold red", Outcome.UNCLEAR: "yellow", Outcome.NOT_SERVED: "dim"}
CLIENTS = ("harmony-plugin", "openai", "anthropic")


def exit_code(results: Sequence[Result]) -> int:
    """0: nothing fails, and something holds; 1 otherwise."""
    outcomes = {result.outcome for result in results}
    return int(Outcome.FAILS in outcomes or Outcome.HOLDS not in outcomes)


def show(console: Console, results: Sequence[Result], checks: Sequence[Check], apis: Sequence[str]) -> None:
    """The table, a check a row and an API a column; then what does not hold, with what that means; then how many."""
    found = {(result.check, result.api): result for result in results}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("check")
    for api in apis:
        table.add_column(api)
    for check in checks:
        cells = [found.get((check.name, api)) for api in apis]
        if any(cells):
            table.add_row(check.name, *(_cell(cell) for cell in cells))
    console.print(table)
    for check in checks:
        _explain(console, check, [found[check.name, api] for api in apis if (check.name, api) in found])
    counts = Counter(result.outcome for result in results)
    console.print()
    console.print(Text(", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome])))


def show_checks(console: Console, checks: Sequence[Check]) -> None:
    """What can be checked."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in checks:
        table.add_row(check.name, Text(check.meaning), ", ".join(check.apis))
    console.print(table)


def as_json(
    url: str, model: str, requests: int, results: Sequence[Result], checks: Mapping[str, Check]
) -> dict[str, Any]:
    """All of it; `docs/verify.md` tells the shape."""
    counts = Counter(result.outcome for result in results)
    return {
        "url": url,
        "model": model,
        "clients": {name: _version(name) for name in CLIENTS},
        "requests": requests,
        "counts": {outcome.value: counts[outcome] for outcome in Outcome},
        "checks": [
            {
                "name": result.check,
                "api": result.api,
                "meaning": checks[result.check].meaning,
                "result": result.outcome.value,
                "detail": result.detail,
                "passes": result.passes,
                **result.more,
            }
            for result in results
        ],
    }


def _cell(result: Result | None) -> Text:
    return Text("") if result is None else Text(result.outcome.value, STYLES[result.outcome])


def _explain(console: Console, check: Check, results: Sequence[Result]) -> None:
    told = [result for result in results if result.outcome in (Outcome.FAILS, Outcome.UNCLEAR)]
    if not told:
        return
    console.print()
    console.print(Text.assemble((check.name, "bold"), f": {check.meaning}"))
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 2))
    for result in told:
        table.add_row(result.api, _cell(result), Text(result.detail))
    console.print(table)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
