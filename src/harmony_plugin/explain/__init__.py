"""Explaining: a transcript as a person wants to see it, each message coloured and each repair marked.

What became of each piece is the core's `Trace`; here it is written down: for a terminal (`terminal`), as a page
(`page`), as JSON, or for OpenAI's viewer (`euphony`). Knows no server.
"""

from __future__ import annotations

import argparse
import codecs
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

from ..core import HarmonyError, Trace

__all__ = ["add_arguments", "chunks_of_text", "ids_of", "run"]

WRONG_INPUT = 2
READ = 1 << 16
POLL = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `explain`; those that say what is read are `parse`'s, too."""
    parser.add_argument("--html", metavar="OUT.html", help="write one page that needs nothing else; -: print it")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.add_argument("--euphony", action="store_true", help="print the conversation for OpenAI's Euphony viewer")
    parser.add_argument("--show-ids", action="store_true", help="show token ids, too (of input that is ids)")
    parser.add_argument("--follow", action="store_true", help="go on as the file grows, until it is interrupted")


def run(arguments: argparse.Namespace, trace: Trace) -> int:
    """Explain a file; gives the exit code: 0 well-formed, 1 something was repaired.

    Args:
        arguments: those of `add_arguments`, and ``file`` and ``ids``.
        trace: made as the other flags say; nothing was fed to it.
    """
    if arguments.follow and (arguments.json or arguments.euphony or arguments.html or arguments.ids):
        raise ValueError("--follow prints text as it comes: it goes with neither --ids, --json, --html nor --euphony")
    if arguments.file == "-":
        return _explain(sys.stdin.buffer, arguments, trace)
    with open(arguments.file, "rb") as source:
        return _explain(source, arguments, trace)


def _explain(source: BinaryIO, arguments: argparse.Namespace, trace: Trace) -> int:
    if arguments.follow:
        from .terminal import Printer

        printer = Printer()
        for chunk in _growing(source) if arguments.file != "-" else chunks_of_text(source):
            trace.feed(chunk)
            printer.segments(trace.take(), trace.issues)
        explanation = trace.finish()
        printer.segments(trace.take(), trace.issues)
        printer.ending(explanation)
        return int(bool(explanation.issues))
    if arguments.ids:
        trace.feed(ids_of(source))
    else:
        for chunk in chunks_of_text(source):
            trace.feed(chunk)
    explanation = trace.finish()
    if arguments.html is not None:
        from .page import page

        title = "standard input" if arguments.file == "-" else arguments.file
        _write(arguments.html, page(explanation, title))
    elif arguments.json:
        print(json.dumps(explanation.to_dict(), ensure_ascii=False, indent=2))
    elif arguments.euphony:
        from .euphony import conversation

        print(json.dumps(conversation(explanation), ensure_ascii=False))
    else:
        from .terminal import Printer

        printer = Printer(ids=arguments.show_ids)
        printer.segments(explanation.segments, explanation.issues)
        printer.ending(explanation)
    return int(bool(explanation.issues))


def _write(path: str, text: str) -> None:
    if path == "-":
        print(text, end="")
        return
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)
    print(f"written to {path}", file=sys.stderr)


def chunks_of_text(source: BinaryIO) -> Iterator[str]:
    """Text as it comes; bytes that are not UTF-8 turn into U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    # A transcript made by an editor or by echo ends in a line break that the model did not write.
    held = ""
    while data := source.read1(READ) if hasattr(source, "read1") else source.read(READ):
        text = held + decoder.decode(data)
        held = "\n" if text.endswith("\n") else ""
        if text := text.removesuffix("\n"):
            yield text
    if rest := decoder.decode(b"", final=True):
        yield held + rest


def _growing(source: BinaryIO) -> Iterator[str]:
    """A file's text as it grows, until Ctrl+C."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    try:
        while True:
            data = source.read(READ)
            if text := decoder.decode(data):
                yield text
            if not data:
                time.sleep(POLL)
    except KeyboardInterrupt:
        return


def ids_of(source: BinaryIO) -> list[int]:
    """Token ids: a JSON list, or numbers with white space or commas between them.

    Raises:
        ValueError: it is neither.
    """
    data = source.read()
    try:
        value: Any = json.loads(data)
    except ValueError:
        words = data.decode("utf-8", "replace").replace(",", " ").split()
        if not words or not all(word.isdecimal() for word in words):
            raise ValueError("the input is not a JSON list of token ids") from None
        value = [int(word) for word in words]
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise ValueError("the input is not a JSON list of token ids")
    return value


def needs_rich() -> HarmonyError:
    """What to do where rich is missing."""
    return HarmonyError("a terminal's colours need rich: pip install 'harmony-plugin[cli]', or use --json or --html")
