#!/usr/bin/env python3
"""Find a Chromium for the tests of the page, or put one into the user's cache folder; prints its path.

One that is on the PATH is taken as it is. Else, on Linux on x86-64, the one that the npm package @sparticuz/chromium
carries: 65 MB fetched with `npm pack`, unpacked with node, which comes with npm. (Playwright's own download needs a
host that is no package registry.) Standard library only, and it knows nothing of harmony-plugin.

    python scripts/install_chromium.py
"""

from __future__ import annotations

import ctypes.util
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

VERSION = "147.0.0"
PACKAGE = f"@sparticuz/chromium@{VERSION}"
ON_PATH = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
UNPACK = """
const [from, to] = process.argv.slice(1);
const { pipeline } = require("stream"), { createReadStream, createWriteStream } = require("fs");
const written = (error) => { if (error) { console.error(String(error)); process.exit(1); } };
pipeline(createReadStream(from), require("zlib").createBrotliDecompress(), createWriteStream(to), written);
"""
TIMEOUT = 300
SYSTEM_FONTS = ("/usr/share/fonts", "/usr/local/share/fonts")
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{folder}/fonts</dir><cachedir>{folder}/fonts-cache</cachedir></fontconfig>
"""


class Unavailable(Exception):
    """There is no Chromium to be had here; the message says why."""


@dataclass(frozen=True)
class Chromium:
    """A browser: its program, and what its environment needs beside this process's."""

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def chromium() -> Chromium:
    """The browser on the PATH, or the one in the cache folder, which is filled at the first call.

    Raises:
        Unavailable: there is neither, and none can be fetched.
    """
    found = next(filter(None, map(shutil.which, ON_PATH)), None)
    if found is not None:
        return Chromium(Path(found))
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise Unavailable("no chromium on the PATH, and the one of npm is for Linux on x86-64")
    folder = cache() / f"chromium-{VERSION}"
    if not folder.is_dir():
        _install(folder)
    # A bare machine: the package brings fonts, and what it needs of NSS.
    environment = {}
    if not any(Path(there).is_dir() for there in SYSTEM_FONTS):
        environment["FONTCONFIG_FILE"] = str(folder / "fonts.conf")
    if ctypes.util.find_library("nss3") is None:
        environment["LD_LIBRARY_PATH"] = str(folder / "lib")
    return Chromium(folder / "chromium", environment)


def cache() -> Path:
    """The folder that what was fetched is kept in."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harmony-plugin"


def _install(folder: Path) -> None:
    """Fill `folder`. It appears whole or not at all, so several processes may do this at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".chromium-") as there:
        made = Path(there, "made")
        made.mkdir()
        packed = npm_package(PACKAGE, Path(there)) / "bin"
        for name in ("chromium", "fonts.tar", "al2023.tar"):
            _run(["node", "-e", UNPACK, str(packed / f"{name}.br"), str(made / name)], "unpack")
            if name.endswith(".tar"):
                _extract(made / name, made)
                (made / name).unlink()
        (made / "chromium").chmod(0o755)
        (made / "fonts.conf").write_text(FONTS.format(folder=folder), "utf-8")
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was first
                raise


def npm_package(package: str, folder: Path) -> Path:
    """Fetch an npm package (`name@version`) into a folder; gives where its files are.

    Raises:
        Unavailable: it cannot be fetched here.
    """
    for program in ("npm", "node"):
        if shutil.which(program) is None:
            raise Unavailable(f"no {program} to fetch {package} with")
    _run(["npm", "pack", "--silent", "--pack-destination", str(folder), package], "fetch", package)
    (archive,) = folder.glob("*.tgz")
    _extract(archive, folder)
    archive.unlink()
    return folder / "package"


def fetched(package: str) -> Path:
    """An npm package's files, fetched once into the user's cache folder.

    Raises:
        Unavailable: it cannot be fetched here.
    """
    folder = cache() / "npm" / package
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as there:
            npm_package(package, Path(there)).rename(folder)
    return folder


def _extract(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def _run(command: Sequence[str], what: str, package: str = PACKAGE) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"could not {what} {package} in {TIMEOUT} s") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unavailable(f"could not {what} {package}: {said}")


def main() -> int:
    """Exit code: 0, and the path is printed; 1: there is none."""
    try:
        print(chromium().path)
    except Unavailable as error:
        print(f"install_chromium: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
