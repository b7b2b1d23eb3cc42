"""The core's deltas and calls as vLLM has them. Translates types; splits nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harmony_plugin import Delta, ToolCallDelta

from . import seams
from .settings import from_environment

__all__ = ["delta_message", "function_calls", "with_id"]

_vllm = seams.load()
_names = from_environment().reasoning_names
#: vLLM's own name for it, and the one that most clients read: an extra field of the model.
_own, _extra = "reasoning" in _names, "reasoning_content" in _names


def delta_message(delta: Delta, reasons: bool, told: dict[str, Any] | None = None) -> Any:
    """A `Delta` as vLLM's ``DeltaMessage``; None where there is nothing to send.

    Args:
        reasons: send reasoning, too.
        told: what debugging shows of the reply that ends with it.
    """
    if told is not None:
        message = delta_message(delta, reasons) or _vllm.DeltaMessage()
        message.model_extra["harmony"] = told
        return message
    content = delta.content
    reasoning = delta.reasoning_content if reasons else None
    if delta.tool_calls:
        return _validated(reasoning, content, tool_calls=[_call(call) for call in delta.tool_calls])
    if content is None and reasoning is None:
        return None
    return _text_message(reasoning, content)


def _validated(reasoning: str | None, content: str | None, **calls: Any) -> Any:
    """A message as pydantic makes it; what is None is left out."""
    texts = {"content": content, "reasoning": reasoning if _own else None}
    message = _vllm.DeltaMessage(**calls, **{name: text for name, text in texts.items() if text is not None})
    if reasoning is not None and _extra:
        message.model_extra["reasoning_content"] = reasoning
    return message


def _assembled() -> Callable[[str | None, str | None], Any]:
    """The same without validation, which costs more than splitting a token does: the text is known to be text.

    Fills in what pydantic's own ``model_construct`` does (far faster than it). Where that makes another message than
    validation does, in some other pydantic, validation it is.
    """
    model, new = _vllm.DeltaMessage, object.__new__
    slots = ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
    try:
        base = next(owner for owner in model.__mro__ if all(slot in vars(owner) for slot in slots))
        set_values, set_names, set_extra, set_private = (vars(base)[slot].__set__ for slot in slots)
        blank = dict(vars(model()))
    except (AttributeError, StopIteration):
        return _validated

    def assemble(reasoning: str | None, content: str | None) -> Any:
        message = new(model)
        values = blank.copy()
        values["tool_calls"] = []
        extra = {}
        if content is None:
            if _own:
                values["reasoning"] = reasoning
                names = {"reasoning"}
            else:
                names = set()
        else:
            values["content"] = content
            names = {"content"}
            if reasoning is not None and _own:
                values["reasoning"] = reasoning
                names.add("reasoning")
        if reasoning is not None and _extra:
            extra["reasoning_content"] = reasoning
        set_values(message, values)
        set_names(message, names)
        set_extra(message, extra)
        set_private(message, None)
        return message

    for texts in (("a", None), (None, "b"), ("a", "b")):
        try:
            made, right = assemble(*texts), _validated(*texts)
            same = made == right and all(
                made.model_dump_json(exclude_unset=unset) == right.model_dump_json(exclude_unset=unset)
                for unset in (True, False)
            )
        except Exception:
            same = False
        if not same:
            return _validated
    return assemble


def _call(call: ToolCallDelta) -> Any:
    if call.id is None:
        return _vllm.DeltaToolCall(index=call.index, function=_vllm.DeltaFunctionCall(arguments=call.arguments))
    function = _vllm.DeltaFunctionCall(name=call.name, arguments=call.arguments)
    return _vllm.DeltaToolCall(index=call.index, id=call.id, type="function", function=function)


def function_calls(calls: Sequence[ToolCallDelta]) -> list[Any]:
    """The calls of a whole reply."""
    return [_vllm.FunctionCall(**with_id(call.id), name=call.name, arguments=call.arguments) for call in calls]


def with_id(call: str | None) -> dict[str, Any]:
    """Whole replies keep the core's id where vLLM's function call has room for one."""
    return {"id": call} if "id" in _vllm.FunctionCall.model_fields else {}


_text_message = _assembled()
