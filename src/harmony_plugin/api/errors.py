"""What clients are told when a request fails: OpenAI's error shape, or Anthropic's under `/v1/messages`.

This module knows HTTP statuses and shapes; it knows nothing of why a request failed.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..core import RequestError
from ..llamacpp.server.settings import did_you_mean
from .request import ContextOverflow

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = [
    "Busy",
    "ClientGone",
    "ThreadsUnsupported",
    "Unauthorized",
    "body",
    "from_validation",
    "install",
    "of",
    "response",
    "speaks_anthropic",
]

log = logging.getLogger("harmony_plugin.server")

TOLD = "harmony_plugin.error"
"""Where a request's scope has the error that its client was told."""

# OpenAI's and Anthropic's names for what a status means.
OPENAI_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Busy(RequestError):
    """The line in front of the model is full. `retry_after`: seconds, a guess from the pace so far."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("The server is busy: too many requests are waiting.", None, "queue_full", 429)
        self.retry_after = retry_after


class Unauthorized(RequestError):
    """No key, or a wrong one."""

    def __init__(self) -> None:
        super().__init__("Invalid API key", None, "invalid_api_key", 401)


class ThreadsUnsupported(RequestError):
    """Anthropic's message threads. Its clients know this error by its details, and send the whole conversation."""

    details: ClassVar[dict[str, Any]] = {"error_code": "thread_unsupported_request"}

    def __init__(self) -> None:
        super().__init__("thread is not supported: send the full conversation without it.", "thread", "unsupported")


class ClientGone(RequestError):
    """The client closed the connection before its reply was complete, so nobody reads this one; it is for the log."""

    def __init__(self) -> None:
        super().__init__("The client closed the connection.", None, "client_closed_request", 499)


def of(error: BaseException) -> RequestError:
    """`error` as what the client is told. Anything unforeseen is a 500 that gives no details away; the log has them."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, HTTPException):
        return RequestError(str(error.detail), None, None, error.status_code)
    log.error("unexpected error", exc_info=error)
    return RequestError("The server had an error while processing the request.", None, "internal_error", 500)


def from_validation(error: ValidationError, status: int = 400) -> RequestError:
    """The first of pydantic's findings, with the field's path in `param`."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # Parts that pydantic adds for unions and tags name no field of the request: they hold brackets or start upper case.
    parts = [p for p in first["loc"] if isinstance(p, int) or (p.isidentifier() and not p[0].isupper())]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".") or None
    if first["type"] == "missing":
        return RequestError(f"Missing required parameter: '{param}'.", param, "missing_required_parameter", status)
    message = first["msg"].removeprefix("Value error, ")
    code = "invalid_type" if first["type"].endswith("_type") else "invalid_value"
    return RequestError(f"Invalid '{param}': {message}." if param else message, param, code, status)


def body(error: RequestError, *, anthropic: bool) -> dict[str, Any]:
    """The JSON object that reports `error`."""
    if anthropic:
        kind = ANTHROPIC_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
        told: dict[str, Any] = {"type": kind, "message": error.message}
        if isinstance(error, ContextOverflow):
            # Claude Code makes room when it reads these words.
            told["message"] = f"prompt is too long: {error.tokens} tokens > {error.most} maximum"
        if isinstance(error, ThreadsUnsupported):
            told["details"] = error.details
        return {"type": "error", "error": told}
    kind = OPENAI_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def response(request: Request, error: BaseException) -> Response:
    """The reply that reports `error` to the client of `request`."""
    told = of(error)
    headers = {}
    if isinstance(told, Busy):
        headers["Retry-After"] = str(told.retry_after)
    if isinstance(told, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, HTTPException) and error.headers:
        headers.update(error.headers)
    request.scope[TOLD] = told
    return JSONResponse(body(told, anthropic=speaks_anthropic(request)), told.status, headers)


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

    for kind in (RequestError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, reply)


def as_event(error: BaseException, *, anthropic: bool) -> str:
    """The data of a server-sent event that reports `error` once a stream has begun."""
    return json.dumps(body(of(error), anthropic=anthropic))
