"""Shared settings of the suite."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from hypothesis import settings

# One machine's slow moment is no failure, and a failure repeats: the examples are the same each time.
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=250)
# HYPOTHESIS_PROFILE=deep: other examples each time, and many of them.
settings.register_profile("deep", deadline=None, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

# A shell's background job ignores SIGINT, and so would the processes that tests stop by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: `make test` has two workers. What shares a server, or imports what takes seconds and gigabytes, is one worker's,
#: and comes first, as it takes longest. The rest is handed out file by file, as the workers get done.
TOGETHER = ("tests/e2e/vllm/", "tests/e2e/llamacpp/", "tests/vllm_plugin/", "tests/llamacpp/")


def group_of(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    # xdist's own way to group by marks does not work with pytest 9.2.
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return ByGroup(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        first = {group: place for place, group in enumerate(TOGETHER)}
        items.sort(key=lambda item: first.get(group_of(item.nodeid), len(first)))
