"""Open Responses: both servers' `/v1/responses` against the specification's schema, whole and every event of a stream.

The schema is the specification's OpenAPI document as the wheel `openresponses-types` carries it (Pydantic models that
are generated from it); it is read from the user's cache folder, not installed. The cases are those that the
specification's own compliance tests have for the core (openresponses.org/compliance), and some more, written anew, each
with what the scripted model says. Knows the API's shapes; knows nothing of Harmony but how a script is written.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, cast

import httpx

from harmony_plugin.core import harmony_encoding

from . import download, servers

PACKAGE, VERSION = "openresponses-types", "2.4.0"

Json = dict[str, Any]


class Case(NamedTuple):
    """``says``: what the model writes. ``items``: the types of the output's items; none: the request is refused."""

    id: str
    body: Json
    says: str
    items: tuple[str, ...]
    status: str = "completed"


_ANSWER = "<|channel|>final<|message|>{}<|return|>"
_THOUGHT = "<|channel|>analysis<|message|>Let me think.<|end|><|start|>assistant"
_CALL = '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Rome"}<|call|>'
_PLAN = "<|channel|>commentary<|message|>I will look.<|end|><|start|>assistant"
_TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def _say(role: str, content: Any, **more: str) -> Json:
    return {"type": "message", "role": role, "content": content, **more}


_ASKED = _say("user", "What is the weather in Rome?")
_LOOP = (
    {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city": "Rome"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "21 C"},
)
CASES = (
    Case("basic-response", {"input": [_say("user", "Greet me.")]}, _ANSWER.format("Hello to you."), ("message",)),
    Case("string-input", {"input": "Greet me."}, _ANSWER.format("Hello to you."), ("message",)),
    Case(
        "reasoning",
        {"input": [_say("user", "Greet me.")], "reasoning": {"effort": "low"}},
        _THOUGHT + _ANSWER.format("Hello."),
        ("reasoning", "message"),
    ),
    Case(
        "system-prompt",
        {"input": [_say("system", "You are a pirate."), _say("user", "Greet me.")]},
        _ANSWER.format("Ahoy!"),
        ("message",),
    ),
    Case(
        "instructions",
        {"input": "Greet me.", "instructions": "You are a pirate.", "metadata": {"a": "b"}, "temperature": 0.5},
        _ANSWER.format("Ahoy!"),
        ("message",),
    ),
    Case(
        "multi-turn",
        {"input": [_say("user", "I am Ann."), _say("assistant", "Hello, Ann."), _say("user", "Who am I?")]},
        _ANSWER.format("You are Ann."),
        ("message",),
    ),
    Case(
        "assistant-phase",
        {
            "input": [
                _say("user", "Two and two?"),
                _say("assistant", "I will add them.", phase="commentary"),
                _say("assistant", "Four.", phase="final_answer"),
                _say("user", "Again?"),
            ]
        },
        _ANSWER.format("Four."),
        ("message",),
    ),
    Case("tool-calling", {"input": [_ASKED], "tools": [_TOOL]}, _CALL, ("function_call",)),
    Case(
        "tool-calling, thought and preamble",
        {"input": [_ASKED], "tools": [_TOOL]},
        _THOUGHT + _PLAN + _CALL,
        ("reasoning", "message", "function_call"),
    ),
    Case("tool-result", {"input": [_ASKED, *_LOOP], "tools": [_TOOL]}, _ANSWER.format("21 C."), ("message",)),
    Case(
        "max-output-tokens",
        {"input": "Count.", "max_output_tokens": 8},
        _ANSWER.format("one two three four five six seven eight nine ten"),
        ("message",),
        "incomplete",
    ),
    Case(
        "image-input",
        {
            "input": [
                _say("user", [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": _PIXEL}])
            ]
        },
        _ANSWER.format("A dot."),
        (),
    ),
)


class Specification:
    """What a response, an event and an error must look like."""

    def __init__(self) -> None:
        from pydantic import TypeAdapter

        sys.path.insert(0, str(download.wheel(PACKAGE, VERSION)))
        types = importlib.import_module("openresponses_types")
        self.version = types.__spec_version__
        self._response = TypeAdapter(types.ResponseResource)
        self._error = TypeAdapter(types.ErrorPayload)
        self._events: dict[str, Any] = {}
        for name, model in vars(types).items():
            if name.endswith("StreamingEvent"):
                (kind,) = model.model_fields["type"].annotation
                self._events[str(kind)] = TypeAdapter(model)

    def response(self, given: Any) -> list[str]:
        return _judged(self._response, given, "")

    def error(self, given: Any) -> list[str]:
        return _judged(self._error, given, "error: ")

    def event(self, given: Mapping[str, Any]) -> list[str]:
        kind = str(given.get("type"))
        if kind not in self._events:
            return [f"{kind}: not an event of the specification"]
        return _judged(self._events[kind], given, f"{kind}: ")


def _judged(adapter: Any, given: Any, where: str) -> list[str]:
    from pydantic import ValidationError

    try:
        adapter.validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        # A union says what is wrong with each of its members, and their names tell nobody which was meant.
        return [f"{where}{'.'.join(map(str, line['loc']))}: {line['msg']}" for line in error.errors()[:12]]
    return []


#: Of ours: what deviates on purpose, and why.
EXPLAINED = {
    r"response\.reasoning_text\.(delta|done): not an event": (
        "`response.reasoning_text.*` is what OpenAI's API and clients have for raw reasoning; the specification writes "
        "`response.reasoning.*`, which they do not know"
    ),
}


# One reply


def whole_faults(spec: Specification, case: Case, response: Json) -> list[str]:
    return spec.response(response) + _told_faults(case, response)


def _told_faults(case: Case, response: Json) -> list[str]:
    """What is wrong with what a response says, its form aside."""
    kinds = tuple(item.get("type") for item in response.get("output") or ())
    faults = [] if kinds == case.items else [f"output: {kinds} for {case.items}"]
    if response.get("status") != case.status:
        faults.append(f"status: {response.get('status')} for {case.status}")
    return faults


def stream_faults(spec: Specification, case: Case, events: Sequence[Json]) -> list[str]:
    faults = [fault for event in events for fault in spec.event(event)]
    last = events[-1] if events else {}
    response = last.get("response") or {}
    if [event.get("sequence_number") for event in events] != list(range(len(events))):
        faults.append("sequence numbers do not count from 0")
    if [event["type"] for event in events[:2]] != ["response.created", "response.in_progress"]:
        faults.append("the stream does not begin with response.created and response.in_progress")
    if last.get("type") != f"response.{case.status}":
        faults.append(f"the stream ends with {last.get('type')}")
    return [*faults, *whole_faults(spec, case, response), *_item_faults(events, response)]


def _item_faults(events: Sequence[Json], response: Json) -> list[str]:
    """Whether each item's life is in order, and deltas, done events and the end say the same."""
    faults = []
    added: list[Any] = []
    done: list[Any] = []
    deltas: dict[tuple[Any, Any], str] = {}
    for event in events:
        kind, index = event["type"], event.get("output_index")
        place = index, event.get("content_index")
        if kind == "response.output_item.added":
            added.append(index)
        elif kind == "response.output_item.done":
            done.append(event["item"])
        elif index is not None and (index not in added or len(done) != index):
            faults.append(f"{kind} outside its item")
        if kind.endswith(".delta"):
            deltas[place] = deltas.get(place, "") + event["delta"]
        said = event.get("text") if kind.endswith("_text.done") else event.get("arguments")
        if said is not None and said != deltas.get(place, ""):
            faults.append(f"{kind}: {said!r}, the deltas {deltas.get(place, '')!r}")
    if added != list(range(len(added))):
        faults.append(f"items were added as {added}")
    if done != response.get("output"):
        faults.append("the done items are not the end's output")
    return faults


def refusal_faults(spec: Specification, status: int, body: Any) -> list[str]:
    if not 400 <= status < 500:
        return [f"status {status} for a request that a text model cannot serve"]
    return spec.error(body.get("error") if isinstance(body, dict) else body)


# Servers


class Server(NamedTuple):
    name: str
    ours: bool
    start: Callable[[], AbstractContextManager[str]]


def _ids(case: Case) -> list[int]:
    return list(harmony_encoding().encode(case.says, allowed_special="all"))


PLUGIN, STOCK = "vLLM + plugin", "vLLM stock"
VLLMS_OWN = "vLLM's own, without the plugin, too"
SERVERS = (
    Server("llama.cpp server", True, lambda: servers.llamacpp({case.id: _ids(case) for case in CASES})),
    Server(PLUGIN, True, lambda: servers.vllm(plugin=True)),
    Server(STOCK, False, lambda: servers.vllm(plugin=False)),
)


def _body(case: Case) -> Json:
    """The request, with its script as either server takes it."""
    metadata = {**case.body.get("metadata", {}), "script": case.id}
    return {"model": servers.MODEL, **case.body, "metadata": metadata, "vllm_xargs": {"script": _ids(case)}}


def _read(lines: Iterator[str]) -> Iterator[Json]:
    for line in lines:
        if line.startswith("data:") and (text := line.removeprefix("data:").strip()) != "[DONE]":
            yield json.loads(text)


def ask(spec: Specification, http: httpx.Client, case: Case, stream: bool) -> list[str]:
    """What is wrong with a server's reply to a case."""
    body = _body(case) | ({"stream": True} if stream else {})
    with http.stream("POST", "/v1/responses", json=body) as reply:
        if reply.status_code != 200 or not case.items:
            reply.read()
            if case.items:
                return [f"status {reply.status_code}: {reply.text[:200]}"]
            return refusal_faults(spec, reply.status_code, _json(reply))
        if stream:
            return stream_faults(spec, case, list(_read(reply.iter_lines())))
        reply.read()
        return whole_faults(spec, case, cast(Json, reply.json()))


def _json(reply: httpx.Response) -> Any:
    try:
        return reply.json()
    except ValueError:
        return reply.text


def _reason(server: str, case: str, mode: str, fault: str, seen: Mapping[str, Faults]) -> str | None:
    """Why a fault is none of ours, or stays; None: it has no reason."""
    if server == PLUGIN and fault in seen[STOCK][case, mode]:
        return VLLMS_OWN
    return next((why for pattern, why in EXPLAINED.items() if re.search(pattern, fault)), None)


# All of it

Faults = dict[tuple[str, str], list[str]]
"""What is wrong with a server's replies, by case and mode."""


def run(every: bool) -> tuple[str, list[str]]:
    """The section for docs/conformance.md, and a line for each fault of ours that has no reason here.

    Args:
        every: the cases are few: they all run in any case.
    """
    spec = Specification()
    seen: dict[str, Faults] = {}
    for server in SERVERS:
        print(f"Open Responses: {server.name} …", file=sys.stderr, flush=True)
        with server.start() as url, httpx.Client(base_url=url, timeout=240) as http:
            seen[server.name] = {
                (case.id, mode): list(dict.fromkeys(ask(spec, http, case, mode == "streamed")))
                for case in CASES
                for mode in ("whole", "streamed")
            }
    bad = [
        f"{server.name}, {case}, {mode}: {fault}"
        for server in SERVERS
        if server.ours
        for (case, mode), faults in seen[server.name].items()
        for fault in faults
        if _reason(server.name, case, mode, fault, seen) is None
    ]
    return _section(spec, seen), bad


def _section(spec: Specification, seen: Mapping[str, Faults]) -> str:
    lines = [
        f"## Open Responses: {len(CASES)} cases against the schema of {spec.version}",
        f"""
`/v1/responses` of each server, whole and streamed: the response and every event against the specification's schema
({PACKAGE} {VERSION}), the output's items and status, each item's life in the stream, and that deltas, done events and
the end say the same. `image-input` must be refused with an error of the specification's shape: gpt-oss reads text.
WebSockets and `/v1/responses/compact` were not asked for here. The llama.cpp server has both, tested with OpenAI's
client and with Codex (`tests/e2e/llamacpp/test_llamacpp_compaction.py`, `python -m agents.compaction`); vLLM has
neither.
""",
        "| case | " + " | ".join(f"{name}, {mode}" for name in seen for mode in ("whole", "streamed")) + " |",
        "| --- |" + " --- |" * (2 * len(seen)),
    ]
    for case in CASES:
        marks = [_mark(name, case.id, mode, seen) for name in seen for mode in ("whole", "streamed")]
        lines.append(f"| {case.id} | {' | '.join(marks)} |")
    lines += ["", "(ok): but for what has a reason below.", ""]
    for name, faults in seen.items():
        where: dict[tuple[str, str | None], list[str]] = {}
        for (case_id, mode), said in faults.items():
            for fault in said:
                # An event that carries the response has the response's faults.
                what = re.sub(r"^response\.\w+: response\.", "", fault)
                where.setdefault((what, _reason(name, case_id, mode, fault, seen)), []).append(f"{case_id} {mode}")
        shared = sum(why == VLLMS_OWN for _, why in where)
        lines += [f"- {name}: {_listed(*fault, places)}" for fault, places in where.items() if fault[1] != VLLMS_OWN]
        if shared:
            lines.append(f"- {name}: {shared} faults that vLLM has without the plugin, too, each in the same cases.")
    return "\n".join(lines) + "\n"


def _mark(server: str, case: str, mode: str, seen: Mapping[str, Faults]) -> str:
    faults = seen[server][case, mode]
    if not faults:
        return "ok"
    return "(ok)" if all(_reason(server, case, mode, fault, seen) for fault in faults) else "**fails**"


def _listed(fault: str, why: str | None, where: Sequence[str]) -> str:
    said = fault.replace("`", "'").replace("\n", " ")[:300]
    places = where[0] if len(set(where)) == 1 else f"{where[0]} and {len(set(where)) - 1} more"
    return f"`{said}` ({places}){f': {why}' if why else ''}."
