"""CPU time of vLLM's API server per generated token: stock parsers against the plugin's, and no parser as the floor.

Real servers, one after the other, the same load on each: 16 streams at once of 2,000 tokens, well-formed reasoning and
answer. Measured is the CPU time (user and system) of the API server process alone; engine and clients are other
processes. The floor is what vLLM spends on HTTP, detokenising and JSON without splitting anything.

    .venv/bin/python benchmarks/vllm_server_cpu.py
    .venv/bin/python benchmarks/vllm_server_cpu.py --streams 4 --tokens 500 --rounds 1     # a quick look
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "e2e" / "vllm"))

from vllm_rig.replies import QUESTION, encode
from vllm_rig.server import MODEL, PARSERS, STOCK_PARSERS, Launch, Server, running

SERVERS = {"no parser": (), "stock": STOCK_PARSERS, "plugin": PARSERS}
SENTENCE = " The sun came out over Rome, and by noon it was 31 degrees in the shade."


def script(tokens: int) -> list[int]:
    """Half reasoning, half answer; exactly so many ids, the last `<|return|>`."""
    head = encode("<|channel|>analysis<|message|>")
    middle = encode("<|end|><|start|>assistant<|channel|>final<|message|>")
    sentence = encode(SENTENCE)
    half = (tokens - len(head) - len(middle) - 1) // 2
    rest = tokens - len(head) - len(middle) - 1 - half
    text = sentence * (tokens // len(sentence) + 1)
    return [*head, *text[:half], *middle, *text[:rest], *encode("<|return|>")]


async def one_stream(client: httpx.AsyncClient, ids: Sequence[int], api: str) -> int:
    """Read one streamed reply without looking into it; the number of bytes, so that an empty one is noticed."""
    body: dict[str, Any] = {"model": MODEL, "stream": True, "temperature": 0, "vllm_xargs": {"script": list(ids)}}
    if api == "responses":
        path, body = "/v1/responses", body | {"input": QUESTION[0]["content"], "max_output_tokens": len(ids) + 1}
    else:
        path, body = "/v1/chat/completions", body | {"messages": QUESTION, "max_completion_tokens": len(ids) + 1}
    size = 0
    async with client.stream("POST", path, json=body) as answer:
        answer.raise_for_status()
        async for piece in answer.aiter_raw():
            size += len(piece)
    return size


def cpu_seconds(server: Server) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in server.api_processes())


async def measure(server: Server, streams: int, tokens: int, rounds: int, api: str) -> list[float]:
    """Microseconds of API server CPU per generated token, one figure a round."""
    ids = script(tokens)
    figures = []
    limits = httpx.Limits(max_connections=streams)
    async with httpx.AsyncClient(base_url=server.url, timeout=900, limits=limits) as client:
        await asyncio.gather(*(one_stream(client, ids[:50], api) for _ in range(streams)))  # warm
        for _ in range(rounds):
            before, started = cpu_seconds(server), time.monotonic()
            sizes = await asyncio.gather(*(one_stream(client, ids, api) for _ in range(streams)))
            spent = cpu_seconds(server) - before
            assert min(sizes) > tokens, "a stream came out short"
            figures.append(spent / (streams * tokens) * 1e6)
            print(f"  {figures[-1]:.0f} us a token, {time.monotonic() - started:.0f} s", file=sys.stderr)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--api", choices=("chat", "responses"), default="chat")
    parser.add_argument("--json", action="store_true", help="figures as JSON instead of a table")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as logs:
        for name, parsers in SERVERS.items():
            print(f"starting vllm serve ({name}) ...", file=sys.stderr)
            launch = Launch(parsers=parsers, max_model_len=max(4096, arguments.tokens + 256))
            with running(launch, Path(logs) / f"{name}.log") as server:
                measured = measure(server, arguments.streams, arguments.tokens, arguments.rounds, arguments.api)
                figures[name] = statistics.median(asyncio.run(measured))
    if arguments.json:
        print(json.dumps(figures))
        return
    import vllm

    floor = figures["no parser"]
    print(
        f"vLLM {vllm.__version__}, {arguments.api}, {arguments.streams} streams of {arguments.tokens} tokens,"
        f" median of {arguments.rounds}\n"
    )
    print("| API server | CPU per token, us | of it for splitting, us |\n| --- | --- | --- |")
    for name, figure in figures.items():
        print(f"| {name} | {figure:.0f} | {figure - floor:.0f} |")
    print(f"\nstock : plugin = {figures['stock'] / figures['plugin']:.2f}")


if __name__ == "__main__":
    main()
