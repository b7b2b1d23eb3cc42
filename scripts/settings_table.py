"""The table of all settings in docs/settings.md, made from the settings themselves; a test holds it.

python -m scripts.settings_table --write
"""

from __future__ import annotations

from pathlib import Path

from scripts import generated

from harmony_plugin.settings import PREFIX, describe

PART = generated.Part(Path(__file__).resolve().parent.parent / "docs" / "settings.md", "scripts/settings_table.py")


def table() -> str:
    """The settings as Markdown, a table for each heading."""
    lines = []
    for heading, rows in describe():
        lines += [f"## {heading}", ""]
        lines += ["| setting | what it does | takes | default | example |", "| --- | --- | --- | --- | --- |"]
        for name, takes, default, what, example in rows:
            line = f"{PREFIX}{name.upper()}={example}".replace("|", "\\|")
            lines.append(f"| `{name}` | {what} | {takes} | {default} | `{line}` |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    generated.main(__doc__, PART, table)
