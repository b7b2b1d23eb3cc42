"""The console script `harmony-plugin`. Knows arguments, files and exit codes; the work is done elsewhere."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, TextIO

from . import HarmonyError, HarmonyParseError, Options, Stream, doctor, explain, verify
from .core import Trace
from .explain import WRONG_INPUT
from .versions import VersionFlag

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code: 0 fine, 1 failed, 2 wrong input."""
    _widen(sys.stdout, sys.stderr)
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["serve"]:
        return _serve(given[1:])
    arguments = _parser().parse_args(given)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads: no complaint about flushing either
        return 1


def _widen(*streams: TextIO) -> None:
    """Have files and pipes get UTF-8, which JSON is, where the system's own encoding lacks letters, as on Windows. A
    terminal, and an encoding that was asked for, stay as they are."""
    for stream in streams:
        narrow = not (stream.encoding or "").lower().startswith("utf")
        if (
            isinstance(stream, io.TextIOWrapper)
            and narrow
            and not stream.isatty()
            and "PYTHONIOENCODING" not in os.environ
        ):
            stream.reconfigure(encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="harmony-plugin", description="Harmony (gpt-oss) in, OpenAI out.")
    parser.add_argument("--version", action=VersionFlag)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="run the real server on a tiny model and show what a client gets")
    demo.add_argument("--model", metavar="FILE.gguf", help="your own gpt-oss model, unscripted")
    demo.add_argument("--max-tokens", type=int, default=2048, help="of a reply of your model (default: %(default)s)")
    demo.add_argument("--open", action="store_true", help="keep the server up and open its page, until Ctrl+C")
    demo.set_defaults(run=_demo)
    parse = commands.add_parser("parse", help="split a transcript and print the OpenAI message as JSON")
    _add_input(parse)
    parse.add_argument("--stream", action="store_true", help="print deltas, one JSON object a line, as input comes")
    parse.set_defaults(run=_parse)
    explained = commands.add_parser("explain", help="show a transcript with each message coloured, each repair marked")
    _add_input(explained)
    explain.add_arguments(explained)
    explained.set_defaults(run=_explain)
    examined = commands.add_parser("doctor", help="find out what is wrong with an installation, a model or a server")
    doctor.add_arguments(examined)
    examined.set_defaults(run=doctor.run)
    verified = commands.add_parser("verify", help="check any endpoint that serves gpt-oss, through the real clients")
    verify.add_arguments(verified)
    verified.set_defaults(run=verify.run)
    commands.add_parser("serve", help="the llama-cpp-python server: python -m harmony_plugin.llamacpp", add_help=False)
    return parser


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="-", help="the model's output; -: standard input (default)")
    parser.add_argument("--ids", action="store_true", help="the input is a JSON list of token ids, not text")
    parser.add_argument("--prompt", help="the prompt's end, where it is not <|start|>assistant")
    parser.add_argument("--tools", metavar="FILE.json", help="the request's tools: names or OpenAI tools")
    parser.add_argument("--strict", action="store_true", help="fail at the first thing that is not well-formed")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting (docs/settings.md), before HARMONY_* in the environment; may be given several times",
    )


def _serve(argv: Sequence[str]) -> int:
    try:
        from .llamacpp.server.run import main as serve
    except ImportError as error:
        missing = f"the server needs {error.name}: pip install 'harmony-plugin[llamacpp]'"
        return _complain(str(error) if error.name is None else missing, 1)
    try:
        serve(argv)
    except KeyboardInterrupt:  # while it is still being set up
        return 130
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from .demo.show import demo

    return demo(arguments.model, arguments.max_tokens, open_page=arguments.open)


def _parse(arguments: argparse.Namespace) -> int:
    try:
        stream = Stream(**_how(arguments))
        if arguments.file == "-":
            return _split(stream, sys.stdin.buffer, arguments)
        with open(arguments.file, "rb") as source:
            return _split(stream, source, arguments)
    except HarmonyParseError as error:
        return _complain(error, 1)
    except (OSError, ValueError, TypeError, ImportError) as error:
        return _complain(error, WRONG_INPUT)


def _explain(arguments: argparse.Namespace) -> int:
    try:
        return explain.run(arguments, Trace(**_how(arguments)))
    except HarmonyParseError as error:
        return _complain(error, 1)
    except (OSError, ValueError, TypeError, ImportError, HarmonyError) as error:
        return _complain(error, WRONG_INPUT)


def _how(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of a stream."""
    tools = None
    if arguments.tools is not None:
        with open(arguments.tools, encoding="utf-8") as file:
            tools = json.load(file)
    return {"prompt": arguments.prompt, "tools": tools, "options": _options(arguments)}


def _options(arguments: argparse.Namespace) -> Options:
    """The settings in force.

    Raises:
        ValueError: a setting has a value that it does not take, or there is none of that name.
        ImportError: settings are given, and what reads them is not installed.
    """
    given = dict(_pair(each) for each in arguments.set)
    if arguments.strict:
        given["strict"] = "true"
    try:
        from . import settings
    except ImportError as error:
        named = [name for name in os.environ if name.startswith("HARMONY_")]
        if arguments.set or named:
            what = named[0] if named else "--set"
            raise ImportError(f"{what}: {error}") from None
        return Options(strict=arguments.strict)
    unknown = next((name for name in given if name not in settings.Settings.model_fields), None)
    if unknown is not None:
        known = ", ".join(settings.Settings.model_fields)
        raise ValueError(f"--set {unknown}: there is no such setting; there are {known}")
    return settings.read(**given).options()


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise ValueError(f"--set {text}: it is NAME=VALUE")
    return name.strip().lower().removeprefix("harmony_"), value


def _split(stream: Stream, source: BinaryIO, arguments: argparse.Namespace) -> int:
    # One id a chunk, as a server would feed them.
    ids = ([token] for token in explain.ids_of(source)) if arguments.ids else None
    chunks: Iterator[str | list[int]] = explain.chunks_of_text(source) if ids is None else ids
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


def _print(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)


def _complain(message: str | Exception, code: int) -> int:
    if isinstance(message, OSError) and message.filename is not None:
        message = f"{message.filename}: {message.strerror}"
    print(f"harmony-plugin: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
