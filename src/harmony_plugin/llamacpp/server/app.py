"""The routes: HTTP in, one turn at the engine, HTTP out.

Each API has its translation in a module of its own (`chat`, `responses`, `messages`); here are only reading bodies,
the API key, streams of server-sent events, and noticing that a client has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote
from uuid import uuid4

from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from pydantic_core import from_json
from sse_starlette.sse import EventSourceResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ... import __version__
from ...api import compaction, debug, messages, responses
from ...api.errors import ClientGone, Stopping, Unauthorized
from ...api.hosted import HostedTools
from ...api.reply import Usage, Writer
from ...api.tools import Toolbox
from ...core import Explanation, RequestError
from ..handler import Choices, HarmonyChatHandler, ProcessorFactory
from ..scheduler import Scheduler
from . import about, chat, errors, stock, tokens, ui, websocket
from .host import Host, Turn
from .mcp import McpTools
from .metrics import Metrics
from .record import Record
from .settings import ModelSettings, ServerSettings
from .store import Seal, Store, Stored
from .store_file import FileStore
from .tools import ToolLoop

__all__ = ["create_app", "create_host"]

Json: TypeAlias = "dict[str, Any]"
T = TypeVar("T")

MOST_EXPLAINED = 32
"""Replies whose ids are kept for the page's inspector."""
ISSUES_HEADER = "x-harmony-issues"
"""On whole replies, where debugging is on: the codes of what was wrong with the output, or `none`."""
MODEL_HEADER = "x-harmony-model"
"""On replies: the model that answered, percent-encoded where its name is not plain ASCII."""


def create_host(
    models: Sequence[ModelSettings],
    max_queue: int,
    logits_processors: ProcessorFactory | None = None,
    models_max: int = 1,
) -> Host:
    """A host whose models with chat format `harmony` are served by the chat handler with the settings' defaults.

    Args:
        logits_processors: see `HarmonyChatHandler`.
        models_max: most models in memory at a time.
    """

    def prepare(llama: Any, settings: Any) -> Scheduler | None:
        if settings.chat_format != "harmony":
            return None
        handler = HarmonyChatHandler.of(
            settings.harmony(),
            model=settings.model_alias or settings.model,
            defaults=settings.defaults(),
            logits_processors=logits_processors,
        )
        llama.chat_handler = handler
        return handler.prepare(llama, settings.serving())

    return Host(models, max_queue, prepare, models_max)


def create_app(host: Host, settings: ServerSettings, mcp_tools: McpTools | None = None) -> FastAPI:
    """The server's ASGI application.

    Args:
        host: its models; `load()` it before the first request.
        mcp_tools: the tools that it runs itself.
    """
    server = _Server(host, settings, mcp_tools)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        if mcp_tools is not None:
            await mcp_tools.close()

    app = FastAPI(
        title="harmony-plugin",
        version=__version__,
        root_path=settings.root_path,
        lifespan=lifespan,
        description="llama-cpp-python's server for gpt-oss",
        # FastAPI's pages for these load scripts from elsewhere, and show everything without the key.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    errors.install(app)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_credentials=True,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "request-id", MODEL_HEADER, ISSUES_HEADER, "retry-after"],
    )
    app.add_middleware(_Observed, metrics=server.metrics, host=host)
    app.include_router(server.router(app.openapi))
    if settings.ui:
        app.include_router(ui.router())

    stock.include_routes(app, settings, authenticate=server.authenticate, turn=host.alone, admit=server.admit)
    return app


def _store(settings: ServerSettings) -> Store | FileStore:
    """Where replies are kept. Raises StoreError."""
    if settings.responses_file is None:
        return Store(settings.stored_responses)
    return FileStore(settings.responses_file, settings.stored_responses, settings.responses_mb << 20)


async def _nothing() -> None:
    """Nobody waits for the end of a reply."""


Ended: TypeAlias = Callable[[], Awaitable[None]]


class _Server:
    def __init__(self, host: Host, settings: ServerSettings, mcp_tools: McpTools | None) -> None:
        self.host = host
        self._mcp_tools = mcp_tools
        self.settings = settings
        self.store = _store(settings)
        self.seal = Seal(settings.reasoning_key)
        self.metrics = Metrics(lambda: len(host.line), host.line.seated, host.schedulers)
        #: Replies under way and their models, by their ids.
        self._under_way: dict[str, tuple[Choices | ToolLoop, str]] = {}
        #: What explains the last replies, by their ids.
        self._explained: OrderedDict[str, Callable[[], Explanation]] = OrderedDict()
        host.on_item = self.metrics.chunks.inc
        self._keys = [key.encode("utf-8", "surrogateescape") for key in settings.api_keys]

    def router(self, openapi: Callable[[], Json]) -> APIRouter:
        router = APIRouter()
        guarded = APIRouter(dependencies=[Depends(self.authenticate)])
        # HEAD, too: clients and load balancers look with it whether the server is there.
        for path, open_to_all in (("/", self.root), ("/health", self.health), ("/readyz", self.readyz)):
            router.add_api_route(path, open_to_all, methods=["GET", "HEAD"], tags=["Operations"], response_model=None)
        for path in ("/docs", "/redoc"):
            router.add_api_route(path, self.no_docs, include_in_schema=False, response_model=None)
        guarded.add_api_route("/openapi.json", openapi, include_in_schema=False, response_model=None)
        if self.settings.harmony().metrics:
            guarded.add_api_route("/metrics", self.show_metrics, tags=["Operations"], response_model=None)
        for method, path, endpoint, tag in (
            ("GET", "/v1/models", self.list_models, "OpenAI V1"),
            ("GET", "/v1/models/{model:path}", self.show_model, "OpenAI V1"),
            ("POST", "/v1/chat/completions", self.create_chat, "OpenAI V1"),
            ("POST", "/v1/chat/completions/control", self.control, "llama.cpp"),
            ("GET", "/v1/chat/completions/{identifier}/explain", self.explain, "Operations"),
            ("POST", "/v1/responses", self.create_response, "OpenAI V1"),
            ("GET", "/v1/responses/{identifier}", self.show_response, "OpenAI V1"),
            ("DELETE", "/v1/responses/{identifier}", self.delete_response, "OpenAI V1"),
            ("GET", "/v1/responses/{identifier}/input_items", self.list_input_items, "OpenAI V1"),
            ("POST", "/v1/responses/{identifier}/cancel", self.cancel_response, "OpenAI V1"),
            ("POST", "/v1/responses/input_tokens", self.count_input_tokens, "OpenAI V1"),
            ("POST", "/v1/responses/compact", self.compact, "OpenAI V1"),
            ("POST", "/v1/messages", self.create_message, "Anthropic"),
            ("POST", "/v1/messages/count_tokens", self.count_tokens, "Anthropic"),
            ("POST", "/tokenize", self.tokenize, "llama.cpp"),
            ("POST", "/detokenize", self.detokenize, "llama.cpp"),
            ("POST", "/apply-template", self.apply_template, "llama.cpp"),
            ("GET", "/props", self.show_props, "llama.cpp"),
            ("GET", "/slots", self.show_slots, "llama.cpp"),
        ):
            guarded.add_api_route(path, endpoint, methods=[method], tags=[tag], response_model=None)
        router.include_router(guarded)
        router.add_api_websocket_route("/v1/responses", self.converse)
        return router

    async def authenticate(self, request: Request) -> None:
        """The key as OpenAI's clients send it, or as Anthropic's do, compared with all there are in constant time.

        Raises:
            Unauthorized: it is another one, or none.
        """
        if not self._admitted(request):
            raise Unauthorized

    async def converse(self, socket: WebSocket) -> None:
        """`/v1/responses`, many replies on one connection."""
        await websocket.serve(socket, admitted=self._admitted(socket))

    def _admitted(self, request: HTTPConnection) -> bool:
        if not self._keys:
            return True
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        given = bearer if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        said = given.strip().encode("utf-8", "surrogateescape")
        return sum(hmac.compare_digest(said, key) for key in self._keys) > 0  # any() would leave out the rest

    async def admit(self, request: Request) -> None:
        """What requests to the stock routes pass: the model that they name, and the line."""
        self._check_open()
        given: Any = None
        with contextlib.suppress(ValueError):  # the route refuses what is no JSON
            given = await request.json()
        named = given.get("model") if isinstance(given, dict) else None
        alias = self._choose(request, named if isinstance(named, str) else None)
        tokens.check(given, self.host.vocabulary_size)
        self.host.line.check(alias)

    def _check_open(self) -> None:
        """Whether new requests are taken.

        Raises:
            Stopping: no; those under way go on.
        """
        if self.host.draining:
            raise Stopping

    def _choose(self, request: Request, named: str | None) -> str:
        """The alias of the model that answers; the reply's header tells it.

        Raises:
            RequestError: there is no model of that name, and the settings do not let another one answer.
        """
        if named and self.settings.strict_models and self.host.find(named) is None:
            raise self._no_model(named)
        record: Record = request.scope[RECORD]
        record.model = self.host.resolve(named)
        return record.model

    def _no_model(self, named: str) -> RequestError:
        what = f"The model '{named}' does not exist. Served here: {', '.join(self.host.aliases)}"
        return RequestError(what, "model", "model_not_found", 404)

    # Operations

    async def root(self, request: Request) -> Response:
        keyed = bool(self._keys)
        told = about.summary(self.host, keyed=keyed, shown=self._admitted(request))
        headers = {"vary": "accept"}
        if "text/html" in request.headers.get("accept", ""):
            if self.settings.ui:
                return ui.page(request)
            return HTMLResponse(about.page(told, request.scope.get("root_path", "")), headers=headers)
        return JSONResponse(told, headers=headers)

    async def no_docs(self) -> Json:
        what = "No interactive page is served here; GET / lists the endpoints, docs/llamacpp.md describes them"
        raise RequestError(what, None, "not_found", 404)

    async def health(self) -> Json:
        return {"status": "ok"}

    async def readyz(self) -> JSONResponse:
        if self.host.draining:
            return JSONResponse({"status": "stopping"}, 503)
        ready = self.host.ready
        return JSONResponse({"status": "ready" if ready else "no model loaded"}, 200 if ready else 503)

    async def show_metrics(self) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    # Models

    async def list_models(self, request: Request) -> Json:
        if errors.speaks_anthropic(request):
            return about.anthropic_models(self.host, request.query_params)
        return {"object": "list", "data": [about.openai_model(self.host, alias) for alias in self.host.aliases]}

    async def show_model(self, request: Request, model: str) -> Json:
        alias = self.host.find(model)
        if alias is None:
            raise self._no_model(model)
        shape = about.anthropic_model if errors.speaks_anthropic(request) else about.openai_model
        return shape(self.host, alias)

    # The three APIs

    async def create_chat(self, request: Request) -> Response:
        given = chat.check(await self._body(request))
        exchange = await self._begin(request, given, as_chat=True)
        return await self._reply(exchange, exchange.reply.writer(), end=b"data: [DONE]\n\n")

    async def explain(self, identifier: str) -> Response:
        """What became of each piece of a reply, of any API."""
        explained = self._explained.get(identifier)
        if explained is None:
            what = f"There is no reply {identifier!r} to explain: of the last {MOST_EXPLAINED} alone, while --ui is on"
            raise RequestError(what, None, "not_found", 404)
        return await run_in_threadpool(lambda: JSONResponse(explained().to_dict()))

    async def create_response(self, request: Request) -> Response:
        body = await self._body(request)
        exchange, writer, items = await self._response(request, body)
        local: dict[str, Stored] | None = request.scope.get(websocket.LOCAL)

        async def remember() -> None:
            stored = Stored(items, writer.response)
            if local is not None:
                local.clear()
                local[writer.identifier] = stored
            if writer.response["store"]:
                await run_in_threadpool(self.store.put, stored)

        return await self._reply(exchange, writer, ended=remember)

    async def compact(self, request: Request) -> Response:
        body = await self._body(request)
        if isinstance(body, dict):
            body = {"input": [], **body, "stream": False}
        exchange, writer, items = await self._response(request, body, compacts=True)
        return JSONResponse(compaction.compacted(items, await self._whole(exchange, writer)))

    async def _response(
        self, request: Request, body: Any, *, compacts: bool = False
    ) -> tuple[_Exchange, responses.ResponseWriter, list[Json]]:
        """Begin the reply to a Responses request; what writes it down, and the items that led to it."""
        local = request.scope.get(websocket.LOCAL)
        asked, earlier, toolbox, chat_body = await run_in_threadpool(self._read_response, body, local or {})
        compacts = compacts or compaction.asks_for_compaction(asked)
        items = [*earlier, *responses.input_items(asked)]
        listed = {str(item.get("server_label")) for item in items if item.get("type") == "mcp_list_tools"}
        try:
            checked = chat.check(chat_body)
            exchange = await self._begin(request, compaction.to_summary(checked) if compacts else checked)
        except RequestError as error:
            raise responses.rename(error) from error
        common = asked, exchange.model, toolbox
        writer: responses.ResponseWriter
        if compacts:
            writer = compaction.CompactionWriter(*common, self.seal.close, exchange.reply.sampling)
        elif asked.generate is False:
            writer = responses.WarmUp(*common, sampling=exchange.reply.sampling)
        else:
            writer = responses.ResponseWriter(
                *common, self.seal.close, exchange.reply.sampling, exchange.hosted, listed
            )
        return exchange, writer, items

    def _read_response(
        self, body: Any, local: Mapping[str, Stored] = MappingProxyType({})
    ) -> tuple[responses.ResponsesRequest, Sequence[Json], Toolbox, Json]:
        """The request in `body`, the items that it goes on from, its tools, and the chat request that it means.

        Args:
            local: replies that the request's connection alone can go on from.
        """
        asked = responses.resolve(responses.check(body), self.store.item)
        previous = asked.previous_response_id
        earlier: Sequence[Json] = ()
        if previous is not None:
            stored = local.get(previous) or self.store.get(previous, "previous_response_id")
            earlier = [*stored.items, *stored.response["output"]]
        toolbox = Toolbox(asked.tools, responses.brought_tools(asked.input, earlier))
        chat_body = responses.to_chat(asked, toolbox, earlier, self.seal.open, self._all_hosted)
        return asked, earlier, toolbox, chat_body

    async def show_response(self, identifier: str) -> Response:
        return JSONResponse((await run_in_threadpool(self.store.get, identifier)).response)

    async def delete_response(self, identifier: str) -> Json:
        await run_in_threadpool(self.store.drop, identifier)
        return {"id": identifier, "object": "response", "deleted": True}

    async def list_input_items(self, identifier: str, request: Request) -> Json:
        items = [dict(item) for item in (await run_in_threadpool(self.store.get, identifier)).items]
        return responses.page(items, request.query_params)

    async def cancel_response(self, identifier: str) -> Json:
        await run_in_threadpool(self.store.get, identifier)
        raise RequestError(
            "Cannot cancel a response that is complete. (Those under way end when their client leaves.)",
            None,
            "invalid_value",
        )

    async def count_input_tokens(self, request: Request) -> Json:
        *_, body = await run_in_threadpool(self._read_response, await self._body(request))
        try:
            return {"object": "response.input_tokens", "input_tokens": await self._count(request, chat.check(body))}
        except RequestError as error:
            raise responses.rename(error) from error

    async def create_message(self, request: Request) -> Response:
        asked = messages.check(await self._body(request))
        exchange = await self._begin(request, chat.check(messages.to_chat(asked, self._all_hosted)))
        thinking = asked.thinking is None or asked.thinking.type != "disabled"
        writer = messages.MessageWriter(exchange.model, thinking=thinking, hosted=exchange.hosted)
        return await self._reply(exchange, writer)

    async def count_tokens(self, request: Request) -> Json:
        asked = messages.check(await self._body(request), counting=True)
        return {"input_tokens": await self._count(request, chat.check(messages.to_chat(asked, self._all_hosted)))}

    # As llama.cpp's own server has them. They need the vocabulary, not the engine, so they wait for nobody.

    async def tokenize(self, request: Request) -> Response:
        body = await self._body(request)
        llama = self._in_memory(request, body)
        return await run_in_threadpool(lambda: JSONResponse(tokens.tokenize(body, llama)))

    async def detokenize(self, request: Request) -> Response:
        body = await self._body(request)
        llama = self._in_memory(request, body)
        return await run_in_threadpool(lambda: JSONResponse(tokens.detokenize(body, llama)))

    async def apply_template(self, request: Request) -> Response:
        body = chat.check(await self._body(request))
        llama, ids = await self._prompt(request, body)

        def told() -> Response:
            return JSONResponse({"prompt": tokens.text_of(ids, stock.vocabulary(llama)), "tokens": ids})

        return await run_in_threadpool(told)

    async def show_props(self, request: Request) -> Json:
        return about.props(self.host, self._in_memory(request, request.query_params))

    def _in_memory(self, request: Request, fields: Any) -> Any:
        """The model in memory, if it is the one that `fields` name, or they name none that is served.

        Raises:
            RequestError: it is another one: a turn of its own would load it, and put that one out.
        """
        llama = self.host.current
        if llama is None:
            raise RequestError("No model is loaded.", None, "model_not_loaded", 503)
        there = stock.vocabulary(llama).alias
        named = fields.get("model") if isinstance(fields, Mapping) else None
        if not isinstance(named, str) or (self.host.find(named) is None and not self.settings.strict_models):
            named = there
        asked = self._choose(request, named)
        if asked != there:
            what = f"The model '{asked}' is not in memory, '{there}' is; a request for a reply loads it."
            raise RequestError(what, "model", "model_not_loaded", 503)
        return llama

    # What llama.cpp's own server has

    async def show_slots(self) -> Response:
        return JSONResponse(about.slots(self.host))

    async def control(self, request: Request) -> Json:
        """Close the thinking of a reply under way, whatever API it goes to."""
        asked = await self._body(request)
        if not isinstance(asked, dict):
            raise RequestError("The body is not a JSON object.", None, "invalid_type")
        for name in ("id", "action"):
            if not isinstance(asked.get(name), str):
                code = "invalid_type" if name in asked else "missing_required_parameter"
                raise RequestError(f"{name} is not a string", name, code)
        if asked["action"] != "reasoning_end":
            raise RequestError("action may be reasoning_end", "action", "invalid_value")
        reply, model = self._under_way.get(asked["id"], (None, ""))
        runner = self.host.runners.get(model)
        if reply is None or runner is None:
            return {"success": False, "message": "no reply of that id is under way"}
        if await asyncio.wrap_future(runner.ask(reply.close_reasoning)):
            return {"success": True}
        return {"success": False, "message": "it is not reasoning"}

    # What they share

    async def _count(self, request: Request, body: Json) -> int:
        """How many tokens the prompt of a chat request has."""
        return len((await self._prompt(request, body))[1])

    async def _prompt(self, request: Request, body: Json) -> tuple[Any, list[int]]:
        """The model in memory, and the ids of a chat request's prompt."""
        hosted = self._hosted(self._choose(request, body.get("model")), body)
        llama = self.host.current
        if llama is None:
            raise RequestError("No model is loaded.", None, "model_not_loaded", 503)
        # Needs the vocabulary, not the engine, so it waits for nobody.
        prompt = getattr(stock.chat_handler(llama), "prompt", None)
        if prompt is None:
            what = "Prompts can only be shown, and their tokens counted, for Harmony models."
            raise RequestError(what, "model", "unsupported_model")
        return llama, await run_in_threadpool(prompt, llama, **(hosted.offer(body) if hosted else body))

    async def _body(self, request: Request) -> Any:
        limit = self.settings.max_body_mb << 20
        received = bytearray()
        try:
            async for piece in request.stream():
                received += piece
                if len(received) > limit:
                    what = f"The body is larger than {self.settings.max_body_mb} MB."
                    raise RequestError(what, None, "too_large", 413)
        except ClientDisconnect as error:
            raise ClientGone from error
        try:
            body = from_json(bytes(received), allow_inf_nan=False)
        except ValueError as error:
            raise RequestError(f"The body is not JSON: {error}", None, "invalid_json") from error
        tokens.check(body)
        return body

    async def _begin(self, request: Request, given: Mapping[str, Any], *, as_chat: bool = False) -> _Exchange:
        """Wait for a turn and for the handler to take the request.

        Raises:
            ClientGone: when the client did not wait.
            Stopping: when the server is about to end.
        """
        self._check_open()
        model = self._choose(request, given.get("model"))
        record: Record = request.scope[RECORD]
        record.streamed = bool(given.get("stream"))
        given = {**given, "request_id": record.identifier}

        def begin(given: Mapping[str, Any], observe: Callable[[Usage], None], again: bool) -> Turn:
            call = chat.call(stock.chat_handler, given, model, observe=observe, as_chat=as_chat)
            return self.host.turn(model, call, again=again)

        hosted = self._hosted(model, given)
        turn: Turn | ToolLoop
        if hosted and self._mcp_tools is not None:
            turn = ToolLoop(begin, hosted.offer(given), hosted, self._mcp_tools, record.observe)
        else:
            turn = begin(given, record.observe, False)
        record.turn = turn
        exchange = _Exchange(request, turn, None, model, request.scope["route"].path, record, hosted)
        exchange.reply = await self._waited(exchange, turn.start())
        return exchange

    @property
    def _all_hosted(self) -> HostedTools:
        return HostedTools() if self._mcp_tools is None else self._mcp_tools.hosted

    def _hosted(self, model: str, given: Mapping[str, Any]) -> HostedTools:
        """The tools that the server runs for a chat request."""
        harmony = self.host.settings(model).chat_format == "harmony"
        return self._all_hosted.beside(given) if harmony else HostedTools()

    async def _waited(self, exchange: _Exchange, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, unless the client leaves before: then nothing more is generated."""
        try:
            return await _unless_gone(exchange.request, work)
        except BaseException as error:
            exchange.turn.cancel()
            if isinstance(error, ClientGone):
                self.metrics.cancelled.labels(exchange.endpoint).inc()
            raise

    async def _reply(
        self, exchange: _Exchange, writer: Writer, *, end: bytes = b"", ended: Ended = _nothing
    ) -> Response:
        """The reply, streamed or whole.

        Args:
            end: sent behind the last event.
            ended: called once the reply is complete, before its client can know.
        """
        usage = exchange.reply.usage
        if isinstance(exchange.reply, Choices | ToolLoop):
            self._under_way[writer.identifier] = exchange.reply, exchange.model

        def over() -> None:
            under_way = self._under_way.pop(writer.identifier, None)
            if under_way is not None and self.settings.ui:
                self._explained[writer.identifier] = under_way[0].explained()
                while len(self._explained) > MOST_EXPLAINED:
                    self._explained.popitem(last=False)

        exchange.turn.when_done(over)
        if exchange.record.streamed:
            return _Events(exchange.turn, self._events(exchange, writer, end, ended), self.settings)
        reply = await self._whole(exchange, writer)
        await ended()
        debugs = isinstance(exchange.reply, Choices | ToolLoop) and exchange.reply.debugs
        return JSONResponse(reply, headers={ISSUES_HEADER: debug.header(usage.issues)} if debugs else None)

    async def _whole(self, exchange: _Exchange, writer: Writer) -> Json:
        async def pieces() -> list[Any]:
            return [piece async for pieces in exchange.turn for piece in pieces]

        reply = writer.whole(await self._waited(exchange, pieces()), exchange.reply.usage)
        self.metrics.tokens(exchange.model, exchange.reply.usage)
        return reply

    async def _events(self, exchange: _Exchange, writer: Writer, end: bytes, ended: Ended) -> AsyncIterator[bytes]:
        usage = exchange.reply.usage
        try:
            for event in writer.start(usage):
                yield _event(event)
            async for item in self._items(exchange):
                for event in writer.feed(item):
                    yield _event(event)
            last = list(writer.finish(usage))
            await ended()
        except Exception as error:
            exchange.record.error = errors.of(error)
            self.metrics.replies.fail()
            last, end = list(writer.fail(exchange.record.error)), b""
        for event in last:
            yield _event(event)
        if end:
            yield end

    async def _items(self, exchange: _Exchange) -> AsyncIterator[Any]:
        """The items of a stream, as they come."""
        record, endpoint = exchange.record, exchange.endpoint
        try:
            async for item in exchange.turn:
                if record.first is None:
                    record.first = time.monotonic()
                    self.metrics.first.labels(endpoint).observe(record.first - record.since)
                yield item
            self.metrics.tokens(exchange.model, exchange.reply.usage)
        except asyncio.CancelledError:
            self.metrics.cancelled.labels(endpoint).inc()
            record.cancelled = True
            raise


@dataclass
class _Exchange:
    """A request, and its reply (`Choices`, a `ToolLoop` or a `StockReply`) once it was taken."""

    request: Request
    turn: Turn | ToolLoop
    reply: Any
    model: str
    endpoint: str
    record: Record
    hosted: HostedTools


class _Events(EventSourceResponse):
    """Server-sent events of one turn. However the response ends, the generation ends with it."""

    def __init__(self, turn: Turn | ToolLoop, events: AsyncIterator[bytes], settings: ServerSettings) -> None:
        super().__init__(
            events,
            sep="\n",
            ping_message_factory=bytes if settings.disable_ping_events else None,  # type: ignore[arg-type]
        )
        self._turn = turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._turn.cancel()


RECORD = "harmony_plugin.record"
"""Where a request's scope has its `Record`."""


class _Observed:
    """ASGI middleware: a request id and the model's name on every reply, and the record of every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics, host: Host) -> None:
        self._app = app
        self._metrics = metrics
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = "WS" if websocket.LOCAL in scope else scope["method"]
        record = scope[RECORD] = Record(method, f"req_{uuid4().hex}")

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = headers["request-id"] = record.identifier
                if record.model is not None:
                    headers[MODEL_HEADER] = quote(record.model, safe=" !#$&'()*+,/:;=?@[]")
                if self._host.draining:  # what comes next on this connection would find nobody
                    headers["connection"] = "close"
            await send(message)

        self._host.under_way += 1
        try:
            await self._app(scope, receive, observed)
        except Exception:
            record.status = record.status or 500  # answered further out
            raise
        finally:
            self._host.under_way -= 1
            # The route's pattern, not the path: what clients make up must not become labels.
            record.endpoint = getattr(scope.get("route"), "path", "other")
            record.path = None if "route" in scope else scope["path"]
            record.error = record.error or scope.get(errors.TOLD)
            record.cancelled = record.cancelled or isinstance(record.error, ClientGone)
            self._metrics.requests.labels(record.endpoint, str(record.status)).inc()
            self._metrics.duration.labels(record.endpoint).observe(time.monotonic() - record.since)
            record.close()


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Wait for `work` as long as the client does.

    Raises:
        ClientGone: when it closed the connection; `work` was cancelled.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        for task in (working, watching):
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# Made once: `json.dumps` makes one for each call that asks for anything but its defaults.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _event(value: Json) -> bytes:
    """A server-sent event; those that have a type are named by it."""
    name, data = value.get("type"), _encode(value)
    return (f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n").encode()
