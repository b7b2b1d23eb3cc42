"""A row of a data set, split: what `ray.data.llm` hands to `postprocess`, or any row with a model's output in it.

Knows columns and the core. Knows neither Ray nor Arrow.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core import Options, Reply, parse

__all__ = ["FIELDS", "Columns", "fields", "options_from_environment", "reply_of", "split"]

#: The columns that splitting adds. Those of the same name in the input are replaced.
FIELDS = ("reasoning_content", "content", "tool_calls", "reasoning_tokens", "issues")


@dataclass(frozen=True)
class Columns:
    """Where the parts of a reply stand in a row. The defaults are the names of `ray.data.llm`.

    Args:
        output: the model's output, token ids or text. Ids are exact: text cannot tell a marker from its spelling.
        prompt: the prompt, ids or text; its end says where the output goes on. May be missing.
        tools: the request's tools, names or OpenAI tools, or the JSON of such a list. May be missing.
    """

    output: str = "generated_tokens"
    prompt: str = "prompt_token_ids"
    tools: str = "tools"


_DEFAULT = Columns()


def split(row: Mapping[str, Any], columns: Columns = _DEFAULT, options: Options | None = None) -> dict[str, Any]:
    """The row with its reply's fields added, for ``postprocess`` of `ray.data.llm.build_processor` and ``Dataset.map``.

    >>> from harmony_plugin.ray import Columns, split
    >>> split({"id": 7, "text": "<|channel|>final<|message|>4"}, Columns(output="text"))["content"]
    '4'

    Args:
        row: token ids may be lists or arrays.
        columns: the names of the row's columns.
        options: how it is split; None: as ``HARMONY_*`` says in the worker's environment.

    Returns:
        The row, with ``reasoning_content`` and ``content`` (None where there is none), ``tool_calls`` (OpenAI's shape),
        ``reasoning_tokens`` (None for text) and ``issues`` (the codes of what was wrong with the output).

    Raises:
        KeyError: the row has no such output.
        HarmonyParseError: strict mode met an issue.
    """
    return {**row, **fields(reply_of(row, columns, options or options_from_environment()))}


def reply_of(row: Mapping[str, Any], columns: Columns, options: Options) -> Reply:
    """The reply in a row. A missing output (null) is an empty one."""
    tools = row.get(columns.tools)
    return parse(
        _plain(row[columns.output]) or "",
        prompt=_plain(row.get(columns.prompt)),
        tools=json.loads(tools) if isinstance(tools, str) else _plain(tools),
        options=options,
    )


def fields(reply: Reply) -> dict[str, Any]:
    """A reply as columns."""
    return {
        "reasoning_content": reply.reasoning_content,
        "content": reply.content,
        "tool_calls": [call.to_openai() for call in reply.tool_calls],
        "reasoning_tokens": reply.reasoning_tokens,
        "issues": [issue.code for issue in reply.issues],
    }


@functools.lru_cache(maxsize=1)
def options_from_environment() -> Options:
    """How the settings say that replies are split, read once a process."""
    from ..settings import read

    return read().options()


def _plain(value: Any) -> Any:
    """Arrays as lists: Ray hands over Arrow's columns as numpy's."""
    return value.tolist() if hasattr(value, "tolist") else value
