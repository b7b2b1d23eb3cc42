"""`/v1/messages` through Anthropic's client: blocks and events, tool loops, token counts, wrong fields."""

from __future__ import annotations

import json
import re
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from llamacpp_rig import CASES, LONG, chat_tools, events, expected, ids_of
from pydantic import TypeAdapter

EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
WEATHER = {
    "name": "get_weather",
    "description": "Current weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
USER = {"role": "user", "content": "hi"}


def ask(script: str, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "max_tokens": 4000, "messages": [USER], "metadata": {"user_id": script}, **more}


SHAPES = [
    ("answer", {}, ["thinking", "text"], "end_turn"),
    ("loop", {"tools": [WEATHER]}, ["thinking", "tool_use"], "tool_use"),
    ("preamble", {"tools": [WEATHER]}, ["text", "tool_use"], "tool_use"),
    ("two-calls", {"tools": [WEATHER]}, ["tool_use"], "tool_use"),
    (
        "two-calls",
        {"tools": [WEATHER], "tool_choice": {"type": "auto", "disable_parallel_tool_use": False}},
        ["tool_use", "tool_use"],
        "tool_use",
    ),
    ("long", {"max_tokens": 30}, ["thinking", "text"], "max_tokens"),
    ("answer", {"thinking": {"type": "disabled"}}, ["text"], "end_turn"),
    ("answer", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, ["thinking", "text"], "end_turn"),
    ("not-json", {"tools": [WEATHER]}, ["tool_use"], "tool_use"),
]


@pytest.mark.parametrize(("script", "more", "kinds", "reason"), SHAPES, ids=[s[0] for s in SHAPES])
def test_events_validate_and_add_up_to_the_whole_reply(
    http: httpx.Client, script: str, more: dict[str, Any], kinds: list[str], reason: str
) -> None:
    fields = ask(script, **more)
    whole = http.post("/v1/messages", json=fields).json()
    Message.model_validate(whole, strict=True)
    assert [block["type"] for block in whole["content"]] == kinds
    assert whole["stop_reason"] == reason
    found = events(http, "/v1/messages", fields)
    for event in found:
        EVENT.validate_python(event, strict=True)
    assert found[0]["type"] == "message_start"
    assert found[0]["message"]["usage"]["input_tokens"] > 0
    assert found[-1]["type"] == "message_stop"
    assert found[-2]["delta"]["stop_reason"] == reason
    assert found[-2]["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    for index, block in enumerate(whole["content"]):
        own = [event for event in found if event.get("index") == index]
        assert own[0]["type"] == "content_block_start"
        assert own[-1]["type"] == "content_block_stop"
        deltas = [event["delta"] for event in own[1:-1]]
        text = "".join(d.get("text") or d.get("thinking") or d.get("partial_json") or "" for d in deltas)
        if block["type"] == "tool_use":
            assert script == "not-json" or json.loads(text) == block["input"]
        else:
            assert text == block[block["type"]]


def test_the_clients_own_stream_helper_ends_with_the_same_reply(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(**ask("loop", tools=[WEATHER])) as stream:
        text = list(stream.text_stream)
        final = stream.get_final_message()
    assert text == []
    assert [block.type for block in final.content] == ["thinking", "tool_use"]
    assert final.content[0].thinking == "Need weather."
    assert final.content[0].signature
    assert final.content[1].input == {"city": "Paris"}
    assert final.stop_reason == "tool_use"


SAMPLE = CASES[::7]


@pytest.mark.parametrize("case", SAMPLE, ids=[case["id"] for case in SAMPLE])
def test_recorded_replies(claude: anthropic.Anthropic, case: dict[str, Any]) -> None:
    # This API has no way to ask for going on after a call.
    want = expected(case, past_calls=False)
    tools = [
        {"name": t["function"]["name"], "input_schema": t["function"].get("parameters", {"type": "object"})}
        for t in chat_tools(case.get("tools"))
    ]
    reply = claude.messages.create(**ask(case["id"], tools=tools, max_tokens=len(ids_of(case))))
    of_kind = {kind: [b for b in reply.content if b.type == kind] for kind in ("thinking", "text", "tool_use")}
    assert "\n".join(b.thinking for b in of_kind["thinking"]) == (want.reasoning or "")
    assert "".join(b.text for b in of_kind["text"]) == (want.content or "")
    assert [b.name for b in of_kind["tool_use"]] == [name for name, _ in want.calls]
    reasons = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
    assert reply.stop_reason == reasons[want.finish]


def test_tool_loop(claude: anthropic.Anthropic) -> None:
    messages: list[Any] = [USER]
    first = claude.messages.create(**ask("loop", tools=[WEATHER], system="Be brief.") | {"messages": messages})
    use = first.content[-1]
    messages.append({"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]})
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "21 C"}]}
    messages.append({"role": "user", "content": [result, {"type": "text", "text": "Well?"}]})
    more = {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "tools": [{**WEATHER, "cache_control": {"type": "ephemeral"}}],
        "messages": messages,
    }
    second = claude.messages.create(**ask("loop") | more)
    assert [block.type for block in second.content] == ["thinking", "text"]
    assert second.content[1].text == "It is 21 C."
    assert second.usage.cache_read_input_tokens > 0
    counted = claude.messages.count_tokens(model="tiny", **more)
    assert counted.input_tokens == second.usage.input_tokens + second.usage.cache_read_input_tokens


# Tools that the API defines.

BASH = {"type": "bash_20250124", "name": "bash"}
EDITOR = {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool", "max_characters": 10000}


@pytest.mark.parametrize(
    ("script", "tool", "given"),
    [("bash", BASH, {"command": "ls"}), ("editor", EDITOR, {"command": "view", "path": "/a"})],
    ids=["bash", "editor"],
)
def test_tools_that_the_client_runs(claude: anthropic.Anthropic, script: str, tool: Any, given: Any) -> None:
    first = claude.messages.create(**ask(script, tools=[tool], tool_choice={"type": "any"}))
    (use,) = first.content
    assert (use.type, use.name, use.input) == ("tool_use", tool["name"], given)
    with claude.messages.stream(**ask(script, tools=[tool])) as stream:
        assert stream.get_final_message().content[0].input == given
    turns = [USER, {"role": "assistant", "content": [use.model_dump(exclude_none=True)]}]
    turns.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "a.py"}]})
    assert claude.messages.create(**ask("answer", tools=[tool]) | {"messages": turns}).stop_reason == "end_turn"


@pytest.mark.parametrize(
    "tool",
    [
        BASH,
        EDITOR,
        {"type": "text_editor_20250124", "name": "str_replace_editor"},
        {"type": "memory_20250818", "name": "memory"},
        {
            "type": "computer_20250124",
            "name": "computer",
            "display_width_px": 800,
            "display_height_px": 600,
            "display_number": 1,
        },
    ],
    ids=lambda tool: tool["type"],
)
def test_typed_tools_are_shown_to_the_model(claude: anthropic.Anthropic, tool: Any) -> None:
    counts = [
        claude.messages.count_tokens(model="tiny", messages=[USER], tools=tools).input_tokens
        for tools in ([WEATHER], [WEATHER, tool])
    ]
    assert counts[0] < counts[1]


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "web_fetch_20250910", "name": "web_fetch"},
        {"type": "code_execution_20250825", "name": "code_execution"},
        {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"},
        {"type": "mcp_toolset", "mcp_server_name": "wiki"},
    ],
    ids=lambda tool: tool["type"],
)
def test_tools_that_anthropic_runs_are_refused_by_name(claude: anthropic.Anthropic, tool: Any) -> None:
    with pytest.raises(anthropic.BadRequestError, match=rf"tools\[1\]: {tool['type']} is not"):
        claude.messages.create(**ask("answer", tools=[WEATHER, tool]))


def test_mcp_servers_are_refused_by_name(claude: anthropic.Anthropic) -> None:
    servers = [{"type": "url", "name": "wiki", "url": "https://example.com/mcp"}]
    with pytest.raises(anthropic.BadRequestError, match="'wiki'"):
        claude.beta.messages.create(**ask("answer", mcp_servers=servers))


# Anthropic's tool runner.


@pytest.mark.parametrize("stream", [False, True])
def test_the_clients_tool_runner(claude: anthropic.Anthropic, http: httpx.Client, stream: bool) -> None:
    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Current weather of a city.

        Args:
            city: Where.
        """
        return f"{city}: 21 C"

    runner = claude.beta.messages.tool_runner(**ask("loop", tools=[get_weather]), stream=stream)
    replies = [reply.get_final_message() if stream else reply for reply in runner]
    assert [reply.stop_reason for reply in replies] == ["tool_use", "end_turn"]
    assert replies[-1].content[-1].text == "It is 21 C."
    # What it sends first, and what it would send next.
    for thread in ({"type": "create"}, {"type": "continue", "previous_message_id": "msg_x"}):
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            reply = http.post(path, json=ask("loop", thread=thread))
            assert reply.status_code == 400
            assert reply.json()["error"]["details"] == {"error_code": "thread_unsupported_request"}


# Claude Code.


def test_a_billing_header_is_not_part_of_the_prompt(claude: anthropic.Anthropic) -> None:
    """Its first system block, as recorded; the last part is another one in each session."""
    long = "You are Claude Code. " * 100

    def system(mark: str) -> list[Any]:
        billing = f"x-anthropic-billing-header: cc_version=2.1.197.{mark}; cc_entrypoint=sdk-cli; cch={mark}00;"
        return [{"type": "text", "text": billing}, {"type": "text", "text": long}]

    first, second, without = (
        claude.messages.create(**ask("answer", system=given))
        for given in (system("a1b"), system("c2d"), [{"type": "text", "text": long}])
    )
    tokens = [reply.usage.input_tokens + reply.usage.cache_read_input_tokens for reply in (first, second, without)]
    assert len(set(tokens)) == 1
    assert second.usage.input_tokens <= 1  # llama.cpp evaluates the last id anew
    alone = claude.messages.create(**ask("answer", system="x-anthropic-billing-header: cc_version=1"))
    assert alone.usage.input_tokens + alone.usage.cache_read_input_tokens < 100


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_is_told_in_the_words_that_claude_code_reads(
    http: httpx.Client, stream: bool
) -> None:
    long = [{"role": "user", "content": "word " * 9000}]
    reply = http.post("/v1/messages", json=ask("answer", stream=stream) | {"messages": long})
    assert reply.status_code == 400
    told = re.fullmatch(r"prompt is too long: (\d+) tokens > (\d+) maximum", reply.json()["error"]["message"])
    assert told
    assert int(told[1]) > 9000
    assert int(told[2]) == 8192


def test_nothing_is_null_that_anthropics_schema_does_not_let_be(http: httpx.Client) -> None:
    """The AI SDK reads replies by that schema, and fails on `"citations": null`."""
    fields = ask("loop", tools=[WEATHER])

    def nulls(value: Any, path: str = "") -> set[str]:
        if isinstance(value, dict):
            return {found for k, v in value.items() for found in nulls(v, f"{path}.{k}")}
        if isinstance(value, list):
            return {found for v in value for found in nulls(v, path)}
        return {path} if value is None else set()

    allowed = {f"{place}.{name}" for place in ("", ".message", ".delta") for name in ("stop_sequence", "stop_reason")}
    for more in ({}, {"metadata": {"user_id": "answer"}}):
        assert nulls(http.post("/v1/messages", json=fields | more).json()) <= allowed
        for event in events(http, "/v1/messages", fields | more):
            assert nulls(event) <= allowed


PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
PAPER = {"type": "document", "title": "a.pdf", "source": {"type": "base64", "media_type": "application/pdf"}}


def test_a_picture_in_a_result_or_in_history_stops_no_session(claude: anthropic.Anthropic, http: httpx.Client) -> None:
    """What Claude Code's `Read` gives for a picture, and for a PDF (a document beside the result)."""
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [PICTURE, {"type": "text", "text": "A cat."}]}
    turns: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "Look."}, PICTURE]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "get_weather", "input": {}}]},
        {"role": "user", "content": [result, PAPER]},
        {"role": "user", "content": "Well?"},
    ]
    fields = ask("answer", tools=[WEATHER]) | {"messages": turns}
    assert claude.messages.create(**fields).stop_reason == "end_turn"
    assert events(http, "/v1/messages", fields)[-1]["type"] == "message_stop"
    assert claude.messages.create(**fields | {"messages": [turns[-1], *turns[1:3]]}).stop_reason == "end_turn"
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[4\]\.content\[1\]\.type"):
        claude.messages.create(**fields | {"messages": [*turns, turns[0]]})


def test_a_tool_can_be_required(claude: anthropic.Anthropic) -> None:
    for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
        reply = claude.messages.create(**ask("loop", tools=[WEATHER], tool_choice=choice))
        assert [block.name for block in reply.content if block.type == "tool_use"] == ["get_weather"]


def test_arguments_that_are_no_object_are_not_lost(claude: anthropic.Anthropic) -> None:
    reply = claude.messages.create(**ask("not-json", tools=[WEATHER]))
    assert reply.content[0].input == {"arguments": "Paris, please"}


def test_a_long_reply_streams_whole(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(**ask("long", max_tokens=8000)) as stream:
        assert "".join(stream.text_stream) == LONG


def test_a_stop_sequence_ends_the_reply(claude: anthropic.Anthropic) -> None:
    reply = claude.messages.create(**ask("numbers", stop_sequences=[" four"]))
    assert reply.content[0].text == "one two three"
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", " four")


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("no messages", {"messages": None}),
    ("empty messages", {"messages": []}),
    ("messages", {"messages": "hi"}),
    ("role", {"messages": [{"role": "robot", "content": "x"}]}),
    ("content", {"messages": [{"role": "user", "content": 5}]}),
    ("block", {"messages": [{"role": "user", "content": ["x"]}]}),
    ("a picture", {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}),
    ("text block without text", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
    (
        "result of no call",
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "1"}]}]},
    ),
    ("result without id", {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "1"}]}]}),
    (
        "use without input",
        {"messages": [USER, {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b"}]}]},
    ),
    ("no max_tokens", {"max_tokens": None}),
    ("max_tokens", {"max_tokens": 0}),
    ("no model", {"model": None}),
    ("model", {"model": 5}),
    ("system", {"system": 5}),
    ("system block", {"system": [5]}),
    ("stream", {"stream": "yes"}),
    ("stop_sequences", {"stop_sequences": "x"}),
    ("temperature", {"temperature": "hot"}),
    ("top_p", {"top_p": 3}),
    ("top_k", {"top_k": -2}),
    ("thinking", {"thinking": "yes"}),
    ("thinking budget", {"thinking": {"type": "enabled", "budget_tokens": 0}}),
    ("output_config", {"output_config": {"effort": "extreme"}}),
    ("output_config format without a schema", {"output_config": {"format": {"type": "json_schema"}}}),
    ("grammar", {"grammar": "root ::= "}),
    ("output_config format", {"output_config": {"format": {"type": "xml"}}}),
    ("tools", {"tools": "x"}),
    ("tool without name", {"tools": [{"input_schema": {}}]}),
    ("tool without schema", {"tools": [{"name": "a"}]}),
    ("tool_choice", {"tool_choice": "auto"}),
    ("tool_choice type", {"tool_choice": {"type": "maybe"}}),
    ("tool_choice without name", {"tool_choice": {"type": "tool"}}),
    ("tool_choice of an unknown tool", {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "x"}}),
    ("metadata", {"metadata": 5}),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("change", [w[1] for w in WRONG], ids=[w[0] for w in WRONG])
def test_each_wrong_field_is_a_400_in_anthropics_shape(
    http: httpx.Client, change: dict[str, Any], stream: bool
) -> None:
    fields = {"model": "tiny", "max_tokens": 4, "messages": [USER], "stream": stream} | change
    reply = http.post("/v1/messages", json={k: v for k, v in fields.items() if v is not None})
    assert reply.status_code == 400, reply.text
    body = reply.json()
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["message"]


def test_the_client_raises_its_own_errors(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.create(**ask("answer", tools=[{"name": "a"}]))
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.count_tokens(model="tiny", messages=[])
