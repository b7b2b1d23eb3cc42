"""gpt-oss by transformers' own `generate`, its output split as it streams: reasoning dimmed, then the answer.

    pip install 'harmony-plugin[harmony]' torch transformers accelerate
    python examples/transformers_stream.py openai/gpt-oss-20b "What is 2 + 2?"

The prompt is built as token ids, so nothing that a user writes can forge a marker; no tokenizer is loaded.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.generation.streamers import BaseStreamer

from harmony_plugin import Delta, Reply, Stream
from harmony_plugin.prompts import render_prompt

ENDS = [200002, 200012, 199999]  # <|return|>, <|call|>, <|endoftext|>


class HarmonyStreamer(BaseStreamer):
    """What `generate(streamer=...)` hands over, split and printed."""

    def __init__(self) -> None:
        self.stream: Stream | None = None

    def put(self, value: torch.Tensor) -> None:
        ids = value.flatten().tolist()
        if self.stream is None:  # the prompt comes first
            self.stream = Stream(ids)
        else:
            self.show(self.stream.feed(ids))

    def end(self) -> None:
        if self.stream is not None:
            self.show(self.stream.finish())
            print()

    def show(self, delta: Delta) -> None:
        if delta.reasoning_content:
            print(f"\033[2m{delta.reasoning_content}\033[0m", end="", flush=True)
        print(delta.content or "", end="", flush=True)


def ask(model: Any, question: str, **settings: Any) -> Reply:
    prompt = torch.tensor([render_prompt([{"role": "user", "content": question}])], device=model.device)
    streamer = HarmonyStreamer()
    settings = {"max_new_tokens": 1000, "do_sample": True, "eos_token_id": ENDS, "pad_token_id": ENDS[-1]} | settings
    model.generate(prompt, attention_mask=torch.ones_like(prompt), streamer=streamer, **settings)
    assert streamer.stream is not None
    return streamer.stream.reply


if __name__ == "__main__":
    loaded = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto", device_map="auto")
    print(ask(loaded, sys.argv[2]).finish_reason())
