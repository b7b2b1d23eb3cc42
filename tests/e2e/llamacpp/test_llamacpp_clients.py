"""Requests as clients sent them (client_requests.jsonl), against the server.

Each line is a tool loop of two requests, recorded between a client and this server, long texts cut. `<1.call_id>` is
that field of the second item (block, call) of the first reply, which was another one then.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from llamacpp_rig import Seen, events
from openai.types.chat import ChatCompletion, ChatCompletionChunk

RECORDED = [
    json.loads(line)
    for line in Path(__file__).with_name("client_requests.jsonl").read_text("utf-8").splitlines()
    if line.strip()
]
ANSWERS = {"loop": "It is 21 C.", "namespace-loop": "It is 21 C.", "bash-loop": "Said hi."}


def ask(http: httpx.Client, path: str, body: dict[str, Any], script: str) -> tuple[list[dict[str, Any]], str]:
    """The reply's items, blocks or calls, and its text."""
    body = {**body, "metadata": {"user_id" if path == "/v1/messages" else "script": script}}
    if path == "/v1/chat/completions":
        if body.get("stream"):
            with http.stream("POST", path, json=body) as stream:
                lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: {")]
            chunks = [ChatCompletionChunk.model_validate_json(line) for line in lines]
            seen = Seen.of_chunks(chunks)
        else:
            seen = Seen.of_message(ChatCompletion.model_validate(post(http, path, body)).choices[0])
        return [{"id": id} for id in seen.ids], seen.content or ""
    if path == "/v1/messages":
        if body.get("stream"):
            found = events(http, path, body)
            blocks = [e["content_block"] for e in found if e["type"] == "content_block_start"]
            return blocks, "".join(e["delta"].get("text", "") for e in found if e["type"] == "content_block_delta")
        blocks = post(http, path, body)["content"]
        return blocks, "".join(block.get("text", "") for block in blocks)
    reply = events(http, path, body)[-1]["response"] if body.get("stream") else post(http, path, body)
    assert reply["status"] == "completed"
    said = [item for item in reply["output"] if item["type"] == "message"]
    return reply["output"], "".join(part["text"] for item in said for part in item["content"])


def post(http: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    reply = http.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize("recorded", RECORDED, ids=[r["client"] for r in RECORDED])
def test_tool_loops_as_clients_send_them(http: httpx.Client, recorded: dict[str, Any]) -> None:
    first, second = recorded["requests"]
    items, text = ask(http, recorded["path"], first, recorded["script"])
    assert items
    assert text == ""

    def own(match: re.Match[str]) -> str:
        return str(items[int(match[1])][match[2]])

    body = json.loads(re.sub(r"<(\d+)\.(\w+)>", own, json.dumps(second)))
    assert body != first
    assert ask(http, recorded["path"], body, recorded["script"])[1] == ANSWERS[recorded["script"]]
