"""The server among faults of the world around it: it goes on, or says in one line why not.

What a server says that cannot start (a GGUF cut short, another vocabulary, a wrong key in the config file) is in
test_llamacpp_startup.py.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from faulty_clients import closed_by_server, connect, content_of, killed_while_reading, read_all, request_bytes, until
from llamacpp_rig import LONG, write_scripts
from ports import free_port

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess


def ask(script: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Go on."}]
    return {
        "model": "tiny",
        "messages": messages,
        "metadata": {"script": script},
        "max_completion_tokens": 8000,
        **more,
    }


def assert_goes_on(url: str) -> None:
    """The next request is answered, whole and right."""
    answer = httpx.post(f"{url}/v1/chat/completions", json=ask("answer"), timeout=120)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "2 + 2 = 4."


def test_a_client_that_is_killed(server: ServerProcess) -> None:
    for _ in range(3):
        killed_while_reading(server.url, ask("long"))
    assert_goes_on(server.url)


def test_a_slow_reader_gets_every_byte(server: ServerProcess) -> None:
    """Buffers fill up on both sides; the reply waits for its reader and loses nothing."""
    with connect(server.url, buffer=4096) as raw:
        raw.sendall(request_bytes(server.url, ask("long", stream=True)))
        answer = read_all(raw, size=2048, pause=0.002)
    assert content_of(answer) == LONG
    assert_goes_on(server.url)


def test_a_reader_that_stops_does_not_stop_the_others(server: ServerProcess) -> None:
    """It reads nothing, and stays; the server does not wait for it with the next reply."""
    with connect(server.url, buffer=4096) as raw:
        raw.sendall(request_bytes(server.url, ask("long", stream=True)))
        assert raw.recv(100)
        assert httpx.get(f"{server.url}/health", timeout=60).status_code == 200
        assert_goes_on(server.url)


@pytest.mark.parametrize("stream", [False, True])
def test_a_connection_half_closed(server: ServerProcess, stream: bool) -> None:
    """The client says that it will send no more: it is answered, or the connection is closed; never left hanging."""
    with connect(server.url) as raw:
        raw.sendall(request_bytes(server.url, ask("answer", stream=stream)))
        raw.shutdown(socket.SHUT_WR)
        assert closed_by_server(raw)
    assert_goes_on(server.url)


def test_a_request_that_never_ends(server: ServerProcess) -> None:
    """Half of a request, then nothing more from the client."""
    whole = request_bytes(server.url, ask("answer"))
    with connect(server.url) as raw:
        raw.sendall(whole[: len(whole) - 20])
        raw.shutdown(socket.SHUT_WR)
        assert closed_by_server(raw)
    with connect(server.url):
        assert_goes_on(server.url)


def test_bytes_that_are_no_request(server: ServerProcess) -> None:
    with connect(server.url) as raw:
        raw.sendall(b"\x16\x03\x01<|start|>assistant\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    assert_goes_on(server.url)


def test_logs_on_a_full_disk(tmp_path: Path) -> None:
    """Nothing can be logged; requests are answered all the same, and the server stops when told."""
    port = free_port()
    scripts = write_scripts(tmp_path / "scripts.jsonl")
    command = [sys.executable, "-m", "harmony_plugin.demo.server", "--script", str(scripts), "--model"]
    command += [str(build_model()), "--n_ctx", "2048", "--host", "127.0.0.1", "--port", str(port)]
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(command, stdout=full, stderr=full, stdin=subprocess.DEVNULL, env=dict(os.environ))
    url = f"http://127.0.0.1:{port}"
    try:

        def up() -> bool:
            assert process.poll() is None, f"the server ended with status {process.returncode}"
            try:
                return httpx.get(f"{url}/health", timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        until(up, seconds=300)
        for _ in range(3):
            assert_goes_on(url)
        assert httpx.post(f"{url}/v1/chat/completions", json={"messages": 3}, timeout=60).status_code == 400
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
