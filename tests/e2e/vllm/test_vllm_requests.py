"""What a request may ask for beyond its text: tools, formats, stops, choices, counts; whole and streamed."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

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
    encode,
    encode_plain,
    encoding,
    function_tool,
    gather_bounded,
)

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
        prompt = encoding().decode(answer.prompt_ids)
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


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_json_schema_keeps_reasoning(api: Api, server: Any, run: Run) -> None:
    script = Script(
        tuple(
            encode(
                REASONING
                + '<|channel|>final <|constrain|>json<|message|>{"answer": "yes", NOT JSON "count": 7}<|return|>'
            )
        )
    )
    schema = {"name": "answer", "schema": SCHEMA, "strict": True}
    options: dict[str, Any]
    if api == "chat":
        options = {
            "response_format": {"type": "json_schema", "json_schema": schema},
            "max_completion_tokens": 200,
        }
    else:
        options = {"text": {"format": {"type": "json_schema", **schema}}, "max_output_tokens": 200}
    tolds = both(run, server.url, lambda c, stream: c.ask(api, script, stream=stream, **options))
    for told in tolds:
        assert told.reasoning == "Let me think."
        assert json.loads(told.content or "") == {"answer": "yes", "count": 7}
        assert told.tool_calls == []
    assert tolds[0].content == tolds[1].content


# Stops


@pytest.mark.parametrize(
    ("raw", "stop", "fields"),
    [
        pytest.param(
            REASONING + "<|channel|>final<|message|>It is sunny. Observation: none<|return|>",
            ["Observ"],
            ("Let me think.", "It is sunny. ", []),
            id="inside-a-token",
        ),
        pytest.param(
            REASONING + "<|channel|>final<|message|>One, two, three, four<|return|>",
            ["o, thr", "four"],
            ("Let me think.", "One, tw", []),
            id="across-tokens",
        ),
        pytest.param(
            REASONING + "<|channel|>final<|message|>It is sunny.<|return|>",
            ["think"],
            ("Let me ", None, []),
            id="in-reasoning",
        ),
        pytest.param(
            REASONING + '<|channel|>commentary to=functions.get_weather json<|message|>{"city": "Rome"}<|call|>',
            ["Rome"],
            ("Let me think.", None, [("get_weather", '{"city": "')]),
            id="in-arguments",
        ),
        pytest.param(
            REASONING + "<|channel|>final<|message|>It is sunny.<|return|>",
            ["rain"],
            ("Let me think.", "It is sunny.", []),
            id="never-met",
        ),
        pytest.param(
            REASONING + "<|channel|>final<|message|>It is sun<|return|>",
            ["sunny"],
            ("Let me think.", "It is sun", []),
            id="begun-only",
        ),
    ],
)
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_stop_string_is_cut(api: Api, raw: str, stop: list[str], fields: Any, server: Any, run: Run) -> None:
    script = Script(tuple(encode(raw)))
    options: dict[str, Any] = {"stop": stop} if api == "chat" else {"extra": {"stop": stop}}
    for told in both(run, server.url, lambda c, stream: c.ask(api, script, stream=stream, tools=[WEATHER], **options)):
        assert told.fields == fields


def test_stop_string_in_output_when_asked(server: Any, run: Run) -> None:
    extra = {"stop": ["sunny"], "include_stop_str_in_output": True}
    for told in both(run, server.url, lambda c, stream: c.ask("chat", ANSWER, stream=stream, extra=extra)):
        assert told.fields == ("Let me think.", "It is sunny", [])


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


def test_logprobs(server: Any, run: Run) -> None:
    """One entry a generated token, markers included, as vLLM documents them; the text fields stay what they are."""
    whole, streamed = both(
        run, server.url, lambda c, stream: c.ask("chat", ANSWER, stream=stream, logprobs=True, top_logprobs=1)
    )
    entries = whole.raw.choices[0].logprobs.content
    streamed_entries = [entry for choice in streamed.chunks if choice.logprobs for entry in choice.logprobs.content]
    assert [entry.token for entry in entries] == [encoding().decode([token]) for token in ANSWER.ids]
    assert [entry.token for entry in streamed_entries] == [entry.token for entry in entries]
    assert whole.fields == streamed.fields == ("Let me think.", "It is sunny in Rome.", [])


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
    cut_inside = [t for t in script.ids if "�" in encoding().decode([t])]
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
                text = encoding().decode(scripts[seed].seen)
                wrong[seed, api, stream] = f"{text!r}\n  got {got}\n  not {wanted}"
    assert not wrong, "\n".join(f"{key}: {what}" for key, what in list(wrong.items())[:8])


def test_log_has_no_error(server: Any) -> None:
    """Last of this file: all of the above passed through the server without a line of complaint."""
    bad = complaints(server.log_text())
    assert not bad, "\n".join(bad[:20])
