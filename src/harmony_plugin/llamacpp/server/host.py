"""The one place where models are loaded and generate: a thread of its own, and a fair line in front of it.

llama.cpp contexts are not thread-safe and the stock `LlamaProxy` keeps one model in memory at a time, so one request
runs at a time and the others wait their turn, first come first served. The event loop never waits for llama.cpp:
chunks come from the thread through the loop. When the client goes, the running request is told to stop and the turn
passes on as soon as the thread is really free.

This module knows what a request does with its turn only as a call that takes the request and gives items one by one;
it knows nothing of HTTP or of API shapes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ...api.errors import Busy
from ...core import RequestError
from . import stock
from .context import Context, Facts, Memory, choose, gib

__all__ = ["Call", "Host", "Loaded", "Progress", "Taken", "Turn", "WaitingLine"]

log = logging.getLogger("harmony_plugin.server")


class Taken(NamedTuple):
    """A request that was taken: what is known of its reply beforehand, and what generates it."""

    reply: Any
    items: Iterable[Any]


Call: TypeAlias = "Callable[[Any, Callable[[], bool]], Taken]"
"""What a request does with its turn: given the loaded model and a check for cancellation, take it or raise."""
Progress: TypeAlias = "Callable[[str, float], None]"
"""Called with what is being loaded, in words, and the share done, 0.0 to 1.0."""


class WaitingLine:
    """Turns at the engine, first come first served, with a bound on how many may wait for each model.

    Args:
        bound: requests that may wait for one model; `take` raises `Busy` beyond it.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._taken = False
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()
        self._count: Counter[str] = Counter()
        self._pace = 1.0  # seconds a turn takes, a moving average
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def check(self, model: str) -> None:
        """Whether there is room.

        Raises:
            Busy: if one more request for `model` could not wait.
        """
        if self._taken and self._count[model] >= self._bound:
            raise Busy(min(600, max(1, math.ceil(self._pace * (len(self._waiting) + 1)))))

    async def take(self, model: str) -> None:
        """Wait for a turn. Whoever gets it must `give` it back."""
        self.check(model)
        if not self._taken:
            self._taken = True
            self._since = time.monotonic()
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (model, turn)
        self._waiting.append(place)
        self._count[model] += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()  # the turn came in the same moment: pass it on
            else:
                self._waiting.remove(place)
                self._count[model] -= 1
            raise

    def give(self) -> None:
        """End the turn; the next in line has it now."""
        now = time.monotonic()
        self._pace += 0.2 * (now - self._since - self._pace)
        self._since = now
        while self._waiting:
            model, turn = self._waiting.popleft()
            self._count[model] -= 1
            if not turn.done():
                turn.set_result(None)
                return
        self._taken = False


class Turn:
    """One request's turn: an asynchronous iterator of its items, once it was started. Whoever began it cancels it when
    nobody wants the rest."""

    def __init__(self, host: Host, model: str, call: Call) -> None:
        self._host = host
        self._model = model
        self._call = call
        self._loop = asyncio.get_running_loop()
        # Unbounded, but no longer than one reply: a client that reads slowly must not hold up the others.
        self._items: asyncio.Queue[Any] = asyncio.Queue()
        self._cancelled = False
        self._started = False
        self._done = self._loop.create_future()

    @property
    def cancelled(self) -> bool:
        """True once nobody wants the rest. Read by the engine's thread, too."""
        return self._cancelled

    def cancel(self) -> None:
        """Stop generating. May be called at any time, more than once."""
        self._cancelled = True

    def when_done(self, call: Callable[[], None]) -> None:
        """Call `call` when the engine is done with this, at once if it is already, or never began."""
        if self._started and not self._done.done():
            self._done.add_done_callback(lambda _: call())
        else:
            call()

    async def start(self) -> Any:
        """Wait for the turn, then until the request was taken, so that whatever is wrong with it is raised here, before
        anything was sent. A stream's prompt is evaluated after that: the client has its headers, and the pings that
        keep it waiting.

        Returns:
            what is known of the reply.

        Raises:
            RequestError: for what the client did wrong; `Busy` when the line is full.
        """
        await self._host.line.take(self._model)
        self._started = True
        self._loop.run_in_executor(self._host.thread, self._work)
        return await self._next()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        item = await self._next()
        if item is END:
            raise StopAsyncIteration
        return item

    async def _next(self) -> Any:
        item = await self._items.get()
        if item is END or isinstance(item, BaseException):
            self._items.put_nowait(END)  # asking again after the end is no error
        if isinstance(item, BaseException):
            raise item
        return item

    def _work(self) -> None:
        """Runs in the engine's thread."""
        last: Any = END
        try:
            if not self._cancelled:
                for item in self._run():
                    if self._cancelled:
                        break
                    self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        except BaseException as error:
            # `Cancelled`, or llama.cpp's complaint of a decode that was aborted: nobody waits for either.
            last = error
            if self._cancelled:
                log.debug("generation stopped: %s", error)
        finally:
            self._host.running = None
            try:
                self._loop.call_soon_threadsafe(self._ended, last)
            except RuntimeError:  # the loop is closed: the server is going down
                log.debug("loop closed before a generation ended")

    def _ended(self, last: Any) -> None:
        self._items.put_nowait(last)
        self._done.set_result(None)
        self._host.line.give()

    def _run(self) -> Iterator[Any]:
        llama = self._host.model(self._model)
        self._host.running = self
        reply, given = self._call(llama, lambda: self._cancelled)
        yield reply
        items = iter(given)
        try:
            for item in items:
                self._host.on_item()
                yield item
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()


END = object()
"""Behind the last item of a turn."""


@dataclass(frozen=True)
class Loaded:
    """A model as it was loaded.

    Attributes:
        seconds: what loading took.
    """

    facts: Facts
    context: Context
    seconds: float


class Host:
    """The models of a server and the thread they run in.

    Args:
        models: settings; the first is loaded at `load` and answers requests that name no known model, as in the stock
            server. Another one is loaded, in its place, when a request asks for it.
        max_queue: see `WaitingLine`.
        prepare: called with each model right after it was loaded; raises if the model cannot be served.
    """

    def __init__(
        self,
        models: Sequence[stock.ModelSettings],
        max_queue: int,
        prepare: Callable[[Any, stock.ModelSettings], None] | None = None,
    ) -> None:
        self.on_item: Callable[[], None] = lambda: None  # called in the engine's thread
        self.max_queue = max_queue
        self.line = WaitingLine(max_queue)
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self.running: Turn | None = None
        self.aliases = stock.aliases(models)
        self._settings = {
            alias: model.model_copy(update={"model_alias": alias})
            for alias, model in zip(self.aliases, models, strict=True)
        }
        self._names: dict[str, str] = {}
        for alias, model in reversed(self._settings.items()):  # the first of two has the name
            file = Path(model.model).name
            self._names |= dict.fromkeys((model.model, file, file.removesuffix(".gguf")), alias)
        self._names |= {alias: alias for alias in self.aliases}
        #: What each model came to, when it was last loaded.
        self.loaded: dict[str, Loaded] = {}
        self._starting = False
        self._progress: Progress | None = None
        self._prepare = prepare
        self._proxy: stock.LlamaProxy | None = None
        self._prepared: Any = None

    @property
    def ready(self) -> bool:
        """True when a model is in memory."""
        return self._proxy is not None

    def find(self, model: str) -> str | None:
        """The alias of the model that is called `model`: by its alias, or by its file's path or name; None: there is no
        such model."""
        return self._names.get(model)

    def resolve(self, model: str | None) -> str:
        """The alias that answers requests for `model`."""
        return self._names.get(model or "", self.aliases[0])

    def settings(self, alias: str) -> stock.ModelSettings:
        """The settings of a model."""
        return self._settings[alias]

    def load(self, progress: Progress | None = None) -> None:
        """Load the first model; blocks.

        Raises:
            Exception: whatever llama-cpp-python says of a file it cannot load.
        """
        self._starting, self._progress = True, progress
        try:
            self._proxy = stock.Models(list(self._settings.values()), self._load, self.resolve)
            self._ready(self._proxy(self.aliases[0]), self.aliases[0])
        finally:
            self._starting, self._progress = False, None

    def _load(self, settings: stock.ModelSettings) -> Any:
        with self._blamed(str(settings.model_alias)):
            return self._opened(settings)

    def _opened(self, settings: stock.ModelSettings) -> Any:
        """The model of `settings`, with a context that was chosen where they name none."""
        began = time.monotonic()
        local = settings.hf_model_repo_id is None
        name = what = str(settings.model_alias)
        if local:
            what += f" ({gib(Path(settings.model).stat().st_size)})"
        progress = self._progress
        if not self._starting:
            log.info("loading %s in the place of the model before", what)

        def chosen(facts: Facts | None) -> Context:
            return choose(
                settings.n_ctx,
                facts,
                Memory.at_hand(stock.device_memory()),
                batch=settings.n_ubatch,
                flash_attention=settings.flash_attn,
                cache_types=(settings.type_k, settings.type_v),
                gpu_layers=settings.n_gpu_layers,
                all_logits=settings.logits_all,
            )

        beforehand = stock.read_facts(settings.model) if local and not settings.n_ctx else None
        context = chosen(beforehand)
        llama = stock.load(
            settings.model_copy(update={"n_ctx": context.tokens}),
            None if progress is None else lambda share: progress(what, share),
        )
        facts = stock.facts_of(llama.model)
        if settings.n_ctx:
            context = chosen(facts)  # whether it is more than the model was trained for
        context = replace(context, tokens=llama.n_ctx())  # llama.cpp rounds up
        self.loaded[name] = Loaded(facts, context, time.monotonic() - began)
        if not self._starting:
            log.info("loaded %s: %d tokens of context, %s", name, context.tokens, context.why)
        return llama

    def model(self, alias: str) -> Any:
        """The loaded model, after unloading another one if need be; only for whoever has the turn.

        Raises:
            RequestError: it cannot be loaded; the log has why.
        """
        assert self._proxy is not None, "load() first"
        with self._blamed(alias):
            return self._ready(self._proxy(alias), alias)

    @contextmanager
    def _blamed(self, alias: str) -> Iterator[None]:
        """A model that cannot be loaded is no fault of the request that named it. At the start the error passes as it
        is."""
        try:
            yield
        except RequestError:
            raise
        except Exception as error:
            if self._starting:
                raise
            log.error("cannot load %s: %s", alias, " ".join(str(error).split()))
            what = f"The model '{alias}' cannot be loaded; the server's log says why."
            raise RequestError(what, "model", "model_not_loaded", 503) from error

    def _ready(self, llama: Any, alias: str) -> Any:
        """`llama`, after what has to be done once with each that was loaded."""
        if llama is not self._prepared:
            self._prepared = None
            stock.set_abort_check(llama, lambda: self.running is not None and self.running.cancelled)
            if self._prepare is not None:
                self._prepare(llama, self._settings[alias])
            self._prepared = llama
        return llama

    @property
    def current(self) -> Any:
        """The model in memory, for what needs no turn (counting tokens)."""
        return self._prepared

    def turn(self, model: str, call: Call) -> Turn:
        """A turn for `call` on `model` (an alias)."""
        return Turn(self, model, call)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[stock.LlamaProxy]:
        """The models, alone, for routes that are not ours."""
        await self.line.take(self.aliases[0])
        try:
            assert self._proxy is not None
            yield self._proxy
        finally:
            self.line.give()

    def close(self) -> None:
        """Stop what runs and let go of the models."""
        if self.running is not None:
            self.running.cancel()
        self.thread.shutdown(wait=True, cancel_futures=True)
        if self._proxy is not None:
            stock.free(self._proxy)
            self._proxy = None
