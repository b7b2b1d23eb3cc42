"""Clients that behave badly, each real: a process that is killed, sockets that read slowly, or close one side.

Knows HTTP and OpenAI's chat route; knows nothing of which server it talks to, or of what is right.
"""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

_STREAMING = """
import json, sys, openai
url, fields = sys.argv[1], json.loads(sys.argv[2])
client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
for number, chunk in enumerate(client.chat.completions.create(**fields, stream=True)):
    print(number, flush=True)
"""


def killed_while_reading(url: str, fields: Mapping[str, Any], after: int = 5) -> None:
    """A client process that streams a reply, ended by SIGKILL after some chunks."""
    command = [sys.executable, "-c", _STREAMING, url, json.dumps(fields)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        for _ in range(after):
            assert client.stdout.readline(), "the client ended before it was killed"
        client.send_signal(signal.SIGKILL)
        assert client.wait() == -signal.SIGKILL


def request_bytes(url: str, fields: Mapping[str, Any]) -> bytes:
    body = json.dumps({**fields, **fields.get("extra_body", {})}).encode()
    host = urlsplit(url).netloc
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    return (
        f"{head}Authorization: Bearer none\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
    )


def connect(url: str, buffer: int | None = None) -> socket.socket:
    """``buffer``: bytes that the kernel may hold for us, so that the server feels that we do not read."""
    parts = urlsplit(url)
    raw = socket.socket()
    if buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    raw.settimeout(120)
    raw.connect((parts.hostname, parts.port))
    return raw


def read_all(raw: socket.socket, size: int = 65536, pause: float = 0.0) -> bytes:
    """All that the server sends until it closes, in reads of at most ``size`` bytes."""
    read = b""
    while data := raw.recv(size):
        read += data
        if pause:
            time.sleep(pause)
    return read


def content_of(answer: bytes) -> str:
    """What the chunks of a streamed answer add up to; fails unless it is whole."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head[:200]
    if b"chunked" in head.lower():
        body = _unchunked(body)
    events = re.findall(r"^data: (.*)$", body.decode(), re.MULTILINE)
    assert events[-1].strip() == "[DONE]", "the stream is whole"
    chunks = [json.loads(event) for event in events[:-1]]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def _unchunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        parts.append(body[:length])
        body = body[length + 2 :]
    return b"".join(parts)


def closed_by_server(raw: socket.socket, seconds: float = 60) -> bool:
    """Whether the server has closed the connection, having sent what it may."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if select.select([raw], [], [], 0.2)[0]:
            try:
                if not raw.recv(65536):
                    return True
            except ConnectionError:
                return True
    return False


def until(what: Callable[[], bool], seconds: float = 90) -> None:
    """Wait for something that is sure to come."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
