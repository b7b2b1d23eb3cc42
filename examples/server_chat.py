"""A chat in the terminal: replies as they come, the reasoning dimmed.

    python -m harmony_plugin.llamacpp --model gpt-oss-20b.gguf        # or vllm serve, see server_tool_loop.py
    python examples/server_chat.py "What is 2 + 2?" "And 3 more?"     # without arguments it asks you

`OPENAI_BASE_URL` and `OPENAI_API_KEY` point it at a server elsewhere.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)
model = client.models.list().data[0].id


def questions() -> Iterator[str]:
    if len(sys.argv) > 1:
        yield from sys.argv[1:]
        return
    try:
        while True:
            yield input("> ")
    except EOFError:
        return


messages: list[Any] = []
for question in questions():
    messages.append({"role": "user", "content": question})
    answer = ""
    for chunk in client.chat.completions.create(model=model, messages=messages, stream=True):
        for choice in chunk.choices:
            # No field of OpenAI's own API, so the client has no name for it.
            thought = getattr(choice.delta, "reasoning_content", None)
            if thought:
                print(f"\033[2m{thought}\033[0m", end="", flush=True)
            if choice.delta.content:
                if not answer:
                    print()
                answer += choice.delta.content
                print(choice.delta.content, end="", flush=True)
    print("\n")
    # Reasoning need not go back: the model is shown it only until its turn has an answer.
    messages.append({"role": "assistant", "content": answer})
