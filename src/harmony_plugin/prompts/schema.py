"""JSON Schemas that clients send: how deep they nest, what their references mean, and how large they may grow.

Knows nothing of tools, formats or prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["MAX_SCHEMA_DEPTH", "inlined", "nests_too_deep", "referenced"]

#: Deeper schemas would only come from an attack; the Harmony library's JSON reader gives up at 128.
MAX_SCHEMA_DEPTH = 64
#: Values that references may put in the place of themselves: a few lines of them can ask for billions.
MOST_VALUES = 20_000


def nests_too_deep(value: Any) -> bool:
    """Whether a JSON value nests deeper than `MAX_SCHEMA_DEPTH`; told without recursion."""
    depth, level = 0, [value]
    while level and depth <= MAX_SCHEMA_DEPTH:
        depth += 1
        level = [
            child
            for item in level
            if isinstance(item, Mapping | list | tuple)
            for child in (item.values() if isinstance(item, Mapping) else item)
        ]
    return depth > MAX_SCHEMA_DEPTH


def referenced(root: Any, reference: str) -> Any:
    """What a local reference (``#/$defs/…``) in a JSON Schema stands for; None for nothing. ``root``: all of it."""
    value = root
    for step in reference.removeprefix("#").split("/")[1:] if reference.startswith("#/") else [""]:
        value = value.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(value, Mapping) else None
    return value


def inlined(schema: Mapping[str, Any]) -> Any:
    """A schema with its local references, as pydantic writes them, put in place, which the Harmony library cannot.

    A reference to something around itself, to nowhere, or one too many becomes ``{}``: any value.
    """
    refers = "$ref" in schema or "$defs" in schema or "definitions" in schema
    return _Inlining(schema).walk(schema, ()) if refers else schema


class _Inlining:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = MOST_VALUES

    def walk(self, value: Any, inside: tuple[str, ...]) -> Any:
        """``value`` with its references in place. ``inside``: those that led to it."""
        self._left -= 1
        if isinstance(value, list | tuple):
            return [self.walk(item, inside) for item in value]
        if not isinstance(value, Mapping):
            return value
        reference = value.get("$ref")
        if not isinstance(reference, str):
            return {k: self.walk(v, inside) for k, v in value.items() if k not in ("$defs", "definitions")}
        beside = {k: self.walk(v, inside) for k, v in value.items() if k != "$ref"}
        target = referenced(self._root, reference)
        if reference in inside or not isinstance(target, Mapping) or self._left <= 0 or len(inside) >= MAX_SCHEMA_DEPTH:
            return beside
        return {**self.walk(target, (*inside, reference)), **beside}
