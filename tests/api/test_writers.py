"""Replies as the three APIs write them: what streams is what a whole reply holds, an item a message, byte for byte."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from comingback import CALL, DONE, MANY, MORE, OFFERED, SAY, THINK, A, E, S
from feeding import encode as ids_of
from harmony_plugin import Options, Stream
from harmony_plugin.api import messages, responses
from harmony_plugin.api.chat import ChatWriter
from harmony_plugin.api.reply import Ending, Piece, Usage
from harmony_plugin.api.tools import Toolbox
from harmony_plugin.core import RequestError
from harmony_plugin.prompts import Prompts
from test_cases import LINES as CASES
from test_cases import how
from test_cases import ids_of as case_ids

TOOLS = [
    {"type": "function", "name": "f", "parameters": {"type": "object"}},
    {"type": "custom", "name": "p"},
]


def pieces(ids: list[int], given: dict[str, Any], size: int, cut: bool = False) -> list[Piece]:
    """The reply's pieces when it comes in chunks of `size`. `given`: the prompt and the tools."""
    stream = Stream(**given, options=Options(keep=False))
    split = [Piece(events) for at in range(0, len(ids), size) if (events := stream.feed_events(ids[at : at + size]))]
    return [*split, Piece(stream.finish_events(), (), Ending(stream.finish_reason(cut)))]


REPLIES = [
    *(pytest.param(case_ids(case), how(case), id=case["id"]) for case in CASES),
    *(pytest.param(ids_of(text), OFFERED, id=name) for name, (text, _) in MANY.items()),
]


def without_ids(value: Any) -> str:
    """As JSON, with what is drawn by chance or by the clock left out."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(r'"(?:(?:msg|rs|fc|ctc|call|resp)_[0-9a-f]+|chatcmpl-[0-9a-f]+)"|(?<=_at": )\d+', '"-"', text)


# Responses


def response_writer() -> responses.ResponseWriter:
    asked = responses.check({"input": "hi", "tools": TOOLS})
    return responses.ResponseWriter(asked, "m", Toolbox(asked.tools))


def streamed_items(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items as a client puts them together, checked against those that the events call done."""
    items: dict[int, dict[str, Any]] = {}
    texts: dict[int, str] = {}
    done: list[dict[str, Any]] = []
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        index: Any = event.get("output_index")
        if event["type"] == "response.output_item.added":
            assert index == len(items) == len(done), "one item is open at a time"
            items[index], texts[index] = event["item"], ""
        elif event["type"].endswith(".delta"):
            assert event["item_id"] == items[index]["id"]
            assert event["delta"]
            texts[index] += event["delta"]
        elif event["type"] == "response.output_item.done":
            item = event["item"]
            assert item["id"] == items[index]["id"]
            said = item["content"][0]["text"] if "content" in item else item.get("arguments", item.get("input"))
            assert said == texts[index]
            done.append(item)
    assert len(items) == len(done)
    return done


@pytest.mark.parametrize(("ids", "given"), REPLIES)
def test_responses_streamed_is_whole(ids: list[int], given: dict[str, Any]) -> None:
    whole = response_writer().whole(pieces(ids, given, len(ids) or 1), Usage())
    for size in (1, 3):
        writer = response_writer()
        events = list(writer.start(Usage()))
        for piece in pieces(ids, given, size):
            events += writer.feed(piece)
        events += writer.finish(Usage())
        assert without_ids(streamed_items(events)) == without_ids(whole["output"])
        assert without_ids(events[-1]["response"]) == without_ids(whole)
        assert without_ids(writer.response) == without_ids(whole)


@pytest.mark.parametrize("name", MANY)
def test_an_item_is_a_message(name: str) -> None:
    text, kinds = MANY[name]
    output = response_writer().whole(pieces(ids_of(text), OFFERED, 1), Usage())["output"]
    assert "".join({"reasoning": "r", "message": "m"}.get(item["type"], "c") for item in output) == kinds
    assert not any(item["content"][0]["text"].startswith("\n") for item in output if "content" in item)
    phases = {item["content"][0]["text"]: item["phase"] for item in output if item["type"] == "message"}
    assert {"Let me look.": "commentary", "Done.": "final_answer"}.items() >= phases.items()


def test_the_item_that_a_limit_cut_is_incomplete() -> None:
    ids = ids_of(f"{THINK}{E}{S}{A}final<|message|>Half an ans")
    output = response_writer().whole(pieces(ids, {}, 1, cut=True), Usage())["output"]
    assert [item["status"] for item in output] == ["completed", "incomplete"]
    whole = response_writer().whole(pieces(ids, {}, 1), Usage())["output"]
    assert [item["status"] for item in whole] == ["completed", "completed"]


def test_a_failure_half_way_keeps_what_came() -> None:
    writer = response_writer()
    for piece in pieces(ids_of(THINK + E + S + DONE), {}, 1)[:-2]:
        list(writer.feed(piece))
    events = list(writer.fail(RequestError("no memory", None, None, 500)))
    assert [item["status"] for item in writer.response["output"]] == ["completed", "incomplete"]
    assert (events[-1]["type"], events[-1]["response"]["error"]["message"]) == ("response.failed", "no memory")


def test_what_a_search_for_tools_found_is_its_result() -> None:
    search = {"type": "tool_search_call", "call_id": "s", "execution": "client", "arguments": {"query": "x"}}
    found = {"type": "tool_search_output", "call_id": "s", "execution": "client", "tools": [TOOLS[0]]}
    asked = responses.check({"input": [search, found]})
    told = responses.to_chat(asked, Toolbox(None, responses.brought_tools(asked.input)))["messages"]
    assert told[-1] == {"role": "tool", "tool_call_id": "s", "content": "Found, and ready to be called: f"}


@pytest.mark.parametrize("name", MANY)
def test_what_is_stored_leads_to_the_prompt_that_a_client_would_send(name: str) -> None:
    asked = responses.check({"input": "hi", "tools": TOOLS})
    toolbox = Toolbox(asked.tools)
    output = response_writer().whole(pieces(ids_of(MANY[name][0]), OFFERED, 1), Usage())["output"]
    results = [
        {"type": f"{item['type']}_output", "call_id": item["call_id"], "output": "ok"}
        for item in output
        if "call_id" in item
    ]
    after = [*results, {"role": "user", "content": "go on"}]
    sent = responses.check({"input": [*responses.input_items(asked), *output, *after], "tools": TOOLS})
    stored = responses.check({"input": after, "tools": TOOLS})
    earlier = [*responses.input_items(asked), *output]
    whole = responses.to_chat(sent, toolbox)["messages"]
    assert responses.to_chat(stored, toolbox, earlier)["messages"] == whole
    assert Prompts().render(whole)


@pytest.mark.parametrize("parts", [[THINK, CALL], [THINK, SAY, CALL], [THINK, SAY, MORE, CALL], [THINK, MORE, CALL]])
@pytest.mark.parametrize("api", ["responses", "messages"])
def test_a_tool_loop_goes_on_from_the_very_ids_that_were_generated(parts: list[str], api: str) -> None:
    text, prompts = f"{E}{S}".join(parts), Prompts()
    given = pieces(ids_of(text), {"tools": ["f"]}, 1)
    if api == "responses":
        asked = responses.check({"input": "hi", "tools": TOOLS[:1]})
        toolbox = Toolbox(asked.tools)
        output = response_writer().whole(given, Usage())["output"]
        result = {"type": "function_call_output", "call_id": output[-1]["call_id"], "output": "ok"}
        went_on = responses.check({"input": [result], "tools": TOOLS[:1]})
        before = responses.to_chat(asked, toolbox)
        after = responses.to_chat(went_on, toolbox, [*responses.input_items(asked), *output])
    else:
        body: dict[str, Any] = {
            "model": "m",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        }
        before = messages.to_chat(messages.check(body))
        content = messages.MessageWriter("m").whole(given, Usage())["content"]
        result = {"type": "tool_result", "tool_use_id": content[-1]["id"], "content": "ok"}
        body["messages"] += [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
        after = messages.to_chat(messages.check(body))
    prompt = prompts.render(before["messages"], tools=before["tools"])
    generated = [*prompt, *ids_of(text)]
    assert prompts.render(after["messages"], tools=after["tools"])[: len(generated)] == generated


# Messages


def streamed_blocks(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks as a client puts them together."""
    blocks: list[dict[str, Any]] = []
    arguments = ""
    for event in events:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(dict(event["content_block"]))
            arguments = ""
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            for name, value in event["delta"].items():
                if name == "partial_json":
                    arguments += value
                elif name != "type":
                    blocks[-1][name] += value
        elif event["type"] == "content_block_stop" and blocks[-1]["type"] == "tool_use":
            try:
                read = json.loads(arguments)
            except ValueError:
                read = None
            blocks[-1]["input"] = read if isinstance(read, dict) else {"arguments": arguments}
    return blocks


@pytest.mark.parametrize(("ids", "given"), REPLIES)
def test_messages_streamed_is_whole(ids: list[int], given: dict[str, Any]) -> None:
    whole = messages.MessageWriter("m").whole(pieces(ids, given, len(ids) or 1), Usage())
    for size in (1, 3):
        writer = messages.MessageWriter("m")
        events = list(writer.start(Usage()))
        for piece in pieces(ids, given, size):
            events += writer.feed(piece)
        events += writer.finish(Usage())
        assert without_ids(streamed_blocks(events)) == without_ids(whole["content"])
        assert without_ids(writer.message) == without_ids(whole)
        assert events[-2]["delta"]["stop_reason"] == whole["stop_reason"]


@pytest.mark.parametrize("name", MANY)
def test_a_block_is_a_message(name: str) -> None:
    text, kinds = MANY[name]
    content = messages.MessageWriter("m").whole(pieces(ids_of(text), OFFERED, 1), Usage())["content"]
    assert "".join({"thinking": "r", "text": "m"}.get(block["type"], "c") for block in content) == kinds
    hidden = messages.MessageWriter("m", thinking=False).whole(pieces(ids_of(text), OFFERED, 1), Usage())["content"]
    assert without_ids(hidden) == without_ids([block for block in content if block["type"] != "thinking"])


# Chat


@pytest.mark.parametrize(("ids", "given"), REPLIES)
def test_chat_streamed_is_whole(ids: list[int], given: dict[str, Any]) -> None:
    whole = ChatWriter("m", custom={"p"}).whole(pieces(ids, given, len(ids) or 1), Usage())
    choice = whole["choices"][0]
    writer = ChatWriter("m", custom={"p"}, include_usage=True)
    chunks = [chunk for piece in pieces(ids, given, 1) for chunk in writer.feed(piece)]
    chunks += writer.finish(Usage())
    message: dict[str, Any] = {"role": None, "content": None, "reasoning_content": None, "reasoning": None}
    calls: list[dict[str, Any]] = []
    for chunk in chunks[:-1]:
        (streamed,) = chunk["choices"]
        for name, value in streamed["delta"].items():
            if name != "tool_calls":
                message[name] = (message[name] or "") + value
        for piece in streamed["delta"].get("tool_calls", ()):
            if "id" in piece:
                assert piece["index"] == len(calls)
                calls.append({"id": piece["id"], "type": piece["type"], piece["type"]: dict(piece[piece["type"]])})
            else:
                kind, field = ("custom", "input") if "custom" in piece else ("function", "arguments")
                calls[piece["index"]][kind][field] += piece[kind][field]
    if calls:
        message["tool_calls"] = calls
    assert chunks[-1]["usage"]["total_tokens"] == 0
    assert sorted(json.loads(without_ids(message)).items()) == sorted(
        json.loads(without_ids(choice["message"])).items()
    )
    assert chunks[-2]["choices"][0]["finish_reason"] == choice["finish_reason"]
