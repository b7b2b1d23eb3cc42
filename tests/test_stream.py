"""SPEC sections 2 (where generation starts), 6 and 7, and the public API: values, deltas, events, settings, misuse."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
import re
import sys
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import pytest

import harmony_plugin
from feeding import Total, check_chunks, codes, encode, feed, fields, split, texts
from harmony_plugin import (
    CODES,
    Delta,
    Dialect,
    Ended,
    HarmonyParseError,
    Issue,
    Message,
    Options,
    Reply,
    Started,
    Stream,
    Text,
    ToolCall,
    ToolCallDelta,
    Vocabulary,
    parse,
)
from harmony_plugin.core.options import Target

CALL = "<|start|>assistant<|channel|>commentary to=functions.{} <|constrain|>json<|message|>{}<|call|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>"
ANALYSIS = "<|start|>assistant<|channel|>analysis<|message|>"


# Where generation starts (section 2)


@pytest.mark.parametrize(
    ("prompt", "raw", "expected"),
    [
        (None, "<|channel|>final<|message|>x", (None, "x", [])),
        ("", "<|channel|>final<|message|>x", (None, "x", [])),
        ("no marker in sight", "<|channel|>analysis<|message|>x", ("x", None, [])),
        ("<|start|>assistant", "<|channel|>analysis<|message|>x", ("x", None, [])),
        ("<|start|>user<|message|>hi<|end|><|start|>assistant", "<|channel|>final<|message|>x", (None, "x", [])),
        # inside the header
        ("<|start|>", "assistant<|channel|>final<|message|>x", (None, "x", [])),
        ("<|start|>assistant<|channel|>", "analysis<|message|>x", ("x", None, [])),
        ("<|start|>assistant<|channel|>analysis", "<|message|>x", ("x", None, [])),
        ("<|start|>assistant<|channel|>ana", "lysis<|message|>x", ("x", None, [])),
        ("<|start|>assistant to=functions.f", "<|channel|>commentary<|message|>{}", (None, None, [("f", "{}")])),
        ("<|start|>assistant to=functions.", "f<|channel|>commentary<|message|>{}", (None, None, [("f", "{}")])),
        (
            "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>",
            "json<|message|>{}",
            (None, None, [("f", "{}")]),
        ),
        # inside the body
        ("<|start|>assistant<|channel|>final<|message|>", "x<|return|>", (None, "x", [])),
        ("<|start|>assistant<|channel|>final<|message|>It is ", "21 C.<|return|>", (None, "21 C.", [])),
        ("<|start|>assistant<|channel|>analysis<|message|>", f"x<|end|>{FINAL}y", ("x", "y", [])),
        (
            "<|start|>assistant to=functions.f<|channel|>commentary<|message|>",
            '{"a":1}<|call|>',
            (None, None, [("f", '{"a":1}')]),
        ),
        (
            "<|start|>assistant to=functions.f<|channel|>commentary<|message|>{",
            '"a":1}<|call|>',
            (None, None, [("f", '"a":1}')]),
        ),
    ],
)
def test_state_comes_from_the_end_of_the_prompt(prompt: str | None, raw: str, expected: object) -> None:
    reply = split(raw, prompt=prompt)
    assert fields(reply) == expected
    assert [code for code in codes(reply) if code != "arguments_not_json"] == []


def test_prompt_may_end_with_a_complete_message() -> None:
    reply = split("<|channel|>final<|message|>x", prompt="<|start|>user<|message|>hi<|end|>")
    assert fields(reply) == (None, "x", [])
    assert codes(reply) == ["missing_start"]
    reply = split(f"{FINAL}x", prompt="<|start|>user<|message|>hi<|end|>")
    assert fields(reply) == (None, "x", [])


def test_messages_of_the_prompt_are_no_part_of_the_reply() -> None:
    prompt = f"<|start|>system<|message|>be kind<|end|>{FINAL}old<|end|><|start|>assistant"
    reply = split("<|channel|>final<|message|>new<|return|>", prompt=prompt)
    assert [message.text for message in reply.messages] == ["new"]
    assert reply.issues == ()


def test_prompt_that_ends_inside_another_role_goes_to_an_issue() -> None:
    reply = split("x", prompt="<|start|>user<|message|>hi ")
    assert fields(reply) == (None, None, [])
    assert texts(reply, "foreign_role") == ["x"]


def test_prompt_ids_and_text_output_may_meet() -> None:
    prompt = "<|start|>assistant<|channel|>final<|message|>"
    assert parse("x", prompt=encode(prompt)).content == "x"
    assert parse(encode("x"), prompt=prompt).content == "x"
    assert parse(encode("x"), prompt=tuple(encode(prompt))).content == "x"


def test_prompt_inside_a_body_begins_the_message_with_the_first_chunk() -> None:
    prompt = "<|start|>assistant to=functions.f<|channel|>commentary<|message|>"
    stream = Stream(prompt)
    assert (stream.field, stream.in_body, stream.tool_call_count) == ("tool_call", True, 1)
    delta = stream.feed("{")
    assert [(call.index, call.name, call.arguments) for call in delta.tool_calls] == [(0, "f", "{")]
    stream = Stream(prompt)
    assert [(call.name, call.arguments) for call in stream.finish().tool_calls] == [("f", "{}")]


def test_prompt_with_a_header_too_long_is_as_if_unknown() -> None:
    reply = split("<|channel|>final<|message|>x", prompt="<|start|>" + "word " * 200)
    assert reply.content == "x"


def test_offsets_do_not_count_the_prompt() -> None:
    reply = split("<|message|>b", prompt="<|start|>assistant<|channel|>final<|message|>a long way to go")
    assert reply.issues == (Issue("stray_marker", 0, "<|message|>"),)


# Messages that go to the same field (section 6)


def test_messages_of_one_field_are_joined_with_one_newline() -> None:
    raw = f"{ANALYSIS}a<|end|>{FINAL}b<|end|>{ANALYSIS}c<|end|>{FINAL}d<|end|>"
    assert fields(split(raw)) == ("a\nc", "b\nd", [])


def test_separator_comes_in_front_of_the_second_message_s_first_text() -> None:
    stream = Stream()
    assert stream.feed(f"{FINAL}a<|end|>").content == "a"
    assert not stream.feed("<|start|>assistant<|channel|>final<|message|>")
    assert stream.feed("b").content == "\nb"
    assert stream.feed("c").content == "c"


def test_empty_messages_get_no_separator() -> None:
    raw = f"{FINAL}<|end|>{FINAL}a<|end|>{FINAL}<|end|>{FINAL}b<|end|>{FINAL}<|end|>"
    assert fields(split(raw)) == (None, "a\nb", [])


def test_text_of_a_message_is_verbatim() -> None:
    body = "\n  ```py\n\tprint('hi')\r\n```  \u2028 é \x00 "
    reply = split(f"{FINAL}{body}<|return|>")
    assert reply.content == body
    assert reply.messages[0].text == body


# Arguments


@pytest.mark.parametrize(
    "arguments",
    [
        '{"a": 1}',
        '{"a":1,"a":2}',
        ' {"a":1}\n',
        '{"é":"\\u00e9"}',
        "{ }",
        '{"a":1.0e5}',
        "[]",
        "null",
        '{"a":"\ud7ff"}',
    ],
)
def test_arguments_are_verbatim(arguments: str) -> None:
    reply = split(CALL.format("f", arguments))
    assert reply.tool_calls[0].arguments == arguments
    assert reply.issues == ()


@pytest.mark.parametrize("body", ["", " ", "\n\t ", "\u00a0"])
@pytest.mark.parametrize("keep", [True, False])
def test_call_with_an_empty_body_gets_an_empty_object(body: str, keep: bool) -> None:
    total, _ = feed(list(CALL.format("f", body)), options=Options(keep=keep))
    assert total.fields == (None, None, [("f", "{}")])
    if keep:
        reply = split(CALL.format("f", body))
        assert fields(reply) == (None, None, [("f", "{}")])
        assert reply.messages[0].text == body


@pytest.mark.parametrize("arguments", ["print(1)", '{"a":1', '{"a":1]}', '{"a":1} trailing', "[" * 5000])
def test_arguments_that_are_not_json_are_passed_on_with_an_issue(arguments: str) -> None:
    reply = split(CALL.format("f", arguments))
    assert reply.tool_calls[0].arguments == arguments
    assert codes(reply) == ["arguments_not_json"]


REPAIR = Options(arguments="repair")


def test_arguments_may_be_repaired() -> None:
    broken = '{"city": "Köln", "days": [1, 2,}'
    reply = split(CALL.format("f", broken), options=REPAIR)
    assert json.loads(reply.tool_calls[0].arguments) == {"city": "Köln", "days": [1, 2]}
    assert "Köln" in reply.tool_calls[0].arguments
    assert texts(reply, "arguments_repaired") == [broken]


@pytest.mark.parametrize(("body", "arguments"), [('{"a": 1}', '{"a": 1}'), ("", "{}"), (" ", "{}"), ("{ }", "{ }")])
def test_repair_leaves_json_as_it_is(body: str, arguments: str) -> None:
    reply = split(CALL.format("f", body), options=REPAIR)
    assert reply.tool_calls[0].arguments == arguments
    assert reply.issues == ()


def test_repair_leaves_alone_what_cannot_be_mended() -> None:
    reply = split(CALL.format("f", ")))"), options=REPAIR)
    assert reply.tool_calls[0].arguments
    assert codes(reply) == ["arguments_repaired"]


def test_repaired_call_is_sent_whole_at_its_end() -> None:
    stream = Stream(options=REPAIR)
    assert stream.feed("<|channel|>commentary to=functions.f<|message|>").tool_calls[0].name == "f"
    assert not stream.feed('{"a": 1,')
    assert not stream.feed('"b"')
    assert stream.feed(": 2}<|call|>").tool_calls == (ToolCallDelta(0, None, None, '{"a": 1,"b": 2}'),)


def test_repair_without_the_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "json_repair", None)
    assert parse(CALL.format("f", "{}"), options=REPAIR).tool_calls[0].arguments == "{}"
    with pytest.raises(ImportError, match=r"harmony-plugin\[repair\]"):
        parse(CALL.format("f", "{"), options=REPAIR)


# Tool calls


def test_call_streams_index_id_and_name_once_then_arguments() -> None:
    stream = Stream()
    deltas = [stream.feed([token]) for token in encode(CALL.format("get_weather", '{"city": "Paris"}'))]
    calls = [call for delta in deltas for call in delta.tool_calls]
    assert (calls[0].index, calls[0].name, calls[0].arguments) == (0, "get_weather", "")
    assert re.fullmatch(r"call_[A-Za-z0-9]{24}", calls[0].id or "")
    assert all(call[:3] == (0, None, None) and call.arguments for call in calls[1:])
    assert "".join(call.arguments for call in calls) == '{"city": "Paris"}'
    assert len(calls) > 4
    assert stream.feed([200002]) == stream.finish() == Delta()


def test_name_comes_at_the_end_of_the_header() -> None:
    stream = Stream()
    assert not stream.feed("<|channel|>commentary to=functions.f <|constrain|>json")
    assert stream.feed("<|message|>").tool_calls[0].name == "f"


def test_two_calls_to_one_function_are_two_calls() -> None:
    reply = split(CALL.format("f", '{"a":1}') * 2)
    assert fields(reply)[2] == [("f", '{"a":1}')] * 2
    assert reply.tool_calls[0].id != reply.tool_calls[1].id


def test_call_ids_are_unique() -> None:
    reply = parse(CALL.format("f", "{}") * 2000)
    ids = {call.id for call in reply.tool_calls}
    assert len(ids) == 2000
    assert all(re.fullmatch(r"call_[A-Za-z0-9]{24}", identity) for identity in ids)


def test_one_chunk_with_several_calls() -> None:
    stream = Stream()
    delta = stream.feed(f"{ANALYSIS}hm<|end|>{CALL.format('a', '{}')}{CALL.format('b', '1')}{FINAL}ok")
    assert (delta.reasoning_content, delta.content) == ("hm", "ok")
    assert [(call.index, call.name, call.arguments) for call in delta.tool_calls] == [(0, "a", "{}"), (1, "b", "1")]


# Absent is None


def test_absent_fields_are_none_in_both_modes() -> None:
    for raw in ("", "<|channel|>final<|message|><|return|>", "<|channel|>analysis<|message|>"):
        total, stream = feed(list(raw))
        assert fields(stream.reply) == total.fields == (None, None, [])


def test_falsy_delta() -> None:
    assert not Delta()
    assert Delta() == Delta()
    assert hash(Delta()) == hash(Delta())
    assert Delta() != 1
    assert (Delta().reasoning_content, Delta().content, Delta().tool_calls) == (None, None, ())
    assert Delta(content="x") != Delta(reasoning_content="x")
    assert Delta(tool_calls=(ToolCallDelta(0),))
    stream = Stream()
    stream.feed(encode(f"{FINAL}x"))
    assert stream.feed(encode("x")) == Delta(content="x")
    assert isinstance(stream.feed(encode("x")), Delta)
    delta = Stream().feed(f"{FINAL}x")
    assert delta != Delta()
    assert repr(delta) == "Delta(content='x')"


# finish_reason


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (f"{FINAL}x<|return|>", "stop"),
        ("", "stop"),
        (CALL.format("f", "{}"), "tool_calls"),
        (CALL.format("f", "{}") + FINAL, "tool_calls"),
    ],
)
def test_finish_reason(raw: str, reason: str) -> None:
    _, stream = feed([raw] if raw else [])
    assert stream.finish_reason() == stream.reply.finish_reason() == reason
    assert stream.finish_reason(cut=True) == stream.reply.finish_reason(cut=True) == "length"


# Reasoning tokens


def test_reasoning_tokens_are_the_ids_whose_text_went_to_reasoning() -> None:
    bodies = ("I need to look up the weather.", "And once more, with feeling: 🧬")
    raw = f"{ANALYSIS}{bodies[0]}<|end|>{CALL.format('f', '{}')}{ANALYSIS}{bodies[1]}<|end|>{FINAL}It is 21 C."
    ids = encode(raw)
    reply = parse(ids)
    assert reply.reasoning_tokens == sum(len(encode(body)) for body in bodies)
    check_chunks([[token] for token in ids], reply)
    check_chunks([ids[:20], ids[20:]], reply)


def test_reasoning_tokens_grow_with_the_stream() -> None:
    stream = Stream()
    stream.feed(encode(ANALYSIS))
    seen = []
    for token in encode("one two three"):
        stream.feed([token])
        seen.append(stream.reasoning_tokens)
    assert seen == [1, 2, 3]
    stream.feed(encode("<|end|>" + FINAL + "four"))
    stream.finish()
    assert stream.reasoning_tokens == 3


def test_reasoning_tokens_of_text_are_unknown() -> None:
    reply = parse(f"{ANALYSIS}x<|end|>")
    assert reply.reasoning_tokens is None
    assert Stream().reasoning_tokens == 0
    assert parse(encode(f"{FINAL}x")).reasoning_tokens == 0
    assert parse([]).reasoning_tokens == 0


@pytest.mark.parametrize("raw", ["one two three<|end|>" + FINAL + "x", "<|channel|>analysis one two three<|end|>"])
def test_reasoning_tokens_of_recovered_reasoning(raw: str) -> None:
    assert parse(encode(raw)).reasoning_tokens == 3


def test_reasoning_tokens_of_builtin_calls_on_analysis() -> None:
    assert parse(encode("<|channel|>analysis to=python code<|message|>one two three<|call|>")).reasoning_tokens == 3


# Issues


def test_issue_codes_are_documented() -> None:
    folder = Path(harmony_plugin.__file__).parent / "core"
    source = "".join(
        (folder / f"{name}.py").read_text() for name in ("header", "machine", "routing", "stream", "vocabulary")
    )
    for code in CODES:
        assert f'"{code}"' in source, code
    assert all(re.fullmatch(r"[a-z0-9_]+", code) and meaning for code, meaning in CODES.items())


def test_strict_error_says_what_and_where() -> None:
    with pytest.raises(HarmonyParseError, match=r"stray_marker at character 27: .*'<\|message\|>'") as caught:
        parse("<|channel|>final<|message|><|message|>", options=Options(strict=True))
    assert caught.value.issue == Issue("stray_marker", 27, "<|message|>")
    assert isinstance(caught.value, ValueError)


def test_strict_passes_what_a_setting_does() -> None:
    options = Options(strict=True, commentary="drop", tool_choice="none")
    raw = "<|channel|>commentary<|message|>a<|end|>" + CALL.format("f", "{}")
    raw += "<|start|>assistant<|channel|>commentary to=python<|message|>b<|call|>"
    assert codes(parse(raw, options=options)) == ["dropped_text", "dropped_call", "builtin_tool"]


def test_issues_so_far() -> None:
    stream = Stream()
    stream.feed(f"{FINAL}a<|message|>")
    assert stream.issues == (Issue("stray_marker", 46, "<|message|>"),)


# keep


def test_keep_false_gives_the_same_deltas() -> None:
    raw = f"{ANALYSIS}a<|end|>{CALL.format('f', '{}')}{CALL.format('g', '')}"
    raw += f"<|start|>user<|message|>no<|end|>{FINAL}b<|return|>"
    for chunks in ([raw], list(raw), [[token] for token in encode(raw)]):
        total, stream = feed(chunks, options=Options(keep=False))
        assert total.fields == ("a", "b", [("f", "{}"), ("g", "{}")])
        assert texts_of(stream, "foreign_role") == ["no"]
        assert stream.finish_reason() == "tool_calls"
        with pytest.raises(RuntimeError, match="keep=False"):
            _ = stream.reply


def texts_of(stream: Stream, code: str) -> list[str]:
    return [issue.text for issue in stream.issues if issue.code == code]


def test_keep_false_checks_arguments_only_in_strict_mode() -> None:
    raw = CALL.format("f", "{")
    assert feed([raw], options=Options(keep=False))[1].issues == ()
    with pytest.raises(HarmonyParseError, match="arguments_not_json"):
        feed([raw], options=Options(keep=False, strict=True))


def test_keep_false_memory_is_flat() -> None:
    vocabulary = Vocabulary(lambda token: b"word ")
    stream = Stream(options=Options(keep=False), decode=vocabulary)
    stream.feed([200005, 1, 200008])
    sizes = []
    for _ in range(3):
        tracemalloc.start()
        for _ in range(20_000):
            stream.feed([1])
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert max(sizes) < 20_000  # bytes; the text alone is five times as much


def test_keep_false_and_parse_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="keep"):
        parse("x", options=Options(keep=False))


# Events


def events(stream: Stream, chunks: list[Any]) -> list[Any]:
    out = [event for chunk in chunks for event in stream.feed_events(chunk)]
    return out + stream.finish_events()


def test_events_come_in_the_order_of_the_output() -> None:
    raw = f"{ANALYSIS}hm<|end|>{CALL.format('f', '')}<|start|>user<|message|>no<|end|>{FINAL}a<|end|>{FINAL}b<|return|>"
    stream = Stream()
    got = events(stream, [raw])
    message = {
        "hm": Message("assistant", "analysis", None, None, "hm"),
        "f": Message("assistant", "commentary", "functions.f", "<|constrain|>json", ""),
        "no": Message("user", None, None, None, "no"),
        "a": Message("assistant", "final", None, None, "a"),
        "b": Message("assistant", "final", None, None, "b"),
    }
    begun = {name: value._replace(text="") for name, value in message.items()}
    call = got[3].call
    assert call == ToolCallDelta(0, stream.reply.tool_calls[0].id, "f", "")
    assert got == [
        Started("reasoning", begun["hm"], None),
        Text("reasoning", "hm", None),
        Ended("reasoning", message["hm"], None),
        Started("tool_call", begun["f"], call),
        Text("tool_call", "{}", 0),
        Ended("tool_call", message["f"], 0),
        Started(None, begun["no"], None),
        Ended(None, message["no"], None),
        Started("content", begun["a"], None),
        Text("content", "a", None),
        Ended("content", message["a"], None),
        Started("content", begun["b"], None),
        Text("content", "b", None),  # no separator: items are apart
        Ended("content", message["b"], None),
    ]


def test_events_of_single_tokens_are_those_of_the_whole() -> None:
    raw = f"{ANALYSIS}hm hm<|end|>{CALL.format('f', '{}')}<|start|>user<|message|>no<|end|>{FINAL}a b c"
    joined: list[Any] = []
    for event in events(Stream(), [[token] for token in encode(raw)]):
        if isinstance(event, Text) and isinstance(joined[-1], Text):
            joined[-1] = joined[-1]._replace(text=joined[-1].text + event.text)
        else:
            joined.append(event)
    whole = events(Stream(), [raw])
    for one, other in zip(joined, whole, strict=True):
        if isinstance(one, Started) and one.call:
            one, other = one._replace(call=None), other._replace(call=None)
        assert one == other


def test_ended_without_keep_holds_no_text() -> None:
    got = events(Stream(options=Options(keep=False)), [f"{FINAL}a<|end|>"])
    assert got[-1] == Ended("content", Message("assistant", "final", None, None, ""), None)


def test_ended_tells_whether_the_message_was_whole() -> None:
    assert not events(Stream(), [f"{FINAL}a"])[-1].message.complete
    assert events(Stream(), [f"{FINAL}a<|end|>"])[-1].message.complete


def test_prompt_inside_a_body_starts_its_message_with_the_first_events() -> None:
    stream = Stream("<|start|>assistant<|channel|>final<|message|>")
    assert [type(event) for event in stream.feed_events("x")] == [Started, Text]
    assert [type(event) for event in stream.finish_events()] == [Ended]


# State


def test_field_and_in_body() -> None:
    stream = Stream()
    seen = []
    for chunk in (
        "<|channel|>analysis",
        "<|message|>",
        "x",
        "<|end|>",
        CALL.format("f", "{}")[:-8],
        "<|call|>",
        FINAL,
        "y",
    ):
        stream.feed(chunk)
        seen.append((stream.field, stream.in_body))
    assert seen == [
        (None, False),
        ("reasoning", True),
        ("reasoning", True),
        (None, False),
        ("tool_call", True),
        (None, False),
        ("content", True),
        ("content", True),
    ]
    stream.finish()
    assert (stream.field, stream.in_body, stream.tool_call_count) == (None, False, 1)


def test_text_that_goes_to_an_issue_has_no_field() -> None:
    stream = Stream()
    stream.feed("<|start|>user<|message|>x")
    assert (stream.field, stream.in_body) == (None, True)


# OpenAI's shapes


def test_reply_to_openai() -> None:
    reply = parse(f"{ANALYSIS}hm<|end|>{FINAL}ok<|return|>")
    assert reply.to_openai() == {"role": "assistant", "content": "ok", "reasoning_content": "hm"}
    reply = parse(CALL.format("f", '{"a":1}'))
    assert reply.to_openai() == {
        "role": "assistant",
        "content": None,
        "reasoning_content": None,
        "tool_calls": [
            {"id": reply.tool_calls[0].id, "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
        ],
    }


def test_delta_to_openai() -> None:
    stream = Stream()
    first = stream.feed(f"{ANALYSIS}hm<|end|>{CALL.format('f', '{')[:-8]}")
    (call,) = first.tool_calls
    assert first.to_openai() == {
        "reasoning_content": "hm",
        "tool_calls": [{"index": 0, "id": call.id, "type": "function", "function": {"name": "f", "arguments": "{"}}],
    }
    assert stream.feed("}").to_openai() == {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}
    assert stream.feed(f"<|call|>{FINAL}x").to_openai() == {"content": "x"}
    assert stream.feed("<|return|>").to_openai() == {}


def test_to_openai_is_json() -> None:
    json.dumps(parse(CALL.format("f", "{}")).to_openai())
    json.dumps(Stream().feed(CALL.format("f", "{}")).to_openai())
    assert ToolCall("call_x", "f", "{}").to_openai()["type"] == "function"


# Misuse


def test_feeding_after_finish_is_an_error() -> None:
    stream = Stream()
    stream.feed("x")
    stream.finish()
    for chunk in ("x", [1], ""):
        with pytest.raises(RuntimeError, match="finished"):
            stream.feed(chunk)


def test_feeding_one_token_after_finish_is_an_error() -> None:
    stream = Stream()
    for token in encode(f"{FINAL}one two"):
        stream.feed([token])
    stream.finish()
    with pytest.raises(RuntimeError, match="finished"):
        stream.feed(encode(" two"))


def test_finish_twice_gives_nothing() -> None:
    stream = Stream()
    stream.feed("hello")
    assert stream.finish().content == "hello"
    assert not stream.finish()


@pytest.mark.parametrize("first", ["feed", "finish", "feed_events", "finish_events"])
@pytest.mark.parametrize("then", ["feed", "finish", "feed_events", "finish_events"])
@pytest.mark.parametrize("chunks", [["<|channel|>final<|message|>x", "y"], [encode(f"{FINAL}one two"), encode(" two")]])
def test_deltas_and_events_of_one_stream_do_not_mix(first: str, then: str, chunks: list[Any]) -> None:
    stream = Stream()

    def give(method: str, chunk: Any) -> None:
        getattr(stream, method)(*([chunk] if method.startswith("feed") else []))

    give(first, chunks[0])
    if ("events" in first) != ("events" in then):
        with pytest.raises(RuntimeError, match="make another Stream for"):
            give(then, chunks[1])
    elif first.startswith("finish") and then.startswith("feed"):
        with pytest.raises(RuntimeError, match="finished"):
            give(then, chunks[1])
    else:
        give(then, chunks[1])


@pytest.mark.parametrize("wrong", [b"x", bytearray(b"x"), {0: 120}, {1}, "x"])
def test_what_is_no_chunk_does_not_take_the_short_cut(wrong: Any) -> None:
    stream = Stream()
    for token in encode(f"{FINAL}one x x"):
        stream.feed([token])
    with pytest.raises(TypeError):
        stream.feed(wrong)


def test_mixing_text_and_ids_is_an_error() -> None:
    stream = Stream()
    stream.feed("<|message|>x")
    with pytest.raises(TypeError, match="takes text"):
        stream.feed([200007])
    stream = Stream()
    stream.feed(encode("<|message|>x"))
    with pytest.raises(TypeError, match="takes token ids"):
        stream.feed("x")


@pytest.mark.parametrize("wrong", [b"xy", bytearray(b"xy"), b"x", {1: 2, 3: 4}, {1, 2}])
def test_chunks_of_another_kind_are_errors(wrong: Any) -> None:
    with pytest.raises(TypeError, match="text or a sequence of token ids"):
        Stream().feed(wrong)


def test_empty_chunks_are_nothing() -> None:
    stream = Stream()
    assert not stream.feed("")
    assert not stream.feed([])
    stream.feed(encode("<|message|>x"))  # an empty chunk decides nothing
    assert not stream.feed([])
    assert stream.finish().content is None


def test_reply_before_finish_is_an_error() -> None:
    stream = Stream()
    stream.feed("x")
    with pytest.raises(RuntimeError, match="finish"):
        _ = stream.reply


@pytest.mark.parametrize(
    "wrong",
    [
        {"commentary": "hide"},
        {"arguments": "mend"},
        {"builtin_tools": "run"},
        {"tool_choice": "required"},
        {"channels": {"x": "tool"}},
    ],
)
def test_options_refuse_what_they_do_not_know(wrong: Any) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        Options(**wrong)


def test_options_are_values() -> None:
    assert get_args(Target) == ("content", "reasoning", "drop")
    channels = {"x": "drop"}
    options = Options(channels=channels)  # type: ignore[arg-type]
    channels["x"] = "content"
    assert options.channels["x"] == "drop"
    assert options == Options(channels={"x": "drop"})
    assert hash(options) == hash(Options(channels={"x": "drop"}))
    assert Options() != Options(keep=False)
    with pytest.raises(AttributeError):
        options.keep = False  # type: ignore[misc]
    assert Options().dialect == Dialect()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_settings_and_errors_go_through_copies_and_pools(copied: Any) -> None:
    dialect = Dialect(markers={"start": "<s>"}, reserved={7})
    options = Options(channels={"x": "drop"}, dialect=dialect)
    for value in (options, dialect, Options(), Dialect()):
        other = copied(value)
        assert (other, hash(other)) == (value, hash(value))
    assert asdict(options)["channels"] == {"x": "drop"}
    assert asdict(options)["dialect"]["markers"]["start"] == "<s>"
    issue = Issue("stray_marker", 3, "x", "tokens")
    error = copied(HarmonyParseError(issue))
    assert (error.issue, error.code, error.offset, error.text, error.unit) == (issue, *issue)
    assert "stray_marker at token 3" in str(error)


def _strict(raw: str) -> Reply:
    return parse(raw, options=Options(strict=True))


def test_strict_mode_in_a_pool_of_processes() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(HarmonyParseError, match="stray_marker at character 27"):
            pool.submit(_strict, "<|channel|>final<|message|><|message|>").result()
        assert pool.submit(_strict, "<|channel|>final<|message|>ok").result().content == "ok"
        # The same settings are the same in another process, where strings have other hashes.
        assert pool.submit(hash, Options()).result() == pool.submit(hash, Options()).result()


def test_settings_are_frozen_all_the_way_down() -> None:
    ids = {1, 2}
    dialect = Dialect(reserved=ids)
    ids.add(3)
    assert 3 not in dialect.reserved
    for frozen in (dialect.markers, dialect.ids, Options(channels={"x": "drop"}).channels):
        for change in (
            lambda d: d.update(a=1),
            lambda d: d.clear(),
            lambda d: d.pop("start"),
            lambda d: d.popitem(),
            lambda d: d.setdefault("a", 1),
            lambda d: d.__setitem__("a", 1),
            lambda d: d.__delitem__("start"),
            lambda d: d.__ior__({"a": 1}),
        ):
            with pytest.raises(TypeError, match="frozen"):
                change(frozen)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("before", ["", "<|channel|>final<|message|>a", encode("<|channel|>final<|message|>a")])
@pytest.mark.parametrize("chunk", [{"a": 1}, {}, 5, None, 1.5, b"ab", b"", [[1]], ["a"], [None], {1}, iter([1])])
def test_what_is_no_chunk_says_so(chunk: Any, before: Any) -> None:
    for method in ("feed", "feed_events"):
        stream = Stream()
        getattr(stream, method)(before)
        with pytest.raises(TypeError, match=r"text or a sequence of token ids, not|takes text|takes token ids"):
            getattr(stream, method)(chunk)


def test_public_names() -> None:
    assert set(harmony_plugin.__all__) <= set(dir(harmony_plugin))
    assert Reply._fields[:4] == ("reasoning_content", "content", "tool_calls", "messages")


# Cost (section 7)


def test_streams_are_independent() -> None:
    one, other = Stream(), Stream()
    totals = Total(), Total()
    for token in encode(f"{ANALYSIS}hm<|end|>{FINAL}ok"):
        for stream, total in zip((one, other), totals, strict=True):
            total.add(stream.feed([token]))
    assert [total.fields for total in totals] == [("hm", "ok", [])] * 2


def test_work_per_chunk_does_not_grow() -> None:
    # Counted, not timed: what one more token of an open body allocates, early and late.
    vocabulary = Vocabulary(lambda token: b"word ")
    stream = Stream(options=Options(keep=False), decode=vocabulary)
    stream.feed([200005, 1, 200008, 1])
    peaks = []
    for size in (10, 50_000):
        for _ in range(size):
            stream.feed([1])
        tracemalloc.start()
        stream.feed([1])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] <= peaks[0] + 200
