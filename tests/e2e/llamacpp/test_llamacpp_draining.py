"""A server that is told to stop: what it has begun it finishes, and what comes meanwhile is sent elsewhere."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from faulty_clients import until
from llamacpp_rig import LONG, ONE_THREAD, chat_text, scripted
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
APIS = (CHAT, RESPONSES, MESSAGES)
QUESTION = [{"role": "user", "content": "Go on."}]


def body(path: str, script: str, **more: Any) -> dict[str, Any]:
    limit = {CHAT: "max_completion_tokens", RESPONSES: "max_output_tokens", MESSAGES: "max_tokens"}[path]
    return {
        "model": "tiny",
        "input" if path == RESPONSES else "messages": QUESTION,
        "metadata": {"user_id" if path == MESSAGES else "script": script},
        limit: 7000,
        **more,
    }


@contextmanager
def serving(folder: Path, at_once: str, *flags: str) -> Iterator[ServerProcess]:
    model = ("--model", str(build_model()), "--model_alias", "tiny", "--n_ctx", "24000", "--n_parallel", at_once)
    with scripted(folder, *model, *ONE_THREAD, *flags) as server:
        yield server
        assert "Traceback" not in server.output(), server.output()


def stopping(http: httpx.Client) -> bool:
    return http.get("/readyz").status_code == 503


def last_event(url: str, path: str) -> dict[str, Any]:
    """The last event of a stream that does not end by itself."""
    with httpx.stream("POST", url + path, json=body(path, "endless", stream=True), timeout=120) as stream:
        *_, last = (line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: "))
    return dict(json.loads(last))


def test_what_runs_is_finished_and_nothing_new_is_begun(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "1") as server,
        httpx.Client(base_url=server.url, timeout=120) as http,
        ThreadPoolExecutor() as threads,
        http.stream("POST", CHAT, json=body(CHAT, "long", stream=True)) as stream,
    ):
        lines = stream.iter_lines()
        read = [next(lines) for _ in range(5)]
        # It has the one place there is; this one came before the signal, too, and waits for it.
        waiting = threads.submit(httpx.post, server.url + MESSAGES, json=body(MESSAGES, "long"), timeout=120)
        until(lambda: "harmony_requests_waiting 1.0" in http.get("/metrics").text, seconds=60)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: stopping(http), seconds=60)
        assert http.get("/readyz").json() == {"status": "stopping"}
        assert http.get("/health").status_code == 200  # it is alive, and not to be killed
        for path in APIS:
            refused = http.post(path, json=body(path, "answer"))
            assert refused.status_code == 503
            assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
            told = refused.json()["error"]
            assert told["message"] == "The server is stopping and takes no new requests: ask again."
            assert told["type"] == ("overloaded_error" if path == MESSAGES else "server_error")
        refused = http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_stopping")
        assert chat_text([*read, *lines]) == LONG
        blocks = waiting.result().json()["content"]
        assert [block["text"] for block in blocks if block["type"] == "text"] == [LONG]
        assert server.process.wait(60) == 0
        assert "stopping: 2 under way, 25 s for them" in server.output()


def until_it_restarts(socket: ClientConnection) -> Iterator[dict[str, Any]]:
    """The events of a WebSocket until the server closes it."""
    with suppress(ConnectionClosed):
        while True:
            yield json.loads(socket.recv(120))
    assert socket.protocol.close_code == 1012  # the service restarts


def test_connections_that_stay_open(tmp_path: Path) -> None:
    """A WebSocket's reply is finished, and what comes next on it is not begun; idle connections hold up nothing."""
    with (
        serving(tmp_path, "1") as server,
        httpx.Client(base_url=server.url, timeout=120) as http,
        connect(server.url.replace("http", "ws") + RESPONSES) as idle,
        connect(server.url.replace("http", "ws") + RESPONSES) as socket,
    ):
        assert http.get("/readyz").status_code == 200
        ask = json.dumps({"type": "response.create", **body(RESPONSES, "long")})
        socket.send(ask)
        assert json.loads(socket.recv(120))["type"] == "response.created"
        server.process.send_signal(signal.SIGTERM)
        until(lambda: stopping(http), seconds=60)
        socket.send(ask)
        events = list(until_it_restarts(socket))
        (completed,) = [event for event in events if event["type"] == "response.completed"]
        assert completed["response"]["output"][-1]["content"][0]["text"] == LONG
        # Nothing, or that it is refused.
        assert {event.get("status") for event in events[events.index(completed) + 1 :]} <= {503}
        assert list(until_it_restarts(idle)) == []
        assert server.process.wait(60) == 0


def test_time_is_up(tmp_path: Path) -> None:
    """Replies that take longer than they may end with an error in their API's shape; so does one that still waits, and
    a second signal leaves no time at all."""
    with (
        serving(tmp_path, "3", "--drain_seconds", "600") as server,
        httpx.Client(base_url=server.url, timeout=120) as http,
        ThreadPoolExecutor() as threads,
    ):
        streams = [threads.submit(last_event, server.url, path) for path in APIS]
        until(lambda: "harmony_requests_running 3.0" in http.get("/metrics").text, seconds=60)
        waiting = threads.submit(httpx.post, server.url + CHAT, json=body(CHAT, "endless"), timeout=120)
        until(lambda: "harmony_requests_waiting 1.0" in http.get("/metrics").text, seconds=60)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: stopping(http), seconds=60)
        server.process.send_signal(signal.SIGINT)
        for path, stream in zip(APIS, streams, strict=True):
            last = stream.result()
            told = last["response"]["error"] if path == RESPONSES else last["error"]
            assert told["message"] == "The server is stopping and did not finish this reply: ask again."
        assert waiting.result().status_code == 503
        assert waiting.result().headers["retry-after"] == "1"
        assert server.process.wait(60) == 0
