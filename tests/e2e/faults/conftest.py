"""Faults of the world around the servers. The servers and their scripts are those of the end-to-end tests beside."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
for rig in ("llamacpp", "vllm"):
    sys.path.append(str(HERE.parent / rig))


def pytest_collection_modifyitems(items: list[Any]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)
