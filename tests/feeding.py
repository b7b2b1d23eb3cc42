"""How the tests feed a reply to the core: as text, as ids, cut anywhere; and how they look at what comes out.

`split` is the tests' own `parse`: it takes a reply in every way at once and fails where two ways differ (promise 4).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from harmony_plugin import Delta, HarmonyParseError, Issue, Options, Reply, Stream, ToolCall, parse
from harmony_plugin.core.issues import BY_SETTING
from harmony_plugin.core.vocabulary import harmony_encoding

Chunk = str | Sequence[int]


def encode(text: str) -> list[int]:
    """Ids of a reply whose markers are spelled out."""
    return list(harmony_encoding().encode(text, allowed_special="all"))


def encode_plain(text: str) -> list[int]:
    """Ids of ordinary tokens alone: what looks like a marker is text."""
    return list(harmony_encoding().encode(text, disallowed_special=()))


def cut(output: Chunk, places: Iterable[int]) -> list[Chunk]:
    """The output in chunks, cut before each of the places."""
    edges = [0, *sorted(places), len(output)]
    return [output[begin:end] for begin, end in itertools.pairwise(edges)]


def pairs(size: int, limit: int, seed: int) -> Iterator[tuple[int, int]]:
    """All pairs of places to cut at, or as many as the limit allows, drawn by chance."""
    whole = [(one, other) for one in range(1, size) for other in range(one + 1, size)]
    return iter(whole if len(whole) <= limit else random.Random(seed).sample(whole, limit))


class Total:
    """Deltas added up, as a client does; it fails on deltas that a client could not add up."""

    def __init__(self) -> None:
        self.sum = Delta()

    def add(self, delta: Delta) -> Delta:
        assert bool(delta) == bool(delta.reasoning_content or delta.content or delta.tool_calls)
        assert delta.reasoning_content != ""
        assert delta.content != ""
        begun = len(self.sum.tool_calls)
        for call in delta.tool_calls:
            if call.id is not None:
                assert call.name, "id and name come together"
                assert call.index == begun, "calls are numbered from 0, one by one"
                begun += 1
            else:
                assert call.index < begun
                assert call.name is None
                assert call.arguments != ""
        self.sum += delta
        return delta

    @property
    def fields(self) -> tuple[str | None, str | None, list[tuple[Any, Any]]]:
        return fields(self.sum)


def fields(told: Reply | Delta) -> tuple[str | None, str | None, list[tuple[Any, Any]]]:
    """Reasoning, content, and the calls' names and arguments."""
    return told.reasoning_content, told.content, [(call.name, call.arguments) for call in told.tool_calls]


def codes(reply: Reply) -> list[str]:
    return [issue.code for issue in reply.issues]


def texts(reply: Reply, code: str) -> list[str]:
    """The texts of the issues of one code."""
    return [issue.text for issue in reply.issues if issue.code == code]


def without_call_ids(reply: Reply) -> Reply:
    """The reply with the one thing that chance decides taken out."""
    return reply._replace(tool_calls=tuple(ToolCall("", call.name, call.arguments) for call in reply.tool_calls))


def feed(chunks: Iterable[Chunk], **how: Any) -> tuple[Total, Stream]:
    """A finished stream that was fed the chunks, and its deltas added up."""
    stream, total = Stream(**how), Total()
    for chunk in chunks:
        total.add(stream.feed(chunk))
    total.add(stream.finish())
    return total, stream


def check_chunks(chunks: Sequence[Chunk], whole: Reply, **how: Any) -> None:
    """Promise 4: the deltas add up to the reply, and the stream's reply is the one on the whole, issues included."""
    total, stream = feed(chunks, **how)
    reply = stream.reply
    assert without_call_ids(reply) == without_call_ids(whole), chunks
    assert total.fields == fields(reply), chunks
    assert [call.id for call in total.sum.tool_calls] == [call.id for call in reply.tool_calls]


def signs(issues: Iterable[Issue]) -> list[tuple[str, str]]:
    """Issues without their offsets, which are counted in ids or in characters."""
    return [(issue.code, issue.text) for issue in issues]


def split(
    raw: str,
    *,
    prompt: str | None = None,
    tools: Any = None,
    options: Options | None = None,
    ids: Sequence[int] | None = None,
) -> Reply:
    """Parse as text and as ids, whole and in single characters, tokens and halves; all must agree. Gives the text's."""
    how: dict[str, Any] = {"prompt": prompt, "tools": tools, "options": options}
    reply = parse(raw, **how)
    check_chunks(list(raw), reply, **how)
    check_chunks(cut(raw, [len(raw) // 2]), reply, **how)
    how_ids = how | {"prompt": None if prompt is None else encode(prompt)}
    tokens = encode(raw) if ids is None else ids
    by_ids = parse(tokens, **how_ids)
    check_chunks([[token] for token in tokens], by_ids, **how_ids)
    check_chunks(cut(tokens, [len(tokens) // 2]), by_ids, **how_ids)
    assert fields(by_ids) == fields(reply)
    assert by_ids.messages == reply.messages
    assert signs(by_ids.issues) == signs(reply.issues)
    check_strict(raw, reply, **how)
    return reply


def check_strict(output: Chunk, reply: Reply, **how: Any) -> None:
    """Strict mode raises at the first issue, with the same code, and otherwise gives the same reply."""
    strict = replace(how.pop("options", None) or Options(), strict=True)
    first = next((issue for issue in reply.issues if issue.code not in BY_SETTING), None)
    if first is None:
        assert without_call_ids(parse(output, options=strict, **how)) == without_call_ids(reply)
        return
    with pytest.raises(HarmonyParseError) as caught:
        parse(output, options=strict, **how)
    assert caught.value.issue == first
    error = caught.value
    assert (error.code, error.offset, error.text, error.unit) == first
