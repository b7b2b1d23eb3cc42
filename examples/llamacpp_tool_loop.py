"""gpt-oss in plain Python on llama-cpp-python, no server: reasoning, a tool loop, arguments held to a schema.

pip install 'harmony-plugin[llamacpp]'
python examples/llamacpp_tool_loop.py gpt-oss-20b.gguf "Is it warmer in Rome or in Oslo?"
"""

from __future__ import annotations

import json
import sys
from typing import Any

from llama_cpp import Llama

from harmony_plugin.llamacpp import HarmonyChatHandler

WEATHER = {"Rome": 24, "Oslo": 9}
TOOL = {
    "name": "get_temperature",
    "description": "The temperature in a city now.",
    "strict": True,  # the arguments are held to the schema while they are sampled
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Its English name."}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def get_temperature(city: str) -> dict[str, Any]:
    return {"city": city, "celsius": WEATHER.get(city)}


def ask(llama: Llama, question: str, most_turns: int = 8) -> str | None:
    handler = HarmonyChatHandler()
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    request = {"tools": [{"type": "function", "function": TOOL}], "reasoning_effort": "low", "max_tokens": 1000}
    for _ in range(most_turns):
        message = handler(llama=llama, messages=messages, **request)["choices"][0]["message"]
        print(f"\033[2m{message['reasoning_content'] or ''}\033[0m")
        # The whole message goes back, reasoning included: inside a tool loop the model wants to see it.
        messages.append(message)
        if not message.get("tool_calls"):
            return message["content"]
        for call in message["tool_calls"]:
            function = call["function"]
            try:
                result: Any = get_temperature(**json.loads(function["arguments"]))
            except Exception as error:  # the model reads what went wrong, and mends it
                result = {"error": str(error)}
            print(f"{function['name']}({function['arguments']}) -> {result}")
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)})
    return None


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    model = Llama(sys.argv[1], n_ctx=8192, n_gpu_layers=-1, verbose=False)
    print(ask(model, sys.argv[2] if len(sys.argv) > 2 else "Is it warmer in Rome or in Oslo?"))
