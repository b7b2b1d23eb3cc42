"""The core against `canitoolcall`, the public suite for tool-call parsers: all its gpt-oss fixtures and chunkings.

Through the suite's own pytest plugin, by ids and by text. `make conformance` runs the same fixtures through the servers
and through what others have, and writes docs/conformance.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("canitoolcall", reason="needs the extra dev")

from canitoolcall.chunking import ChunkStrategy, split, split_text
from canitoolcall.pytest_plugin import assert_conforms, assert_equivalent
from canitoolcall.results import ParsedToolCall, ParseResult

from harmony_plugin import Delta, Dialect, Reply, Stream, parse

#: Beside the suite's own choice: every character alone, and more seeds.
MORE = [ChunkStrategy.parse(name) for name in ("char:0", "char:1", "rand:6:2", "rand:7:3", "rand:8:40")]
SPECIAL = frozenset(Dialect().ids.values())
MARKER = re.compile(f"({'|'.join(map(re.escape, Dialect().markers.values()))})")

# Fixture: why docs/spec.md decides otherwise. A deviation that is gone fails its test, so that this list stays true.
_PARTIAL = (
    "SPEC 5: output that ends inside a body is that body; a cut call is a call with partial arguments, and length"
)
_BUILTIN = (
    "SPEC 4: a built-in that nobody declared is a call where the request offers tools: the agent answers that there is "
    "no such tool, and the model goes on; the suite wants the empty turn that ends it"
)
BY_IDS = {
    "gpt-oss/harmony-truncated-in-arguments": _PARTIAL,
    "gpt-oss/llamacpp-builtin-python-recipient": _BUILTIN,
}
_SPELLED = "SPEC 2: in text, marker strings are markers wherever they stand; only ids tell the spelled ones apart"
BY_TEXT = BY_IDS | {
    "gpt-oss/harmony-marker-in-arguments": _SPELLED,
    "gpt-oss/harmony-marker-in-reasoning": _SPELLED,
}


def result(told: Reply | Delta) -> ParseResult:
    calls = tuple(ParsedToolCall(call.name or "", call.arguments) for call in told.tool_calls)
    return ParseResult(content=told.content, reasoning_content=told.reasoning_content, tool_calls=calls)


def streamed(chunks: Sequence[Any], tools: Any) -> ParseResult:
    """What a client adds up from the deltas."""
    return result(sum(Stream(tools=tools).deltas(chunks), Delta()))


def check(fixture: Any, found: ParseResult, explained: dict[str, str]) -> None:
    if fixture.id in explained:
        with pytest.raises(AssertionError, match="does not conform"):
            assert_conforms(fixture, found)
    else:
        assert_conforms(fixture, found)


def test_ids(canitoolcall_fixture: Any) -> None:
    whole = parse(list(canitoolcall_fixture.output_token_ids), tools=canitoolcall_fixture.tools)
    check(canitoolcall_fixture, result(whole), BY_IDS)


def test_text(canitoolcall_fixture: Any) -> None:
    whole = parse(canitoolcall_fixture.raw_output, tools=canitoolcall_fixture.tools)
    check(canitoolcall_fixture, result(whole), BY_TEXT)


def check_ids(fixture: Any, strategy: ChunkStrategy) -> None:
    ids = list(fixture.output_token_ids)
    found = streamed(split(ids, strategy, special=SPECIAL), fixture.tools)
    assert_equivalent(result(parse(ids, tools=fixture.tools)), found)
    check(fixture, found, BY_IDS)


def check_text(fixture: Any, strategy: ChunkStrategy) -> None:
    if strategy.kind == "special":  # the same in text: markers alone
        chunks = [chunk for chunk in MARKER.split(fixture.raw_output) if chunk]
    else:
        chunks = split_text(fixture.raw_output, strategy)
    found = streamed(chunks, fixture.tools)
    assert_equivalent(result(parse(fixture.raw_output, tools=fixture.tools)), found)
    check(fixture, found, BY_TEXT)


def test_ids_in_chunks(canitoolcall_fixture: Any, canitoolcall_strategy: Any) -> None:
    check_ids(canitoolcall_fixture, canitoolcall_strategy)


def test_text_in_chunks(canitoolcall_fixture: Any, canitoolcall_strategy: Any) -> None:
    check_text(canitoolcall_fixture, canitoolcall_strategy)


@pytest.mark.parametrize("strategy", MORE, ids=lambda strategy: strategy.id)
def test_ids_in_more_chunks(canitoolcall_fixture: Any, strategy: ChunkStrategy) -> None:
    check_ids(canitoolcall_fixture, strategy)


@pytest.mark.parametrize("strategy", MORE, ids=lambda strategy: strategy.id)
def test_text_in_more_chunks(canitoolcall_fixture: Any, strategy: ChunkStrategy) -> None:
    check_text(canitoolcall_fixture, strategy)
