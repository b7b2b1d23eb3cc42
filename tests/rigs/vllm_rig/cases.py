"""The split cases as scripts for a server, and the reply that the core gives on the ids that the server sees."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .replies import Fields, Item, Script, encode, encode_plain, function_tool

FILE = Path(__file__).resolve().parents[2] / "cases" / "split.jsonl"


@dataclass(frozen=True)
class Case:
    """One line of `split.jsonl`."""

    id: str
    ids: tuple[int, ...]
    tools: tuple[Mapping[str, Any], ...]
    expected: Fields

    @property
    def script(self) -> Script:
        return Script(self.ids)

    @property
    def has_inner_stop(self) -> bool:
        """Whether a server would end before the script does."""
        return len(self.script.seen) < len(self.ids)


def _ids(line: Mapping[str, Any]) -> tuple[int, ...]:
    if "token_ids" in line:
        return tuple(line["token_ids"])
    if "segments" in line:
        parts = ((encode if kind == "special" else encode_plain)(text) for kind, text in line["segments"])
        return tuple(token for part in parts for token in part)
    return tuple(encode(line["raw"]))


def _tools(line: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The tools on offer. Where a case leaves them open, a client that gets calls has declared what is called."""
    if "tools" in line:
        return tuple(function_tool(tool) if isinstance(tool, str) else tool for tool in line["tools"])
    names = dict.fromkeys(call["name"] for call in line["expected"]["tool_calls"])
    return tuple(function_tool(name) for name in (*names, "never_called"))


def load() -> list[Case]:
    """Every case, in the file's order."""
    cases = []
    for text in FILE.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        expected = line["expected"]
        calls = [(call["name"], call["arguments"]) for call in expected["tool_calls"]]
        cases.append(Case(line["id"], _ids(line), _tools(line), (expected["reasoning"], expected["content"], calls)))
    return cases


@dataclass(frozen=True)
class Right:
    """What the core gives. ``items``: an item a message, those without text left out."""

    fields: Fields
    reasoning_tokens: int
    finish: str
    items: list[Item]


def right(script: Script, tools: Sequence[Mapping[str, Any]], **options: Any) -> Right:
    """The core's reply on the ids that the server sees of a script. `options`: fields of the core's `Options`."""
    from harmony_plugin import Options, Started, Stream, Text

    stream = Stream(tools=list(tools), options=Options(**options))
    items: list[Item] = []
    for event in stream.feed_events(list(script.seen)) + stream.finish_events():
        if isinstance(event, Started) and event.field is not None:
            items.append(Item(event.field, "", event.call.name if event.call else None))
        elif isinstance(event, Text):
            items[-1] = items[-1]._replace(text=items[-1].text + event.text)
    reply = stream.reply
    assert reply.reasoning_tokens is not None, "ids carry their count"
    fields = (reply.reasoning_content, reply.content, [(call.name, call.arguments) for call in reply.tool_calls])
    spoken = [item for item in items if item.text]
    return Right(fields, reply.reasoning_tokens, reply.finish_reason(cut=script.cut), spoken)
