"""`/v1/responses` through OpenAI's client: items and events, tool loops, stored replies, wrong fields."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from llamacpp_rig import CASES, LONG, ONE_THREAD, Seen, chat_tools, events, expected, ids_of, scripted
from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent
from pydantic import TypeAdapter

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}


def ask(script: str, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "input": "hi", "metadata": {"script": script}, **more}


def without_names(value: Any) -> Any:
    """A reply less what is each reply's own: ids, times and seals."""
    own = ("id", "call_id", "created_at", "completed_at", "encrypted_content")
    if isinstance(value, dict):
        return {k: without_names(v) for k, v in value.items() if k not in own}
    return [without_names(v) for v in value] if isinstance(value, list) else value


# As Codex sends an MCP server's tools.
GET = {"type": "function", "name": "get", "description": "Weather.", "strict": False, "parameters": {"type": "object"}}
NAMESPACE = {"type": "namespace", "name": "mcp__w", "description": "A weather server.", "tools": [GET]}

SHAPES = [
    ("namespace", {"tools": [WEATHER, NAMESPACE]}),
    ("local-shell", {"tools": [{"type": "local_shell"}]}),
    ("shell", {"tools": [{"type": "shell", "environment": {"type": "local"}}]}),
    ("operation", {"tools": [{"type": "apply_patch"}]}),
    ("loop", {"tools": [WEATHER], "include": ["reasoning.encrypted_content"]}),
    ("answer", {}),
    ("loop", {"tools": [WEATHER]}),
    ("preamble", {"tools": [WEATHER]}),
    ("two-calls", {"tools": [WEATHER], "parallel_tool_calls": True}),
    ("long", {"max_output_tokens": 30}),
    ("numbers", {"top_logprobs": 2, "include": ["message.output_text.logprobs"]}),
    ("patch", {"tools": [{"type": "custom", "name": "apply_patch", "description": "Patch."}]}),
    ("not-json", {"tools": [WEATHER]}),
]


@pytest.mark.parametrize(("script", "more"), SHAPES, ids=[s[0] for s in SHAPES])
def test_events_validate_and_add_up_to_the_whole_reply(http: httpx.Client, script: str, more: dict[str, Any]) -> None:
    fields = ask(script, **more)
    whole = http.post("/v1/responses", json=fields).json()
    Response.model_validate(whole, strict=True)
    found = events(http, "/v1/responses", fields)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    for event in found:
        EVENT.validate_python(event, strict=True)
    assert found[0]["type"] == "response.created"
    last = found[-1]
    assert last["type"] == ("response.incomplete" if script == "long" else "response.completed")
    assert without_names(last["response"] | {"usage": None}) == without_names(whole | {"usage": None})
    assert last["response"]["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    # Every item is opened, filled and closed in order, and its deltas are its text.
    for index, item in enumerate(last["response"]["output"]):
        own = [event for event in found if event.get("output_index") == index]
        assert own[0]["type"] == "response.output_item.added"
        assert own[-1] == {**own[-1], "type": "response.output_item.done", "item": item}
        assert {event["item_id"] for event in own[1:-1]} <= {item["id"]}
        assert own[1:-1] or item["type"] in ("local_shell_call", "shell_call", "apply_patch_call")
        text = "".join(event["delta"] for event in own if event["type"].endswith(".delta"))
        kind = item["type"]
        given = item["content"][0]["text"] if "content" in item else item.get("arguments", item.get("input", ""))
        assert text == given, kind


def test_the_clients_own_stream_helper_ends_with_the_same_reply(client: openai.OpenAI) -> None:
    with client.responses.stream(**ask("loop", tools=[WEATHER])) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert [item.type for item in final.output] == ["reasoning", "function_call"]
    assert final.output[0].content[0].text == "Need weather."
    assert final.output[1].arguments == '{"city":"Paris"}'
    assert final.status == "completed"
    assert final.usage.output_tokens_details.reasoning_tokens > 0


SAMPLE = CASES[::7]


@pytest.mark.parametrize("case", SAMPLE, ids=[case["id"] for case in SAMPLE])
def test_recorded_replies(client: openai.OpenAI, case: dict[str, Any]) -> None:
    want = expected(case, past_calls=True)
    tools = [{"type": "function", **tool["function"]} for tool in chat_tools(case.get("tools"))]
    reply = client.responses.create(
        **ask(case["id"], tools=tools, parallel_tool_calls=True, max_output_tokens=len(ids_of(case)))
    )
    seen = Seen()
    for item in reply.output:
        if item.type == "reasoning":
            seen.reasoning = "\n".join([*filter(None, [seen.reasoning]), item.content[0].text])
        elif item.type == "message":
            seen.content = "\n".join([*filter(None, [seen.content]), item.content[0].text])
        else:
            seen.calls.append((item.name, item.arguments))
    assert (seen.reasoning, seen.content, seen.calls) == (want.reasoning, want.content, want.calls)
    assert reply.status == ("incomplete" if want.finish == "length" else "completed")


def test_tool_loop_by_items(client: openai.OpenAI) -> None:
    first = client.responses.create(**ask("loop", tools=[WEATHER], store=False))
    call = first.output[1]
    items: list[Any] = [{"role": "user", "content": "hi"}]
    items += [item.model_dump(exclude_none=True) for item in first.output]
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": '{"temp": 21}'})
    second = client.responses.create(**ask("loop", tools=[WEATHER], instructions="Be brief.") | {"input": items})
    assert second.output_text == "It is 21 C."
    assert second.instructions == "Be brief."


def test_tool_loop_by_previous_response_id(client: openai.OpenAI) -> None:
    first = client.responses.create(**ask("loop", tools=[WEATHER]))
    output = [{"type": "function_call_output", "call_id": first.output[1].call_id, "output": "21"}]
    fields = ask("loop", tools=[WEATHER], previous_response_id=first.id) | {"input": output}
    second = client.responses.create(**fields)
    assert second.output_text == "It is 21 C."
    assert second.previous_response_id == first.id
    # A streamed reply can be gone on from as well, as soon as its last event is there.
    with client.responses.stream(**fields) as stream:
        third = stream.get_final_response()
    fourth = client.responses.create(**ask("answer", tools=[WEATHER], previous_response_id=third.id))
    assert fourth.output_text == "2 + 2 = 4."
    fresh = client.responses.create(**ask("answer", tools=[WEATHER]))
    assert fourth.usage.input_tokens > fresh.usage.input_tokens


def test_history_is_what_the_chat_route_would_see(client: openai.OpenAI, http: httpx.Client) -> None:
    """The same conversation costs the same prompt tokens, whichever API it comes through."""
    items = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Need weather."}]},
        {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city":"Paris"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "21"},
    ]
    function = {k: WEATHER[k] for k in ("name", "parameters")}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "Need weather.",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "21"},
    ]
    response = client.responses.create(**ask("answer", tools=[WEATHER]) | {"input": items})
    chat = client.chat.completions.create(
        model="tiny",
        messages=messages,
        metadata={"script": "answer"},
        tools=[{"type": "function", "function": function}],
    )
    assert response.usage.input_tokens == chat.usage.prompt_tokens


PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"}


def test_a_picture_in_a_result_or_in_history_stops_no_session(http: httpx.Client) -> None:
    """What Codex's `view_image` gives."""
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Look."}, PICTURE]},
        {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": [PICTURE, {"type": "input_text", "text": "So."}]},
        {"role": "user", "content": "Well?"},
    ]
    fields = ask("answer", tools=[WEATHER]) | {"input": items}
    assert http.post("/v1/responses", json=fields).json()["status"] == "completed"
    assert events(http, "/v1/responses", fields)[-1]["type"] == "response.completed"
    asked = http.post("/v1/responses", json=fields | {"input": [*items, items[0]]})
    assert asked.status_code == 400
    assert asked.json()["error"]["param"] == "input[4].content[1].type"


# Open Responses, 2026-04-24: fields that a response must have, however it came out, and those that may be null.
REQUIRED = {
    **dict.fromkeys(("id", "object", "status", "model", "truncation", "service_tier"), str),
    **dict.fromkeys(("created_at", "top_logprobs"), int),
    **dict.fromkeys(("temperature", "top_p", "presence_penalty", "frequency_penalty"), float),
    **dict.fromkeys(("parallel_tool_calls", "store", "background"), bool),
    **dict.fromkeys(("output", "tools"), list),
    **dict.fromkeys(("text", "metadata"), dict),
    "tool_choice": (str, dict),
}
NULLABLE = {
    **dict.fromkeys(("completed_at", "max_output_tokens", "max_tool_calls"), int),
    **dict.fromkeys(("previous_response_id", "instructions", "safety_identifier", "prompt_cache_key"), str),
    **dict.fromkeys(("incomplete_details", "error", "reasoning", "usage"), dict),
}


@pytest.mark.parametrize("script", ["answer", "loop", "endless"])
def test_no_field_of_the_specification_is_missing(http: httpx.Client, script: str) -> None:
    found = events(http, "/v1/responses", ask(script, tools=[WEATHER], max_output_tokens=40))
    responses = [event["response"] for event in found if "response" in event]
    assert [response["status"] for response in responses[:2]] == ["in_progress", "in_progress"]
    for response in responses:
        assert {name for name, kind in REQUIRED.items() if not isinstance(response[name], kind)} == set()
        given = {name: kind for name, kind in NULLABLE.items() if response[name] is not None}
        assert {name for name, kind in given.items() if not isinstance(response[name], kind)} == set()
        assert {"name", "description", "parameters", "strict"} <= response["tools"][0].keys()


def test_a_response_tells_what_it_was_sampled_by(http: httpx.Client) -> None:
    asked = {"temperature": 0.5, "presence_penalty": 0.25, "prompt_cache_key": "k", "safety_identifier": "s"}
    reply = http.post("/v1/responses", json=ask("answer", **asked)).json()
    assert {name: reply[name] for name in asked} == asked
    assert (reply["top_p"], reply["frequency_penalty"]) == (1.0, 0.0)
    # The server's own default: this one was started with --temperature 0.
    assert http.post("/v1/responses", json=ask("answer")).json()["temperature"] == 0.0


def test_stored_replies_can_be_read_and_deleted(client: openai.OpenAI) -> None:
    reply = client.responses.create(**ask("answer"))
    assert client.responses.retrieve(reply.id) == reply
    client.responses.delete(reply.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(reply.id)
    kept_out = client.responses.create(**ask("answer", store=False))
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(kept_out.id)


# Codex: MCP and sub-agents.


def test_namespaces(client: openai.OpenAI) -> None:
    first = client.responses.create(**ask("namespace", tools=[NAMESPACE], tool_choice="required"))
    (called,) = first.output
    assert (called.type, called.namespace, called.name) == ("function_call", "mcp__w", "get")
    assert called.arguments == '{"city":"Paris"}'
    assert [tool.type for tool in first.tools] == ["namespace"]
    with client.responses.stream(**ask("namespace", tools=[NAMESPACE])) as stream:
        found = list(stream)
    named = [e.item for e in found if e.type in ("response.output_item.added", "response.output_item.done")]
    assert [(item.namespace, item.name) for item in named] == [("mcp__w", "get")] * 2

    def tokens(items: list[Any], tools: list[Any]) -> int:
        reply = client.responses.create(**ask("answer", tools=tools) | {"input": items})
        return reply.usage.input_tokens

    result = {"type": "function_call_output", "call_id": called.call_id, "output": "21"}
    back = [called.model_dump(exclude_none=True), result]
    flat = {k: v for k, v in back[0].items() if k != "namespace"} | {"name": "mcp__w__get"}
    shown = {**GET, "name": "mcp__w__get", "description": "A weather server.\n\nWeather."}
    assert tokens(back, [NAMESPACE]) == tokens([flat, result], [shown])
    assert tokens(back, []) == tokens([flat, result], [])
    for choice in (
        {"type": "function", "name": "get", "namespace": "mcp__w"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "mcp__w__get"}]},
    ):
        chosen = client.responses.create(**ask("namespace", tools=[WEATHER, NAMESPACE], tool_choice=choice))
        assert [item.name for item in chosen.output] == ["get"]


def test_names_in_namespaces_do_not_meet(client: openai.OpenAI) -> None:
    tools = [NAMESPACE, {**GET, "name": "mcp__w__get"}, {**NAMESPACE, "name": "mcp__w__"}]
    reply = client.responses.create(**ask("namespace", tools=tools))
    assert (reply.output[0].name, reply.output[0].namespace) == ("mcp__w__get", None)


# Vercel's AI SDK.


def test_items_are_referred_to(client: openai.OpenAI, http: httpx.Client) -> None:
    """Its second turn with `store`, the default."""
    first = client.responses.create(**ask("loop", tools=[WEATHER]))
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        *({"type": "item_reference", "id": item.id} for item in first.output),
        {"type": "function_call_output", "call_id": first.output[1].call_id, "output": "21"},
    ]
    second = client.responses.create(**ask("loop", tools=[WEATHER]) | {"input": items})
    assert second.output_text == "It is 21 C."
    whole = [items[0], *(item.model_dump(exclude_none=True) for item in first.output), items[-1]]
    same = client.responses.create(**ask("loop", tools=[WEATHER]) | {"input": whole})
    assert same.usage.input_tokens == second.usage.input_tokens
    # The kind may be left out; input has ids, too.
    listed = client.responses.input_items.list(second.id, order="asc").data
    again = [{"id": item.id} for item in listed]
    third = client.responses.create(**ask("loop", tools=[WEATHER]) | {"input": again})
    assert third.usage.input_tokens == second.usage.input_tokens
    gone = http.post(
        "/v1/responses", json=ask("loop") | {"input": [items[0], {"type": "item_reference", "id": "rs_x"}]}
    )
    assert gone.status_code == 404
    assert gone.json()["error"]["param"] == "input[1].id"
    assert "rs_x" in gone.json()["error"]["message"]
    unstored = client.responses.create(**ask("loop", tools=[WEATHER], store=False))
    with pytest.raises(openai.NotFoundError):
        client.responses.create(**ask("loop") | {"input": [{"type": "item_reference", "id": unstored.output[0].id}]})


def test_reasoning_is_kept_by_the_client(client: openai.OpenAI, http: httpx.Client) -> None:
    """Its second turn without `store`; Codex asks for the same."""
    fields = ask("loop", tools=[WEATHER], store=False)
    assert client.responses.create(**fields).output[0].encrypted_content is None
    first = client.responses.create(**fields, include=["reasoning.encrypted_content"])
    thought, called = first.output
    assert "Need weather." not in thought.encrypted_content

    def back(**reasoning: Any) -> Any:
        items = [
            {"role": "user", "content": "hi"},
            {"type": "reasoning", "id": thought.id, "summary": [], **reasoning},
            called.model_dump(exclude_none=True),
            {"type": "function_call_output", "call_id": called.call_id, "output": "21"},
        ]
        return http.post("/v1/responses", json=fields | {"input": items})

    sealed, plain = (
        back(encrypted_content=thought.encrypted_content),
        back(content=[{"type": "reasoning_text", "text": "Need weather."}]),
    )
    assert sealed.json()["usage"]["input_tokens"] == plain.json()["usage"]["input_tokens"]
    forged = thought.encrypted_content[:-10] + "A" * 10
    for foreign in (forged, "gAAAA", "x", 5):
        refused = back(encrypted_content=foreign)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "input[1].encrypted_content"
        assert refused.json()["error"]["code"] == "invalid_encrypted_content"
    # Where it was not all, or would not be shown again, nothing is lost with it.
    summed = back(encrypted_content="x", summary=[{"type": "summary_text", "text": "Need weather."}])
    assert summed.json()["usage"]["input_tokens"] == plain.json()["usage"]["input_tokens"]
    past = [
        {"role": "user", "content": "hi"},
        {"type": "reasoning", "summary": [], "encrypted_content": "x"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Well?"},
    ]
    assert http.post("/v1/responses", json=fields | {"input": past}).status_code == 200


# Tools that the API defines.


@pytest.mark.parametrize(
    ("script", "tool", "field", "value", "result"),
    [
        (
            "local-shell",
            {"type": "local_shell"},
            "action",
            {"type": "exec", "command": ["ls", "-l"], "env": {}},
            {"type": "local_shell_call_output", "output": "a.py"},
        ),
        (
            "shell",
            {"type": "shell"},
            "action",
            {"commands": ["ls"], "timeout_ms": 1000},
            {
                "type": "shell_call_output",
                "output": [{"stdout": "a.py", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
            },
        ),
        (
            "operation",
            {"type": "apply_patch"},
            "operation",
            {"type": "update_file", "path": "a.py", "diff": "+x"},
            {"type": "apply_patch_call_output", "status": "completed"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tools_that_the_client_runs(
    client: openai.OpenAI, script: str, tool: Any, field: str, value: Any, result: Any
) -> None:
    first = client.responses.create(**ask(script, tools=[tool]))
    (called,) = first.output
    assert called.type == result["type"].removesuffix("_output")
    given = called.model_dump(exclude_none=True)
    assert given[field] == value
    items = [{"role": "user", "content": "hi"}, given, {**result, "call_id": called.call_id}]
    fields = ask("answer", tools=[tool])
    by_items = client.responses.create(**fields | {"input": items})
    by_id = client.responses.create(**fields | {"input": items[-1:]}, previous_response_id=first.id)
    assert by_items.output_text == by_id.output_text == "2 + 2 = 4."
    assert by_items.usage.input_tokens > first.usage.input_tokens
    chosen = client.responses.create(**ask(script, tools=[WEATHER, tool], tool_choice={"type": tool["type"]}))
    assert chosen.output[0].type == called.type


def test_a_typed_call_with_other_arguments_is_a_function_call(client: openai.OpenAI) -> None:
    reply = client.responses.create(**ask("patch", tools=[{"type": "apply_patch"}]))
    assert [(item.type, item.name) for item in reply.output] == [("function_call", "apply_patch")]
    assert reply.output[0].arguments == '{"input":"*** Begin Patch"}'


HOSTED = [
    {"type": "mcp", "server_label": "deepwiki", "server_url": "https://mcp.deepwiki.com/mcp"},
    {"type": "web_search"},
    {"type": "web_search_preview"},
    {"type": "file_search", "vector_store_ids": ["vs_1"]},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "image_generation"},
    {"type": "shell", "environment": {"type": "container_auto"}},
    {"type": "computer_use_preview", "display_width": 1, "display_height": 1, "environment": "browser"},
]


@pytest.mark.parametrize("tool", HOSTED, ids=lambda tool: tool["type"])
def test_tools_that_openai_runs_are_refused_by_name(http: httpx.Client, tool: Any) -> None:
    reply = http.post("/v1/responses", json=ask("answer", tools=[WEATHER, tool]))
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["param"] == "tools[1].type"
    assert tool["type"] in error["message"]
    assert tool.get("server_label", "") in error["message"]


@pytest.mark.parametrize("live", [False, True])
def test_codexs_search_is_left_out(client: openai.OpenAI, live: bool) -> None:
    """It comes with each of Codex's requests."""
    search = {"type": "web_search", "external_web_access": live}
    reply = client.responses.create(**ask("answer", tools=[search, WEATHER]))
    assert [tool.type for tool in reply.tools] == ["function"]


SEARCH = {
    "type": "tool_search",
    "execution": "client",
    "description": "Finds tools of the MCP servers.",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
}
FOUND = {
    "type": "namespace",
    "name": "mcp__w",
    "description": "Weather.",
    "tools": [{**WEATHER, "name": "get", "defer_loading": True}],
}


@pytest.mark.parametrize("stream", [False, True])
def test_tools_that_the_client_searches_for(client: openai.OpenAI, http: httpx.Client, stream: bool) -> None:
    """As Codex does where there are many."""
    fields = ask("search-loop", tools=[WEATHER, SEARCH])

    def reply(items: list[Any]) -> Any:
        if not stream:
            return client.responses.create(**fields | {"input": items})
        return Response.model_validate(events(http, "/v1/responses", fields | {"input": items})[-1]["response"])

    items: list[Any] = [{"role": "user", "content": "hi"}]
    (search,) = reply(items).output
    assert (search.type, search.execution, search.arguments) == ("tool_search_call", "client", {"query": "weather"})
    shown = client.responses.input_tokens.count(model="tiny", input=items, tools=fields["tools"]).input_tokens
    found = {"type": "tool_search_output", "call_id": search.call_id, "execution": "client", "tools": [FOUND]}
    items += [search.model_dump(exclude_none=True), found]
    second = reply(items)
    (called,) = second.output
    assert (called.type, called.name, called.namespace) == ("function_call", "get", "mcp__w")
    assert second.usage.input_tokens > shown + 30, "what was found is shown to the model"
    assert [tool.type for tool in second.tools] == ["function", "tool_search"]
    again = {**found, "call_id": "again", "tools": [FOUND, WEATHER]}
    items += [
        called.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": called.call_id, "output": "21"},
        {**search.model_dump(exclude_none=True), "id": "tsc_again", "call_id": "again"},
        again,
        {**search.model_dump(exclude_none=True), "id": "tsc_none", "call_id": "none"},
        {**found, "call_id": "none", "tools": []},
    ]
    assert reply(items).output_text == "It is 21 C."


def test_tools_that_an_item_brings(client: openai.OpenAI, http: httpx.Client) -> None:
    """Codex sends all of its tools so where it knows the model's name."""
    program = {"type": "custom", "name": "exec", "description": "Runs a program."}
    space = {"type": "namespace", "name": "functions", "description": "", "tools": [program]}
    items: list[Any] = [
        {"type": "additional_tools", "role": "developer", "tools": [space]},
        {"role": "user", "content": "hi"},
    ]
    fields = ask("program") | {"input": items}
    first = client.responses.create(**fields)
    (called,) = first.output
    assert (called.type, called.name, called.input) == ("custom_tool_call", "exec", "text(1)")
    assert called.namespace == "functions"
    assert first.tools == []
    output = {"type": "custom_tool_call_output", "call_id": called.call_id, "output": "1"}
    by_items = client.responses.create(**fields | {"input": [*items, called.model_dump(exclude_none=True), output]})
    by_id = client.responses.create(**fields | {"input": [output]}, previous_response_id=first.id)
    assert by_items.usage.input_tokens == by_id.usage.input_tokens
    for wrong in ("x", [1], None):
        refused = http.post("/v1/responses", json=fields | {"input": [{"type": "additional_tools", "tools": wrong}]})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input[0].tools")
    hosted = {"type": "additional_tools", "tools": [{"type": "file_search"}]}
    refused = http.post("/v1/responses", json=fields | {"input": [hosted]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input[0].tools[0].type")


# The other endpoints.


def test_input_tokens(client: openai.OpenAI, http: httpx.Client) -> None:
    fields = {"input": "hi", "tools": [WEATHER], "instructions": "Be brief."}
    counted = client.responses.input_tokens.count(model="tiny", **fields)
    reply = client.responses.create(**ask("answer") | fields)
    assert counted.input_tokens == reply.usage.input_tokens
    wrong = http.post("/v1/responses/input_tokens", json={"input": [{"role": "robot"}]})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "input[0].role")


def test_input_items(client: openai.OpenAI, http: httpx.Client) -> None:
    first = client.responses.create(**ask("loop", tools=[WEATHER]))
    called = first.output[1]
    output = [{"type": "function_call_output", "call_id": called.call_id, "output": "21"}]
    second = client.responses.create(**ask("loop", tools=[WEATHER], previous_response_id=first.id) | {"input": output})
    newest = client.responses.input_items.list(second.id)
    assert [item.type for item in newest.data] == ["function_call_output", "function_call", "reasoning", "message"]
    ResponseItemList.model_validate(http.get(f"/v1/responses/{second.id}/input_items").json(), strict=True)
    oldest = client.responses.input_items.list(second.id, order="asc", limit=2)
    assert [item.type for item in oldest.data] == ["message", "reasoning"]
    assert oldest.data[0].content[0].text == "hi"
    assert oldest.has_more
    assert [item.id for item in oldest] == [item.id for item in newest][::-1]  # the client turns the pages
    for wrong in ("order=up", "limit=0", "limit=x", "after=nothing"):
        reply = http.get(f"/v1/responses/{second.id}/input_items?{wrong}")
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, wrong.split("=")[0])
    assert http.get("/v1/responses/resp_x/input_items").status_code == 404


def test_what_is_not_served_says_so(client: openai.OpenAI) -> None:
    reply = client.responses.create(**ask("answer"))
    with pytest.raises(openai.BadRequestError, match="complete"):
        client.responses.cancel(reply.id)
    with pytest.raises(openai.NotFoundError, match="resp_x"):
        client.responses.cancel("resp_x")


def test_structured_output(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"result": {"type": "boolean"}}, "required": ["result"]}
    shape = {"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}}
    reply = client.responses.create(**ask("wf-constrain-final-json", text=shape))
    assert json.loads(reply.output_text).keys() == {"result"}
    assert reply.text.format.name == "answer"


WRONG: list[tuple[str, dict[str, Any], str | None]] = [
    ("no input", {"input": None}, "input"),
    ("input number", {"input": 5}, None),
    ("input item", {"input": ["x"]}, None),
    ("input item type", {"input": [{"type": "computer_call"}]}, "input[0].type"),
    ("role", {"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
    ("content", {"input": [{"role": "user", "content": 5}]}, "input[0].content"),
    ("a picture", {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
    ("call without name", {"input": [{"type": "function_call", "call_id": "a", "arguments": "{}"}]}, "input[0].name"),
    ("call without id", {"input": [{"type": "function_call", "name": "a", "arguments": "{}"}]}, "input[0].call_id"),
    ("output of no call", {"input": [{"type": "function_call_output", "call_id": "x", "output": "1"}]}, "input"),
    ("output", {"input": [{"type": "function_call_output", "call_id": "x", "output": 1}]}, "input[0].output"),
    ("reasoning", {"input": [{"type": "reasoning", "content": "x"}]}, "input[0].content"),
    ("instructions", {"instructions": 5}, "instructions"),
    ("previous_response_id", {"previous_response_id": "resp_nope"}, "previous_response_id"),
    ("background", {"background": True}, "background"),
    ("conversation", {"conversation": "conv_1"}, "conversation"),
    ("stream", {"stream": "yes"}, "stream"),
    ("tools", {"tools": "x"}, "tools"),
    ("tool without type", {"tools": [{"name": "x"}]}, "tools[0].type"),
    ("tool without name", {"tools": [{"type": "function"}]}, "tools[0].name"),
    ("tool parameters", {"tools": [{"type": "function", "name": "a", "parameters": 5}]}, "tools[0].parameters"),
    ("tool_choice", {"tool_choice": {"type": "mcp"}}, "tool_choice.type"),
    ("tool_choice of a list", {"tool_choice": {"type": ["shell"]}}, "tool_choice.type"),
    ("a shell elsewhere", {"tools": [{"type": "shell", "environment": "there"}]}, "tools[0].type"),
    ("item type of a list", {"input": [{"type": ["message"]}]}, "input[0].type"),
    ("namespace without tools", {"tools": [{"type": "namespace", "name": "a"}]}, "tools[0].tools"),
    ("namespace in a namespace", {"tools": [{**NAMESPACE, "tools": [NAMESPACE]}]}, "tools[0].tools[0].type"),
    ("reference without id", {"input": [{"type": "item_reference"}]}, "input[0].id"),
    ("a schema left out", {"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format"),
    ("grammar", {"grammar": "root ::= "}, "grammar"),
    ("tool_choice of an unknown tool", {"tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
    ("reasoning effort", {"reasoning": {"effort": "extreme"}}, "reasoning.effort"),
    ("reasoning type", {"reasoning": "high"}, None),
    ("text format", {"text": {"format": {"type": "xml"}}}, "text.format"),
    ("max_output_tokens", {"max_output_tokens": 0}, "max_output_tokens"),
    ("temperature", {"temperature": 3}, "temperature"),
    ("top_p", {"top_p": "x"}, "top_p"),
    ("top_logprobs", {"top_logprobs": 99}, "top_logprobs"),
    ("metadata", {"metadata": {"a": 1}}, "metadata.a"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("change", "param"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_each_wrong_field_is_a_400_that_names_it(
    http: httpx.Client, change: dict[str, Any], param: str | None, stream: bool
) -> None:
    fields = {"model": "tiny", "input": "hi", "max_output_tokens": 4, "stream": stream} | change
    reply = http.post("/v1/responses", json={k: v for k, v in fields.items() if v is not None})
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    if param is not None:
        assert error["param"] == param, error


def test_a_long_reply_streams_whole(client: openai.OpenAI) -> None:
    with client.responses.stream(**ask("long")) as stream:
        final = stream.get_final_response()
    assert final.output_text == LONG


def test_responses_survive_a_restart(tmp_path: Path) -> None:
    """With a file, a conversation goes on at a server that was started anew, and at another one beside it."""
    file = tmp_path / "responses.sqlite"
    model = ("--model", str(build_model()), "--model_alias", "tiny", "--n_ctx", "2048", *ONE_THREAD)
    flags = (*model, "--responses_file", str(file))

    def ask_at(server: ServerProcess, **fields: Any) -> dict[str, Any]:
        reply = httpx.post(f"{server.url}/v1/responses", json={**ask("loop", tools=[WEATHER]), **fields}, timeout=120)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    with scripted(tmp_path, *flags) as server:
        first = ask_at(server)
        call = next(item for item in first["output"] if item["type"] == "function_call")
    output = [{"type": "function_call_output", "call_id": call["call_id"], "output": "21"}]
    with scripted(tmp_path, *flags) as server, scripted(tmp_path, *flags) as other:
        second = ask_at(server, previous_response_id=first["id"], input=output)
        assert second["output"][-1]["content"][0]["text"] == "It is 21 C."
        at_other = httpx.get(f"{other.url}/v1/responses/{second['id']}", timeout=120)
        assert at_other.json() == second
        third = ask_at(other, previous_response_id=second["id"], input="And in Rome?")
        items = httpx.get(f"{server.url}/v1/responses/{third['id']}/input_items?limit=100", timeout=120).json()["data"]
        assert len(items) == len(first["output"]) + len(second["output"]) + 3
        assert httpx.delete(f"{other.url}/v1/responses/{second['id']}", timeout=120).json()["deleted"]
        assert httpx.get(f"{server.url}/v1/responses/{second['id']}", timeout=120).status_code == 404
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
