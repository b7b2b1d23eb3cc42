"""WebSocket for ``/v1/responses``: a client's messages as requests to the application, their events as messages.

There is no second path: each ``response.create`` runs through the application as the POST that it means, streamed, with
its own request id, line in the log and metrics. Knows messages and ASGI; nothing of what a request says.
Source: OpenAI's guide to WebSocket mode, and what Codex sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, TypeAlias

from fastapi import WebSocket
from starlette.responses import JSONResponse
from starlette.types import Message, Scope
from starlette.websockets import WebSocketDisconnect

from ...api.errors import Unauthorized, error_body
from ...core import RequestError

__all__ = ["LOCAL", "serve"]

Json: TypeAlias = "dict[str, Any]"

LOCAL = "harmony_plugin.connection"
"""Where a request's scope has the last reply of its connection, by its id, which a later one can go on from though
`store` is off."""

MOST_WAITING = 8
"""Requests that may wait behind the one under way: replies come one after the other."""

HANDSHAKE = (b"connection", b"upgrade", b"content-length", b"content-type", b"transfer-encoding", b"accept-encoding")


async def serve(socket: WebSocket, *, admitted: bool) -> None:
    """Answer a connection's requests until it is closed.

    Args:
        admitted: whether it brought a right key.
    """
    if not admitted:
        told = Unauthorized()
        headers = {"WWW-Authenticate": "Bearer"}
        await socket.send_denial_response(JSONResponse(error_body(told, anthropic=False), told.status, headers))
        return
    await socket.accept()
    waiting: asyncio.Queue[str | None] = asyncio.Queue()
    gone = asyncio.Event()
    answering = asyncio.create_task(_answer(socket, waiting, gone))
    try:
        while (message := await _next(socket)) is not None:
            if waiting.qsize() < MOST_WAITING:
                waiting.put_nowait(message)
            else:
                await _complain(socket, RequestError("Too many requests wait here.", None, "too_many_requests", 429))
    finally:
        gone.set()  # ends the reply under way as a client does that closes its connection
        while not waiting.empty():
            waiting.get_nowait()
        waiting.put_nowait(None)
        await answering


async def _next(socket: WebSocket) -> str | None:
    """The client's next message; None: it has gone."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        return None
    text: str | None = message.get("text")
    if text is not None:
        return text
    written: bytes = message["bytes"]
    return written.decode("utf-8", "replace")


async def _answer(socket: WebSocket, waiting: asyncio.Queue[str | None], gone: asyncio.Event) -> None:
    local: Json = {}
    while (message := await waiting.get()) is not None:
        try:
            body = _request(message)
        except RequestError as error:
            await _complain(socket, error)
            continue
        if body is not None:
            await _Exchange(socket, body, gone, local).run()


def _request(message: str) -> bytes | None:
    """The body of the request that a message means; None: it asks for nothing.

    Raises:
        RequestError: it is no message of these.
    """
    try:
        event = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The message is not JSON: {error}", None, "invalid_json") from error
    if not isinstance(event, dict):
        raise RequestError("The message is not a JSON object.", None, "invalid_type")
    kind = event.pop("type", None)
    if kind == "response.processed":
        return None
    if kind != "response.create":
        raise RequestError(f"type is {kind!r}, which is not served here: send response.create", "type", "invalid_value")
    return json.dumps({**event, "stream": True, "background": None}).encode()


async def _complain(socket: WebSocket, error: RequestError) -> None:
    await _tell(socket, {**error_body(error, anthropic=False), "status": error.status})


async def _tell(socket: WebSocket, error: Json) -> None:
    await _send(socket, json.dumps({"type": "error", **error}, ensure_ascii=False))


async def _send(socket: WebSocket, text: str) -> None:
    """Send a message; one that has gone misses it, as it does on HTTP."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await socket.send_text(text)


class _Exchange:
    """One request through the application, and its events on the way to the client."""

    def __init__(self, socket: WebSocket, body: bytes, gone: asyncio.Event, local: Json) -> None:
        self._socket = socket
        self._body: bytes | None = body
        self._gone = gone
        self._local = local
        self._status = 200
        self._received = bytearray()

    async def run(self) -> None:
        """Have it answered."""
        with contextlib.suppress(Exception):  # the application has logged it, and answered 500
            await self._socket.app(self._scope(), self._receive, self._send)
        if self._status != 200:
            await _tell(self._socket, {**json.loads(bytes(self._received)), "status": self._status})

    def _scope(self) -> Scope:
        given = self._socket.scope
        headers = [
            (name, value)
            for name, value in given["headers"]
            if name not in HANDSHAKE and not name.startswith(b"sec-websocket-")
        ]
        kept = ("asgi", "path", "raw_path", "root_path", "query_string", "client", "server", "state")
        scope: Json = {name: given[name] for name in kept if name in given}
        scope |= {"type": "http", "method": "POST", "http_version": "1.1", LOCAL: self._local}
        scope["scheme"] = "https" if given.get("scheme") == "wss" else "http"
        scope["headers"] = [*headers, (b"content-type", b"application/json")]
        return scope

    async def _receive(self) -> Message:
        body, self._body = self._body, None
        if body is None:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            return
        self._received += message.get("body", b"")
        if self._status != 200:
            return
        *events, rest = bytes(self._received).split(b"\n\n")
        self._received = bytearray(rest)
        for event in events:
            for line in event.splitlines():
                if line.startswith(b"data: "):
                    await _send(self._socket, line.removeprefix(b"data: ").decode())
