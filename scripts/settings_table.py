"""The table of all settings in docs/settings.md, made from the settings themselves; a test holds it.

python scripts/settings_table.py --write
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harmony_plugin.settings import PREFIX, describe

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
BEGIN, END = "<!-- begin: scripts/settings_table.py -->\n", "<!-- end: scripts/settings_table.py -->\n"


def table() -> str:
    """The settings as Markdown, a table for each heading."""
    lines = []
    for heading, rows in describe():
        lines += [f"## {heading}", "", "| setting | takes | default | | example |", "| --- | --- | --- | --- | --- |"]
        for name, takes, default, what, example in rows:
            line = f"{PREFIX}{name.upper()}={example}".replace("|", "\\|")
            lines.append(f"| `{name}` | {takes} | {default} | {what} | `{line}` |")
        lines.append("")
    return "\n".join(lines)


def placed(page: str) -> str:
    """The page with the table in its place."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put it into the page")
    if parser.parse_args().write:
        PAGE.write_text(placed(PAGE.read_text("utf-8")), "utf-8")
    else:
        print(table())


if __name__ == "__main__":
    main()
