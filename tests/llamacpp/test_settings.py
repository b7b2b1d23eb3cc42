"""The settings at work on the real engine: what each changes of a reply, whole and streamed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harmony_plugin import HarmonyParseError, RequestError
from harmony_plugin.llamacpp import HarmonyChatHandler
from harmony_plugin.settings import Settings

from .conftest import USER, Script, add_up, ids_of

CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'
REASONED = "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant<|channel|>final<|message|>Hello!<|return|>"
MALFORMED = "<|channel|>analysis<|message|>Think.<|channel|>final<|message|>Hello!<|return|>"
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]

Answer = Callable[..., dict[str, Any]]


@pytest.fixture
def answer(llama: Any) -> Answer:
    """`answer(output, settings, **request)`: the choice, the same whole and streamed."""

    def call(output: str, settings: Settings, **request: Any) -> dict[str, Any]:
        ids = ids_of(output)
        handler = HarmonyChatHandler.of(settings, logits_processors=lambda prompt, fields: [Script(ids, len(prompt))])
        request = {"headers": "free", "temperature": 0, "messages": [USER], "max_tokens": len(ids)} | request
        (whole,) = handler(llama=llama, **request)["choices"]
        chunks = list(handler(llama=llama, stream=True, **request))
        streamed = add_up(chunks)
        assert streamed["finish_reason"] == whole["finish_reason"]
        told = [chunk["choices"][0]["delta"].get("harmony") for chunk in chunks]
        assert told == [None] * (len(chunks) - 1) + [whole["message"].get("harmony")]
        for message in (streamed["message"], whole["message"]):
            for made in message.get("tool_calls", ()):
                made.pop("id"), made.pop("index", None)
        both = {**whole["message"], **streamed["message"], "harmony": whole["message"].get("harmony")}
        assert {name: value for name, value in both.items() if value is not None} == {
            name: value for name, value in whole["message"].items() if value is not None
        }
        return dict(whole)

    return call


def test_off(answer: Answer) -> None:
    assert answer(REASONED, Settings(enabled=False))["message"]["content"] == REASONED


def test_calls_left_out_and_written(answer: Answer) -> None:
    left = answer(CALL, Settings(output="final_only"), tools=TOOLS)
    assert (left["message"]["content"], left["finish_reason"]) == (None, "stop")
    written = answer(CALL, Settings(output="final_plus_tools_text"), tools=TOOLS)
    assert (written["message"]["content"], written["finish_reason"]) == ('f({"a": 1})', "stop")


def test_reasoning_dropped_is_counted_and_bounded(llama: Any) -> None:
    ids = ids_of("<|channel|>analysis<|message|>" + "very " * 50)
    handler = HarmonyChatHandler.of(
        Settings(reasoning="drop", max_reasoning_tokens=5, headers="free"),
        logits_processors=lambda prompt, fields: [Script(ids, len(prompt))],
    )
    reply = handler(llama=llama, messages=[USER], max_tokens=20)
    assert reply["choices"][0]["message"]["reasoning"] is None
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] == 5


def test_names_of_reasoning(answer: Answer) -> None:
    settings = Settings(reasoning_names=("reasoning_content",))
    message = answer(REASONED, settings)["message"]
    assert message == {"role": "assistant", "content": "Hello!", "reasoning_content": "Think."}


def test_strict(answer: Answer) -> None:
    assert answer(REASONED, Settings(strict=True))["message"]["content"] == "Hello!"
    with pytest.raises(HarmonyParseError, match="missing_end"):
        answer(MALFORMED, Settings(strict=True))


def test_stop_strings_beside_a_requests(answer: Answer) -> None:
    assert answer(REASONED, Settings(stop=("ll",)))["message"]["content"] == "He"
    assert answer(REASONED, Settings(stop=("zz",)), stop="o")["message"]["content"] == "Hell"


@pytest.mark.parametrize("asked", [None, 10_000])
def test_longest_reply(answer: Answer, asked: int | None) -> None:
    choice = answer(REASONED, Settings(max_reply_tokens=4), max_tokens=asked)
    assert (choice["message"]["reasoning"], choice["finish_reason"]) == ("Think", "length")


def test_no_answer_in_time(answer: Answer) -> None:
    thinking = "<|channel|>analysis<|message|>" + "on and " * 20
    choice = answer(thinking, Settings(max_tokens_before_final=7))
    assert (choice["message"]["reasoning"], choice["finish_reason"]) == ("on and on and", "length")
    choice = answer(thinking, Settings(max_seconds_before_final=1e-9))
    assert choice["finish_reason"] == "length"
    assert "content" in choice["message"]
    # An answer that has begun is never cut, nor is a call.
    for output in (REASONED, CALL):
        begun = answer(output, Settings(max_tokens_before_final=len(ids_of(output)) - 1), tools=TOOLS)
        assert begun["finish_reason"] != "length"


def test_a_preamble_is_no_answer(answer: Answer) -> None:
    output = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant" + REASONED
    assert answer(output, Settings(max_tokens_before_final=6))["finish_reason"] == "length"


def test_what_the_prompt_says(llama: Any) -> None:
    said = Settings(model_identity="I am Ada.", knowledge_cutoff="none", current_date="2026-01-31")
    prompt = HarmonyChatHandler.of(said).prompt(llama, messages=[USER])
    assert prompt[: len(ids_of("<|start|>system<|message|>I am Ada.\n"))] == ids_of(
        "<|start|>system<|message|>I am Ada.\n"
    )
    assert HarmonyChatHandler.of(Settings(current_date="none")).prompt(llama, messages=[USER]) != prompt


def test_debugging(answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "harmony_plugin.replies"):
        message = answer(MALFORMED, Settings(debug=True), request_id="req_1")["message"]
    issues = [{"code": code, "offset": 5, "text": "", "unit": "tokens"} for code in ("missing_end", "missing_start")]
    assert message["harmony"] == {"issues": issues, "channels": {"analysis": 1, "final": 1}}
    whole, streamed = (
        json.loads(record.getMessage().removeprefix("reply "))
        for record in caplog.records
        if record.name == "harmony_plugin.replies"
    )
    for line in (whole, streamed):
        assert line.pop("microseconds") > 0
        assert line.pop("model")
    assert whole == streamed
    assert whole == {
        "id": "req_1",
        "tokens": 11,
        "messages": [
            {"channel": "analysis", "recipient": None, "characters": 6, "complete": False},
            {"channel": "final", "recipient": None, "characters": 6, "complete": True},
        ],
        "issues": [{"code": "missing_end", "offset": 5}, {"code": "missing_start", "offset": 5}],
    }
    assert "Think" not in caplog.text
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "harmony_plugin.replies"):
        answer(MALFORMED, Settings(debug=True, debug_content=True))
    assert '"text": "Think."' in caplog.text


def test_for_one_request(answer: Answer) -> None:
    choice = answer(CALL, Settings(), tools=TOOLS, harmony={"output": "final_plus_tools_text"})
    assert choice["message"]["content"] == 'f({"a": 1})'
    with pytest.raises(RequestError, match=r"chat_template_kwargs\.harmony has no tone; it takes commentary"):
        answer(CALL, Settings(), harmony={"tone": "kind"})
    with pytest.raises(RequestError, match="it is one of 'content', 'reasoning', 'drop'"):
        answer(CALL, Settings(), harmony={"commentary": "nowhere"})
    budget = answer(REASONED, Settings(), harmony={"max_reasoning_tokens": 1})
    assert budget["message"]["reasoning"] == "Think"


def test_renamed_markers_that_the_vocabulary_lacks(llama: Any) -> None:
    from harmony_plugin.llamacpp.handler import Model

    settings = Settings(markers={"start": "<|im_start|>"})
    handler = HarmonyChatHandler.of(settings)
    with pytest.raises(ValueError, match=r"it has no token for <\|im_start\|>"):
        Model._read(
            Model.of(llama, handler.prompts).engine, handler.prompts.encode, None, handler.options.dialect.markers
        )


def test_the_chat_format_reads_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import harmony_plugin.llamacpp as adapter

    monkeypatch.setenv("HARMONY_COMMENTARY", "drop")
    adapter._from_environment.cache_clear()
    assert adapter._from_environment().options.commentary == "drop"
    adapter._from_environment.cache_clear()
