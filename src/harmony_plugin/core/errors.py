"""The errors' common root, and the one for requests that cannot be served as asked. Knows nothing of HTTP beyond the
number of a status.

What the model writes never raises this; see `HarmonyParseError` for the core's strict mode.
"""

from __future__ import annotations

__all__ = ["HarmonyError", "RequestError"]


class HarmonyError(Exception):
    """The root of all errors that are this package's own."""


class RequestError(HarmonyError, ValueError):
    """What the caller asked for is wrong, and the message says what to change.

    The attributes are those of OpenAI's error body (`message`, `param`, `code`; `type` is `invalid_request_error`).

    Attributes:
        message: for the person who sent the request.
        param: the field at fault as a path, such as `messages[2].tool_call_id`, or None.
        code: a fixed word for programs, such as `context_length_exceeded`, or None.
        status: the HTTP status that a server answers with.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status
