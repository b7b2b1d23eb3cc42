"""Every recorded reply, sampled token by token in the real server, gives the client what `parse` gives."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from llamacpp_rig import CALL, CASES, Seen, chat_tools, expected, ids_of


def request(case: dict[str, Any], **more: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Go on."}],
        "metadata": {"script": case["id"]},
        # Just the recorded tokens: a reply that was cut short stays cut short.
        "max_completion_tokens": len(ids_of(case)),
        **more,
    }
    if case.get("tools"):
        fields["tools"] = chat_tools(case["tools"])
    return fields


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_whole_and_streamed_replies_are_what_parse_gives(client: openai.OpenAI, case: dict[str, Any]) -> None:
    want = expected(case, past_calls=True)
    # true: generation goes on after <|call|>, as some recorded replies do.
    fields = request(case, parallel_tool_calls=True)
    whole = client.chat.completions.create(**fields)
    assert Seen.of_message(whole.choices[0]) == want
    streamed = list(client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
    assert Seen.of_chunks(streamed) == want
    for chunk in streamed[:-1]:
        assert chunk.usage is None
    assert streamed[-1].choices == []
    assert streamed[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert streamed[-1].usage.completion_tokens_details == whole.usage.completion_tokens_details


STOPPED = [case for case in CASES if CALL in ids_of(case)[:-1]]


@pytest.mark.parametrize("case", STOPPED, ids=[case["id"] for case in STOPPED])
def test_generation_ends_at_the_first_call_unless_asked_to_go_on(client: openai.OpenAI, case: dict[str, Any]) -> None:
    want = expected(case, past_calls=False)
    fields = request(case)
    assert Seen.of_message(client.chat.completions.create(**fields).choices[0]) == want
    assert Seen.of_chunks(client.chat.completions.create(**fields, stream=True)) == want
