"""Soaks a real `vllm serve` with the plugin: rounds of 64 streams on three APIs, a third hung up on mid-way.

Prints, a round at a time, how many replies were exact and what memory the API server holds; exits 1 if a reply was
wrong, the log tells of an error, or a request is left behind.

    .venv/bin/python benchmarks/vllm_load.py --rounds 10 --streams 64
    .venv/bin/python benchmarks/vllm_load.py --kind llama -- --data-parallel-size 2    # more flags for vllm serve
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "rigs"))

from vllm_rig.load import api_memory, complaints, run_round, unfinished
from vllm_rig.replies import Clients
from vllm_rig.server import Launch, Server, running

MIB = 2**20


async def soak(server: Server, rounds: int, streams: int) -> bool:
    """Run the rounds; whether every reply was right."""
    good = True
    print("| round | exact | hung up on | wrong | API server, MiB | seconds |\n| --- | --- | --- | --- | --- | --- |")
    async with Clients(server.url) as clients:
        for number in range(1, rounds + 1):
            started = time.monotonic()
            seen = await run_round(clients, number, streams)
            spent = time.monotonic() - started
            memory = api_memory(server) / MIB
            print(
                f"| {number} | {seen.exact} | {seen.left} | {len(seen.wrong)} | {memory:.1f} | {spent:.1f} |",
                flush=True,
            )
            for text in seen.wrong[:5]:
                print("  " + text, file=sys.stderr)
            good = good and not seen.wrong
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--kind", choices=("gpt_oss", "llama"), default="gpt_oss", help="the tiny model's type")
    parser.add_argument("flags", nargs="*", help="more flags for vllm serve, behind --")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as logs,
        running(Launch(kind=arguments.kind, flags=tuple(arguments.flags)), Path(logs) / "server.log") as server,
    ):
        good = asyncio.run(soak(server, arguments.rounds, arguments.streams))
        deadline = time.monotonic() + 30
        while unfinished(server.url) and time.monotonic() < deadline:
            time.sleep(0.2)
        left_behind = unfinished(server.url)
        errors = complaints(server.log_text())
    print(f"\nrequests left behind: {left_behind}; lines of error in the log: {len(errors)}")
    for line in errors[:20]:
        print("  " + line, file=sys.stderr)
    return 0 if good and not left_behind and not errors else 1


if __name__ == "__main__":
    sys.exit(main())
