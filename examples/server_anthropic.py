"""gpt-oss through Anthropic's client: thinking, text and a tool call over `/v1/messages`.

    python -m harmony_plugin.llamacpp --model gpt-oss-20b.gguf
    python examples/server_anthropic.py

`ANTHROPIC_BASE_URL` and `ANTHROPIC_API_KEY` point it at a server elsewhere.
"""

import os

import anthropic

client = anthropic.Anthropic(
    base_url=os.environ.get("ANTHROPIC_BASE_URL", "http://localhost:8000"),
    api_key=os.environ.get("ANTHROPIC_API_KEY", "none"),
)
model = client.models.list().data[0].id
tools = [
    {
        "name": "get_weather",
        "description": "Current weather of a city.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
]
messages = [{"role": "user", "content": "What is the weather in Paris?"}]

while True:
    with client.messages.stream(model=model, max_tokens=2000, messages=messages, tools=tools) as stream:
        for event in stream:
            if event.type in ("thinking", "text"):
                print(getattr(event, event.type), end="", flush=True)
            elif event.type == "content_block_stop":
                print()
        reply = stream.get_final_message()
    messages.append({"role": "assistant", "content": reply.content})
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": f"21 C in {block.input.get('city')}"}
        for block in reply.content
        if block.type == "tool_use"
    ]
    if not results:
        break
    messages.append({"role": "user", "content": results})
