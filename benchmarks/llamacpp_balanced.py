"""Several llama.cpp servers behind nginx and HAProxy: what sticky conversations save, a rolling restart under load.

Two real servers with the tiny model on this machine's loopback, what they say scripted, behind a balancer that is run
by its file in `examples/deploy/balancer` (with other ports). It needs the programs `nginx` and `haproxy`; what is not
installed is left out.

- Chats of some turns, several at once, each turn asked by OpenAI's client with everything said so far: prompt tokens,
  and those that the server had to evaluate, with conversations that stay at their server and with servers that take
  turns.
- A rolling restart: both servers, one after the other, are told to stop, and started again, while clients ask for
  chats, responses (that go on by `previous_response_id`; the servers share the file) and messages, half of them
  streamed. No client retries; each reply is compared with what was scripted.

    python benchmarks/llamacpp_balanced.py [--chats 16] [--turns 8] [--clients 6]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "rigs"))

from balancer_rig import BALANCERS, Balancer, binary
from llamacpp_rig import LONG, ONE_THREAD, write_scripts
from ports import free_port

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

SCRIPT = {"script": "long"}
SAID = "The sun came out over Rome, and by noon it was 31 degrees in the shade. " * 8
QUIET = 5.0  # seconds that a server serves before the next one is told to stop


@contextlib.contextmanager
def servers(folder: Path, ports: list[int]) -> Iterator[list[ServerProcess]]:
    """The servers, started; they can be stopped and entered anew."""
    scripts = write_scripts(folder / "scripts.jsonl")
    flags = ["--script", str(scripts), "--model", str(build_model()), "--model_alias", "tiny", "--n_ctx", "65536"]
    # Longer than any reply takes on a busy machine.
    flags += ["--drain_seconds", "300"]
    flags += [*ONE_THREAD, "--responses_file", str(folder / "responses.sqlite"), "--reasoning_key", "shared"]
    with contextlib.ExitStack() as stack:
        started = []
        for port in ports:
            server = ServerProcess(["-m", "harmony_plugin.demo.server", *flags], environment={"PORT": str(port)})
            started.append(stack.enter_context(server))
        yield started


# Chats


async def chat(client: openai.AsyncOpenAI, name: str, turns: int) -> list[tuple[int, int, float]]:
    """Prompt tokens, cached ones and milliseconds to the first token of each turn behind the first."""
    messages: list[Any] = [{"role": "system", "content": f"Chat {name}. {SAID}"}]
    seen = []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"Turn {turn}: {SAID}"})
        began, first, usage, said = time.perf_counter(), 0.0, None, []
        async for chunk in await client.chat.completions.create(
            model="tiny",
            messages=messages,
            metadata={"script": "answer"},
            stream=True,
            stream_options={"include_usage": True},
            prompt_cache_key=name,
            extra_headers={"x-session-id": name},
        ):
            for choice in chunk.choices:
                if choice.delta.content:
                    first = first or time.perf_counter()
                    said.append(choice.delta.content)
            usage = chunk.usage or usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        messages.append({"role": "assistant", "content": "".join(said)})
        if turn:
            cached = usage.prompt_tokens_details.cached_tokens or 0
            seen.append((usage.prompt_tokens, cached, (first - began) * 1e3))
    return seen


async def chats(url: str, salt: str, count: int, turns: int) -> list[tuple[int, int, float]]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300) as client:
        found = await asyncio.gather(*(chat(client, f"{salt} {number}", turns) for number in range(count)))
    return list(itertools.chain.from_iterable(found))


def compare(addresses: list[str], arguments: argparse.Namespace) -> None:
    print("| balancer | conversations | prompt tokens | cached | evaluated | ms to the first token, median |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in filter(binary, BALANCERS):
        for sticky in (False, True):
            with Balancer(name, addresses, sticky=sticky) as balancer:
                seen = asyncio.run(chats(balancer.url, f"{name} {sticky}", arguments.chats, arguments.turns))
            prompt, cached = (sum(one[place] for one in seen) for place in (0, 1))
            first = statistics.median(one[2] for one in seen)
            how = "stay" if sticky else "take turns"
            print(
                f"| {name} | {how} | {prompt:,} | {cached / prompt:.1%} | {prompt - cached:,} | {first:.0f} |",
                flush=True,
            )


# A rolling restart


@dataclass
class Load:
    """What the clients saw."""

    answered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    over: bool = False


async def asked_chat(client: openai.AsyncOpenAI, stream: bool, headers: dict[str, str]) -> str:
    messages: list[Any] = [{"role": "user", "content": "Go on."}]
    common: dict[str, Any] = {"model": "tiny", "messages": messages, "metadata": SCRIPT, "extra_headers": headers}
    if not stream:
        return (await client.chat.completions.create(**common)).choices[0].message.content or ""
    chunks = [chunk async for chunk in await client.chat.completions.create(**common, stream=True)]
    assert chunks[-1].choices[0].finish_reason == "stop", "the stream was cut"
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


async def asked_response(
    client: openai.AsyncOpenAI, stream: bool, headers: dict[str, str], last: dict[str, str]
) -> str:
    common: dict[str, Any] = {"model": "tiny", "input": "Go on.", "metadata": SCRIPT, "extra_headers": headers}
    if "id" in last:
        common["previous_response_id"] = last["id"]
    if stream:
        events = [event async for event in await client.responses.create(**common, stream=True)]
        assert events[-1].type == "response.completed", "the stream was cut"
        reply = events[-1].response
    else:
        reply = await client.responses.create(**common)
    last["id"] = reply.id
    return str(reply.output_text)


async def asked_message(client: anthropic.AsyncAnthropic, stream: bool, headers: dict[str, str]) -> str:
    messages: list[Any] = [{"role": "user", "content": "Go on."}]
    common: dict[str, Any] = {"model": "tiny", "messages": messages, "max_tokens": 1000}
    common |= {"metadata": {"user_id": "long"}, "extra_headers": headers}
    if stream:
        async with client.messages.stream(**common) as events:
            reply = await events.get_final_message()
        assert reply.stop_reason == "end_turn", "the stream was cut"
    else:
        reply = await client.messages.create(**common)
    return "".join(block.text for block in reply.content if block.type == "text")


async def client_of(number: int, url: str, load: Load) -> None:
    """Asks one thing after the other, on one API, until the load is over."""
    common: dict[str, Any] = {"api_key": "none", "max_retries": 0, "timeout": 600}
    async with (
        openai.AsyncOpenAI(base_url=f"{url}/v1", **common) as gpt,
        anthropic.AsyncAnthropic(base_url=url, **common) as claude,
    ):
        last: dict[str, str] = {}
        kinds: list[tuple[str, Callable[[bool, dict[str, str]], Awaitable[str]]]] = [
            ("chat", lambda stream, headers: asked_chat(gpt, stream, headers)),
            ("responses", lambda stream, headers: asked_response(gpt, stream, headers, last)),
            ("messages", lambda stream, headers: asked_message(claude, stream, headers)),
        ]
        api, ask = kinds[number % len(kinds)]
        for turn in itertools.count():
            if load.over:
                return
            if turn % 4 == 0:  # the next conversation, whose prompt fits the context
                last.clear()
            try:
                said = await ask(turn % 2 == 0, {"x-session-id": f"client {number}, conversation {turn // 4}"})
            except Exception as error:
                load.failed.append(f"{api}: {error!r}"[:300])
                continue
            if said == LONG:
                load.answered[api] += 1
            else:
                load.failed.append(f"{api}: another text: {said[-80:]!r}")


async def restarted(running: list[ServerProcess]) -> None:
    """Tell each server to stop, wait for its end, start it again, wait until it is used again."""
    for server in running:
        began = time.monotonic()
        server.process.terminate()
        code = await asyncio.to_thread(server.process.wait, 600)
        ended = time.monotonic() - began
        server.log.close()
        await asyncio.to_thread(server.__enter__)
        took = time.monotonic() - began
        print(f"  a server ended {ended:.1f} s after it was told, with code {code}; it served again after {took:.1f} s")
        await asyncio.sleep(QUIET)


@contextlib.asynccontextmanager
async def under_load(url: str, clients: int, load: Load) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(client_of(number, url, load)) for number in range(clients)]
    await asyncio.sleep(3)
    try:
        yield
        await asyncio.sleep(3)
    finally:
        load.over = True
        await asyncio.gather(*tasks)


async def roll(balancer: Balancer, running: list[ServerProcess], clients: int) -> bool:
    load = Load()
    began = time.monotonic()
    async with under_load(balancer.url, clients, load):
        await restarted(running)
    spent, count = time.monotonic() - began, sum(load.answered.values())
    apis = ", ".join(f"{number} {api}" for api, number in sorted(load.answered.items()))
    print(f"  {balancer.name}: {count} requests exact ({apis}) in {spent:.0f} s, {len(load.failed)} failed")
    if balancer.name == "nginx":
        again = Counter(" then ".join(tries) for *_, tries in balancer.tries() if len(tries) > 1)
        kinds = ", ".join(f"{number} x {tries}" for tries, number in again.items())
        print(f"  asked at a second server: {again.total()} ({kinds})")
    for line in load.failed[:10] + (balancer.complaints()[:20] if load.failed else []):
        print("    " + line, file=sys.stderr)
    return not load.failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chats", type=int, default=16)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--clients", type=int, default=6)
    arguments = parser.parse_args()
    for name in BALANCERS:
        if binary(name) is None:
            print(f"{name}: left out: it is not installed", file=sys.stderr)
    ports = [free_port(), free_port()]
    addresses = [f"127.0.0.1:{port}" for port in ports]
    good = True
    with tempfile.TemporaryDirectory() as folder, servers(Path(folder), ports) as running:
        compare(addresses, arguments)
        print("\nA rolling restart of both servers:")
        for name in filter(binary, BALANCERS):
            with Balancer(name, addresses) as balancer:
                assert httpx.get(f"{balancer.url}/readyz").status_code == 200
                good = asyncio.run(roll(balancer, running, arguments.clients)) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
