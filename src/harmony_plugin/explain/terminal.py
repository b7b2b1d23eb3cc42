"""An explanation on a terminal, through rich: plain where the output is no terminal. Knows explanations alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from ..core import Explanation, Issue, Segment, Shown, meaning

try:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
except ImportError:
    from . import needs_rich

    raise needs_rich() from None

__all__ = ["STYLES", "Printer"]

STYLES = {
    "marker": "dim",
    "header": "bold",
    "reasoning": "italic cyan",
    "content": "green",
    "tool_call": "magenta",
    "dropped": "red strike",
}
NAMES = {"reasoning": "reasoning", "content": "content", "tool_call": "tool call", None: "no field"}


class Printer:
    """Prints one explanation, at once or as it comes.

    Args:
        console: where; standard output by default.
        ids: show token ids, too.
    """

    def __init__(self, console: Console | None = None, *, ids: bool = False) -> None:
        self._console = console or Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._ids = ids
        self._told = 0
        self._began = False

    def segments(self, segments: Iterable[Segment], issues: Sequence[Issue]) -> None:
        """Print segments in their order, and the issues that stand in them, each at its place."""
        for segment in segments:
            self._began = True
            text = segment.text
            at = segment.offset
            end = at + (len(text) if segment.ids is None else len(segment.ids))
            for issue in sorted(issues[self._told :], key=lambda issue: issue.offset):
                if issue.offset >= end:
                    break
                if segment.ids is None and issue.offset > at:
                    self._print(text[: issue.offset - at], segment)
                    text, at = text[issue.offset - at :], issue.offset
                self._console.print(Text(f"⟨{issue.code}⟩", "bold red reverse"), end="")
                self._told += 1
            self._print(text, segment)
            if self._ids and segment.ids:
                self._console.print(Text(" " + " ".join(map(str, segment.ids)) + " ", "dim"), end="")

    def _print(self, text: str, segment: Segment) -> None:
        if text:
            # A message begins a line of its own.
            self._console.print(Text(text, STYLES[segment.kind]), end="")
            if segment.kind == "marker" and text in ("<|end|>", "<|call|>", "<|return|>"):
                self._console.print()

    def ending(self, explanation: Explanation) -> None:
        """Print what the reply comes to: its messages, and what was repaired."""
        console = self._console
        if self._began:
            console.print()
        console.print()
        table = Table(title="messages", title_justify="left", box=None, pad_edge=False, header_style="bold")
        for column in ("", "goes to", "channel", "recipient", "type", "characters", ""):
            table.add_column(column, justify="right" if column == "characters" else "left", overflow="fold")
        for number, shown in enumerate(explanation.messages, 1):
            table.add_row(str(number), *_row(shown))
        console.print(table)
        console.print()
        if not explanation.issues:
            console.print(Text("well-formed: nothing was repaired", "green"))
            return
        unit = "token" if explanation.unit == "tokens" else "character"
        console.print(Text("repairs", "italic"))
        for issue in explanation.issues:
            line = Text.assemble((issue.code, "bold red"), f" at {unit} {issue.offset}: {meaning(issue.code)}")
            if issue.text:
                line.append(f" ({issue.text!r})", "red")
            console.print(line)


def _row(shown: Shown) -> tuple[str | Text, ...]:
    message = shown.message
    name = NAMES[shown.field] + (f" {shown.name}" if shown.name else "")
    style = STYLES[shown.field or "dropped"].replace("strike", "")
    rest = (message.channel or "", message.recipient or "", message.content_type or "", f"{len(message.text):,}")
    return (Text(name, style), *map(Text, rest), Text("" if message.complete else "cut", "red"))
