"""A running server: which it is, what it serves, and whether a short reply comes out right. Asks that address alone."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from ..core import Dialect
from .findings import Finding, State

__all__ = ["examine"]

HERE = "server"
SECONDS = 10
#: A model on a CPU takes its time.
REPLY_SECONDS = 120


class _Asked(Exception):
    """An answer that is none. ``status``: HTTP's, None where there was no answer."""

    def __init__(self, status: int | None, told: str) -> None:
        super().__init__(told)
        self.status = status


class _Stay(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: the key is for the address that was given."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _Server:
    def __init__(self, url: str, key: str | None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        # Proxies of the environment are for elsewhere.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay)

    def open(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers)
        try:
            return self._opener.open(request, timeout=SECONDS if body is None else REPLY_SECONDS)
        except urllib.error.HTTPError as error:
            raise _Asked(error.code, error.read(2000).decode("utf-8", "replace")) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _Asked(None, str(getattr(error, "reason", error))) from None

    def get(self, path: str, body: dict[str, Any] | None = None) -> Any:
        with self.open(path, body) as answer:
            try:
                return json.loads(answer.read())
            except ValueError:
                return None


def examine(url: str, key: str | None) -> Iterator[Finding]:
    """Look at the server."""
    if "://" not in url:
        url = f"http://{url}"
    try:
        urllib.parse.urlsplit(url).port  # noqa: B018  # raises where it is none
    except ValueError as error:
        yield Finding(HERE, url, State.PROBLEM, f"is no URL: {error}", "give one such as http://localhost:8000")
        return
    try:
        yield from _examine(_Server(url, key))
    except _SHAPES as error:
        told = f"its answers are of no shape that is known: {type(error).__name__}: {error}"
        yield Finding(HERE, url, State.PROBLEM, told, "look at it with harmony-plugin verify")
    except (OSError, http.client.HTTPException) as error:
        yield Finding(HERE, url, State.PROBLEM, f"broke off in the middle of an answer: {error}", "look at its log")


#: What odd answers raise where they are read.
_SHAPES = (AttributeError, IndexError, KeyError, TypeError, ValueError)


def _examine(server: _Server) -> Iterator[Finding]:
    try:
        models = server.get("/v1/models")
    except _Asked as error:
        yield _refused(server.url, error)
        return
    yield Finding(HERE, "which", State.OK, _which(server))
    names = [model.get("id") for model in (models or {}).get("data") or () if isinstance(model, dict)]
    if not names:
        yield Finding(
            HERE, "models", State.PROBLEM, "it lists none at /v1/models", "is this an OpenAI-compatible server?"
        )
        return
    yield Finding(HERE, "models", State.OK, ", ".join(map(str, names[:5])))
    body = {
        "model": names[0],
        "messages": [{"role": "user", "content": "What is 2 + 2?"}],
        "max_completion_tokens": 512,
    }
    try:
        yield from _whole(server, body)
        yield from _streamed(server, body)
    except _Asked as error:
        yield Finding(HERE, "chat", State.PROBLEM, f"HTTP {error.status}: {error}"[:300])


def _refused(url: str, error: _Asked) -> Finding:
    if error.status in (401, 403):
        return Finding(
            HERE, url, State.PROBLEM, f"wants a key (HTTP {error.status})", "give the right one by --api-key"
        )
    if error.status is not None and 300 <= error.status < 400:
        return Finding(
            HERE, url, State.PROBLEM, f"leads elsewhere (HTTP {error.status})", "give that address, if you trust it"
        )
    if error.status is None:
        return Finding(
            HERE, url, State.PROBLEM, f"cannot be reached: {error}", "is it started, and are host and port right?"
        )
    return Finding(
        HERE, url, State.PROBLEM, f"/v1/models answers HTTP {error.status}", "is this its root, without a path?"
    )


def _which(server: _Server) -> str:
    for path, name in (("/version", "vLLM"), ("/", "harmony-plugin"), ("/props", "llama-server")):
        try:
            told = server.get(path)
        except _Asked:
            continue
        if not isinstance(told, dict):
            continue
        if name == "vLLM" and "version" in told:
            return f"vLLM {told['version']}"
        if told.get("name") == name:
            return str(told.get("versions") or name)
        if name == "llama-server" and "build_info" in told:
            return f"llama-server {told['build_info']}"
    return "not one that is known here"


def _whole(server: _Server, body: dict[str, Any]) -> Iterator[Finding]:
    began = time.monotonic()
    reply = server.get("/v1/chat/completions", body)
    took = time.monotonic() - began
    choice = ((reply or {}).get("choices") or [{}])[0]
    message = choice.get("message") or {}
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    yield _split("whole reply", message.get("content"), reasoning, choice.get("finish_reason"), f"{took:.1f} s")


def _streamed(server: _Server, body: dict[str, Any]) -> Iterator[Finding]:
    began, first = time.monotonic(), None
    content = reasoning = ""
    finish = None
    with server.open("/v1/chat/completions", {**body, "stream": True}) as answer:
        for line in answer:
            data = line.decode("utf-8", "replace").strip().removeprefix("data:").strip()
            if not data.startswith("{"):
                continue
            for choice in json.loads(data).get("choices") or ():
                delta = choice.get("delta") or {}
                told = delta.get("reasoning_content") or delta.get("reasoning") or ""
                if (told or delta.get("content")) and first is None:
                    first = time.monotonic()
                reasoning += told
                content += delta.get("content") or ""
                finish = choice.get("finish_reason") or finish
    speed = "no text came" if first is None else f"first text after {first - began:.2f} s"
    yield _split("streamed reply", content, reasoning, finish, speed)


def _split(name: str, content: str | None, reasoning: str | None, finish: str | None, took: str) -> Finding:
    markers = [text for text in Dialect().markers.values() if text in (content or "") or text in (reasoning or "")]
    if markers:
        do = "its replies are not split: see docs/vllm.md or docs/llamacpp.md for the flags"
        return Finding(HERE, name, State.PROBLEM, f"has markers in its text: {', '.join(markers)}", do)
    if (content or "").lstrip().startswith(("analysis", "assistantfinal")):
        return Finding(HERE, name, State.PROBLEM, f"begins with a header's words: {(content or '')[:40]!r}")
    if not content and finish != "length":
        told = f"has no content (finish reason {finish}, reasoning of {len(reasoning or '')} characters); {took}"
        return Finding(HERE, name, State.PROBLEM, told, "look at it with harmony-plugin verify")
    if not reasoning:
        told = f"content, and no reasoning ({took}, finish reason {finish})"
        return Finding(
            HERE, name, State.WARNING, told, "a gpt-oss model reasons: is it one, and is its reasoning split off?"
        )
    return Finding(HERE, name, State.OK, f"reasoning and content apart ({took}, finish reason {finish})")
