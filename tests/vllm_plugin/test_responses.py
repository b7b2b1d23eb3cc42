"""/v1/responses: segments that make vLLM send every text where the core said it belongs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from feeding import encode, fields
from harmony_plugin import parse

from .asking import PROMPT, by, chat, one_by_one, responses
from .conftest import composed, o200k

CASES = [json.loads(line) for line in (Path(__file__).parents[1] / "cases" / "split.jsonl").read_text().splitlines()]


def segments(parser: Any, chunks: list[list[int]]) -> tuple[list[Any], list[Any], int]:
    """What a reply gives: the segments of its chunks, those of its end, and its reasoning tokens."""
    made, tokens = [], 0
    for chunk in chunks:
        result = parser.process_chunk(chunk)
        made += result.segments
        tokens += result.reasoning_token_count
    flushed = parser.flush()
    return made, flushed, tokens + parser.late_reasoning_tokens


def messages(made: list[Any]) -> list[tuple[str, str | None, str]]:
    """Completed messages; the deltas of each add up to it."""
    found, text = [], ""
    for segment in made:
        text += segment.delta
        done = segment.completed_message
        if done is not None:
            assert segment.delta == "", "vLLM looks at one or the other"
            assert done.content[0].text == text
            assert (done.channel, done.recipient) == (segment.channel, segment.recipient)
            found.append((done.channel, done.recipient, text))
            text = ""
    assert text == "", "every delta belongs to a message that is completed"
    return found


def told(found: list[tuple[str, str | None, str]]) -> tuple[str | None, str | None, list[tuple[str, str]]]:
    """Segments as vLLM routes them."""
    reasoning = [text for channel, recipient, text in found if channel == "analysis" and recipient is None]
    content = [text for channel, recipient, text in found if channel in ("final", "commentary") and recipient is None]
    calls = [(recipient.removeprefix("functions."), text) for _, recipient, text in found if recipient is not None]
    assert all(channel in ("analysis", "final", "commentary") for channel, _, _ in found)
    return "\n".join(filter(None, reasoning)) or None, "\n".join(filter(None, content)) or None, calls


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_split_cases(case: dict[str, Any]) -> None:
    # vLLM's prompts for /v1/responses all end in <|start|>assistant; cases without that prefix write it themselves.
    ids = list(case.get("token_ids") or encode(case["raw"]))
    names = [each if isinstance(each, str) else each.get("function", each)["name"] for each in case.get("tools") or ()]
    request = responses(names)
    reply = parse(ids, tools=names)
    for chunks in ([ids], one_by_one(ids), by(5, ids)):
        parser = composed(gpt_oss=True)(o200k(), request.tools)
        made, flushed, tokens = segments(parser, chunks)
        assert told(messages(made + flushed)) == fields(reply)
        assert tokens == reply.reasoning_tokens


def test_a_reply_that_is_cut_is_flushed() -> None:
    """vLLM calls the last item incomplete when, and only when, flush() gives something."""
    parser = composed(gpt_oss=True)(o200k(), None)
    made, flushed, _ = segments(parser, [encode("<|channel|>final<|message|>It is")])
    assert messages(made + flushed) == [("final", None, "It is")]
    assert flushed
    assert segments(parser, [encode("<|channel|>final<|message|>It is.<|return|>")])[1] == []


def test_turns_of_one_request() -> None:
    """After flush() the same parser takes the next turn, as it does when vLLM runs tools in between."""
    parser = composed(gpt_oss=True)(o200k(), None)
    for text in ("one", "two"):
        made, flushed, _ = segments(parser, one_by_one(encode(f"<|channel|>final<|message|>{text}<|return|>")))
        assert messages(made + flushed) == [("final", None, text)]


def test_an_empty_call_is_streamed() -> None:
    parser = composed(gpt_oss=True)(o200k(), responses(["f"]).tools)
    made, _, _ = segments(parser, one_by_one(encode("<|channel|>commentary to=functions.f<|message|><|call|>")))
    assert [segment.delta for segment in made] == ["{}", ""]


def test_stop_strings_reach_the_parser() -> None:
    """vLLM tells the parser nothing about the request; its notes travel with chat_template_kwargs."""
    request = responses(stop=["sun"])
    parser_class = composed(gpt_oss=True)
    parser_class(o200k(), request.tools).adjust_request(request)
    ids = encode("<|channel|>final<|message|>It is sun")
    for chunks in ([ids], one_by_one(ids)):
        parser = parser_class(o200k(), request.tools, chat_template_kwargs=request.chat_template_kwargs)
        made, flushed, _ = segments(parser, chunks)
        assert messages(made + flushed) == [("final", None, "It is ")]


def test_tool_choice_none() -> None:
    request = responses(["f"], tool_choice="none")
    parser_class = composed(gpt_oss=True)
    parser_class(o200k(), request.tools).adjust_request(request)
    parser = parser_class(o200k(), request.tools, chat_template_kwargs=request.chat_template_kwargs)
    made, flushed, _ = segments(parser, [encode("<|channel|>commentary to=functions.f<|message|>{}<|call|>")])
    assert made + flushed == []


PYTHON = "<|channel|>analysis to=python code<|message|>1 + 1<|call|>"


def test_builtin_tools_that_nobody_asked_for_are_reasoning() -> None:
    made, flushed, _ = segments(composed(gpt_oss=True)(o200k(), None), [encode(PYTHON)])
    assert messages(made + flushed) == [("analysis", None, "1 + 1")]


def test_builtin_tools_that_vllm_runs_keep_their_names() -> None:
    tools = [SimpleNamespace(type="code_interpreter"), SimpleNamespace(type="web_search_preview")]
    parser = composed(gpt_oss=True)(o200k(), tools)
    made, flushed, _ = segments(parser, [encode(PYTHON)])
    assert messages(made + flushed) == [("analysis", "python", "1 + 1")]
    search = "<|channel|>commentary to=browser.search <|constrain|>json<|message|>{}<|call|>"
    made, flushed, _ = segments(parser, [encode(search)])
    assert messages(made + flushed) == [("commentary", "browser.search", "{}")]


def test_one_parser_splits_no_reply_by_both_ways() -> None:
    ids = encode("<|channel|>final<|message|>Hi<|return|>")
    parser = composed(gpt_oss=True)(o200k(), None)
    parser.parse_delta("", ids[:2], chat(), PROMPT, finished=False)
    with pytest.raises(RuntimeError, match="parse_delta"):
        parser.process_chunk(ids[2:])
    parser = composed(gpt_oss=True)(o200k(), None)
    parser.process_chunk(ids[:2])
    with pytest.raises(RuntimeError, match="flush"):
        parser.parse_delta("", ids[2:], chat(), PROMPT, finished=False)
    assert messages(parser.flush()) == []
