"""The console script `harmony-plugin`: `demo`, `parse` and `serve`. Knows arguments, files and exit codes; the work
is done elsewhere."""

from __future__ import annotations

import argparse
import codecs
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from . import HarmonyParseError, Options, Stream
from .versions import VersionFlag

__all__ = ["main"]

WRONG_INPUT = 2
READ = 1 << 16


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code: 0 fine, 1 failed, 2 wrong input."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["serve"]:
        return _serve(given[1:])
    arguments = _parser().parse_args(given)
    try:
        if arguments.command == "demo":
            from .demo.show import demo

            return demo(arguments.model, arguments.max_tokens, open_page=arguments.open)
        return _parse(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads: no complaint about flushing either
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="harmony-plugin", description="Harmony (gpt-oss) in, OpenAI out.")
    parser.add_argument("--version", action=VersionFlag)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="run the real server on a tiny model and show what a client gets")
    demo.add_argument("--model", metavar="FILE.gguf", help="your own gpt-oss model, unscripted")
    demo.add_argument("--max-tokens", type=int, default=2048, help="of a reply of your model (default: %(default)s)")
    demo.add_argument("--open", action="store_true", help="keep the server up and open its page, until Ctrl+C")
    parse = commands.add_parser("parse", help="split a transcript and print the OpenAI message as JSON")
    parse.add_argument("file", nargs="?", default="-", help="the model's output; -: standard input (default)")
    parse.add_argument("--ids", action="store_true", help="the input is a JSON list of token ids, not text")
    parse.add_argument("--prompt", help="the prompt's end, where it is not <|start|>assistant")
    parse.add_argument("--tools", metavar="FILE.json", help="the request's tools: names or OpenAI tools")
    parse.add_argument("--stream", action="store_true", help="print deltas, one JSON object a line, as input comes")
    parse.add_argument("--strict", action="store_true", help="fail at the first thing that is not well-formed")
    commands.add_parser("serve", help="the llama-cpp-python server: python -m harmony_plugin.llamacpp", add_help=False)
    return parser


def _serve(argv: Sequence[str]) -> int:
    try:
        from .llamacpp.server.run import main as serve
    except ImportError as error:
        return _complain(str(error), 1)
    try:
        serve(argv)
    except KeyboardInterrupt:  # while it is still being set up
        return 130
    return 0


def _parse(arguments: argparse.Namespace) -> int:
    try:
        tools = None
        if arguments.tools is not None:
            with open(arguments.tools, encoding="utf-8") as file:
                tools = json.load(file)
        stream = Stream(prompt=arguments.prompt, tools=tools, options=Options(strict=arguments.strict))
        if arguments.file == "-":
            return _split(stream, sys.stdin.buffer, arguments)
        with open(arguments.file, "rb") as source:
            return _split(stream, source, arguments)
    except HarmonyParseError as error:
        return _complain(str(error), 1)
    except (OSError, ValueError, TypeError, ImportError) as error:
        return _complain(str(error), WRONG_INPUT)


def _split(stream: Stream, source: BinaryIO, arguments: argparse.Namespace) -> int:
    chunks: Iterator[str | list[int]] = _ids(source) if arguments.ids else _text(source)
    for delta in stream.deltas(chunks):
        if arguments.stream:
            _print(delta.to_openai())
    reply = stream.reply
    if arguments.stream:
        _print({"finish_reason": reply.finish_reason()})
    else:
        print(json.dumps(reply.to_openai(), ensure_ascii=False, indent=2))
    for issue in reply.issues:
        print(f"issue: {issue.code} at {issue.offset}: {issue.text!r}", file=sys.stderr)
    return 0


def _text(source: BinaryIO) -> Iterator[str]:
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


def _ids(source: BinaryIO) -> Iterator[list[int]]:
    value: Any = json.load(source)
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise ValueError("the input is not a JSON list of token ids")
    # One id a chunk, as a server would feed them.
    for token in value:
        yield [token]


def _print(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)


def _complain(message: str, code: int) -> int:
    print(f"harmony-plugin: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
