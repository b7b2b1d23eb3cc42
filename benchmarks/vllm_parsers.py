"""Benchmark: this plugin's parser beside vLLM's own for gpt-oss, in one process and run.

``parse_delta`` is fed token by token, as a stream is; ``parse`` gets the whole reply. Both make vLLM's own messages.
Each figure is CPU time, the best of several runs after one warm-up. Prints a table with the ratios; exits 1 where one
misses its target.

    python benchmarks/vllm_parsers.py [--lengths 1000 10000 40000] [--runs 3]
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from typing import Any

# Target ratios: (parse_delta, parse) by reply length in tokens.
TARGETS = {1_000: (5.0, 50.0), 40_000: (25.0, 500.0)}


def reply(encoding: Any, length: int) -> list[int]:
    """A well-formed reply of ``length`` tokens: half reasoning, half answer, in ordinary words."""
    words = "the quick brown fox jumps over a lazy dog and counts to 42, then it writes code: x = f(y) + 1".split()  # noqa: SIM905
    chance = random.Random(7)
    text = encoding.encode(" " + " ".join(chance.choice(words) for _ in range(length)), allowed_special="all")
    half = length // 2
    head = encoding.encode("<|channel|>analysis<|message|>", allowed_special="all")
    middle = encoding.encode("<|end|><|start|>assistant<|channel|>final<|message|>", allowed_special="all")
    end = encoding.encode("<|return|>", allowed_special="all")
    body = length - len(head) - len(middle) - len(end)
    return head + text[: half - len(head)] + middle + text[half : half + body - (half - len(head))] + end


def machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    python = platform.python_version()
    return f"{model or platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {python}"


def best(run: Callable[[], float], runs: int) -> float:
    gc.collect()
    run()
    return min(run() for _ in range(runs))


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--lengths", type=int, nargs="+", default=[1_000, 10_000, 40_000, 100_000])
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--json", action="store_true", help="figures as JSON")
    options = arguments.parse_args()

    logging.disable(logging.WARNING)
    from openai_harmony import HarmonyEncodingName, load_harmony_encoding
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.parser.harmony import HarmonyParser as Stock
    from vllm.reasoning.gptoss_reasoning_parser import GptOssReasoningParser
    from vllm.tool_parsers.gptoss_tool_parser import GptOssToolParser

    encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    tokenizer = O200k()
    from harmony_plugin.vllm.parsers import HarmonyParser, HarmonyReasoningParser, HarmonyToolParser

    class StockParser(Stock):  # type: ignore[misc]
        reasoning_parser_cls, tool_parser_cls = GptOssReasoningParser, GptOssToolParser

    class PluginParser(HarmonyParser):
        reasoning_parser_cls, tool_parser_cls = HarmonyReasoningParser, HarmonyToolParser

    request = ChatCompletionRequest(model="gpt-oss", messages=[{"role": "user", "content": "Go on."}])
    prompt = encoding.encode("<|start|>user<|message|>Go on.<|end|><|start|>assistant", allowed_special="all")

    def stream(parser_class: Any, ids: list[int]) -> float:
        parser = parser_class(tokenizer, None)
        last = len(ids) - 1
        begin = time.thread_time()
        for place, token in enumerate(ids):
            parser.parse_delta("", [token], request, prompt, finished=place == last)
        return time.thread_time() - begin

    def whole(parser_class: Any, ids: list[int]) -> float:
        parser = parser_class(tokenizer, None)
        begin = time.thread_time()
        parser.parse("", request, model_output_token_ids=ids)
        return time.thread_time() - begin

    if not options.json:
        print("| reply (tokens) | call | vLLM's parser (us/token) | harmony-plugin (us/token) | ratio |")
        print("| ---: | --- | ---: | ---: | ---: |")
    missed = False
    rows = []
    for length in options.lengths:
        ids = reply(encoding, length)
        assert len(ids) == length
        same(StockParser, PluginParser, tokenizer, request, ids)
        for place, (name, run) in enumerate((("parse_delta", stream), ("parse", whole))):
            # A long stock run is steady, and slow: once is enough.
            runs = max(options.runs, 20_000 // length)
            stock = best(lambda: run(StockParser, ids), 1 if length > 20_000 else runs)  # noqa: B023
            plugin = best(lambda: run(PluginParser, ids), runs)  # noqa: B023
            target = TARGETS.get(length, (0.0, 0.0))[place]
            missed |= stock / plugin < target
            note = f" (target {target:g})" if target else ""
            each = [round(seconds / length * 1e6, 4) for seconds in (plugin, stock)]
            rows.append({"way": name, "length": length, "ours_us": each[0], "peer_us": each[1]})
            if options.json:
                continue
            print(
                f"| {length:,} | {name} | {stock / length * 1e6:.2f} | {plugin / length * 1e6:.3f} "
                f"| {stock / plugin:.1f}x{note} |",
                flush=True,
            )
    if options.json:
        print(json.dumps({"machine": machine(), "rows": rows}))
        return 0
    return int(missed)


def same(stock: Any, plugin: Any, tokenizer: Any, request: Any, ids: list[int]) -> None:
    """Both give the same reply: else there is nothing to compare."""
    ours = plugin(tokenizer, None).parse("", request, model_output_token_ids=ids)
    if ours != stock(tokenizer, None).parse("", request, model_output_token_ids=ids):
        raise SystemExit("the two parsers disagree about this reply")


class O200k:
    """What the parsers read of a tokenizer: gpt-oss's vocabulary, from the Harmony library."""

    all_special_ids: tuple[int, ...] = ()

    def get_vocab(self) -> dict[str, int]:
        from harmony_plugin import Dialect

        dialect = Dialect()
        vocabulary = {f"token {number}": number for number in range(200_000)}
        return vocabulary | {dialect.markers[kind]: token for kind, token in dialect.ids.items()}


if __name__ == "__main__":
    sys.exit(main())
