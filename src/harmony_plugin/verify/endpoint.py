"""The endpoint: the clients that ask it, how often, and what is made of their errors.

Nothing but the given URL is asked: no redirects, no proxies of the environment, no retries. Knows no check.
"""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import anthropic
import httpx
import openai

from .api import Api, Frame
from .asks import Ask, Json, Reply
from .chat import Chat
from .messages import Messages
from .responses import Responses
from .results import Fails, SetupError, Unclear, shortened

__all__ = ["APIS", "NO_KEY", "Endpoint"]

APIS = ("chat", "responses", "messages")
NO_KEY = "none"
"""For servers that need none; the clients insist on one."""

#: Some servers answer it all the same.
SHORT = dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens"), 1)
ABSENT = (404, 405, 501)
T = TypeVar("T")
# What the clients are built on: one or the other, by their release.
LIBRARIES = [importlib.import_module(name) for name in ("httpx", "httpx2") if importlib.util.find_spec(name)]
TIMEOUTS: tuple[type[Exception], ...] = (
    openai.APITimeoutError,
    anthropic.APITimeoutError,
    *(library.TimeoutException for library in LIBRARIES),
)
BROKEN: tuple[type[Exception], ...] = (
    openai.APIConnectionError,
    anthropic.APIConnectionError,
    *(library.TransportError for library in LIBRARIES),
)
UNREADABLE = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)


class Endpoint:
    """A server at `url`, with or without `/v1`.

    Args:
        key: sent as `Authorization` and as `x-api-key`.
        headers: sent with each request.
        timeout: seconds that a reply, or what comes next of a stream, may take.
        max_requests: asked for more, it raises `Unclear`.
        max_tokens: of a reply.

    Attributes:
        model: the model that is asked; the caller sets it.
        max_tokens: of a reply.
        requests: how many were sent.
        replies: all that came, by API.

    Raises:
        SetupError: for a URL that is none, and headers that cannot be sent.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str,
        headers: Mapping[str, str],
        timeout: float,
        max_requests: int,
        max_tokens: int,
    ) -> None:
        self.url = _root(url)
        self.model = ""
        self.requests = 0
        self.replies: dict[str, list[Reply]] = {name: [] for name in APIS}
        self.max_tokens = max_tokens
        self._key, self._timeout, self._max_requests = key, timeout, max_requests
        self._lock = threading.Lock()
        # A connection for each request: one that was kept may be closed by the server just when it is used again.
        sent = {"Authorization": f"Bearer {key}", "x-api-key": key, "Connection": "close", **headers}
        try:
            self._http = httpx.Client(base_url=self.url, headers=sent, timeout=timeout, trust_env=False)
        except ValueError as error:
            raise SetupError(f"the key or a header cannot be sent: {error}") from None
        common: dict[str, Any] = {"api_key": key, "timeout": timeout, "max_retries": 0, "default_headers": sent}
        alone: dict[str, Any] = {"trust_env": False, "follow_redirects": False}
        first = openai.OpenAI(base_url=f"{self.url}/v1", http_client=openai.DefaultHttpxClient(**alone), **common)
        first.organization = first.project = None  # the environment's are for OpenAI
        second = anthropic.Anthropic(base_url=self.url, http_client=anthropic.DefaultHttpxClient(**alone), **common)
        self._clients = (self._http, first, second)
        self.apis: dict[str, Api] = {api.name: api for api in (Chat(first), Responses(first), Messages(second))}

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is KeyboardInterrupt:
            return  # a thread may still wait for a reply; it ends with the process
        for client in self._clients:
            client.close()

    def find_model(self) -> str:
        """The first model of `/v1/models`.

        Raises:
            SetupError: the server cannot be reached, wants a key, or names no model.
        """
        reply = self._setup(lambda: self._http.get("/v1/models"))
        try:
            return str(reply.json()["data"][0]["id"])
        except UNREADABLE:
            said = f"{reply.status_code} {shortened(reply.text, 80)}".strip()
            raise SetupError(f"{self.url}/v1/models names no model ({said}): name one with --model") from None

    def serves(self, api: Api) -> bool:
        """Whether the server has an API: it has something to say to a request that asks nothing.

        Raises:
            SetupError: the server cannot be reached, wants a key, or does not have the model.
        """
        reply = self._setup(lambda: self._http.post(api.path, json={"model": self.model, **SHORT}))
        if reply.status_code in ABSENT and self.model in reply.text:
            raise SetupError(f"{self.url} does not serve the model {self.model!r}: name another with --model")
        return reply.status_code not in ABSENT

    def whole(self, api: Api, ask: Ask) -> Reply:
        """The reply to `ask`, not streamed.

        Raises:
            Fails: for an error, no answer, or a reply that cannot be read.
            Unclear: the server is busy, or enough was asked.
        """
        with self._asking():
            data = api.send(api.body(ask, self.model, self.max_tokens))
        if not isinstance(data, dict):
            raise Fails(f"the body is not a JSON object: {data!r}")
        reply = Reply(ask, streamed=False, problems=api.whole_problems(data))
        return self._read(api, reply, lambda: api.read(reply, data))

    def streamed(self, api: Api, ask: Ask) -> Reply:
        """The reply to `ask`, streamed. Raises as `whole` does."""
        with self._asking():
            events = list(self._in_time(api.stream(api.body(ask, self.model, self.max_tokens))))
        problems = (f"{event.get('type', 'chunk')} {p}" for event in events for p in api.event_problems(event))
        reply = Reply(ask, streamed=True, problems=list(dict.fromkeys(problems)))
        if not events:
            raise Fails("streamed: the client gets no events")
        return self._read(api, reply, lambda: api.read_events(reply, events))

    def frames(self, api: Api, ask: Ask) -> tuple[str, list[Frame]]:
        """The content type of a stream, and its events as they are sent. Raises as `whole` does."""
        body = {**api.body(ask, self.model, self.max_tokens), "stream": True}
        with self._asking(), self._http.stream("POST", api.path, json=body) as stream:
            if stream.status_code != httpx.codes.OK:
                raise Fails(f"{stream.status_code}: {stream.read().decode('utf-8', 'replace')}")
            return stream.headers.get("content-type", ""), list(_frames(self._in_time(stream.iter_lines())))

    def post(self, api: Api, body: Json | bytes) -> tuple[int, Any]:
        """The status that a body gets which may be anything, and the reply's JSON; None: it is none. Raises as `whole`
        does, but for no status."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        with self._asking():
            reply = self._http.post(api.path, headers={"content-type": "application/json"}, content=content)
        try:
            return reply.status_code, reply.json()
        except ValueError:
            return reply.status_code, None

    def redacted(self, text: object) -> str:
        """`text` without the key, in one line."""
        line = shortened(text)
        return line if self._key == NO_KEY else line.replace(self._key, "…")

    def _in_time(self, items: Iterable[T]) -> Iterator[T]:
        """`items`, which may take the timeout together, not each."""
        deadline = time.monotonic() + self._timeout
        for item in items:
            yield item
            if time.monotonic() > deadline:
                raise Fails(f"the stream has not ended after {self._timeout:g} s")

    def _read(self, api: Api, reply: Reply, read: Callable[[], None]) -> Reply:
        try:
            read()
        except UNREADABLE as error:
            why = reply.problems[0] if reply.problems else f"{type(error).__name__}: {error}"
            reply.problems.append(why)
            self.replies[api.name].append(reply)
            raise Fails(f"{reply.how}: not of the API's shape: {why}") from error
        self.replies[api.name].append(reply)
        return reply

    def _setup(self, ask: Callable[[], httpx.Response]) -> httpx.Response:
        try:
            self._count()
            reply = ask()
        except Unclear as error:
            raise SetupError(f"nothing can be checked: {error}") from None
        except httpx.TimeoutException:
            told = f"no answer from {self.url} in {self._timeout:g} s: is the model loading? see --timeout"
            raise SetupError(told) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SetupError(f"no server answers at {self.url} ({error}): start it, or correct the URL") from None
        if reply.status_code in (401, 403):
            raise SetupError(f"{self.url} wants another key ({reply.status_code}): --api-key, or OPENAI_API_KEY")
        if reply.is_redirect:
            raise SetupError(f"{self.url} leads to {reply.headers.get('location')!r}: give that URL, if you trust it")
        return reply

    def _count(self) -> None:
        with self._lock:
            if self.requests >= self._max_requests:
                raise Unclear(f"not asked: --max-requests {self._max_requests} is reached")
            self.requests += 1

    @contextmanager
    def _asking(self) -> Iterator[None]:
        self._count()
        try:
            yield
        except TIMEOUTS:
            raise Fails(f"no answer in {self._timeout:g} s") from None
        except (openai.APIStatusError, anthropic.APIStatusError) as error:
            if error.status_code == httpx.codes.TOO_MANY_REQUESTS:
                raise Unclear("the server is busy (429)") from None
            raise Fails(f"{error.status_code}: {_message(error.body) or error.message}") from None
        except BROKEN as error:
            raise Fails(f"the connection broke: {error.__cause__ or error}") from None
        except (openai.APIError, anthropic.APIError) as error:
            raise Fails(f"an error in the stream: {_message(error.body) or error.message}") from None
        except UNREADABLE as error:
            raise Fails(f"the client cannot read it: {type(error).__name__}: {error}") from None


def _root(url: str) -> str:
    """`url` without `/v1`."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise SetupError(f"{url!r} is no URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise SetupError(f"{url!r} is no URL of a server: give one such as http://localhost:8000")
    if parsed.userinfo:
        raise SetupError("a name and password in the URL would stand in reports: use --api-key or --header")
    return str(parsed.copy_with(query=None, fragment=None)).rstrip("/").removesuffix("/v1")


def _message(body: object) -> str | None:
    """What an error's body says."""
    if isinstance(body, dict):
        inner = body.get("error")
        said = inner.get("message") if isinstance(inner, dict) else body.get("message") or body.get("detail") or inner
        return None if said is None else str(said)
    return None


def _frames(lines: Iterable[str]) -> Iterator[Frame]:
    """Server-sent events, line by line."""
    name, data = None, []
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif not line and data:
            yield name, "\n".join(data)
            name, data = None, []
