"""`/v1/messages` through Anthropic's client: blocks and events, tool loops, token counts, wrong fields."""

from __future__ import annotations

import json
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
    assert "".join(b.thinking for b in of_kind["thinking"]) == (want.reasoning or "")
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


def test_tools_that_anthropic_hosts_are_left_out(claude: anthropic.Anthropic) -> None:
    hosted = {"type": "web_search_20250305", "name": "web_search"}
    counts = [
        claude.messages.count_tokens(model="tiny", messages=[USER], tools=tools).input_tokens
        for tools in ([WEATHER], [WEATHER, hosted])
    ]
    assert counts[0] == counts[1]


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
