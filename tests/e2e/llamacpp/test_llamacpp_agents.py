"""Whole loops as real agents and libraries sent them (`…_requests.jsonl`), whole and streamed, against the server.

Each line is a conversation: what all of its requests have in common, the rest of each, and what the model said to it.
`<1.2.call_id>` is that field of the third item (block, call) of the second reply, which was another one then.
"""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from llamacpp_rig import AGENTS, encoding, items_and_text

from harmony_plugin import parse


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("number", range(len(AGENTS)), ids=[recorded["client"] for recorded in AGENTS])
def test_loops_as_agents_send_them(http: httpx.Client, number: int, stream: bool) -> None:
    recorded = AGENTS[number]
    replies: list[list[dict[str, Any]]] = []

    def own(match: re.Match[str]) -> str:
        return str(replies[int(match[1])][int(match[2])][match[3]])

    for place, (rest, said) in enumerate(zip(recorded["requests"], recorded["says"], strict=True)):
        body = json.loads(re.sub(r"<(\d+)\.(\d+)\.(\w+)>", own, json.dumps(recorded["common"] | rest)))
        if not stream:
            body.pop("stream_options", None)
        items, text = items_and_text(http, recorded["path"], body | {"stream": stream}, f"agent-{number}-{place}")
        wanted = parse(encoding().encode(said, allowed_special="all"))
        assert text == (wanted.content or "")
        assert bool(calls(items)) == bool(wanted.tool_calls)
        replies.append(items)


def calls(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that are calls; all of them on the chat route."""
    return [item for item in items if item.get("type", "tool_use").endswith(("_call", "tool_use"))]
