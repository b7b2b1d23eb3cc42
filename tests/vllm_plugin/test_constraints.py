"""What replies are held to while they are generated: which ids the grammar takes, and what becomes of requests."""

from __future__ import annotations

import functools
import json
from types import SimpleNamespace
from typing import Any

import pytest

from feeding import encode
from harmony_plugin import Dialect
from harmony_plugin.vllm import grammar, seams
from harmony_plugin.vllm.constraints import NOTE
from harmony_plugin.vllm.grammar import Reply, Tool

from .asking import chat, responses, tool
from .conftest import composed, o200k

pytestmark = [
    pytest.mark.skipif(
        not (seams.load().holds and grammar.available()), reason="this vLLM cannot hold replies to a grammar of ours"
    ),
    pytest.mark.filterwarnings("ignore:max_rollback_tokens"),  # vLLM's own
]

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
ANALYSIS = "<|channel|>analysis<|message|>Hm, well.<|end|><|start|>assistant"
PREAMBLE = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>Yes.<|return|>"
CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'


@functools.cache
def backend() -> Any:
    from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend
    from vllm_rig.model import VOCABULARY_SIZE

    # vLLM's own backend, as an engine has it; what it compiles with is the plugin's for such grammars.
    config = SimpleNamespace(
        structured_outputs_config=SimpleNamespace(disable_any_whitespace=False),
        model_config=SimpleNamespace(hf_config=SimpleNamespace(model_type="gpt_oss")),
        speculative_config=SimpleNamespace(num_speculative_tokens=20),
    )
    composed(gpt_oss=True)
    return XgrammarBackend(config, tokenizer=o200k(), vocab_size=VOCABULARY_SIZE)


def taken(tag: str, reply: str) -> str:
    """The beginning of the reply that can be sampled: each of its ids was among those allowed."""
    held, mask = compiled(tag), backend().allocate_token_bitmask(1)
    ids = encode(reply)
    for place, token in enumerate(ids):
        held.fill_bitmask(mask, 0)
        if not mask[0, token // 32].item() >> token % 32 & 1:
            return o200k().decode(ids[:place])  # type: ignore[no-any-return]
        assert held.accept_tokens("r", [token])
    assert held.is_terminated()
    return reply


def compiled(tag: str) -> Any:
    from vllm.v1.structured_output.backend_types import StructuredOutputOptions
    from vllm_rig.model import STOP_IDS

    return backend().compile_grammar(StructuredOutputOptions.STRUCTURAL_TAG, tag, stop_token_ids=set(STOP_IDS))


def reply(**fields: Any) -> str:
    return Reply(Dialect().ids, **fields).tag()


@pytest.mark.parametrize(
    "said",
    [
        FINAL,
        ANALYSIS + FINAL,
        ANALYSIS + PREAMBLE + ANALYSIS + CALL,
        ANALYSIS + "<|channel|>final <|constrain|>json<|message|>{}<|end|><|return|>",
        ANALYSIS + "<|channel|>commentary<|message|>Done.<|return|>",
        '<|channel|>commentary to=functions.f json<|message|>{"a": 1}<|call|>',
        ' to=functions.f<|channel|>commentary<|constrain|>json<|message|>{"a": 1}<|call|>',
        '<|channel|>analysis to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>',
        '<|channel|>commentary to=functions.strict json<|message|>{"a": 1}<|call|>',
    ],
)
def test_well_formed_replies_can_be_written(said: str) -> None:
    assert taken(reply(tools=[Tool("f"), Tool("g"), Tool("strict", SCHEMA)]), said) == said


def test_look_alikes_of_markers_are_text() -> None:
    """Spelled with ordinary tokens they end no body, and open no header."""
    inside = o200k().encode(
        "An <|end|> and <|channel|>final<|message|>", add_special_tokens=False, split_special_tokens=True
    )
    held = compiled(reply())
    assert max(inside) < min(Dialect().ids.values())
    for token in (*encode("<|channel|>analysis<|message|>"), *inside, *encode("<|end|><|start|>assistant" + FINAL)):
        assert held.accept_tokens("r", [token])
    assert held.is_terminated()


@pytest.mark.parametrize(
    ("fields", "said", "up_to"),
    [
        ({}, "Yes.", ""),
        ({}, "<|channel|>finally", "<|channel|>"),
        ({}, ANALYSIS + "assistant", ANALYSIS),
        ({}, "<|channel|>analysis<|message|>Hm<|return|>", "<|channel|>analysis<|message|>Hm"),
        ({}, "<|channel|>analysis<|message|>Hm<|channel|>final", "<|channel|>analysis<|message|>Hm"),
        ({}, CALL, "<|channel|>commentary"),
        ({"tools": [Tool("g")]}, CALL, "<|channel|>commentary to=functions"),
        ({"tools": [Tool("f")]}, CALL.replace("{", "["), CALL.partition("{")[0]),
        ({"tools": [Tool("f", SCHEMA)]}, CALL.replace(" 1", ' "1"'), CALL.partition(" 1")[0]),
        ({"tools": [Tool("f")], "must_call": True}, FINAL, "<|channel|>"),
        ({"preambles": False}, PREAMBLE, "<|channel|>"),
        ({"budget": 0}, ANALYSIS, "<|channel|>"),
        ({"budget": 2}, ANALYSIS, "<|channel|>analysis<|message|>Hm,"),
        ({"budget": 9}, ANALYSIS + ANALYSIS, ANALYSIS + "<|channel|>"),
        ({"budget": 9}, ANALYSIS + PREAMBLE + ANALYSIS, ANALYSIS + PREAMBLE + "<|channel|>"),
    ],
)
def test_nothing_else_can(fields: Any, said: str, up_to: str) -> None:
    assert taken(reply(**fields), said) == up_to


@pytest.mark.parametrize("said", [ANALYSIS + CALL, PREAMBLE + ANALYSIS + PREAMBLE + FINAL, FINAL])
def test_with_a_budget_the_rest_is_as_free_as_without(said: str) -> None:
    assert taken(reply(tools=[Tool("f")], budget=5), said) == said


def test_drafts_are_taken_up_to_the_budget() -> None:
    """What speculation drafts beyond it is refused before masks are filled; nothing is taken for good."""
    held, mask = compiled(reply(budget=3)), backend().allocate_token_bitmask(1)
    head, word = encode("<|channel|>analysis<|message|>"), encode(" word")
    end = encode("<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>")
    assert held.validate_tokens([]) == []
    for _ in range(2):
        assert held.validate_tokens(head + word * 5) == head + word * 3
        assert held.validate_tokens(head + word * 2 + end + word) == head + word * 2 + end
    for token in head + word * 2:
        held.fill_bitmask(mask, 0)
        assert held.accept_tokens("r", [token])
    assert held.validate_tokens(word * 3) == word
    assert held.validate_tokens(end) == end


def test_custom_channels_and_builtin_tools() -> None:
    said = "<|channel|>critic<|message|>No.<|end|><|start|>assistant"
    call = "<|channel|>analysis to=python code<|message|>print(1)<|call|>"
    assert taken(reply(channels=["critic"]), said + FINAL) == said + FINAL
    assert taken(reply(), said) == "<|channel|>"
    assert taken(reply(builtin=["python"]), said.replace("critic", "analysis") + call).endswith("<|call|>")
    assert taken(reply(), call) == "<|channel|>analysis"


# Requests


def adjusted(request: Any) -> Any:
    return composed(gpt_oss=True)(o200k(), request.tools).adjust_request(request)


def asking(request: Any) -> Any:
    """The sampling parameters that vLLM makes of a request."""
    return adjusted(request).to_sampling_params(100, {})


def held(**harmony: Any) -> dict[str, Any]:
    return {"chat_template_kwargs": {"harmony": {"headers": "constrain", **harmony}}}


def configured(backend: str) -> tuple[Any, ...]:
    """What ``verify`` is told by the server: its model's configuration, no speculation, the grammar backend."""
    model = SimpleNamespace(is_diffusion=False, max_logprobs=20, logits_processors=None, get_vocab_size=lambda: 201_088)
    return model, None, SimpleNamespace(backend=backend), o200k()


def test_headers_are_free_unless_asked_for() -> None:
    for request in (chat(), chat(["f"]), responses(["f"])):
        assert adjusted(request).structured_outputs is None
        assert NOTE not in (request.vllm_xargs or {})


@pytest.mark.parametrize("tools", [[], ["f"]])
def test_headers_are_held_with_and_without_tools(tools: list[str]) -> None:
    for request in (chat(tools, **held()), responses(tools, **held())):
        tag = asking(request).structured_outputs.structural_tag
        assert taken(tag, ANALYSIS + FINAL) == ANALYSIS + FINAL
        assert taken(tag, "<|channel|>banal<|message|>") == "<|channel|>"
        assert (taken(tag, CALL) == CALL) == bool(tools)


def test_what_a_request_allows() -> None:
    def tag(*tools: Any, **options: Any) -> str:
        return asking(chat(tools, **held(), **options)).structured_outputs.structural_tag  # type: ignore[no-any-return]

    other = CALL.replace("functions.f", "functions.g")
    named = tag("f", "g", tool_choice={"type": "function", "function": {"name": "g"}})
    assert taken(named, other) == other
    assert taken(named, CALL) != CALL
    assert taken(named, FINAL) != FINAL
    assert taken(tag("f", "g", tool_choice="required"), FINAL) != FINAL
    assert taken(tag("f", "g", tool_choice="none"), FINAL) == FINAL
    assert taken(tag("f", tool_choice="none"), CALL) != CALL
    # A strict tool; and all of them, by the server's flag.
    wrong = CALL.replace('"a"', '"b"')
    strict = {"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}}
    assert taken(tag(strict), CALL) == CALL
    assert taken(tag(strict), wrong) != wrong
    assert taken(tag(tool("f")), wrong) == wrong


@pytest.mark.skipif(
    seams.load().format_of is None, reason="this vLLM does not tell a format as xgrammar takes it: replies stay free"
)
def test_a_format_with_a_call_beside_it() -> None:
    both = asking(chat(["f"], **held(), response_format=FORMAT)).structured_outputs.structural_tag
    answer = '<|channel|>final<|message|>{"a": 1}<|return|>'
    assert taken(both, CALL) == CALL
    assert taken(both, answer) == answer
    assert taken(both, FINAL) == FINAL.partition("Yes")[0]
    assert taken(both, PREAMBLE) == "<|channel|>commentary", "only the call's"


@pytest.mark.parametrize(
    "wish", [{"min_tokens": 5}, {"allowed_token_ids": [1, 2]}, {"stop_token_ids": [5]}, {"use_beam_search": True}]
)
def test_what_no_grammar_could_hold_is_free(wish: Any) -> None:
    request = adjusted(chat(**held(), **wish))
    assert request.structured_outputs is None
    request = adjusted(chat(max_reasoning_tokens=7, **wish))
    assert (request.structured_outputs, request.thinking_token_budget) == (None, 7)


def test_tools_that_vllm_runs_are_free() -> None:
    request = responses([], **held())
    request.tools = [SimpleNamespace(type="code_interpreter")]
    from harmony_plugin import Options
    from harmony_plugin.vllm.constraints import constrain
    from harmony_plugin.vllm.settings import Limits

    assert constrain(request, Limits("constrain"), Options(), Dialect().ids, 0, None).structured_outputs is None


# Budgets


@pytest.mark.parametrize(
    "asked",
    [
        {"thinking_token_budget": 2},
        {"max_reasoning_tokens": 2},
        {"chat_template_kwargs": {"harmony": {"max_reasoning_tokens": 2}}},
    ],
)
def test_a_budget_on_chat_and_responses(asked: Any) -> None:
    """At the budget the analysis is closed, and only a call or the answer may come."""
    for request in (chat(["f"], **asked), responses(["f"], **asked)):
        params = asking(request)
        assert params.thinking_token_budget is None, "it is in the grammar"
        tag = params.structured_outputs.structural_tag
        assert taken(tag, ANALYSIS) == "<|channel|>analysis<|message|>Hm,"
        assert taken(tag, ANALYSIS.replace(" well.", "") + CALL).endswith("<|call|>")


def test_no_reasoning_at_all() -> None:
    for request in (chat(reasoning_effort="none"), responses(reasoning={"effort": "none"})):
        tag = asking(request).structured_outputs.structural_tag
        assert taken(tag, ANALYSIS) == "<|channel|>"
        assert taken(tag, FINAL) == FINAL


def test_an_own_budget_goes_before_the_effort() -> None:
    for request in (
        chat(reasoning_effort="none", max_reasoning_tokens=2),
        responses(reasoning={"effort": "none"}, max_reasoning_tokens=2),
    ):
        tag = asking(request).structured_outputs.structural_tag
        assert taken(tag, ANALYSIS) == "<|channel|>analysis<|message|>Hm,"


def test_other_models_have_vllms_own_budget() -> None:
    """Their replies begin wherever the template ends: no grammar holds them."""
    parser = composed(gpt_oss=False)(o200k(), None)
    request = parser.adjust_request(chat(max_reasoning_tokens=7))
    assert (request.structured_outputs, request.thinking_token_budget) == (None, 7)
    params = parser.adjust_request(responses(max_reasoning_tokens=7)).to_sampling_params(100, {})
    params.verify(*configured("auto"))
    assert (params.structured_outputs, params.thinking_token_budget) == (None, 7)


@pytest.mark.parametrize(
    "asked",
    [
        {"max_reasoning_tokens": -3},
        {"max_reasoning_tokens": "many"},
        {"max_reasoning_tokens": True},
        {"chat_template_kwargs": {"harmony": {"max_reasoning_tokens": 1.5}}},
        {"chat_template_kwargs": {"harmony": {"headers": "perhaps"}}},
        {"chat_template_kwargs": {"harmony": {"header": "free"}}},
    ],
)
def test_limits_that_are_none_are_the_clients_mistake(asked: Any) -> None:
    for request in (chat(**asked), responses(**asked)):
        with pytest.raises(seams.load().ValidationError, match=r"header|max_reasoning_tokens"):
            adjusted(request)


def test_no_budget() -> None:
    assert adjusted(chat(thinking_token_budget=-1)).structured_outputs is None


# Where the server's grammar backend takes no such grammar


@pytest.mark.parametrize("name", ["auto", "xgrammar"])
def test_the_grammar_is_taken(name: str) -> None:
    params = asking(chat(["f"], **held()))
    params.verify(*configured(name))
    assert params.structured_outputs.structural_tag
    assert NOTE not in params.extra_args


@pytest.mark.parametrize("name", ["guidance", "outlines", "lm-format-enforcer"])
def test_another_backend_has_what_stock_vllm_would_have(name: str, caplog: pytest.LogCaptureFixture) -> None:
    params = asking(chat(["f"], **held(max_reasoning_tokens=9)))
    params.verify(*configured(name))
    assert (params.structured_outputs, params.thinking_token_budget) == (None, 9)
    assert f"the backend {name} takes no grammar" in caplog.text


def test_a_schema_that_the_backend_refuses_leaves_headers_free() -> None:
    """Where stock vLLM would hold the reply to it, too, its own refusal is the answer."""
    broken = {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}
    strict = {"type": "function", "function": {"name": "f", "parameters": broken, "strict": True}}
    for options in ({}, held()):
        with pytest.raises(seams.load().ValidationError):
            asking(chat([strict], **options)).verify(*configured("auto"))
    params = asking(chat([strict], tool_choice="none", **held()))
    params.verify(*configured("auto"))
    assert params.structured_outputs


@pytest.mark.parametrize("note", ["x", "[]", json.dumps({"budget": -1, "stock": None}), 5])
def test_a_note_that_a_client_sent(note: Any) -> None:
    params = chat(vllm_xargs={NOTE: note} if isinstance(note, str) else {NOTE: 5}).to_sampling_params(9, {})
    params.verify(*configured("auto"))
    assert params.structured_outputs is None
