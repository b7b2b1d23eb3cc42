"""What the chat handler costs a token beside llama.cpp's own work, for one reply and for many at once, and what stock
`create_completion(stream=True)` costs over `Llama.generate`.

Real decode loop on a tiny model that talks (see `talking_model`), one thread. The scheduler counts the seconds that it
spends in llama.cpp, on masks and draws, and on splitting; the rest of a run is its own bookkeeping, the chunks that a
stream is written as (JSON included), and the clock's noise. Process time, best of a few runs where runs are short.

    python benchmarks/llamacpp_overhead.py [--tokens 250 1000 4000 16000] [--replies 1 16]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import llama_cpp
import talking_model

from harmony_plugin.llamacpp import HarmonyChatHandler
from harmony_plugin.llamacpp.engine import context_defaults
from harmony_plugin.llamacpp.handler import Serving
from harmony_plugin.llamacpp.scheduler import Counters, Scheduler

SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
STOCK_MOST = 4_000  # stock streaming slows down with its length: beyond this it only costs patience
clock = time.perf_counter


class Timed:
    """Stands in front of `llama.generate`, and adds up the time that its generators take."""

    def __init__(self, llama: Any) -> None:
        self.spent = 0.0
        self._generate = llama.generate
        llama.generate = self

    def __call__(self, *args: Any, **kwargs: Any) -> Iterator[int]:
        tokens = self._generate(*args, **kwargs)
        try:
            while True:
                begin = clock()
                token = next(tokens)
                self.spent += clock() - begin
                yield token
        finally:
            tokens.close()


class Handled:
    """Replies of the handler, as streams."""

    def __init__(self, llama: Any, replies: int) -> None:
        self.llama = llama
        self._handler = HarmonyChatHandler()
        self._scheduler: Scheduler = self._handler.prepare(llama, Serving(replies))

    def run(self, replies: int, tokens: int, headers: str) -> tuple[float, float, float]:
        """Milliseconds a token: masks and draws, splitting, and all else but llama.cpp."""
        before = Counters(*astuple(self._scheduler.counters))
        ended: list[BaseException | None] = []
        begin = clock()
        for number in range(replies):
            choices = self._handler.replies(
                llama=self.llama,
                messages=[{"role": "user", "content": f"hi {number}"}],
                seed=number,
                max_tokens=tokens,
                headers=headers,
            )
            writer = choices.writer()

            def write(piece: Any, writer: Any = writer) -> None:
                for chunk in writer.feed(piece):
                    json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode()

            choices.run(write, ended.append)
        while len(ended) < replies:
            self._scheduler.step()
        whole = clock() - begin
        after = self._scheduler.counters
        count = after.generated - before.generated
        sampling, splitting = after.sampling - before.sampling, after.splitting - before.splitting
        rest = whole - (after.decoding - before.decoding) - sampling - splitting
        return sampling * 1e3 / count, splitting * 1e3 / count, rest * 1e3 / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[250, 1000, 4000, 16000])
    parser.add_argument("--replies", type=int, nargs="+", default=[1, 16])
    arguments = parser.parse_args()
    most = max(arguments.tokens)
    model = str(talking_model.build())

    def load(context: int) -> Any:
        return llama_cpp.Llama(model, n_ctx=context, n_threads=1, n_threads_batch=1, verbose=False)

    print(f"{'ms a token, after':44}" + "".join(f"{count:>24}" for count in arguments.tokens) + "   tokens")
    for replies in arguments.replies:
        with context_defaults(n_seq_max=Serving(replies).sequences, kv_unified=True, swa_full=False):
            llama = load(replies * (most // replies + 512))
        handled = Handled(llama, replies)
        handled.run(1, 300, "constrain")  # ids cost more when they are met for the first time, once a model
        for headers in ("free", "constrain"):
            cells = []
            for count in arguments.tokens:
                runs = [handled.run(replies, count // replies, headers) for _ in range(max(1, min(5, 4_000 // count)))]
                cells.append(" + ".join(f"{part:.3f}" for part in min(runs, key=sum)))
            name = f"{replies} at once, headers {headers}" if replies > 1 else f"one reply, headers {headers}"
            print(f"{name:44}" + "".join(f"{cell:>24}" for cell in cells), flush=True)
        llama.close()
    llama, cells = load(min(most, STOCK_MOST) + 512), []
    timed = Timed(llama)
    prompt = HarmonyChatHandler().prompt(llama, messages=[{"role": "user", "content": "hi"}])
    for count in arguments.tokens:
        if count > STOCK_MOST:
            cells.append("-")
            continue
        timed.spent, begin = 0.0, clock()
        for _ in llama.create_completion(prompt, max_tokens=count, stream=True, seed=1, **SAMPLING):
            pass
        cells.append(f"{(clock() - begin - timed.spent) * 1e3 / count:.3f}")
    print(f"{'stock create_completion, over generate':44}" + "".join(f"{cell:>24}" for cell in cells))
    print("the handler: masks and draws + splitting + chunks and all else; of 16 at once, tokens are those of all")


if __name__ == "__main__":
    main()
