"""Parts of pages that are made by a program, between two comments that name it. Knows no page and no program."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Part", "main"]


class Part(NamedTuple):
    """A part of a page. ``name``: what its comments say; most often the program that makes it."""

    page: Path
    name: str

    @property
    def begin(self) -> str:
        """The comment in front of it."""
        return f"<!-- begin: {self.name} -->\n"

    @property
    def end(self) -> str:
        """The comment behind it."""
        return f"<!-- end: {self.name} -->\n"

    def placed(self, text: str, made: str) -> str:
        """The page's text with what was made in its place.

        Raises:
            ValueError: the text has no such place.
        """
        before, rest = text.split(self.begin)
        _, after = rest.split(self.end)
        return before + self.begin + made + self.end + after

    def write(self, made: str) -> None:
        """Put what was made into the page."""
        self.page.write_text(self.placed(self.page.read_text("utf-8"), made), "utf-8")


def main(about: str | None, part: Part, make: Callable[[], str]) -> None:
    """The command line of a program that makes one: prints it; with `--write`, puts it into the page.

    Args:
        about: the program's docstring.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"put it into docs/{part.page.name}")
    if parser.parse_args().write:
        part.write(make())
    else:
        print(make(), end="")
