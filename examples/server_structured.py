"""An answer that is held to a schema while it is sampled, and comes back as an object.

    python -m harmony_plugin.llamacpp --model gpt-oss-20b.gguf        # or vllm serve, see server_tool_loop.py
    python examples/server_structured.py "Ada Lovelace was born in London in 1815."

`OPENAI_BASE_URL` and `OPENAI_API_KEY` point it at a server elsewhere.
"""

import os
import sys

from openai import OpenAI
from pydantic import BaseModel

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)


class Person(BaseModel):
    name: str
    birthplace: str | None
    birth_year: int | None


text = sys.argv[1] if len(sys.argv) > 1 else "Ada Lovelace was born in London in 1815."
completion = client.chat.completions.parse(
    model=client.models.list().data[0].id,
    messages=[
        {"role": "system", "content": "Find out about the person. What the text does not say is null."},
        {"role": "user", "content": text},
    ],
    response_format=Person,
)
person = completion.choices[0].message.parsed
print(repr(person))
