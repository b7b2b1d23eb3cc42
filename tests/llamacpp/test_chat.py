"""The chat handler on the real engine: whole and streamed, limits, stops, usage, choices, bad requests."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

import harmony_plugin
from harmony_plugin import RequestError, parse
from harmony_plugin.demo.model import build_model
from stopping import STOPPING, Stopping

from .conftest import USER, Script, add_up, ids_of, llama_cpp, message_of

import harmony_plugin.llamacpp as adapter  # isort: skip
from harmony_plugin.llamacpp import Defaults, HarmonyChatHandler  # isort: skip
from harmony_plugin.llamacpp.draw import Draw  # isort: skip
from harmony_plugin.llamacpp.scheduler import Cancelled  # isort: skip

TOOLS = [
    {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "g"}},
]
REASONED = (
    "<|channel|>analysis<|message|>Think, 你好🦀.<|end|><|start|>assistant<|channel|>final<|message|>Hello!<|return|>"
)
CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'
SECOND = '<|start|>assistant<|channel|>commentary to=functions.g <|constrain|>json<|message|>{"b": 2}<|call|>'


def calls_of(message: dict[str, Any]) -> list[tuple[str, str]]:
    return [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", [])]


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    return {k: calls_of(message) if k == "tool_calls" else v for k, v in message.items()}


# Whole and streamed.


def test_whole_reply(say: Any) -> None:
    reply = say(REASONED, model="gpt-oss")
    assert reply["object"] == "chat.completion"
    assert reply["model"] == "gpt-oss"
    assert reply["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hello!",
                "reasoning": "Think, 你好🦀.",
                "reasoning_content": "Think, 你好🦀.",
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]


@pytest.mark.parametrize("output", [REASONED, CALL, "<|channel|>analysis<|message|>a<|end|><|start|>assistant" + CALL])
def test_streamed_adds_up_to_whole(say: Any, output: str) -> None:
    whole = say(output, tools=TOOLS)["choices"][0]
    streamed = add_up(list(say(output, tools=TOOLS, stream=True)))
    assert without_ids(streamed["message"]) == without_ids(whole["message"])
    assert streamed["finish_reason"] == whole["finish_reason"]


def test_chunks_have_openais_shape(say: Any) -> None:
    chunks = list(say(CALL, tools=TOOLS, stream=True, stream_options={"include_usage": True}))
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert len({(c["id"], c["created"], c["model"]) for c in chunks}) == 1
    *body, usage = chunks
    assert body[0]["choices"][0]["delta"] == {"role": "assistant"}
    assert body[-1]["choices"][0]["delta"] == {}
    assert [c["choices"][0]["finish_reason"] for c in body] == [None] * (len(body) - 1) + ["tool_calls"]
    assert all(c["usage"] is None for c in body)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == len(ids_of(CALL))
    first = body[1]["choices"][0]["delta"]["tool_calls"][0]
    assert first["type"] == "function"
    assert first["id"].startswith("call_")
    assert first["function"] == {"name": "f", "arguments": ""}
    assert all("id" not in c["choices"][0]["delta"]["tool_calls"][0] for c in body[2:-1])
    assert all("usage" not in c for c in say(CALL, tools=TOOLS, stream=True))


def test_openais_own_types_accept_what_is_sent(say: Any) -> None:
    chat = pytest.importorskip("openai.types.chat")
    request = {"tools": TOOLS, "logprobs": True, "top_logprobs": 2}
    for output in (REASONED, CALL):
        whole = say(output, **request)
        assert chat.ChatCompletion.model_validate(whole, strict=True).choices[0].finish_reason
        for chunk in say(output, stream=True, stream_options={"include_usage": True}, **request):
            chat.ChatCompletionChunk.model_validate(chunk, strict=True)


def test_reasoning_content_can_be_left_out(llama: Any) -> None:
    ids = ids_of(REASONED)
    handler = HarmonyChatHandler(
        reasoning_names=["reasoning"], logits_processors=lambda prompt, fields: [Script(ids, len(prompt))]
    )
    message = message_of(handler(llama=llama, messages=[USER]))
    assert message == {"role": "assistant", "content": "Hello!", "reasoning": "Think, 你好🦀."}
    chunks = list(handler(llama=llama, messages=[USER], stream=True))
    assert "".join(c["choices"][0]["delta"].get("reasoning", "") for c in chunks) == "Think, 你好🦀."
    assert "reasoning_content" not in json.dumps(chunks)


def test_llamas_own_entry_points(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ids_of(REASONED)
    scripted = HarmonyChatHandler(logits_processors=lambda prompt, fields: [Script(ids, len(prompt))])
    monkeypatch.setattr(llama, "chat_handler", scripted)
    assert message_of(llama.create_chat_completion([USER]))["reasoning_content"] == "Think, 你好🦀."
    assert llama.create_chat_completion_openai_v1([USER]).choices[0].message.content == "Hello!"
    assert add_up(list(llama.create_chat_completion([USER], stream=True)))["message"]["content"] == "Hello!"


def test_registered_by_name(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "chat_format", "harmony")
    monkeypatch.setattr(llama, "chat_handler", None)
    reply = llama.create_chat_completion([USER], max_tokens=3, seed=1)
    assert reply["usage"]["completion_tokens"] == 3


CASES = [
    json.loads(line) for line in (Path(__file__).parents[1] / "cases" / "split.jsonl").read_text("utf-8").splitlines()
]


@pytest.mark.parametrize("case", [c for c in CASES if not c.get("body_only")], ids=lambda c: c["id"])
def test_split_cases_through_the_real_decode_loop(case: dict[str, Any], say: Any) -> None:
    """Whatever the model writes, the reply is what `parse` gives for the ids that were generated."""
    if case.get("segments"):
        encode = harmony_encoding_of_segments
        ids = encode(case["segments"])
    else:
        ids = case.get("token_ids") or ids_of(case["raw"])
    tools = [
        t if isinstance(t, dict) else {"type": "function", "function": {"name": t}} for t in case.get("tools") or []
    ]
    request = {"tools": tools, "headers": "free", "parallel_tool_calls": True, "max_tokens": len(ids), "seed": 1}
    chunks = list(say(ids, stream=True, stream_options={"include_usage": True}, **request))
    generated = ids[: chunks[-1]["usage"]["completion_tokens"]]
    expected = parse(generated, tools=tools)
    whole = message_of(say(ids, **request))
    assert without_ids(whole) == without_ids(expected.to_openai()) | {"reasoning": expected.reasoning_content}
    assert without_ids(add_up(chunks)["message"]) == without_ids(whole)


def harmony_encoding_of_segments(segments: list[tuple[str, str]]) -> list[int]:
    from harmony_plugin.core.vocabulary import harmony_encoding

    ids: list[int] = []
    for kind, text in segments:
        ids += ids_of(text) if kind == "special" else harmony_encoding().encode(text, disallowed_special=())
    return ids


# Where a reply ends.


@pytest.mark.parametrize("marker", ["<|return|>", "<|endoftext|>"])
def test_stops_at_end_markers(say: Any, marker: str) -> None:
    reply = say(f"<|channel|>final<|message|>Hi{marker}<|channel|>final<|message|>never", headers="free")
    assert message_of(reply)["content"] == "Hi"
    assert reply["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(("parallel", "calls"), [(None, 1), (False, 1), (True, 2)])
@pytest.mark.parametrize("headers", ["free", "constrain"])
def test_parallel_tool_calls(say: Any, parallel: bool | None, calls: int, headers: str) -> None:
    reply = say(CALL + SECOND + "<|return|>", tools=TOOLS, parallel_tool_calls=parallel, headers=headers)
    assert len(calls_of(message_of(reply))) == calls
    assert reply["choices"][0]["finish_reason"] == "tool_calls"


def test_one_call_at_most_even_when_the_model_ends_it_as_any_message(say: Any) -> None:
    ended = CALL.replace("<|call|>", "<|end|>")
    reply = say(ended + SECOND, tools=TOOLS, parallel_tool_calls=False)
    assert calls_of(message_of(reply)) == [("f", '{"a": 1}')]


def test_a_model_that_answers_its_own_call_is_stopped(say: Any) -> None:
    output = CALL + "<|start|>functions.f to=assistant<|channel|>commentary<|message|>invented result<|end|>" + REASONED
    reply = say(output, tools=TOOLS, parallel_tool_calls=True, headers="free")
    assert calls_of(message_of(reply)) == [("f", '{"a": 1}')]
    assert "invented" not in json.dumps(reply)
    assert reply["usage"]["completion_tokens"] < len(ids_of(output)) - len(ids_of(REASONED))


def test_tool_choice_none_gives_no_calls(say: Any) -> None:
    output = CALL.replace("<|call|>", "<|end|>") + "<|start|>assistant<|channel|>final<|message|>Words.<|return|>"
    reply = say(output, tools=TOOLS, tool_choice="none", headers="free")
    assert calls_of(message_of(reply)) == []
    assert message_of(reply)["content"] == "Words."
    assert reply["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "limit", [{"max_tokens": 7}, {"max_completion_tokens": 7}, {"max_completion_tokens": 7, "max_tokens": 90}]
)
def test_token_limit(say: Any, limit: dict[str, int]) -> None:
    reply = say("<|channel|>final<|message|>one two three four five six", **limit)
    assert reply["usage"]["completion_tokens"] == 7
    assert reply["choices"][0]["finish_reason"] == "length"
    assert message_of(reply)["content"] == "one two three four"


def test_context_end(llama: Any, handler: HarmonyChatHandler) -> None:
    room = 40
    words = llama.n_ctx() - len(handler.prompt(llama, messages=[USER])) - room
    request = {"messages": [{"role": "user", "content": "hi" + " hi" * words}], "max_tokens": None}
    size = len(handler.prompt(llama, **request))
    chunks = list(handler(llama=llama, stream=True, stream_options={"include_usage": True}, seed=5, **request))
    usage = chunks[-1]["usage"]
    assert usage["prompt_tokens"] == size
    assert usage["total_tokens"] == llama.n_ctx()
    assert add_up(chunks)["finish_reason"] == "length"


def test_a_prompt_longer_than_the_context_is_refused(llama: Any, handler: HarmonyChatHandler) -> None:
    with pytest.raises(RequestError) as error:
        handler(llama=llama, messages=[{"role": "user", "content": " hi" * llama.n_ctx()}])
    assert error.value.code == "context_length_exceeded"


def test_closing_the_stream_ends_generation_and_the_next_request_goes_on(say: Any, llama: Any) -> None:
    chunks = say(REASONED, stream=True)
    for _ in range(3):
        next(chunks)
    before = evaluated(llama)
    chunks.close()
    assert evaluated(llama) == before
    assert message_of(say(REASONED))["content"] == "Hello!"


def test_a_reply_leaves_nothing_to_the_garbage_collector(say: Any) -> None:
    """Its buffers are as wide as the vocabulary: they go when it does."""
    gc.collect()
    gc.disable()
    try:
        say(REASONED)
        list(say(REASONED, stream=True))
        assert not [one for one in gc.get_objects() if type(one) is Draw]
    finally:
        gc.enable()


def test_streams_that_are_read_in_turns_are_each_right(say: Any) -> None:
    """In a program one reply runs at a time; one that is not read on gives way."""
    other = "<|channel|>final<|message|>Another one.<|return|>"
    streams = [say(text, stream=True) for text in (REASONED, other, REASONED)]
    seen: list[list[dict[str, Any]]] = [[] for _ in streams]
    while streams_left := [place for place, stream in enumerate(streams) if stream is not None]:
        for place in streams_left:
            chunk = next(streams[place], None)
            if chunk is None:
                streams[place] = None
            else:
                seen[place].append(chunk)
    for chunks, text in zip(seen, (REASONED, other, REASONED), strict=True):
        assert add_up(chunks)["message"]["content"] == message_of(say(text))["content"]


def test_dropping_the_stream_is_closing_it(say: Any, llama: Any) -> None:
    chunks = say(REASONED, stream=True)
    next(chunks)
    del chunks
    gc.collect()
    assert message_of(say(REASONED))["content"] == "Hello!"


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_that_nobody_waits_for_is_no_reply(say: Any, stream: bool, n: int) -> None:
    asked: list[bool] = []

    def cancelled() -> bool:
        asked.append(len(asked) == 5)
        return asked[-1]

    with pytest.raises(Cancelled):
        list(say(ids_of("<|channel|>final<|message|>") + [350] * 100, stream=stream, n=n, cancelled=cancelled))
    assert asked == [False] * 5 + [True]
    assert message_of(say(REASONED))["content"] == "Hello!"


# Stop strings.


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", [case for case in STOPPING if not case.include], ids=lambda case: case.name)
def test_stop_strings(say: Any, case: Stopping, stream: bool) -> None:
    tools = [{"type": "function", "function": {"name": "get_weather"}}]
    reply = say(case.raw, tools=tools, stop=list(case.stop), stream=stream, headers="free")
    chunks = list(reply) if stream else []
    choice = add_up(chunks) if stream else reply["choices"][0]
    message = choice["message"]
    assert (message["reasoning_content"], message["content"], calls_of(message)) == case.fields
    ended = chunks[-1]["choices"][0] if stream else choice
    assert ended.get("stop_reason") == case.matched
    assert choice["finish_reason"] == ("tool_calls" if case.tool_calls and not case.in_call else "stop")
    if not stream and case.said is not None:
        assert reply["usage"]["completion_tokens"] == len(ids_of(case.said)), "generation ends at the match"


def test_a_stop_string_met_when_the_reply_ends(say: Any) -> None:
    """Text that may be a header is known for content at the end only."""
    choice = say("It is sunny. STOP.<|return|>", stop="STOP", headers="free")["choices"][0]
    assert (choice["message"]["content"], choice["stop_reason"]) == ("It is sunny. ", "STOP")


# Usage, sampling, choices.


def test_usage_counts(say: Any, llama: Any, handler: HarmonyChatHandler) -> None:
    usage = say(REASONED)["usage"]
    assert usage["prompt_tokens"] == len(handler.prompt(llama, messages=[USER]))
    assert usage["completion_tokens"] == len(ids_of(REASONED))
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == len(ids_of("Think, 你好🦀."))


def test_the_second_turn_evaluates_only_its_new_tokens(llama: Any, say: Any) -> None:
    first = [{"role": "user", "content": "A question of some length, " * 20}]
    llama.reset()
    cold = say(CALL, messages=first, tools=TOOLS)
    assert cold["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    second = [
        *first,
        message_of(cold),
        {"role": "tool", "tool_call_id": message_of(cold)["tool_calls"][0]["id"], "content": "a result"},
    ]
    before = evaluated(llama)
    warm = say("<|channel|>final<|message|>ok<|return|>", messages=second, tools=TOOLS)
    spent = evaluated(llama) - before
    new = warm["usage"]["prompt_tokens"] - cold["usage"]["prompt_tokens"] - cold["usage"]["completion_tokens"]
    # What the first turn evaluated: its prompt and all of its reply but the last id, which no step followed.
    assert warm["usage"]["prompt_tokens_details"]["cached_tokens"] == (
        cold["usage"]["prompt_tokens"] + cold["usage"]["completion_tokens"] - 1
    )
    assert spent == (new + 1) + (warm["usage"]["completion_tokens"] - 1)


def evaluated(llama: Any) -> int:
    counters = llama_cpp.llama_perf_context(llama.ctx)
    return int(counters.n_p_eval + counters.n_eval)


def test_the_state_cache_of_llama_is_used(llama: Any, say: Any) -> None:
    long = [{"role": "user", "content": "A question of some length, " * 20}]
    llama.set_cache(llama_cpp.LlamaRAMCache(1 << 30))
    try:
        say(REASONED, messages=long)
        say(REASONED, messages=[{"role": "user", "content": "something else"}])
        usage = say(REASONED, messages=long)["usage"]
    finally:
        llama.set_cache(None)
    assert usage["prompt_tokens_details"]["cached_tokens"] >= usage["prompt_tokens"] - 1


def test_seed_repeats_a_reply_and_replies_differ_without(llama: Any, handler: HarmonyChatHandler) -> None:
    def text(**request: Any) -> Any:
        return message_of(handler(llama=llama, messages=[USER], max_tokens=12, **request))

    assert text(seed=7) == text(seed=7)
    assert text(seed=7) != text(seed=8)
    assert text() != text()


def test_choices(llama: Any, handler: HarmonyChatHandler) -> None:
    request = {"llama": llama, "messages": [USER], "max_tokens": 12, "n": 3, "seed": 7}
    whole = handler(**request)
    assert [c["index"] for c in whole["choices"]] == [0, 1, 2]
    assert len({json.dumps(c["message"]) for c in whole["choices"]}) == 3
    assert whole["usage"]["completion_tokens"] == 36
    chunks = list(handler(stream=True, **request))
    for choice in whole["choices"]:
        assert add_up(chunks, choice["index"])["message"] == choice["message"]


def test_defaults_are_what_gpt_oss_wants_unless_said(monkeypatch: pytest.MonkeyPatch, llama: Any) -> None:
    from harmony_plugin.llamacpp import draw, generation

    seen: dict[str, Any] = {}

    class Spy(draw.Draw):
        def __init__(self, **how: Any) -> None:
            seen.update(how)
            super().__init__(**how)

    monkeypatch.setattr(generation, "Draw", Spy)
    handler = HarmonyChatHandler(defaults=Defaults(min_p=0.02))
    handler(llama=llama, messages=[USER], max_tokens=1)
    cuts = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty")
    assert tuple(seen[name] for name in cuts) == (1.0, 1.0, 0, 0.02, 1.0)
    handler(llama=llama, messages=[USER], max_tokens=1, temperature=0.2, top_k=5)
    assert (seen["temperature"], seen["top_k"]) == (0.2, 5)
    # create_chat_completion fills in 0.2 and 40 by itself; what its caller says goes through.
    monkeypatch.setattr(llama, "chat_handler", handler)
    llama.create_chat_completion([USER], max_tokens=1, top_p=0.5)
    assert tuple(seen[name] for name in cuts[:4]) == (1.0, 0.5, 0, 0.02)


def test_logit_bias(llama: Any, handler: HarmonyChatHandler) -> None:
    (word,) = ids_of(" hello")
    request = {"messages": [USER], "max_tokens": 6, "max_reasoning_tokens": 0, "temperature": 0.0}
    reply = handler(llama=llama, logit_bias={str(word): 100}, **request)
    assert message_of(reply)["content"] == " hello" * 3
    reply = handler(llama=llama, logit_bias={word: -100}, **request)
    assert "hello" not in (message_of(reply)["content"] or "")


def test_logprobs_are_of_the_content(llama: Any, say: Any) -> None:
    reply = say(
        "<|channel|>analysis<|message|>a b<|end|><|start|>assistant<|channel|>final<|message|>x 🦀<|return|>",
        logprobs=True,
        top_logprobs=3,
    )
    entries = reply["choices"][0]["logprobs"]["content"]
    assert b"".join(bytes(e["bytes"]) for e in entries) == "x 🦀".encode()
    for entry in entries:
        assert len(entry["top_logprobs"]) == 3
        best = [t["logprob"] for t in entry["top_logprobs"]]
        assert best == sorted(best, reverse=True)
        # The model's own: the script's lift is not in it.
        assert entry["logprob"] <= best[0] < -1
    chunks = list(say("<|channel|>final<|message|>x 🦀<|return|>", logprobs=True, stream=True))
    streamed = [e for c in chunks for e in ((c["choices"][0]["logprobs"] or {}).get("content") or [])]
    assert b"".join(bytes(e["bytes"]) for e in streamed) == "x 🦀".encode()


@pytest.mark.parametrize(
    ("output", "stop", "tokens", "content"),
    [
        ("It is sunny.<|return|>", None, "It is sunny.", "It is sunny."),
        ('<|channel|>final{"a": 1}<|return|>', None, '{"a": 1}', '{"a": 1}'),
        ("<|channel|>final<|message|>One, two<|return|>", ["tw"], "One, two", "One, "),
        ("<|channel|>final<|message|>One, twisted<|return|>", ["two"], "One, twisted", "One, twisted"),
        (CALL, None, "", None),
    ],
    ids=["loose text", "no message marker", "cut", "held", "no content"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_logprobs_line_up_with_the_content(
    say: Any, output: str, stop: Any, tokens: str, content: str | None, stream: bool
) -> None:
    """Also where content comes later than its tokens: entries come with their text."""
    reply = say(output, logprobs=True, stream=stream, stop=stop, tools=TOOLS, headers="free")
    chunks = list(reply) if stream else []
    choices = [chunk["choices"][0] for chunk in chunks] or reply["choices"]
    entries = [entry for choice in choices for entry in (choice["logprobs"] or {"content": ()})["content"]]
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == tokens
    assert (add_up(chunks) if stream else choices[0])["message"]["content"] == content
    for choice in choices if stream else ():
        assert bool(choice["logprobs"]) == bool(choice["delta"].get("content"))


def test_a_processor_that_raises_is_heard(llama: Any) -> None:
    def broken(input_ids: Any, scores: Any) -> Any:
        raise KeyError("broken processor")

    handler = HarmonyChatHandler(logits_processors=lambda prompt, fields: [broken])
    with pytest.raises(KeyError, match="broken processor"):
        handler(llama=llama, messages=[USER])
    assert HarmonyChatHandler()(llama=llama, messages=[USER], max_tokens=2)["usage"]["completion_tokens"] == 2


def test_the_processor_factory_gets_the_prompt_and_the_request(llama: Any, handler: HarmonyChatHandler) -> None:
    seen = []
    spying = HarmonyChatHandler(
        prompt=handler.prompts.options,
        logits_processors=lambda prompt, fields: seen.append((list(prompt), dict(fields))) or [],
    )
    spying(llama=llama, messages=[USER], max_tokens=1, metadata={"a": "b"})
    assert seen[0][0] == handler.prompt(llama, messages=[USER])
    assert seen[0][1]["metadata"] == {"a": "b"}


def test_a_dropped_model_is_freed(handler: HarmonyChatHandler) -> None:
    llama = llama_cpp.Llama(str(build_model()), n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
    handler.prepare(llama)
    chunks = handler(llama=llama, messages=[USER], stream=True, max_tokens=3)
    gone = weakref.ref(llama)
    del llama
    assert add_up(list(chunks))["finish_reason"] == "length"
    del chunks
    gc.collect()
    assert gone() is None


# Bad requests.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("messages", []),
        ("messages", "hi"),
        ("tools", "f"),
        ("tools", [5]),
        ("tools", [{"type": "retrieval"}]),
        ("tool_choice", "f"),
        ("tool_choice", "required"),
        ("tool_choice", 5),
        ("tool_choice", {"type": "function", "function": {"name": "nope"}}),
        ("temperature", "hot"),
        ("temperature", -1),
        ("temperature", float("nan")),
        ("temperature", True),
        ("top_p", 2),
        ("top_k", 1.5),
        ("min_p", -0.1),
        ("presence_penalty", 3),
        ("frequency_penalty", -3),
        ("max_tokens", "many"),
        ("max_completion_tokens", 0),
        ("max_reasoning_tokens", -1),
        ("n", 0),
        ("n", "2"),
        ("n", 1000),
        ("seed", "x"),
        ("seed", 1.5),
        ("stop", 5),
        ("stop", [5]),
        ("stream_options", "yes"),
        ("logprobs", 1),
        ("top_logprobs", 50),
        ("top_logprobs", 2),
        ("logit_bias", [1]),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"1": 101}),
        ("logit_bias", {"999999": 1}),
        ("logit_bias", {"-1": 1}),
        ("reasoning_effort", "extreme"),
        ("reasoning_effort", 5),
        ("parallel_tool_calls", "no"),
        ("response_format", "json"),
        ("response_format", {"type": "xml"}),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": 5}}),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}),
        ("model", 5),
        ("headers", "loose"),
        ("mirostat_mode", 9),
        ("functions", 5),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_each_field_wrong_once(llama: Any, handler: HarmonyChatHandler, field: str, value: Any, stream: bool) -> None:
    request = {"messages": [USER], "max_tokens": 1, field: value}
    with pytest.raises(RequestError) as error:
        handler(llama=llama, stream=stream, **request)
    assert (error.value.param or "").split(".")[0].split("[")[0] == field
    assert error.value.status == 400


def test_unknown_fields_are_let_through(llama: Any, handler: HarmonyChatHandler) -> None:
    handler(llama=llama, messages=[USER], max_tokens=1, user="u", metadata={}, store=False, whatever=1)


# Models that are not Harmony's, and no engine.


def test_another_vocabulary_is_refused_with_what_to_do(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    import numpy as np

    path = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    for add, value in (
        (writer.add_context_length, 64),
        (writer.add_embedding_length, 32),
        (writer.add_block_count, 1),
        (writer.add_feed_forward_length, 32),
        (writer.add_head_count, 1),
        (writer.add_head_count_kv, 1),
        (writer.add_layer_norm_rms_eps, 1e-5),
        (writer.add_rope_dimension_count, 32),
        (writer.add_vocab_size, len(tokens)),
        (writer.add_tokenizer_model, "llama"),
        (writer.add_token_list, tokens),
        (writer.add_token_scores, [0.0] * len(tokens)),
        (writer.add_token_types, [2, 3, 3] + [6] * 256),
    ):
        add(value)
    for name, shape in {
        "token_embd": (len(tokens), 32),
        "output": (len(tokens), 32),
        **{
            f"blk.0.{n}": (32, 32)
            for n in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
        },
    }.items():
        writer.add_tensor(f"{name}.weight", np.zeros(shape, dtype=np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    other = llama_cpp.Llama(str(path), n_ctx=64, verbose=False)
    with pytest.raises(ValueError, match=r"does not have the Harmony vocabulary.*gpt-oss") as error:
        HarmonyChatHandler()(llama=other, messages=[USER])
    assert not isinstance(error.value, RequestError)


def test_importing_without_llama_cpp_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['llama_cpp'] = None\n"
        "try: import harmony_plugin.llamacpp\n"
        "except ImportError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "harmony-plugin[llamacpp]" in done.stdout


@pytest.mark.parametrize("missing", ["llama_cpp", "llama_cpp.server.app"])
def test_the_server_without_llama_cpp_says_so_in_one_line(missing: str, tmp_path: Path) -> None:
    # Read by Python before anything else; `-m` is as at the command line.
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{missing!r}] = None")
    source = Path(harmony_plugin.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(source)))}
    command = [sys.executable, "-m", "harmony_plugin.llamacpp", "--model", "none.gguf"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"harmony-plugin: .*pip install 'harmony-plugin\[llamacpp\]'\n", done.stderr), done.stderr


def test_public_names() -> None:
    assert {"HarmonyChatHandler", "Defaults"} <= set(adapter.__all__)
