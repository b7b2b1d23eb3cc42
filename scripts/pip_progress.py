#!/usr/bin/env python3
"""pip that says what it is at: the same arguments, and one line of progress in place of silence or a flood.

A package that comes as source is compiled, which can take minutes; pip prints nothing meanwhile, or everything. This
reads pip's own long output and shows the step, the time so far and an estimate of what is left: one line that changes
on a terminal, a line now and then elsewhere. If pip fails, what it printed last follows, and what to do where that is
known. How long things took is kept in the user's cache folder, for the next estimate.

Standard library only, and it knows nothing of what is installed.

    .venv/bin/python scripts/pip_progress.py install --editable '.[demo]'
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

REDRAW = 0.5
#: Where nothing can be redrawn, as in a log.
PLAIN_LINE = 15.0
SHOWN_OF_A_FAILURE = 40

DOWNLOAD = re.compile(r"\s*Downloading (\S+)(?: \((.+)\))?$")
#: What `--progress-bar raw` prints.
BYTES = re.compile(r"Progress (\d+) of (\d+)$")
BUILD = re.compile(r"\s*Running command Building (?:wheel|editable) for (\S+)")
#: Ninja counts its steps; make gives the share of them that is done.
STEPS = re.compile(r"\s*\[ *(\d+)(?:/(\d+)|%)\] ")
STAGES = (
    (re.compile(r"(?:Collecting|Obtaining|Processing) "), "looking for packages"),
    (re.compile(r"\s*Running command installing b.* dependencies", re.IGNORECASE), "getting what a build needs"),
    (re.compile(r"Installing collected packages"), "installing"),
)
ADVICE = (
    (
        r"CMAKE_C(?:XX)?_COMPILER|No CMAKE_.* could be found|[Nn]o such file or directory: '(?:gcc|cc|g\+\+|c\+\+)'",
        "It needs a C and a C++ compiler: apt install build-essential, dnf install gcc-c++, xcode-select --install.",
    ),
    (
        r"CMake was unable to find a build program|Could not find CMake|CMake .* or higher is required",
        "It needs CMake and Ninja: apt install cmake ninja-build, or brew install cmake ninja.",
    ),
    (
        r"Killed signal|signal 9|cannot allocate memory|virtual memory exhausted",
        "The compiler ran out of memory: try again with CMAKE_BUILD_PARALLEL_LEVEL=1 in the environment.",
    ),
    (r"No space left on device", "The disk is full: TMPDIR names another folder to build in."),
    (
        r"Could not find a version|No matching distribution|NewConnectionError|timed out|Name or service not known",
        "The package index could not be reached, or has no such package: see the network, PIP_INDEX_URL and PIP_PROXY.",
    ),
)


class Progress:
    """What pip is at, read off the lines that it prints.

    Args:
        before: how many seconds each build took the last time.
    """

    def __init__(self, before: dict[str, float]) -> None:
        self.builds: dict[str, float] = {}
        self._before = before
        self._doing = "starting"
        self._file = ""
        self._package = ""
        self._began = 0.0
        self._share = 0.0

    def read(self, line: str, now: float) -> None:
        """Take one line of pip's."""
        if found := BUILD.match(line):
            self._package, self._began, self._share = found[1], now, 0.0
            self._doing = f"building {self._package}"
        elif self._package and (found := STEPS.match(line)):
            self._share = int(found[1]) / max(int(found[2] or 100), 1)
            done = f"{found[1]} of {found[2]}" if found[2] else f"{found[1]}% there"
            self._doing = f"compiling {self._package}, {done}"
        elif self._package and f"for {self._package} " in line and "finished" in line:
            self.builds[self._package] = now - self._began
            self._package = ""
        elif found := DOWNLOAD.match(line):
            name = found[1].rpartition("/")[2]
            self._file = self._doing = f"downloading {name}" + (f", {found[2]}" if found[2] else "")
        elif found := BYTES.match(line):
            self._doing = f"{self._file}, {100 * int(found[1]) // max(int(found[2]), 1)}% there"
        else:
            self._doing = next((stage for start, stage in STAGES if start.match(line)), self._doing)

    def text(self, now: float) -> str:
        """What it is at, and how long that will take, as far as that can be told."""
        left = self._left(now)
        return self._doing + ("" if left is None else f", about {clock(left)} left")

    def _left(self, now: float) -> float | None:
        """By the steps done, and by the last time as long as few are."""
        if not self._package:
            return None
        so_far, last = now - self._began, self._before.get(self._package)
        by_steps = so_far / self._share - so_far if self._share > 0.05 else None
        if last is None or by_steps is None:
            return by_steps if last is None else max(last - so_far, 0.0)
        return self._share * by_steps + (1 - self._share) * max(last - so_far, 0.0)


def clock(seconds: float) -> str:
    """As `1:05`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def advice(output: str) -> str | None:
    """What to do about a failure, if the output tells."""
    return next((what for sign, what in ADVICE if re.search(sign, output)), None)


def run(arguments: Sequence[str], out: TextIO) -> int:
    """pip's exit code, once it has ended."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments[:1], "--verbose"]
    if arguments[:1] != ["uninstall"] and _pip_version() >= (24, 1):
        command.append("--progress-bar=raw")
    times = _times()
    progress, began = Progress(times), time.monotonic()
    printed: deque[str] = deque(maxlen=2000)
    process = subprocess.Popen(
        [*command, *arguments[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_pump, args=(process, lines), daemon=True).start()
    every = REDRAW if out.isatty() else PLAIN_LINE
    shown = began
    while True:
        with contextlib.suppress(queue.Empty):
            line = lines.get(timeout=REDRAW)
            if line is None:
                break
            printed.append(line)
            progress.read(line, time.monotonic())
        now = time.monotonic()
        if now - shown >= every:
            shown = now
            _show(f"{clock(now - began)}  {progress.text(now)}", out)
    code = process.wait()
    took = clock(time.monotonic() - began)
    if code:
        _show("", out)
        last = [line for line in printed if not BYTES.match(line)][-SHOWN_OF_A_FAILURE:]
        print("".join(last), end="", file=sys.stderr)
        print(f"pip {' '.join(arguments)}: failed after {took}", file=sys.stderr)
        print(advice("".join(printed)) or "The lines above say why.", file=sys.stderr)
        return code
    _show(f"{took}  done", out)
    if out.isatty():
        print(file=out)
    if progress.builds:
        _keep(times | progress.builds)
    return 0


def _pip_version() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", importlib.metadata.version("pip"))[:2])


def _pump(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _show(text: str, out: TextIO) -> None:
    if out.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\033[K{text[:width]}", end="", file=out, flush=True)
    elif text:
        print(text, file=out, flush=True)


def _file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harmony-plugin" / "builds.json"


def _times() -> dict[str, float]:
    with contextlib.suppress(OSError, ValueError):
        return {str(name): float(seconds) for name, seconds in json.loads(_file().read_text("utf-8")).items()}
    return {}


def _keep(times: dict[str, float]) -> None:
    with contextlib.suppress(OSError):  # the next estimate is worse, and that is all
        _file().parent.mkdir(parents=True, exist_ok=True)
        _file().write_text(json.dumps({name: round(seconds, 1) for name, seconds in times.items()}), "utf-8")


def main() -> int:
    """pip's exit code; 130 when interrupted."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        return run(sys.argv[1:], sys.stdout)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
