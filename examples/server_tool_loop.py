"""A streamed tool loop over `/v1/chat/completions`: the client runs the tools, and keeps the conversation.

    vllm serve openai/gpt-oss-20b --reasoning-parser harmony --tool-call-parser harmony --enable-auto-tool-choice
    python examples/server_tool_loop.py      # or python -m harmony_plugin.llamacpp --model gpt-oss-20b.gguf

`OPENAI_BASE_URL` and `OPENAI_API_KEY` point it at a server elsewhere.
"""

import json
import os
from typing import Any

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)
model = client.models.list().data[0].id
city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
tools: list[Any] = [{"type": "function", "function": {"name": "get_weather", "parameters": city}}]


def stream_reply(messages: list[Any]) -> dict[str, Any]:
    """Print one reply as it comes; give it back as the assistant message for the next request."""
    reasoning, content = "", ""
    calls: list[dict[str, Any]] = []
    for chunk in client.chat.completions.create(model=model, messages=messages, tools=tools, stream=True):
        for choice in chunk.choices:
            thought = getattr(choice.delta, "reasoning_content", None) or ""
            print(thought + (choice.delta.content or ""), end="", flush=True)
            reasoning += thought
            content += choice.delta.content or ""
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


conversation: list[Any] = [{"role": "user", "content": "Do I need an umbrella in Rome?"}]
while conversation[-1]["role"] != "assistant":
    reply = stream_reply(conversation)
    conversation.append(reply)
    for call in reply.get("tool_calls", ()):
        print("call:", call["function"])
        result = json.dumps({"sky": "clear", "celsius": 21})
        conversation.append({"role": "tool", "tool_call_id": call["id"], "content": result})
