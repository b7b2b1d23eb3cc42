"""What stands between an agent and a server: keeps what passes, has the scripted model say the reply that is due, and
refuses every other address.

An agent is given the relay as its server and as its proxy, so no connection that it makes goes by unseen. Knows HTTP,
and where the three APIs keep a conversation; knows no agent and no Harmony.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, TypeAlias
from urllib.parse import urlsplit

__all__ = ["Exchange", "Relay", "history", "results"]

Json: TypeAlias = "dict[str, Any]"

GENERATING = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
# Each connection's own. Replies are asked for as they are, so that they can be read here.
HOPS = ("connection", "keep-alive", "transfer-encoding", "host", "content-length", "accept-encoding", "server", "date")
TIMEOUT = 300


@dataclass
class Exchange:
    """A request and its reply.

    Attributes:
        path: without the query.
        body: as the agent sent it; None: none, or no JSON.
        conversation: the script that answered it; None: it was one on the side (a title, a summary).
        said: what the model was made to say, markers spelled out.
        status: 0 until the reply begins.
        left: whether the agent went away before the reply's end.
    """

    method: str
    path: str
    body: Json | None
    conversation: str | None = None
    said: str = ""
    status: int = 0
    reply: bytes = b""
    left: bool = False

    @property
    def generates(self) -> bool:
        return self.method == "POST" and self.path in GENERATING

    def events(self) -> Iterator[Json]:
        """The events of a streamed reply; a whole one is one event."""
        whole = _object(self.reply)
        if whole is not None:
            yield whole
            return
        for line in self.reply.decode("utf-8", "replace").splitlines():
            if line.startswith("data: {"):
                yield json.loads(line.removeprefix("data: "))

    def usage(self) -> Json:
        """What the reply says of its tokens, in the words of its API."""
        usage: Json = {}
        for event in self.events():
            for holder in (event, event.get("response"), event.get("message")):
                if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
                    usage |= {name: value for name, value in holder["usage"].items() if value}
        return usage


def history(path: str, body: Mapping[str, Any]) -> list[Any]:
    """The conversation in a request: messages, or items."""
    found = body.get("input" if path == "/v1/responses" else "messages")
    return found if isinstance(found, list) else [{"role": "user", "content": found}]


def results(item: Any) -> bool:
    """Whether a message or item hands in a tool's result."""
    if not isinstance(item, Mapping):
        return False
    if item.get("role") == "tool" or str(item.get("type")).endswith("_output"):
        return True
    content = item.get("content")
    blocks = content if isinstance(content, list) else ()
    return any(isinstance(block, Mapping) and block.get("type") == "tool_result" for block in blocks)


@dataclass
class Relay:
    """An HTTP server on a free port of this machine, for the time of a `with` block.

    Args:
        upstream: the server's URL.
        script: called with an exchange and its body, which it may change on the way to the server; notes in the
            exchange who answers.

    Attributes:
        exchanges: what passed, in the order of the requests.
        outside: addresses that were asked for besides the server's, all refused.
    """

    upstream: str
    script: Callable[[Exchange, Json], None]
    exchanges: list[Exchange] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def __enter__(self) -> Relay:
        relay = self

        class Handler(_Handler):
            owner = relay

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: Relay

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what passed is in `exchanges`."""

    def do_CONNECT(self) -> None:
        self._refuse(self.path)

    def do_GET(self) -> None:
        there = urlsplit(self.path).netloc
        if there:
            self._refuse(there)
        else:
            self._relay()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET

    def _refuse(self, address: str) -> None:
        self.owner.outside.append(address)
        self.send_error(403, "only this machine")

    def _relay(self) -> None:
        given = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        exchange = Exchange(self.command, urlsplit(self.path).path, _object(given))
        self.owner.exchanges.append(exchange)
        body = _object(given)
        if exchange.generates and body is not None:
            self.owner.script(exchange, body)
            given = json.dumps(body).encode()
        server = urlsplit(self.owner.upstream)
        connection = http.client.HTTPConnection(server.hostname or "", server.port, timeout=TIMEOUT)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOPS}
        try:
            connection.request(self.command, self.path, given or None, headers)
            self._pass_on(connection.getresponse(), exchange)
        except (BrokenPipeError, ConnectionResetError):
            exchange.left = True
        except ConnectionRefusedError:
            exchange.status = 502
            self.send_error(502, "the server is gone")
        finally:
            connection.close()
            self.close_connection = True

    def _pass_on(self, reply: http.client.HTTPResponse, exchange: Exchange) -> None:
        exchange.status = reply.status
        self.send_response(reply.status)
        for name, value in reply.getheaders():
            if name.lower() not in HOPS:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        while piece := reply.read1(65536):
            exchange.reply += piece
            self.wfile.write(piece)


def _object(given: bytes) -> Json | None:
    try:
        body = json.loads(given)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None
