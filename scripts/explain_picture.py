"""The README's picture of `harmony-plugin explain`: an output that stock servers get wrong, on a terminal.

python scripts/explain_picture.py           # print it
python scripts/explain_picture.py --write   # docs/images/explain.svg
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from harmony_plugin.core import Trace
from harmony_plugin.explain.terminal import Printer

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "explain.svg"
WIDTH = 108
OUTPUT = (
    "<|channel|>analysis<|message|>The weather in Rome. I can look that up."
    '<|channel|>commentary to=functions.get_weather <|message|>{"city": "Rome"}<|end|>'
    "<|start|>assistant<|channel|>final<|message|>It is 21 °C, and sunny.<|return|>"
)
TOOLS = ("get_weather",)


def draw() -> str:
    """The picture, as SVG that loads nothing from elsewhere."""
    terminal = io.StringIO()
    printer = Printer(
        Console(width=WIDTH, file=terminal, force_terminal=True, color_system="truecolor", highlight=False)
    )
    trace = Trace(tools=TOOLS)
    trace.feed(OUTPUT)
    explanation = trace.finish()
    printer.segments(explanation.segments, explanation.issues)
    printer.ending(explanation)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(
        Text.from_ansi(terminal.getvalue()), overflow="fold"
    )  # long lines go on in the next, as they do there
    plain = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return console.export_svg(title="harmony-plugin explain", code_format=plain, unique_id="explain")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true")
    picture = draw()
    if parser.parse_args().write:
        PICTURE.write_text(picture, "utf-8")
    else:
        print(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
