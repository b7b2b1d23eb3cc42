"""The common settings on the real server, from a config file with two models: strict, and debugging."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from llamacpp_rig import AT_ONCE, ONE_THREAD, events, scripted, sound

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

USER = [{"role": "user", "content": "hi"}]
SOUND = "answer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("settings")
    flags = [*AT_ONCE, *ONE_THREAD]
    threads = {flag.lstrip("-"): int(value) for flag, value in zip(flags[::2], flags[1::2], strict=True)}
    model = {"model": str(build_model()), "n_ctx": 2048, "headers": "free", "temperature": 0, **threads}
    config = {
        "harmony_metrics": False,
        "models_max": 2,
        "models": [
            {**model, "model_alias": "strict", "harmony_strict": True},
            {
                **model,
                "model_alias": "debug",
                "harmony_debug": True,
                "harmony_output": "final_plus_tools_text",
                "harmony_stop": ["21 C", "never"],
                "harmony_reasoning_names": ["reasoning_content"],
            },
        ],
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with sound(scripted(folder, "--config_file", str(folder / "config.json"))) as running:
        yield running


def chat(model: str, script: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": USER, "metadata": {"script": script}, **more}


def test_strict_is_an_error_of_the_client_apis_shape(server: ServerProcess) -> None:
    """Malformed output is 422, never a 5xx; in a stream that began, an error event."""
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120)
    claude = anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=120)
    assert client.chat.completions.create(**chat("strict", SOUND)).choices[0].message.content == "2 + 2 = 4."
    asked = chat("strict", "malformed")
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.chat.completions.create(**asked)
    assert refused.value.code == "missing_end"
    assert "The model's output was malformed: missing_end at token" in str(refused.value)
    with pytest.raises(openai.APIError, match="The model's output was malformed"):
        list(client.chat.completions.create(**asked, stream=True))
    with pytest.raises(openai.UnprocessableEntityError):
        client.responses.create(model="strict", input="hi", metadata={"script": "malformed"})
    with pytest.raises(anthropic.UnprocessableEntityError) as told:
        claude.messages.create(model="strict", max_tokens=99, messages=USER, metadata={"user_id": "malformed"})
    assert told.value.body["error"]["type"] == "invalid_request_error"


def test_strict_in_a_stream_of_responses(server: ServerProcess, http: httpx.Client) -> None:
    body = {"model": "strict", "input": "hi", "metadata": {"script": "malformed"}}
    last = events(http, "/v1/responses", body)[-1]
    assert last["type"] == "response.failed"
    assert "malformed" in last["response"]["error"]["message"]


def test_debugging_shows_in_replies_and_in_the_log(server: ServerProcess, http: httpx.Client) -> None:
    whole = http.post("/v1/chat/completions", json=chat("debug", "malformed"))
    assert whole.headers["x-harmony-issues"] == "missing_end, missing_start"
    told = whole.json()["choices"][0]["message"]["harmony"]
    assert [issue["code"] for issue in told["issues"]] == ["missing_end", "missing_start"]
    assert told["channels"] == {"analysis": 1, "final": 1}
    sound_reply = http.post("/v1/chat/completions", json=chat("debug", SOUND))
    assert sound_reply.headers["x-harmony-issues"] == "none"
    response = http.post("/v1/responses", json={"model": "debug", "input": "hi", "metadata": {"script": "malformed"}})
    assert response.json()["harmony"] == told
    body = {"model": "debug", "max_tokens": 99, "messages": USER, "metadata": {"user_id": "malformed"}}
    message = http.post("/v1/messages", json=body)
    assert message.json()["harmony"] == told
    assert message.headers["x-harmony-issues"] == "missing_end, missing_start"
    streamed = events(http, "/v1/messages", body)
    assert next(event["delta"]["harmony"] for event in streamed if event["type"] == "message_delta") == told

    identifier = whole.headers["x-request-id"]
    line = next(line for line in server.output().splitlines() if " reply {" in line and identifier in line)
    said = json.loads(line[line.index("{") :])
    assert (said["id"], said["model"], said["microseconds"] > 0) == (identifier, "debug", True)
    assert [message["channel"] for message in said["messages"]] == ["analysis", "final"]
    assert "Hm." not in line


def test_each_model_has_its_own(http: httpx.Client) -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    reply = http.post("/v1/chat/completions", json=chat("debug", "loop", tools=[tool])).json()["choices"][0]
    assert reply["finish_reason"] == "stop"
    assert {name for name in reply["message"] if "reasoning" in name} == {"reasoning_content"}
    assert reply["message"]["content"] == 'get_weather({"city":"Paris"})'
    turns = [*USER, {"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}]
    stopped = http.post("/v1/chat/completions", json=chat("debug", "weather", messages=turns)).json()["choices"][0]
    assert (stopped["message"]["content"], stopped["stop_reason"]) == ("It is ", "21 C")
    other = http.post("/v1/chat/completions", json=chat("strict", "loop", tools=[tool])).json()["choices"][0]
    assert other["finish_reason"] == "tool_calls"


def test_for_one_request(http: httpx.Client) -> None:
    template = {"harmony": {"output": "final_only"}}
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    asked = chat("strict", "loop", tools=[tool], chat_template_kwargs=template)
    reply = http.post("/v1/chat/completions", json=asked).json()["choices"][0]
    assert (reply["finish_reason"], "tool_calls" in reply["message"]) == ("stop", False)
    refused = http.post("/v1/chat/completions", json={**asked, "chat_template_kwargs": {"harmony": {"tone": "kind"}}})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "chat_template_kwargs.harmony"


def test_metrics_are_off(http: httpx.Client) -> None:
    assert http.get("/metrics").status_code == 404
