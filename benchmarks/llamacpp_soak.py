"""Soaks the llama.cpp server: a thousand streamed chats, 16 at once, a third of them hung up on at a random point.

Everything is real but the choice of tokens: `harmony_plugin.demo.server` replays scripts, the recorded replies of the
tests and one of 200 words, behind prompts that differ. A finished reply must be, field by field, what `parse` gives for
its script, and what came of a hung-up one must be its beginning.

Prints, a quarter at a time, how many replies were exact and what memory the server holds. Exits 1 if a reply was wrong,
a request is left behind, a stream stood still for longer than `--gap` seconds, the log tells of an error, or the server
holds more at the end than after the first quarter (and `--growth` MiB).

    python benchmarks/llamacpp_soak.py [--requests 1000] [--at-once 16] [--seed 0] [--gap 5] [--growth 16]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "rigs"))

from llamacpp_rig import CASES, SCRIPTS, Seen, chat_tools, expected, ids_of, scripted

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

MIB = 2**20
SENTENCE = "The quick brown fox jumps over the lazy dog, and the dog does not mind at all. "
LONG = next(script for script in SCRIPTS if script["id"] == "long")
RUNNING = re.compile(r"^harmony_requests_(?:waiting|running) (\S+)", re.MULTILINE)


class Loose(dict[str, Any]):
    """A JSON object whose keys are attributes, None where there is no such key."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


@dataclass
class Tally:
    """What was seen of some requests."""

    exact: int = 0
    left: int = 0
    gap: float = 0.0
    first: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Soak:
    """Requests to one server.

    Args:
        at_once: how many streams are open at a time.
    """

    def __init__(self, client: httpx.AsyncClient, at_once: int, seed: int) -> None:
        self._client = client
        self._gate = asyncio.Semaphore(at_once)
        self._chance = random.Random(seed)

    async def run(self, numbers: range) -> Tally:
        """Send the requests with these numbers."""
        tally = Tally()
        await asyncio.gather(*(self._one(number, tally) for number in numbers))
        return tally

    async def _one(self, number: int, tally: Tally) -> None:
        chance = self._chance
        # Of a reply that is hung up on there must be something left.
        hung_up = chance.randrange(300) if number % 3 == 0 else None
        case = LONG if hung_up is not None or number % 3 == 1 else chance.choice(CASES)
        text = f"{chance.getrandbits(64)}: {SENTENCE * chance.randrange(40)}Go on."
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": text}],
            "metadata": {"script": case["id"]},
            "max_completion_tokens": len(ids_of(case)),  # a recorded reply that was cut short stays cut short
            "parallel_tool_calls": True,
            "stream": True,
        }
        if case.get("tools"):
            body["tools"] = chat_tools(case["tools"])
        async with self._gate:
            try:
                seen = await self._stream(body, hung_up, tally)
            except (httpx.HTTPError, AssertionError, RuntimeError) as error:
                tally.wrong.append(f"request {number}, {case['id']}: {error!r}")
                return
        want = expected(case, past_calls=True)
        if hung_up is not None and seen.finish is None:
            tally.left += 1
            right = begins(want.reasoning, seen.reasoning) and begins(want.content, seen.content)
        else:
            right = seen == want
            tally.exact += right
        if not right:
            tally.wrong.append(f"request {number}, {case['id']}: {seen!r:.500}")

    async def _stream(self, body: dict[str, Any], hung_up: int | None, tally: Tally) -> Seen:
        """A reply, or its first `hung_up` chunks."""
        seen, chunks, last = Seen(), 0, 0.0
        sent = time.monotonic()
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as stream:
            if stream.status_code != 200:
                raise RuntimeError(f"{stream.status_code}: {(await stream.aread())[:200]!r}")
            async for line in stream.aiter_lines():
                if chunks == hung_up:
                    break
                if not line.startswith("data: {"):
                    continue
                now = time.monotonic()
                if chunks:
                    tally.gap = max(tally.gap, now - last)
                else:
                    tally.first = max(tally.first, now - sent)
                chunks, last = chunks + 1, now
                chunk = json.loads(line.removeprefix("data: "), object_hook=Loose)
                if chunk.error:
                    raise RuntimeError(f"an error came: {chunk.error}")
                for choice in chunk.choices:
                    seen.add(choice)
        return seen


def begins(whole: str | None, part: str | None) -> bool:
    return (whole or "").startswith(part or "")


async def soak(server: ServerProcess, arguments: argparse.Namespace) -> list[str]:
    """Run it; what went wrong."""
    process = psutil.Process(server.process.pid)
    complaints, memory = [], []
    print("| quarter | exact | hung up on | wrong | gap, s | first, s | server, MiB | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    limits = httpx.Limits(max_connections=arguments.at_once)
    async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:
        requests = Soak(client, arguments.at_once, arguments.seed)
        for quarter in range(4):
            began = time.monotonic()
            numbers = range(arguments.requests * quarter // 4, arguments.requests * (quarter + 1) // 4)
            tally = await requests.run(numbers)
            memory.append(process.memory_info().rss / MIB)
            figures = [tally.exact, tally.left, len(tally.wrong), f"{tally.gap:.2f}", f"{tally.first:.2f}"]
            figures += [f"{memory[-1]:.1f}", f"{time.monotonic() - began:.1f}"]
            print(f"| {quarter + 1} | {' | '.join(map(str, figures))} |", flush=True)
            complaints += tally.wrong
            if tally.gap > arguments.gap:
                complaints.append(f"a stream stood still for {tally.gap:.1f} s")
        left = await left_behind(client)
    if left:
        complaints.append(f"requests left behind: {left}")
    if memory[-1] > memory[0] + arguments.growth:
        complaints.append(f"the server grew from {memory[0]:.1f} to {memory[-1]:.1f} MiB")
    return complaints


async def left_behind(client: httpx.AsyncClient) -> int:
    """Requests that the server still has, some seconds after the last."""
    count, deadline = 1, time.monotonic() + 30
    while count and time.monotonic() < deadline:
        count = sum(int(float(value)) for value in RUNNING.findall((await client.get("/metrics")).text))
        await asyncio.sleep(0.1)
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gap", type=float, default=5.0, help="seconds between two chunks that are too many")
    parser.add_argument("--growth", type=float, default=16.0, help="MiB that are too many")
    arguments = parser.parse_args()
    # Prompts that were pushed out may take memory, but soon have what they may.
    flags = f"--model_alias tiny --n_ctx 32768 --n_parallel {arguments.at_once} --cache_ram_mb 16"
    flags += " --n_threads 1 --n_threads_batch 1"
    with (
        tempfile.TemporaryDirectory() as folder,
        scripted(Path(folder), "--model", str(build_model()), *flags.split()) as server,
    ):
        complaints = asyncio.run(soak(server, arguments))
        if server.process.poll() is not None:
            complaints.append(f"the server ended with status {server.process.returncode}")
        output = server.output()
    if "Traceback" in output:
        complaints.append("the log tells of an error:\n" + output[output.index("Traceback") :][:4000])
    for text in complaints[:20]:
        print(text, file=sys.stderr)
    print(f"\n{arguments.requests} requests, {arguments.at_once} at once: {len(complaints)} complaints")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
