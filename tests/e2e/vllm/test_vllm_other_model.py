"""A model of another type that writes Harmony, prompted by a chat template: both parsers, and each alone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from vllm_rig.cases import load, right
from vllm_rig.faults import FAULTS, WEATHER, Fault
from vllm_rig.load import complaints
from vllm_rig.replies import Api, Clients, Script, comparable, encode, gather_bounded
from vllm_rig.server import PARSERS, Launch

from harmony_plugin.core import harmony_encoding

CASES = load()
API_LIST: tuple[Api, ...] = ("chat", "responses", "messages")
REASONING_ALONE = ("--reasoning-parser", "harmony")
TOOLS_ALONE = ("--tool-call-parser", "harmony", "--enable-auto-tool-choice")
# As if the model's own generation_config.json listed no end token but config.json's <|return|>.
FEW_END_TOKENS = ("--generation-config", "vllm")
# Named behind the rig's own, as a user names it.
BREAKING_LOOPS = (
    "--logits-processors",
    "vllm_rig.scripted_tokens:ScriptedTokens",
    "harmony_plugin.vllm.loops:LoopBreaker",
)
REASONING = "<|channel|>analysis<|message|>Let me think.<|end|><|start|>assistant"
ANSWER = Script(tuple(encode(REASONING + "<|channel|>final<|message|>It is sunny in Rome.<|return|>")))
CALL = Script(
    tuple(encode(REASONING + '<|channel|>commentary to=functions.get_weather json<|message|>{"city": "Rome"}<|call|>'))
)
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["answer", "count"],
    "additionalProperties": False,
}


def ask_both_modes(server: Any, script: Script, **options: Any) -> list[Any]:
    """The replies of /v1/chat/completions, whole and streamed."""
    modes: list[dict[str, Any]] = [{"stream": False}, {"stream": True}]
    return ask_all(server.url, [("chat", script, mode | options) for mode in modes])


def ask_all(url: str, requests: list[tuple[Api, Script, dict[str, Any]]]) -> list[Any]:
    async def work() -> list[Any]:
        async with Clients(url) as clients:
            return await gather_bounded([clients.ask(api, script, **options) for api, script, options in requests])

    return asyncio.run(asyncio.wait_for(work(), timeout=400))


@pytest.fixture
def both_parsers(pool: Any) -> Any:
    return pool.get(Launch(kind="llama", parsers=PARSERS))


@pytest.fixture
def reasoning_alone(pool: Any) -> Any:
    return pool.get(Launch(kind="llama", parsers=REASONING_ALONE, flags=BREAKING_LOOPS))


@pytest.fixture
def tools_alone(pool: Any) -> Any:
    return pool.get(Launch(kind="llama", parsers=TOOLS_ALONE, flags=FEW_END_TOKENS))


def test_split_cases(both_parsers: Any) -> None:
    keys = [(case, stream) for case in CASES for stream in (False, True)]
    replies = ask_all(
        both_parsers.url, [("chat", case.script, {"stream": stream, "tools": case.tools}) for case, stream in keys]
    )
    wrong = {}
    for (case, stream), told in zip(keys, replies, strict=True):
        expected = right(case.script, case.tools)
        if isinstance(told, BaseException):
            wrong[case.id, stream] = repr(told)
        elif told.fields != expected.fields:
            wrong[case.id, stream] = f"got {told.fields}, not {expected.fields}"
        elif told.reasoning_tokens != expected.reasoning_tokens:
            wrong[case.id, stream] = f"{told.reasoning_tokens} reasoning tokens, not {expected.reasoning_tokens}"
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("api", API_LIST)
def test_native_faults_are_gone(api: Api, stream: bool, both_parsers: Any) -> None:
    replies = ask_all(
        both_parsers.url, [(api, fault.script, {"stream": stream, **fault.options(api)}) for fault in FAULTS]
    )
    wrong = {}
    fault: Fault
    for fault, told in zip(FAULTS, replies, strict=True):
        if isinstance(told, BaseException):
            wrong[fault.name] = repr(told)
        elif comparable(told.fields, api, stream) != comparable(fault.fields, api, stream):
            wrong[fault.name] = f"got {told.fields}, not {fault.fields}"
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())


def test_json_schema_begins_at_the_final_body(both_parsers: Any) -> None:
    """Reasoning is free; an old final answer in the history does not start the grammar."""
    script = Script(
        tuple(encode(REASONING + '<|channel|>final<|message|>{"answer": "yes", NOT JSON "count": 7}<|return|>'))
    )
    history = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "An old answer."},
        {"role": "user", "content": "Two?"},
    ]
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    options = {"messages": history, "response_format": schema, "max_completion_tokens": 200}
    whole, streamed = ask_both_modes(both_parsers, script, **options)
    for told in (whole, streamed):
        assert told.reasoning == "Let me think."
        assert json.loads(told.content or "") == {"answer": "yes", "count": 7}
    assert whole.content == streamed.content


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_tool_choice_required_and_named(choice: Any, both_parsers: Any) -> None:
    options = {"tools": [WEATHER], "tool_choice": choice, "max_completion_tokens": 200}
    for told in ask_both_modes(both_parsers, CALL, **options):
        assert told.reasoning == "Let me think."
        ((name, arguments),) = told.tool_calls
        assert name == "get_weather"
        assert json.loads(arguments) == {"city": "Rome"}


def test_tool_loop_and_its_prompt(both_parsers: Any) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    history = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "reasoning": "Let me think.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "31 degrees"},
    ]
    (told,) = ask_all(both_parsers.url, [("chat", ANSWER, {"stream": False, "tools": [WEATHER], "messages": history})])
    assert told.fields == ("Let me think.", "It is sunny in Rome.", [])
    prompt = harmony_encoding().decode(told.prompt_ids)
    assert prompt.endswith(
        "<|start|>assistant<|channel|>analysis<|message|>Let me think.<|end|>"
        '<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Rome"}<|call|>'
        "<|start|>functions.get_weather to=assistant<|channel|>commentary<|message|>31 degrees<|end|><|start|>assistant"
    )


def test_continue_final_message(both_parsers: Any) -> None:
    """The prompt ends inside a final body, so the first text is content."""
    script = Script(tuple(encode(" sunny in Rome.<|return|>")))
    options = {
        "messages": [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "It is"}],
        "extra": {"continue_final_message": True, "add_generation_prompt": False},
    }
    for told in ask_both_modes(both_parsers, script, **options):
        assert told.fields == (None, " sunny in Rome.", [])


def test_echo(both_parsers: Any) -> None:
    """`echo` puts the last message's text in front, in both modes."""
    script = Script(tuple(encode(" sunny in Rome.<|return|>")))
    options = {
        "messages": [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "It is"}],
        "extra": {"continue_final_message": True, "add_generation_prompt": False, "echo": True},
    }
    for told in ask_both_modes(both_parsers, script, **options):
        assert told.fields == (None, "It is sunny in Rome.", [])


@pytest.mark.parametrize("api", API_LIST)
def test_stop_strings(api: Api, both_parsers: Any) -> None:
    """By the same rule: on what the client sees, never in a header."""
    stop = ["final", "analysis", "sunny"]
    options: dict[str, Any] = {"stop_sequences": stop} if api == "messages" else {"extra": {"stop": stop}}
    told = ask_all(both_parsers.url, [(api, ANSWER, {"stream": stream, **options}) for stream in (False, True)])
    for each in told:
        assert each.fields == ("Let me think.", "It is ", [])
        assert each.completion_tokens == len(encode(REASONING + "<|channel|>final<|message|>It is sunny"))
        assert each.finish == {"chat": "stop", "responses": "completed", "messages": "stop_sequence"}[api]


def test_logprobs_line_up_with_the_content(both_parsers: Any) -> None:
    whole, streamed = ask_both_modes(both_parsers, ANSWER, logprobs=True, top_logprobs=1)
    entries = [entry.token for entry in whole.raw.choices[0].logprobs.content]
    assert entries == ["It", " is", " sunny", " in", " Rome", "."]
    chunks = [choice for choice in streamed.chunks if choice.logprobs]
    assert [entry.token for choice in chunks for entry in choice.logprobs.content] == entries


def test_log_of_both_parsers_has_no_error(both_parsers: Any) -> None:
    assert not complaints(both_parsers.log_text())


def test_reasoning_parser_alone(reasoning_alone: Any) -> None:
    answers = ask_both_modes(reasoning_alone, ANSWER)
    for told in answers:
        assert told.fields == ("Let me think.", "It is sunny in Rome.", [])
    whole, streamed = ask_both_modes(reasoning_alone, CALL)
    assert whole.fields == streamed.fields
    assert whole.reasoning == "Let me think."
    assert "<|" not in repr(whole.fields)
    assert not complaints(reasoning_alone.log_text())


def test_analysis_that_repeats_itself_is_closed(reasoning_alone: Any) -> None:
    """The answer is opened behind the loop; a loop that is no analysis is left alone."""
    loop = encode(" again and" * 32)
    head = encode("<|channel|>analysis<|message|>So:")
    # Five tokens of more of it, in whose place the end marker and the next header come.
    script = Script((*head, *loop, *loop[:5], *encode("final<|message|>Enough." + " again and" * 60 + "<|return|>")))
    for told in ask_both_modes(reasoning_alone, script, max_completion_tokens=400):
        assert told.fields == ("So:" + " again and" * 32, "Enough." + " again and" * 60, [])
        assert told.finish == "stop"


def test_tool_parser_alone(tools_alone: Any) -> None:
    options = {"tools": [WEATHER]}
    for told in ask_both_modes(tools_alone, CALL, **options):
        assert told.tool_calls == [("get_weather", '{"city": "Rome"}')]
        assert told.finish == "tool_calls"
        assert told.content is None, "analysis never reaches content"
    for told in ask_both_modes(tools_alone, Script((*CALL.ids, *encode(" and the model goes on"))), **options):
        assert (told.tool_calls, told.completion_tokens) == ([("get_weather", '{"city": "Rome"}')], len(CALL.ids))
        assert told.finish == "tool_calls"
    for told in ask_both_modes(tools_alone, ANSWER, **options):
        assert told.content == "It is sunny in Rome."
        assert told.tool_calls == []
    assert not complaints(tools_alone.log_text())
