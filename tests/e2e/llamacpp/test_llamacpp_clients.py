"""Requests as clients sent them (client_requests.jsonl), against the server.

Each line is a tool loop of two requests, recorded between a client and this server, long texts cut. `<1.call_id>` is
that field of the second item (block, call) of the first reply, which was another one then.
"""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from llamacpp_rig import items_and_text
from pydantic import BaseModel, SecretStr

RECORDED = [
    json.loads(line)
    for line in Path(__file__).with_name("client_requests.jsonl").read_text("utf-8").splitlines()
    if line.strip()
]
ANSWERS = {"loop": "It is 21 C.", "namespace-loop": "It is 21 C.", "bash-loop": "Said hi."}


class Place(BaseModel):
    """Types whose formats and keywords no grammar holds."""

    path: Path
    secret: SecretStr
    raw: bytes
    network: IPv4Network
    tags: set[str]


def test_pydantics_formats_stop_no_client(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    fields: dict[str, Any] = {"model": "tiny", "metadata": {"script": "place"}}
    chat = client.chat.completions.parse(**fields, messages=[{"role": "user", "content": "hi"}], response_format=Place)
    response = client.responses.parse(**fields, input="hi", text_format=Place)
    fields |= {"max_tokens": 400, "metadata": {"user_id": "place"}}
    message = claude.messages.parse(**fields, messages=[{"role": "user", "content": "hi"}], output_format=Place)
    for place in (chat.choices[0].message.parsed, response.output_parsed, message.parsed_output):
        assert place is not None
        assert (place.path, place.tags, place.network) == (Path("/a"), {"d", "e"}, IPv4Network("10.0.0.0/8"))
        assert place.secret.get_secret_value() == "b"


@pytest.mark.parametrize("recorded", RECORDED, ids=[r["client"] for r in RECORDED])
def test_tool_loops_as_clients_send_them(http: httpx.Client, recorded: dict[str, Any]) -> None:
    first, second = recorded["requests"]
    items, text = items_and_text(http, recorded["path"], first, recorded["script"])
    assert items
    assert text == ""

    def own(match: re.Match[str]) -> str:
        return str(items[int(match[1])][match[2]])

    body = json.loads(re.sub(r"<(\d+)\.(\w+)>", own, json.dumps(second)))
    assert body != first
    assert items_and_text(http, recorded["path"], body, recorded["script"])[1] == ANSWERS[recorded["script"]]
