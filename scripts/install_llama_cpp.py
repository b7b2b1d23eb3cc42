#!/usr/bin/env python3
"""Put llama-cpp-python into the Python environment that runs this file; quick when it was built here before.

The package index has it as source alone, and its build compiles all of llama.cpp: also the library that only
llama.cpp's own programs use, and the one for pictures and sound, which gpt-oss does not take. Without these two it is
half as much. A wheel built so is not what others expect of pip's cache, so it is kept in a folder of its own in the
user's cache. A wheel that pip has already built is taken as it is.

Standard library only, and it knows nothing of harmony-plugin. Run it with the environment's own interpreter:

    .venv/bin/python scripts/install_llama_cpp.py
"""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import subprocess
import sys
from pathlib import Path

#: The release that is tested here.
VERSION = "0.3.36"
SCRIPTS = Path(__file__).resolve().parent
PIP = [sys.executable, str(SCRIPTS / "pip_progress.py")]
LEFT_OUT = (
    "-DLLAVA_BUILD=OFF",
    "-DCMAKE_PROJECT_llama_cpp_INCLUDE=" + shlex.quote(str(SCRIPTS / "llama_cpp_only.cmake")),
)


def folder() -> Path:
    """Where wheels that were built here are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harmony-plugin" / "wheels"


def built() -> Path | None:
    """A wheel that was built before, here or by pip."""
    listed = [sys.executable, "-m", "pip", "cache", "list", "--format=abspath", "llama_cpp_python"]
    by_pip = subprocess.run(listed, capture_output=True, text=True, check=False).stdout.splitlines()
    wheels = [*folder().glob("llama_cpp_python-*.whl"), *map(Path, by_pip)]
    return next((wheel for wheel in wheels if wheel.name.startswith(f"llama_cpp_python-{VERSION}-")), None)


def build() -> int:
    """pip's exit code."""
    print(f"llama-cpp-python {VERSION} is compiled, once: 77 MB of source, some minutes", flush=True)
    # One's own CMAKE_ARGS come last, so they decide; pip's cache would keep the wheel for other projects, too.
    options = " ".join([*LEFT_OUT, os.environ.get("CMAKE_ARGS", "")])
    command = [*PIP, "wheel", "--no-deps", "--no-cache-dir", "--wheel-dir", str(folder())]
    environment = os.environ | {"CMAKE_ARGS": options}
    return subprocess.run([*command, f"llama-cpp-python=={VERSION}"], env=environment, check=False).returncode


def main() -> int:
    """Exit code: 0 when it is installed."""
    try:
        found = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found == VERSION:
        return 0
    code = 0 if built() else build()
    wheel = built()
    if code or wheel is None:
        return code or 1
    return subprocess.run([*PIP, "install", str(wheel)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
