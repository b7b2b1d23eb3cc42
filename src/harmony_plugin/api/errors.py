"""What clients are told when a request fails: OpenAI's error shape, or Anthropic's.

This module knows HTTP statuses and shapes; it knows nothing of why a request failed.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ValidationError

from ..core import HarmonyParseError, RequestError
from .request import ContextOverflow

__all__ = [
    "Busy",
    "ClientGone",
    "MalformedOutput",
    "Stopping",
    "ThreadsUnsupported",
    "Unauthorized",
    "error_body",
    "from_validation",
]

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


class Stopping(RequestError):
    """The server is about to end. `retry_after`: seconds; whoever answers in its place can be asked at once."""

    retry_after: ClassVar[int] = 1

    def __init__(self, *, before: bool = True) -> None:
        """``before``: whether the request was turned away; else its reply was broken off."""
        what = "takes no new requests" if before else "did not finish this reply"
        super().__init__(f"The server is stopping and {what}: ask again.", None, "server_stopping", 503)


class MalformedOutput(RequestError):
    """The model's output was malformed, and the settings are strict."""

    def __init__(self, error: HarmonyParseError) -> None:
        super().__init__(f"The model's output was malformed: {error}", None, error.code, 422)


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


def error_body(error: RequestError, *, anthropic: bool) -> dict[str, Any]:
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
