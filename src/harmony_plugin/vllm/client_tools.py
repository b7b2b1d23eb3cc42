"""Tools that agents send to ``/v1/responses``, of types that vLLM does not take, as functions; and their calls, back.

A request is changed before vLLM reads it: vLLM's classes refuse tools and items of newer types. What the client runs
(functions in namespaces, freeform tools, shells, patches, searches for tools) becomes functions, by `Toolbox`; what
vLLM runs stays; what nobody would run is left out, with a line in the log. Items and events of their calls get the form
that the client knows. Knows vLLM's Responses API, as JSON on the way in and as objects on the way out; no Harmony.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputItem,
    ResponseOutputItemAddedEvent,
    ResponseStreamEvent,
    Tool,
)
from pydantic import BaseModel, PrivateAttr, TypeAdapter, ValidationError, model_validator

from harmony_plugin import RequestError
from harmony_plugin.api import responses
from harmony_plugin.api.tools import TYPED, OfferedTool, Toolbox, run_by_client
from harmony_plugin.prompts import tool_function

from . import seams
from .requests import HOSTED_TYPES

__all__ = ["Calls", "as_asked", "request_class", "shown", "toolbox_of"]

Json: TypeAlias = "dict[str, Any]"

log = logging.getLogger(__name__)

#: Items that are vLLM's to read. Of references it says what it knows of them.
_KEPT_ITEMS = ("message", "reasoning", "item_reference")


# Requests


def request_class(base: Any) -> Any:
    """vLLM's class of requests, taking more tools and items.

    Args:
        base: ``ResponsesRequest``.
    """

    class ResponsesRequest(base):  # type: ignore[misc]
        _toolbox: Toolbox = PrivateAttr(default_factory=lambda: Toolbox(None))

        @model_validator(mode="wrap")
        @classmethod
        def _take_tools(cls, body: Any, validate: Any) -> Any:
            if not isinstance(body, dict):
                return validate(body)
            try:
                body, toolbox = translated(body)
            except RequestError as error:
                raise seams.load().ValidationError(error.message) from error
            request = validate(body)
            request._toolbox = toolbox
            return request

    ResponsesRequest.__module__, ResponsesRequest.__qualname__ = base.__module__, base.__qualname__
    ResponsesRequest.__doc__ = base.__doc__
    return ResponsesRequest


def as_asked(request: Any) -> Any:
    """The request; one that was made of vLLM's own class, of ours."""
    kind = seams.load().request_class()
    if isinstance(request, kind):
        return request
    return kind.model_validate({**_plain(request), "request_id": request.request_id})


def toolbox_of(request: Any) -> Toolbox:
    return getattr(request, "_toolbox", None) or Toolbox(None)


def translated(body: Json) -> tuple[Json, Toolbox]:
    """A request's body as vLLM takes it, and the tools that it offers.

    Raises:
        RequestError: a tool or an item lacks something.
    """
    body = {**body}
    tools, items = _list_of(body.get("tools")), _list_of(body.get("input"))
    if tools is None or (items is None and not isinstance(body.get("input"), str)):
        return body, Toolbox(None)  # which vLLM has words for
    tools = list(_known(tools, "tools", lambda tool: _is_hosted(tool) or run_by_client(tool)))
    items = [_with_known_tools(item, i) for i, item in enumerate(items or ())]
    hosted = [tool for tool in tools if _is_hosted(tool)]
    toolbox = Toolbox([tool for tool in tools if not _is_hosted(tool)], responses.brought_tools(items))
    if body.get("tools") is not None or toolbox.chat:
        body["tools"] = [*map(_function, toolbox.chat), *hosted]
    if items:
        body["input"] = [plain for i, item in enumerate(items) for plain in _item(item, f"input[{i}]", toolbox)]
    if isinstance(body.get("tool_choice"), Mapping):
        body["tool_choice"] = _choice(body["tool_choice"], toolbox)
    return body, toolbox


def _list_of(value: Any) -> list[Json] | None:
    """JSON's objects in a list; None: it is no such list."""
    if value is None:
        return []
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        return None
    found = [_plain(each) for each in value]
    return found if all(isinstance(each, dict) for each in found) else None


def _plain(value: Any) -> Any:
    """A value as JSON has it; callers inside a process give objects, too."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)
    return value


def _known(tools: Iterable[Any], where: str, known: Callable[[Mapping[str, Any]], bool]) -> Iterator[Any]:
    """The tools that somebody runs, and those that are none: what is wrong with them is told where they are read."""
    for i, tool in enumerate(tools):
        if not isinstance(tool, Mapping) or not isinstance(tool.get("type"), str):
            yield tool
        elif not known(tool):
            log.info("%s[%d]: %s, which this server does not run, was left out", where, i, tool["type"])
        elif tool["type"] == "namespace" and isinstance(tool.get("tools"), list):
            yield {**tool, "tools": list(_known(tool["tools"], f"{where}[{i}].tools", _is_named))}
        else:
            yield tool


def _is_named(tool: Mapping[str, Any]) -> bool:
    return tool["type"] in ("function", "custom")


def _is_hosted(tool: Mapping[str, Any]) -> bool:
    return tool.get("type") in HOSTED_TYPES


def _with_known_tools(item: Json, number: int) -> Json:
    tools = item.get("tools")
    if item.get("type") not in responses.BRINGING or not isinstance(tools, list):
        return item
    return {**item, "tools": list(_known(tools, f"input[{number}].tools", run_by_client))}


def _function(tool: Json) -> Json:
    """A tool of chat's as vLLM's Responses API has functions."""
    return {"description": None, "parameters": None, "strict": None, **tool_function(tool, "tools"), "type": "function"}


def _item(item: Json, where: str, toolbox: Toolbox) -> Iterator[Json]:
    kind = item.get("type") or "message"
    if responses.is_call_or_result(item):
        yield responses.as_function(item, where, toolbox)
    elif kind in _KEPT_ITEMS:
        yield item
    elif kind not in responses.BRINGING:
        log.info("%s: %s, which this server does not know, was left out", where, kind)


def _choice(choice: Mapping[str, Any], toolbox: Toolbox) -> Json:
    listed = _list_of(choice.get("tools")) if choice.get("type") == "allowed_tools" else None
    if listed is not None:
        return {**choice, "tools": [_choice(each, toolbox) for each in listed]}
    if choice.get("type") not in ("function", "custom", *TYPED):
        return {**choice}
    chosen = responses.choice_of(choice, "tool_choice", toolbox)
    return {"type": "function", "name": chosen[chosen["type"]]["name"]}


# Replies


@functools.lru_cache(maxsize=1)
def _types() -> tuple[TypeAdapter[Any], TypeAdapter[Any], TypeAdapter[Any]]:
    """Of items, events and tools; made once they are needed."""
    return TypeAdapter(ResponseOutputItem), TypeAdapter(ResponseStreamEvent), TypeAdapter(list[Tool])


def shown(response: Any, toolbox: Toolbox) -> Any:
    """A response with the calls and tools that the client knows. vLLM keeps the one that it stored."""
    if not toolbox.chat or not hasattr(response, "output"):
        return response  # without tools, or an error
    output = [_call(item, toolbox) for item in response.output]
    return response.model_copy(update={"output": output, "tools": _echo(toolbox, response.tools)})


def _echo(toolbox: Toolbox, tools: list[Any]) -> list[Any]:
    """The request's tools, as it had them. An older client library lacks the types of some."""
    hosted = [tool for tool in tools if tool.type in HOSTED_TYPES]
    try:
        return [*_types()[2].validate_python(toolbox.echo), *hosted]
    except ValidationError:
        return tools


def _call(item: Any, toolbox: Toolbox) -> Any:
    """An output item as the client knows its tool; what is no call of a tool with another name or type, as it is."""
    tool = _renamed(item, toolbox)
    if tool is None:
        return item
    made = responses.call_item(tool, item.arguments, item.call_id, item.status)
    # The same call has the same id wherever it is told.
    made["id"] = f"{responses.ID_PREFIXES[made['type']]}_{item.id.removeprefix('fc_')}"
    try:
        return _types()[0].validate_python(made)
    except ValidationError:  # an older client library
        return item


def _renamed(item: Any, toolbox: Toolbox) -> OfferedTool | None:
    """The tool of a call that the client knows in another form."""
    if not isinstance(item, ResponseFunctionToolCall) or getattr(item, "namespace", None) is not None:
        return None
    tool = toolbox.tool(item.name)
    return None if (tool.kind, tool.namespace) == ("function", None) else tool


class Calls:
    """Events of a stream, in the form that the client knows. One for each stream.

    Attributes:
        number: the next event's. Others may have gone before it that vLLM did not count, or fewer.
    """

    def __init__(self, toolbox: Toolbox) -> None:
        self.number = 0
        self._toolbox = toolbox
        #: The call that is being told, as the item last shown; None: it is shown once it is complete.
        self._item: Any = None
        self._tool: OfferedTool | None = None

    def show(self, event: Any) -> list[Any]:
        """What is sent in place of an event, numbered."""
        events = list(self._shown(event))
        for each in events:
            if hasattr(each, "sequence_number"):
                each.sequence_number = self.number
                self.number += 1
        return events

    def _shown(self, event: Any) -> Iterator[Any]:
        if hasattr(event, "response"):
            event.response = shown(event.response, self._toolbox)
            yield event
        elif event.type == "response.output_item.added":
            self._tool, self._item = _renamed(event.item, self._toolbox), None
            if self._tool is None or not self._tool.whole:
                event.item = self._item = _call(event.item, self._toolbox)
                yield event
        elif self._tool is None:
            yield event
        elif event.type == "response.output_item.done":
            event.item = _call(event.item, self._toolbox)
            yield from self._closed(event)
            yield event
            self._tool = None
        elif self._tool.kind == "function" and event.type == "response.function_call_arguments.delta":
            yield event

    def _closed(self, done: Any) -> Iterator[Any]:
        """What comes in front of a call's end."""
        if self._item is None:
            item = done.item.model_copy(update={"status": "in_progress"})
            yield ResponseOutputItemAddedEvent(
                type="response.output_item.added", sequence_number=0, output_index=done.output_index, item=item
            )
        place = {"item_id": done.item.id, "output_index": done.output_index, "sequence_number": 0}
        for event in responses.call_events(done.item.model_dump(exclude_none=True), place):
            yield _types()[1].validate_python(event)
