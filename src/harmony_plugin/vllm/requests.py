"""What the plugin reads from vLLM's requests, and the little that it changes in them.

Knows the fields of chat and responses requests by name, and no class of vLLM's but its error for bad requests.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harmony_plugin import Options

from . import seams
from .settings import REQUEST_KEY, for_request
from .splitting import NO_STOP, Stop
from .tokenizers import Tokens

__all__ = [
    "has_structural_tag",
    "leave_notes",
    "notes_of",
    "options_of",
    "stop_of",
    "tool_names",
    "with_markers",
    "without_calls",
]

#: Where notes are left, on a request's chat_template_kwargs.
_NOTES = "_harmony_plugin"


def options_of(tokens: Tokens, template: Any) -> Options:
    """The settings for one request, in the model's dialect.

    Raises:
        ``VLLMValidationError`` (HTTP 400): the client asked for settings that are none.
    """
    changes = template.get(REQUEST_KEY) if isinstance(template, Mapping) else None
    if changes is None:
        return tokens.options
    try:
        return for_request(tokens.options, changes)
    except ValueError as error:
        raise seams.load().ValidationError(str(error)) from None


@functools.lru_cache(maxsize=64)
def without_calls(options: Options) -> Options:
    return replace(options, tool_choice="none")


def tool_names(tools: Any) -> list[str]:
    """The names of the function tools on offer: vLLM's objects for chat and responses, or dicts."""
    names = []
    for tool in tools or ():
        if isinstance(tool, Mapping):
            tool = tool.get("function", tool)
            name = tool.get("name") if isinstance(tool, Mapping) else None
        else:
            name = getattr(getattr(tool, "function", tool), "name", None)
        if isinstance(name, str):
            names.append(name)
    return names


def stop_of(request: Any) -> Stop:
    strings, token_ids = getattr(request, "stop", None), getattr(request, "stop_token_ids", None)
    if not strings and not token_ids:
        return NO_STOP
    return Stop(
        (strings,) if isinstance(strings, str) else tuple(strings or ()),
        bool(getattr(request, "include_stop_str_in_output", False)),
        getattr(request, "min_tokens", None) or 0,
        frozenset(token_ids or ()),
    )


def with_markers(request: Any) -> Any:
    """Have vLLM keep the markers in the text it makes: who splits text needs them."""
    request.skip_special_tokens = False
    if hasattr(request, "spaces_between_special_tokens"):
        request.spaces_between_special_tokens = False
    return request


def has_structural_tag(request: Any) -> bool:
    return getattr(getattr(request, "structured_outputs", None), "structural_tag", None) is not None


def leave_notes(request: Any, **more: Any) -> None:
    """Leave with a ``/v1/responses`` request what vLLM tells neither its parser nor the engine's."""
    stop = stop_of(request)
    notes = {
        "stop": {"strings": list(stop.strings), "include": stop.include} if stop.strings else None,
        "tool_choice": request.tool_choice if isinstance(request.tool_choice, str) else None,
        **more,
    }
    request.chat_template_kwargs = {**(request.chat_template_kwargs or {}), _NOTES: notes}


def notes_of(template: Any) -> Mapping[str, Any]:
    """What `leave_notes` left for this parser. A client may have sent anything under the same name."""
    notes = template.get(_NOTES) if isinstance(template, Mapping) else None
    return notes if isinstance(notes, Mapping) else {}
