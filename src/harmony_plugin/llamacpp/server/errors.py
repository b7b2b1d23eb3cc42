"""Errors on their way to the client: what it is told of one, in the shape of its API.

This module knows HTTP; the shapes are those of `api.errors`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...api.errors import Busy, MalformedOutput, Stopping, Unauthorized, error_body
from ...core import HarmonyParseError, RequestError
from ..scheduler import Cancelled
from .settings import did_you_mean

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["install", "of", "response", "speaks_anthropic"]

log = logging.getLogger("harmony_plugin.server")

TOLD = "harmony_plugin.error"
"""Where a request's scope has the error that its client was told."""


def of(error: BaseException) -> RequestError:
    """`error` as what the client is told. Anything unforeseen is a 500 that gives no details away; the log has them."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, HarmonyParseError):
        return MalformedOutput(error)
    if isinstance(error, Cancelled):  # and somebody still waits: the server stops
        return Stopping(before=False)
    if isinstance(error, HTTPException):
        return RequestError(str(error.detail), None, None, error.status_code)
    log.error("unexpected error", exc_info=error)
    return RequestError("The server had an error while processing the request.", None, "internal_error", 500)


def response(request: Request, error: BaseException) -> Response:
    """The reply that reports `error` to the client of `request`."""
    told = of(error)
    headers = {}
    if isinstance(told, Busy | Stopping):
        headers["Retry-After"] = str(told.retry_after)
    if isinstance(told, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, HTTPException) and error.headers:
        headers.update(error.headers)
    request.scope[TOLD] = told
    return JSONResponse(error_body(told, anthropic=speaks_anthropic(request)), told.status, headers)


def speaks_anthropic(request: Request) -> bool:
    """Whether the client of `request` reads Anthropic's shapes: by the path, or where both APIs have that, by the
    header that its clients always send."""
    if _path(request).startswith("/v1/messages"):
        return True
    shared = _path(request).startswith("/v1/models") or "route" not in request.scope
    return shared and "anthropic-version" in request.headers


def _path(request: Request) -> str:
    return request.url.path.removeprefix(request.scope.get("root_path", ""))


def install(app: FastAPI) -> None:
    """Every error that leaves a route of `app`, foreseen or not, has one of the two shapes."""
    from fastapi.exceptions import RequestValidationError
    from fastapi.routing import APIRoute

    async def reply(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 404 and "route" not in request.scope:
            path = _path(request)
            served = [route.path for route in app.routes if isinstance(route, APIRoute)]
            meant = did_you_mean(path, served)
            error = RequestError(f"Nothing is served at {path}{meant}; GET / lists what is", None, "not_found", 404)
        if isinstance(error, HTTPException) and error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "")
            what = f"{request.method} is not served at {_path(request)}, only {allowed or 'other methods'}"
            error = HTTPException(405, what, error.headers)
        if isinstance(error, RequestValidationError):  # the stock routes' bodies
            item = error.errors()[0]
            if item["type"] == "json_invalid":
                error = RequestError("The body is not JSON.", None, "invalid_json", 422)
            else:
                param = ".".join(str(part) for part in item["loc"] if part != "body") or None
                error = RequestError(f"Invalid '{param}': {item['msg']}.", param, "invalid_value", 422)
        return response(request, error)

    for kind in (RequestError, HarmonyParseError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, reply)
