"""A tool loop over `/v1/responses`: the server keeps the history, the client sends only what is new.

    python -m harmony_plugin.llamacpp --model gpt-oss-20b.gguf
    python examples/server_responses_agent.py

`OPENAI_BASE_URL` and `OPENAI_API_KEY` point it at a server elsewhere.
"""

import json
import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)
model = client.models.list().data[0].id
tools = [
    {
        "type": "function",
        "name": "get_weather",
        "description": "Current weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "strict": True,
    }
]


def get_weather(city: str) -> str:
    return json.dumps({"city": city, "temperature": 21, "unit": "C"})


new_items = [{"role": "user", "content": "What is the weather in Paris?"}]
previous = None
while new_items:
    with client.responses.stream(
        model=model, input=new_items, tools=tools, previous_response_id=previous, reasoning={"effort": "low"}
    ) as stream:
        for event in stream:
            if event.type in ("response.reasoning_text.delta", "response.output_text.delta"):
                print(event.delta, end="", flush=True)
            elif event.type in ("response.reasoning_text.done", "response.output_text.done"):
                print()
        reply = stream.get_final_response()
    previous = reply.id
    new_items = []
    for item in reply.output:
        if item.type == "function_call":
            print(f"-> {item.name}({item.arguments})")
            result = get_weather(**json.loads(item.arguments))
            new_items.append({"type": "function_call_output", "call_id": item.call_id, "output": result})
