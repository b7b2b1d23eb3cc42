"""Many clients at once, clients that go away, a full line, keys, several models, TLS, and being told to stop."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from llamacpp_rig import CASES, ENDLESS, Seen, chat_tools, expected, ids_of, scripted, sound
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

USER = [{"role": "user", "content": "hi"}]


def ask(script: str, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": USER, "metadata": {"script": script}, **more}


def metric(http: httpx.Client, name: str, **labels: str) -> float:
    pattern = "".join(f'(?=.*{key}="{re.escape(value)}")' for key, value in labels.items())
    text = http.get("/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if re.match(rf"{name}(\{{{pattern}|\s)", line))


def until(what: Callable[[], bool]) -> None:
    """Wait for something that is sure to come; a test that waits in vain fails by its own means, a minute later."""
    for _ in range(1200):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def idle(http: httpx.Client) -> bool:
    return metric(http, "harmony_requests_running") == 0 and metric(http, "harmony_requests_waiting") == 0


# Clients that go away


def test_a_stream_that_nobody_reads_any_more_stops_and_the_next_request_goes_on(
    client: openai.OpenAI, http: httpx.Client
) -> None:
    before = metric(http, "harmony_chunks_total")
    stream = client.chat.completions.create(**ask("endless"), stream=True)
    for _, _chunk in zip(range(5), stream, strict=False):
        pass
    stream.close()
    assert client.chat.completions.create(**ask("answer")).choices[0].message.content == "2 + 2 = 4."
    assert metric(http, "harmony_chunks_total") - before < ENDLESS / 2
    until(lambda: metric(http, "harmony_requests_cancelled_total") > 0)


def test_a_whole_reply_that_nobody_waits_for_is_never_finished(client: openai.OpenAI, http: httpx.Client) -> None:
    before = metric(http, "harmony_chunks_total")
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).chat.completions.create(**ask("endless"))
    until(lambda: idle(http))
    assert metric(http, "harmony_chunks_total") == before, "only a reply that was finished counts"
    assert client.chat.completions.create(**ask("answer")).choices[0].message.content == "2 + 2 = 4."


@pytest.mark.parametrize("api", ["responses", "messages"])
def test_the_other_apis_stop_as_well(
    client: openai.OpenAI, claude: anthropic.Anthropic, http: httpx.Client, api: str
) -> None:
    before = metric(http, "harmony_chunks_total")
    if api == "responses":
        stream: Any = client.responses.create(model="tiny", input="hi", metadata={"script": "endless"}, stream=True)
    else:
        stream = claude.messages.create(
            model="tiny", max_tokens=8000, messages=USER, metadata={"user_id": "endless"}, stream=True
        )
    for _, _event in zip(range(8), stream, strict=False):
        pass
    stream.close()
    until(lambda: idle(http))
    assert metric(http, "harmony_chunks_total") - before < ENDLESS / 2


def test_whoever_leaves_the_line_is_forgotten(client: openai.OpenAI, http: httpx.Client) -> None:
    first = client.chat.completions.create(**ask("endless"), stream=True)
    next(iter(first))
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).chat.completions.create(**ask("endless"))
    until(lambda: metric(http, "harmony_requests_waiting") == 0)
    first.close()
    assert client.chat.completions.create(**ask("answer")).choices[0].message.content == "2 + 2 = 4."


def test_other_routes_answer_while_a_reply_is_generated(client: openai.OpenAI, http: httpx.Client) -> None:
    stream = client.chat.completions.create(**ask("endless"), stream=True)
    next(iter(stream))
    assert metric(http, "harmony_requests_running") == 1
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/readyz").status_code == 200
    assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["tiny"]
    counted = http.post("/v1/messages/count_tokens", json={"model": "tiny", "messages": USER})
    assert counted.json()["input_tokens"] > 0
    stream.close()


# Many at once


def resident(server: ServerProcess) -> int:
    """The server's memory, in MB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) >> 10  # type: ignore[index]


async def crowd(url: str, requests: int, at_once: int, seed: int) -> tuple[int, int]:
    """Send requests, a third of them cancelled mid-stream; every reply that was waited for must be exact."""
    chance = random.Random(seed)
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300)
    gate = asyncio.Semaphore(at_once)
    finished = cancelled = 0

    async def one(number: int) -> None:
        nonlocal finished, cancelled
        case = CASES[chance.randrange(len(CASES))]
        tools = {"tools": chat_tools(case["tools"])} if case.get("tools") else {}
        fields = ask(case["id"], parallel_tool_calls=True, max_completion_tokens=len(ids_of(case)), **tools)
        async with gate:
            if number % 3 == 0:
                stream = await client.chat.completions.create(**ask("endless"), stream=True)
                read = chance.randrange(1, 4)
                async for _ in stream:
                    read -= 1
                    if not read:
                        break
                await stream.close()
                cancelled += 1
                return
            if number % 3 == 1:
                seen = Seen()
                async for chunk in await client.chat.completions.create(**fields, stream=True):
                    for choice in chunk.choices:
                        seen.add(choice)
            else:
                seen = Seen.of_message((await client.chat.completions.create(**fields)).choices[0])
            assert seen == expected(case, past_calls=True), case["id"]
            finished += 1

    await asyncio.gather(*(one(number) for number in range(requests)))
    await client.close()
    return finished, cancelled


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_two_hundred_requests_sixteen_at_a_time_a_third_cancelled(server: ServerProcess, http: httpx.Client) -> None:
    asyncio.run(crowd(server.url, 60, 16, seed=0))  # buffers and caches grow to their size
    before = resident(server)
    assert asyncio.run(crowd(server.url, 200, 16, seed=1)) == (133, 67)
    until(lambda: idle(http))
    assert resident(server) - before < 32


# Keys, several models, a full line


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of a YAML config: three models, their names taken strictly, a state cache, a key, and room for two in
    line."""
    folder = tmp_path_factory.mktemp("strict")
    config = folder / "config.yaml"
    common = "n_ctx: 8192, n_threads: 1, n_threads_batch: 1, headers: free, temperature: 0"
    config.write_text(
        "api_key: secret-key\nmax_queue: 2\nstrict_models: true\nmodels:\n"
        + "".join(
            f"- {{model: '{build_model()}', model_alias: {alias}, {common}{more}}}\n"
            for alias, more in (("one", ", cache: true, cache_type: ram, n_parallel: 1"), ("two", ""))
        )
        + f"- {{model: '{build_model()}', model_alias: plain, n_ctx: 1024, chat_format: chatml}}\n"
    )
    with sound(scripted(folder, "--config_file", str(config))) as running:
        yield running


@pytest.fixture(scope="module")
def keyed(strict: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=strict.url, timeout=120, headers={"authorization": "Bearer secret-key"}) as client:
        yield client


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer secret-key-and-more"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": "Basic secret-key"}, 401),
        ({"x-api-key": "schlüssel".encode().decode("latin-1")}, 401),
        ({"authorization": "Bearer secret-key"}, 200),
        ({"x-api-key": "secret-key"}, 200),
    ],
)
def test_the_key(strict: ServerProcess, headers: dict[str, str], status: int) -> None:
    with httpx.Client(base_url=strict.url, headers={k: v.encode("latin-1") for k, v in headers.items()}) as http:
        assert http.get("/v1/models").status_code == status
        assert http.get("/metrics").status_code == status
        assert http.post("/extras/tokenize", json={"input": "x"}).status_code == status
        assert http.get("/health").status_code == 200
        assert http.get("/readyz").status_code == 200
        if status == 401:
            assert http.get("/v1/models").json()["error"]["code"] == "invalid_api_key"
            told = http.post("/v1/messages", json={}).json()
            assert told == {"type": "error", "error": {"type": "authentication_error", "message": "Invalid API key"}}


def test_both_clients_send_the_key(strict: ServerProcess) -> None:
    good = openai.OpenAI(base_url=f"{strict.url}/v1", api_key="secret-key")
    assert [model.id for model in good.models.list()] == ["one", "two", "plain"]
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{strict.url}/v1", api_key="no").models.list()
    with pytest.raises(anthropic.AuthenticationError):
        anthropic.Anthropic(base_url=strict.url, api_key="no").messages.count_tokens(model="one", messages=USER)
    claude = anthropic.Anthropic(base_url=strict.url, api_key="secret-key")
    assert claude.messages.count_tokens(model="one", messages=USER).input_tokens > 0


def test_the_handshake_of_a_websocket_needs_the_key(strict: ServerProcess) -> None:
    address = f"{strict.url.replace('http', 'ws')}/v1/responses"
    with pytest.raises(InvalidStatus) as refused, connect(address):
        pass
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body)["error"]["code"] == "invalid_api_key"
    with connect(address, additional_headers={"Authorization": "Bearer secret-key"}) as socket:
        socket.send(json.dumps({"type": "response.create", "model": "none", "input": "x"}))
        assert json.loads(socket.recv(timeout=60))["error"]["code"] == "model_not_found"


def test_models_take_turns(strict: ServerProcess) -> None:
    client = openai.OpenAI(base_url=f"{strict.url}/v1", api_key="secret-key")
    for model, answers in (("one", "one"), ("two", "two"), ("one", "one")):
        reply = client.chat.completions.create(**ask("answer") | {"model": model})
        assert reply.model == answers
        assert reply.choices[0].message.content == "2 + 2 = 4."


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions"])
def test_a_name_that_no_model_has_is_404_where_that_is_set(keyed: httpx.Client, path: str) -> None:
    asked: dict[str, Any] = {"messages": USER, "max_tokens": 2, "input": "hi"}
    if path == "/v1/completions":
        asked["prompt"] = "hi"
    for stream in (False, True):
        refused = keyed.post(path, json={**asked, "model": "gpt-4", "stream": stream})
        assert refused.status_code == 404, refused.text
        told = refused.json()
        assert told["error"]["type"] == "not_found_error"
        assert told["error"]["message"].startswith("The model 'gpt-4' does not exist. Served here: one, two, plain")
        assert (told.get("type") == "error") == (path == "/v1/messages")
        if path != "/v1/messages":
            assert (told["error"]["code"], told["error"]["param"]) == ("model_not_found", "model")
    counted = keyed.post("/v1/messages/count_tokens", json={"model": "gpt-4", "messages": USER})
    assert counted.status_code == 404
    by_file = keyed.post("/v1/chat/completions", json={"model": build_model().name, "messages": USER, "max_tokens": 2})
    assert (by_file.status_code, by_file.headers["x-harmony-model"]) == (200, "one")
    assert keyed.post("/v1/chat/completions", json={"messages": USER, "max_tokens": 2}).status_code == 200


def test_two_conversations_stay_warm_with_a_state_cache(keyed: httpx.Client) -> None:
    def turns(name: str, count: int) -> list[dict[str, str]]:
        messages = [{"role": "user", "content": f"{name} " + "and so on, " * 200}]
        for number in range(count):
            messages += [{"role": "assistant", "content": "2 + 2 = 4."}, {"role": "user", "content": f"And {number}?"}]
        return messages

    before: dict[str, int] = {}
    for count in range(3):
        for name in ("first", "second"):
            fields = ask("answer") | {"model": "one", "messages": turns(name, count)}
            usage = keyed.post("/v1/chat/completions", json=fields).json()["usage"]
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            assert cached >= before[name] if count else cached < 200
            before[name] = usage["prompt_tokens"]


def test_without_the_key_the_root_names_no_model_and_nothing_else_is_open(
    strict: ServerProcess, keyed: httpx.Client
) -> None:
    with httpx.Client(base_url=strict.url) as stranger:
        told = stranger.get("/").json()
        assert told["api_key_needed"] is True
        assert "models" not in told
        assert ">one<" not in stranger.get("/", headers={"accept": "text/html"}).text
        assert stranger.head("/").status_code == 200
        assert stranger.get("/openapi.json").status_code == 401
        assert stranger.get("/docs").status_code == 404
    assert keyed.get("/").json()["models"] == ["one", "two", "plain"]
    assert keyed.get("/openapi.json").status_code == 200


def test_a_model_with_another_chat_format_is_served_by_its_own_handler(strict: ServerProcess) -> None:
    client = openai.OpenAI(base_url=f"{strict.url}/v1", api_key="secret-key")
    fields: dict[str, Any] = {"model": "plain", "messages": USER, "max_completion_tokens": 4}
    whole = client.chat.completions.create(**fields)
    assert (whole.model, whole.usage.completion_tokens) == ("plain", 4)
    assert Seen.of_chunks(client.chat.completions.create(**fields, stream=True)).finish == "length"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**fields | {"messages": [{"role": "user"}] * 2000})
    claude = anthropic.Anthropic(base_url=strict.url, api_key="secret-key")
    reply = claude.messages.create(model="plain", max_tokens=4, messages=USER)
    assert (reply.stop_reason, reply.content[0].type) == ("max_tokens", "text")
    with claude.messages.stream(model="plain", max_tokens=4, messages=USER) as stream:
        assert stream.get_final_message().stop_reason == "max_tokens"


def test_a_full_line_is_429_with_retry_after(strict: ServerProcess, keyed: httpx.Client) -> None:
    client = openai.OpenAI(base_url=f"{strict.url}/v1", api_key="secret-key", max_retries=0)
    running = client.chat.completions.create(**ask("endless") | {"model": "one"}, stream=True)
    next(iter(running))

    async def fill() -> None:
        async with httpx.AsyncClient(base_url=strict.url, headers=keyed.headers, timeout=120) as patient:
            body = ask("answer") | {"model": "one"}
            waiting = [asyncio.create_task(patient.post("/v1/chat/completions", json=body)) for _ in range(2)]
            while metric(keyed, "harmony_requests_waiting") < 2:
                await asyncio.sleep(0.05)
            for path, one_more in (
                ("/v1/chat/completions", body),
                ("/v1/responses", {"model": "one", "input": "hi"}),
                ("/v1/messages", {"model": "one", "max_tokens": 5, "messages": USER}),
                ("/v1/completions", {"model": "one", "prompt": "hi"}),
                ("/v1/chat/completions", {**body, "stream": True}),
            ):
                refused = await patient.post(path, json=one_more)
                assert refused.status_code == 429
                assert int(refused.headers["retry-after"]) >= 1
                assert refused.json()["error"]["type"] == "rate_limit_error"
            with pytest.raises(openai.RateLimitError):
                await asyncio.to_thread(client.chat.completions.create, **body)
            # The other model has a line of its own.
            other = asyncio.create_task(patient.post("/v1/chat/completions", json={**body, "model": "two"}))
            while metric(keyed, "harmony_requests_waiting") < 3:
                await asyncio.sleep(0.05)
            await asyncio.to_thread(running.close)
            for reply in await asyncio.gather(*waiting, other):
                assert reply.status_code == 200
                assert reply.json()["choices"][0]["message"]["content"] == "2 + 2 = 4."

    asyncio.run(fill())


def test_cors(http: httpx.Client) -> None:
    asked = {"origin": "http://app.example", "access-control-request-method": "POST"}
    allowed = http.options("/v1/chat/completions", headers=asked)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] in ("*", "http://app.example")


def test_metrics_count(client: openai.OpenAI, http: httpx.Client) -> None:
    labels = {"model": "tiny", "kind": "completion"}
    before = metric(http, "harmony_tokens_total", **labels)
    whole = client.chat.completions.create(**ask("answer"))
    list(client.chat.completions.create(**ask("answer"), stream=True))
    gained = metric(http, "harmony_tokens_total", **labels) - before
    assert gained == 2 * whole.usage.completion_tokens
    assert metric(http, "harmony_requests_total", endpoint="/v1/chat/completions", status="200") >= 2


# Beginning and end


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_tls(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, *files]
    subprocess.run(make, check=True, capture_output=True)
    tls = ("--ssl_keyfile", str(key), "--ssl_certfile", str(certificate))
    with scripted(tmp_path, "--model", str(build_model()), "--n_ctx", "512", *tls) as running:
        assert running.url.startswith("https://")
        assert httpx.get(f"{running.url}/health", verify=ssl.create_default_context(cafile=certificate)).json() == {
            "status": "ok"
        }


def test_settings_of_reasoning(tmp_path: Path, http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """`reasoning_content` is left out, as in the vLLM plugin; what is sealed outlives the server, given a key."""
    monkeypatch.setenv("HARMONY_REASONING_NAMES", "reasoning")
    monkeypatch.setenv("REASONING_KEY", "a secret of the operator's")
    function = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
    fields = {"tools": [function], "store": False, "metadata": {"script": "loop"}}
    fields["include"] = ["reasoning.encrypted_content"]
    with scripted(tmp_path) as running:
        whole = httpx.post(f"{running.url}/v1/chat/completions", json=ask("answer"), timeout=120).json()
        message = whole["choices"][0]["message"]
        assert message == {"role": "assistant", "content": "2 + 2 = 4.", "reasoning": "Simple arithmetic."}
        streamed = httpx.post(f"{running.url}/v1/chat/completions", json=ask("answer", stream=True), timeout=120).text
        assert '"reasoning":"Simple' in streamed
        assert "reasoning_content" not in streamed
        anthropic = {"model": "tiny", "max_tokens": 50, "metadata": {"user_id": "answer"}, "messages": USER}
        blocks = httpx.post(f"{running.url}/v1/messages", json=anthropic, timeout=120).json()["content"]
        assert [block["type"] for block in blocks] == ["thinking", "text"]
        output = httpx.post(f"{running.url}/v1/responses", json={"input": "hi", **fields}, timeout=120).json()["output"]
    thought = {k: v for k, v in output[0].items() if k != "content"}
    result = {"type": "function_call_output", "call_id": output[1]["call_id"], "output": "21"}
    fields["input"] = [{"role": "user", "content": "hi"}, thought, output[1], result]
    with scripted(tmp_path) as running:
        assert httpx.post(f"{running.url}/v1/responses", json=fields, timeout=120).status_code == 200
    assert http.post("/v1/responses", json=fields).json()["error"]["code"] == "invalid_encrypted_content"


def test_told_to_stop_it_stops_in_the_middle_of_a_reply(tmp_path: Path) -> None:
    with scripted(tmp_path) as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
        stream = client.chat.completions.create(**ask("endless"), stream=True)
        next(iter(stream))
        running.process.terminate()
        running.process.wait(60)
        assert "Traceback" not in running.output()
        with pytest.raises((openai.APIConnectionError, httpx.HTTPError)):
            client.chat.completions.create(**ask("answer"))
