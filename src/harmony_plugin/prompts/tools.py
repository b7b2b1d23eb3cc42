"""OpenAI's tools, function and custom ones, in chat or responses shape: the one reading of their names and fields.

Knows nothing of prompts or servers. A custom tool takes free text; for the model it is a function with one string.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..core import RequestError
from .parts import encodable
from .schema import inlined, nests_too_deep

__all__ = ["custom_arguments", "custom_input", "described", "tool_function", "tool_name"]


def tool_name(tool: Any, where: str) -> str:
    """The name of a function or custom tool.

    Raises:
        RequestError: it is anything else; ``where`` is the path of the field.
    """
    if not isinstance(tool, Mapping):
        raise RequestError(f"{where} is not an object", where, "invalid_type")
    kind = tool.get("type", "function")
    if kind not in ("function", "custom"):
        raise RequestError(
            f"{where}.type is {kind!r}; only function and custom tools can be served", f"{where}.type", "invalid_value"
        )
    inner = tool.get(kind, tool)
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(name, str) or not name.strip():
        raise RequestError(f"{where}.{kind}.name is missing", f"{where}.{kind}.name", "missing_required_parameter")
    return encodable(name)


def tool_function(tool: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """What the model is offered for a tool, as a function.

    Raises:
        RequestError: it is neither kind; ``where`` is the path of the field.
    """
    name = tool_name(tool, where)
    if tool.get("type") != "custom":
        return tool.get("function", tool)  # type: ignore[no-any-return]
    custom = tool.get("custom", tool)
    text: dict[str, Any] = {"type": "string"}
    form = custom.get("format")
    if form is not None and not isinstance(form, Mapping):
        raise RequestError(f"{where}.custom.format is not an object", f"{where}.custom.format", "invalid_type")
    grammar = form.get("grammar", form) if form is not None and form.get("type") == "grammar" else None
    if isinstance(grammar, Mapping) and isinstance(grammar.get("definition"), str):
        text["description"] = f"Follows this {grammar.get('syntax', 'lark')} grammar:\n{grammar['definition']}"
    parameters = {"type": "object", "properties": {"input": text}, "required": ["input"], "additionalProperties": False}
    return {"name": name, "description": custom.get("description"), "parameters": parameters}


def custom_arguments(text: str) -> str:
    """The arguments that stand for a custom tool's ``input``."""
    return json.dumps({"input": text}, ensure_ascii=False)


def custom_input(arguments: str) -> str:
    """The ``input`` of a custom tool's call; what is not the object asked for is passed on as it stands."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value["input"] if isinstance(value, dict) and isinstance(value.get("input"), str) else arguments


def described(tool: Mapping[str, Any], where: str) -> str:
    """A tool as JSON text with name, description and parameters; parameters too deep for any reader become ``{}``."""
    function = tool_function(tool, where)
    description = function.get("description")
    parameters = function.get("parameters")
    if parameters is not None and (not isinstance(parameters, Mapping) or nests_too_deep(parameters)):
        parameters = {}
    value = {
        "name": tool_name(tool, where),
        "description": description if isinstance(description, str) else "",
        "parameters": parameters and inlined(parameters),
    }
    return encodable(json.dumps(value, ensure_ascii=False))
