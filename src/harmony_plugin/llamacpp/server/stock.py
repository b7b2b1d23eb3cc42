"""Everything that this server takes from `llama_cpp.server`, and the only module that knows its names.

Taken: the settings (so flags, environment and config files are the stock server's), model loading (`LlamaProxy`), the
routes that stay as they are (`/v1/completions`, `/v1/embeddings`, `/extras/*`), and llama.cpp's callbacks for aborting
and for progress. Not taken: its chat route, its locks, its response models and its model list, which waits for a lock.

Names are looked for when this module is imported; `StockServerError` says in one line which one is gone. Checked with
llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import argparse
import ctypes
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from ...core import RequestError
from ..engine import Abort, context_defaults, model_defaults, token_piece
from .context import Facts

__all__ = [
    "ModelSettings",
    "Models",
    "ServerSettings",
    "StockServerError",
    "Vocabulary",
    "add_arguments",
    "aliases",
    "chat_handler",
    "check_file",
    "device_memory",
    "facts_of",
    "from_arguments",
    "include_routes",
    "load",
    "read_facts",
    "set_abort_check",
    "vocabulary",
]

KNOWN = "llama-cpp-python 0.3.36"
REPLACED = ("/v1/chat/completions", "/v1/models")


class StockServerError(ImportError):
    """The installed llama-cpp-python lacks something this server builds upon. The message is one line."""


try:
    import llama_cpp
    import llama_cpp.server.app as _app
    from llama_cpp._internals import LlamaModel as _LlamaModel
    from llama_cpp.llama_chat_format import get_chat_completion_handler as _registered
    from llama_cpp.server.cli import add_args_from_model as _add_args_from_model
    from llama_cpp.server.cli import parse_model_from_args as _parse_model_from_args
    from llama_cpp.server.model import LlamaProxy
    from llama_cpp.server.settings import ModelSettings, ServerSettings

    _authenticate = _app.authenticate
    _get_llama_proxy = _app.get_llama_proxy
    _routes = _app.router.routes
    _set_server_settings = _app.set_server_settings
    _set_ping_message_factory = _app.set_ping_message_factory
except (ImportError, AttributeError) as error:
    raise StockServerError(
        f"llama_cpp.server is not as this server needs it ({error}); known to work: {KNOWN}. "
        "Install it with: pip install 'harmony-plugin[llamacpp]'"
    ) from error


def add_arguments(parser: argparse.ArgumentParser, settings: type[Any]) -> None:
    """One flag per setting, named and read as the stock server's."""
    _add_args_from_model(parser, settings)


def from_arguments(settings: type[Any], arguments: argparse.Namespace) -> Any:
    """Settings from parsed flags; what no flag gives comes from the environment, as in the stock server."""
    return _parse_model_from_args(settings, arguments)


def include_routes(
    app: FastAPI,
    server_settings: ServerSettings,
    *,
    authenticate: Callable[..., Any],
    turn: Callable[[], AbstractAsyncContextManager[Any]],
    admit: Callable[..., Any],
) -> None:
    """Add the stock server's routes, chat and model list left out, to `app`.

    Args:
        authenticate: FastAPI dependency in the place of the stock key check.
        turn: a context manager to use the models alone: the stock routes wait in the same line as ours.
        admit: FastAPI dependency that refuses a request when the line is full.
    """
    from fastapi import Depends

    async def get_llama_proxy() -> AsyncIterator[Any]:
        async with turn() as proxy:
            yield proxy

    # Routes reach it as a dependency, the event publisher through the module's name: both have to be ours.
    app.dependency_overrides[_get_llama_proxy] = get_llama_proxy
    _app.get_llama_proxy = get_llama_proxy
    app.dependency_overrides[_authenticate] = authenticate
    _set_server_settings(server_settings)
    if server_settings.disable_ping_events:
        _set_ping_message_factory(bytes)

    for route in _routes:
        if isinstance(route, APIRoute) and route.path not in REPLACED:
            app.router.add_api_route(
                route.path,
                route.endpoint,
                methods=sorted(route.methods),
                response_model=route.response_model,
                responses=route.responses,
                summary=route.summary,
                tags=route.tags,
                include_in_schema=route.include_in_schema,
                dependencies=[*route.dependencies, Depends(admit)],
                route_class_override=_Route,
            )


class _Route(APIRoute):
    """A stock route that blames the client for the client's mistakes; the stock class answers most of them with 500."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def blame(request: Request) -> Response:
            try:
                return await handle(request)
            except (HTTPException, RequestValidationError, RequestError):
                raise
            except (ValueError, AssertionError) as error:
                code = "context_length_exceeded" if "exceed context window" in str(error) else "invalid_value"
                raise RequestError(str(error) or "The request cannot be served.", None, code) from error
            except RuntimeError as error:
                if "must be created with" not in str(error):  # a feature that the model was not loaded for
                    raise
                raise RequestError(str(error), None, "unsupported_model") from error

        return blame


class Models:
    """Loaded models, a few in memory at a time; called with a name, the `Llama`, in the place of the stock server's
    `LlamaProxy`.

    Args:
        bring: given an alias, its `Llama`.
        gone: called with an alias when its model is about to be let go of.
        resolve: given the name in a request, the alias of the model that answers.
        busy: whether the model of an alias is in use, and has to stay.
        most: how many are in memory; the one that was used longest ago goes first.
    """

    def __init__(
        self,
        bring: Callable[[str], Any],
        gone: Callable[[str], None],
        resolve: Callable[[str | None], str],
        busy: Callable[[str], bool],
        most: int = 1,
    ) -> None:
        self._bring = bring
        self._gone = gone
        self._resolve = resolve
        self._busy = busy
        self._most = most
        self._there: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, model: str | None = None) -> Any:
        alias = self._resolve(model)
        llama = self._there.get(alias)
        if llama is not None:  # nobody waits while another one is loaded
            self._there.move_to_end(alias)
            return llama
        with self._lock:
            llama = self._there.get(alias)
            if llama is None:
                idle = [one for one in self._there if not self._busy(one)]
                for one in idle[: max(0, len(self._there) - self._most + 1)]:
                    self._drop(one)
                llama = self._there[alias] = self._bring(alias)
            self._there.move_to_end(alias)
            return llama

    @property
    def last(self) -> Any:
        """The one that was used last; None: none is there."""
        return next(reversed(self._there.values()), None)

    def close(self) -> None:
        """Let go of all."""
        with self._lock:
            while self._there:
                self._drop(next(iter(self._there)))

    def _drop(self, alias: str) -> None:
        self._gone(alias)
        self._there.pop(alias).close()


def load(
    settings: ModelSettings, progress: Callable[[float], None] | None = None, context: Mapping[str, Any] | None = None
) -> Any:
    """The `Llama` of `settings`.

    Args:
        context: parameters of llama.cpp's context that the settings have no names for.
        progress: told the share that is loaded, 0.0 to 1.0, in this thread; what it raises ends loading.
    """
    with _reporting(progress), context_defaults(**(context or {})):
        llama: Any = LlamaProxy.load_llama_from_model_settings(settings)
    llama._harmony_plugin_vocabulary = Vocabulary(llama, settings.model_alias)
    return llama


class Vocabulary:
    """The vocabulary of a loaded model, for threads that do not have the model's turn: it may be read by several, and
    the model is not unloaded while one of them does.

    Attributes:
        alias: the model's.
        size: how many ids there are; llama.cpp ends the process when it is asked for another one.
        bos, eos: the ids that begin and end a text; None: there is none.
        before, behind: what the model's file wants put around each text.
    """

    def __init__(self, llama: Any, alias: str | None = None) -> None:
        low = llama_cpp.llama_cpp
        self.alias = alias
        self._vocab = vocab = low.llama_model_get_vocab(llama.model)
        self.size: int = low.llama_vocab_n_tokens(vocab)
        bos, eos = low.llama_vocab_bos(vocab), low.llama_vocab_eos(vocab)
        self.bos, self.eos = (one if one >= 0 else None for one in (bos, eos))
        self.before = [bos] if bos >= 0 and low.llama_vocab_get_add_bos(vocab) else []
        self.behind = [eos] if eos >= 0 and low.llama_vocab_get_add_eos(vocab) else []
        self._change = threading.Condition()
        self._readers = 0
        self._gone = False
        llama._stack.callback(self._close)  # what came last is undone first: in front of the model

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._change:
            if self._gone:
                raise RequestError("The model was unloaded just now.", None, "model_not_loaded", 503)
            self._readers += 1
        try:
            yield
        finally:
            with self._change:
                self._readers -= 1
                self._change.notify_all()

    def _close(self) -> None:
        with self._change:
            self._gone = True
            self._change.wait_for(lambda: not self._readers)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """The ids of `text` as llama.cpp finds them.

        Args:
            special: whether what is spelled as a special token is one.

        Raises:
            RequestError: the model was unloaded.
        """
        low, data = llama_cpp.llama_cpp, text.encode()
        room = len(data) + 2
        ids = (low.llama_token * room)()
        with self._reading():
            count = low.llama_tokenize(self._vocab, data, len(data), ids, room, False, special)
        return list(ids[: max(count, 0)])

    def pieces(self, ids: Iterable[int]) -> dict[int, bytes]:
        """The bytes of each of `ids`, special tokens spelled out.

        Raises:
            RequestError: the model was unloaded.
        """
        with self._reading():
            return {token: token_piece(self._vocab, token) for token in set(ids)}


def vocabulary(llama: Any) -> Vocabulary:
    """The vocabulary of what `load` gave."""
    return llama._harmony_plugin_vocabulary  # type: ignore[no-any-return]


@contextmanager
def _reporting(progress: Callable[[float], None] | None) -> Iterator[None]:
    """`Llama` has no parameter for llama.cpp's progress callback."""
    low = llama_cpp.llama_cpp
    make = getattr(low, "llama_progress_callback", None)
    if progress is None or make is None or not hasattr(low.llama_model_params, "progress_callback"):
        yield
        return

    raised: list[BaseException] = []

    def report(share: float, _data: Any) -> bool:
        try:
            progress(share)
        except BaseException as error:  # C code cannot pass it on, but it can stop loading
            raised.append(error)
        return not raised

    try:
        with model_defaults(progress_callback=make(report)):
            yield
    except Exception:
        if not raised:
            raise
    if raised:
        raise raised[0]


def check_file(path: str) -> None:
    """Look whether a file can be a model.

    Raises:
        ValueError: the file at `path` is no GGUF.
    """
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        what = "it is empty" if not magic else "it is a Git LFS pointer" if magic == b"vers" else f"it begins {magic!r}"
        raise ValueError(f"not a GGUF file ({what}); download the .gguf, or convert the model with llama.cpp's tools")


def read_facts(path: str) -> Facts:
    """What the model file at `path` says of itself; reads its vocabulary and no weights (half a second).

    Raises:
        ValueError: llama.cpp cannot read it.
    """
    low = llama_cpp.llama_cpp
    params = low.llama_model_default_params()
    params.vocab_only = True
    low.llama_backend_init()
    with closing(_LlamaModel(path_model=path, params=params, verbose=False)) as model:
        return facts_of(model.model)


def facts_of(model: Any) -> Facts:
    """The facts of a loaded model, by llama.cpp's pointer to it."""
    low = llama_cpp.llama_cpp
    buffer = ctypes.create_string_buffer(1 << 16)

    def text(read: Callable[..., int], *what: Any) -> str:
        read(model, *what, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    count = low.llama_model_meta_count(model)
    metadata = {
        text(low.llama_model_meta_key_by_index, i): text(low.llama_model_meta_val_str_by_index, i) for i in range(count)
    }
    size, parameters = low.llama_model_size(model), low.llama_model_n_params(model)
    return Facts(metadata, size, parameters, low.llama_vocab_n_tokens(low.llama_model_get_vocab(model)))


def device_memory() -> int | None:
    """Free memory of the GPUs that llama.cpp was built for, in bytes; None: there are none, or it cannot be told."""
    if not llama_cpp.llama_supports_gpu_offload():
        return None
    try:
        from llama_cpp._ggml import libggml
    except ImportError:
        return None
    device, size = ctypes.c_void_p, ctypes.c_size_t
    needed = ("ggml_backend_dev_count", "ggml_backend_dev_get", "ggml_backend_dev_type", "ggml_backend_dev_memory")
    if not all(hasattr(libggml, name) for name in needed):
        return None
    count, get, kind, memory = (getattr(libggml, name) for name in needed)
    count.restype, get.restype, get.argtypes, kind.argtypes = size, device, [size], [device]
    memory.argtypes = [device, ctypes.POINTER(size), ctypes.POINTER(size)]
    free, total, found = size(), size(), 0
    for one in map(get, range(count())):
        if kind(one) in (1, 2):  # a GPU of its own, or one that shares main memory
            memory(one, ctypes.byref(free), ctypes.byref(total))
            found += free.value
    return found or None


def chat_handler(llama: Any) -> Callable[..., Any]:
    """The chat handler that `llama` was loaded with: called with `llama=` and the fields of a chat request."""
    own = llama.chat_handler or llama._chat_handlers.get(llama.chat_format or "")
    return own or _registered(llama.chat_format or "")


def set_abort_check(llama: Any, check: Callable[[], bool]) -> None:
    """Have llama.cpp ask `check` while it computes, see `Abort`; llama-cpp-python then raises RuntimeError."""
    llama._harmony_plugin_abort = abort = Abort(llama._ctx.ctx, check)
    abort.set(True)


def aliases(models: Sequence[ModelSettings]) -> list[str]:
    """The names that the models are asked for by: the alias, or else the file's name without its path."""
    return [model.model_alias or Path(model.model).name for model in models]
