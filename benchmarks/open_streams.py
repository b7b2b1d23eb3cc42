"""Many open streams in one process, a token for each in turn, as an API server splits them: CPU time, and memory.

Each stream is `harmony_plugin.Stream`, as the vLLM plugin has one for each reply, in the middle of a reply of
well-formed reasoning and answer. Other than in `benchmarks/core.py`, every token comes to another stream, so that what
a stream holds has left the processor's caches by its next one. CPU time of the process, so that a busy machine tells
about the same.

    python benchmarks/open_streams.py [--streams 1 1000 10000 100000] [--tokens 200]
"""

from __future__ import annotations

import argparse
import gc
import os
import time

import psutil

from harmony_plugin import Stream
from harmony_plugin.core import harmony_encoding

SENTENCE = " The sun came out over Rome, and by noon it was 31 degrees in the shade."


def script(tokens: int) -> list[int]:
    """Half reasoning, half answer, not ended."""
    encode = harmony_encoding().encode
    half = encode(SENTENCE * (tokens // 20 + 1), disallowed_special=())[: tokens // 2]
    head = encode("<|channel|>analysis<|message|>", allowed_special="all")
    middle = encode("<|end|><|start|>assistant<|channel|>final<|message|>", allowed_special="all")
    return [*head, *half, *middle, *half]


def measure(count: int, ids: list[int]) -> tuple[float, float]:
    """CPU microseconds a token, and KiB a stream."""
    process = psutil.Process(os.getpid())
    gc.collect()
    before = process.memory_info().rss
    streams = [Stream() for _ in range(count)]
    began = time.process_time()
    for token in ids:
        for stream in streams:
            stream.feed((token,))
    spent = time.process_time() - began
    return spent / (count * len(ids)) * 1e6, (process.memory_info().rss - before) / count / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 1_000, 10_000, 100_000])
    parser.add_argument("--tokens", type=int, default=200)
    arguments = parser.parse_args()
    ids = script(arguments.tokens)
    measure(100, ids)  # warm
    print("| open streams | CPU, µs a token | tokens a second of one core | memory, KiB a stream |")
    print("| --- | --- | --- | --- |")
    for count in arguments.streams:
        many = ids * (1 if count > 1 else 50)
        cost, memory = measure(count, many)
        shown = f"{memory:.1f}" if count >= 1_000 else ""
        print(f"| {count:,} | {cost:.2f} | {1e6 / cost:,.0f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
