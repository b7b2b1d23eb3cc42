"""Compaction and WebSocket on `/v1/responses`, as OpenAI's client and Codex use them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
from llamacpp_rig import events
from openai.types.responses import CompactedResponse, ResponsesServerEvent
from pydantic import TypeAdapter
from websockets.sync.client import ClientConnection, connect

from harmony_plugin.demo.process import ServerProcess

EVENT: TypeAdapter[Any] = TypeAdapter(ResponsesServerEvent)
GET_WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}
CALL = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city":"Paris"}'}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "21 C"}
SAID = {"type": "message", "role": "user", "content": "How warm is it?"}
CONVERSATION = [SAID, CALL, RESULT]


def ask(script: str, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "metadata": {"script": script}, **more}


def prompt(http: httpx.Client, items: list[Any], **more: Any) -> int:
    """How long the prompt of a conversation is."""
    given = http.post("/v1/responses/input_tokens", json={"model": "tiny", "input": items, **more})
    assert given.status_code == 200, given.text
    count: int = given.json()["input_tokens"]
    return count


# Compaction


def test_a_compacted_conversation_goes_on_from_its_summary(client: openai.OpenAI, http: httpx.Client) -> None:
    fields = ask("summary", input=CONVERSATION, tools=[GET_WEATHER], instructions="Be brief.")
    compacted = client.responses.compact(model="tiny", input=CONVERSATION, extra_body=fields)
    assert isinstance(compacted, CompactedResponse)
    assert [item.type for item in compacted.output] == ["message", "compaction"]
    assert compacted.output[0].content[0].text == "How warm is it?"
    assert compacted.usage.input_tokens > 0
    assert compacted.usage.output_tokens > 0
    assert "Paris" not in compacted.output[1].encrypted_content

    # The client's types have no user's message in an output, though the API has.
    window = [item.model_dump(exclude_unset=True, warnings=False) for item in compacted.output]
    reply = client.responses.create(**ask("answer", input=[*window, {"role": "user", "content": "And now?"}]))
    assert reply.output_text == "2 + 2 = 4."
    # What is in front of the item is not shown, but for what the user said.
    summary = window[-1]
    alone = prompt(http, [SAID, summary])
    assert prompt(http, window) == alone
    assert prompt(http, [SAID, CALL, RESULT, {"role": "assistant", "content": "21 C."}, summary]) == alone
    assert prompt(http, [SAID, summary, {"role": "assistant", "content": "21 C."}]) > alone > prompt(http, [SAID])


def test_the_conversation_is_not_evaluated_again_for_its_summary(http: httpx.Client) -> None:
    told = "Be brief. " + " ".join(f"rule{i}" for i in range(200))
    fields = ask("answer", input=[SAID], tools=[GET_WEATHER], instructions=told)
    first = http.post("/v1/responses", json=fields).json()
    again = {**fields, "metadata": {"script": "summary"}, "previous_response_id": first["id"], "input": []}
    compacted = http.post("/v1/responses/compact", json=again).json()
    assert compacted["output"][-1]["type"] == "compaction"
    cached = compacted["usage"]["input_tokens_details"]["cached_tokens"]
    assert cached >= first["usage"]["input_tokens"] - 8


def test_a_trigger_makes_the_reply_a_compaction(http: httpx.Client) -> None:
    fields = ask("summary", input=[*CONVERSATION, {"type": "compaction_trigger"}], tools=[GET_WEATHER])
    whole = http.post("/v1/responses", json=fields).json()
    assert [item["type"] for item in whole["output"]] == ["compaction"]
    assert whole["status"] == "completed"
    found = events(http, "/v1/responses", fields)
    for event in found:
        EVENT.validate_python(event, strict=True)
    kinds = [event["type"].removeprefix("response.") for event in found]
    assert kinds == ["created", "in_progress", "output_item.added", "output_item.done", "completed"]
    item = found[3]["item"]
    assert item["type"] == "compaction"
    assert found[-1]["response"]["output"] == [item]
    # The same by the id of the response: what led to it is no longer shown.
    after = ask("answer", input="And now?", previous_response_id=found[-1]["response"]["id"])
    reply = http.post("/v1/responses", json=after).json()
    assert reply["status"] == "completed"
    assert reply["usage"]["input_tokens"] == prompt(http, [SAID, item, {"role": "user", "content": "And now?"}])


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ({"type": "compaction", "encrypted_content": "gAAAAA-of-another-server"}, "invalid_encrypted_content"),
        ({"type": "compaction"}, "missing_required_parameter"),
        ({"type": "compaction_trigger"}, "invalid_value"),
    ],
    ids=["another-servers", "empty", "not-last"],
)
def test_items_that_cannot_be_read(http: httpx.Client, item: dict[str, Any], code: str) -> None:
    reply = http.post("/v1/responses", json=ask("answer", input=[item, SAID]))
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == code
    assert reply.json()["error"]["param"].startswith("input[0]")


@pytest.mark.parametrize(
    ("script", "more"), [("long", {"max_output_tokens": 30}), ("weather-call", {})], ids=["cut", "none"]
)
def test_a_summary_that_is_not_there_is_an_error(http: httpx.Client, script: str, more: dict[str, Any]) -> None:
    given = ask("local-shell" if script == "weather-call" else script, input=[SAID], **more)
    reply = http.post("/v1/responses/compact", json=given)
    assert reply.status_code == 422
    assert reply.json()["error"]["code"] == "no_summary"
    found = events(http, "/v1/responses", {**given, "input": [SAID, {"type": "compaction_trigger"}]})
    assert found[-1]["type"] == ("response.incomplete" if more else "response.failed")
    assert found[-1]["response"]["output"] == []


# WebSocket


@contextmanager
def connected(server: ServerProcess, **options: Any) -> Iterator[ClientConnection]:
    address = f"{server.url.replace('http', 'ws')}/v1/responses"
    with connect(address, open_timeout=60, **options) as socket:
        yield socket


def turn(socket: ClientConnection, **fields: Any) -> list[dict[str, Any]]:
    socket.send(json.dumps({"type": "response.create", **fields}))
    found: list[dict[str, Any]] = []
    while not found or found[-1]["type"] not in ("response.completed", "response.incomplete", "error"):
        found.append(json.loads(socket.recv(timeout=60)))
    return found


@pytest.mark.filterwarnings("ignore:connect:DeprecationWarning")  # of websockets, at how OpenAI's client uses it
def test_turns_go_on_on_one_connection_though_nothing_is_stored(client: openai.OpenAI, http: httpx.Client) -> None:
    with client.responses.connect() as connection:
        connection.response.create(**ask("loop", input="Weather?", tools=[GET_WEATHER], store=False))
        first = next(event.response for event in connection if event.type == "response.completed")
        assert [item.type for item in first.output] == ["reasoning", "function_call"]
        result = {"type": "function_call_output", "call_id": first.output[1].call_id, "output": "21 C"}
        more = ask("loop", input=[result], tools=[GET_WEATHER], store=False, previous_response_id=first.id)
        connection.response.create(**more)
        found = []
        for event in connection:
            found.append(event)
            if event.type == "response.completed":
                break
    assert found[-1].response.output_text == "It is 21 C."
    assert "".join(event.delta for event in found if event.type == "response.output_text.delta") == "It is 21 C."
    assert [event.sequence_number for event in found] == list(range(len(found)))
    assert http.get(f"/v1/responses/{first.id}").status_code == 404


def test_events_are_those_of_a_stream(server: ServerProcess, http: httpx.Client) -> None:
    fields = ask("loop", input="Weather?", tools=[GET_WEATHER])
    with connected(server) as socket:
        found = turn(socket, **fields)
    for event in found:
        EVENT.validate_python(event, strict=True)
    assert [event["type"] for event in found] == [event["type"] for event in events(http, "/v1/responses", fields)]
    assert http.get(f"/v1/responses/{found[-1]['response']['id']}").status_code == 200


def test_what_goes_wrong_is_told_and_the_connection_goes_on(server: ServerProcess) -> None:
    with connected(server) as socket:
        for message, code in (
            ("{", "invalid_json"),
            ("[]", "invalid_type"),
            ('{"type":"response.steer"}', "invalid_value"),
            ('{"type":"response.create"}', "missing_required_parameter"),
            ('{"type":"response.create","input":"x","previous_response_id":"resp_0"}', "previous_response_not_found"),
            (b'{"type":"response.create","input":7}', "invalid_type"),
        ):
            socket.send(message)
            told = json.loads(socket.recv(timeout=60))
            assert (told["type"], told["status"], told["error"]["code"]) == ("error", 400, code), message
        socket.send(json.dumps({"type": "response.processed", "response_id": "resp_0"}))  # Codex does; no answer
        assert turn(socket, **ask("answer", input="x"))[-1]["type"] == "response.completed"


def test_a_warm_up_writes_nothing_and_is_gone_on_from(server: ServerProcess) -> None:
    told = " ".join(f"rule{i}" for i in range(200))
    with connected(server) as socket:
        first = turn(socket, **ask("answer", input=[SAID], instructions=told, generate=False, store=False))
        assert [event["type"] for event in first] == [
            "response.created",
            "response.in_progress",
            "response.completed",
        ]
        warm = first[-1]["response"]
        assert warm["output"] == []
        then = turn(socket, **ask("answer", input=[], instructions=told, store=False, previous_response_id=warm["id"]))[
            -1
        ]["response"]
    assert then["output"][-1]["content"][0]["text"] == "2 + 2 = 4."
    assert then["usage"]["input_tokens"] == warm["usage"]["input_tokens"]
    assert then["usage"]["input_tokens_details"]["cached_tokens"] >= warm["usage"]["input_tokens"] - 1


def test_requests_wait_for_each_other_and_not_without_end(server: ServerProcess) -> None:
    asked = json.dumps({"type": "response.create", **ask("long", input="x")})
    with connected(server) as socket:
        for _ in range(12):
            socket.send(asked)
        ended: list[dict[str, Any]] = []
        while len(ended) < 12:
            event = json.loads(socket.recv(timeout=60))
            if event["type"] in ("response.completed", "error"):
                ended.append(event)
    refused = [event for event in ended if event["type"] == "error"]
    assert 1 <= len(refused) <= 4
    assert {(event["status"], event["error"]["code"]) for event in refused} == {(429, "too_many_requests")}


def test_a_client_that_leaves_ends_its_reply(server: ServerProcess, http: httpx.Client) -> None:
    with connected(server) as socket:
        socket.send(json.dumps({"type": "response.create", **ask("endless", input="x")}))
        while json.loads(socket.recv(timeout=60))["type"] != "response.output_text.delta":
            pass
    deadline = time.monotonic() + 30
    while any(slot["is_processing"] for slot in http.get("/slots").json()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
