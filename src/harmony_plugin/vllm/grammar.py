"""A whole Harmony reply as one of xgrammar's structural tags: well-formed headers, declared recipients, free text.

Markers stand in it as token ids, so that their look-alikes spelled with ordinary tokens stay text. Headers are those of
`spellings`, in each way that models write them. Knows ids, names and schemas; nothing of vLLM, and splits nothing.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harmony_plugin.core import spellings

__all__ = ["Format", "Reply", "Tool", "available", "refusal"]

#: One of xgrammar's formats, as JSON has it.
Format = Mapping[str, Any]

#: Stands for a recipient's name while headers are spelled; no header holds it.
_NAME = "\0"
_OBJECT: Format = {"type": "json_schema", "json_schema": {"type": "object", "additionalProperties": True}}
_CALL_CHANNELS = ("commentary", "analysis")


class Tool(NamedTuple):
    """A function that may be called. ``schema`` None: its arguments are any object."""

    name: str
    schema: Any = None


@dataclass(frozen=True)
class Reply:
    """What a reply may be, from behind ``<|start|>assistant`` on.

    Args:
        markers: their ids, by kind.
        tools: those that may be called.
        builtin: recipients of gpt-oss's own tools that may be called.
        must_call: there is a call, and no answer.
        final: what the answer is held to; None: free text.
        preambles: commentary without a recipient may be written.
        channels: custom channels, as free as analysis.
        budget: most tokens of reasoning, in one message; None: any number of messages of any length.
    """

    markers: Mapping[str, int]
    tools: Sequence[Tool] = ()
    builtin: Sequence[str] = ()
    must_call: bool = False
    final: Format | None = None
    preambles: bool = True
    channels: Iterable[str] = field(default=())
    budget: int | None = None

    def tag(self) -> str:
        """The structural tag, as JSON.

        >>> ids = dict(start=1, end=2, message=3, channel=4, constrain=5, call=6)
        >>> json.loads(Reply(ids).tag())["type"]
        'structural_tag'
        """
        next_message = _sequence(self._token("end"), self._token("start"), _text("assistant"))
        said = [_sequence(header, self._free(), next_message) for header in self._aside()]
        aside = {"type": "star", "content": _any(said)} if said else None
        parts: list[Format] = [aside] if aside else []
        if self.budget is not None and self.budget > 0:
            thought = _sequence(self._header("analysis"), self._free(self.budget), next_message)
            parts.append({"type": "optional", "content": _sequence(thought, *parts)})
        return json.dumps({"type": "structural_tag", "format": _sequence(*parts, _any([*self._last()]))})

    def _aside(self) -> Iterable[Format]:
        """The headers of messages that another must follow, as often as the model likes."""
        if self.budget is None:
            yield from (self._header(channel) for channel in ("analysis", *self.channels))
        if self.preambles:
            yield self._header("commentary")

    def _last(self) -> Iterable[Format]:
        """The messages that end the reply."""
        if not self.must_call:
            # An end marker in front of the token that ends generation, as in a history.
            end: Format = {"type": "optional", "content": self._token("end")}
            yield _sequence(self._header("final", kind="json"), self.final or self._free(), end)
            if self.preambles:
                yield _sequence(self._header("commentary"), self._free(), end)
        strict = [tool for tool in self.tools if tool.schema is not None]
        loose = [tool.name for tool in self.tools if tool.schema is None]
        bodies = [([tool.name], {"type": "json_schema", "json_schema": tool.schema}) for tool in strict]
        for names, body in [*bodies, *([(loose, _OBJECT)] if loose else [])]:
            for channel in _CALL_CHANNELS if self.budget is None else _CALL_CHANNELS[:1]:
                yield _sequence(self._header(channel, names, "json", "functions."), body)
        if self.builtin:
            yield _sequence(self._header("analysis", self.builtin, "code"), self._free())

    def _header(self, channel: str, names: Sequence[str] = (), kind: str | None = None, owner: str = "") -> Format:
        """A message's header, its ``<|message|>`` included, for any of these recipients, ``owner`` in front of each."""
        spelled = spellings(channel, f"{owner}{_NAME}" if names else None, kind)
        recipients = _any([_text(name) for name in names]) if names else None
        return _any([_sequence(*self._sections(form, recipients), self._token("message")) for form in spelled])

    def _sections(self, form: Sequence[tuple[str, str]], recipients: Format | None) -> Iterable[Format]:
        for place, (marker, text) in enumerate(form):
            if place:  # the first <|start|> stands in the prompt, or behind the message before
                yield self._token(marker)
            before, named, behind = text.partition(_NAME)
            if before:
                yield _text(before)
            if named and recipients is not None:
                yield recipients
            if behind:
                yield _text(behind)

    def _token(self, kind: str) -> Format:
        return {"type": "token", "token": self.markers[kind]}

    def _free(self, most: int | None = None) -> Format:
        """Any tokens but the markers."""
        free: dict[str, Any] = {"type": "any_tokens", "exclude_tokens": sorted(set(self.markers.values()))}
        return free if most is None else {**free, "max_tokens": most}


@functools.cache
def available() -> bool:
    """Whether the xgrammar at hand takes such tags."""
    ids = {"start": 1, "end": 2, "message": 3, "channel": 4, "constrain": 5, "call": 6}
    return refusal(Reply(ids, [Tool("f")], budget=1).tag()) is None


def refusal(tag: Any) -> str | None:
    """Why xgrammar takes no such tag; None: it does."""
    try:
        from xgrammar import Grammar

        Grammar.from_structural_tag(tag)
    except Exception as error:  # an older release has no such class, or no such format
        return str(error)
    return None


def _text(value: str) -> Format:
    return {"type": "const_string", "value": value}


def _sequence(*elements: Format) -> Format:
    return {"type": "sequence", "elements": list(elements)}


def _any(elements: Sequence[Format]) -> Format:
    return elements[0] if len(elements) == 1 else {"type": "or", "elements": list(elements)}
