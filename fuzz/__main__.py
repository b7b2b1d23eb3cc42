"""`python -m fuzz`: run the fuzzers. Bounded, seeded, on all cores; the exit status is 1 if anything was found."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable

from . import differential, mutation, prose

#: name: (what checks one seed, tokens by default)
FUZZERS: dict[str, tuple[Callable[[int], tuple[int, str | None]], int]] = {
    "differential": (differential.check, 1_000_000),
    "mutation": (mutation.check_seed, 10_000_000),
    "prose": (prose.check_seed, 5_000_000),
}
QUICK = 40  # times fewer tokens
_SHOWN = 20


def _batch(job: tuple[str, int, int]) -> tuple[int, int, list[tuple[int, str]]]:
    """Seeds from ``first`` on: outputs, tokens, what was found."""
    name, first, size = job
    check = FUZZERS[name][0]
    tokens = 0
    found: list[tuple[int, str]] = []
    for seed in range(first, first + size):
        count, broken = check(seed)
        tokens += count
        if broken:
            found.append((seed, broken))
    return size, tokens, found


def run(name: str, tokens: int, seed: int, workers: int, say: Callable[[str], None] = print) -> list[tuple[int, str]]:
    """Run one fuzzer until it has read ``tokens`` tokens; what was found, as ``(seed, text)``."""
    begun = time.monotonic()
    outputs = read = 0
    found: list[tuple[int, str]] = []
    size = 50
    jobs = ((name, first, size) for first in range(seed, sys.maxsize, size))
    pool = multiprocessing.get_context("fork").Pool(workers) if workers > 1 else None
    try:
        # Batches are handed out a few at a time: imap would draw from the endless jobs as fast as it can.
        while read < tokens and len(found) < _SHOWN:
            batch = [next(jobs) for _ in range(4 * workers)]
            for count, size_read, broken in pool.imap(_batch, batch) if pool else map(_batch, batch):
                outputs += count
                read += size_read
                found += broken
    finally:
        if pool:
            pool.terminate()
    for number, broken in found[:_SHOWN]:
        say(f"{name}: seed {number}: {broken}")
    say(
        f"{name}: {read:,} tokens in {outputs:,} outputs, seeds {seed} to {seed + outputs - 1}, "
        f"{time.monotonic() - begun:.0f} s: {len(found) or 'nothing'} found"
    )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("fuzzer", choices=[*FUZZERS, "guided", "all"], nargs="?", default="all")
    parser.add_argument(
        "--tokens", type=int, help="tokens to read (differential: 1,000,000; mutation: 10,000,000; prose: 5,000,000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="a few seconds")
    parser.add_argument("--runs", type=int, help="guided: inputs to try, by ids and by text (200,000 each)")
    options = parser.parse_args()
    found = 0
    for name, (_, tokens) in FUZZERS.items():
        if options.fuzzer in (name, "all"):
            wanted = options.tokens or (tokens // QUICK if options.quick else tokens)
            found += len(run(name, wanted, options.seed, options.workers))
    if options.fuzzer in ("guided", "all"):
        from . import guided

        found += guided.run_all(options.runs or (5_000 if options.quick else 200_000), options.seed)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
