"""Offline chat with vLLM: `LLM.chat` writes Harmony, `harmony_plugin.parse` splits it; a tool loop.

    python examples/vllm_offline_chat.py openai/gpt-oss-20b '{"max_model_len": 8192}'     # arguments of LLM, as JSON

`LLM.chat` gives back text without its markers, in which reasoning, calls and answer cannot be told apart; the token ids
still have them. Nothing of the plugin runs inside the engine here.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from vllm import LLM, SamplingParams

from harmony_plugin import Reply, parse

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "get_weather", "parameters": CITY}}]


def get_weather(city: str) -> str:
    return json.dumps({"city": city, "sky": "clear", "celsius": 21})


def ask(llm: LLM, messages: list[Any]) -> Reply:
    """One reply to the conversation, split."""
    (result,) = llm.chat(messages, SamplingParams(temperature=1.0, max_tokens=1000), tools=TOOLS, use_tqdm=False)
    output = result.outputs[0]
    reply = parse(output.token_ids, prompt=result.prompt_token_ids, tools=TOOLS)
    print("reasoning:", reply.reasoning_content)
    print("content:  ", reply.content)
    print("finish:   ", reply.finish_reason(cut=output.finish_reason == "length"))
    return reply


def main() -> None:
    llm = LLM(sys.argv[1], **json.loads(sys.argv[2] if len(sys.argv) > 2 else "{}"))
    messages: list[Any] = [{"role": "user", "content": "Do I need an umbrella in Rome?"}]
    for _ in range(4):
        reply = ask(llm, messages)
        if not reply.tool_calls:
            break
        # The chat template of gpt-oss reads earlier reasoning under the name `thinking`.
        messages.append({**reply.to_openai(), "thinking": reply.reasoning_content or ""})
        for call in reply.tool_calls:
            try:
                result = get_weather(**json.loads(call.arguments))
            except (TypeError, ValueError) as error:
                result = f"error: {error}"
            print("call:     ", call.name, call.arguments, "->", result)
            messages.append({"role": "tool", "tool_call_id": call.id, "name": call.name, "content": result})


if __name__ == "__main__":
    main()
