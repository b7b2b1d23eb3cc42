"""Offline chat with vLLM: `LLM.chat` writes Harmony, `harmony_plugin.parse` splits it; tools included.

    python examples/vllm_offline_chat.py openai/gpt-oss-20b

`LLM.chat` gives back text without its markers, in which reasoning, calls and answer cannot be told apart; the token ids
still have them. Nothing of the plugin runs inside the engine here.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from harmony_plugin import Reply, parse

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city, now.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


def get_weather(city: str) -> str:
    return json.dumps({"city": city, "sky": "clear", "celsius": 21})


def ask(llm: Any, messages: list[dict[str, Any]], max_tokens: int) -> Reply:
    """One reply to the conversation, split."""
    from vllm import SamplingParams

    (result,) = llm.chat(messages, SamplingParams(temperature=1.0, max_tokens=max_tokens), tools=TOOLS, use_tqdm=False)
    output = result.outputs[0]
    reply = parse(output.token_ids, prompt=result.prompt_token_ids, tools=TOOLS)
    print("reasoning:", reply.reasoning_content)
    print("content:  ", reply.content)
    print("finish:   ", reply.finish_reason(cut=output.finish_reason == "length"))
    return reply


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model")
    arguments.add_argument("--load-format", default="auto")
    arguments.add_argument("--max-tokens", type=int, default=1024)
    arguments.add_argument("--max-model-len", type=int, default=8192)
    arguments.add_argument("--enforce-eager", action="store_true", help="start sooner, run slower")
    options = arguments.parse_args()

    from vllm import LLM

    llm = LLM(
        options.model,
        load_format=options.load_format,
        max_model_len=options.max_model_len,
        enforce_eager=options.enforce_eager,
    )
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Do I need an umbrella in Rome?"}]
    for _ in range(4):
        reply = ask(llm, messages, options.max_tokens)
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
