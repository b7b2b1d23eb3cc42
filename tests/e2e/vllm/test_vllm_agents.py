"""What agents send to ``/v1/responses`` and vLLM does not take: their tools and items of all types, whole and streamed.

OpenAI's client reads what comes back, and sends it on in the next turn.
"""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseOutputItem, ResponseStreamEvent
from pydantic import TypeAdapter
from vllm_rig.replies import encode
from vllm_rig.server import MODEL, Launch, Server

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ITEM: TypeAdapter[Any] = TypeAdapter(ResponseOutputItem)
PLAIN = {"type": "function", "name": "get", "strict": False, "parameters": {"type": "object", "properties": {}}}
NAMESPACE = {"type": "namespace", "name": "mcp__w", "description": "Weather.", "tools": [PLAIN]}
PATCH = {
    "type": "custom",
    "name": "edit",
    "description": "Patches files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}
SEARCH = {"type": "tool_search", "execution": "client", "description": "Finds tools.", "parameters": {"type": "object"}}
TYPED = [{"type": "local_shell"}, {"type": "shell", "environment": {"type": "local"}}, {"type": "apply_patch"}]
FOREIGN = [{"type": "web_search", "external_web_access": True}, {"type": "image_generation", "output_format": "png"}]
TOOLS = [PLAIN, NAMESPACE, PATCH, SEARCH, *TYPED, *FOREIGN]
PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "high"}
QUESTION = {"role": "user", "content": "hi"}
ANSWER = encode("<|channel|>final<|message|>It is done.<|return|>")


def call(name: str, arguments: str) -> list[int]:
    header = f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
    return encode(f"<|channel|>analysis<|message|>Look.<|end|><|start|>assistant{header}{arguments}<|call|>")


def fields(script: list[int], items: list[Any], **more: Any) -> dict[str, Any]:
    extra = {"vllm_xargs": {"script": script}}
    limit = len(script) + 8
    return {"model": MODEL, "input": items, "tools": TOOLS, "max_output_tokens": limit, "extra_body": extra, **more}


def ask(server: Server, script: list[int], items: list[Any], stream: bool = False, **more: Any) -> Response:
    """The response, as OpenAI's client reads it; where it is streamed, its events say the same of each item."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=240, max_retries=0) as client:
        if not stream:
            return client.responses.create(**fields(script, items, **more))
        with client.responses.create(**fields(script, items, **more), stream=True) as events:
            told = list(events)
    for event in told:
        EVENT.validate_python(event.model_dump(by_alias=True))
    assert [event.sequence_number for event in told] == list(range(len(told)))
    response = told[-1].response
    for kind in ("response.output_item.added", "response.output_item.done"):
        items = [event.item for event in told if event.type == kind]
        assert [(item.type, item.id) for item in items] == [(item.type, item.id) for item in response.output]
    last, done = sent(response.output[-1]), sent(items[-1])
    assert {field: done[field] for field in last} == last  # vLLM tells more of a plain function's
    assert [tool.type for tool in told[0].response.tools] == [tool.type for tool in response.tools]
    return response


def sent(item: Any) -> dict[str, Any]:
    return item.model_dump(exclude_none=True, by_alias=True)


LOOPS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "function": ("get", '{"a": 1}', {"type": "function_call", "name": "get", "arguments": '{"a": 1}'}, {}),
    "namespace": ("mcp__w__get", "{}", {"type": "function_call", "name": "get", "namespace": "mcp__w"}, {}),
    "custom": ("edit", '{"input": "a\\nb"}', {"type": "custom_tool_call", "name": "edit", "input": "a\nb"}, {}),
    "custom, no JSON": ("edit", "a patch", {"type": "custom_tool_call", "name": "edit", "input": "a patch"}, {}),
    "tool_search": (
        "tool_search",
        '{"query": "x"}',
        {"type": "tool_search_call", "execution": "client", "arguments": {"query": "x"}},
        {"type": "tool_search_output", "execution": "client", "tools": [{**PLAIN, "name": "found"}]},
    ),
    "local_shell": (
        "local_shell",
        '{"command": ["ls", "-l"]}',
        {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls", "-l"], "env": {}}},
        {},
    ),
    "shell": (
        "shell",
        '{"commands": ["ls"]}',
        {"type": "shell_call", "action": {"commands": ["ls"]}},
        {"output": [{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]},
    ),
    "apply_patch": (
        "apply_patch",
        '{"type": "delete_file", "path": "a"}',
        {"type": "apply_patch_call", "operation": {"type": "delete_file", "path": "a"}},
        {"status": "completed"},
    ),
    "shell, no JSON": ("shell", "ls", {"type": "function_call", "name": "shell", "arguments": "ls"}, {}),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", LOOPS)
def test_a_loop_with_a_tool(server: Server, kind: str, stream: bool) -> None:
    name, arguments, wanted, result = LOOPS[kind]
    first = ask(server, call(name, arguments), [QUESTION], stream)
    called = sent(first.output[-1])
    assert {field: called[field] for field in wanted} == wanted
    ITEM.validate_python(called)
    assert [tool.type for tool in first.tools] == [tool["type"] for tool in TOOLS if tool not in FOREIGN]
    output = {"type": f"{called['type']}_output", "call_id": called["call_id"], "output": "21", **result}
    answer = ask(server, ANSWER, [QUESTION, *map(sent, first.output), output], stream)
    assert answer.output_text == "It is done."
    # What was thought, called and found is in the next prompt.
    assert answer.usage.input_tokens > first.usage.input_tokens + len(encode(arguments)) + 10


def test_a_picture_in_an_output(server: Server) -> None:
    called = {"type": "function_call", "name": "get", "call_id": "a", "arguments": "{}"}
    shown = [{"type": "input_text", "text": "21"}, PICTURE]
    tokens = []
    for output in ("21", shown):
        result = {"type": "function_call_output", "call_id": "a", "output": output}
        tokens.append(ask(server, ANSWER, [QUESTION, called, result]).usage.input_tokens)
    assert tokens[1] > tokens[0] + 5, "a line says that there was one"


@pytest.mark.parametrize("stream", [False, True])
def test_tools_that_an_item_brings(server: Server, stream: bool) -> None:
    """Codex sends all of its tools so where it knows the model's name."""
    program = {"type": "custom", "name": "exec", "description": "Runs a program."}
    bringing = {"type": "additional_tools", "role": "developer", "tools": [program, SEARCH]}
    script = call("exec", '{"input": "text(1)"}')
    first = ask(server, script, [bringing, QUESTION], stream, tools=openai.omit)
    called = first.output[-1]
    assert (called.type, called.name, called.input) == ("custom_tool_call", "exec", "text(1)")
    assert first.tools == []
    output = {"type": "custom_tool_call_output", "call_id": called.call_id, "output": "1"}
    items = [bringing, QUESTION, *map(sent, first.output), output]
    assert ask(server, ANSWER, items, stream, tools=openai.omit).output_text == "It is done."


@pytest.mark.parametrize("choice", [{"type": "custom", "name": "edit"}, {"type": "shell"}, "required"])
def test_choices(server: Server, choice: Any) -> None:
    name = {"shell": "shell"}.get(choice["type"], "edit") if isinstance(choice, dict) else "edit"
    arguments = '{"commands": ["ls"]}' if name == "shell" else '{"input": "a"}'
    (*_, called) = ask(server, call(name, arguments), [QUESTION], tool_choice=choice).output
    assert called.type == ("shell_call" if name == "shell" else "custom_tool_call")


def test_what_cannot_be_run_is_left_out(server: Server) -> None:
    strange = [
        {"type": "compaction", "encrypted_content": "x"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
        {"type": "of_next_year", "text": "x"},
    ]
    tools = [{"type": "file_search", "vector_store_ids": ["a"]}, {"type": "of_next_year", "name": "x"}, PLAIN]
    answer = ask(server, ANSWER, [*strange, QUESTION], tools=tools)
    assert answer.output_text == "It is done."
    assert [tool.type for tool in answer.tools] == ["function"]
    plain = ask(server, ANSWER, [QUESTION], tools=[PLAIN])
    assert answer.usage.input_tokens == plain.usage.input_tokens


def test_an_output_that_is_neither_text_nor_parts(server: Server) -> None:
    called = {"type": "function_call", "name": "get", "call_id": "a", "arguments": "{}"}
    for output in ([{"type": "input_text"}], [{"type": "input_text", "text": 5}]):
        result = {"type": "function_call_output", "call_id": "a", "output": output}
        body = {"model": MODEL, "input": [called, result], "tools": TOOLS}
        reply = httpx.post(f"{server.url}/v1/responses", json=body, timeout=240)
        assert reply.status_code == 400, reply.text
        assert json.loads(reply.text)["error"]["message"].startswith("input[1].output")


def test_the_description_of_the_api(server: Server) -> None:
    described = httpx.get(f"{server.url}/openapi.json", timeout=240).json()
    body = described["paths"]["/v1/responses"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ResponsesRequest"}


def test_nothing_was_raised(server: Server) -> None:
    """In all of the above."""
    assert "Traceback" not in server.log_text(), server.log_text()[-4000:]
    assert "PydanticSerialization" not in server.log_text()


def test_what_is_stored(pool: Any) -> None:
    """A response that vLLM stored shows the client's tools, and a later one goes on from it."""
    server = pool.get(Launch(environment=(("VLLM_ENABLE_RESPONSES_API_STORE", "1"),)))
    first = ask(server, call("edit", '{"input": "a"}'), [QUESTION])
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=240) as client:
        assert client.responses.retrieve(first.id).output == first.output
    output = {"type": "custom_tool_call_output", "call_id": first.output[-1].call_id, "output": "1"}
    answer = ask(server, ANSWER, [output], previous_response_id=first.id)
    assert answer.output_text == "It is done."
