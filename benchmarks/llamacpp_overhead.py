"""What the chat handler costs a token over `Llama.generate`, beside stock `create_completion(stream=True)`.

Real decode loop on a tiny model that talks (see `talking_model`), one thread. The engine's generator is timed from
outside; what a run spends beyond it is its own cost: the difference of two long runs would drown in the machine's
noise. Masks run inside the engine's loop: their time is taken there, and added. CPU time, best of a few runs where
runs are short.

    python benchmarks/llamacpp_overhead.py [--tokens 250 1000 4000 16000]
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import llama_cpp
import talking_model

from harmony_plugin.llamacpp import HarmonyChatHandler, engine

SAMPLING: dict[str, Any] = {"temp": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
MESSAGES = [{"role": "user", "content": "hi"}]
STOCK_MOST = 4_000  # stock streaming slows down with its length: beyond this it only costs patience
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


class Masks:
    """Stands in front of the masks that are applied in Python, and adds up their time."""

    def __init__(self) -> None:
        self.spent = 0.0
        self.calls = 0
        for owner, name in ((engine.Shortcut, "_apply"), (engine.Processors, "_run")):
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            begin = clock()
            result = apply(*args)
            self.spent += clock() - begin
            self.calls += 1
            return result

        return run


def native_mask_cost(size: int) -> float:
    """Seconds a token for llama.cpp's own sampler that forbids the special ids, which free text is left to."""
    rows = (llama_cpp.llama_token_data * size)()
    for token, row in enumerate(rows):
        row.id = token
    candidates = llama_cpp.llama_token_data_array(data=rows, size=size, selected=-1, sorted=False)
    forbidden = [llama_cpp.llama_logit_bias(token, float("-inf")) for token in range(199_998, size)]
    biases = (llama_cpp.llama_logit_bias * len(forbidden))(*forbidden)
    sampler = llama_cpp.llama_sampler_init_logit_bias(size, len(biases), biases)
    best = float("inf")
    for _ in range(20):
        begin = clock()
        for _ in range(100):
            llama_cpp.llama_sampler_apply(sampler, ctypes.byref(candidates))
        best = min(best, (clock() - begin) / 100)
    llama_cpp.llama_sampler_free(sampler)
    return best


class Meter:
    """What a reply costs beside the engine."""

    def __init__(self, llama: Any) -> None:
        self.engine, self.masks = Timed(llama), Masks()
        self.native = native_mask_cost(llama.n_vocab())
        self.decode = 0.0
        self.asked: dict[int, int] = {}

    def own_cost(self, run: Callable[[int], None], count: int) -> float:
        """Seconds a token that are not the engine's: the best of some turns."""
        engine, masks = self.engine, self.masks
        best = float("inf")
        for _ in range(max(1, min(5, 4_000 // count))):
            engine.spent, engine.tokens, masks.spent, masks.calls = 0.0, 0, 0.0, 0
            begin = clock()
            run(count)
            own = clock() - begin - engine.spent + masks.spent
            assert engine.tokens >= count, "the model stopped talking"
            if masks.calls:
                own += self.native * (count - masks.calls)
                self.asked[count] = masks.calls
            best = min(best, own / count)
            self.decode = engine.spent / count
        return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[250, 1000, 4000, 16000])
    arguments = parser.parse_args()
    llama = llama_cpp.Llama(
        str(talking_model.build()), n_ctx=max(arguments.tokens) + 512, n_threads=1, n_threads_batch=1, verbose=False
    )
    handler = HarmonyChatHandler()
    prompt = handler.prompt(llama, messages=MESSAGES)
    meter = Meter(llama)

    def handled(count: int, headers: str) -> None:
        for _ in handler(llama=llama, messages=MESSAGES, stream=True, seed=1, max_tokens=count, headers=headers):
            pass

    def stock(count: int) -> None:
        sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
        for _ in llama.create_completion(prompt, max_tokens=count, stream=True, seed=1, **sampling):
            pass

    def bare(count: int) -> None:
        for _ in itertools.islice(llama.generate(prompt, **SAMPLING), count):
            pass

    rows: dict[str, Callable[[int], None]] = {
        "bare loop (the clock's own cost)": bare,
        "handler, headers free": lambda count: handled(count, "free"),
        "handler, headers constrained": lambda count: handled(count, "constrain"),
        "stock create_completion": stock,
    }
    for headers in ("free", "constrain"):
        handled(max(arguments.tokens), headers)  # ids cost more when they are met for the first time, once a model
    print(f"{'own CPU ms a token, after':32}" + "".join(f"{count:>9}" for count in arguments.tokens) + "   tokens")
    for name, run in rows.items():
        cells = []
        for count in arguments.tokens:
            left_out = run is stock and count > STOCK_MOST
            cells.append(f"{'-':>9}" if left_out else f"{meter.own_cost(run, count) * 1e3:9.4f}")
        print(f"{name:32}{''.join(cells)}", flush=True)
    asked = ", ".join(f"{calls} of {count}" for count, calls in meter.asked.items())
    print(f"for scale: the engine takes {meter.decode * 1e3:.1f} ms a token. Of the constrained ids, masks were asked")
    print(f"for {asked}; the others are left to llama.cpp's own,")
    print(f"{meter.native * 1e3:.4f} ms each, which is in the figures")


if __name__ == "__main__":
    main()
