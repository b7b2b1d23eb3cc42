"""BFCL's right calls through parsers and servers: what a client gets, whole and streamed, beside what the model wrote.

Every output goes through the parsers in this process; a sample, chosen by a fixed seed, through real servers on all
three APIs. An output has come through if the client gets each call's name and arguments to the character, and no other
text than what stands in front of the calls. Knows what is right (see `bfcl`); splits nothing.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from harmony_plugin import Delta, Reply, Stream, parse
from harmony_plugin.core import harmony_encoding

from . import bfcl, servers
from .bfcl import SHAPES, Case, Output

SEED = 14
SAMPLE = 300
OTHER_APIS = 60
"""How many of the sample go through `/v1/responses` and `/v1/messages`, too."""

Fields = tuple[str | None, str | None, list[tuple[str, str]]]
"""Reasoning, content, and the calls' names and arguments."""
Read = Callable[[Output, list[int]], Fields]
Api = Literal["chat", "responses", "messages"]


class Fault(NamedTuple):
    """An output that did not come through. ``same``: the calls are the same JSON, written in another way."""

    where: str
    output: Output
    said: str
    same: bool = False


def expected(output: Output) -> Fields:
    before = SHAPES[output.shape].before
    reasoning, plan = bfcl.THOUGHT if "analysis" in before else None, bfcl.PLAN if "commentary" in before else None
    return reasoning, plan, list(output.calls)


def ids_of(output: Output) -> list[int]:
    return list(harmony_encoding().encode(output.raw, allowed_special="all"))


def fault(where: str, found: Fields, right: Fields, output: Output) -> Fault | None:
    """What is not as the model wrote it, if anything is."""
    wrong = [f"{got!r} for {wanted!r}" for got, wanted in zip(found, right, strict=True) if got != wanted]
    return Fault(where, output, "; ".join(wrong), _values(found) == _values(right)) if wrong else None


def _values(fields: Fields) -> Any:
    """The fields with arguments as values, not as text."""
    reasoning, content, calls = fields
    try:
        return reasoning, content, [(name, json.dumps(json.loads(text), sort_keys=True)) for name, text in calls]
    except ValueError:
        return fields


# In this process


def _core(reply: Reply | Delta) -> Fields:
    calls = [(call.name or "", call.arguments) for call in reply.tool_calls]
    return reply.reasoning_content, reply.content, calls


def _names(output: Output) -> list[str]:
    return [tool["function"]["name"] for tool in output.case.tools]


def core_by_ids() -> tuple[Read, Read]:
    def streamed(output: Output, ids: list[int]) -> Fields:
        return _core(sum(Stream(tools=_names(output)).deltas([[token] for token in ids]), Delta()))

    return lambda output, ids: _core(parse(ids, tools=_names(output))), streamed


def core_by_text() -> tuple[Read, Read]:
    def streamed(output: Output, _: list[int]) -> Fields:
        return _core(sum(Stream(tools=_names(output)).deltas(list(output.raw)), Delta()))

    return lambda output, _: _core(parse(output.raw, tools=_names(output))), streamed


def vllm_parser(plugin: bool) -> tuple[Read, Read]:
    """vLLM's parser class for gpt-oss or the plugin's, as the server calls it for chat."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    parser_class, tokenizer = _parser_class(plugin), _tokenizer()
    prompt = harmony_encoding().encode("<|start|>user<|message|>Hi.<|end|><|start|>assistant", allowed_special="all")
    requests: dict[str, Any] = {}

    def request(case: Case) -> Any:
        if case.id not in requests:
            requests.clear()  # outputs come case by case
            fields: dict[str, Any] = {"model": "m", "messages": list(case.messages), "tools": list(case.tools)}
            requests[case.id] = ChatCompletionRequest(**fields)
        return requests[case.id]

    def whole(output: Output, ids: list[int]) -> Fields:
        parser, asked = parser_class(tokenizer, None), request(output.case)
        reasoning, content, calls = parser.parse("", asked, enable_auto_tools=True, model_output_token_ids=ids)
        return reasoning, content, [(call.name, call.arguments) for call in calls or ()]

    def streamed(output: Output, ids: list[int]) -> Fields:
        parser, asked = parser_class(tokenizer, None), request(output.case)
        reasoning, content = "", ""
        calls: dict[int, list[str]] = {}
        for place, token in enumerate(ids):
            delta = parser.parse_delta("", [token], asked, prompt, finished=place == len(ids) - 1)
            if delta is None:
                continue
            reasoning += delta.reasoning or ""
            content += delta.content or ""
            for call in delta.tool_calls or ():
                known = calls.setdefault(call.index, ["", ""])
                if call.function is not None:
                    known[0] += call.function.name or ""
                    known[1] += call.function.arguments or ""
        return reasoning or None, content or None, [(name, text) for _, (name, text) in sorted(calls.items())]

    return whole, streamed


def _parser_class(plugin: bool) -> Any:
    base: Any
    parts: tuple[Any, Any]
    if plugin:
        from harmony_plugin.vllm import parsers as ours

        base, parts = ours.HarmonyParser, (ours.HarmonyReasoningParser, ours.HarmonyToolParser)
    else:  # vLLM's own, as long as nothing has imported the plugin's
        from vllm.parser.harmony import HarmonyParser
        from vllm.reasoning.gptoss_reasoning_parser import GptOssReasoningParser
        from vllm.tool_parsers.gptoss_tool_parser import GptOssToolParser

        base, parts = HarmonyParser, (GptOssReasoningParser, GptOssToolParser)
    return type("Composed", (base,), {"reasoning_parser_cls": parts[0], "tool_parser_cls": parts[1]})


def _tokenizer() -> Any:
    from transformers import AutoTokenizer
    from vllm_rig.model import model_directory

    return AutoTokenizer.from_pretrained(model_directory("gpt_oss"))


class Subject(NamedTuple):
    """Who reads outputs in this process. ``make`` gives the ways to read one whole and streamed."""

    name: str
    ours: bool
    make: Callable[[], tuple[Read, Read]]


# Stock before the plugin, which takes the name of vLLM's class over.
SUBJECTS = (
    Subject("core, ids", True, core_by_ids),
    Subject("core, text", True, core_by_text),
    Subject("vLLM stock", False, lambda: vllm_parser(False)),
    Subject("vLLM + plugin", True, lambda: vllm_parser(True)),
)


class Counted(NamedTuple):
    """How many outputs came through by shape, whole and streamed alike: ``verbatim``; as the ``same`` JSON at least."""

    verbatim: Counter[int]
    same: Counter[int]
    faults: list[Fault]


def in_process(cases: Sequence[Case], subject: Subject) -> Counted:
    readers = tuple(zip(("whole", "streamed"), subject.make(), strict=True))
    counted = Counted(Counter(), Counter(), [])
    for case in cases:
        for output in bfcl.outputs(case):
            ids, right = ids_of(output), expected(output)
            wrong = []
            for mode, read in readers:
                where = f"{subject.name}, {mode}"
                try:
                    found = fault(where, read(output, ids), right, output)
                except Exception as error:
                    found = Fault(where, output, f"{type(error).__name__}: {error}")
                wrong += [found] if found else []
            counted.verbatim[output.shape] += not wrong
            counted.same[output.shape] += all(each.same for each in wrong)
            counted.faults.extend(wrong)
    return counted


# Servers


class Row(NamedTuple):
    """A line of the servers' table."""

    server: str
    api: Api
    mode: str
    sent: int
    verbatim: int
    same: int


def sample(cases: Sequence[Case], every: bool) -> list[Output]:
    """The cases to send, in a fixed random order, each in one shape; the shapes in turn."""
    order = list(cases)
    random.Random(SEED).shuffle(order)
    chosen = order if every else order[:SAMPLE]
    return [list(bfcl.outputs(case))[number % len(SHAPES)] for number, case in enumerate(chosen)]


def _options(output: Output, api: Api, past_call: bool) -> dict[str, Any]:
    """A request's fields beside its script: the question and tools; how the llama.cpp server is told of its script."""
    said = [dict(message) for message in output.case.messages]
    options: dict[str, Any] = {"tools": output.case.tools}
    if api == "messages":
        system = "\n".join(message["content"] for message in said if message["role"] == "system")
        options["messages"] = [message for message in said if message["role"] != "system"]
        options["metadata"] = {"user_id": output.id}
        return options | ({"system": system} if system else {})
    options["input" if api == "responses" else "messages"] = said
    options["metadata"] = {"script": output.id}
    if past_call:
        options["parallel_tool_calls"] = True
    return options


def _jobs(outputs: Sequence[Output]) -> list[tuple[Api, bool, Output]]:
    jobs: list[tuple[Api, bool, Output]] = []
    some = outputs[:OTHER_APIS]
    for output in outputs:
        jobs += [("chat", False, output), ("chat", True, output)]
    for output in some:
        jobs += [("responses", False, output), ("responses", True, output)]
    for output in some:
        if not _past_call(output):  # this API cannot be told to go on behind <|call|>
            jobs += [("messages", False, output), ("messages", True, output)]
    return jobs


def _past_call(output: Output) -> bool:
    return len(output.calls) > 1 and SHAPES[output.shape].end == "<|call|>"


async def _ask_all(url: str, jobs: Sequence[tuple[Api, bool, Output]], at_once: int) -> list[Any]:
    from vllm_rig.replies import Clients, Script, gather_bounded

    async with Clients(url) as clients:

        async def ask(api: Any, stream: bool, output: Output) -> Any:
            past = _past_call(output)
            script = Script(tuple(ids_of(output)), past_stops=past)
            return await clients.ask(api, script, stream=stream, **_options(output, api, past))

        return await gather_bounded([ask(*job) for job in jobs], at_once)


def through(server: str, url: str, outputs: Sequence[Output], at_once: int) -> tuple[list[Row], list[Fault]]:
    """The outputs through a server that listens at `url`."""
    from vllm_rig.replies import comparable

    jobs = _jobs(outputs)
    counts: dict[tuple[Api, str], Counter[str]] = {}
    faults = []
    for (api, stream, output), reply in zip(jobs, asyncio.run(_ask_all(url, jobs, at_once)), strict=True):
        mode = "streamed" if stream else "whole"
        where = f"{server}, {api}, {mode}"
        if isinstance(reply, BaseException):
            wrong: Fault | None = Fault(where, output, f"{type(reply).__name__}: {reply}")
        else:
            found, right = (comparable(fields, api, stream) for fields in (reply.fields, expected(output)))
            wrong = fault(where, found, right, output)
        faults += [wrong] if wrong else []
        count = counts.setdefault((api, mode), Counter())
        count.update(sent=1, verbatim=not wrong, same=wrong is None or wrong.same)
    rows = [Row(server, api, mode, c["sent"], c["verbatim"], c["same"]) for (api, mode), c in counts.items()]
    return rows, faults


def _servers(outputs: Sequence[Output]) -> Iterator[tuple[str, bool, Any, int]]:
    yield "llama.cpp server", True, servers.llamacpp({output.id: ids_of(output) for output in outputs}), 4
    yield "vLLM + plugin", True, servers.vllm(plugin=True), 16
    yield "vLLM stock", False, servers.vllm(plugin=False), 16


# All of it


def run(every: bool) -> tuple[str, list[str]]:
    """The section for docs/conformance.md, and a line for each output that ours did not get right."""
    cases = bfcl.load()
    counted = {}
    for subject in SUBJECTS:
        print(f"BFCL: {subject.name} …", file=sys.stderr, flush=True)
        counted[subject] = in_process(cases, subject)
    outputs = sample(cases, every)
    rows: list[Row] = []
    faults: dict[bool, list[Fault]] = {True: [], False: []}
    for subject, found in counted.items():
        faults[subject.ours] += found.faults
    for name, ours, server, at_once in _servers(outputs):
        print(f"BFCL: {name}, the server …", file=sys.stderr, flush=True)
        with server as url:
            more, wrong = through(name, url, outputs, at_once)
        rows += more
        faults[ours] += wrong
    bad = [f"{fault.where}: {fault.output.id}: {fault.said[:300]}" for fault in faults[True]]
    return _section(cases, counted, outputs, rows, faults[False]), bad


def _mark(outputs: int, verbatim: int, same: int) -> str:
    return f"{verbatim:,}" if verbatim in (outputs, same) else f"{verbatim:,}; the same JSON: {same:,}"


_ABOUT = f"""
The leaderboard's data (bfcl-eval {bfcl.VERSION}, Apache-2.0, read from its wheel): every single-turn case that has a
right answer, its functions as OpenAI tools as the leaderboard's own handlers make them (dots in names become `_`,
values of Java and JavaScript are text). One right call, or several, is written as gpt-oss writes it, the JSON laid out
in one of four ways. It has come through if name and arguments come out to the character, whole and streamed, and no
text but the reasoning and the preamble in front. This is a test of transport: whether a model chooses well is another
matter.
"""
_IN_PROCESS = """
Whole, and streamed an id (by text: a character) at a time; vLLM's classes as its server calls them for chat.
"""
_SERVERS = f"""
Cases in a random order (seed {SEED}), each with its tools and question, through the official clients; the first
{OTHER_APIS} also on `/v1/responses` and `/v1/messages`. The latter has no way to go on behind `<|call|>`, so several
calls go there only as messages that end with `<|end|>`; its whole replies have arguments as an object, compared so.
"""


def _section(
    cases: Sequence[Case],
    counted: Mapping[Subject, Counted],
    outputs: Sequence[Output],
    rows: Sequence[Row],
    theirs: Sequence[Fault],
) -> str:
    per_category = Counter(case.category for case in cases)
    lines = [
        f"## BFCL as transport: {len(cases):,} right calls in {len(SHAPES)} header shapes",
        _ABOUT,
        "; ".join(f"{name} {count:,}" for name, count in per_category.items()) + ".",
        "",
        f"### In one process: every case in every shape, {len(cases) * len(SHAPES):,} outputs",
        _IN_PROCESS,
        "| shape | outputs | " + " | ".join(subject.name for subject in counted) + " |",
        "| --- | ---: |" + " ---: |" * len(counted),
    ]
    for number, shape in enumerate(SHAPES):
        marks = [_mark(len(cases), found.verbatim[number], found.same[number]) for found in counted.values()]
        lines.append(f"| {shape.name} | {len(cases):,} | {' | '.join(marks)} |")
    lines += [
        "",
        f"### Through servers: {len(outputs):,} outputs, shapes in turn",
        _SERVERS,
        "| server | API | mode | sent | verbatim | the same JSON |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    theirs = [fault for fault in theirs if not fault.same]
    if theirs:
        lines += ["", "What stock loses, by way of asking, and the first of each:", ""]
        for where in dict.fromkeys(fault.where for fault in theirs):
            some = [fault for fault in theirs if fault.where == where]
            said = some[0].said.replace("`", "'").replace("\n", " ")
            lines.append(f"- {where}, {len(some):,} in all; `{some[0].output.id}`: `{said[:300]}`")
    return "\n".join(lines) + "\n"
