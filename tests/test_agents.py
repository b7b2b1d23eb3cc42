"""What `python -m agents` decides without an agent: which reply a request gets, and what is kept of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from agents.clients import AGENTS, Place
from agents.recording import RECORDED, UUID, record
from agents.relay import Exchange
from agents.run import HELPER, LOOP, Outcome, scripts
from agents.scripts import SIDE, Scripts

PLACE = Place(Path("/tmp/x/home"), Path("/tmp/x/home/work"), "http://127.0.0.1:1")
TOOLS = [{"name": "f"}]
RESULTS: dict[str, list[Any]] = {
    "/v1/chat/completions": [{"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}],
    "/v1/responses": [{"type": "function_call_output"}, {"type": "custom_tool_call_output"}],
    "/v1/messages": [{"role": "user", "content": [{"type": "tool_result"}, {"type": "tool_result"}]}],
}


@pytest.mark.parametrize("path", RESULTS)
def test_results_that_come_together_are_one_turn(path: str) -> None:
    said = Scripts({"first": ["a", "b", "c"], "second": ["x"]})
    name = "input" if path == "/v1/responses" else "messages"
    asked = {"role": "user", "content": "do the first"}
    between = {"role": "assistant", "content": "the second"}
    for items, expected in (
        ([asked], ("first", "a")),
        ([asked, between, *RESULTS[path]], ("first", "b")),
        ([asked, between, *RESULTS[path], between, *RESULTS[path], between, *RESULTS[path]], ("first", "c")),
        ([asked, {"role": "user", "content": "do the second"}], ("second", "x")),
        ([{"role": "user", "content": "anything"}], (None, SIDE)),
    ):
        exchange = Exchange("POST", path, None)
        said.answer(exchange, {name: items, "tools": TOOLS})
        assert (exchange.conversation, exchange.said) == expected
        aside = Exchange("POST", path, None)
        said.answer(aside, {name: items})
        assert (aside.conversation, aside.said) == (None, SIDE)


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.key)
def test_every_agent_has_a_loop_that_ends_in_an_answer(agent: Any) -> None:
    steps = agent.steps(PLACE, f"Do {HELPER}.")
    replies = list(scripts(agent, PLACE).replies())
    assert {"shell", "MCP"} <= set(steps)
    assert sum("<|call|>" in reply for reply in replies) >= len(steps)
    assert len(set(replies)) == len(replies)


def test_what_is_kept_is_not_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = {"id": "call_1", "function": {"name": "f", "arguments": "{}"}}
    reply = f"data: {json.dumps({'choices': [{'delta': {'tool_calls': [call]}}]})}\n\n".encode()
    told = f"{PLACE.work}/a on 2031-05-06, 12345678-1234-1234-1234-123456789012 {'long ' * 50}"
    asked = {"role": "user", "content": told}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "1"}
    fields = {"model": "m", "tools": TOOLS, "metadata": {"user_id": "me"}}
    exchanges = [
        Exchange("POST", "/v1/chat/completions", fields | {"messages": items}, LOOP, f"see {PLACE.work}", 200, reply)
        for items in ([asked], [asked, result])
    ]
    file = tmp_path / "kept.jsonl"
    monkeypatch.setattr("agents.recording.RECORDED", file)
    record([Outcome("A", "1", "chat", "llamacpp", exchanges=exchanges)], [PLACE])
    kept = json.loads(file.read_text("utf-8"))
    assert kept["common"] == {"model": "m", "tools": TOOLS}
    assert kept["says"] == ["see /home/me/project"] * 2
    first, second = kept["requests"]
    assert first["messages"][0]["content"].startswith("/home/me/project/a on 2026-01-01, 00000000-0000-4000-8000-")
    assert first["messages"][0]["content"].endswith("…")
    assert second["messages"][1]["tool_call_id"] == "<0.0.id>"


def test_the_kept_requests_are_of_no_machine() -> None:
    text = RECORDED.read_text("utf-8")
    assert "/tmp/" not in text
    assert {uuid[:8] for uuid in UUID.findall(text)} == {"00000000"}
