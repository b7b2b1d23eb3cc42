"""What the plugin reads from vLLM's requests, and the little that it changes in them.

Knows the fields of chat and responses requests by name, and no class of vLLM's but its error for bad requests.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

from harmony_plugin import Options, RequestError, core
from harmony_plugin.api.request import allowed_calls
from harmony_plugin.prompts import REASONING_EFFORTS
from harmony_plugin.settings import REQUEST_KEY, Settings, for_request

from . import seams
from .engine_stops import NOTE
from .splitting import NO_STOP, Patience, Plan, Stop
from .tokenizers import Tokens

__all__ = [
    "HOSTED_TYPES",
    "check_tool_choice",
    "ended_by",
    "has_structural_tag",
    "hosted_tools",
    "leave_notes",
    "leave_plan",
    "named_tools",
    "notes_of",
    "options_of",
    "stop_of",
    "tool_names",
    "with_known_effort",
    "with_markers",
    "with_objects_as_arguments",
    "with_server_limits",
    "without_calls",
]

#: gpt-oss's own tools, by the type under which /v1/responses declares them.
_BUILTIN_TYPES = {
    "code_interpreter": "python",
    "web_search_preview": "browser",
    "container": "container",
}
#: All types of tools that vLLM runs there.
HOSTED_TYPES = (*_BUILTIN_TYPES, "mcp")
#: Types of the tools that are offered by name.
_FUNCTIONS = ("function", "custom")
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


def tool_names(tools: Any) -> tuple[str, ...]:
    """The names of the function tools on offer: of vLLM's objects for chat and responses, or of dicts."""
    return core.tool_names(_named(tools or ())) or ()


def _named(tools: Iterable[Any]) -> Iterator[str | Mapping[str, Any]]:
    """vLLM's tools as the core reads them."""
    for tool in tools:
        if isinstance(tool, Mapping):
            yield tool
        else:
            yield from ({"name": name} for name, _ in named_tools([tool]))


def named_tools(tools: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """vLLM's tools, each with the name under which vLLM offers it to the model (None: it has none)."""
    for tool in tools:
        function = getattr(tool, "function", tool)
        yield getattr(function, "name", None), function


def check_tool_choice(request: Any) -> None:
    """Refuse a choice of tools that the request does not offer; what vLLM says of it is another thing on each API.

    Raises:
        ``VLLMValidationError`` (HTTP 400): names the tool.
    """
    choice = getattr(request, "tool_choice", None)
    if choice is None or isinstance(choice, str):
        return
    given = choice.model_dump()
    if given["type"] == "allowed_tools":
        given["tools"] = [tool for tool in given["tools"] if tool.get("type") in _FUNCTIONS]
    if given.get("tools") or given["type"] in _FUNCTIONS:  # else the choice is of tools that vLLM runs
        try:
            allowed_calls(given, tool_names(request.tools))
        except RequestError as error:
            raise seams.load().ValidationError(error.message) from None


def hosted_tools(tools: Any) -> tuple[set[str], list[str]]:
    """Of a ``/v1/responses`` request: gpt-oss's own tools that vLLM runs, and the namespaces of its MCP servers."""
    types = {getattr(tool, "type", None) for tool in tools or ()}
    hosted = {_BUILTIN_TYPES[kind] for kind in types if kind in _BUILTIN_TYPES}
    if "mcp" not in types:
        return hosted, []
    labels = [f"mcp.{tool.server_label}" for tool in tools if getattr(tool, "type", None) == "mcp"]
    return hosted.union(core.BUILTIN_NAMESPACES), labels


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


def ended_by(request: Any, token: int) -> Any:
    """Have generation end at ``token``, whatever the model's own end tokens are; where the request can say so."""
    if "stop_token_ids" not in type(request).model_fields:
        return request
    known = list(request.stop_token_ids or ())
    if not request.ignore_eos and token not in known:
        request.stop_token_ids = [*known, token]
    return request


def with_server_limits(request: Any, settings: Settings) -> None:
    """The server's stop strings beside the request's, and no longer reply than the server's longest."""
    fields = type(request).model_fields
    if settings.stop and "stop" in fields:
        own = [request.stop] if isinstance(request.stop, str) else list(request.stop or ())
        request.stop = list(dict.fromkeys([*own, *settings.stop]))
    if (most := settings.max_reply_tokens) is not None:
        names = [name for name in ("max_completion_tokens", "max_output_tokens", "max_tokens") if name in fields]
        given = [name for name in names if getattr(request, name) is not None]
        for name in given or names[:1]:
            setattr(request, name, min(most, getattr(request, name) or most))


def with_known_effort(request: Any, no_reasoning: bool, default: str | None = None) -> Any:
    """OpenAI's efforts as the three that gpt-oss knows; ``none`` has a budget of 0.

    Args:
        no_reasoning: reasoning can be ended at once.
        default: of requests that name none.
    """
    # A client may send either name to either API; only its own field counts.
    chat = "reasoning_effort" in type(request).model_fields
    if default is not None and not chat and hasattr(request, "reasoning"):
        request.reasoning = request.reasoning or _reasoning(type(request))
    owner, name = (request, "reasoning_effort") if chat else (getattr(request, "reasoning", None), "effort")
    if default is not None and owner is not None and getattr(owner, name, None) is None:
        setattr(owner, name, default)
    effort = str(getattr(owner, name, None))
    if effort in REASONING_EFFORTS:
        setattr(owner, name, REASONING_EFFORTS[effort])
        budgets = ("thinking_token_budget", "max_reasoning_tokens")
        own = any(getattr(request, each, None) is not None for each in budgets)
        if effort == "none" and no_reasoning and not own:
            request.max_reasoning_tokens = 0
    return request


def _reasoning(kind: Any) -> Any:
    """A ``reasoning`` that says nothing, for a request of a kind."""
    (made,) = (each for each in get_args(kind.model_fields["reasoning"].annotation) if each is not type(None))
    return made()


def with_objects_as_arguments(request: Any) -> Any:
    """Have the grammar of tools hold the arguments of a tool that is not strict to an object, not to any JSON."""
    structured: Any = getattr(request, "structured_outputs", None)
    tag = getattr(structured, "structural_tag", None)
    if isinstance(tag, str) and '"json_schema": true' in tag:
        structured.structural_tag = json.dumps(_with_objects(json.loads(tag)))
    return request


def _with_objects(tag: Any) -> Any:
    if isinstance(tag, list):
        return [_with_objects(each) for each in tag]
    if isinstance(tag, dict):
        if tag.get("json_schema") is True:
            return {**tag, "json_schema": {"type": "object", "additionalProperties": True}}
        return {name: _with_objects(each) for name, each in tag.items()}
    return tag


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
        "include_reasoning": getattr(request, "include_reasoning", True),
        **more,
    }
    request.chat_template_kwargs = {**(request.chat_template_kwargs or {}), _NOTES: notes}


def leave_plan(request: Any, plan: Plan, patience: Patience) -> None:
    """Leave with a request that has stop strings, or whose answer is waited for so long only, how replies are split,
    for the detokenizer: see `engine_stops`."""
    if plan.stop.strings or patience:
        request.vllm_xargs = {**(request.vllm_xargs or {}), NOTE: plan.note()}


def notes_of(template: Any) -> Mapping[str, Any]:
    """What `leave_notes` left for this parser. A client may have sent anything under the same name."""
    notes = template.get(_NOTES) if isinstance(template, Mapping) else None
    return notes if isinstance(notes, Mapping) else {}
