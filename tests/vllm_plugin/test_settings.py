"""Settings at work in the plugin: in a process of their own, since a server reads them once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .set_process import SETTINGS


def test_settings_at_work() -> None:
    tests = Path(__file__).parents[1]
    paths = os.pathsep.join(filter(None, (str(tests), str(tests / "rigs"), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "vllm_plugin.set_process"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **SETTINGS, "PYTHONPATH": paths},
        check=False,
    )
    assert done.stdout.endswith("all well\n"), done.stdout[-2000:] + done.stderr[-4000:]
