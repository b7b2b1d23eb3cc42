"""Chat prompts for gpt-oss from `harmony_plugin.prompts` in place of vLLM's own, where the operator asks for them.

Knows vLLM's chat requests by their fields' names. ``/v1/responses`` keeps vLLM's prompts: its tool loops render them
anew from messages of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from harmony_plugin import RequestError
from harmony_plugin.prompts import Prompts

from . import seams
from .settings import from_environment

__all__ = ["on_chat_prompts"]


def on_chat_prompts(original: Any) -> Any:
    """``OnlineRenderer._make_request_with_harmony``: a chat request to its messages and the engine's input."""

    def render(self: Any, request: Any, should_include_tools: bool = True) -> Any:
        # Parts and calls may come as iterators that can be read once.
        request.messages = _plain(request.messages)
        messages, inputs = original(self, request, should_include_tools)
        if messages:  # else the request brought its ids along
            effort = request.reasoning_effort
            effort = (getattr(self, "reasoning_effort_map", None) or {}).get(effort, effort)
            tools = _plain(request.tools) if should_include_tools else None
            try:
                inputs[0]["prompt_token_ids"] = _prompts().render(
                    request.messages, tools=tools, reasoning_effort=effort
                )
            except RequestError as error:
                raise seams.load().ValidationError(error.message) from None
        return messages, inputs

    return render


@functools.lru_cache(maxsize=1)
def _prompts() -> Prompts:
    options = from_environment().prompt_options()
    fixed = seams.load().start_date()
    if from_environment().current_date is None and fixed is not None:
        options = replace(options, current_date=fixed)
    return Prompts(options)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_none=True)
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_plain(each) for each in value]
    return value
