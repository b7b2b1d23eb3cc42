"""What `python -m agents` and `python -m agents.libraries` decide without an agent or a library: which reply a request
gets, what is kept of it, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from agents.clients import AGENTS, Place
from agents.libraries import __main__ as libraries
from agents.libraries import run as library_runs
from agents.libraries.clients import LIBRARIES, Known
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


@pytest.mark.parametrize("file", [RECORDED, libraries.RECORDED], ids=lambda file: file.stem)
def test_the_kept_requests_are_of_no_machine(file: Path) -> None:
    text = file.read_text("utf-8")
    assert "/tmp/" not in text
    assert {uuid[:8] for uuid in UUID.findall(text)} <= {"00000000"}


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.key)
def test_a_librarys_requests_are_answered_by_their_runs_words(library: Any) -> None:
    said = library_runs.scripts(library)
    for run, expected in (("loop", 2), ("streamed", 2), ("schema", 0), ("partial", 0)):
        asked = [{"role": "user", "content": f"Do task-{run}."}]
        for turn in range(3):
            exchange = Exchange("POST", "/v1/chat/completions", None)
            said.answer(exchange, {"messages": asked})
            assert ("<|call|>" in exchange.said) == (turn < expected)
            asked += [{"role": "assistant", "content": ""}, {"role": "tool", "content": "1"}]


def told(**more: Any) -> dict[str, Any]:
    usage = {"input": 30, "output": 9, "reasoning": 3}
    return {"answer": library_runs.DONE, "thoughts": [f"Thought number {i}." for i in range(3)], "usage": usage, **more}


def passed(path: str, last: str = "Thought number 0. 5555 2222") -> list[Exchange]:
    field, details = ("messages", "completion") if path == "/v1/chat/completions" else ("input", "output")
    usage: dict[str, Any] = {"prompt_tokens" if field == "messages" else "input_tokens": 10, f"{details}_tokens": 3}
    usage |= {f"{details}_tokens_details": {"reasoning_tokens": 1}}
    body = {field: [{"role": "user", "content": last}], "stream": False}
    reply = json.dumps({"usage": usage}).encode()
    return [Exchange("POST", path, body, "task-loop.", "", 200, reply) for _ in range(3)]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_what_a_library_tells_is_held_to_what_passed(path: str) -> None:
    well = dict.fromkeys(("loop", "reasoning shown", "usage", "reasoning back"), "")
    wrong: list[tuple[dict[str, Any], str, dict[str, str]]] = [
        (told(), "Thought number 0. 5555 2222", {}),
        (told(answer="5"), "Thought number 0. 5555", {"loop": "answered '5'"}),
        (told(), "5555", {"reasoning back": "no"}),
        (told(thoughts=["Thought number 1."]), "Thought number 0. 5555", {"reasoning shown": "[0, 1, 0] times"}),
        (told(usage={"input": 31}), "Thought number 0. 5555", {"usage": "{'input': 31}, not {'input': 30}"}),
        (told(), "Thought number 0.", {"loop": "no result"}),
    ]
    for each, last, expected in wrong:
        outcome = library_runs.Outcome("l", "1", "a", "s", exchanges=passed(path, last))
        library_runs.judge(outcome, {"loop": each})
        for check, found in (well | expected).items():
            assert (found in outcome.checks[check]) if found else not outcome.checks[check]
        assert outcome.several == ("2222" in last)
        assert outcome.sound == (not expected)


def test_what_is_known_is_a_note_below_the_table() -> None:
    known = Known("it reads none", ("reasoning shown",), server="vllm")
    assert known.covers("reasoning shown", "chat", "vllm")
    assert not known.covers("reasoning shown", "chat", "llamacpp")
    assert not known.covers("usage", "chat", "vllm")
    checks = {"loop": "", "schema": "", "reasoning shown": "streamed: none"}
    outcome = library_runs.Outcome("l", "1", "chat", "vllm", checks, known={"reasoning shown": known.why})
    assert outcome.sound
    assert libraries.table([outcome]).endswith(
        "| ok | none | schema ok | no (1) | none | none | none |\n\n1. it reads none"
    )
    failed = library_runs.Outcome("l", "1", "chat", "vllm", {"loop": "400"})
    assert libraries.table([failed]).endswith(
        "| **400** | not reached |  | not reached | not reached | not reached | not reached |"
    )
    outcome.known = {}
    assert not outcome.sound
    assert "**streamed: none**" in libraries.table([outcome])
