"""Many requests at once, over HTTP, each reply scripted: none has anything of another's, and none waits for long."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from llamacpp_rig import AT_ONCE, CASES, LONG, Seen, chat_tools, expected, ids_of, scripted, sound

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

SENTENCE = "The quick brown fox jumps over the lazy dog. "
several = pytest.mark.skipif(AT_ONCE[1] == "1", reason="needs more than one reply at once")


def said(lines: Iterator[str]) -> Iterator[str]:
    """What a chat's stream says, piece by piece: no pings, and nothing that comes before the prompt was read."""
    for line in lines:
        if line.startswith("data: {"):
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                text = choice["delta"].get("reasoning_content") or choice["delta"].get("content")
                if text:
                    yield text


def ask(script: str, text: str = "hi", **more: Any) -> dict[str, Any]:
    user = {"role": "user", "content": text}
    return {"model": "tiny", "messages": [user], "metadata": {"script": script}, **more}


def test_all_cases_four_at_a_time(client: openai.OpenAI) -> None:
    def reply(place: int, case: dict[str, Any]) -> tuple[str, Seen, Seen]:
        fields: dict[str, Any] = ask(case["id"], max_completion_tokens=len(ids_of(case)), parallel_tool_calls=True)
        if case.get("tools"):
            fields["tools"] = chat_tools(case["tools"])
        if place % 2:
            seen = Seen.of_message(client.chat.completions.create(**fields).choices[0])
        else:
            seen = Seen.of_chunks(client.chat.completions.create(**fields, stream=True))
        return case["id"], seen, expected(case, past_calls=True)

    with ThreadPoolExecutor(4) as pool:
        wrong = [name for name, seen, want in pool.map(reply, range(len(CASES)), CASES) if seen != want]
    assert wrong == []


@pytest.mark.parametrize("stream", [False, True])
def test_choices_come_side_by_side_and_cost_their_prompt_once(client: openai.OpenAI, stream: bool) -> None:
    fields = ask("answer", n=3)
    if stream:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = list(client.chat.completions.create(**fields, **options))
        seen, usage = [Seen.of_chunks(chunks, index) for index in range(3)], chunks[-1].usage
    else:
        whole = client.chat.completions.create(**fields)
        seen, usage = [Seen.of_message(choice) for choice in whole.choices], whole.usage
    assert seen == [Seen("Simple arithmetic.", "2 + 2 = 4.", [], "stop")] * 3
    alone = client.chat.completions.create(**ask("answer")).usage
    assert usage is not None
    assert alone is not None
    assert usage.prompt_tokens == alone.prompt_tokens
    assert usage.completion_tokens == 3 * alone.completion_tokens


def test_those_who_leave_disturb_nobody(http: httpx.Client, client: openai.OpenAI) -> None:
    leave = threading.Barrier(3)

    def left(number: int) -> None:
        with http.stream("POST", "/v1/chat/completions", json=ask("endless", f"left {number}", stream=True)) as stream:
            pieces = list(itertools.islice(said(stream.iter_lines()), 3))
            leave.wait(60)
        assert len(pieces) == 3, "the reply was over before its client left"

    def stays(number: int) -> Seen:
        chunks = client.chat.completions.create(**ask("long", f"stays {number}"), stream=True)
        return Seen.of_chunks(chunks)

    with ThreadPoolExecutor(8) as pool:
        if AT_ONCE[1] == "1":
            leave = threading.Barrier(1)
        leaving = [pool.submit(left, number) for number in range(3)]
        staying = [pool.submit(stays, number) for number in range(5)]
        for one in leaving:
            one.result()
        assert [one.result() for one in staying] == [Seen("Long.", LONG, [], "stop")] * 5
    deadline = time.monotonic() + 10
    while any(metric(http, name) for name in ("requests_running", "requests_waiting")):
        assert time.monotonic() < deadline, "somebody still has a seat"
        time.sleep(0.05)


def metric(http: httpx.Client, name: str) -> float:
    found = re.search(rf"^harmony_{name} (\S+)$", http.get("/metrics").text, re.MULTILINE)
    assert found, name
    return float(found[1])


@several
def test_a_stream_goes_on_while_a_long_prompt_comes_in(http: httpx.Client) -> None:
    came: list[float] = []
    stop = threading.Event()

    def watch() -> None:
        with http.stream("POST", "/v1/chat/completions", json=ask("endless", "a story", stream=True)) as stream:
            for _ in said(stream.iter_lines()):
                came.append(time.monotonic())
                if stop.is_set():
                    return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        while len(came) < 10:
            assert watching.is_alive(), "the stream ended before the long prompt was sent"
            time.sleep(0.01)
        options = {"stream": True, "stream_options": {"include_usage": True}}
        fields = ask("answer", f"{time.monotonic()} {SENTENCE * 450}", **options)
        with http.stream("POST", "/v1/chat/completions", json=fields) as stream:
            taken = time.monotonic()  # the headers are here; the prompt is read after that
            lines = stream.iter_lines()
            first = next(said(lines))
            read = time.monotonic()
            usage = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")][-1]
    finally:
        stop.set()
        watching.join()
    assert "Simple arithmetic.".startswith(first), f"the long prompt's reply begins with {first!r}"
    prompt = usage["usage"]["prompt_tokens"]
    assert prompt > 4_000
    # Slices of 512: there are that many steps before the reply's first id, each with one of the stream's. Two thirds:
    # some may be over before the headers are here.
    meanwhile = sum(taken < at < read for at in came)
    assert meanwhile >= prompt // 768, f"only {meanwhile} pieces came while {prompt} ids of a prompt were read"


def test_the_stock_routes_answer_beside_chats(http: httpx.Client) -> None:
    def chat(number: int) -> str:
        reply = http.post("/v1/chat/completions", json=ask("answer", f"beside {number}")).json()
        return str(reply["choices"][0]["message"]["content"])

    def complete(number: int) -> int:
        body = {"model": "tiny", "prompt": f"Once upon a time {number}", "max_tokens": 5, "temperature": 0}
        reply = http.post("/v1/completions", json=body)
        return int(reply.json()["usage"]["completion_tokens"])

    with ThreadPoolExecutor(6) as pool:
        chats = [pool.submit(chat, number) for number in range(6)]
        completions = [pool.submit(complete, number) for number in range(3)]
        assert {one.result() for one in chats} == {"2 + 2 = 4."}
        assert all(one.result() > 0 for one in completions)


def test_two_conversations_in_turn_stay_warm(client: openai.OpenAI) -> None:
    chats: dict[str, list[Any]] = {}
    for name in ("first", "second"):
        chats[name] = [{"role": "user", "content": f"{time.monotonic()} {name}: {SENTENCE * 20}"}]
    before: dict[str, int] = {}
    for turn, name in itertools.product(range(3), chats):
        reply = client.chat.completions.create(**ask("answer") | {"messages": chats[name]})
        assert reply.usage is not None
        cached = reply.usage.prompt_tokens_details.cached_tokens
        assert cached >= before.get(name, 0) - 1 if turn else cached < reply.usage.prompt_tokens
        before[name] = reply.usage.prompt_tokens
        chats[name] += [reply.choices[0].message.model_dump(), {"role": "user", "content": f"And {turn}?"}]


@pytest.fixture
def two_models(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    config = tmp_path / "config.yaml"
    threads = "n_threads: 1, n_threads_batch: 1"
    disk = f"cache_disk_mb: 64, cache_folder: '{tmp_path / 'prompts'}'"
    models = "".join(
        f"- {{model: '{build_model()}', model_alias: {alias}, n_ctx: 1024, {threads}, {disk}}}\n"
        for alias in ("one", "two")
    )
    config.write_text(f"models_max: {request.param}\nmodels:\n{models}")
    with sound(scripted(tmp_path, "--config_file", str(config))) as server:
        yield server


@pytest.mark.parametrize(("two_models", "loads"), [(1, 3), (2, 1)], indirect=["two_models"])
def test_models_stay_in_memory_as_far_as_they_may(two_models: ServerProcess, loads: int, tmp_path: Path) -> None:
    with httpx.Client(base_url=two_models.url, timeout=120) as http:
        for model in ("one", "two", "one", "two"):
            reply = http.post("/v1/chat/completions", json=ask("answer", SENTENCE * 10) | {"model": model})
            assert reply.json()["choices"][0]["message"]["content"] == "2 + 2 = 4."
            assert reply.headers["x-harmony-model"] == model
        usage = reply.json()["usage"]
        assert two_models.output().count("INFO loading") == loads
        # Where a model was unloaded, what it knew came back from disk with it.
        assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1
        assert bool(list((tmp_path / "prompts").glob("*.prompt"))) is (loads > 1)
        beside = answers_while_the_other_streams(http)
    if loads == 1:
        assert beside, "both models are in memory, and one waited for the other's reply"
        assert two_models.output().count("INFO loading") == 1, "a model was loaded again though there is room for both"
    else:
        assert not beside, "there is room for one model, and two replied at the same time"


def answers_while_the_other_streams(http: httpx.Client) -> bool:
    """Whether model two's reply was complete before a stream of model one's, which was under way, had ended."""
    came: list[float] = []
    begun = threading.Event()

    def watch() -> None:
        fields = ask("endless", stream=True) | {"model": "one"}  # as far as the context goes
        try:
            with http.stream("POST", "/v1/chat/completions", json=fields) as stream:
                for _ in said(stream.iter_lines()):
                    came.append(time.monotonic())
                    begun.set()
        finally:
            begun.set()

    watching = threading.Thread(target=watch)
    watching.start()
    begun.wait(60)
    reply = http.post("/v1/chat/completions", json=ask("answer") | {"model": "two"})
    end = time.monotonic()
    watching.join()
    assert reply.json()["choices"][0]["message"]["content"] == "2 + 2 = 4."
    assert came, "model one streamed nothing"
    return end < came[-1]
