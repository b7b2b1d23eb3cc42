"""Shared settings of the suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# One machine's slow moment is no failure, and a failure repeats: the examples are the same each time.
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=250)
# HYPOTHESIS_PROFILE=deep: other examples each time, and many of them.
settings.register_profile("deep", deadline=None, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

HERE = Path(__file__).parent
#: What shares a server, or imports what takes seconds and gigabytes, is one worker's (`make test` has two). These take
#: longest, so they come first; the rest is handed out file by file as the workers get done.
TOGETHER = {
    "e2e/vllm": "vllm",
    "e2e/llamacpp": "llamacpp",
    "vllm_plugin": "vllm_plugin",
    "llamacpp": "llamacpp_handler",
}


def group_of(item: pytest.Item) -> str:
    folder = item.path.parent.relative_to(HERE).as_posix()
    return TOGETHER.get(folder, item.path.stem)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("loadgroup", False):  # xdist sets it in its workers
        return
    first = {group: place for place, group in enumerate(TOGETHER.values())}
    items.sort(key=lambda item: first.get(group_of(item), len(first)))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
