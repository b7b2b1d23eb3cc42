"""`harmony-plugin verify URL`: checks any endpoint that serves gpt-oss through the clients that people use.

Knows OpenAI's and Anthropic's APIs and their Python clients, and no server: ours is checked as any other. Of this
package it reads the spelling of the markers, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checks import Check
    from .endpoint import Endpoint
    from .results import Result

__all__ = ["add_arguments", "run"]

APIS = ("chat", "responses", "messages")
WRONG_INPUT = 2
INTERRUPTED = 130
WIDTH = 120
"""Of a report that goes to no terminal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments; `run` takes what comes of them."""
    parser.add_argument("url", nargs="?", metavar="URL", help="the endpoint, with or without /v1")
    parser.add_argument("--model", help="the model to ask (default: the first of /v1/models)")
    parser.add_argument("--api-key", help="the key (default: OPENAI_API_KEY, else none)")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="sent with each request")
    parser.add_argument("--apis", default=",".join(APIS), help="which of them to check (default: %(default)s)")
    parser.add_argument("--only", action="append", metavar="NAME", help="this check alone; may be given several times")
    parser.add_argument("--list", action="store_true", help="list the checks, and ask nothing")
    parser.add_argument(
        "--passes",
        type=_positive(int),
        default=3,
        metavar="K",
        help="ask up to K times where it depends on the model (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout", type=_positive(float), default=120.0, help="seconds of a reply (default: %(default)g)"
    )
    parser.add_argument(
        "--max-requests", type=_positive(int), default=500, help="of the whole run (default: %(default)s)"
    )
    parser.add_argument(
        "--max-tokens", type=_positive(int), default=2048, help="of a reply, reasoning included (default: %(default)s)"
    )
    parser.add_argument("--concurrency", type=_positive(int), default=1, help="checks at a time (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON, too; -: to standard output, alone")


def run(arguments: argparse.Namespace) -> int:
    """Check the endpoint; gives the exit code.

    0: nothing fails; 1: something does; 2: wrong arguments, or nothing can be asked; 130: interrupted.
    """
    try:
        from rich.console import Console

        from . import compatibility, report  # noqa: F401  # compatibility adds its checks
        from .checks import CHECKS
        from .results import Outcome, SetupError
    except ImportError as error:
        return _complain(f"{error}: pip install 'harmony-plugin[verify]'")
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH, highlight=False)
    try:
        checks = _chosen(CHECKS, arguments.only)
        if arguments.list:
            report.show_checks(console, checks)
            return 0
        apis = _apis(arguments.apis)
        if arguments.json not in (None, "-"):
            open(arguments.json, "a").close()  # found out before the run
        results: list[Result] = []
        with _endpoint(arguments) as endpoint:
            endpoint.model = arguments.model or endpoint.find_model()
            try:
                _examine(endpoint, checks, apis, arguments, results)
            finally:
                if results:
                    _tell(console, endpoint, checks, apis, arguments.json, results)
        if all(result.outcome is Outcome.NOT_SERVED for result in results):
            raise SetupError(f"{endpoint.url} serves none of {', '.join(apis)}: is the URL right?")
    except BrokenPipeError:
        raise
    except (SetupError, OSError) as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    return report.exit_code(results)


def _endpoint(arguments: argparse.Namespace) -> Endpoint:
    from .endpoint import NO_KEY, Endpoint
    from .results import SetupError

    if arguments.url is None:
        raise SetupError("give the URL of an endpoint, such as http://localhost:8000")
    return Endpoint(
        arguments.url,
        key=arguments.api_key or os.environ.get("OPENAI_API_KEY") or NO_KEY,
        headers=_headers(arguments.header),
        timeout=arguments.timeout,
        max_requests=arguments.max_requests,
        max_tokens=arguments.max_tokens,
    )


def _examine(
    endpoint: Endpoint,
    checks: Sequence[Check],
    apis: Sequence[str],
    arguments: argparse.Namespace,
    results: list[Result],
) -> None:
    """Add to `results` as they come, with a line on standard error where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from .runner import examine

    errors = Console(stderr=True)
    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("", total=sum(name in check.apis for check in checks for name in apis))

        def begin(name: str) -> None:
            progress.update(task, description=f"{endpoint.requests} requests, {name}")

        for result in examine(
            endpoint, checks, apis, passes=arguments.passes, concurrency=arguments.concurrency, begin=begin
        ):
            results.append(result)
            progress.advance(task)


def _tell(
    console: Any,
    endpoint: Endpoint,
    checks: Sequence[Check],
    apis: Sequence[str],
    file: str | None,
    results: Sequence[Result],
) -> None:
    from . import report
    from .results import shortened

    order = {check.name: place for place, check in enumerate(checks)}
    results = sorted(results, key=lambda result: (order[result.check], apis.index(result.api)))
    told = report.as_json(endpoint.url, endpoint.model, endpoint.requests, results, {c.name: c for c in checks})
    text = json.dumps(told, ensure_ascii=False, indent=2) + "\n"
    if file == "-":
        sys.stdout.write(text)
        return
    if file is not None:
        with open(file, "w", encoding="utf-8") as out:
            out.write(text)
    console.print(shortened(f"{endpoint.url}, model {endpoint.model}, {endpoint.requests} requests"), markup=False)
    console.print()
    report.show(console, results, checks, apis)


def _chosen(checks: Mapping[str, Check], only: Sequence[str] | None) -> list[Check]:
    from .results import SetupError

    for name in only or ():
        if name not in checks:
            raise SetupError(f"there is no check {name!r}; --list names them")
    return [check for name, check in checks.items() if not only or name in only]


def _apis(given: str) -> list[str]:
    from .results import SetupError

    named = [name.strip() for name in given.split(",") if name.strip()]
    for name in named:
        if name not in APIS:
            raise SetupError(f"--apis {name}: the APIs are {', '.join(APIS)}")
    if not named:
        raise SetupError(f"--apis names none: the APIs are {', '.join(APIS)}")
    return [name for name in APIS if name in named]


def _headers(given: Sequence[str]) -> dict[str, str]:
    from .results import SetupError

    headers = {}
    for header in given:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise SetupError(f"--header {header!r} is not NAME:VALUE")
        headers[name.strip()] = value.strip()
    return headers


def _positive(kind: type[int] | type[float]) -> Any:
    def read(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    read.__name__ = kind.__name__
    return read


def _complain(message: str) -> int:
    print(f"harmony-plugin verify: {message}", file=sys.stderr)
    return WRONG_INPUT
