"""Runs checks against an endpoint: each on each API, some at a time. Knows no check and no API."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

from .api import Api
from .checks import Asker, Check
from .endpoint import Endpoint
from .results import Fails, Missed, Outcome, Result, Unclear

__all__ = ["examine"]

Job = tuple[Check, Api]


def examine(
    endpoint: Endpoint,
    checks: Sequence[Check],
    apis: Sequence[str],
    *,
    passes: int,
    concurrency: int = 1,
    begin: Callable[[str], None] = lambda name: None,
) -> Iterator[Result]:
    """The results, as they come; for an API that is not served, and nothing else, without asking.

    Args:
        apis: names of those to check.
        passes: how often a check may be asked that depends on what the model says.
        concurrency: how many checks at a time. Those that judge all replies come when the others are done.
        begin: told which check begins.

    Raises:
        SetupError: nothing can be asked.
    """
    jobs: list[Job] = []
    for name in apis:
        api = endpoint.apis[name]
        asked = [check for check in checks if name in check.apis]
        if asked and endpoint.serves(api):
            jobs += [(check, api) for check in asked]
        else:
            yield from (Result(check.name, name, Outcome.NOT_SERVED, f"404 at {api.path}") for check in asked)
    for last in (False, True):
        group = [(check, api) for check, api in jobs if check.last is last]
        yield from _at_once(endpoint, group, passes, concurrency, begin)


def _at_once(
    endpoint: Endpoint, jobs: Sequence[Job], passes: int, concurrency: int, begin: Callable[[str], None]
) -> Iterator[Result]:
    # Threads that end with the process: one that waits for a reply does not hold up Ctrl+C.
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    results: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)

    def work() -> None:
        try:
            while True:
                check, api = waiting.get_nowait()
                begin(f"{api.name} {check.name}")
                results.put(_one(endpoint, check, api, passes))
        except queue.Empty:
            return
        except BaseException as error:
            results.put(error)

    for _ in range(min(concurrency, len(jobs))):
        threading.Thread(target=work, daemon=True).start()
    for _ in jobs:
        result = results.get()
        if isinstance(result, BaseException):
            raise result
        yield result


def _one(endpoint: Endpoint, check: Check, api: Api, passes: int) -> Result:
    """A check's result: it holds if one pass does, and fails if the server is wrong in one or the model in all."""
    asker = Asker(endpoint, api, passes=passes)
    outcome, detail = Outcome.FAILS, ""
    for attempt in range(1 if check.repeats else passes):
        asker.attempt = attempt
        try:
            outcome, detail = Outcome.HOLDS, check.run(asker)
            break
        except Fails as error:
            outcome, detail = Outcome.FAILS, str(error)
            break
        except Missed as error:
            detail = detail if outcome is Outcome.UNCLEAR else str(error)
        except Unclear as error:
            outcome, detail = Outcome.UNCLEAR, str(error)
        except Exception as error:  # one reply that nobody thought of must not end the run
            outcome, detail = Outcome.UNCLEAR, f"the check does not understand it: {type(error).__name__}: {error}"
            break
    return Result(check.name, api.name, outcome, endpoint.redacted(detail), attempt + 1, asker.more)
