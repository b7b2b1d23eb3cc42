"""BFCL's single-turn cases as transport: right calls, written as Harmony in the header shapes that gpt-oss uses.

The data is that of the wheel `bfcl-eval` (Berkeley Function Calling Leaderboard, Apache-2.0), which is downloaded into
the user's cache folder once and read in place; nothing of it is installed. Knows the leaderboard's files and Harmony's
markers; knows no parser and no server.
"""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import download

VERSION = "2026.3.23"
CATEGORIES = (
    "simple_python",
    "simple_java",
    "simple_javascript",
    "multiple",
    "parallel",
    "parallel_multiple",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
)
# As the leaderboard's own handlers read its types; a type that is not here is a string.
TYPES = {
    **dict.fromkeys(("integer", "byte", "short", "long", "Bigint"), "integer"),
    **dict.fromkeys(("number", "float", "double"), "number"),
    **dict.fromkeys(("boolean", "bool"), "boolean"),
    **dict.fromkeys(("array", "list", "tuple", "ArrayList", "Array", "Queue", "Stack"), "array"),
    **dict.fromkeys(("dict", "object", "HashMap", "Hashtable"), "object"),
}
LAYOUTS: tuple[dict[str, Any], ...] = (
    {"ensure_ascii": False},
    {"ensure_ascii": False, "separators": (",", ":")},
    {"ensure_ascii": True},
    {"ensure_ascii": False, "indent": 2},
)
"""How a model may write the same JSON."""

Call = tuple[str, str]
"""A tool's name, and its arguments as the model wrote them."""


@dataclass(frozen=True)
class Case:
    """One question with a right answer. ``tools``: as chat takes them; ``arguments``: of each call, as values."""

    id: str
    category: str
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...]
    names: tuple[str, ...]
    arguments: tuple[Mapping[str, Any], ...]


class Shape(NamedTuple):
    """One way to write calls. ``header``: a call's, for its name; ``before``: what stands in front of the first."""

    name: str
    header: str
    before: str = ""
    end: str = "<|call|>"


_CHANNEL = "<|channel|>commentary to=functions.{}"
_ROLE = " to=functions.{}<|channel|>commentary"
THOUGHT = "The user wants a tool called."
PLAN = "I will look that up."
_THOUGHT = f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant"
_PLAN = f"<|channel|>commentary<|message|>{PLAN}<|end|><|start|>assistant"
SHAPES = (
    Shape("recipient in the channel section", f"{_CHANNEL} <|constrain|>json<|message|>"),
    Shape("the same, no content type", f"{_CHANNEL}<|message|>"),
    Shape("the same, `json` a bare word", f"{_CHANNEL} json<|message|>"),
    Shape("the same, `code`", f"{_CHANNEL} code<|message|>"),
    Shape("the same, on `analysis`", "<|channel|>analysis to=functions.{} <|constrain|>json<|message|>"),
    Shape("recipient in the role section", f"{_ROLE} <|constrain|>json<|message|>"),
    Shape("the same, no spaces", f"{_ROLE}<|constrain|>json<|message|>"),
    Shape("the same, no content type", f"{_ROLE}<|message|>"),
    Shape("the same, `json` a bare word", f"{_ROLE} json<|message|>"),
    Shape("analysis in front", f"{_CHANNEL} <|constrain|>json<|message|>", _THOUGHT),
    Shape("analysis and a preamble in front", f"{_ROLE} <|constrain|>json<|message|>", _THOUGHT + _PLAN),
    Shape(r"calls end with `<\|end\|>`", f"{_CHANNEL} <|constrain|>json<|message|>", _THOUGHT, "<|end|>"),
)


class Output(NamedTuple):
    """What the model writes for a case in a shape, and the calls that a client must get: no more, no less."""

    case: Case
    shape: int
    raw: str
    calls: tuple[Call, ...]

    @property
    def id(self) -> str:
        return f"{self.case.id}/{self.shape}"


def outputs(case: Case) -> Iterator[Output]:
    """The case in every shape, the layout of its arguments chosen by its name."""
    for number, shape in enumerate(SHAPES):
        chance = random.Random(f"{case.id}/{number}")
        texts = [json.dumps(arguments, **chance.choice(LAYOUTS)) for arguments in case.arguments]
        calls = tuple(zip(case.names, texts, strict=True))
        written = [f"{shape.header.format(name)}{text}{shape.end}" for name, text in calls]
        yield Output(case, number, shape.before + "<|start|>assistant".join(written), calls)


def load() -> list[Case]:
    """Every single-turn case that has a right answer, category by category."""
    cases = []
    with zipfile.ZipFile(download.wheel("bfcl-eval", VERSION)) as archive:

        def lines(name: str) -> list[dict[str, Any]]:
            text = archive.read(f"bfcl_eval/data/{name}.json").decode("utf-8")
            return [json.loads(line) for line in text.splitlines() if line.strip()]

        for category in CATEGORIES:
            answers = {line["id"]: line["ground_truth"] for line in lines(f"possible_answer/BFCL_v4_{category}")}
            cases += [case(category, line, answers[line["id"]]) for line in lines(f"BFCL_v4_{category}")]
    return cases


def case(category: str, line: Mapping[str, Any], answer: Sequence[Mapping[str, Any]]) -> Case:
    """One line of the leaderboard's questions with its line of answers."""
    as_text = category in ("simple_java", "simple_javascript")
    right = [(_tool_name(name), choices) for call in answer for name, choices in call.items()]
    return Case(
        line["id"],
        category,
        tuple(line["question"][0]),
        tuple(_tool(function, as_text) for function in line["function"]),
        tuple(name for name, _ in right),
        tuple(_arguments(choices, as_text) for _, choices in right),
    )


def _tool_name(name: str) -> str:
    return name.replace(".", "_")  # OpenAI's names have no dots


def _tool(function: Mapping[str, Any], as_text: bool) -> dict[str, Any]:
    """A function of the leaderboard as OpenAI's tool. ``as_text``: of Java or JavaScript, whose values are text."""
    parameters = _schema({**function["parameters"], "type": "dict"})
    if as_text:
        plain = {name: {**each, "type": "string"} for name, each in parameters["properties"].items()}
        for each in plain.values():
            each.pop("items", None)
            each.pop("properties", None)
        parameters["properties"] = plain
    described = {"name": _tool_name(function["name"]), "description": function["description"]}
    return {"type": "function", "function": {**described, "parameters": parameters}}


def _schema(given: Mapping[str, Any]) -> dict[str, Any]:
    schema = {**given, "type": TYPES.get(given.get("type", "string"), "string")}
    if given.get("type") == "float":
        schema["format"] = "float"
    if "properties" in given:
        schema["properties"] = {name: _schema(each) for name, each in given["properties"].items()}
    if "items" in given:
        schema["items"] = _schema(given["items"])
    return schema


def _arguments(choices: Mapping[str, Sequence[Any]], as_text: bool) -> dict[str, Any]:
    """One of the right values for each parameter; what has none but "" (that is: may be left out) is left out."""
    chosen = {
        name: _value(next(v for v in values if v != ""))
        for name, values in choices.items()
        if any(v != "" for v in values)
    }
    if as_text:
        chosen = {name: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for name, v in chosen.items()}
    return chosen


def _value(value: Any) -> Any:
    """A value in which every object's fields list their own right values."""
    if isinstance(value, dict):
        return _arguments({k: v if isinstance(v, list) else [v] for k, v in value.items()}, as_text=False)
    if isinstance(value, list):
        return [_value(each) if isinstance(each, dict) else each for each in value]
    return value
