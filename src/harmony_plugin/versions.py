"""Which versions are installed: what `--version` prints and a bug report needs. Imports none of what it names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from . import __version__

__all__ = ["VersionFlag", "versions"]

# The Harmony library has two distributions; one of them is installed.
BESIDE = (("llama-cpp-python",), ("oss-harmony", "openai-harmony"))


def versions() -> str:
    """The versions of the plugin, of llama-cpp-python and of the Harmony library, in one line."""
    return ", ".join([f"harmony-plugin {__version__}", *map(_installed, BESIDE)])


def _installed(names: Sequence[str]) -> str:
    for name in names:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return f"{names[0]} not installed"


class VersionFlag(argparse.Action):
    """`--version`: prints `versions()` and ends. Looks them up when it is given, not when the parser is made."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="print the versions installed, and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(versions())
        parser.exit()
