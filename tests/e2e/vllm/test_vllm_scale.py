"""The same plugin as recipes for gpt-oss start it: two API servers, 20 tokens to a delta, n-gram speculation.

And with a setting of its own, which must reach every process.
"""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from faulty_clients import until
from vllm_rig.cases import Case, load, right
from vllm_rig.examples import ANSWER, run_example
from vllm_rig.faults import WEATHER
from vllm_rig.load import complaints, run_round
from vllm_rig.replies import APIS, MODEL, QUESTION, Api, Clients, Script, comparable, encode, gather_bounded
from vllm_rig.server import NGRAM, Launch

from harmony_plugin.prompts import PromptOptions, render_prompt

CASES = load()
LAUNCH = Launch(
    flags=(
        *("--api-server-count", "2", "--stream-interval", "20", "--enable-scale-out"),
        *("--anthropic-disabled-thinking-effort", "none"),
    ),
    # Settings must reach every process.
    environment=(
        ("HARMONY_COMMENTARY", "reasoning"),
        ("HARMONY_PROMPTS", "guide"),
        ("HARMONY_DEBUG", "true"),
        ("HARMONY_MAX_TOKENS_BEFORE_FINAL", "700"),
    ),
    speculation=NGRAM,
)


@pytest.fixture
def server(pool: Any) -> Any:
    return pool.get(LAUNCH)


@pytest.fixture(scope="module")
def told(pool: Any) -> dict[tuple[str, Api], Any]:
    server = pool.get(LAUNCH)
    keys = [(case, api) for case in CASES for api in APIS]

    async def ask() -> list[Any]:
        async with Clients(server.url) as clients:
            return await gather_bounded(
                [clients.ask(api, case.script, stream=True, tools=case.tools) for case, api in keys]
            )

    replies = asyncio.run(asyncio.wait_for(ask(), timeout=400))
    return {(case.id, api): reply for (case, api), reply in zip(keys, replies, strict=True)}


@pytest.mark.parametrize("api", APIS)
def test_deltas_of_several_tokens(api: Api, told: Any) -> None:
    wrong = {}
    for case in CASES:
        reply = told[case.id, api]
        expected = comparable(right(case.script, case.tools, commentary="reasoning").fields, api, True)
        if isinstance(reply, BaseException):
            wrong[case.id] = repr(reply)
        elif comparable(reply.fields, api, True) != expected:
            wrong[case.id] = f"got {reply.fields}, not {expected}"
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())


def test_deltas_carry_several_tokens(told: Any) -> None:
    """The flag is at work: far fewer chunks than tokens."""
    longest: Case = max(CASES, key=lambda case: len(case.script.seen))
    reply = told[longest.id, "chat"]
    assert len(reply.chunks) < len(longest.script.seen) / 2


def test_drafts_are_accepted(server: Any, told: Any) -> None:
    """Speculation is at work: tokens came that were not generated one by one."""
    metrics = httpx.get(f"{server.url}/metrics").text
    (accepted,) = re.findall(r"^vllm:spec_decode_num_accepted_tokens_total\{.*\} (.+)$", metrics, re.MULTILINE)
    assert float(accepted) > 100


@pytest.mark.parametrize("api", APIS)
def test_headers_and_budgets_beside_speculation(api: Api, server: Any, run: Any) -> None:
    """Drafts pass the grammar, too: what it forbids is not said, whether drafted or not."""
    thinks = "<|channel|>analysis<|message|>" + " word" * 40 + "<|end|><|start|>assistant"
    call = "<|channel|>commentary to=functions.nobody json<|message|>I look.<|call|>"
    script = Script(tuple(encode(thinks + thinks + call)))
    harmony = {"headers": "constrain", "max_reasoning_tokens": 30, "commentary": "content"}
    extra = {"chat_template_kwargs": {"harmony": harmony}}

    async def work() -> list[Any]:
        async with Clients(server.url) as clients:
            return await gather_bounded(
                [clients.ask(api, script, stream=stream, extra=extra) for stream in (False, True)]
            )

    for told in run(work()):
        # No second analysis, and of the call to nobody a preamble.
        assert told.fields == (" word" * 30, "I look.", [])


def test_no_answer_in_time(server: Any, run: Any) -> None:
    """Reasoning that goes on and on ends as if it were too long, on each API."""
    script = Script(tuple(encode("<|channel|>analysis<|message|>" + " word" * 1000)))

    async def work() -> list[Any]:
        async with Clients(server.url) as clients:
            return await gather_bounded(
                [clients.ask(api, script, stream=stream) for api in APIS for stream in (False, True)]
            )

    replies = run(work())
    assert [told.finish for told in replies] == [*["length"] * 2, *["incomplete"] * 2, *["max_tokens"] * 2]
    for told in replies:
        assert told.content is None
        # Some may be on the way while it is ended: deltas hold 20 tokens, and as many are guessed.
        assert 650 < len(told.reasoning) / len(" word") < 800


def test_debugging_shows_in_chat_and_in_the_log(server: Any, run: Any) -> None:
    script = Script(tuple(encode("<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>Hi.<|return|>")))

    async def work() -> list[Any]:
        async with Clients(server.url) as clients:
            return await gather_bounded([clients.ask("chat", script, stream=stream) for stream in (False, True)])

    whole, streamed = run(work())
    told = whole.raw.choices[0].message.harmony
    assert [issue["code"] for issue in told["issues"]] == ["missing_end", "missing_start"]
    assert told["channels"] == {"analysis": 1, "final": 1}
    deltas = [choice.delta for choice in streamed.chunks]
    assert [delta.harmony for delta in deltas if hasattr(delta, "harmony")] == [told]
    lines = [line for line in server.log_text().splitlines() if "reply {" in line and "missing_end" in line]
    assert any(whole.raw.id.removeprefix("chatcmpl-") in line for line in lines)
    assert not any("Hm." in line for line in lines)


def test_thinking_disabled_of_messages(server: Any, run: Any) -> None:
    """With the flag above, reasoning ends as it begins."""
    after = "<|start|>assistant<|channel|>final<|message|>Yes.<|return|>"
    script = Script(tuple(encode("<|channel|>analysis<|message|> more" + after)))  # the end marker stands for ` more`

    async def work() -> list[Any]:
        async with Clients(server.url) as clients:
            extra = {"thinking": {"type": "disabled"}}
            return await gather_bounded(
                [clients.ask("messages", script, stream=stream, extra=extra) for stream in (False, True)]
            )

    for told in run(work()):
        assert told.fields == (None, "Yes.", [])


def test_derender_endpoint(server: Any, run: Any) -> None:
    """`/v1/chat/completions/derender`: what chat gives, of ids that another server generated; whole and in chunks."""
    raw = (
        "<|channel|>analysis<|message|>Let me think.<|end|><|start|>assistant<|channel|>commentary<|message|>I look."
        "<|end|><|start|>assistant"
    )
    call = raw + '<|channel|>commentary to=functions.get_weather json<|message|>{"city": "Rome"}<|call|>'
    answer = raw + "<|channel|>final<|message|>It is sunny in Rome.<|return|>"
    asked = {
        "model": MODEL,
        "messages": QUESTION,
        "tools": [WEATHER],
        "temperature": 0,
        "max_completion_tokens": 100,
        "logprobs": True,
        "top_logprobs": 1,
        # The server's own setting is `reasoning`.
        "chat_template_kwargs": {"harmony": {"commentary": "content"}},
    }

    async def work() -> None:
        async with httpx.AsyncClient(timeout=240) as client:

            async def post(path: str, body: Any) -> Any:
                return (await client.post(server.url + path, json=body)).raise_for_status().json()

            async def derendered(script: str, **more: Any) -> tuple[Any, Any]:
                """The whole reply, and the message that the chunks of a stream add up to."""
                request = asked | more | {"vllm_xargs": {"script": encode(script)}}
                prompt = await post("/v1/chat/completions/render", request)
                made = await post("/inference/v1/generate", prompt)
                common = {"chat_request": request, "prompt_token_ids": prompt["token_ids"]}
                whole = await post("/v1/chat/completions/derender", {"generate_response": made, **common})
                (choice,) = made["choices"]
                ids, state = choice["token_ids"], None
                said: dict[str, str] = {"reasoning": "", "reasoning_content": "", "content": "", "arguments": ""}
                for place in range(0, len(ids), 6):
                    last = place + 6 >= len(ids)
                    chunk = {
                        "request_id": "r",
                        "choices": [
                            {
                                "index": 0,
                                "token_ids": ids[place : place + 6],
                                "finish_reason": choice["finish_reason"] if last else None,
                            }
                        ],
                    }
                    body = {"stream": True, "generate_chunk": chunk, "stream_state": state, **common}
                    step = await post("/v1/chat/completions/derender", body)
                    state, delta = step["stream_state"], step["chunk"]["choices"][0]["delta"]
                    for name in ("reasoning", "reasoning_content", "content"):
                        said[name] += delta.get(name) or ""
                    for each in delta.get("tool_calls") or ():
                        said["arguments"] += each["function"]["arguments"]
                return whole, said

            whole, said = await derendered(answer)
            (choice,) = whole["choices"]
            message = choice["message"]
            assert message["reasoning"] == message["reasoning_content"] == "Let me think."
            assert message["content"] == "I look.\nIt is sunny in Rome."
            assert choice["finish_reason"] == "stop"
            told = [entry["token"] for entry in choice["logprobs"]["content"]]
            assert "".join(told) == "I look.It is sunny in Rome."
            assert whole["usage"]["completion_tokens_details"]["reasoning_tokens"] == 4
            names = ("reasoning", "reasoning_content", "content")
            assert {name: said[name] for name in names} == {name: message[name] for name in names}

            whole, said = await derendered(call)
            (choice,) = whole["choices"]
            assert choice["finish_reason"] == "tool_calls"
            (made,) = choice["message"]["tool_calls"]
            assert made["function"] == {"name": "get_weather", "arguments": '{"city": "Rome"}'}
            assert said["arguments"] == '{"city": "Rome"}'

            body = {"chat_request": asked | {"chat_template_kwargs": {"harmony": {"x": 1}}}, "prompt_token_ids": [1]}
            generated = {"request_id": "r", "choices": [{"index": 0, "token_ids": encode(answer)}]}
            wrong = await client.post(
                server.url + "/v1/chat/completions/derender", json={"generate_response": generated, **body}
            )
            assert wrong.status_code == 400, wrong.text

    run(work())


def test_prompts_of_the_guide(server: Any, run: Any) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "An umbrella?"},
        {"role": "assistant", "content": "I look.", "reasoning_content": "The weather.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "Clear."},
    ]
    script = Script(tuple(encode(ANSWER)))

    async def work() -> Any:
        async with Clients(server.url) as clients:
            return await clients.ask("chat", script, stream=False, tools=[WEATHER], messages=messages)

    told = run(work())
    options = PromptOptions(current_date="2026-01-01")
    assert told.prompt_ids == render_prompt(messages, tools=[WEATHER], options=options)
    assert told.fields == ("It is clear.", "No umbrella.", [])


def test_the_example_of_ids_in_and_out(server: Any, tmp_path: Path) -> None:
    said = run_example(tmp_path, "vllm_token_route.py", [ANSWER], server.url, "An umbrella?").splitlines()
    assert said == ["It is clear.No umbrella.", "4 tokens of reasoning, 0 issues"]


def test_both_api_servers_answer(server: Any, run: Any) -> None:
    """Streams of both processes are exact, at the same time, and both did work."""
    processes = server.api_processes()
    assert len(processes) == 2
    before = [sum(process.cpu_times()[:2]) for process in processes]

    async def work() -> Any:
        async with Clients(server.url) as clients:
            return await run_round(clients, 7, commentary="reasoning")

    seen = run(work())
    assert not seen.wrong, "\n".join(seen.wrong[:5])
    assert all(sum(process.cpu_times()[:2]) > spent for process, spent in zip(processes, before, strict=True))
    assert not complaints(server.log_text())


def test_one_of_them_is_killed(server: Any, pool: Any) -> None:
    """vLLM's own choice is to end with it; it must end, soon, and say which process died. The server's last test."""
    victim = server.api_processes()[0]
    others = server.processes()
    victim.send_signal(signal.SIGKILL)

    def answers() -> bool:
        try:
            return httpx.get(f"{server.url}/health", timeout=60).status_code == 200
        except httpx.TransportError:
            return False

    def settled() -> bool:
        return server.process.poll() is not None or ("died" in server.log_text() and answers())

    try:
        until(settled, seconds=120)
        if server.process.poll() is not None:
            assert re.search(r"ApiServer_\d+.*died|process.*died|exit code", server.log_text()), server.log_text()[
                -3000:
            ]
            until(lambda: not any(is_alive(process) for process in others), seconds=60)
    finally:
        pool.close()


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
