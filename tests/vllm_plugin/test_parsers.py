"""Chat replies through the parsers that vLLM composes: whole, token by token and in chunks, they are the core's."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from feeding import encode, encode_plain, fields
from harmony_plugin import parse
from harmony_plugin.vllm import seams
from stopping import STOPPING, Stopping

from .asking import PROMPT, by, chat, one_by_one, responses, streamed, whole
from .conftest import composed, o200k, small

CASES = [json.loads(line) for line in (Path(__file__).parents[1] / "cases" / "split.jsonl").read_text().splitlines()]
THINK = "<|channel|>analysis<|message|>Let me think.<|end|><|start|>assistant"
CALL = THINK + '<|channel|>commentary to=functions.look <|constrain|>json<|message|>{"a": "é"}<|call|>'
ANSWER = THINK + "<|channel|>final<|message|>It is sunny.<|return|>"

REQUESTED = [case for case in STOPPING if all(case.stop)]  # vLLM refuses empty ones


def ids_of(case: dict[str, Any]) -> list[int]:
    if case.get("token_ids"):
        return list(case["token_ids"])
    return encode(case["raw"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_split_cases(case: dict[str, Any], parser_class: Any, tokenizer: Any) -> None:
    ids = ids_of(case)
    tools = case.get("tools") or ["get_current_weather"]
    names = [each if isinstance(each, str) else each.get("function", each)["name"] for each in tools]
    prompt = encode(case.get("prompt_prefix") or "<|start|>assistant")
    expected = fields(parse(ids, tools=names, prompt=prompt))
    request = chat(names)

    def parser() -> Any:
        fresh = parser_class(tokenizer, request.tools)
        fresh.set_prompt_token_ids(prompt)
        return fresh

    assert whole(parser(), request, ids) == expected
    assert streamed(parser(), request, one_by_one(ids), prompt) == expected
    assert streamed(parser(), request, by(7, ids), prompt) == expected


def test_look_alikes_are_text(parser_class: Any, tokenizer: Any) -> None:
    """Token ids decide, on every path: a marker spelled with ordinary tokens is text."""
    ids = encode("<|channel|>final<|message|>Markers look like ") + encode_plain("<|end|>") + encode(".<|return|>")
    for fields_ in (
        whole(parser_class(tokenizer, None), chat(), ids),
        streamed(parser_class(tokenizer, None), chat(), [ids]),
    ):
        assert fields_ == (None, "Markers look like <|end|>.", [])


@pytest.mark.parametrize("gpt_oss", [True, False])
def test_each_parser_alone(gpt_oss: bool, tokenizer: Any) -> None:
    """Named alone, a parser gives its own field and content; the other's text is left out, never leaked."""
    ids = encode(CALL.replace("<|call|>", "<|end|>") + "<|start|>assistant<|channel|>final<|message|>Done.<|return|>")
    request = chat(["look"])
    for ways in (lambda p, r: whole(p, r, ids), lambda p, r: streamed(p, r, one_by_one(ids))):
        reasoning = composed(gpt_oss, tools=False)(tokenizer, request.tools)
        assert ways(reasoning, request) == ("Let me think.", "Done.", [])
        tools = composed(gpt_oss, reasoning=False)(tokenizer, request.tools)
        assert ways(tools, request) == (None, "Done.", [("look", '{"a": "é"}')])


def test_tool_choice_none_and_no_tools(parser_class: Any, tokenizer: Any) -> None:
    for request in (chat(["look"], tool_choice="none"), chat()):
        assert whole(parser_class(tokenizer, request.tools), request, encode(CALL)) == ("Let me think.", None, [])
        parser = parser_class(tokenizer, request.tools)
        assert streamed(parser, request, one_by_one(encode(CALL))) == ("Let me think.", None, [])


NAMED_ON_RESPONSES = {"type": "function", "name": "g"}


@pytest.mark.parametrize(
    "choice",
    [
        *({"type": "allowed_tools", "mode": mode, "tools": [NAMED_ON_RESPONSES]} for mode in ("auto", "required")),
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}, NAMED_ON_RESPONSES]},
    ],
)
def test_allowed_tools_that_are_not_offered(choice: dict[str, Any], parser_class: Any, tokenizer: Any) -> None:
    """vLLM answers this error with HTTP 400; by itself it lets them through."""
    with pytest.raises(seams.load().ValidationError, match=r"tool_choice\.tools names 'g'"):
        adjusted(parser_class, tokenizer, responses(["f"], tool_choice=choice))
    adjusted(parser_class, tokenizer, responses(["f", "g"], tool_choice=choice))


def test_a_tool_choice_that_is_not_offered(parser_class: Any, tokenizer: Any) -> None:
    """As ``/v1/messages`` makes it; requests of the other two APIs do not come into being."""
    request = chat(["f", "g"], tool_choice={"type": "function", "function": {"name": "g"}})
    adjusted(parser_class, tokenizer, request.model_copy())
    request.tools = chat(["f"]).tools
    with pytest.raises(seams.load().ValidationError, match="tool_choice names 'g', which is not in tools"):
        adjusted(parser_class, tokenizer, request)


def test_a_choice_of_tools_that_vllm_runs(parser_class: Any, tokenizer: Any) -> None:
    hosted = {"type": "web_search_preview"}
    for choice in (hosted, {"type": "allowed_tools", "mode": "auto", "tools": [hosted]}):
        adjusted(parser_class, tokenizer, responses(["f"], tool_choice=choice))


def test_names_in_a_namespace() -> None:
    """The model is offered them with the namespace's name in front."""
    from harmony_plugin.vllm.requests import tool_names

    inner = {"type": "function", "name": "f", "parameters": {}, "strict": False}
    namespace = {"type": "namespace", "name": "n", "description": "d", "tools": [inner]}
    request = type(responses()).model_validate(
        {"model": "m", "input": "x", "tools": [namespace, {**inner, "name": "g"}]}
    )
    assert tool_names(request.tools) == ("n__f", "g")


def adjusted(parser_class: Any, tokenizer: Any, request: Any) -> Any:
    return parser_class(tokenizer, request.tools).adjust_request(request)


def test_reasoning_left_out(parser_class: Any, tokenizer: Any) -> None:
    request = chat(include_reasoning=False)
    assert streamed(parser_class(tokenizer, None), request, one_by_one(encode(ANSWER))) == (None, "It is sunny.", [])


def test_reasoning_content_beside_reasoning(parser_class: Any, tokenizer: Any) -> None:
    """Clients get both names, in the chunk's JSON."""
    parser, request = parser_class(tokenizer, None), chat()
    sent = [
        json.loads(delta.model_dump_json(exclude_unset=True))
        for token in encode(ANSWER)
        if (delta := parser.parse_delta("", [token], request, PROMPT, finished=False)) is not None
    ]
    assert "".join(each.get("reasoning_content", "") for each in sent) == "Let me think."
    assert all(each.get("reasoning") == each.get("reasoning_content") for each in sent)
    assert {"content": "It"} in sent


@pytest.mark.parametrize("case", REQUESTED, ids=lambda case: case.name)
def test_stop_strings(case: Stopping, parser_class: Any, tokenizer: Any) -> None:
    """What the parser is given behind the match, in whole replies and in chunks of several tokens, is not given out."""
    request = chat(["get_weather"], stop=list(case.stop), include_stop_str_in_output=case.include)
    ids = encode(case.raw)
    assert whole(parser_class(tokenizer, request.tools), request, ids) == case.fields
    for chunks in (one_by_one(ids), by(3, ids)):
        assert streamed(parser_class(tokenizer, request.tools), request, chunks) == case.fields


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("case", REQUESTED, ids=lambda case: case.name)
def test_the_detokenizer_says_which_stop_string_was_met(
    case: Stopping, size: int, parser_class: Any, tokenizer: Any
) -> None:
    """vLLM ends generation where its detokenizer says so; it looks at what the client sees, not at raw text."""
    request = chat(["get_weather"], stop=list(case.stop), include_stop_str_in_output=case.include)
    detokenizer = detokenizer_of(parser_class, tokenizer, request)
    ids = encode(case.raw)
    matched = None
    for chunk in by(size, ids):
        matched = detokenizer.update(list(chunk), chunk[-1] == ids[-1])
        if matched:
            break
    assert matched == case.matched
    if case.said is not None:
        assert detokenizer.output_token_ids == encode(case.said), "nothing behind the token that completed it"


def test_other_requests_keep_vllms_stop_strings(parser_class: Any, tokenizer: Any) -> None:
    """One that no parser of ours has seen, or that says it has: the stop strings are vLLM's."""
    parser_class(tokenizer, None)
    for xargs in (None, {"harmony_plugin_split": "no plan"}, {"harmony_plugin_split": '{"tools": 3}'}):
        detokenizer = new_detokenizer(tokenizer, chat(stop=["final"], vllm_xargs=xargs))
        assert detokenizer.stop == ["final"]
        assert [detokenizer.update([token], False) for token in encode("<|channel|>final<|message|>")][1] == "final"


def test_stop_strings_and_hidden_reasoning(parser_class: Any, tokenizer: Any) -> None:
    request = chat(stop=["think"], include_reasoning=False)
    assert streamed(parser_class(tokenizer, None), request, one_by_one(encode(ANSWER))) == (None, "It is sunny.", [])
    detokenizer = detokenizer_of(parser_class, tokenizer, request)
    assert not any(detokenizer.update([token], False) for token in encode(ANSWER))


def test_a_stop_token_is_no_part_of_a_stop_string(parser_class: Any, tokenizer: Any) -> None:
    """Neither for the parser nor for the detokenizer: both say the same."""
    (bang,) = encode("!")
    request = chat(stop=["o!", "!"], stop_token_ids=[bang])
    ids = [*encode("<|channel|>final<|message|>Hello"), bang]
    detokenizer = detokenizer_of(parser_class, tokenizer, request)
    assert [detokenizer.update([token], token == bang) for token in ids] == [None] * len(ids)
    assert whole(parser_class(tokenizer, None), request, ids) == (None, "Hello", [])


def detokenizer_of(parser_class: Any, tokenizer: Any, request: Any) -> Any:
    """The detokenizer of a request that went through the parser, as vLLM's front end makes it."""
    parser_class(tokenizer, request.tools).adjust_request(request)
    return new_detokenizer(tokenizer, request)


def new_detokenizer(tokenizer: Any, request: Any) -> Any:
    from vllm.v1.engine.detokenizer import IncrementalDetokenizer

    params = request.to_sampling_params(100, {})
    engine_request = SimpleNamespace(
        request_id="r", sampling_params=params, prompt_token_ids=list(PROMPT), prompt_embeds=None
    )
    return IncrementalDetokenizer.from_new_request(tokenizer, engine_request)


def test_stop_strings_and_min_tokens(parser_class: Any, tokenizer: Any) -> None:
    ids = encode("<|channel|>final<|message|>one two one")
    request = chat(stop="one", min_tokens=5)
    expected: Any = (None, "one two ", [])
    assert whole(parser_class(tokenizer, None), request, ids) == expected
    assert streamed(parser_class(tokenizer, None), request, one_by_one(ids)) == expected


def test_text_that_only_looks_like_a_stop(parser_class: Any, tokenizer: Any) -> None:
    """Held text comes when it turns out to be none; messages of one field are joined as ever."""
    ids = encode(
        "<|channel|>commentary<|message|>STO<|end|><|start|>assistant<|channel|>final<|message|>P it STO<|return|>"
    )
    request = chat(stop=["STOP", "\n"])
    expected: Any = (None, "STO\nP it STO", [])
    assert whole(parser_class(tokenizer, None), request, ids) == expected
    assert streamed(parser_class(tokenizer, None), request, one_by_one(ids)) == expected


def test_stop_token_ids(parser_class: Any, tokenizer: Any) -> None:
    (bang,) = encode("!")
    ids = [*encode("<|channel|>final<|message|>Hello"), bang]
    request = chat(stop_token_ids=[bang, 200007])
    assert whole(parser_class(tokenizer, None), request, ids) == (None, "Hello", [])
    assert streamed(parser_class(tokenizer, None), request, one_by_one(ids)) == (None, "Hello", [])


def test_a_prompt_that_ends_in_a_body(parser_class: Any, tokenizer: Any) -> None:
    prompt = encode("<|start|>assistant<|channel|>final<|message|>Once")
    ids = encode(" upon a time<|return|>")
    parser = parser_class(tokenizer, None)
    assert streamed(parser, chat(), one_by_one(ids), prompt) == (None, " upon a time", [])
    parser = parser_class(tokenizer, None)
    parser.set_prompt_token_ids(prompt)
    assert whole(parser, chat(), ids) == (None, " upon a time", [])


def test_reasoning_tokens(parser_class: Any, tokenizer: Any) -> None:
    """Counted as they are split; the same in both modes, and for ids that the parser has not seen."""
    ids = encode(ANSWER)
    count = parse(ids).reasoning_tokens
    parser = parser_class(tokenizer, None)
    whole(parser, chat(), ids)
    assert parser.count_reasoning_tokens(ids) == count == 4
    parser = parser_class(tokenizer, None)
    grown = []
    for place, token in enumerate(ids):
        parser.parse_delta("", [token], chat(), PROMPT, finished=place == len(ids) - 1)
        grown.append(parser.count_reasoning_tokens(tuple(ids[: place + 1])))
    assert grown == sorted(grown)
    assert grown[-1] == count
    assert parser_class(tokenizer, None).count_reasoning_tokens(ids) == count


def test_reasoning_tokens_of_other_ids_of_the_same_length(parser_class: Any, tokenizer: Any) -> None:
    ids = encode(ANSWER)
    parser = parser_class(tokenizer, None)
    whole(parser, chat(), ids)
    assert parser.count_reasoning_tokens(tuple(ids)) == 4
    other = encode("<|channel|>final<|message|>" + "yes " * len(ids))[: len(ids)]
    assert parser.count_reasoning_tokens(other) == 0


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        (
            "<|channel|>analysis<|message|>Hm, well.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
            (4, 2),
        ),
        # Out of its format: vLLM's own counting raises.
        ("<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>Yes.<|start|><|start|>", (2, 2)),
        ("Yes.", (0, 2)),
    ],
)
def test_phases_of_tokens(parser_class: Any, said: str, counts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a vLLM newer than 0.33 asks of its parsers, with a stand-in for its class of counts."""
    from collections import namedtuple

    from harmony_plugin.vllm import seams

    Counts = namedtuple("Counts", "reasoning content unclassified")
    monkeypatch.setattr(seams.load(), "TokenPhaseCounts", Counts)
    ids = encode(said)
    told = parser_class(o200k(), None).classify_token_phases(ids)
    assert told == (*counts, len(ids) - sum(counts))


def test_one_parser_for_several_choices(parser_class: Any, tokenizer: Any) -> None:
    """Older releases of vLLM parse all choices of a reply with one parser."""
    request = chat(["look"])
    parser = parser_class(tokenizer, request.tools)
    assert whole(parser, request, encode(CALL))[2] == [("look", '{"a": "é"}')]
    assert whole(parser, request, encode(ANSWER)) == ("Let me think.", "It is sunny.", [])
    assert parser.count_reasoning_tokens(encode(ANSWER)) == 4


def test_settings_of_one_request(parser_class: Any, tokenizer: Any) -> None:
    ids = encode(
        "<|channel|>commentary<|message|>I will look.<|end|><|start|>assistant<|channel|>final<|message|>Hi<|return|>"
    )
    template = {"harmony": {"commentary": "reasoning"}}
    parser = parser_class(tokenizer, None, chat_template_kwargs=template)
    assert whole(parser, chat(), ids) == ("I will look.", "Hi", [])
    assert whole(parser_class(tokenizer, None), chat(), ids) == (None, "I will look.\nHi", [])


@pytest.mark.parametrize(
    "wrong", ["reasoning", {"commentary": "nowhere"}, {"strict": True}, {"channels": 3}, {"channels": {"x": "y"}}]
)
def test_wrong_settings_of_one_request(wrong: Any, parser_class: Any, tokenizer: Any) -> None:
    """vLLM answers this error with HTTP 400."""
    with pytest.raises(seams.load().ValidationError, match=r"chat_template_kwargs\.harmony"):
        parser_class(tokenizer, None, chat_template_kwargs={"harmony": wrong})


def test_another_vocabulary() -> None:
    """A model with a vocabulary of its own: marker ids and bytes are read from its tokenizer."""
    tokenizer = small()
    text = (
        "<|channel|>analysis<|message|>Größe? 🦀<|end|>"
        "<|start|>assistant<|channel|>final<|message|>1,80 m — 🦀<|return|>"
    )
    ids = tokenizer.encode(text, add_special_tokens=False)
    prompt = tokenizer.encode("<|start|>assistant", add_special_tokens=False)
    parser_class = composed(gpt_oss=False)
    expected: Any = ("Größe? 🦀", "1,80 m — 🦀", [])
    assert whole(parser_class(tokenizer, None), chat(), ids) == expected
    assert streamed(parser_class(tokenizer, None), chat(), one_by_one(ids), prompt) == expected


def test_the_parsers_by_themselves() -> None:
    """Callers that use the registered parsers directly hand over text."""
    from harmony_plugin.vllm.parsers import HarmonyReasoningParser, HarmonyToolParser

    request = chat(["look"])
    reasoning = HarmonyReasoningParser(o200k())
    assert reasoning.extract_reasoning(ANSWER, request) == ("Let me think.", "It is sunny.")
    deltas = [reasoning.extract_reasoning_streaming("", "", each, [], [], []) for each in ANSWER]
    assert "".join(delta.reasoning for delta in deltas if delta and delta.reasoning) == "Let me think."
    assert "".join(delta.content for delta in deltas if delta and delta.content) == "It is sunny."
    assert reasoning.finish_streaming() is None
    told = HarmonyToolParser(o200k()).extract_tool_calls(CALL, request)
    assert told.tools_called
    assert [(call.function.name, call.function.arguments) for call in told.tool_calls] == [("look", '{"a": "é"}')]
    tools = HarmonyToolParser(o200k())
    deltas = [tools.extract_tool_calls_streaming("", "", each, [], [], [], request) for each in CALL]
    calls = [call for delta in deltas if delta for call in delta.tool_calls]
    assert calls[0].function.name == "look"
    assert "".join(call.function.arguments for call in calls) == '{"a": "é"}'
    assert request.skip_special_tokens is not False
    assert not tools.adjust_request(request).skip_special_tokens
