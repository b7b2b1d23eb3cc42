"""Hosted tools: which of them a request gets, how their calls come back, and what the writers make of a mixed turn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harmony_plugin import Stream
from harmony_plugin.api import messages, responses
from harmony_plugin.api.chat import ChatWriter
from harmony_plugin.api.hosted import HostedTool, HostedTools, ToolResult
from harmony_plugin.api.reply import Ending, Piece, Usage
from harmony_plugin.api.tools import Toolbox
from harmony_plugin.core import RequestError, Started

ADD = HostedTool("calc", "add", "Adds.", {"type": "object"})
RUN = HostedTool("box", "run", "Runs.", {"type": "object"}, "python", "code")
HOSTED = HostedTools([ADD, RUN])
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize(
    ("given", "servers"),
    [
        ({}, {"calc", "box"}),
        ({"tools": [FUNCTION], "tool_choice": "required"}, {"calc", "box"}),
        ({"tools": [function("calc__add")]}, {"box"}),
        ({"tools": [{"type": "function", "name": "calc__add"}]}, {"box"}),
        ({"tools": [{"type": "custom", "custom": {"name": "python"}}]}, {"calc"}),
        ({"n": 1}, {"calc", "box"}),
        ({"n": 2}, set()),
        ({"tool_choice": "none"}, set()),
        ({"functions": [{"name": "f"}]}, set()),
        ({"tools": "f"}, set()),
        ({"tools": [3]}, set()),
    ],
)
def test_what_a_request_gets(given: dict[str, Any], servers: set[str]) -> None:
    assert HOSTED.beside(given).by_server().keys() == servers


def test_what_is_offered_stands_behind_the_client_s() -> None:
    offered = HOSTED.offer({"tools": [FUNCTION], "messages": []})
    assert [tool["function"]["name"] for tool in offered["tools"]] == ["f", "calc__add"]
    assert offered["builtin_tools"] == ["python"]
    assert "tools" not in HostedTools([RUN]).offer({})


@pytest.mark.parametrize("text", ["print(1)", "", 'x = {"code": 1}', '"ü"\n'])
def test_code_and_back(text: str) -> None:
    arguments = RUN.arguments(text)
    assert json.loads(arguments) == {"code": text}
    assert HOSTED.call("box", "run", arguments) == {"name": "python", "arguments": text}


@pytest.mark.parametrize("arguments", ["no JSON", "[]", '{"code": 3}', "[" * 100_000])
def test_arguments_that_are_no_code_stay_as_they_are(arguments: str) -> None:
    assert HOSTED.call("box", "run", arguments) == {"name": "python", "arguments": arguments}


def test_a_tool_that_is_gone_is_a_function() -> None:
    assert HostedTools().call("box", "run", '{"code":"1"}') == {"name": "box__run", "arguments": '{"code":"1"}'}


# A mixed turn: the server's call, the client's call, the result of the first.

TURN = (
    '<|channel|>commentary to=functions.calc__add<|message|>{"a":1}<|call|><|start|>assistant'
    '<|channel|>commentary to=functions.f<|message|>{"b":2}<|call|>'
)


def mixed(failed: bool) -> list[Piece]:
    stream = Stream(tools=["calc__add", "f"])
    events = [*stream.feed_events(TURN), *stream.finish_events()]
    call = next(event.call for event in events if isinstance(event, Started) and event.call is not None)
    assert call.id is not None
    return [Piece(events), Piece([], result=ToolResult(call.id, "3", failed)), Piece([], ending=Ending("tool_calls"))]


@pytest.mark.parametrize("failed", [False, True])
def test_a_mixed_message(failed: bool) -> None:
    told = messages.MessageWriter("m", hosted=HOSTED).whole(mixed(failed), Usage())
    use, clients, result = told["content"]
    assert (use["type"], use["server_name"], use["name"], use["input"]) == ("mcp_tool_use", "calc", "add", {"a": 1})
    assert (clients["type"], clients["name"], clients["input"]) == ("tool_use", "f", {"b": 2})
    assert (result["type"], result["tool_use_id"], result["is_error"]) == ("mcp_tool_result", use["id"], failed)
    assert result["content"][0]["text"] == "3"
    assert told["stop_reason"] == "tool_use"


def test_a_mixed_message_comes_back_in_its_order() -> None:
    told = messages.MessageWriter("m", hosted=HOSTED).whole(mixed(True), Usage())
    clients = {"type": "tool_result", "tool_use_id": told["content"][1]["id"], "content": "5"}
    history = [
        {"role": "user", "content": "Go on."},
        {"role": "assistant", "content": told["content"]},
        {"role": "user", "content": [clients]},
    ]
    asked = messages.check({"model": "m", "max_tokens": 1, "messages": history})
    _, said, *results = messages.to_chat(asked, HOSTED)["messages"]
    assert [call["function"]["name"] for call in said["tool_calls"]] == ["calc__add", "f"]
    assert [result["content"] for result in results] == ["Error: 3", "5"]


def test_a_mixed_response_keeps_the_order_of_calls() -> None:
    asked = responses.check({"input": "Go on."})
    told = responses.ResponseWriter(asked, "m", Toolbox(None), hosted=HOSTED, listed=("calc", "box")).whole(
        mixed(False), Usage()
    )
    assert [(item["type"], item["status"]) for item in told["output"]] == [
        ("mcp_call", "completed"),
        ("function_call", "completed"),
    ]
    assert told["output"][0]["output"] == "3"


@pytest.mark.parametrize("ends", ["finish", "fail"])
def test_a_call_that_was_not_run_is_incomplete(ends: str) -> None:
    asked = responses.check({"input": "Go on."})
    writer = responses.ResponseWriter(asked, "m", Toolbox(None), hosted=HOSTED, listed=("calc", "box"))
    events = [*writer.feed(mixed(False)[0])]
    events += writer.finish(Usage()) if ends == "finish" else writer.fail(RequestError("Oh.", None, None))
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [(item["type"], item["status"]) for item in done] == [
        ("function_call", "completed"),
        ("mcp_call", "incomplete"),
    ]
    # What comes back of it is a call that failed.
    items = [{"role": "user", "content": "Go on."}, done[1]]
    chat = responses.to_chat(responses.check({"input": items}), Toolbox(None), hosted=HOSTED)
    assert chat["messages"][-1]["content"] == "Error: the call was broken off"


def test_chat_leaves_hosted_calls_out() -> None:
    whole = ChatWriter("m", hosted=HOSTED).whole(mixed(False), Usage())
    assert [call["function"]["name"] for call in whole["choices"][0]["message"]["tool_calls"]] == ["f"]
    writer = ChatWriter("m", hosted=HOSTED)
    deltas = [chunk["choices"][0]["delta"] for piece in mixed(False) for chunk in writer.feed(piece)]
    assert {call["function"].get("name") for delta in deltas for call in delta.get("tool_calls", ())} == {"f"}


def test_usage_adds_up() -> None:
    total = Usage(prompt=30)
    total.add(Usage(prompt=10, cached=4, completion=5, reasoning=2, finish="tool_calls", issues=["a"], reading=1.0))
    total.add(Usage(prompt=20, cached=15, completion=6, first=9.0, rate=7.0, finish="stop", reading=1.0, writing=2.0))
    assert (total.prompt, total.cached, total.completion, total.reasoning) == (30, 19, 11, 2)
    assert (total.first, total.rate, total.finish, total.issues) == (9.0, 7.0, "stop", ["a"])
    assert (total.reading, total.writing) == (1.0, 2.0)
