"""What a request may ask for beyond its text: tools, formats, stops, choices, counts; whole and streamed."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anthropic
import httpx
import openai
import pytest
from vllm_rig.cases import right
from vllm_rig.faults import WEATHER
from vllm_rig.load import complaints
from vllm_rig.replies import (
    APIS,
    MODEL,
    QUESTION,
    Api,
    Clients,
    Script,
    Told,
    chat_choices,
    comparable,
    encode,
    encode_plain,
    function_tool,
    gather_bounded,
)
from vllm_rig.server import Launch

from harmony_plugin.core import harmony_encoding
from stopping import STOPPING, Stopping

Run = Callable[[Coroutine[Any, Any, Any]], Any]

REASONING = "<|channel|>analysis<|message|>Let me think.<|end|><|start|>assistant"
ANSWER = Script(tuple(encode(REASONING + "<|channel|>final<|message|>It is sunny in Rome.<|return|>")))
CALL = Script(
    tuple(
        encode(
            REASONING + "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
            '{"city": "Rome"}<|call|>'
        )
    )
)
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["answer", "count"],
    "additionalProperties": False,
}


def both(
    run: Run, url: str, ask: Callable[[Clients, bool], Awaitable[Any]], modes: tuple[bool, ...] = (False, True)
) -> list[Any]:
    """The same request whole and streamed, at the same time."""

    async def work() -> list[Any]:
        async with Clients(url) as clients:
            return list(await asyncio.gather(*(ask(clients, stream) for stream in modes)))

    return run(work())


# Tools


def test_no_tools_in_the_request(server: Any, run: Run) -> None:
    """A call that the model makes all the same is no content and no call, in neither mode."""
    for told in both(run, server.url, lambda c, stream: c.ask("chat", CALL, stream=stream)):
        assert told.fields == ("Let me think.", None, [])
        assert told.finish == "stop"


@pytest.mark.parametrize("api", APIS)
def test_tool_choice_none(api: Api, server: Any, run: Run) -> None:
    choice: Any = {"type": "none"} if api == "messages" else "none"
    script = Script(
        tuple(
            encode(REASONING + "<|channel|>commentary to=functions.get_weather json<|message|>{}<|end|>")
            + encode("<|start|>assistant<|channel|>final<|message|>Sunny.<|return|>")
        )
    )
    for told in both(
        run, server.url, lambda c, stream: c.ask(api, script, stream=stream, tools=[WEATHER], tool_choice=choice)
    ):
        assert told.fields == ("Let me think.", "Sunny.", [])


@pytest.mark.parametrize("choice", ["required", "named"])
@pytest.mark.parametrize("api", APIS)
def test_tool_choice_gives_valid_json_and_keeps_reasoning(api: Api, choice: str, server: Any, run: Run) -> None:
    """The grammar passes over what the script says against the schema; the reasoning before it stays."""
    tool = function_tool("save", SCHEMA)
    script = Script(
        tuple(
            encode(
                REASONING + "<|channel|>commentary to=functions.save <|constrain|>json<|message|>"
                '{"answer": "yes", NOT JSON "count": 7}<|call|>'
            )
        )
    )
    named = {
        "chat": {"type": "function", "function": {"name": "save"}},
        "responses": {"type": "function", "name": "save"},
        "messages": {"type": "tool", "name": "save"},
    }
    required = {"chat": "required", "responses": "required", "messages": {"type": "any"}}
    wanted: Any = (named if choice == "named" else required)[api]
    limit = {"chat": "max_completion_tokens", "responses": "max_output_tokens", "messages": "max_tokens"}[api]
    tolds = both(
        run,
        server.url,
        lambda c, stream: c.ask(api, script, stream=stream, tools=[tool, WEATHER], tool_choice=wanted, **{limit: 200}),
    )
    for told in tolds:
        assert told.reasoning == "Let me think."
        assert not told.content
        ((name, arguments),) = told.tool_calls
        assert name == "save"
        assert json.loads(arguments) == {"answer": "yes", "count": 7}
    if api != "messages":
        assert tolds[0].tool_calls == tolds[1].tool_calls
    if api == "chat":
        assert tolds[0].content is None, "vLLM's own would be empty"
        # OpenAI's finish reason of a named call is "stop".
        assert [told.finish for told in tolds] == [("tool_calls" if choice == "required" else "stop")] * 2


def test_parallel_tool_calls_false(server: Any, run: Run) -> None:
    script = Script(
        tuple(
            encode(
                "<|channel|>commentary to=functions.get_weather json<|message|>{}<|end|><|start|>assistant"
                '<|channel|>commentary to=functions.get_weather json<|message|>{"city":"Oslo"}<|call|>'
            )
        )
    )
    ask = {"tools": [WEATHER], "parallel_tool_calls": False}
    for told in both(run, server.url, lambda c, stream: c.ask("chat", script, stream=stream, **ask)):
        assert told.tool_calls == [("get_weather", "{}")]
        assert told.finish == "tool_calls"


def test_tool_loop_of_chat(server: Any, run: Run) -> None:
    """Call, result, answer, the reasoning passed back under either name; the prompt that vLLM renders holds it all."""
    question: list[Any] = [{"role": "user", "content": "What is the weather in Rome?"}]

    async def loop(clients: Clients, stream: bool, name: str) -> Told:
        call = await clients.ask("chat", CALL, stream=stream, tools=[WEATHER], messages=question)
        assert call.finish == "tool_calls"
        ((function, arguments),) = call.tool_calls
        history = [
            *question,
            {
                "role": "assistant",
                name: call.reasoning,
                "tool_calls": [
                    {"id": call.call_ids[0], "type": "function", "function": {"name": function, "arguments": arguments}}
                ],
            },
            {"role": "tool", "tool_call_id": call.call_ids[0], "content": "31 degrees"},
        ]
        extra = {"return_token_ids": True}
        answer = await clients.ask("chat", ANSWER, stream=False, tools=[WEATHER], messages=history, extra=extra)
        assert answer.fields == ("Let me think.", "It is sunny in Rome.", [])
        assert answer.finish == "stop"
        return answer

    async def work() -> list[Told]:
        async with Clients(server.url) as clients:
            names = ("reasoning", "reasoning_content")
            return list(await asyncio.gather(*(loop(clients, stream, n) for stream in (False, True) for n in names)))

    for answer in run(work()):
        prompt = harmony_encoding().decode(answer.prompt_ids)
        turn = prompt.index("What is the weather in Rome?")
        # Where the tool's `to=assistant` stands differs between releases of the Harmony library.
        assert prompt[turn:].replace(" to=assistant", "") == (
            "What is the weather in Rome?<|end|>"
            "<|start|>assistant<|channel|>analysis<|message|>Let me think.<|end|>"
            '<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Rome"}<|call|>'
            "<|start|>functions.get_weather<|channel|>commentary<|message|>31 degrees<|end|>"
            "<|start|>assistant"
        )
        assert "type get_weather = (_: {" in prompt


def test_tool_loop_of_responses(server: Any, run: Run) -> None:
    question = {"role": "user", "content": "What is the weather in Rome?"}

    async def work() -> None:
        async with Clients(server.url) as clients:
            call = await clients.ask("responses", CALL, stream=False, tools=[WEATHER], input=[question])
            items = [item.model_dump(exclude_none=True) for item in call.raw.output]
            assert [item["type"] for item in items] == ["reasoning", "function_call"]
            result = {"type": "function_call_output", "call_id": call.call_ids[0], "output": "31 degrees"}
            for stream in (False, True):
                history = [question, *items, result]
                answer = await clients.ask("responses", ANSWER, stream=stream, tools=[WEATHER], input=history)
                assert answer.fields == ("Let me think.", "It is sunny in Rome.", [])

    run(work())


def test_tool_loop_of_messages(server: Any, run: Run) -> None:
    question: dict[str, Any] = {"role": "user", "content": "What is the weather in Rome?"}

    async def work() -> None:
        async with Clients(server.url) as clients:
            call = await clients.ask("messages", CALL, stream=False, tools=[WEATHER], messages=[question])
            assert call.finish == "tool_use"
            blocks = [block.model_dump(exclude_none=True) for block in call.raw.content]
            assert [block["type"] for block in blocks] == ["thinking", "tool_use"]
            result = {"type": "tool_result", "tool_use_id": call.call_ids[0], "content": "31 degrees"}
            history = [question, {"role": "assistant", "content": blocks}, {"role": "user", "content": [result]}]
            for stream in (False, True):
                answer = await clients.ask("messages", ANSWER, stream=stream, tools=[WEATHER], messages=history)
                assert answer.fields == ("Let me think.", "It is sunny in Rome.", [])

    run(work())


# Structured output


#: Words that the schema forbids, for the grammar to leave out.
FORMATTED = Script(
    tuple(
        encode(
            REASONING + '<|channel|>final <|constrain|>json<|message|>{"answer": "yes", NOT JSON "count": 7}<|return|>'
        )
    )
)


def in_format(api: Api) -> dict[str, Any]:
    """Options that ask for a reply by `SCHEMA`."""
    schema = {"name": "answer", "schema": SCHEMA, "strict": True}
    if api == "messages":
        return {"extra": {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}, "max_tokens": 200}
    if api == "chat":
        return {"response_format": {"type": "json_schema", "json_schema": schema}, "max_completion_tokens": 200}
    return {"text": {"format": {"type": "json_schema", **schema}}, "max_output_tokens": 200}


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_json_schema_keeps_reasoning(api: Api, server: Any, run: Run) -> None:
    options = in_format(api)
    tolds = both(run, server.url, lambda c, stream: c.ask(api, FORMATTED, stream=stream, **options))
    for told in tolds:
        assert told.reasoning == "Let me think."
        assert json.loads(told.content or "") == {"answer": "yes", "count": 7}
        assert told.tool_calls == []
    assert tolds[0].content == tolds[1].content


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_response_tells_of_the_format(server: Any, stream: bool) -> None:
    """LangChain parses the answer of a stream only where it does."""
    answer = encode('<|channel|>final <|constrain|>json<|message|>{"answer": "yes", "count": 7}<|return|>')
    body = {"model": MODEL, "input": "hi", "stream": stream, "vllm_xargs": {"script": answer}, **in_format("responses")}
    reply = httpx.post(f"{server.url}/v1/responses", json=body, timeout=240)
    assert reply.status_code == 200, reply.text
    if stream:
        events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
        told = [event["response"] for event in events if "response" in event]
        assert [response["status"] for response in told] == ["in_progress", "in_progress", "completed"]
    else:
        told = [reply.json()]
    assert [response["text"]["format"]["schema"] for response in told] == [SCHEMA] * len(told)


@pytest.mark.parametrize("api", APIS)
def test_calls_are_possible_beside_a_format(api: Api, server: Any, run: Run) -> None:
    """An agent with an output type calls its tools; the answer follows the format all the same."""
    choice: Any = {"type": "auto"} if api == "messages" else "auto"
    options = {**in_format(api), "tools": [WEATHER], "tool_choice": choice}
    for told in both(run, server.url, lambda c, stream: c.ask(api, CALL, stream=stream, **options)):
        assert told.fields == ("Let me think.", None, [("get_weather", '{"city": "Rome"}')])
        assert told.finish == {"chat": "tool_calls", "responses": "completed", "messages": "tool_use"}[api]
    for told in both(run, server.url, lambda c, stream: c.ask(api, FORMATTED, stream=stream, **options)):
        assert (told.reasoning, told.tool_calls) == ("Let me think.", [])
        assert json.loads(told.content or "") == {"answer": "yes", "count": 7}


@pytest.mark.parametrize("api", APIS)
def test_arguments_of_a_required_tool_are_at_least_an_object(api: Api, server: Any, run: Run) -> None:
    script = Script(
        tuple(
            encode(
                '<|channel|>commentary to=functions.get_weather json<|message|>696{"city": "Rome", "days": 2}<|call|>'
            )
        )
    )
    choice: Any = {"type": "any"} if api == "messages" else "required"
    limit = {"chat": "max_completion_tokens", "responses": "max_output_tokens", "messages": "max_tokens"}[api]
    options = {"tools": [WEATHER], "tool_choice": choice, limit: 60}
    for told in both(run, server.url, lambda c, stream: c.ask(api, script, stream=stream, **options)):
        ((name, arguments),) = told.tool_calls
        assert (name, json.loads(arguments)) == ("get_weather", {"city": "Rome", "days": 2})


# Stops


#: Stop strings on each API that takes them: vLLM refuses empty ones, and Messages cannot ask for them in the output.
STOPS: list[tuple[Stopping, Api]] = [
    (case, api) for case in STOPPING for api in APIS if all(case.stop) and not (case.include and api == "messages")
]


@pytest.fixture(scope="module")
def stopped(pool: Any) -> dict[tuple[str, Api, bool], Any]:
    """The replies, asked for at the same time, whole and streamed."""
    url = pool.get(Launch()).url
    keys = [(case, api, stream) for case, api in STOPS for stream in (False, True)]

    def options(case: Stopping, api: Api) -> dict[str, Any]:
        if api == "messages":
            return {"stop_sequences": list(case.stop)}
        return {"extra": {"stop": list(case.stop), "include_stop_str_in_output": case.include}}

    async def work() -> list[Any]:
        async with Clients(url) as clients:
            return await gather_bounded(
                [
                    clients.ask(
                        api, Script(tuple(encode(case.raw))), stream=stream, tools=[WEATHER], **options(case, api)
                    )
                    for case, api, stream in keys
                ]
            )

    replies = asyncio.run(asyncio.wait_for(work(), timeout=400))
    return {(case.name, api, stream): reply for (case, api, stream), reply in zip(keys, replies, strict=True)}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("case", "api"), STOPS, ids=lambda value: getattr(value, "name", value))
def test_stop_strings(case: Stopping, api: Api, stream: bool, stopped: Any) -> None:
    told = stopped[case.name, api, stream]
    if isinstance(told, BaseException):
        raise told
    if api == "messages" and case.in_call:
        calls = case.tool_calls if stream else [(n, json.dumps({"arguments": text})) for n, text in case.tool_calls]
        assert told.fields == (case.reasoning, case.content, list(calls))
    else:
        assert comparable(told.fields, api, stream) == comparable(case.fields, api, stream)
    if case.said is not None:
        assert told.completion_tokens == len(encode(case.said)), "generation ends at the match"
    whole_call = bool(case.tool_calls) and not case.in_call
    if api == "chat":
        assert told.finish == ("tool_calls" if whole_call else "stop")
        ended = (told.chunks[-1] if stream else told.raw.choices[0]).model_extra
        assert ended.get("stop_reason") == (200_012 if whole_call else case.matched)
    elif api == "messages":
        unmatched = "tool_use" if whole_call else "end_turn"
        assert told.finish == ("stop_sequence" if case.matched else unmatched)
        delta = told.chunks[-2].delta if stream else told.raw
        assert delta.stop_sequence == case.matched
    else:
        assert told.finish == "completed"


def test_stop_string_met_when_the_reply_ends(server: Any, run: Run) -> None:
    """Text that may be a header is known for content at the end only."""
    script = Script(tuple(encode("It is sunny. STOP.<|return|>")))
    for told in both(run, server.url, lambda c, stream: c.ask("chat", script, stream=stream, stop=["STOP"])):
        assert (told.fields, told.finish) == ((None, "It is sunny. ", []), "stop")


def test_stop_strings_of_choices_and_min_tokens(server: Any, run: Run) -> None:
    """Each choice stops by itself; a stop string does not count before so many tokens."""
    short = encode("<|channel|>final<|message|>one two one three<|return|>")
    extra = {"vllm_xargs": {"script_0": short, "script_1": list(ANSWER.ids)}, "seed": 0, "min_tokens": 5}
    for choices in both(
        run,
        server.url,
        lambda c, stream: chat_choices(
            c.openai, ANSWER, stream=stream, n=2, temperature=1, stop=["one", "Rome"], extra=extra
        ),
    ):
        assert [choice.fields for choice in choices] == [
            (None, "one two ", []),
            ("Let me think.", "It is sunny in ", []),
        ]


@pytest.mark.parametrize("api", APIS)
def test_a_call_that_the_limit_cuts(api: Api, server: Any, run: Run) -> None:
    """It is told by its reason to stop, so that nobody runs it."""
    text = harmony_encoding().decode(CALL.ids)
    cut = Script(tuple(encode(text[: text.index("Rome")])))
    for told in both(run, server.url, lambda c, stream: c.ask(api, cut, stream=stream, tools=[WEATHER])):
        ((name, arguments),) = told.tool_calls
        assert name == "get_weather"
        assert arguments in ('{"city": "', json.dumps({"arguments": '{"city": "'}))
        assert told.finish == {"chat": "length", "responses": "incomplete", "messages": "max_tokens"}[api]


# Reasoning: efforts and budgets


def thinks(tokens: int, then: str) -> Script:
    """Reasoning of so many tokens and one too many, in whose place a spent budget puts the end marker."""
    return Script(tuple(encode("<|channel|>analysis<|message|>" + " word" * tokens + " more" + then)))


SAYS_YES = "<|start|>assistant<|channel|>final<|message|>Yes.<|return|>"
CALLS = '<|start|>assistant<|channel|>commentary to=functions.get_weather json<|message|>{"city": "Rome"}<|call|>'


@pytest.mark.parametrize(
    ("api", "name"),
    [("chat", "thinking_token_budget"), ("chat", "max_reasoning_tokens"), ("responses", "max_reasoning_tokens")],
)
@pytest.mark.parametrize("budget", [0, 5])
def test_thinking_budget(api: Api, name: str, budget: int, server: Any, run: Run) -> None:
    """At the budget the analysis is closed and the answer opened: a second analysis is none."""
    more = "<|start|>assistant<|channel|>analysis<|message|>"
    script = thinks(budget, (more if budget else "") + SAYS_YES.removeprefix("<|start|>assistant" if budget else ""))
    for told in both(run, server.url, lambda c, stream: c.ask(api, script, stream=stream, extra={name: budget})):
        assert told.fields == (" word" * budget or None, "Yes.", [])
        assert told.reasoning_tokens == budget


def test_thinking_budget_of_every_choice(server: Any, run: Run) -> None:
    """Choices, stop strings and a setting of the request beside it."""
    options = {"extra": {"max_reasoning_tokens": 3, "stop": ["Rome"]}}
    script = thinks(3, SAYS_YES.replace("Yes.", "All roads lead to Rome."))
    for told in both(run, server.url, lambda c, stream: c.ask("chat", script, stream=stream, **options)):
        assert told.fields == (" word" * 3, "All roads lead to ", [])


def test_thinking_budget_of_messages(server: Any, run: Run) -> None:
    script = thinks(1024, SAYS_YES)
    extra = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    for told in both(
        run, server.url, lambda c, stream: c.ask("messages", script, stream=stream, max_tokens=1200, extra=extra)
    ):
        assert told.fields == (" word" * 1024, "Yes.", [])


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_thinking_budget_and_calls(choice: str, server: Any, run: Run) -> None:
    """The call comes behind the reasoning, with a grammar and without; its arguments are no thinking."""
    options = {"tools": [WEATHER], "tool_choice": choice, "max_completion_tokens": 80}
    extra = {"thinking_token_budget": 5}
    long = CALLS.replace("Rome", "Rome " * 20)
    for script, city, reasoning in (
        (thinks(5, CALLS), "Rome", " word" * 5),
        (Script(tuple(encode(REASONING + long.partition("assistant")[2]))), "Rome " * 20, "Let me think."),
    ):
        for told in both(
            run, server.url, lambda c, stream, s=script: c.ask("chat", s, stream=stream, extra=extra, **options)
        ):
            assert told.reasoning == reasoning
            assert [(name, json.loads(text)) for name, text in told.tool_calls] == [("get_weather", {"city": city})]


def test_thinking_budget_and_a_format(server: Any, run: Run) -> None:
    script = thinks(
        5, '<|start|>assistant<|channel|>final <|constrain|>json<|message|>{"answer": "yes", "count": 7}<|return|>'
    )
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    options = {"response_format": schema, "max_completion_tokens": 100, "extra": {"thinking_token_budget": 5}}
    for told in both(run, server.url, lambda c, stream: c.ask("chat", script, stream=stream, **options)):
        assert (told.reasoning, json.loads(told.content or "")) == (" word" * 5, {"answer": "yes", "count": 7})


@pytest.mark.parametrize(
    ("effort", "level"), [("none", "low"), ("minimal", "low"), ("medium", "medium"), ("xhigh", "high"), ("max", "high")]
)
def test_efforts(effort: str, level: str, server: Any, run: Run) -> None:
    """OpenAI's efforts are those that gpt-oss knows; with `none` on chat, reasoning ends as it begins."""
    script = thinks(0, SAYS_YES) if effort == "none" else ANSWER
    extra = {"reasoning_effort": effort, "return_token_ids": True}
    for told in both(run, server.url, lambda c, stream: c.ask("chat", script, stream=stream, extra=extra)):
        assert told.reasoning == (None if effort == "none" else "Let me think.")
        if told.prompt_ids:
            assert f"Reasoning: {level}" in harmony_encoding().decode(told.prompt_ids)
    extra = {"reasoning": {"effort": effort}}
    for told in both(run, server.url, lambda c, stream: c.ask("responses", ANSWER, stream=stream, extra=extra)):
        assert told.fields == (None if effort == "none" else "Let me think.", "It is sunny in Rome.", [])


# Headers held to the format

#: What the model means to write, and what it writes where headers are held to the format.
MALFORMED = {
    # the role's word again, in place of a header
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistantassistant<|channel|>final<|message|>Yes.<|return|>": (
        "Hm.",
        "Yes.",
        [],
    ),
    # no <|message|>, and a channel that is none
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>?? final<|message|>Yes.<|return|>": (
        "Hm.",
        "Yes.",
        [],
    ),
    # words in a header, and markers in a body
    "<|channel|>analysis<|message|>Hm.<|channel|><|message|><|end|><|start|>assistant<|channel|>commentary"
    ' to=functions.get_weather<|channel|>json<|message|>{"city": "Rome"}<|call|>': (
        "Hm.",
        None,
        [("get_weather", '{"city": "Rome"}')],
    ),
}


@pytest.mark.parametrize("api", APIS)
def test_headers_held_to_the_format(api: Api, server: Any, run: Run) -> None:
    """Malformed turns cannot be written; well-formed ones, with look-alikes in their text, are left as they are."""
    held = {"chat_template_kwargs": {"harmony": {"headers": "constrain"}}}
    look_alike = "Write <|end|> or <|channel|>final."
    plain = Script(
        (
            *encode("<|channel|>analysis<|message|>"),
            *encode_plain(look_alike),
            *encode("<|end|><|start|>assistant<|channel|>final<|message|>"),
            *encode_plain(look_alike),
            *encode("<|return|>"),
        )
    )
    before = outcomes(server.url)
    wanted = [(Script(tuple(encode(raw))), fields) for raw, fields in MALFORMED.items()]
    wanted += [
        (plain, (look_alike, look_alike, [])),
        (CALL, ("Let me think.", None, [("get_weather", '{"city": "Rome"}')])),
    ]

    async def work() -> list[Any]:
        async with Clients(server.url) as clients:
            return await gather_bounded(
                [
                    clients.ask(api, script, stream=stream, tools=[WEATHER], extra=held)
                    for script, _ in wanted
                    for stream in (False, True)
                ]
            )

    for told, fields in zip(run(work()), [fields for _, fields in wanted for _ in range(2)], strict=True):
        assert not isinstance(told, BaseException), told
        assert comparable(told.fields, api, True) == comparable(fields, api, True)
    clean, repaired = (after - seen for after, seen in zip(outcomes(server.url), before, strict=True))
    assert (clean, repaired) == (2 * len(wanted), 0), "nothing was left to repair"


def outcomes(url: str) -> tuple[float, float]:
    """How many replies there were that were clean, and how many were repaired, as `/metrics` tells."""
    text = httpx.get(f"{url}/metrics", timeout=60).raise_for_status().text
    clean, repaired = (
        sum(map(float, re.findall(rf'^harmony_replies_total{{.*outcome="{outcome}".*}} (\S+)$', text, re.MULTILINE)))
        for outcome in ("clean", "repaired")
    )
    return clean, repaired


def test_the_same_headers_are_repaired_where_they_are_free(server: Any, run: Run) -> None:
    before = outcomes(server.url)
    for raw, (reasoning, content, calls) in MALFORMED.items():
        script = Script(tuple(encode(raw)))
        for told in both(run, server.url, lambda c, stream, s=script: c.ask("chat", s, stream=stream, tools=[WEATHER])):
            assert told.fields == (reasoning, content, calls)
    clean, repaired = (after - seen for after, seen in zip(outcomes(server.url), before, strict=True))
    assert (clean, repaired) == (0, 2 * len(MALFORMED))


def test_include_reasoning_false_on_responses(server: Any, run: Run) -> None:
    tokens = right(ANSWER, []).reasoning_tokens
    extra = {"include_reasoning": False}
    for told in both(run, server.url, lambda c, stream: c.ask("responses", ANSWER, stream=stream, extra=extra)):
        assert told.fields == (None, "It is sunny in Rome.", [])
        assert "think" not in repr(told.chunks) + repr(told.raw)
        assert told.reasoning_tokens == tokens, "hidden, and generated all the same"


def test_what_vllm_refuses_on_responses(server: Any, run: Run) -> None:
    """No seam lets these through; each is the client's error, and docs/vllm.md says so."""
    wrong: list[dict[str, Any]] = [
        {"include": ["message.output_text.logprobs"], "top_logprobs": 1},
        {"extra": {"input": [{"type": "item_reference", "id": "msg_unknown"}]}},
    ]

    async def work() -> list[Any]:
        async with Clients(server.url) as clients:
            return await gather_bounded([clients.ask("responses", ANSWER, stream=False, **each) for each in wrong])

    for error in run(work()):
        assert isinstance(error, openai.BadRequestError), error
        assert error.body["message"]  # type: ignore[index]


# Other endpoints


def test_batch_endpoint(server: Any, run: Run) -> None:
    """`/v1/chat/completions/batch`: what chat gives, for several conversations."""
    body = {
        "model": MODEL,
        "messages": [QUESTION, QUESTION],
        "temperature": 0,
        "max_completion_tokens": 60,
        "logprobs": True,
        "top_logprobs": 1,
        "stop": ["final", "Rome"],
        "vllm_xargs": {"script": list(ANSWER.ids)},
    }

    async def work() -> Any:
        async with httpx.AsyncClient(timeout=240) as client:
            return (await client.post(f"{server.url}/v1/chat/completions/batch", json=body)).raise_for_status().json()

    reply = run(work())
    assert len(reply["choices"]) == 2
    for choice in reply["choices"]:
        message = choice["message"]
        assert (message["reasoning"], message["content"]) == ("Let me think.", "It is sunny in ")
        assert message["reasoning_content"] == message["reasoning"]
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "Rome")
        assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["It", " is", " sunny", " in", " Rome"]
    details = reply["usage"]["completion_tokens_details"]
    assert details["reasoning_tokens"] == 2 * right(ANSWER, []).reasoning_tokens


# Choices, counts and the rest


def test_two_choices(server: Any, run: Run) -> None:
    """Each choice has its own state; here they differ in everything."""
    extra = {"vllm_xargs": {"script_0": list(ANSWER.ids), "script_1": list(CALL.ids)}, "seed": 0}
    for choices in both(
        run,
        server.url,
        lambda c, stream: chat_choices(c.openai, CALL, stream=stream, n=2, temperature=1, tools=[WEATHER], extra=extra),
    ):
        assert [choice.fields for choice in choices] == [
            ("Let me think.", "It is sunny in Rome.", []),
            ("Let me think.", None, [("get_weather", '{"city": "Rome"}')]),
        ]
        assert [choice.finish for choice in choices] == ["stop", "tool_calls"]
        assert choices[0].reasoning_tokens == 2 * right(CALL, [WEATHER]).reasoning_tokens
        assert choices[0].completion_tokens == len(ANSWER.ids) + len(CALL.ids)


def test_include_reasoning_false(server: Any, run: Run) -> None:
    tokens = right(ANSWER, []).reasoning_tokens
    extra = {"include_reasoning": False}
    for told in both(run, server.url, lambda c, stream: c.ask("chat", ANSWER, stream=stream, extra=extra)):
        assert told.fields == (None, "It is sunny in Rome.", [])
        assert "think" not in repr(told.chunks) + repr(told.raw)
        assert told.reasoning_tokens == tokens, "hidden, and generated all the same"


@pytest.mark.parametrize("skip", [True, False])
def test_skip_special_tokens_changes_nothing(skip: bool, server: Any, run: Run) -> None:
    extra = {"skip_special_tokens": skip}
    for told in both(
        run, server.url, lambda c, stream: c.ask("chat", CALL, stream=stream, tools=[WEATHER], extra=extra)
    ):
        assert told.fields == ("Let me think.", None, [("get_weather", '{"city": "Rome"}')])


@pytest.mark.parametrize(
    ("raw", "stop", "content"),
    [
        (REASONING + "<|channel|>final<|message|>It is 🦀🫠.<|return|>", None, "It is 🦀🫠."),
        ("It is sunny.<|return|>", None, "It is sunny."),
        ('<|channel|>final{"a": 1}<|return|>', None, '{"a": 1}'),
        (REASONING + "<|channel|>final<|message|>One, twisted<|return|>", ["two"], "One, twisted"),
        (harmony_encoding().decode(CALL.ids), None, None),
    ],
    ids=["reasoning", "loose text", "no message marker", "held", "no content"],
)
def test_logprobs_line_up_with_the_content(raw: str, stop: Any, content: str | None, server: Any, run: Run) -> None:
    """One entry a token of the content, no reasoning and no markers, in the chunk that has its text."""
    script = Script(tuple(encode(raw)))
    whole, streamed = both(
        run,
        server.url,
        lambda c, stream: c.ask(
            "chat", script, stream=stream, logprobs=True, top_logprobs=1, tools=[WEATHER], extra={"stop": stop}
        ),
    )
    assert whole.content == streamed.content == content
    entries = whole.raw.choices[0].logprobs.content
    streamed_entries: list[Any] = []
    for choice in streamed.chunks:
        said = choice.logprobs.content if choice.logprobs else []
        assert not said or choice.delta.content
        streamed_entries += said
    wanted = [[token] for token in encode(content or "")]
    if content and "🦀" not in content:
        assert [entry.token for entry in entries] == [harmony_encoding().decode(token) for token in wanted]
    assert len(entries) == len(wanted)
    assert [entry.token for entry in streamed_entries] == [entry.token for entry in entries]
    assert all(len(entry.top_logprobs) == 1 for entry in entries)


def test_token_ids_of_a_stream(server: Any, run: Run) -> None:
    extra = {"return_token_ids": True}
    (told,) = both(run, server.url, lambda c, stream: c.ask("chat", ANSWER, stream=stream, extra=extra), (True,))
    ids = [token for choice in told.chunks for token in (choice.model_extra or {}).get("token_ids") or ()]
    assert ids == list(ANSWER.ids)
    assert told.fields == ("Let me think.", "It is sunny in Rome.", [])


def test_usage_of_every_chunk(server: Any, run: Run) -> None:
    """With `continuous_usage_stats` the reasoning tokens grow with the stream and end at the core's count."""
    answer = "<|start|>assistant<|channel|>final<|message|>Yes.<|return|>"
    script = Script(tuple(encode(f"<|channel|>analysis<|message|>{'word ' * 80}<|end|>{answer}")))
    right_count = right(script, []).reasoning_tokens

    async def work() -> list[Any]:
        async with Clients(server.url) as clients:
            chunks = await clients.openai.chat.completions.create(
                model=MODEL,
                messages=QUESTION,  # type: ignore[arg-type]
                stream=True,
                stream_options={"include_usage": True, "continuous_usage_stats": True},  # type: ignore[typeddict-unknown-key]
                extra_body={"vllm_xargs": {"script": list(script.ids)}},
            )
            return [chunk.usage.completion_tokens_details.reasoning_tokens async for chunk in chunks]

    counts = run(work())
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] == right_count
    assert len(set(counts)) > 8, "they come with the tokens; a busy machine may put several into a chunk"


def test_characters_cut_across_tokens(server: Any, run: Run) -> None:
    """Text that byte-pair encoding cuts inside its characters arrives whole, and never as U+FFFD."""
    text = "🦀🫠 Übergrößenträger 北京欢迎你 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f நன்றி"
    script = Script(
        tuple(encode(f"<|channel|>analysis<|message|>{text}<|end|><|start|>assistant<|channel|>final<|message|>{text}"))
    )
    cut_inside = [t for t in script.ids if "�" in harmony_encoding().decode([t])]
    assert len(cut_inside) > 10, "the text is worth testing"

    async def work() -> list[Any]:
        async with Clients(server.url) as clients:
            return await gather_bounded(
                [clients.ask(api, script, stream=stream) for api in APIS for stream in (False, True)]
            )

    for told in run(work()):
        assert told.fields == (text, text, [])


def test_continued_answer_text_in_history(server: Any, run: Run) -> None:
    """An old final answer in the history does not count as this reply's."""
    history = [*QUESTION, {"role": "assistant", "content": "Old answer."}, {"role": "user", "content": "And now?"}]
    for told in both(run, server.url, lambda c, stream: c.ask("chat", ANSWER, stream=stream, messages=history)):
        assert told.fields == ("Let me think.", "It is sunny in Rome.", [])


def test_bad_requests_are_client_errors(server: Any, run: Run) -> None:
    async def work() -> list[Any]:
        async with Clients(server.url) as clients:
            return await gather_bounded(
                [
                    clients.ask("chat", ANSWER, stream=False, reasoning_effort="enormous"),
                    clients.ask("chat", ANSWER, stream=False, tool_choice="required"),
                    clients.ask("chat", ANSWER, stream=False, max_completion_tokens=-1),
                ]
            )

    for error in run(work()):
        assert isinstance(error, openai.BadRequestError), error
        assert error.status_code == 400
        assert error.body["message"]  # type: ignore[index]


@pytest.mark.parametrize("api", APIS)
def test_setting_of_one_request(api: Api, server: Any, run: Run) -> None:
    """`chat_template_kwargs` change where a preamble goes, for this request only."""
    script = Script(
        tuple(
            encode(
                "<|channel|>commentary<|message|>I will look.<|end|><|start|>assistant"
                "<|channel|>final<|message|>Sunny.<|return|>"
            )
        )
    )
    extra = {"chat_template_kwargs": {"harmony": {"commentary": "reasoning"}}}
    for told in both(run, server.url, lambda c, stream: c.ask(api, script, stream=stream, extra=extra)):
        assert told.fields == ("I will look.", "Sunny.", [])
    for told in both(run, server.url, lambda c, stream: c.ask(api, script, stream=stream)):
        assert told.fields == (None, "I will look.\nSunny.", [])


# What nobody thought of


PIECES = [
    *(("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>") * 2),
    *("<|call|>", "<|return|>"),
    *("assistant", "analysis", "commentary", "final", "finall", "json", " json", " to=functions.get_weather"),
    *(" to=assistant", " to=python", "user", " {}", '{"city":"Rom', 'e"}', "Hello", " world", "\n", "??", "北京", "🦀"),
    *("<|reserved_200017|>", "<|constrain|>json", "<|start|>assistant<|channel|>final<|message|>"),
]


def random_script(seed: int) -> Script:
    dice = random.Random(seed)
    pieces = [dice.choice(PIECES) for _ in range(dice.randint(1, 24))]
    ids = [token for piece in pieces for token in encode(piece)]
    if dice.random() < 0.3:  # half a character
        ids.insert(dice.randrange(len(ids) + 1), dice.choice(encode_plain("🫠🏴")))
    return Script(tuple(ids))


def test_random_output(server: Any, run: Run) -> None:
    """Whatever the model says: HTTP 200, nothing that differs from the core, nothing that differs between modes."""
    scripts = {seed: random_script(seed) for seed in range(150)}
    keys = [(seed, api, stream) for seed in scripts for api in ("chat", "responses") for stream in (False, True)]

    async def work() -> list[Any]:
        async with Clients(server.url) as clients:
            return await gather_bounded(
                [clients.ask(api, scripts[seed], stream=stream, tools=[WEATHER]) for seed, api, stream in keys]
            )

    wrong = {}
    for (seed, api, stream), told in zip(keys, run(work()), strict=True):
        expected = right(scripts[seed], [WEATHER])
        if isinstance(told, BaseException):
            wrong[seed, api, stream] = repr(told)
        else:
            got = (*told.fields, told.reasoning_tokens)
            wanted = (*expected.fields, expected.reasoning_tokens)
            if got != wanted:
                text = harmony_encoding().decode(scripts[seed].seen)
                wrong[seed, api, stream] = f"{text!r}\n  got {got}\n  not {wanted}"
    assert not wrong, "\n".join(f"{key}: {what}" for key, what in list(wrong.items())[:8])


def test_log_has_no_error(server: Any) -> None:
    """All of the above passed through the server without a line of complaint."""
    bad = complaints(server.log_text())
    assert not bad, "\n".join(bad[:20])


UNKNOWN: list[tuple[Api, Any]] = [
    ("chat", {"type": "function", "function": {"name": "nope"}}),
    ("responses", {"type": "function", "name": "nope"}),
    ("messages", {"type": "tool", "name": "nope"}),
    *(
        ("responses", {"type": "allowed_tools", "mode": mode, "tools": [*more, {"type": "function", "name": "nope"}]})
        for mode in ("auto", "required")
        for more in ([], [{"type": "function", "name": "get_weather"}])
    ),
]


def test_a_tool_that_is_not_offered_cannot_be_chosen(server: Any, run: Run) -> None:
    """On any API, whole or streamed. Behind the look at the log: vLLM writes what it refuses on Messages into it."""

    async def work() -> list[Any]:
        async with Clients(server.url) as clients:
            return await gather_bounded(
                [
                    clients.ask(api, ANSWER, stream=stream, tools=[WEATHER], tool_choice=choice)
                    for api, choice in UNKNOWN
                    for stream in (False, True)
                ]
            )

    for error in run(work()):
        assert isinstance(error, openai.BadRequestError | anthropic.BadRequestError), error
        assert "tool" in str(error.body)
