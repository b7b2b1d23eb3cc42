"""The core's deltas as vLLM's messages. Translates types; splits nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harmony_plugin import Delta, ToolCallDelta

from . import seams
from .settings import from_environment

__all__ = ["added", "delta_message", "function_calls", "with_id"]

_vllm = seams.load()
_reasoning_content = from_environment().reasoning_content


def delta_message(delta: Delta, reasons: bool) -> Any:
    """A `Delta` as vLLM's ``DeltaMessage``; None where there is nothing to send."""
    reasoning, content, calls = delta.reasoning_content if reasons else None, delta.content, delta.tool_calls
    if calls:
        message = _vllm.DeltaMessage(tool_calls=[_call(call) for call in calls])
        if content is not None:
            message.content = content
        if reasoning is not None:
            message.reasoning = reasoning
    elif content is not None:
        message = _vllm.DeltaMessage(content=content)
        if reasoning is not None:
            message.reasoning = reasoning
    elif reasoning is not None:
        message = _vllm.DeltaMessage(reasoning=reasoning)
    else:
        return None
    if reasoning is not None and _reasoning_content:
        # An extra field of the model, which OpenAI's clients read; vLLM's own name for it is `reasoning`.
        message.model_extra["reasoning_content"] = reasoning
    return message


def _call(call: ToolCallDelta) -> Any:
    if call.id is None:
        return _vllm.DeltaToolCall(index=call.index, function=_vllm.DeltaFunctionCall(arguments=call.arguments))
    function = _vllm.DeltaFunctionCall(name=call.name, arguments=call.arguments)
    return _vllm.DeltaToolCall(index=call.index, id=call.id, type="function", function=function)


def added(first: Delta, last: Delta) -> Delta:
    """Two deltas of one stream as one."""
    if not last:
        return first
    if first.reasoning_content is not None:
        last.reasoning_content = first.reasoning_content + (last.reasoning_content or "")
    if first.content is not None:
        last.content = first.content + (last.content or "")
    if first.tool_calls:
        last.tool_calls = first.tool_calls + last.tool_calls
    return last


def function_calls(deltas: Sequence[ToolCallDelta]) -> list[Any]:
    """The calls that these pieces add up to."""
    arguments: dict[int, list[str]] = {}
    heads = []
    for delta in deltas:
        if delta.id is not None:
            heads.append(delta)
        arguments.setdefault(delta.index, []).append(delta.arguments)
    return [
        _vllm.FunctionCall(**with_id(head.id), name=head.name, arguments="".join(arguments[head.index]))
        for head in heads
    ]


def with_id(call: str | None) -> dict[str, Any]:
    """Whole replies keep the core's id where vLLM's function call has room for one."""
    return {"id": call} if "id" in _vllm.FunctionCall.model_fields else {}
