"""What holding headers to the format costs on a vLLM server: tokens a second of all streams, constrained over free.

One real server; the same streams of well-formed replies, free and constrained by turns, so that what else the machine
does falls on both. The tiny model's step is a fraction of a real one's, so a grammar's share of it is larger here.

    .venv/bin/python benchmarks/vllm_headers.py
    .venv/bin/python benchmarks/vllm_headers.py --streams 4 --tokens 200 --rounds 1     # a quick look
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "rigs"))

from vllm_rig.replies import QUESTION
from vllm_rig.server import MODEL, Launch, Server, running
from vllm_server_cpu import script


async def stream(client: httpx.AsyncClient, ids: Sequence[int], headers: str, tools: int) -> None:
    parameters = {"type": "object", "properties": {}}
    offered = [
        {"type": "function", "function": {"name": f"tool_{number}", "parameters": parameters}}
        for number in range(tools)
    ]
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": QUESTION,
        "stream": True,
        "temperature": 0,
        "max_completion_tokens": len(ids) + 1,
        "vllm_xargs": {"script": list(ids)},
        **({"tools": offered} if offered else {}),
        "chat_template_kwargs": {"harmony": {"headers": headers}},
    }
    size = 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for piece in answer.aiter_raw():
            size += len(piece)
    assert size > len(ids), "a stream came out short"


async def rate(server: Server, streams: int, ids: Sequence[int], headers: str, tools: int) -> float:
    """Tokens a second of all streams together, in one round."""
    limits = httpx.Limits(max_connections=streams)
    async with httpx.AsyncClient(base_url=server.url, timeout=900, limits=limits) as client:
        began = time.perf_counter()
        await asyncio.gather(*(stream(client, ids, headers, tools) for _ in range(streams)))
        return streams * len(ids) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tools", type=int, default=8)
    arguments = parser.parse_args()
    ids = script(arguments.tokens)
    print("| tools | free, tokens/s | constrained | constrained over free, median | least to most |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as logs, running(Launch(), Path(logs) / "server.log") as server:
        for tools in (0, arguments.tools):
            found: dict[str, list[float]] = {"free": [], "constrain": []}
            for number in range(arguments.rounds + 1):
                for headers in ("free", "constrain") if number % 2 else ("constrain", "free"):
                    figure = asyncio.run(rate(server, arguments.streams, ids, headers, tools))
                    if number:  # the first round warms up
                        found[headers].append(figure)
            ratios = [held / free for held, free in zip(found["constrain"], found["free"], strict=True)]
            free, held = (statistics.median(found[headers]) for headers in ("free", "constrain"))
            spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
            print(f"| {tools} | {free:.0f} | {held:.0f} | {statistics.median(ratios):.3f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
