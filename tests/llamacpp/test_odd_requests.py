"""Requests with anything in any place, on the way to the engine: the client is told what is wrong, whatever it sent."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("llama_cpp")

from harmony_plugin import RequestError
from harmony_plugin.api import messages, responses
from harmony_plugin.api.request import ChatRequest
from harmony_plugin.api.tools import Toolbox
from harmony_plugin.llamacpp import Defaults
from harmony_plugin.llamacpp.server import chat
from harmony_plugin.llamacpp.server.store import Seal, Store
from harmony_plugin.prompts import Prompts

FUNCTION = {
    "name": "f",
    "description": "d",
    "parameters": {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}},
    "strict": False,
}
F = {"type": "function", **FUNCTION}
RESPONSES = {
    "model": "t",
    "input": [
        {"role": "developer", "content": "x"},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "x"}]},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "s"}],
            "content": [{"type": "reasoning_text", "text": "s"}],
            "encrypted_content": "x",
        },
        {"type": "function_call", "call_id": "c1", "name": "get", "namespace": "n", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "c1",
            "output": [{"type": "input_text", "text": "a"}, {"type": "input_file", "filename": "a", "title": "b"}],
        },
        {"type": "custom_tool_call", "call_id": "c2", "name": "p", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "x"},
        {"type": "local_shell_call", "call_id": "c3", "action": {"type": "exec", "command": ["ls"], "env": {}}},
        {"type": "local_shell_call_output", "id": "c3", "output": "x"},
        {"type": "shell_call", "call_id": "c4", "action": {"commands": ["ls"]}},
        {
            "type": "shell_call_output",
            "call_id": "c4",
            "output": [{"stdout": "a", "stderr": "b", "outcome": {"type": "exit", "exit_code": 1}}],
        },
        {"type": "apply_patch_call", "call_id": "c5", "operation": {"type": "delete_file", "path": "x"}},
        {"type": "apply_patch_call_output", "call_id": "c5", "status": "completed"},
        {"type": "additional_tools", "role": "developer", "tools": [{**F, "name": "g"}]},
        {"type": "tool_search_call", "call_id": "c6", "execution": "client", "arguments": {"query": "x"}},
        {
            "type": "tool_search_output",
            "call_id": "c6",
            "tools": [{"type": "namespace", "name": "m", "tools": [{**F, "name": "get"}]}, {"type": "local_shell"}],
        },
        {"role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
        {"role": "user", "content": "hi"},
    ],
    "tools": [
        F,
        {"type": "namespace", "name": "n", "description": "D", "tools": [{**F, "name": "get"}]},
        {"type": "custom", "name": "p", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
        {"type": "shell", "environment": {"type": "local"}},
        {"type": "local_shell"},
        {"type": "apply_patch"},
        {"type": "web_search", "external_web_access": True},
        {"type": "tool_search", "execution": "client", "parameters": {"type": "object"}},
    ],
    "tool_choice": {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "f"}, {"type": "shell"}],
    },
    "include": ["reasoning.encrypted_content"],
    "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}},
    "reasoning": {"effort": "low", "summary": "auto"},
    "metadata": {"a": "b"},
}
CHAT = {
    "messages": [
        {"role": "system", "content": "x"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "file", "file": {"filename": "x"}}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "x"},
                {"type": "thinking", "thinking": [{"type": "text", "text": "x"}]},
            ],
            "reasoning_details": [
                {"type": "reasoning.text", "text": "x", "index": 0},
                {"type": "reasoning.summary", "summary": "x", "index": 0},
            ],
            "tool_calls": [
                {"id": "a", "type": "custom", "custom": {"name": "p", "input": "x"}},
                {"id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "user", "content": "x"},
    ],
    "tools": [
        {"type": "function", "function": FUNCTION},
        {
            "type": "custom",
            "custom": {"name": "p", "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "x"}}},
        },
    ],
    "tool_choice": {"type": "custom", "custom": {"name": "p"}},
    "max_tokens": 5,
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
}
MESSAGES = {
    "model": "t",
    "max_tokens": 5,
    "system": [{"type": "text", "text": "x-anthropic-billing-header: x"}, {"type": "text", "text": "x"}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "x"},
                {"type": "image", "source": {"type": "base64"}},
                {
                    "type": "document",
                    "title": "x",
                    "source": {"type": "content", "content": [{"type": "text", "text": "x"}]},
                },
                {"type": "search_result", "source": "x", "title": "y", "content": [{"type": "text", "text": "x"}]},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "x", "signature": "x"},
                {"type": "tool_use", "id": "t", "name": "bash", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "content": [{"type": "image", "source": {}}, {"type": "tool_reference", "tool_name": "x"}],
                }
            ],
        },
        {"role": "user", "content": "x"},
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}, {"type": "bash_20250124", "name": "bash"}],
    "tool_choice": {"type": "tool", "name": "bash"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
    "thinking": {"type": "enabled", "budget_tokens": 5},
}

ODD: list[Any] = [
    *(None, 5, -1, True, 1.5, "", "x", "[", [], {}, ["x"], [None], [[]], {"a": {"b": [1]}}, "\ud800"),
    *({"type": "x"}, {"type": ["x"]}, {"id": 5}, {"id": "rs_1"}, {"type": "text"}, [{"type": "text", "text": 5}]),
]
PROMPTS = Prompts()


def read_chat(body: Any) -> None:
    request = ChatRequest.read(chat.check(body), Defaults())
    PROMPTS.render(
        request.messages,
        tools=request.described,
        response_format=request.response_format,
        reasoning_effort=request.reasoning_effort,
    )


def read_responses(body: Any) -> None:
    asked = responses.resolve(responses.check(body), Store(1).item)
    toolbox = Toolbox(asked.tools, responses.brought_tools(asked.input))
    read_chat(responses.to_chat(asked, toolbox, (), Seal(None).open))
    responses.input_items(asked)
    json.dumps(responses.ResponseWriter(asked, "m", toolbox).response)


def read_messages(body: Any) -> None:
    read_chat(messages.to_chat(messages.check(body)))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


@pytest.mark.parametrize(
    ("read", "body"),
    [(read_chat, CHAT), (read_responses, RESPONSES), (read_messages, MESSAGES)],
    ids=["chat", "responses", "messages"],
)
def test_whatever_stands_anywhere(read: Any, body: Any) -> None:
    read(body)
    chance, refused = random.Random(20), []
    for _ in range(600):
        changed = copy.deepcopy(body)
        for _ in range(chance.choice((1, 1, 2, 3))):
            *way, last = chance.choice(list(places(changed)))
            place = changed
            for step in way:
                place = place[step]
            if isinstance(place, dict) and chance.random() < 0.15:
                del place[last]
            else:
                place[last] = copy.deepcopy(chance.choice(ODD))
        try:
            read(changed)
        except RequestError as error:
            refused.append(error.status)
    assert 0 < len(refused) < 600
    assert set(refused) <= {400, 404}
