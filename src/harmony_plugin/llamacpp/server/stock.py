"""Everything that this server takes from `llama_cpp.server`, and the only module that knows its names.

Taken: the settings (so flags, environment and config files are the stock server's), model loading (`LlamaProxy`), the
routes that stay as they are (`/v1/completions`, `/v1/embeddings`, `/extras/*`), and llama.cpp's abort callback. Not
taken: its chat route, its locks, its response models and its model list, which waits for a lock.

Names are looked for when this module is imported; `StockServerError` says in one line which one is gone. Checked with
llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from ...errors import RequestError

__all__ = [
    "LlamaProxy",
    "ModelSettings",
    "ServerSettings",
    "StockServerError",
    "add_arguments",
    "chat_handler",
    "from_arguments",
    "include_routes",
    "set_abort_check",
]

KNOWN = "llama-cpp-python 0.3.36"
REPLACED = ("/v1/chat/completions", "/v1/models")


class StockServerError(ImportError):
    """The installed llama-cpp-python lacks something this server builds upon. The message is one line."""


try:
    import llama_cpp
    import llama_cpp.server.app as _app
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
    turn: Callable[[], AbstractAsyncContextManager[LlamaProxy]],
    admit: Callable[..., Any],
) -> None:
    """Add the stock server's routes, chat and model list left out, to `app`.

    :param authenticate: FastAPI dependency in the place of the stock key check.
    :param turn: a context manager to use the models alone: the stock routes wait in the same line as ours.
    :param admit: FastAPI dependency that refuses a request when the line is full.
    """
    from fastapi import Depends

    async def get_llama_proxy() -> AsyncIterator[LlamaProxy]:
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


def free(proxy: LlamaProxy) -> None:
    """Let go of the model in memory."""
    proxy.free()  # type: ignore[no-untyped-call]


def chat_handler(llama: Any) -> Callable[..., Any]:
    """The chat handler that `llama` was loaded with: called with `llama=` and the fields of a chat request."""
    own = llama.chat_handler or llama._chat_handlers.get(llama.chat_format or "")
    return own or _registered(llama.chat_format or "")


def set_abort_check(llama: Any, check: Callable[[], bool]) -> bool:
    """Have llama.cpp ask `check` while it computes; true makes the running `llama_decode` fail with status 2, which
    llama-cpp-python raises as RuntimeError. This ends even a long prompt at once. Backends other than the CPU ask less
    often or never. False if the installed version has no such callback."""
    low = llama_cpp.llama_cpp
    make = getattr(low, "ggml_abort_callback", None)
    install = getattr(low, "llama_set_abort_callback", None)
    context = getattr(getattr(llama, "_ctx", None), "ctx", None)
    if make is None or install is None or context is None:
        return False
    callback = make(lambda _data: check())
    install(context, callback, ctypes.c_void_p(None))
    llama._harmony_plugin_abort_callback = callback  # C keeps only the address
    return True


def aliases(models: Sequence[ModelSettings]) -> list[str]:
    """The names that the models are asked for by: the alias, or else the file's path."""
    return [model.model_alias or model.model for model in models]
