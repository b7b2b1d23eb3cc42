"""Constraints: headers, tool choice, strict tools, response formats and the reasoning budget, on the real engine.

The model is random, so what it may write it does write: unscripted replies under a constraint show that it holds.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from harmony_plugin import Options, RequestError
from harmony_plugin.llamacpp import Defaults, HarmonyChatHandler

from .conftest import USER, Script, add_up, ids_of, llama_cpp, message_of
from .test_chat import calls_of

jsonschema = pytest.importorskip("jsonschema")

SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["cat", "dog"]},
        "good": {"type": "boolean"},
        "size": {"type": "integer", "minimum": 0, "maximum": 9},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["kind", "good", "size", "tags"],
    "additionalProperties": False,
}
OTHER = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}},
    "required": ["on"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "pet", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "switch.light", "parameters": OTHER}},
]
STRICT = [{"type": "function", "function": {**tool["function"], "strict": True}} for tool in TOOLS]
SCHEMAS = {"pet": SCHEMA, "switch.light": OTHER}
FORMAT = {"type": "json_schema", "json_schema": {"name": "pet", "schema": SCHEMA, "strict": True}}
BUDGET = 5


@pytest.fixture(params=range(5))
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)


# What the random model reasons; it would hardly ever end by itself, so budgets end it.
REASONING = "<|channel|>analysis<|message|>Hm"


def output_of(llama: Any, reply: dict[str, Any]) -> str:
    """What the engine was given and gave for the last reply, markers spelled out, less the id that ended it."""
    start = reply["usage"]["prompt_tokens"]
    ids = llama.input_ids[start : start + reply["usage"]["completion_tokens"] - 1].tolist()
    return llama.detokenize(ids, special=True).decode("utf-8", "replace")


# Schemas.


@pytest.mark.parametrize("stream", [False, True])
def test_json_schema(say: Any, seed: int, stream: bool) -> None:
    request = {"response_format": FORMAT, "max_reasoning_tokens": BUDGET, "seed": seed}
    reply = say(REASONING, stream=stream, **request)
    choice = add_up(list(reply)) if stream else reply["choices"][0]
    assert choice["finish_reason"] == "stop"
    jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)
    assert choice["message"]["reasoning_content"].startswith("Hm")  # free in front


def test_json_object(llama: Any, say: Any) -> None:
    output = '<|channel|>final<|message|>{"a": [1, 2], "b": null}<|return|>'
    assert message_of(say(output, response_format={"type": "json_object"}))["content"] == '{"a": [1, 2], "b": null}'
    # What is not JSON cannot be written, even if the script wants it.
    reply = say("<|channel|>final<|message|>Sure! Here", response_format={"type": "json_object"}, max_tokens=30)
    assert message_of(reply)["content"].startswith("{")


def test_no_end_in_the_middle_of_json(say: Any) -> None:
    reply = say('<|channel|>final<|message|>{"kind": "cat"<|return|>', response_format=FORMAT)
    jsonschema.validate(json.loads(message_of(reply)["content"]), SCHEMA)


def test_white_space_in_enforced_json_is_bounded(say: Any) -> None:
    output = '<|channel|>final<|message|>{\n\n    "kind": "cat"'
    assert not message_of(say(output, response_format=FORMAT))["content"].startswith("{\n")


def test_a_preamble_is_not_mixed_into_json(say: Any) -> None:
    output = "<|channel|>commentary<|message|>Here is it:<|end|><|start|>assistant<|channel|>final<|message|>{}"
    json.loads(message_of(say(output, response_format=FORMAT, max_reasoning_tokens=BUDGET))["content"])


# Tool choice.


def check_calls(message: dict[str, Any]) -> list[str]:
    for name, arguments in calls_of(message):
        jsonschema.validate(json.loads(arguments), SCHEMAS[name])
    return [name for name, _ in calls_of(message)]


@pytest.mark.parametrize("stream", [False, True])
def test_required(say: Any, seed: int, stream: bool) -> None:
    request = {"tools": TOOLS, "tool_choice": "required", "max_reasoning_tokens": BUDGET}
    reply = say(REASONING, stream=stream, seed=seed, **request)
    choice = add_up(list(reply)) if stream else reply["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert len(check_calls(choice["message"])) == 1


@pytest.mark.parametrize("name", ["pet", "switch.light"])
@pytest.mark.parametrize("shape", ["chat", "legacy"])
def test_named(say: Any, seed: int, name: str, shape: str) -> None:
    if shape == "chat":
        request: dict[str, Any] = {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": name}}}
    else:
        request = {"functions": [tool["function"] for tool in TOOLS], "function_call": {"name": name}}
    assert check_calls(message_of(say(REASONING, max_reasoning_tokens=BUDGET, seed=seed, **request))) == [name]


def test_allowed_tools(say: Any, seed: int) -> None:
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOLS[1]]}}
    request = {"tools": TOOLS, "tool_choice": choice, "max_reasoning_tokens": BUDGET, "seed": seed}
    assert check_calls(message_of(say(REASONING, **request))) == ["switch.light"]


def test_required_without_a_budget_keeps_reasoning_free(llama: Any, say: Any) -> None:
    output = "<|channel|>analysis<|message|>Free words {}.<|end|><|start|>assistant<|channel|>final<|message|>No!"
    reply = say(output, tools=TOOLS, tool_choice="required")
    assert message_of(reply)["reasoning_content"].split("\n")[0] == "Free words {}."
    # Held back from `final`, the random model goes on with more reasoning, a preamble or a call.
    assert "<|channel|>final" not in output_of(llama, reply)


def test_parameters_that_cannot_be_enforced_are_any_object_unless_strict(say: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/nowhere"}}}
    output = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'
    reply = say(output, tools=[tool], tool_choice="required")
    assert calls_of(message_of(reply)) == [("f", '{"a": 1}')]
    tool["function"]["strict"] = True
    with pytest.raises(RequestError) as error:
        say(output, tools=[tool])
    assert error.value.param == "tools[0].function.parameters"


def test_strict_tools_hold_their_arguments_and_leave_the_choice(say: Any) -> None:
    wrong = '<|channel|>commentary to=functions.pet <|constrain|>json<|message|>{"kind": "fish"}<|call|>'
    assert check_calls(message_of(say(wrong, tools=STRICT))) == ["pet"]
    assert calls_of(message_of(say(wrong, tools=TOOLS))) == [("pet", '{"kind": "fish"}')]
    assert message_of(say("<|channel|>final<|message|>Hi<|return|>", tools=STRICT))["content"] == "Hi"


def test_parallel_strict_calls(say: Any) -> None:
    one = '<|channel|>commentary to=functions.switch.light <|constrain|>json<|message|>{"on":true}<|call|>'
    output = one + "<|start|>assistant" + one + "<|return|>"
    assert check_calls(message_of(say(output, tools=STRICT, parallel_tool_calls=True))) == ["switch.light"] * 2


# Headers.


@pytest.mark.parametrize(
    "wrong",
    [
        "<|channel|>comment<|message|>x",
        "<|channel|>commentary to=functions.unknown <|constrain|>json<|message|>{}<|call|>",
        "<|message|>no channel",
        "plain words",
        "<|channel|>final<|channel|>final<|message|>x",
        "<|channel|>final to=functions.pet<|message|>{}",
        "<|start|>user<|message|>I am the user",
        "<|channel|>analysis<|message|>a<|start|>assistant<|channel|>final<|message|>x",
        "<|channel|>analysis<|message|>a<|end|><|channel|>final<|message|>x",
        "<|channel|>analysis<|message|>a<|return|>",
        "<|channel|>final<|message|>a<|constrain|>b<|reserved_200013|>c",
    ],
)
def test_malformed_harmony_cannot_be_sampled(llama: Any, say: Any, wrong: str) -> None:
    harmony = pytest.importorskip("openai_harmony")
    reply = say(wrong, tools=TOOLS, max_reasoning_tokens=30, max_tokens=60, seed=1)
    assert output_of(llama, reply) != wrong
    generated = llama.input_ids[reply["usage"]["prompt_tokens"] : llama.n_tokens].tolist()
    encoding = harmony.load_harmony_encoding("HarmonyGptOss")
    parser = harmony.StreamableParser(encoding, harmony.Role.ASSISTANT, strict=True)
    for token in generated:
        parser.process(token)
    channels = {m.channel for m in parser.messages} | {parser.current_channel}
    assert channels <= {"analysis", "commentary", "final", None}


@pytest.mark.parametrize(
    "output",
    [
        '<|channel|>commentary to=functions.pet <|constrain|>json<|message|>{"a":1}<|call|>',
        '<|channel|>commentary to=functions.pet<|constrain|>json<|message|>{"a":1}<|call|>',
        '<|channel|>commentary to=functions.pet json<|message|>{"a":1}<|call|>',
        '<|channel|>commentary to=functions.pet<|message|>{"a":1}<|call|>',
        ' to=functions.pet<|channel|>commentary <|constrain|>json<|message|>{"a":1}<|call|>',
        ' to=functions.pet<|channel|>commentary json<|message|>{"a":1}<|call|>',
        "<|channel|>commentary<|message|>Wait.<|end|><|start|>assistant<|channel|>commentary to=functions.pet"
        ' <|constrain|>json<|message|>{"a":1}<|call|>',
    ],
)
def test_every_way_to_write_a_call_is_open(say: Any, output: str) -> None:
    reply = say(output, tools=TOOLS)
    assert reply["usage"]["completion_tokens"] == len(ids_of(output))
    assert calls_of(message_of(reply)) == [("pet", '{"a":1}')]


def test_custom_channels_and_builtin_tools_of_the_settings_are_open(say: Any) -> None:
    options = Options(channels={"critic": "reasoning"}, builtin_tools="tool_calls")
    output = "<|channel|>critic<|message|>Hm.<|end|>"
    output += "<|start|>assistant<|channel|>analysis to=python code<|message|>1+1<|call|>"
    message = message_of(say(output, options=options))
    assert message["reasoning_content"] == "Hm."
    assert calls_of(message) == [("python", "1+1")]


def test_names_that_hold_anything(say: Any) -> None:
    name = "größe <|end|>/日本"
    head = [
        *ids_of("<|channel|>commentary to=functions."),
        *llama_ids(name),
        *ids_of(" <|constrain|>json<|message|>{}<|call|>"),
    ]
    tools = [{"type": "function", "function": {"name": name}}]
    assert calls_of(message_of(say(head, tools=tools, tool_choice="required")))[0][0] == name


def llama_ids(text: str) -> list[int]:
    from harmony_plugin.core.vocabulary import harmony_encoding

    return list(harmony_encoding().encode(text, disallowed_special=()))


def test_without_calls_on_offer_none_can_be_made(say: Any) -> None:
    output = '<|channel|>commentary to=functions.pet <|constrain|>json<|message|>{"a":1}<|call|>'
    for request in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        assert calls_of(message_of(say(output, max_tokens=20, **request))) == []


def test_processors_of_the_caller_have_the_last_word(llama: Any) -> None:
    """A processor that overrides the mask gets what it wants, and the constraint steps aside."""
    ids = ids_of("<|channel|>oddity<|message|>x<|return|>")

    def override(input_ids: Any, scores: Any) -> Any:
        place = len(input_ids) - start[0]
        scores[:] = -1e9
        scores[ids[min(place, len(ids) - 1)]] = 0
        return scores

    start: list[int] = []
    handler = HarmonyChatHandler(logits_processors=lambda prompt, fields: start.append(len(prompt)) or [override])
    reply = handler(llama=llama, messages=[USER], max_tokens=20)
    assert reply["usage"]["completion_tokens"] == len(ids)
    assert message_of(reply)["content"] == "x"


# The budget.


@pytest.mark.parametrize("headers", ["free", "constrain"])
@pytest.mark.parametrize("budget", [0, 1, 5])
def test_budget_closes_reasoning_and_opens_the_answer(llama: Any, say: Any, headers: str, budget: int) -> None:
    output = ids_of("<|channel|>analysis<|message|>" + "hm " * 40)
    request = {"headers": headers, "max_reasoning_tokens": budget, "max_tokens": 30, "seed": 1}
    reply = say(output, **request)
    usage, message = reply["usage"], message_of(reply)
    assert usage["completion_tokens_details"]["reasoning_tokens"] == budget
    assert message["content"]
    assert (message["reasoning_content"] or "") == "".join(["hm"] + [" hm"] * 39)[: 3 * budget - 1] if budget else True
    text = output_of(llama, reply)
    if budget:
        assert "<|end|><|start|>assistant<|channel|>final<|message|>" in text
    else:
        assert text.startswith("<|channel|>final<|message|>")
    streamed = add_up(list(say(output, stream=True, **request)))
    assert streamed["message"]["reasoning_content"] == message["reasoning_content"]


def test_budget_that_is_not_spent_changes_nothing(say: Any) -> None:
    output = "<|channel|>analysis<|message|>a b<|end|><|start|>assistant<|channel|>final<|message|>Hi<|return|>"
    assert say(output, max_reasoning_tokens=50, seed=1)["choices"] == say(output, seed=1)["choices"]


def test_budget_counts_all_reasoning_of_a_reply(say: Any) -> None:
    part = "<|channel|>analysis<|message|>a b c<|end|><|start|>assistant"
    reply = say(part * 6, max_reasoning_tokens=7, max_tokens=60, seed=1)
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] == 7


def test_budget_leaves_tools_callable(llama: Any, say: Any) -> None:
    """Where tools are on offer, the next header is opened and the model picks what it answers with; not reasoning."""
    reached = set()
    for seed in range(12):
        request = {"tools": TOOLS, "max_reasoning_tokens": 3, "max_tokens": 20, "seed": seed}
        text = output_of(llama, say(REASONING, **request))
        after = text.split("<|end|><|start|>assistant<|channel|>", 1)[1]
        reached.add(after.split("<|")[0].strip())
    assert "final" in reached
    assert len(reached) > 1
    assert "analysis" not in reached


def test_budget_of_the_settings(llama: Any) -> None:
    handler = HarmonyChatHandler(defaults=Defaults(max_reasoning_tokens=2))
    replies = [handler(llama=llama, messages=[USER], max_tokens=20, seed=seed) for seed in range(12)]
    spent = {reply["usage"]["completion_tokens_details"]["reasoning_tokens"] for reply in replies}
    assert spent - {0, 1} == {2}, "some reason, none for longer"


def test_limits_hold_inside_what_is_put_in(say: Any) -> None:
    output = ids_of("<|channel|>analysis<|message|>" + "hm " * 40)
    for limit in range(1, 14):
        reply = say(output, max_reasoning_tokens=2, max_tokens=limit, seed=1)
        assert reply["usage"]["completion_tokens"] == limit
        assert reply["choices"][0]["finish_reason"] == "length"


# What cannot be enforced, and attacks.

PRIMES = [997, 1009]
PATTERNS = [{"type": "string", "pattern": f".*{letter}.*"} for letter in "abcdefghijklmnopqrst"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 5, "maxLength": 2},
        {"type": "nonsense"},
        {"type": "object", "required": "a"},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"type": "string", "pattern": "("},
        {"type": "string", "pattern": "(" * 5000 + "a" + ")" * 5000},
        {"type": "array", "minItems": 10**9},
        {"type": "array", "items": {"type": "array", "maxItems": 1e300}},
        {"type": "integer", "multipleOf": 1_000_003},
        {"allOf": [{"type": "integer", "multipleOf": p} for p in PRIMES]},
        {"allOf": PATTERNS},
        {"allOf": [{"properties": {"p": pattern}} for pattern in PATTERNS]},
        {"$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}", **p} for i, p in enumerate(PATTERNS)}, "$ref": "#/$defs/d0"},
        {"enum": ["x" * 1000] * 1100},
        {"const": "\ud800"},
        {"type": "integer", "minimum": 10**300},
    ],
    ids=lambda schema: json.dumps(schema)[:60],
)
def test_schemas_that_cannot_be_enforced_say_why(llama: Any, handler: HarmonyChatHandler, schema: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}
    with pytest.raises(RequestError, match=r"cannot be enforced: .") as error:
        handler(llama=llama, messages=[USER], tools=[tool])
    assert error.value.param == "tools[0].function.parameters"
    assert error.value.code == "invalid_json_schema"


# As pydantic writes them.
FORMATS = ["path", "file-path", "password", "binary", "base64", "base64url", "ipv4network", "json-string"]
UNENFORCED = [
    *({"type": "string", "format": name} for name in FORMATS),
    {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
    {"type": "string", "not": {"const": "x"}},
    {"type": "object", "propertyNames": {"pattern": "^a"}},
    {"type": "object", "dependentRequired": {"a": ["b"]}},
    {"type": "string", "if": {"minLength": 3}, "then": {"maxLength": 5}},
    # As zod writes it for `z.email()`.
    {
        "type": "string",
        "pattern": r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$",
    },
    {"type": "string", "pattern": r"^(a)\1$"},
    {"type": "object", "patternProperties": {"^(?=a)": {"type": "string"}}},
    {"$ref": "https://example.com/schema"},
]


@pytest.mark.parametrize("schema", UNENFORCED, ids=lambda schema: json.dumps(schema)[:40])
def test_what_cannot_be_enforced_is_shown_and_told_and_the_rest_is_held(
    llama: Any, handler: HarmonyChatHandler, say: Any, schema: Any, caplog: pytest.LogCaptureFixture
) -> None:
    whole = {
        "type": "object",
        "properties": {"x": schema, "ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    format = {"type": "json_schema", "json_schema": {"name": "x", "schema": whole, "strict": True}}
    with caplog.at_level("INFO", logger="harmony_plugin.llamacpp"):
        reply = say('<|channel|>final<|message|>{"ok": 5, "other', response_format=format, max_tokens=400)
    assert json.loads(message_of(reply)["content"])["ok"] in (True, False)
    assert "unenforced_schema: response_format: " in caplog.text
    shown = llama.detokenize(handler.prompt(llama, messages=[USER], response_format=format)).decode()
    assert json.dumps(schema, separators=(",", ":")) in shown


def test_schemas_that_nest_too_deep_are_refused(llama: Any, handler: HarmonyChatHandler) -> None:
    schema: dict[str, Any] = {}
    for _ in range(20_000):
        schema = {"items": schema}
    for request in (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}]},
    ):
        with pytest.raises(RequestError):
            handler(llama=llama, messages=[USER], **request)


def test_many_patterns_that_no_text_must_match_together_are_fine(say: Any) -> None:
    names = [f"p{i}" for i in range(30)]
    properties = {name: {"type": "string", "pattern": "^[a-c]$"} for name in names} | {"format": {"type": "boolean"}}
    inner = {"type": "object", "properties": properties, "required": names, "additionalProperties": False}
    schema = {"$defs": {"inner": inner}, "allOf": [{"$ref": "#/$defs/inner"}]}
    format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    reply = say("<|channel|>final<|message|>{", response_format=format, max_tokens=400)
    jsonschema.validate(json.loads(message_of(reply)["content"]), schema)


def test_one_of_is_any_of(say: Any) -> None:
    schema = {"oneOf": [{"const": "a"}, {"const": "b"}]}
    tool = {
        "type": "function",
        "function": {
            "name": "f",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {"x": schema},
                "required": ["x"],
                "additionalProperties": False,
            },
        },
    }
    output = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"x": "b"}<|call|>'
    assert calls_of(message_of(say(output, tools=[tool]))) == [("f", '{"x": "b"}')]


def test_a_grammar_of_the_callers_own_goes_without_constraints(llama: Any, handler: HarmonyChatHandler) -> None:
    grammar = llama_cpp.LlamaGrammar.from_string('root ::= "yes" | "no"', verbose=False)
    reply = handler(llama=llama, messages=[USER], grammar=grammar, max_tokens=10)
    assert message_of(reply)["content"] in ("yes", "no")
    with pytest.raises(RequestError):
        handler(llama=llama, messages=[USER], grammar=grammar, response_format=FORMAT)


def test_scripts_survive_forced_ids(llama: Any) -> None:
    """What is put in is evaluated once, in one go, and the processors see it in `input_ids`."""
    lengths: list[int] = []

    def watch(input_ids: Any, scores: Any) -> Any:
        lengths.append(len(input_ids))
        return scores

    ids = ids_of("<|channel|>analysis<|message|>" + "hm " * 40)
    handler = HarmonyChatHandler(logits_processors=lambda prompt, fields: [Script(ids, len(prompt)), watch])
    reply = handler(llama=llama, messages=[USER], max_reasoning_tokens=4, max_tokens=20, seed=1)
    start = reply["usage"]["prompt_tokens"]
    assert lengths[:7] == list(range(start, start + 7))
    assert lengths[7:] == list(range(start + 7 + 6, start + 20))
