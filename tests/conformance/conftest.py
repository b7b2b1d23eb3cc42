"""The public suite's fixtures of one family, unless the command line asks for others."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("canitoolcall_family", True):  # True: the suite's plugin is not installed
        config.option.canitoolcall_family = ["gpt-oss"]
