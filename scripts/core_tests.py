#!/usr/bin/env python3
"""Run the tests that need neither an engine nor the development tools: what is run on each system and each Python.

Needs the extras cli, harmony and repair, and the dependency group `core-tests`; `make dist` collects these tests in
such an environment. Arguments are pytest's.

    python scripts/core_tests.py -x
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent / "tests"
BESIDE = (
    "conformance",
    "e2e",
    "llamacpp",
    "ray_plugin",
    "site",
    "test_agents.py",
    "test_deploy.py",
    "test_monitoring.py",
    "verify",
    "vllm_plugin",
)

if __name__ == "__main__":
    sys.exit(pytest.main([str(TESTS), *(f"--ignore={TESTS / name}" for name in BESIDE), *sys.argv[1:]]))
