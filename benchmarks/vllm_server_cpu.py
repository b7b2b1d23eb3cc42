"""CPU time of vLLM's API server per generated token: stock parsers against the plugin's, and no parser as the floor.

Three real servers side by side (some 13 GB), the same load on one after the other, round by round, so that what else
the machine does falls on all of them: 16 streams at once of 2,000 tokens, well-formed reasoning and answer. Measured is
the CPU time (user and system) of the API server process alone; engine and clients are other processes. The floor is
what vLLM spends on HTTP, detokenising and JSON without splitting anything.

    .venv/bin/python benchmarks/vllm_server_cpu.py
    .venv/bin/python benchmarks/vllm_server_cpu.py --streams 4 --tokens 500 --rounds 1     # a quick look
    .venv/bin/python benchmarks/vllm_server_cpu.py --recipe --tokens 4000                  # as recipes for gpt-oss say
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "rigs"))

from vllm_rig.replies import QUESTION, encode
from vllm_rig.server import MODEL, NGRAM, PARSERS, STOCK_PARSERS, Launch, Server, running

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


async def measure(server: Server, streams: int, ids: Sequence[int], api: str) -> float:
    """Microseconds of API server CPU per generated token, in one round."""
    limits = httpx.Limits(max_connections=streams)
    async with httpx.AsyncClient(base_url=server.url, timeout=900, limits=limits) as client:
        before = cpu_seconds(server)
        sizes = await asyncio.gather(*(one_stream(client, ids, api) for _ in range(streams)))
        spent = cpu_seconds(server) - before
    assert min(sizes) > len(ids), "a stream came out short"
    return spent / (streams * len(ids)) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--recipe", action="store_true", help="20 tokens to a delta and n-gram speculation")
    parser.add_argument("--api", choices=("chat", "responses"), default="chat")
    parser.add_argument(
        "--servers", nargs="+", choices=SERVERS, default=list(SERVERS), help="which; each takes some 4 GB"
    )
    parser.add_argument("--json", action="store_true", help="every figure as JSON instead of a table of medians")
    arguments = parser.parse_args()
    ids = script(arguments.tokens)
    figures: dict[str, list[float]] = {name: [] for name in arguments.servers}
    with contextlib.ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {}
        for name in arguments.servers:
            print(f"starting vllm serve ({name}) ...", file=sys.stderr)
            launch = Launch(parsers=SERVERS[name], max_model_len=max(4096, arguments.tokens + 256))
            if arguments.recipe:
                launch = replace(launch, flags=("--stream-interval", "20"), speculation=NGRAM)
            servers[name] = stack.enter_context(running(launch, logs / f"{name.replace(' ', '-')}.log"))
            asyncio.run(measure(servers[name], arguments.streams, ids[:100], arguments.api))  # warm
        for number in range(arguments.rounds):
            for name, server in servers.items():
                figures[name].append(asyncio.run(measure(server, arguments.streams, ids, arguments.api)))
                print(f"round {number + 1}: {name}: {figures[name][-1]:.0f} us a token", file=sys.stderr)
    if arguments.json:
        print(json.dumps(figures))
        return
    import vllm

    medians = {name: statistics.median(values) for name, values in figures.items()}
    floor = medians.get("no parser")
    print(
        f"vLLM {vllm.__version__}, {arguments.api}, {arguments.streams} streams of {arguments.tokens} tokens,"
        f" median of {arguments.rounds} rounds\n"
    )
    print("| parsers | API server CPU per token, us | least to most | over no parser, us |\n| --- | --- | --- | --- |")
    for name, values in figures.items():
        spread = f"{min(values):.0f} to {max(values):.0f}"
        over = "" if floor is None else f"{medians[name] - floor:.0f}"
        print(f"| {name} | {medians[name]:.0f} | {spread} | {over} |")
    if {"stock", "plugin"} <= medians.keys():
        print(f"\nstock : plugin = {medians['stock'] / medians['plugin']:.2f}")


if __name__ == "__main__":
    main()
