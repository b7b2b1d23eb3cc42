"""Puts agents' command lines and libraries into the user's cache folder. Knows npm and pip, and nothing of what they
install."""

from __future__ import annotations

import json
import shutil
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_cache_path

__all__ = ["Installed", "Unavailable", "by_npm", "by_pip", "install"]

TIMEOUT = 280


class Unavailable(Exception):
    """An agent is not to be had here; the message says why."""


class Installed:
    """An npm package with a program: its `path` and `version`."""

    def __init__(self, folder: Path, package: str, program: str) -> None:
        self.path = folder / "node_modules" / ".bin" / program
        manifest = folder / "node_modules" / package / "package.json"
        self.version = str(json.loads(manifest.read_text("utf-8"))["version"])


def install(package: str, program: str, *, latest: bool = False) -> Installed:
    """The package's program: of the release in the cache, or of the newest one.

    Args:
        package: npm's name.
        program: of those it brings.
        latest: whether an older release will not do.

    Raises:
        Unavailable: there is no npm, or the package cannot be installed.
    """
    folder = user_cache_path("harmony-plugin") / "agents" / package.replace("/", "+")
    if latest or not (folder / "node_modules" / ".bin" / program).exists():
        by_npm(folder, f"{package}@latest")
    return Installed(folder, package, program)


def by_npm(folder: Path, *packages: str) -> None:
    """Install packages of npm into a folder.

    Raises:
        Unavailable: there is no npm, or they cannot be installed.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("no npm on the PATH")
    folder.mkdir(parents=True, exist_ok=True)
    options = ("--no-audit", "--no-fund", "--loglevel=error")
    _install([npm, "install", "--prefix", str(folder), *options, *packages], packages)


def by_pip(folder: Path, *requirements: str, latest: bool = False) -> None:
    """Install distributions into a virtual environment in a folder; what is there and will do stays, unless `latest`.

    Raises:
        Unavailable: they cannot be installed.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True, clear=True)
        # The one that comes with Python 3.10 takes minutes to find out which releases go together.
        _install([str(python), "-m", "pip", "install", "--quiet", "--upgrade", "pip"], ("pip",))
    options = ("--quiet", "--disable-pip-version-check", *(("--upgrade",) if latest else ()))
    _install([str(python), "-m", "pip", "install", *options, *requirements], requirements)


def _install(command: Sequence[str], what: Sequence[str]) -> None:
    name = " ".join(what)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{name} could not be installed in {TIMEOUT} s") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unavailable(f"{name} could not be installed: {said}")
