"""A file of questions answered offline on llama-cpp-python: a line of JSON each, reasoning and answer apart.

    pip install 'harmony-plugin[llamacpp]'
    python examples/llamacpp_offline_batch.py gpt-oss-20b.gguf < questions.txt > replies.jsonl

One at a time, what their prompts share evaluated once. The server generates several at a time (`--n_parallel`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from llama_cpp import Llama

from harmony_plugin.llamacpp import HarmonyChatHandler, Usage

SYSTEM = "Answer in one sentence."


def replies(llama: Llama, questions: Iterable[str]) -> Iterator[dict[str, Any]]:
    handler = HarmonyChatHandler()
    for question in questions:
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
        counted: list[Usage] = []
        reply = handler(llama=llama, messages=messages, max_tokens=2000, seed=1, observe=counted.append)
        (choice,), (usage,) = reply["choices"], counted
        yield {
            "question": question,
            "reasoning": choice["message"]["reasoning_content"],
            "answer": choice["message"]["content"],
            "finish_reason": choice["finish_reason"],  # length: it was cut off
            "reasoning_tokens": usage.reasoning,
            "issues": usage.issues,  # what was malformed, and mended
        }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    model = Llama(sys.argv[1], n_ctx=8192, n_gpu_layers=-1, verbose=False)
    for reply in replies(model, filter(None, map(str.strip, sys.stdin))):
        print(json.dumps(reply, ensure_ascii=False), flush=True)
