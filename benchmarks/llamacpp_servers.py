"""The server beside the stock `llama_cpp.server` and llama.cpp's own `llama-server`, over HTTP, in one run.

Three real server processes on this machine's loopback, asked in turns, with the same settings of the engine (one
thread, batches of 512, no flash attention) and of sampling (temperature 1, nothing cut off, no penalties: what gpt-oss
is made for), else at their defaults, less the stock server's `logits_all` (its buffer would take gigabytes). The model
is tiny, and it talks, see `talking_model`: one message to `final`, words without end. The chat template in it is
gpt-oss's, from llama.cpp's sources. All three are sent chats and send chunks. The stock server knows no Harmony and
shows the header as text, which its first chunk has some of; the template raises when it is given that text back, so it
is cut off.

- Time to first token: from sending the request to the first chunk with content, for a short prompt, for a history of
  50 messages that no server has seen, and for the next turn of that chat.
- A token of a long reply: the time between its first and its last chunk, divided; and the CPU time of the server's
  process over the whole request, divided. The engine takes most of both: the bare loop `Llama.generate` is shown, too.
- A token under `response_format`, in the same way: one long JSON string, and an array of small records. The model means
  nothing by what it writes, so in the records nearly every word that it would write is refused; llama-server, which
  goes through the vocabulary only when the first choice is refused, would have it easier with a model that knows JSON.

Medians of several rounds, and the least. The client reads bytes and looks only for the first content.
`llama-server` is built at first use, see `benchmarks/llama_server.py`.

    python benchmarks/llamacpp_servers.py [--rounds 5] [--tokens 250 2000] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import llama_server
import psutil
import talking_model

from harmony_plugin.core import harmony_encoding
from harmony_plugin.demo.process import ServerProcess

CONTEXT = 16_384
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
SENTENCE = "The quick brown fox jumps over the lazy dog, and the dog does not mind at all. "
LISTENING = re.compile(r"listening on (http://\S+)")
CONTENT = re.compile(rb'"content":\s*("(?:[^"\\]|\\.)+")')

STRING = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
RECORDS = {
    "type": "array",
    "minItems": 400,
    "items": {
        "type": "object",
        "properties": {
            "kind": {"enum": ["cat", "dog", "bird"]},
            "size": {"type": "integer", "minimum": 0, "maximum": 99},
            "tame": {"type": "boolean"},
        },
        "required": ["kind", "size", "tame"],
        "additionalProperties": False,
    },
}


class LlamaServer:
    """`llama-server` on a free port of this machine, for the time of a `with` block."""

    def __init__(self, binary: Path, *arguments: str) -> None:
        self._command = [str(binary), *arguments, "--host", "127.0.0.1", "--port", "0"]

    def __enter__(self) -> LlamaServer:
        self._log = tempfile.NamedTemporaryFile(prefix="llama-server-", suffix=".log")
        self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + 60
        try:
            while time.monotonic() < deadline and self.process.poll() is None:
                listening = LISTENING.search(Path(self._log.name).read_text("utf-8", "replace"))
                if listening:
                    self.url = listening[1]
                    with contextlib.suppress(httpx.TransportError):
                        if httpx.get(f"{self.url}/health").status_code == 200:
                            return self
                time.sleep(0.05)
            tail = Path(self._log.name).read_text("utf-8", "replace").splitlines()[-20:]
            raise RuntimeError("llama-server did not start:\n" + "\n".join(tail))
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()


@dataclass
class Answer:
    """What a request took, in ms; CPU is that of the server's process."""

    first: float
    rest: float
    cpu: float
    chunks: int
    text: str


class Asked:
    """A server, and how a chat is put to it."""

    def __init__(self, server: Any, wrap: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        self._process = psutil.Process(server.process.pid)
        # A connection for each request: llama-server closes those that it kept when it pleases.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.Client(base_url=server.url, timeout=600, limits=limits)
        self._wrap = wrap

    def ask(self, messages: list[dict[str, str]], tokens: int, schema: Mapping[str, Any] | None = None) -> Answer:
        body: dict[str, Any] = {"messages": messages, "max_tokens": tokens, "stream": True, **SAMPLING}
        if schema is not None:
            body["response_format"] = self._wrap(schema)
        sent, first, last = b"", 0.0, 0.0
        before = self._cpu()
        begin = time.perf_counter()
        with self._client.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                raise RuntimeError(f"{answer.status_code}: {answer.read()!r}")
            pieces = answer.iter_raw()
            for piece in pieces:
                sent += piece
                if CONTENT.search(sent):
                    first = time.perf_counter()
                    break
            rest = []
            for piece in pieces:
                rest.append(piece)
                if b'"content"' in piece:
                    last = time.perf_counter()
        cpu = self._cpu() - before
        sent += b"".join(rest)
        if not last:
            raise RuntimeError(f"no content came: {sent!r}")
        texts = [json.loads(text) for text in CONTENT.findall(sent)]
        return Answer((first - begin) * 1e3, (last - first) * 1e3, cpu * 1e3, len(texts), "".join(texts))

    def _cpu(self) -> float:
        return sum(self._process.cpu_times()[:2])


def as_openai(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "shape", "schema": schema, "strict": True}}


def as_stock(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_object", "schema": schema}


@contextlib.contextmanager
def servers(model: Path) -> Iterator[dict[str, Asked]]:
    binary = llama_server.build()
    common = ["--model", str(model), "--n_ctx", str(CONTEXT), "--n_threads", "1", "--n_threads_batch", "1"]
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(ServerProcess(["-m", "harmony_plugin.llamacpp", *common]))
        stock = stack.enter_context(
            ServerProcess(["-m", "llama_cpp.server", *common, "--logits_all", "false", "--verbose", "false"])
        )
        alike = "--jinja --threads 1 --threads-batch 1 --parallel 1 --batch-size 512 --ubatch-size 512 --flash-attn off"
        native = stack.enter_context(
            LlamaServer(binary, "--model", str(model), "--ctx-size", str(CONTEXT), *alike.split())
        )
        yield {
            "harmony_plugin.llamacpp": Asked(ours, as_openai),
            "llama-server": Asked(native, as_openai),
            "llama_cpp.server (stock)": Asked(stock, as_stock),
        }


class Bare:
    """`Llama.generate` and nothing else, in this process."""

    def __init__(self, model: Path) -> None:
        import llama_cpp

        self._llama = llama_cpp.Llama(str(model), n_ctx=CONTEXT, n_threads=1, n_threads_batch=1, verbose=False)
        text = "<|start|>user<|message|>Hi<|end|><|start|>assistant"
        self._prompt = harmony_encoding().encode(text, allowed_special="all")

    def run(self, tokens: int) -> tuple[float, float]:
        """Wall and CPU time of one token, in ms."""
        sampling = {"temp": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
        generated = self._llama.generate(self._prompt, **sampling)
        begin, cpu = time.perf_counter(), time.process_time()
        for _ in range(tokens):
            next(generated)
        spent = time.perf_counter() - begin, time.process_time() - cpu
        generated.close()
        return spent[0] / tokens * 1e3, spent[1] / tokens * 1e3


def history(count: int, salt: str) -> list[dict[str, str]]:
    """A chat that nobody has seen, `salt` near its beginning; a question is last."""
    messages = [{"role": "system", "content": f"You are {salt}."}]
    while len(messages) < count:
        role = "assistant" if messages[-1]["role"] == "user" else "user"
        messages.append({"role": role, "content": f"{len(messages)}: {SENTENCE * 6}"})
    return messages


class Table:
    """Figures by row and server; medians, and the least."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, list[float]]] = {}

    def add(self, row: str, server: str, value: float) -> None:
        self._rows.setdefault(row, {}).setdefault(server, []).append(value)

    def show(self, names: list[str]) -> None:
        print(f"{'ms, median (least)':44}" + "".join(f"{name:>26}" for name in names))
        for row, figures in self._rows.items():
            cells = []
            for name in names:
                values = figures.get(name)
                cells.append(f"{statistics.median(values):.3f} ({min(values):.3f})" if values else "-")
            print(f"{row:44}" + "".join(f"{cell:>26}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, nargs="+", default=[250, 2000], help="lengths of replies")
    parser.add_argument("--messages", type=int, default=50, help="length of the history")
    parser.add_argument("--quick", action="store_true", help="one round, short replies")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.tokens = 1, [100]
    try:
        template = llama_server.sources() / "models" / "templates" / "openai-gpt-oss-120b.jinja"
        model = talking_model.build(template.read_text("utf-8"))
        with servers(model) as asked:
            measure(asked, Bare(model), arguments)
    except llama_server.BuildError as error:
        raise SystemExit(f"llamacpp_servers: {error}") from None


def measure(asked: dict[str, Asked], bare: Bare, arguments: argparse.Namespace) -> None:
    table = Table()
    question = [{"role": "user", "content": "Tell me a long story."}]
    constrained = min(arguments.tokens)
    for server in asked.values():  # what is made once: tokenizers, grammars, caches
        server.ask(question, 20)
        for schema in (STRING, RECORDS):
            server.ask(question, 5, schema)
    bare.run(20)
    shares: dict[str, set[str]] = {name: set() for name in asked}
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        for name, server in asked.items():
            # A text of the same length that no server has read before.
            salt = f"{number}{time.perf_counter_ns():020}"
            answer = server.ask([{"role": "user", "content": f"{salt}: hi"}], 8)
            table.add("first token, short prompt", name, answer.first)
        for name, server in asked.items():
            chat = history(arguments.messages, f"{number}{time.perf_counter_ns():020}")
            answer = server.ask(chat, 16)
            table.add(f"first token, {arguments.messages} messages, new", name, answer.first)
            said = answer.text.rpartition("<|message|>")[2]
            turn = [{"role": "assistant", "content": said}, {"role": "user", "content": SENTENCE}]
            answer = server.ask([*chat, *turn], 16)
            table.add("first token, a turn later", name, answer.first)
        for count in arguments.tokens:
            for name, server in asked.items():
                answer = server.ask(question, count)
                shares[name].add(f"{answer.chunks} of {count}")
                table.add(f"a token of {count}, wall", name, answer.rest / count)
                table.add(f"a token of {count}, server's CPU", name, answer.cpu / count)
            wall, cpu = bare.run(count)
            table.add(f"a token of {count}, wall", "bare Llama.generate", wall)
            table.add(f"a token of {count}, server's CPU", "bare Llama.generate", cpu)
        for what, schema in (("JSON string", STRING), ("JSON records", RECORDS)):
            for name, server in asked.items():
                answer = server.ask(question, constrained, schema)
                while answer.chunks < 0.9 * constrained:  # by chance the string ended
                    answer = server.ask(question, constrained, schema)
                shares[name].add(f"{answer.chunks} of {constrained} {what}")
                table.add(f"a token of {constrained}, {what}, wall", name, answer.rest / constrained)
                table.add(f"a token of {constrained}, {what}, server's CPU", name, answer.cpu / constrained)
    table.show([*asked, "bare Llama.generate"])
    for name, share in shares.items():
        print(f"{name}: chunks with content of tokens: {', '.join(sorted(share))}")


if __name__ == "__main__":
    main()
