"""Puts agents' command lines into the user's cache folder, by npm. Knows npm, and nothing of what it installs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from platformdirs import user_cache_path

__all__ = ["Installed", "Unavailable", "install"]

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
    if not latest and (folder / "node_modules" / ".bin" / program).exists():
        return Installed(folder, package, program)
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("no npm on the PATH")
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            [*command, f"{package}@latest"], capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"npm could not install {package} in {TIMEOUT} s") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unavailable(f"npm could not install {package}: {said}")
    return Installed(folder, package, program)
