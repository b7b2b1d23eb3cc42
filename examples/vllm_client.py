"""A streamed tool loop against `vllm serve` with this plugin, through OpenAI's client.

vllm serve openai/gpt-oss-20b --reasoning-parser harmony --tool-call-parser harmony --enable-auto-tool-choice
python examples/vllm_client.py http://127.0.0.1:8000/v1
"""

from __future__ import annotations

import json
import sys
from typing import Any

import openai

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def stream_reply(client: openai.OpenAI, model: str, messages: list[Any]) -> dict[str, Any]:
    """Print one reply as it comes; give it back as the assistant message for the next request."""
    reasoning, content = "", ""
    calls: list[dict[str, Any]] = []
    for chunk in client.chat.completions.create(model=model, messages=messages, tools=TOOLS, stream=True):
        for choice in chunk.choices:
            thought = getattr(choice.delta, "reasoning_content", None)
            if thought:
                reasoning += thought
                print(thought, end="", flush=True)
            if choice.delta.content:
                content += choice.delta.content
                print(choice.delta.content, end="", flush=True)
            for piece in choice.delta.tool_calls or ():
                assert piece.function is not None
                if piece.id:
                    function = {"name": piece.function.name, "arguments": ""}
                    calls.append({"id": piece.id, "type": "function", "function": function})
                calls[piece.index]["function"]["arguments"] += piece.function.arguments or ""
    print()
    # The reasoning goes back with the calls: gpt-oss goes on thinking from it.
    message: dict[str, Any] = {"role": "assistant", "content": content or None, "reasoning_content": reasoning}
    return message | ({"tool_calls": calls} if calls else {})


def main() -> None:
    client = openai.OpenAI(base_url=sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1", api_key="none")
    model = client.models.list().data[0].id
    messages: list[Any] = [{"role": "user", "content": "Do I need an umbrella in Rome?"}]
    for _ in range(4):
        message = stream_reply(client, model, messages)
        messages.append(message)
        if not message.get("tool_calls"):
            break
        for call in message["tool_calls"]:
            print("call:", call["function"])
            result = json.dumps({"sky": "clear", "celsius": 21})
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})


if __name__ == "__main__":
    main()
