"""Where a grammar begins: the engine asks the reasoning parser, with all ids and the new ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from feeding import encode

from .asking import chat, responses
from .conftest import composed, o200k

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
HISTORY = (
    "<|start|>user<|message|>Hi<|end|><|start|>assistant<|channel|>final<|message|>Hello<|end|>"
    "<|start|>user<|message|>JSON, please<|end|><|start|>assistant"
)


def reasoner(**template: Any) -> Any:
    from harmony_plugin.vllm.parsers import HarmonyReasoningParser

    return HarmonyReasoningParser(o200k(), chat_template_kwargs=template)


def begins(reply: str, size: int = 1, prompt: str = HISTORY) -> int | None:
    """How many ids of the reply there are when the grammar begins, asking with ``size`` new ids at a time."""
    parser, ids, before = reasoner(), encode(reply), encode(prompt)
    for end in range(size, len(ids) + size, size):
        if parser.is_reasoning_end_streaming(before + ids[:end], ids[end - size : end]):
            return min(end, len(ids))
    return None


@pytest.mark.parametrize(
    ("head", "rest"),
    [
        ("<|channel|>final<|message|>", "{}"),
        ("<|channel|>final <|constrain|>json<|message|>", "{}"),
        ("<|channel|>analysis<|message|>Well.<|end|><|start|>assistant<|channel|>final<|message|>", '{"a": 1}'),
        ("<|channel|>analysis<|message|>Well.<|channel|>final<|message|>", '{"a": 1}'),
        ("<|channel|>analysis<|message|>A<|message|>B<|end|><|start|>assistant<|channel|>final<|message|>", "{}"),
        ("<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>final<|message|>", "{}"),
        ("<|channel|>analysis<|message|>Well.<|end|><|channel|>final<|message|>", "{}"),
        ("<|message|>", "{}"),
    ],
)
def test_the_grammar_begins_at_the_final_body(head: str, rest: str) -> None:
    for size in (1, 2, 5):
        at = begins(head + rest, size)
        assert at is not None
        assert len(encode(head)) <= at < len(encode(head)) + size


@pytest.mark.parametrize(
    "reply",
    [
        "<|channel|>analysis<|message|>final? <|message|> Not yet",
        "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>",
        "<|channel|>commentary<|message|>A preamble.<|end|>",
        "<|channel|>final",
    ],
)
def test_no_grammar_before_the_final_body(reply: str) -> None:
    assert begins(reply) is None


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (HISTORY, False),
        (HISTORY + "<|channel|>analysis<|message|>Let", False),
        (HISTORY + "<|channel|>final<|message|>", True),
        (HISTORY + '<|channel|>final <|constrain|>json<|message|>{"a":', True),
        (HISTORY + "<|channel|>commentary<|message|>", False),
        (HISTORY + "<|channel|>final", False),
        ("<|channel|>analysis<|message|>thoughts", False),
        ("No Harmony in this prompt of /v1/completions.", True),
    ],
)
def test_prompts(prompt: str, expected: bool) -> None:
    assert reasoner().is_reasoning_end(encode(prompt)) is expected


def test_an_empty_prompt() -> None:
    assert not reasoner().is_reasoning_end([])


class Counting(Sequence[int]):
    """Ids that count how many of them are looked at."""

    def __init__(self, ids: list[int]) -> None:
        self.ids, self.looked = ids, 0

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: Any) -> Any:
        self.looked += len(range(*place.indices(len(self.ids)))) if isinstance(place, slice) else 1
        return self.ids[place]


def test_the_work_is_that_of_the_new_ids() -> None:
    parser = reasoner()
    ids = Counting(encode(HISTORY + "<|channel|>analysis<|message|>") + encode("word ") * 50_000)
    assert not parser.is_reasoning_end_streaming(ids, ids.ids[-4:])
    assert ids.looked == 0
    ids = Counting(ids.ids + encode("<|end|><|start|>assistant<|channel|>final<|message|>"))
    assert parser.is_reasoning_end_streaming(ids, ids.ids[-1:])
    assert ids.looked < 30


def test_content_ids() -> None:
    ids = encode("<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>final<|message|>B<|return|>")
    assert reasoner().extract_content_ids(ids) == encode("B<|return|>")
    assert reasoner().extract_content_ids(ids[:3]) == []


@pytest.mark.parametrize("template", [{"harmony": {"commentary": "nowhere"}}, {"_harmony_plugin": "x"}])
def test_the_engine_never_fails_on_what_a_client_sent(template: Any) -> None:
    """An error in an engine core ends the server; the API server has refused such requests before."""
    assert not reasoner(**template).is_reasoning_end(encode(HISTORY))


# Requests


def tag_of(request: Any) -> Any:
    structured = request.structured_outputs
    return None if structured is None or structured.structural_tag is None else json.loads(structured.structural_tag)


def needs_structural_tags() -> None:
    from harmony_plugin.vllm import seams

    if not hasattr(seams.load().HarmonyParser, "_apply_structural_tag"):
        pytest.skip("this vLLM makes no structural tags for tools")


def test_gpt_oss_keeps_vllms_grammars() -> None:
    """Formats and tools become structural tags over the whole reply, headers included; the engine begins at once."""
    needs_structural_tags()
    parser_class = composed(gpt_oss=True)
    for request in (chat(response_format=FORMAT), chat(["f"], tool_choice="required")):
        parser = parser_class(o200k(), request.tools)
        tag = tag_of(parser.adjust_request(request))
        assert "<|channel|>analysis<|message|>" in json.dumps(tag)
        assert parser.is_reasoning_end(encode(HISTORY))
    request = responses(["f"], tool_choice="required")
    parser = parser_class(o200k(), request.tools)
    parser.adjust_request(request)
    assert reasoner(**request.chat_template_kwargs).is_reasoning_end(encode(HISTORY)), "the engine is told, too"


def test_other_models_have_tools_constrained_from_the_start_and_formats_in_the_final_body() -> None:
    needs_structural_tags()
    parser_class = composed(gpt_oss=False)
    request = chat(["f"], tool_choice="required")
    parser = parser_class(o200k(), request.tools)
    adjusted = parser.adjust_request(request)
    if hasattr(request, "_grammar_from_parser"):
        assert "functions.f" in json.dumps(tag_of(adjusted))
        assert adjusted._grammar_from_parser
    else:
        assert tag_of(adjusted) is None
    for request in (chat(response_format=FORMAT), chat(["f"], response_format=FORMAT)):
        parser = parser_class(o200k(), request.tools)
        adjusted = parser.adjust_request(request)
        assert tag_of(adjusted) is None
        assert adjusted.response_format is not None
        assert not parser.is_reasoning_end(encode(HISTORY))


def call_tags(tag: Any) -> list[Any]:
    """The tags of a grammar that begin a call."""
    if isinstance(tag, list):
        return [each for part in tag for each in call_tags(part)]
    if not isinstance(tag, dict):
        return []
    mine = [tag] if "to=functions." in str(tag.get("begin")) else []
    return mine + [each for part in tag.values() for each in call_tags(part)]


@pytest.mark.parametrize("gpt_oss", [True, False])
def test_a_required_tool_that_is_not_strict_has_an_object_for_arguments(gpt_oss: bool) -> None:
    needs_structural_tags()
    request = chat(["f"], tool_choice="required")
    parser = composed(gpt_oss)(o200k(), request.tools)
    tags = call_tags(tag_of(parser.adjust_request(request)))
    assert tags
    for tag in tags:
        assert tag["content"]["json_schema"] not in (True, {}), tag
        assert tag["content"]["json_schema"]["type"] == "object"


def test_calls_are_possible_beside_a_format() -> None:
    """gpt-oss: the final answer is held to the format, and a call may be made all the same."""
    from harmony_plugin.vllm import seams

    needs_structural_tags()
    if seams.load().call_level is None:
        pytest.skip("this vLLM puts no calls into the grammar of a format")
    for request in (chat(["f"], response_format=FORMAT), chat(["f"], response_format=FORMAT, tool_choice="auto")):
        tag = tag_of(composed(gpt_oss=True)(o200k(), request.tools).adjust_request(request))
        assert call_tags(tag)
        assert "<|channel|>final" in json.dumps(tag)
    tag = tag_of(composed(gpt_oss=True)(o200k(), None).adjust_request(chat(response_format=FORMAT)))
    assert not call_tags(tag)


@pytest.mark.parametrize(
    ("effort", "level"), [("none", "low"), ("minimal", "low"), ("high", "high"), ("xhigh", "high"), (None, None)]
)
def test_efforts_that_gpt_oss_does_not_know(effort: str | None, level: str | None) -> None:
    from pydantic import ValidationError

    try:
        request = chat(reasoning_effort=effort)
    except ValidationError:
        pytest.skip(f"this vLLM refuses {effort}")
    request.reasoning = {"effort": "of no meaning here"}
    composed(gpt_oss=True)(o200k(), None).adjust_request(request)
    assert request.reasoning_effort == level
    request = responses(reasoning={"effort": effort} if effort else None)
    composed(gpt_oss=True)(o200k(), None).adjust_request(request)
    assert (request.reasoning.effort if effort else None) == level


def test_a_thinking_budget_ends_reasoning_with_its_end_marker() -> None:
    assert encode(reasoner().reasoning_start_str) == encode("<|channel|>analysis<|message|>")
    assert encode(reasoner().reasoning_end_str) == encode("<|end|>")


def test_a_call_ends_generation_for_other_models() -> None:
    call = encode("<|call|>")
    for request in (chat(), chat(["f"], stop_token_ids=[5]), responses(["f"])):
        if "stop_token_ids" not in type(request).model_fields:  # Responses, on older releases
            composed(gpt_oss=False)(o200k(), request.tools).adjust_request(request)
            continue
        before = list(request.stop_token_ids or ())
        adjusted = composed(gpt_oss=False)(o200k(), request.tools).adjust_request(request)
        assert adjusted.stop_token_ids == before + call
        assert request.to_sampling_params(9, {}).stop_token_ids == before + call
    request = chat(ignore_eos=True)
    assert not composed(gpt_oss=False)(o200k(), None).adjust_request(request).stop_token_ids
