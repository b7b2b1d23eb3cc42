"""Ids in, ids out: Harmony is built and split here, vLLM makes the tokens. Works on its Rust front end, too.

vllm serve openai/gpt-oss-20b --enable-scale-out
python examples/vllm_token_route.py http://127.0.0.1:8000 "What is 2 + 2?"
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import httpx

from harmony_plugin import Stream
from harmony_plugin.prompts import render_prompt


def chunks(url: str, model: str, prompt: list[int]) -> Iterator[list[int]]:
    """The generated ids, as vLLM sends them."""
    sampling = {"max_tokens": 2000, "temperature": 1.0}
    body = {"model": model, "token_ids": prompt, "stream": True, "sampling_params": sampling}
    with httpx.stream("POST", f"{url}/inference/v1/generate", json=body, timeout=600) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                yield from (choice["token_ids"] for choice in json.loads(line[6:])["choices"] if choice["token_ids"])


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    question = sys.argv[2] if len(sys.argv) > 2 else "What is 2 + 2?"
    model = httpx.get(f"{url}/v1/models").raise_for_status().json()["data"][0]["id"]
    prompt = render_prompt([{"role": "user", "content": question}])
    stream = Stream(prompt)
    for delta in stream.deltas(chunks(url, model, prompt)):
        print((delta.reasoning_content or "") + (delta.content or ""), end="", flush=True)
    print(f"\n{stream.reasoning_tokens} tokens of reasoning, {len(stream.issues)} issues")


if __name__ == "__main__":
    main()
