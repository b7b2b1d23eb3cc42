"""What the chat handler costs a token over `Llama.generate`, beside stock `create_completion(stream=True)`.

Real decode loop on the tiny random model, one thread. The engine's generator is timed from outside; what a run spends
beyond it is its own cost: the difference of two long runs would drown in the machine's noise. Logits processors run in
the engine's loop; what calling one costs is measured apart and put to the run that brought it. CPU time. Sampling is
held to 4,000 ids, as many as real text reuses.

    python benchmarks/llamacpp_overhead.py [--tokens 250 1000 4000 16000]
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import llama_cpp

from harmony_plugin.demo.model import build_model
from harmony_plugin.llamacpp import HarmonyChatHandler

WORDS = slice(1_000, 5_000)
STOCK_MOST = 4_000  # stock streaming slows down with its length: beyond this it only costs patience
SAMPLING: dict[str, Any] = {"temp": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
MESSAGES = [{"role": "user", "content": "hi"}]
clock = time.process_time


class Timed:
    """Stands in front of `llama.generate`, and adds up the time that its generators take."""

    def __init__(self, llama: Any) -> None:
        self.spent = 0.0
        self.tokens = 0
        self._generate = llama.generate
        llama.generate = self

    def __call__(self, *args: Any, **kwargs: Any) -> Iterator[int]:
        tokens = self._generate(*args, **kwargs)
        try:
            while True:
                begin = clock()
                token = next(tokens)
                self.spent += clock() - begin
                self.tokens += 1
                yield token
        finally:
            tokens.close()


def words_only(input_ids: Any, scores: Any) -> Any:
    kept = scores[WORDS].copy()
    scores[:] = float("-inf")
    scores[WORDS] = kept
    return scores


def nothing(input_ids: Any, scores: Any) -> Any:
    return scores


def processor_cost(llama: Any, generate: Callable[..., Any], prompt: list[int]) -> float:
    """Seconds a token for calling a processor, engine's part included."""
    best = [float("inf"), float("inf")]
    for _ in range(8):
        for place, processors in enumerate((None, llama_cpp.LogitsProcessorList([nothing]))):
            tokens = generate(prompt, logits_processor=processors, **SAMPLING)
            next(tokens)
            begin = clock()
            for _ in itertools.islice(tokens, 60):
                pass
            best[place] = min(best[place], (clock() - begin) / 60)
            tokens.close()
    return max(best[1] - best[0], 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[250, 1000, 4000, 16000])
    arguments = parser.parse_args()
    llama = llama_cpp.Llama(
        str(build_model()), n_ctx=max(arguments.tokens) + 512, n_threads=1, n_threads_batch=1, verbose=False
    )
    handler = HarmonyChatHandler(logits_processors=lambda prompt, request: [words_only])
    prompt = handler.prompt(llama, messages=MESSAGES)
    mask = processor_cost(llama, llama.generate, prompt)
    engine = Timed(llama)

    def handled(count: int, headers: str) -> None:
        # A budget of 0 puts the final message's header in front: what follows is one long body.
        for _ in handler(
            llama=llama,
            messages=MESSAGES,
            stream=True,
            seed=1,
            max_tokens=count,
            max_reasoning_tokens=0,
            headers=headers,
        ):
            pass

    def stock(count: int) -> None:
        chunks = llama.create_completion(
            prompt,
            max_tokens=count,
            stream=True,
            seed=1,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            min_p=0.0,
            logits_processor=llama_cpp.LogitsProcessorList([words_only]),
        )
        for _ in chunks:
            pass

    def bare(count: int) -> None:
        processors = llama_cpp.LogitsProcessorList([words_only])
        for _ in itertools.islice(llama.generate(prompt, logits_processor=processors, **SAMPLING), count):
            pass

    rows: dict[str, tuple[Callable[[int], None], float]] = {
        "bare loop (the clock's own cost)": (bare, 0.0),
        "handler, headers free": (lambda count: handled(count, "free"), 0.0),
        "handler, headers constrained": (lambda count: handled(count, "constrain"), mask),
        "stock create_completion": (stock, 0.0),
    }
    handled(1_500, "free")  # ids cost more when they are met for the first time, once a model
    print(f"{'own CPU ms a token, after':32}" + "".join(f"{count:>9}" for count in arguments.tokens) + "   tokens")
    decode = 0.0
    for name, (run, extra) in rows.items():
        cells = []
        for count in arguments.tokens:
            if run is stock and count > STOCK_MOST:
                cells.append(f"{'-':>9}")
                continue
            engine.spent, engine.tokens = 0.0, 0
            begin = clock()
            run(count)
            own = (clock() - begin - engine.spent) / engine.tokens + extra
            decode = engine.spent / engine.tokens
            short = "" if engine.tokens > 0.9 * count else f" (ended at {engine.tokens})"
            cells.append(f"{own * 1e3:9.4f}{short}")
        print(f"{name:32}{''.join(cells)}", flush=True)
    print(
        f"for scale: the engine takes {decode * 1e3:.1f} ms a token. In row 2, {mask * 1e3:.3f} is for calling the mask"
    )


if __name__ == "__main__":
    main()
