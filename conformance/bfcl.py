"""Calls of the Berkeley Function Calling Leaderboard, written as Harmony and carried through everything: are they the
same behind it?

The wheel `bfcl-eval` (Apache-2.0) has questions with functions and possible answers. Each answer is written down as a
model would, in several shapes of header, and goes through the core, through vLLM's parsers in this process (the
plugin's and vLLM's own), and, a sample of them, through the real servers. What is compared is the name and the
arguments, letter for letter. Nothing of the data is committed.

    python -m conformance.bfcl --write     # docs/bfcl.md
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from harmony_plugin import Delta, Stream, parse
from harmony_plugin.core import harmony_encoding

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "bfcl.md"
VERSION = "2026.3.23"
DATA = "bfcl_eval/data"
#: Those that have possible answers of one turn.
CATEGORIES = (
    *("simple_python", "simple_java", "simple_javascript", "multiple", "parallel", "parallel_multiple"),
    *("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple"),
)
#: From BFCL's types to JSON Schema's.
TYPES = {
    **dict.fromkeys(("dict", "object", "HashMap", "Hashtable"), "object"),
    **dict.fromkeys(("array", "list", "tuple", "ArrayList", "Array", "Queue", "Stack"), "array"),
    **dict.fromkeys(("float", "number", "double"), "number"),
    **dict.fromkeys(("integer", "byte", "short", "long", "Bigint"), "integer"),
    **dict.fromkeys(("bool", "boolean", "Boolean"), "boolean"),
}
#: Headers of a call to NAME, behind `<|start|>assistant`.
SHAPES = {
    "as the guide writes it": "<|channel|>commentary to=functions.NAME <|constrain|>json",
    "recipient in the role's section": " to=functions.NAME<|channel|>commentary <|constrain|>json",
    "type as a bare word": "<|channel|>commentary to=functions.NAME json",
    "constraint without a space": "<|channel|>commentary to=functions.NAME<|constrain|>json",
    "no type": "<|channel|>commentary to=functions.NAME",
    "on the analysis channel": "<|channel|>analysis to=functions.NAME <|constrain|>json",
    "the name alone": "<|channel|>commentary to=NAME <|constrain|>json",
    "two channel clauses": "<|channel|>analysis<|channel|>commentary to=functions.NAME json",
}
FRONTS = {
    "": "",
    "analysis": "<|channel|>analysis<|message|>I call it.<|end|><|start|>assistant",
    "preamble": "<|channel|>analysis<|message|>I call it.<|end|><|start|>assistant"
    "<|channel|>commentary<|message|>I look it up.<|end|><|start|>assistant",
}

Calls = list[tuple[str, str]]


@dataclass(frozen=True)
class Case:
    """One answer in one shape. The names are a fixture's, so that `subjects` takes it."""

    id: str
    category: str
    shape: str
    tools: Sequence[dict[str, Any]]
    calls: Calls
    raw_output: str
    output_token_ids: Sequence[int]
    truncated: bool = False


def data() -> zipfile.ZipFile:
    """The wheel, fetched once into the user's cache."""
    folder = Path(platformdirs.user_cache_dir("harmony-plugin", appauthor=False)) / "bfcl"
    found = list(folder.glob(f"bfcl_eval-{VERSION}-*.whl"))
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        subprocess.run([*command, f"bfcl-eval=={VERSION}"], check=True)
        found = list(folder.glob(f"bfcl_eval-{VERSION}-*.whl"))
    return zipfile.ZipFile(found[0])


def answers() -> Iterator[tuple[str, str, list[dict[str, Any]], list[tuple[str, Any]]]]:
    """Category, id, tools and calls of every question."""
    with data() as wheel:
        for category in CATEGORIES:
            lines = (wheel.read(f"{DATA}/{part}BFCL_v4_{category}.json") for part in ("", "possible_answer/"))
            asked, right = ([json.loads(line) for line in text.splitlines() if line.strip()] for text in lines)
            truths = {entry["id"]: entry["ground_truth"] for entry in right}
            for question in asked:
                if question["id"] in truths:
                    tools = [_tool(function) for function in question["function"]]
                    calls = [
                        (_name(name), _picked(given)) for call in truths[question["id"]] for name, given in call.items()
                    ]
                    yield category, question["id"], tools, calls


def _name(name: str) -> str:
    """A name that OpenAI's API takes, as BFCL itself makes it."""
    return name.replace(".", "_")


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    parameters = _schema(function["parameters"])
    return {"type": "function", "function": {**function, "name": _name(function["name"]), "parameters": parameters}}


def _schema(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _schema(value) for name, value in schema.items()}
    if isinstance(schema.get("type"), str):
        made["type"] = TYPES.get(schema["type"], "string")
    return made


def _picked(value: Any) -> Any:
    """Of possible values, the first that says something."""
    if isinstance(value, dict):
        given = {name: options if isinstance(options, list) else [options] for name, options in value.items()}
        said = {name: [each for each in options if each != ""] for name, options in given.items()}
        return {name: _picked(options[0]) for name, options in said.items() if options}
    return [_picked(each) for each in value] if isinstance(value, list) else value


def cases() -> Iterator[Case]:
    """Every answer in every shape; what stands in front, and how the JSON is written, take turns."""
    encode = harmony_encoding().encode
    for number, (category, name, tools, given) in enumerate(answers()):
        for place, (shape, header) in enumerate(SHAPES.items()):
            front = list(FRONTS.values())[(number + place) % len(FRONTS)]
            how: dict[str, Any] = {"ensure_ascii": number % 5 == 0, "separators": (",", ":") if place % 2 else None}
            calls = [(tool, json.dumps(arguments, **how)) for tool, arguments in given]
            text = front + "<|start|>assistant".join(
                f"{header.replace('NAME', tool)}<|message|>{arguments}<|call|>" for tool, arguments in calls
            )
            ids = encode(text, allowed_special="all")
            yield Case(f"{name}-{place}", category, shape, tools, calls, text, ids)


Split = Callable[[Case], tuple[Calls, Calls]]
"""From a case to the calls that come out, whole and streamed."""


def core(case: Case) -> tuple[Calls, Calls]:
    whole = parse(case.output_token_ids, tools=case.tools).tool_calls
    streamed = sum(Stream(tools=case.tools).deltas([token] for token in case.output_token_ids), Delta()).tool_calls
    return [(c.name, c.arguments) for c in whole], [(c.name or "", c.arguments) for c in streamed]


def vllms_parser(ours: bool) -> Split:
    """vLLM's parser for gpt-oss in this process: the plugin's, or vLLM's own."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.parser.parser_manager import ParserManager

    names = ("harmony", "harmony") if ours else ("openai_gptoss", "openai")
    if ours:
        from harmony_plugin.vllm import register

        register()
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "rigs")]
    from vllm_plugin.conftest import o200k

    parser_class = ParserManager.get_parser(
        reasoning_parser_name=names[0], tool_parser_name=names[1], enable_auto_tools=True, is_harmony=True
    )
    tokenizer = o200k()
    prompt = [200006, 1428, 200008, 1, 200007, 200006, 173781]

    def split(case: Case) -> tuple[Calls, Calls]:
        ids = list(case.output_token_ids)
        message = {"role": "user", "content": "Hi"}
        request = ChatCompletionRequest(model="m", messages=[message], tools=list(case.tools))
        try:
            parsed = parser_class(tokenizer, request.tools).parse(
                "", request, enable_auto_tools=True, model_output_token_ids=ids
            )
            whole = [(call.name, call.arguments) for call in parsed[2] or ()]
        except Exception:
            whole = []
        made: list[list[str]] = []
        try:
            parser = parser_class(tokenizer, request.tools)
            for place, token in enumerate(ids):
                delta = parser.parse_delta("", [token], request, prompt, finished=place == len(ids) - 1)
                for call in delta.tool_calls if delta is not None else ():
                    if call.index >= len(made):
                        made.append(["", ""])
                    made[call.index][0] += call.function.name or ""
                    made[call.index][1] += call.function.arguments or ""
        except Exception:
            made = []
        return whole, [(name, arguments) for name, arguments in made]

    return split


def counted(split: Split, chosen: Sequence[Case]) -> Counter[str]:
    """Of each shape, how many calls came out the same: whole, streamed, and how many there were."""
    counts: Counter[str] = Counter()
    for case in chosen:
        whole, streamed = split(case)
        counts[f"{case.shape}/whole"] += whole == case.calls
        counts[f"{case.shape}/streamed"] += streamed == case.calls
        counts[f"{case.shape}/all"] += 1
    return counts


def at_servers(chosen: Sequence[Case]) -> dict[str, Counter[str]]:
    """The same through real servers, by OpenAI's client."""
    from . import subjects

    found = {}
    for name, observe in (
        ("llama.cpp, ours", subjects.llamacpp_server(chosen)),  # type: ignore[arg-type]
        ("vLLM, plugin", subjects.vllm(True, chosen)),  # type: ignore[arg-type]
        ("vLLM, stock", subjects.vllm(False, chosen)),  # type: ignore[arg-type]
    ):

        def split(case: Case, observe: Any = observe) -> tuple[Calls, Calls]:
            seen = observe(case)
            told = (seen.nonstream, seen.streams["server"])
            whole, streamed = ([(call.name, call.arguments) for call in each.tool_calls or ()] for each in told)
            return whole, streamed

        found[name] = counted(split, chosen)
    return found


def in_a_process(name: str, share: int) -> Counter[str]:
    """vLLM's parsers rebind each other: each in a process of its own."""
    command = [sys.executable, "-m", "conformance.bfcl", "--parser", name, "--share", str(share)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return Counter(json.loads(done.stdout.strip().splitlines()[-1]))


def table(found: dict[str, Counter[str]]) -> Iterator[str]:
    yield f"| header | {' | '.join(found)} |"
    yield f"| --- |{' ---: |' * len(found)}"
    for shape in SHAPES:
        yield f"| {shape} | {' | '.join(_cell(counts, shape) for counts in found.values())} |"
    totals = []
    for counts in found.values():
        whole, streamed, of = (
            sum(counts[f"{shape}/{what}"] for shape in SHAPES) for what in ("whole", "streamed", "all")
        )
        totals.append(_said(whole, streamed, of))
    yield f"| **all** | {' | '.join(totals)} |"


def _cell(counts: Counter[str], shape: str) -> str:
    return _said(*(counts[f"{shape}/{what}"] for what in ("whole", "streamed", "all")))


def _said(whole: int, streamed: int, of: int) -> str:
    both = f"{whole:,}" if whole == streamed else f"{whole:,} / {streamed:,}"
    return f"{both} of {of:,}" if (whole, streamed) != (of, of) else f"all {of:,}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/bfcl.md")
    parser.add_argument("--sample", type=int, default=300, help="how many go through real servers; 0: none")
    parser.add_argument("--share", type=int, default=1, help="take one of so many (default: all)")
    parser.add_argument("--parser", choices=["plugin", "stock"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    everything = [case for case in cases() if zlib.crc32(case.id.encode()) % arguments.share == 0]
    if arguments.parser:
        print(json.dumps(counted(vllms_parser(arguments.parser == "plugin"), everything)))
        return 0
    here = {"the core": counted(core, everything)}
    here |= {f"vLLM's parser, {name}": in_a_process(name, arguments.share) for name in ("plugin", "stock")}
    lines = [
        "# BFCL as transport",
        "",
        f"Written by `python -m conformance.bfcl --write` (`make conformance`). The data of `bfcl-eval` {VERSION}: "
        f"{len({case.id.rpartition('-')[0] for case in everything}):,} questions with possible answers "
        f"({', '.join(CATEGORIES)}), each answer written as Harmony in {len(SHAPES)} shapes of header, with analysis "
        "or a preamble in front of some. A reply counts where every call's name and arguments come out as they went "
        "in, letter for letter; two numbers are whole and streamed. It says nothing of a model: what goes in is right.",
        "",
        "## All of them, in one process, streamed token by token",
        "",
        *table(here),
    ]
    found = dict(here)
    if arguments.sample:
        chosen = random.Random(7).sample(everything, min(arguments.sample, len(everything)))
        served = at_servers(chosen)
        lines += [
            "",
            f"## {len(chosen)} of them, drawn by chance, through real servers and OpenAI's client",
            "",
            *table(served),
        ]
        found |= served
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.write:
        DOCUMENT.write_text(text, "utf-8")
    ours = [counts for name, counts in found.items() if "stock" not in name]
    return int(
        any(counts[f"{s}/{w}"] != counts[f"{s}/all"] for counts in ours for s in SHAPES for w in ("whole", "streamed"))
    )


if __name__ == "__main__":
    sys.exit(main())
