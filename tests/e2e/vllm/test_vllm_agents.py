"""What Codex sends to ``/v1/responses`` and vLLM's Harmony path does not take: namespaces, its search, pictures."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from vllm_rig.replies import encode
from vllm_rig.server import MODEL, Server

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
PLAIN = {"type": "function", "name": "get", "strict": False, "parameters": {"type": "object", "properties": {}}}
NAMESPACE = {"type": "namespace", "name": "mcp__w", "description": "Weather.", "tools": [PLAIN]}
TOOLS = [PLAIN, NAMESPACE, {"type": "web_search", "external_web_access": True}]
PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "high"}


def call(name: str) -> list[int]:
    header = f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
    return encode(f'<|channel|>analysis<|message|>Look.<|end|><|start|>assistant{header}{{"city":"Paris"}}<|call|>')


def ask(server: Server, script: list[int], items: list[Any], stream: bool = False, **more: Any) -> Response:
    """The response; where it is streamed, its events say the same of each item."""
    body = {
        "model": MODEL,
        "input": items,
        "tools": TOOLS,
        "stream": stream,
        "max_output_tokens": len(script) + 8,
        "vllm_xargs": {"script": script},
        **more,
    }
    reply = httpx.post(f"{server.url}/v1/responses", json=body, timeout=240)
    assert reply.status_code == 200, reply.text
    if not stream:
        return Response.model_validate(reply.json())
    found = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
    for event in found:
        EVENT.validate_python(event)
    response = Response.model_validate(found[-1]["response"])
    for kind in ("response.output_item.added", "response.output_item.done"):
        told = [event["item"] for event in found if event["type"] == kind]
        assert [(item.get("name"), item.get("namespace")) for item in told] == [named(item) for item in response.output]
    return response


def named(item: Any) -> tuple[str | None, str | None]:
    return getattr(item, "name", None), getattr(item, "namespace", None)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("offered", "known"), [("mcp__w__get", ("get", "mcp__w")), ("get", ("get", None))], ids=["namespace", "plain"]
)
def test_a_loop_with_a_tool_of_a_namespace(
    server: Server, stream: bool, offered: str, known: tuple[str, str | None]
) -> None:
    question = {"role": "user", "content": "hi"}
    first = ask(server, call(offered), [question], stream)
    called = first.output[-1]
    assert named(called) == known
    for output, shown in (("21 C", 0), ([{"type": "input_text", "text": "21"}, PICTURE], 5)):
        result = {"type": "function_call_output", "call_id": called.call_id, "output": output}
        items = [question, *(item.model_dump(exclude_none=True) for item in first.output), result]
        answer = ask(server, encode("<|channel|>final<|message|>It is warm.<|return|>"), items, stream)
        assert answer.output_text == "It is warm."
        assert answer.usage is not None
        assert first.usage is not None
        assert answer.usage.input_tokens > first.usage.input_tokens + shown


def test_an_output_that_is_neither_text_nor_parts(server: Server) -> None:
    called = {"type": "function_call", "name": "get", "call_id": "a", "arguments": "{}"}
    for output in ([{"type": "input_text"}], [{"type": "input_text", "text": 5}]):
        result = {"type": "function_call_output", "call_id": "a", "output": output}
        body = {"model": MODEL, "input": [called, result], "tools": TOOLS}
        reply = httpx.post(f"{server.url}/v1/responses", json=body, timeout=240)
        assert reply.status_code == 400, reply.text


def test_nothing_was_raised(server: Server) -> None:
    """In all of the above."""
    assert "Traceback" not in server.log_text(), server.log_text()[-4000:]
