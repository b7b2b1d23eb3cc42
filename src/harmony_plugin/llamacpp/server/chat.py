"""`/v1/chat/completions`: the body handed to the chat handler, field by field.

The handler judges the fields, and its `RequestError` names the one that is wrong; a second check here would only
drift from it. Other APIs are translated to this one's fields, so this module knows nothing of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from ...core import RequestError
from .. import HarmonyChatHandler, Usage
from .engine import Call

__all__ = ["call", "check"]

Json: TypeAlias = "dict[str, Any]"

# Keyword arguments of chat handlers that only code in this process may use.
RESERVED = frozenset({"self", "llama", "cancelled", "observe", "grammar", "logits_processor", "logits_processors"})

# What would change the reply, and cannot be had here.
UNSUPPORTED = {
    "grammar": "it would hold the markers around the text, too; use response_format or strict tools",
    "web_search_options": "this server runs no tools; offer a function that searches",
}


def check(body: Any) -> Json:
    """The handler's keyword arguments for `body`, a JSON value: what the client gave, less `null`s.

    :raises RequestError: if it is no object, or asks for something that makes no sense over HTTP.
    """
    if not isinstance(body, dict):
        raise RequestError("The body is not a JSON object.", None, "invalid_type")
    given = {name: value for name, value in body.items() if value is not None and name not in RESERVED}
    if "messages" not in given:
        raise RequestError("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
    for name, kind, what in (
        ("stream", bool, "true or false"),
        ("model", str, "a string"),
        ("metadata", dict, "an object"),
    ):
        if not isinstance(given.get(name, kind()), kind):
            raise RequestError(f"{name} is not {what}", name, "invalid_type")
    for name in ("max_tokens", "max_completion_tokens"):
        # In a program, no number of tokens means as many as fit; a client that sends one has made a mistake.
        limit = given.get(name)
        if isinstance(limit, int) and not isinstance(limit, bool) and limit < 1:
            raise RequestError(f"{name} is {limit}; it may be at least 1", name, "invalid_value")
    for name, instead in UNSUPPORTED.items():
        if body.get(name) is not None:
            raise RequestError(f"{name} is not supported: {instead}.", name, "unsupported_parameter")
    template = given.pop("chat_template_kwargs", None)
    if isinstance(template, dict) and template.get("reasoning_effort") is not None:
        # Where clients of llama-server and vLLM put it: they know no better place for a template's variable.
        given.setdefault("reasoning_effort", template["reasoning_effort"])
    options = given.get("stream_options")
    if options is not None and not given.get("stream"):
        raise RequestError("stream_options needs stream: true", "stream_options", "invalid_value")
    # The server sets this one itself, for its metrics, so the handler does not see what the client gave.
    if isinstance(options, dict) and not isinstance(options.get("include_usage", False), bool | None):
        where = "stream_options.include_usage"
        raise RequestError(f"{where} is not true or false", where, "invalid_type")
    return given


def call(
    handler_of: Callable[[Any], Callable[..., Any]],
    given: Mapping[str, Any],
    model: str,
    *,
    announce: bool = False,
    observe: Callable[[Usage], None] | None = None,
) -> Call:
    """What the engine does with its turn: one call of the model's chat handler.

    :param given: the handler's keyword arguments.
    :param model: the name that the reply carries.
    :param announce: give the prompt's length in a chunk of its own, before the prompt is evaluated.
    :param observe: told what the reply came to, in the engine's thread; only for chat format `harmony`.
    """

    def run(llama: Any, cancelled: Callable[[], bool]) -> Json | Iterable[Json]:
        handler = handler_of(llama)
        fields = {**given, "llama": llama, "model": model, "cancelled": cancelled}
        harmony = isinstance(handler, HarmonyChatHandler)
        result = handler(**fields, observe=observe) if harmony else _other(handler, fields)
        if announce and not isinstance(result, dict):
            return itertools.chain([{"usage": {"prompt_tokens": _prompt_tokens(handler, fields)}}], result)
        return result

    return run


def _other(handler: Callable[..., Json | Iterable[Json]], fields: Json) -> Json | Iterable[Json]:
    """A reply of one of llama-cpp-python's own chat handlers, for a model with another chat format."""
    fields.setdefault("max_tokens", fields.pop("max_completion_tokens", None))
    try:
        return handler(**fields)
    except (ValueError, TypeError, KeyError) as error:  # what these raise for messages that they cannot take
        raise RequestError(
            f"The model's chat format cannot take this request: {error}", None, "invalid_value"
        ) from error


def _prompt_tokens(handler: Any, fields: Mapping[str, Any]) -> int:
    prompt = getattr(handler, "prompt", None)
    return len(prompt(**fields)) if prompt is not None else 0
