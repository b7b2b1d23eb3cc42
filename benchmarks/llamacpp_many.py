"""Many clients at once: this server, llama.cpp's own `llama-server` and llama-cpp-python's example server, in one run.

Real server processes on this machine's loopback, asked in turns, with the same tiny gpt-oss (see `talking_model`), one
engine thread, batches of 512, room for 16 replies in one memory for all, and the same sampling: temperature 1, nothing
cut off. The example server (batched, with a prompt cache; it is in llama-cpp-python's source distribution, not in the
package) is run with its own settings for gpt-oss else.

- Tokens a second of 1, 2, 4, 8 and 16 clients, each with a streamed chat of 250 tokens, from the first request to the
  last chunk. Clients count chunks with content and parse nothing.
- The first token of a turn in a chat of 30 messages: when nothing else was asked since its last turn, and after two
  other chats as long had a turn each.

Medians of some rounds. `llama-server` is built at first use, see `benchmarks/llama_server.py`.

    python benchmarks/llamacpp_many.py [--rounds 3] [--clients 1 2 4 8 16] [--tokens 250]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "rigs"))

import llama_server
import talking_model
from llamacpp_servers import CONTEXT, SAMPLING, SENTENCE, LlamaServer, history
from ports import free_port

from harmony_plugin.demo.process import ServerProcess

AT_ONCE = 16
OURS, NATIVE, EXAMPLE = "harmony_plugin.llamacpp", "llama-server", "example server"


@contextlib.contextmanager
def servers(model: Path) -> Iterator[dict[str, str]]:
    """The servers' addresses by their names."""
    binary = llama_server.build()
    with contextlib.ExitStack() as stack:
        common = ["--model", str(model), "--n_ctx", str(CONTEXT), "--n_threads", "1", "--n_threads_batch", "1"]
        arguments = ["-m", "harmony_plugin.llamacpp", *common, "--n_parallel", str(AT_ONCE)]
        ours = stack.enter_context(ServerProcess(arguments))
        alike = "--jinja --threads 1 --threads-batch 1 --batch-size 512 --ubatch-size 512 --flash-attn off --kv-unified"
        native = stack.enter_context(
            LlamaServer(
                binary, "--model", str(model), "--ctx-size", str(CONTEXT), "--parallel", str(AT_ONCE), *alike.split()
            )
        )
        found = {OURS: ours.url, NATIVE: native.url}
        try:
            found[EXAMPLE] = stack.enter_context(example(model))
        except RuntimeError as error:
            print(f"{EXAMPLE}: left out: {error}", file=sys.stderr)
        yield found


@contextlib.contextmanager
def example(model: Path) -> Iterator[str]:
    folder = llama_server.example()
    port = free_port()
    config: dict[str, Any] = json.loads((folder / "configs" / "gpt-oss-120b.json").read_text("utf-8"))
    config["server"] = {"host": "127.0.0.1", "port": port}
    del config["model"]["from_pretrained"]
    config["model"] |= {"path": str(model), "alias": "tiny", "n_ctx": CONTEXT, "n_seq_max": AT_ONCE, "threads": 1}
    config["model"] |= {"threads_batch": 1, "n_gpu_layers": 0, "flash_attn": False}
    with tempfile.TemporaryDirectory() as temporary:
        file, log = Path(temporary, "config.json"), Path(temporary, "log")
        file.write_text(json.dumps(config), "utf-8")
        with log.open("wb") as out:
            command = [sys.executable, str(folder / "server.py"), "-C", str(file)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
            while True:
                with contextlib.suppress(httpx.TransportError):
                    httpx.get(f"{url}/v1/models")
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("it did not start: " + log.read_text("utf-8", "replace")[-300:])
                time.sleep(0.1)
            yield url
        finally:
            process.kill()
            process.wait()


async def ask(url: str, messages: Sequence[dict[str, str]], tokens: int) -> tuple[float, float, int, str]:
    """When the first and the last chunk with content came, how many there were, and what was said."""
    address = urlsplit(url)
    body = {"model": "tiny", "messages": messages, "max_tokens": tokens, "stream": True, **SAMPLING}
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(head.encode() + data)
    first = last = 0.0
    got: list[bytes] = []
    while piece := await reader.read(1 << 16):
        got.append(piece)
        if b'"content":"' in piece or b'"content": "' in piece:
            last = time.perf_counter()
            first = first or last
    writer.close()
    whole = b"".join(got)
    if not first or b" 200 " not in whole[:40]:
        raise RuntimeError(f"no content came: {whole[:500]!r}")
    lines = (line.strip() for line in whole.split(b"data: ")[1:])
    chunks = [json.loads(line.split(b"\n")[0]) for line in lines if line.startswith(b"{")]
    said = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    said = [text for text in said if text]
    return first, last, len(said), "".join(said)


async def together(url: str, clients: int, tokens: int, salt: str) -> float:
    """Tokens a second of so many clients."""
    begin = time.perf_counter()
    replies = await asyncio.gather(
        *(ask(url, [{"role": "user", "content": f"{salt} {number}: a story"}], tokens) for number in range(clients))
    )
    return sum(count for *_, count, _ in replies) / (max(last for _, last, *_ in replies) - begin)


async def turns(url: str, salt: str) -> tuple[float, float]:
    """Milliseconds to the first token of a turn in a chat, undisturbed, and after two others had a turn."""
    chats = [history(30, f"{salt} {name}") for name in "ABC"]

    async def turn(chat: list[dict[str, str]]) -> float:
        begin = time.perf_counter()
        first, _, _, said = await ask(url, chat, 16)
        chat += [
            {"role": "assistant", "content": said.rpartition("<|message|>")[2]},
            {"role": "user", "content": SENTENCE},
        ]
        return (first - begin) * 1e3

    for chat in chats:
        await turn(chat)
    await turn(chats[0])
    undisturbed = await turn(chats[0])
    await turn(chats[1])
    await turn(chats[2])
    return undisturbed, await turn(chats[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--tokens", type=int, default=250)
    arguments = parser.parse_args()
    try:
        template = llama_server.sources() / "models" / "templates" / "openai-gpt-oss-120b.jinja"
        model = talking_model.build(template.read_text("utf-8"))
        with servers(model) as found:
            measure(found, arguments)
    except llama_server.BuildError as error:
        raise SystemExit(f"llamacpp_many: {error}") from None


def measure(found: dict[str, str], arguments: argparse.Namespace) -> None:
    rates: dict[tuple[str, int], list[float]] = {}
    waits: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    for url in found.values():
        asyncio.run(together(url, 2, 20, "warm"))
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        for clients in arguments.clients:
            for name, url in found.items():
                salt = f"{time.perf_counter_ns()}"
                rates.setdefault((name, clients), []).append(
                    asyncio.run(together(url, clients, arguments.tokens, salt))
                )
        for name, url in found.items():
            waits[name].append(asyncio.run(turns(url, f"{time.perf_counter_ns()}")))
    print(f"{'tokens/s, median':24}" + "".join(f"{name:>26}" for name in found) + f"{'over ' + NATIVE:>20}")
    rate = {key: statistics.median(values) for key, values in rates.items()}
    for clients in arguments.clients:
        cells = [
            f"{rate[name, clients]:.0f} ({rate[name, clients] / rate[name, arguments.clients[0]]:.2f}x)"
            for name in found
        ]
        over = rate[OURS, clients] / rate[NATIVE, clients]
        print(f"{f'{clients} clients':24}" + "".join(f"{cell:>26}" for cell in cells) + f"{over:19.2f}x")
    for what, place in (("a turn in chat A, ms", 0), ("after B and C, ms", 1)):
        cells = [f"{statistics.median(pair[place] for pair in waits[name]):.1f}" for name in found]
        print(f"{what:24}" + "".join(f"{cell:>26}" for cell in cells))
    cells = [f"{statistics.median(later / before for before, later in waits[name]):.2f}x" for name in found]
    print(f"{'one over the other':24}" + "".join(f"{cell:>26}" for cell in cells))


if __name__ == "__main__":
    main()
