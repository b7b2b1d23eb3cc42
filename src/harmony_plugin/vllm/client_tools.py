"""Tools of agents that vLLM's Harmony path of ``/v1/responses`` refuses, as it takes them.

A ``namespace`` (Codex's MCP servers and sub-agents) becomes functions named ``namespace__name``; their calls come back
with ``name`` and ``namespace``. The search that Codex sends unasked is left out. Parts of a tool's output become text.
Knows requests and replies of vLLM's Responses API as objects; knows no Harmony.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from openai.types.responses import FunctionTool, ResponseFunctionToolCall

from harmony_plugin import RequestError
from harmony_plugin.prompts import content_text

from . import seams

__all__ = ["rename_calls", "translate"]

log = logging.getLogger(__name__)


def translate(request: Any) -> None:
    """Change a request so that vLLM takes its tools and its tools' outputs.

    Raises:
        ValidationError: vLLM's, for an output that is neither text nor a list of parts.
    """
    request.tools = [plain for tool in request.tools or () for plain in _plain(tool)]
    if isinstance(request.input, list):
        request.input = [_item(item, i) for i, item in enumerate(request.input)]


def rename_calls(holder: Any, tools: Iterable[Any] | None) -> None:
    """Give the calls in a response, or in an event of a stream, the names that the client knows.

    Args:
        tools: the request's, as `translate` made them.
    """
    spaces = {tool.name: tool.namespace for tool in tools or () if getattr(tool, "namespace", None)}
    if not spaces:
        return
    response = getattr(holder, "response", holder)
    for call in (holder, getattr(holder, "item", None), *(getattr(response, "output", None) or ())):
        namespace = spaces.get(getattr(call, "name", None) or "")
        if namespace is not None and getattr(call, "namespace", None) is None:
            call.name, call.namespace = call.name.removeprefix(f"{namespace}__"), namespace


def _plain(tool: Any) -> list[Any]:
    if tool.type == "web_search" and getattr(tool, "external_web_access", None) is not None:
        log.info("web_search, which this server does not run, was left out of a request")
        return []
    if tool.type != "namespace":
        return [tool]
    functions = [inner for inner in tool.tools if inner.type == "function"]
    # There is no other place for what is said of all of them.
    told = [tool.description] + [None] * len(functions)
    return [
        FunctionTool.model_validate(
            {
                **inner.model_dump(by_alias=True),
                "name": f"{tool.name}__{inner.name}",
                "namespace": tool.name,
                "description": "\n\n".join(filter(None, (of_all, inner.description))) or None,
            }
        )
        for inner, of_all in zip(functions, told, strict=False)
    ]


def _item(item: Any, number: int) -> Any:
    if isinstance(item, ResponseFunctionToolCall) and item.namespace:
        return item.model_copy(update={"name": f"{item.namespace}__{item.name}"})
    if isinstance(item, dict) and item.get("type") == "function_call_output" and not isinstance(item["output"], str):
        where = f"input[{number}].output"
        try:
            return {**item, "output": content_text(item["output"], where, media=True, between="\n")}
        except RequestError as error:
            raise seams.load().ValidationError(error.message) from error
    return item
