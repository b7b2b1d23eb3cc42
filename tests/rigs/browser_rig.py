"""A headless Chromium for the tests of pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import sync_playwright
from scripts.install_chromium import Unavailable, chromium


@contextmanager
def launched() -> Iterator[Any]:
    """The browser, started; a test is skipped where there is none to be had."""
    try:
        found = chromium()
    except Unavailable as error:
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        # Chromium's own sandbox is not to be had in most containers, and the pages are ours.
        browser = playwright.chromium.launch(
            executable_path=found.path,
            env={**os.environ, **found.environment},
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
        yield browser
        browser.close()
