"""A finding, and what everybody here needs to make some."""

from __future__ import annotations

import enum
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

__all__ = ["Finding", "State", "installed", "probe"]


class State(enum.Enum):
    """How things are."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    #: Not here, and that may be meant.
    ABSENT = "not here"


class Finding(NamedTuple):
    """One thing that was looked at. ``do``: what to do about it, where there is something to do."""

    section: str
    name: str
    state: State
    told: str
    do: str = ""

    def to_dict(self) -> dict[str, str]:
        """As JSON."""
        return {**self._asdict(), "state": self.state.value}


def installed(*names: str) -> dict[str, str]:
    """Of these distributions, those that are installed, with their versions."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def probe(name: str, *given: str, seconds: float = 120, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a function of `probes` finds, in a process of its own; ``{"error": …}`` where it fails, crashes or hangs."""
    command = [sys.executable, "-m", "harmony_plugin.doctor.probes", name, *given]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds,
            cwd=sys.prefix,  # what lies in the current folder must not stand for a package
            env={**os.environ, **(environment or {})},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"it took longer than {seconds:.0f} s"}
    lines = done.stdout.strip().splitlines()
    try:
        found: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        said = (done.stderr.strip() or "no message").splitlines()[-1]
        return {"error": f"its process ended with status {done.returncode}: {said}"}
    return found
