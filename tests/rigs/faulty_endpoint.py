"""An endpoint that is wrong on purpose: it stands in front of a real server and spoils what goes in or comes out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, TypeAlias

import httpx

Json: TypeAlias = Any

PASSED_ON = ("content-type", "anthropic-version")


@dataclass
class Exchange:
    """A request and its reply, as they pass. A spoiler of replies may change the last three.

    Attributes:
        headers: the request's, names in lower case.
        request: the body; None: there is none, or it is no JSON.
    """

    path: str
    headers: dict[str, str]
    request: Json
    status: int
    kind: str
    text: str

    @property
    def streamed(self) -> bool:
        return self.kind.startswith("text/event-stream")

    def edit(self, change: Callable[[Json], Json]) -> None:
        """Change the reply's JSON, or that of each event; an event that becomes None is left out."""
        if not self.streamed:
            self.text = json.dumps(change(json.loads(self.text)))
            return
        frames = []
        for frame in self.text.split("\n\n"):
            head, found, data = frame.partition("data: ")
            if not found or data == "[DONE]":
                frames.append(frame)
            elif (changed := change(json.loads(data))) is not None:
                frames.append(f"{head}data: {json.dumps(changed)}")
        self.text = "\n\n".join(frames)


Asked = Callable[[Json], Json]
"""Spoils a request's body."""
Answered = Callable[[Exchange], None]
"""Spoils a reply."""


@contextmanager
def faulty(upstream: str, *, asked: Asked | None = None, answered: Answered | None = None) -> Iterator[str]:
    """The URL of an endpoint that passes everything on to `upstream`, spoiled."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass(None)

        def do_POST(self) -> None:
            self._pass(self.rfile.read(int(self.headers["content-length"])))

        def _pass(self, body: bytes | None) -> None:
            request = _json(body)
            if asked is not None and isinstance(request, dict):
                request = asked(request)
                body = json.dumps(request).encode()
            given = {name.lower(): value for name, value in self.headers.items()}
            headers = {name: value for name, value in given.items() if name in PASSED_ON}
            reply = httpx.request(self.command, upstream + self.path, content=body, headers=headers, timeout=60)
            seen = Exchange(self.path, given, request, reply.status_code, reply.headers["content-type"], reply.text)
            if answered is not None:
                answered(seen)
            sent = seen.text.encode()
            self.send_response(seen.status)
            self.send_header("content-type", seen.kind)
            self.send_header("content-length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _json(body: bytes | None) -> Json:
    try:
        return None if body is None else json.loads(body)
    except ValueError:
        return None
