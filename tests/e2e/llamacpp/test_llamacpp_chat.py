"""`/v1/chat/completions` through OpenAI's client: what clients send, right and wrong."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from llamacpp_rig import LONG, WEATHER, Seen
from openai.types.chat import ChatCompletion, ChatCompletionChunk

USER = [{"role": "user", "content": "hi"}]


CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}


def ask(script: str, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": USER, "metadata": {"script": script}, **more}


def test_replies_validate_against_the_clients_own_types(http: httpx.Client) -> None:
    for fields in (ask("answer"), ask("loop", tools=[WEATHER]), ask("numbers", logprobs=True, top_logprobs=2)):
        whole = http.post("/v1/chat/completions", json=fields)
        assert whole.status_code == 200
        ChatCompletion.model_validate(whole.json(), strict=True)
        with http.stream("POST", "/v1/chat/completions", json={**fields, "stream": True}) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = [line for line in stream.iter_lines() if line and not line.startswith(":")]
        assert lines[-1] == "data: [DONE]"
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
        for chunk in chunks:
            ChatCompletionChunk.model_validate(chunk, strict=True)
            assert "usage" not in chunk
        assert len({chunk["id"] for chunk in chunks}) == 1
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"


def test_tool_loop(client: openai.OpenAI) -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather in Paris?"}]},
    ]
    first = client.chat.completions.create(**ask("loop", tools=[WEATHER]) | {"messages": messages})
    seen = Seen.of_message(first.choices[0])
    assert seen == Seen("Need weather.", None, [("get_weather", '{"city":"Paris"}')], "tool_calls")
    message = first.choices[0].message.model_dump()
    assert message["content"] is None
    assert message["reasoning_content"] == "Need weather."
    messages += [message, {"role": "tool", "tool_call_id": seen.ids[0], "content": '{"temp": 21}'}]
    fields = ask("loop", tools=[WEATHER]) | {"messages": messages}
    second = client.chat.completions.create(**fields)
    assert Seen.of_message(second.choices[0]) == Seen("Have the result.", "It is 21 C.", [], "stop")
    assert Seen.of_chunks(client.chat.completions.create(**fields, stream=True)) == Seen(
        "Have the result.", "It is 21 C.", [], "stop"
    )
    # The second turn's prompt begins as the first one's: the engine had it already.
    assert second.usage is not None
    assert second.usage.prompt_tokens_details.cached_tokens > 0


def test_two_calls_have_their_own_index_and_id(client: openai.OpenAI) -> None:
    fields = ask("two-calls", tools=[WEATHER], parallel_tool_calls=True)
    want = [("get_weather", '{"city":"Paris"}'), ("get_weather", '{"city":"Rome"}')]
    for seen in (
        Seen.of_message(client.chat.completions.create(**fields).choices[0]),
        Seen.of_chunks(client.chat.completions.create(**fields, stream=True)),
    ):
        assert seen.calls == want
        assert len(set(seen.ids)) == 2


def test_text_outside_ascii_arrives_byte_for_byte(client: openai.OpenAI) -> None:
    want = Seen("naïve", 'München 🦙 東京\n\ttab "quote"', [], "stop")
    assert Seen.of_message(client.chat.completions.create(**ask("unicode")).choices[0]) == want
    assert Seen.of_chunks(client.chat.completions.create(**ask("unicode"), stream=True)) == want


def test_a_limit_cuts_and_says_so(client: openai.OpenAI) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        reply = client.chat.completions.create(**ask("long", **{name: 40}))
        assert reply.choices[0].finish_reason == "length"
        assert reply.usage.completion_tokens == 40
        assert LONG.startswith(reply.choices[0].message.content)


def test_stop_strings_cut_exactly_in_both_modes(client: openai.OpenAI) -> None:
    fields = ask("numbers", stop=["ee f", "never"])  # spans two tokens: " three", " four"
    want = Seen(None, "one two thr", [], "stop")
    assert Seen.of_message(client.chat.completions.create(**fields).choices[0]) == want
    assert Seen.of_chunks(client.chat.completions.create(**fields, stream=True)) == want


def test_several_choices(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**ask("answer", n=3))
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    chunks = list(client.chat.completions.create(**ask("answer", n=3), stream=True))
    for choice in whole.choices:
        assert Seen.of_message(choice) == Seen.of_chunks(chunks, choice.index)


def test_usage_counts_reasoning(client: openai.OpenAI) -> None:
    usage = client.chat.completions.create(**ask("answer")).usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens


def test_effort_is_read_where_clients_put_it(client: openai.OpenAI) -> None:
    def prompt(**more: Any) -> int:
        reply = client.chat.completions.create(**ask("answer"), **more)
        assert reply.usage is not None
        return reply.usage.prompt_tokens - reply.usage.prompt_tokens_details.cached_tokens

    prompt(reasoning_effort="low")
    again, template = prompt(reasoning_effort="low"), {"chat_template_kwargs": {"reasoning_effort": "low"}}
    assert prompt(extra_body=template) == again  # the same prompt: all of it was in the cache
    assert prompt(reasoning_effort="high") > again


def test_fields_that_clients_send_and_this_server_does_not_know_are_let_through(client: openai.OpenAI) -> None:
    more = {"store": False, "service_tier": "auto", "prompt_cache_key": "k", "brand_new_field": {"a": 1}}
    reply = client.chat.completions.create(**ask("answer"), user="someone", seed=7, extra_body=more)
    assert reply.choices[0].message.content == "2 + 2 = 4."


def test_a_client_cannot_reach_the_handlers_own_arguments(http: httpx.Client) -> None:
    more = {"llama": None, "cancelled": "x", "logits_processor": ["x"], "self": 1}
    reply = http.post("/v1/chat/completions", json=ask("answer", **more))
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["message"]["content"] == "2 + 2 = 4."


PATCH = {"type": "custom", "custom": {"name": "apply_patch", "description": "Patch.", "format": {"type": "text"}}}


def test_custom_tools(client: openai.OpenAI, http: httpx.Client) -> None:
    """Tools that take text, as OpenAI's client sends them; history, too."""
    fields = ask("patch", tools=[PATCH, WEATHER])
    whole = client.chat.completions.create(**fields).choices[0]
    assert whole.finish_reason == "tool_calls"
    (call,) = whole.message.tool_calls
    assert (call.type, call.custom.name, call.custom.input) == ("custom", "apply_patch", "*** Begin Patch")
    with http.stream("POST", "/v1/chat/completions", json={**fields, "stream": True}) as stream:
        lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: {")]
    pieces = [c for line in lines for c in json.loads(line)["choices"][0]["delta"].get("tool_calls", ())]
    assert [sorted(piece) for piece in pieces] == [["custom", "id", "index", "type"], ["custom", "index"]]
    assert pieces[0]["custom"] == {"name": "apply_patch", "input": ""}
    assert pieces[1]["custom"] == {"input": "*** Begin Patch"}
    # Other tools' calls beside them stay as they are.
    both = client.chat.completions.create(**ask("loop", tools=[PATCH, WEATHER])).choices[0].message
    assert Seen.of_chunks(client.chat.completions.create(**ask("loop", tools=[PATCH, WEATHER]), stream=True)).calls == [
        (both.tool_calls[0].function.name, both.tool_calls[0].function.arguments)
    ]
    turns = [*USER, whole.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "Done."}]
    counted = client.chat.completions.create(**ask("answer", tools=[PATCH]) | {"messages": turns}).usage
    function = {"name": "apply_patch", "arguments": '{"input": "*** Begin Patch"}'}
    turns[1] = {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": function}]}
    same = client.chat.completions.create(**ask("answer", tools=[PATCH]) | {"messages": turns}).usage
    assert counted.prompt_tokens == same.prompt_tokens


def test_a_custom_tool_can_be_required(client: openai.OpenAI) -> None:
    for choice in (
        "required",
        {"type": "custom", "custom": {"name": "apply_patch"}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [PATCH]}},
    ):
        reply = client.chat.completions.create(**ask("patch", tools=[PATCH], tool_choice=choice))
        assert [c.custom.input for c in reply.choices[0].message.tool_calls] == ["*** Begin Patch"]


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def test_a_picture_in_a_result_or_in_history_stops_no_session(http: httpx.Client) -> None:
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "Look."}, PICTURE]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "A screen:"}, PICTURE]},
        {"role": "user", "content": "Well?"},
    ]
    fields = ask("answer", tools=[WEATHER]) | {"messages": turns}
    for more in ({}, {"stream": True}):
        assert http.post("/v1/chat/completions", json=fields | more).status_code == 200
    tool_loop = fields | {"messages": [turns[-1], *turns[1:3]]}
    assert http.post("/v1/chat/completions", json=tool_loop).status_code == 200
    asked = http.post("/v1/chat/completions", json=fields | {"messages": [*turns, turns[0]]})
    assert asked.status_code == 400
    assert asked.json()["error"]["param"] == "messages[4].content[1].type"


WRONG: list[tuple[str, dict[str, Any], str | None]] = [
    ("no messages", {"messages": None}, "messages"),
    ("empty messages", {"messages": []}, "messages"),
    ("messages not a list", {"messages": "hi"}, "messages"),
    ("message not an object", {"messages": ["hi"]}, "messages[0]"),
    ("unknown role", {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ("no role", {"messages": [{"content": "x"}]}, "messages[0].role"),
    ("user without content", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("content of numbers", {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    (
        "a picture",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content[0].type",
    ),
    (
        "a result for no call",
        {"messages": [*USER, {"role": "tool", "tool_call_id": "call_x", "content": "1"}]},
        "messages[1].tool_call_id",
    ),
    ("a result without id", {"messages": [*USER, {"role": "tool", "content": "1"}]}, "messages[1].tool_call_id"),
    ("calls not a list", {"messages": [*USER, {"role": "assistant", "tool_calls": 5}]}, "messages[1].tool_calls"),
    (
        "a call without function",
        {"messages": [*USER, {"role": "assistant", "tool_calls": [{"id": "a"}]}]},
        "messages[1].tool_calls[0].function",
    ),
    ("model", {"model": 5}, "model"),
    ("stream", {"stream": "yes"}, "stream"),
    ("stream_options without stream", {"stream_options": {"include_usage": True}}, "stream_options"),
    ("stream_options", {"stream": True, "stream_options": 5}, "stream_options"),
    (
        "stream_options.include_usage",
        {"stream": True, "stream_options": {"include_usage": "x"}},
        "stream_options.include_usage",
    ),
    ("temperature too high", {"temperature": 9}, "temperature"),
    ("temperature as text", {"temperature": "1"}, "temperature"),
    ("top_p", {"top_p": 2}, "top_p"),
    ("top_k", {"top_k": "all"}, "top_k"),
    ("min_p", {"min_p": -1}, "min_p"),
    ("presence_penalty", {"presence_penalty": 3}, "presence_penalty"),
    ("frequency_penalty", {"frequency_penalty": []}, "frequency_penalty"),
    ("repeat_penalty", {"repeat_penalty": -1}, "repeat_penalty"),
    ("n zero", {"n": 0}, "n"),
    ("n huge", {"n": 10_000}, "n"),
    ("max_completion_tokens", {"max_completion_tokens": 0}, "max_completion_tokens"),
    ("max_tokens", {"max_tokens": "many", "max_completion_tokens": None}, "max_tokens"),
    ("max_reasoning_tokens", {"max_reasoning_tokens": -1}, "max_reasoning_tokens"),
    ("seed", {"seed": 1.5}, "seed"),
    ("stop", {"stop": [1]}, "stop"),
    ("stop object", {"stop": {"a": 1}}, "stop"),
    ("logprobs", {"logprobs": "yes"}, "logprobs"),
    ("top_logprobs without logprobs", {"top_logprobs": 2}, "top_logprobs"),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 50}, "top_logprobs"),
    ("logit_bias", {"logit_bias": [1]}, "logit_bias"),
    ("logit_bias key", {"logit_bias": {"word": 1}}, "logit_bias"),
    ("logit_bias value", {"logit_bias": {"5": 500}}, "logit_bias"),
    ("logit_bias token", {"logit_bias": {"999999999": 5}}, "logit_bias"),
    ("reasoning_effort", {"reasoning_effort": "extreme"}, "reasoning_effort"),
    ("reasoning_effort type", {"reasoning_effort": 3}, "reasoning_effort"),
    ("metadata", {"metadata": "x"}, "metadata"),
    ("tools", {"tools": "x"}, "tools"),
    ("tools entry", {"tools": ["x"]}, "tools[0]"),
    ("tool type", {"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ("tool without name", {"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    ("tool_choice", {"tools": [WEATHER], "tool_choice": "sometimes"}, "tool_choice"),
    ("tool_choice type", {"tools": [WEATHER], "tool_choice": 5}, "tool_choice"),
    ("tool_choice without tools", {"tool_choice": "required"}, "tool_choice"),
    (
        "tool_choice of an unknown tool",
        {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "nope"}}},
        "tool_choice",
    ),
    ("parallel_tool_calls", {"parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ("response_format", {"response_format": "json"}, "response_format"),
    ("response_format type", {"response_format": {"type": "xml"}}, "response_format.type"),
    (
        "response_format schema",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": 5}}},
        "response_format.json_schema.schema",
    ),
    (
        "an impossible schema",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nonsense"}}}},
        None,
    ),
    (
        "json_schema without a schema",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
        "response_format.json_schema.schema",
    ),
    (
        "json_schema without anything",
        {"response_format": {"type": "json_schema"}},
        "response_format.json_schema.schema",
    ),
    ("max_tokens zero", {"max_tokens": 0, "max_completion_tokens": None}, "max_tokens"),
    ("max_tokens negative", {"max_tokens": -5, "max_completion_tokens": None}, "max_tokens"),
    ("max_completion_tokens negative", {"max_completion_tokens": -5}, "max_completion_tokens"),
    ("the stock server's grammar", {"grammar": 'root ::= "yes"'}, "grammar"),
    ("a search that OpenAI runs", {"web_search_options": {}}, "web_search_options"),
    ("custom tool without name", {"tools": [{"type": "custom", "custom": {}}]}, "tools[0].custom.name"),
    (
        "custom tool's format",
        {"tools": [{"type": "custom", "custom": {"name": "a", "format": 5}}]},
        "tools[0].custom.format",
    ),
    (
        "custom call without input",
        {
            "messages": [
                *USER,
                {"role": "assistant", "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "x"}}]},
            ]
        },
        "messages[1].tool_calls[0].custom.input",
    ),
    ("too long", {"messages": [{"role": "user", "content": "word " * 9000}]}, "messages"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("change", "param"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_each_wrong_field_is_a_400_that_names_it(
    http: httpx.Client, change: dict[str, Any], param: str | None, stream: bool
) -> None:
    fields = {"model": "tiny", "messages": USER, "max_completion_tokens": 4}
    fields |= {"stream": True, **change} if stream and "stream_options" not in change else change
    reply = http.post("/v1/chat/completions", json=fields)
    assert reply.status_code in (400, 422), reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    if param is not None:
        assert error["param"] == param, error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"hi"',
        b"null",
        b"\xff\xfe",
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"temperature": NaN, "messages": []}',
        b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_a_body_that_is_no_request_is_refused_in_the_apis_own_shape(http: httpx.Client, path: str, body: bytes) -> None:
    reply = http.post(path, content=body, headers={"content-type": "application/json"})
    assert reply.status_code in (400, 422), reply.text
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert ("param" in error) == (path != "/v1/messages")


def test_unknown_paths_and_methods_have_the_same_shape(http: httpx.Client) -> None:
    assert http.get("/v1/nothing").json()["error"]["type"] == "not_found_error"
    assert http.get("/v1/chat/completions").status_code == 405
    assert http.get("/v1/chat/completions").json()["error"]["message"]


def test_a_body_past_the_limit_is_refused(http: httpx.Client) -> None:
    reply = http.post("/v1/chat/completions", content=b" " * (33 << 20))
    assert reply.status_code == 413
    assert reply.json()["error"]["code"] == "too_large"


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_any_model_name_is_answered_by_the_first_model_as_in_the_stock_server(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(**ask("answer") | {"model": "gpt-4o"})
    assert reply.model == "tiny"


def test_stock_routes_stay(client: openai.OpenAI, http: httpx.Client) -> None:
    fields: dict[str, Any] = {"model": "tiny", "prompt": "hi", "max_tokens": 3, "temperature": 0}
    whole = client.completions.create(**fields)
    assert whole.usage.completion_tokens == 3
    streamed = client.completions.create(**fields, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == whole.choices[0].text
    tokens = http.post("/extras/tokenize", json={"input": "hello"}).json()["tokens"]
    assert http.post("/extras/detokenize", json={"tokens": tokens}).json()["text"].strip() == "hello"
    assert http.post("/extras/tokenize/count", json={"input": "hello"}).json()["count"] == len(tokens)
    wrong = http.post("/v1/completions", json={**fields, "max_tokens": -1})
    assert wrong.status_code == 422
    assert wrong.json()["error"]["param"] == "max_tokens"
    assert http.post("/v1/embeddings", json={"input": "hi"}).status_code == 400
