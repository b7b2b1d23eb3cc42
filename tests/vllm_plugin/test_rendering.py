"""Prompts of `harmony_plugin.prompts` where vLLM makes its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harmony_plugin.prompts import PromptOptions, render_prompt
from harmony_plugin.vllm import seams

from .asking import chat

CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"at": "the sky"}'}}
MESSAGES: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "up?"}]},
    {"role": "assistant", "content": "I look.", "reasoning_content": "Better look.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": "Stars."},
]


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The ids that vLLM's renderer makes of a chat request, with the plugin's prompts in the place of its own."""
    from vllm import envs
    from vllm.renderers.online_renderer import OnlineRenderer

    from harmony_plugin.vllm.rendering import on_chat_prompts

    monkeypatch.setattr(envs, "VLLM_SYSTEM_START_DATE", "2026-01-02", raising=False)
    make = on_chat_prompts(OnlineRenderer._make_request_with_harmony)
    efforts = {"minimal": "high"}  # newer releases have a flag for it
    renderer = SimpleNamespace(
        supports_browsing=False, supports_code_interpreter=False, renderer=None, reasoning_effort_map=efforts
    )

    def render(request: Any, *given: Any) -> Any:
        (made,) = make(renderer, request, *given)[1]
        return made["prompt_token_ids"]

    return render


def test_a_conversation_with_a_tool(rendered: Any) -> None:
    request = chat(["look"], messages=MESSAGES, reasoning_effort="high")
    tools = [tool.model_dump(exclude_none=True) for tool in request.tools]
    expected = render_prompt(
        MESSAGES, tools=tools, reasoning_effort="high", options=PromptOptions(current_date="2026-01-02")
    )
    assert rendered(request) == expected
    without = chat(["look"], messages=MESSAGES[:2])
    assert rendered(without, False) == render_prompt(MESSAGES[:2], options=PromptOptions(current_date="2026-01-02"))


def test_what_cannot_be_rendered_is_the_clients_mistake(rendered: Any) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    request = chat(messages=[{"role": "user", "content": [picture]}])
    with pytest.raises(seams.load().ValidationError, match=r"messages\[0\]"):
        rendered(request)
