"""The public surface: the exact list of names, their signatures, what they say of themselves, and their examples."""

from __future__ import annotations

import asyncio
import doctest
import inspect
import re
import typing
from collections.abc import AsyncIterator
from typing import Any

import pytest

import harmony_plugin
from harmony_plugin import (
    CODES,
    Code,
    Delta,
    Dialect,
    HarmonyError,
    HarmonyParseError,
    Issue,
    Options,
    Reply,
    RequestError,
    Stream,
    parse,
)

_CHUNK = "str | Sequence[int]"
_STREAM = (
    f"(prompt: '{_CHUNK} | None' = None, tools: 'Iterable[str | Mapping[str, Any]] | None' = None, options: "
    "'Options | None' = None, decode: 'Callable[[int], bytes] | Vocabulary | None' = None) -> 'None'"
)
#: Every public name and its signature; None for what is no class and no function.
PUBLIC: dict[str, str | None] = {
    "CODES": None,
    "Code": None,
    "Delta": "(reasoning_content: 'str | None' = None, content: 'str | None' = None, "
    "tool_calls: 'tuple[ToolCallDelta, ...]' = ()) -> 'None'",
    "Dialect": "(*, markers: 'Mapping[str, str]' = <factory>, ids: 'Mapping[str, int]' = <factory>, "
    "reserved: 'Container[int]' = range(199998, 201088)) -> None",
    "Ended": "(field: 'Field | None', message: 'Message', index: 'int | None' = None)",
    "Event": None,
    "Field": None,
    "HarmonyError": None,
    "HarmonyParseError": "(issue: 'Issue') -> 'None'",
    "Issue": "(code: 'Code', offset: 'int', text: 'str' = '', unit: 'Unit' = 'characters')",
    "Message": "(role: 'str', channel: 'str | None', recipient: 'str | None', content_type: 'str | None', "
    "text: 'str', complete: 'bool' = True)",
    "Options": "(*, strict: 'bool' = False, commentary: 'Target' = 'content', channels: 'Mapping[str, Target]' = "
    "<factory>, dialect: 'Dialect' = <factory>, arguments: \"Literal['verbatim', 'repair']\" = 'verbatim', "
    "keep: 'bool' = True, builtin_tools: \"Literal['auto', 'hide', 'tool_calls']\" = 'auto', "
    "tool_choice: \"Literal['auto', 'none']\" = 'auto', enabled: 'bool' = True, "
    "output: 'Output' = 'openai_tool_calls', reasoning: \"Literal['keep', 'drop']\" = 'keep') -> None",
    "Reply": "(reasoning_content: 'str | None', content: 'str | None', tool_calls: 'tuple[ToolCall, ...]', "
    "messages: 'tuple[Message, ...]', issues: 'tuple[Issue, ...]', reasoning_tokens: 'int | None')",
    "RequestError": "(message: 'str', param: 'str | None' = None, code: 'str | None' = None, "
    "status: 'int' = 400) -> 'None'",
    "Started": "(field: 'Field | None', message: 'Message', call: 'ToolCallDelta | None' = None)",
    "Stream": _STREAM,
    "Target": None,
    "Text": "(field: 'Field', text: 'str', index: 'int | None' = None)",
    "ToolCall": "(id: 'str', name: 'str', arguments: 'str')",
    "ToolCallDelta": "(index: 'int', id: 'str | None' = None, name: 'str | None' = None, arguments: 'str' = '')",
    "Vocabulary": "(decode: 'Callable[[int], bytes]', dialect: 'Dialect | None' = None) -> 'None'",
    "parse": f"(output: '{_CHUNK}', *, prompt: '{_CHUNK} | None' = None, "
    "tools: 'Iterable[str | Mapping[str, Any]] | None' = None, options: 'Options | None' = None, "
    "decode: 'Callable[[int], bytes] | Vocabulary | None' = None) -> 'Reply'",
    "Problem": "(code: 'Code', offset: 'int', unit: 'Unit', text: 'str', meaning: 'str', suggestion: 'str')",
    "TokenStatistics": "(total: 'int', reasoning: 'int', content: 'int', tool_calls: 'int', headers: 'int', "
    "markers: 'int', dropped: 'int')",
    "from_think": "(text: 'str') -> 'str'",
    "is_harmony": "(output: 'Output', *, dialect: 'Dialect | None' = None) -> 'bool'",
    "messages_by_channel": "(output: 'Output', **how: 'Any') -> 'dict[str | None, list[Message]]'",
    "parse_many": "(outputs: 'Iterable[Output]', *, processes: 'int | None' = None, chunk_size: 'int' = 64, prompt: "
    "'Output | None' = None, tools: 'Iterable[str | Mapping[str, Any]] | None' = None, options: 'Options "
    "| None' = None, decode: 'Callable[[int], bytes] | Vocabulary | None' = None) -> 'Iterator[Reply]'",
    "repair": "(output: 'Output', **how: 'Any') -> 'str | list[int]'",
    "to_think": "(output: 'Output | Reply', **how: 'Any') -> 'str'",
    "token_statistics": "(ids: 'Sequence[int]', **how: 'Any') -> 'TokenStatistics'",
    "validate": "(output: 'Output', **how: 'Any') -> 'list[Problem]'",
}
#: The public methods and properties of those that have some.
METHODS = {
    "Delta": {"to_openai"},
    "Dialect": {"from_vocabulary"},
    "Problem": set(),
    "Reply": {"finish_reason", "of", "to_openai"},
    "Stream": {
        *("deltas", "feed", "feed_events", "field", "finish", "finish_events", "finish_reason", "in_body", "issues"),
        *("message_counts", "reasoning_tokens", "reply", "tool_call_count"),
    },
    "ToolCall": {"to_openai"},
    "ToolCallDelta": {"to_openai"},
}


def test_the_list_is_exact() -> None:
    assert sorted(PUBLIC) == sorted(harmony_plugin.__all__)


@pytest.mark.parametrize("name", [name for name, signature in PUBLIC.items() if signature])
def test_signature(name: str) -> None:
    signature = str(inspect.signature(getattr(harmony_plugin, name)))
    assert re.sub(r"ForwardRef\(('[^']*'|\"[^\"]*\")\)", r"\1", signature) == PUBLIC[name]


@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str) -> None:
    thing = getattr(harmony_plugin, name)
    named = thing._fields if issubclass(thing, tuple) else getattr(thing, "__slots__", ())
    fields = {*named, *getattr(thing, "__dataclass_fields__", ()), "count", "index"}
    assert {word for word in dir(thing) if not word.startswith("_")} - fields == METHODS[name]


def test_each_name_says_where_it_is_imported_from() -> None:
    for name in harmony_plugin.__all__:
        thing = getattr(harmony_plugin, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert thing.__module__ == "harmony_plugin", name
            assert thing.__doc__, name


EXAMPLES = ("parse", "Stream", "Options", "Delta", "Reply", "is_harmony", "messages_by_channel", "validate")
WRITTEN = ("token_statistics", "repair", "to_think", "from_think", "parse_many")


@pytest.mark.parametrize("name", [*EXAMPLES, *WRITTEN])
def test_examples_run(name: str) -> None:
    runner = doctest.DocTestRunner()
    tests = [test for test in doctest.DocTestFinder().find(getattr(harmony_plugin, name), name) if test.examples]
    assert tests
    for test in tests:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_codes_are_a_type() -> None:
    assert typing.get_args(Code) == tuple(CODES)


def test_errors_have_one_root() -> None:
    for error in (HarmonyParseError(Issue("filler", 3, unit="tokens")), RequestError("no")):
        assert isinstance(error, HarmonyError)
        assert isinstance(error, ValueError)
    assert str(HarmonyParseError(Issue("filler", 3, unit="tokens"))).startswith("filler at token 3: ")
    assert str(HarmonyParseError(Issue("filler", 3))).startswith("filler at character 3: ")


def test_an_offset_says_what_it_counts() -> None:
    assert [(issue.offset, issue.unit) for issue in parse("<|channel|>final<|end|>").issues] == [(0, "characters")]
    assert [(i.offset, i.unit) for i in parse([200005, 17196, 200008, 200008]).issues] == [(3, "tokens")]


def test_reprs_are_short() -> None:
    assert repr(Options()) == "Options()"
    assert repr(Options(strict=True, dialect=Dialect(markers={"start": "<s>"}))) == (
        "Options(strict=True, dialect=Dialect(markers={'start': '<s>'}))"
    )
    assert repr(Dialect()) == "Dialect()"
    assert repr(Dialect(ids={"end": 7}, reserved=frozenset({9}))) == "Dialect(ids={'end': 7}, reserved=frozenset({9}))"
    for value in (Options(commentary="drop"), Dialect(ids={"end": 7})):
        assert eval(repr(value), {"Options": Options, "Dialect": Dialect}) == value


def test_settings_are_named() -> None:
    for settings in (Options, Dialect):
        with pytest.raises(TypeError):
            settings(True)  # type: ignore[call-arg, arg-type]


RAW = (
    "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=functions.f<|message|>{}"
    "<|call|><|start|>assistant<|channel|>commentary to=functions.g<|message|>[1]<|call|>"
    "<|start|>assistant<|channel|>analysis<|message|>b<|end|><|start|>assistant<|channel|>final<|message|>c"
)


def test_deltas_of_chunks_that_come_by_themselves() -> None:
    async def chunks() -> AsyncIterator[str]:
        for character in RAW:
            yield character

    async def read() -> list[Delta]:
        return [delta async for delta in Stream().deltas(chunks())]

    deltas: list[Any] = asyncio.run(read())
    assert all(deltas)
    assert sum(deltas, Delta()).content == "c"


def test_a_reply_is_the_same_however_it_is_taken() -> None:
    stream = Stream()
    assert list(stream.deltas([RAW]))
    assert isinstance(stream.reply, Reply)
