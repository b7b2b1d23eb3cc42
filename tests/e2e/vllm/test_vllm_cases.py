"""Every split case, said by a real server, is what the core gives: on each API, whole and streamed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from vllm_rig.cases import Case, load, right
from vllm_rig.replies import (
    APIS,
    Api,
    Clients,
    Script,
    Told,
    comparable,
    encode,
    function_tool,
    gather_bounded,
)
from vllm_rig.server import Launch

from comingback import MANY, OFFERED
from harmony_plugin import Dialect

CASES = load()
AGAIN = [
    Case(name, tuple(encode(text)), tuple(function_tool(tool) for tool in OFFERED["tools"]), (None, None, []))
    for name, (text, _) in MANY.items()
]
MARKERS = tuple(Dialect().markers.values())
MODES = (False, True)


def says_json_objects(told_or_right: Any) -> bool:
    """Whether every call's arguments are a JSON object, as /v1/messages must have them."""
    try:
        return all(isinstance(json.loads(arguments), dict) for _, arguments in told_or_right.fields[2])
    except ValueError:
        return False


@pytest.fixture(scope="module")
def told(pool: Any) -> dict[tuple[str, Api, bool, bool], Told | BaseException]:
    """All replies, asked for at the same time. Key: case, API, streamed, past the stop ids."""
    url = pool.get(Launch()).url
    keys = [
        (case, api, stream, past)
        for case in (*CASES, *AGAIN)
        for api in APIS
        for stream in MODES
        for past in ((False, True) if case.has_inner_stop and api != "messages" else (False,))
    ]

    async def ask() -> list[Any]:
        async with Clients(url) as clients:
            return await gather_bounded(
                [
                    clients.ask(api, Script(case.ids, past_stops=past), stream=stream, tools=case.tools)
                    for case, api, stream, past in keys
                ]
            )

    replies = asyncio.run(asyncio.wait_for(ask(), timeout=400))
    return {(case.id, *rest): reply for (case, *rest), reply in zip(keys, replies, strict=True)}  # type: ignore[misc]


def the(reply: Told | BaseException) -> Told:
    """The reply; an error that the server answered with is the test's failure."""
    if isinstance(reply, BaseException):
        raise reply
    return reply


def finish_of(api: Api, finish: str) -> str:
    if api == "chat":
        return finish
    if api == "responses":
        return "incomplete" if finish == "length" else "completed"
    return {"length": "max_tokens", "tool_calls": "tool_use", "stop": "end_turn"}[finish]


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_reply_is_the_cores(case: Case, api: Api, told: Any) -> None:
    expected = right(case.script, case.tools)
    for stream in MODES:
        reply = the(told[case.id, api, stream, False])
        if api == "messages" and not stream and not says_json_objects(expected):
            # There `input` is an object, so arguments that are none cannot stand as they are; they must not be lost.
            assert [name for name, _ in reply.tool_calls] == [name for name, _ in expected.fields[2]]
            for (_, got), (_, arguments) in zip(reply.tool_calls, expected.fields[2], strict=True):
                assert json.dumps(arguments)[1:-1] in got
            assert reply.fields[:2] == expected.fields[:2]
        else:
            assert comparable(reply.fields, api, stream) == comparable(expected.fields, api, stream)
        if api == "chat" and not stream:
            assert reply.token_ids == list(case.script.seen), "the rig said what the script says"
        assert reply.completion_tokens == len(case.script.seen)
        if api != "messages":
            assert reply.reasoning_tokens == expected.reasoning_tokens
        assert len(set(reply.call_ids)) == len(expected.fields[2]), "every call has an id of its own"


@pytest.mark.parametrize("api", ["responses", "messages"])
@pytest.mark.parametrize("case", [*CASES, *AGAIN], ids=lambda case: case.id)
def test_an_item_is_a_message(case: Case, api: Api, told: Any) -> None:
    """In both modes, in the model's order: streamed is whole, byte for byte."""
    expected = right(case.script, case.tools).items
    for stream in MODES:
        items = [item for item in the(told[case.id, api, stream, False]).items if item.text]
        if api == "messages" and not stream:  # there arguments are an object
            assert [item[::2] for item in items] == [item[::2] for item in expected]
            assert [i.text for i in items if i.name is None] == [i.text for i in expected if i.name is None]
        else:
            assert items == expected


@pytest.mark.parametrize("case", [case for case in CASES if case.has_inner_stop], ids=lambda case: case.id)
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_reply_past_stop_ids_is_the_cores(case: Case, api: Api, told: Any) -> None:
    script = Script(case.ids, past_stops=True)
    expected = right(script, case.tools)
    for stream in MODES:
        reply = the(told[case.id, api, stream, True])
        assert reply.fields == expected.fields
        assert reply.completion_tokens == len(case.ids)
        assert reply.reasoning_tokens == expected.reasoning_tokens


@pytest.mark.parametrize("case", [case for case in CASES if not case.has_inner_stop], ids=lambda case: case.id)
def test_chat_reply_is_the_cases(case: Case, told: Any) -> None:
    """Against the case file itself, without the core in between."""
    for stream in MODES:
        assert the(told[case.id, "chat", stream, False]).fields == case.expected


@pytest.mark.parametrize("api", APIS)
def test_finish_reasons(api: Api, told: Any) -> None:
    wrong = {}
    for case in CASES:
        expected = finish_of(api, right(case.script, case.tools).finish)
        for stream in MODES:
            reply = the(told[case.id, api, stream, False])
            if reply.finish != expected:
                wrong[case.id, stream] = (reply.finish, expected)
    assert not wrong


def test_no_marker_reaches_a_field(told: Any) -> None:
    """Marker text is in a reply only where the model wrote it with ordinary tokens."""
    spelled_out = {case.id for case in CASES if "literal_marker" in case.id}
    for (case_id, *_), reply in told.items():
        if case_id not in spelled_out:
            assert not any(marker in repr(the(reply).fields) for marker in MARKERS), case_id


def test_both_reasoning_names(told: Any) -> None:
    """`reasoning_content` stands beside vLLM's `reasoning`, the same text in the same chunk."""
    seen = 0
    for (_, api, stream, _), reply in told.items():
        if api != "chat":
            continue
        if stream:
            for choice in the(reply).chunks:
                extra = choice.delta.model_extra or {}
                assert extra.get("reasoning_content") == extra.get("reasoning")
                seen += bool(extra.get("reasoning"))
        else:
            extra = the(reply).raw.choices[0].message.model_extra
            assert extra.get("reasoning_content") == extra.get("reasoning")
            seen += bool(extra.get("reasoning"))
    assert seen > 100


def test_calls_have_openai_ids(told: Any) -> None:
    for (_, api, _, _), reply in told.items():
        if api == "chat":
            assert all(call_id.startswith(("call_", "chatcmpl-tool-")) for call_id in the(reply).call_ids)
