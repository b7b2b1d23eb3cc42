"""Both servers, the model's words scripted, for agents: room for long prompts, and replies chosen request by request.

Knows how each rig is told what the model is to say; knows no agent.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import httpx

from harmony_plugin.core import harmony_encoding
from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

__all__ = ["MODEL", "SERVERS", "Server", "scripted"]

Json: TypeAlias = "dict[str, Any]"

ROOT = Path(__file__).resolve().parent.parent
MODEL = "gpt-oss-20b"
# The names that the model is served by: Codex sends other tools to models of OpenAI's names.
NAMES = (MODEL, "gpt-5.5", "gpt-6.2-sol")
CONTEXT = 65_536  # Claude Code's tools and instructions alone are 10,000 tokens and more
RUNNING = re.compile(r"^(?:harmony_requests_running|vllm:num_requests_running)(?:\{[^}]*\})? ([\d.]+)$", re.MULTILINE)


@dataclass
class Server:
    """A running server. `name`: as the table has it."""

    name: str
    url: str
    replies: dict[str, str]  # what the model can say, and its name in the script

    def say(self, path: str, body: Json, text: str) -> None:
        """Have the model answer a request with `text`, markers spelled out."""
        if self.name == "vllm":
            body["vllm_xargs"] = {"script": harmony_encoding().encode(text, allowed_special="all")}
        else:
            body["metadata"] = {"user_id" if path == "/v1/messages" else "script": self.replies[text]}

    def running(self) -> int:
        """Requests that are being answered now."""
        return int(sum(float(found) for found in RUNNING.findall(httpx.get(f"{self.url}/metrics").text)))


@contextmanager
def llamacpp(said: Iterable[str]) -> Iterator[Server]:
    """`python -m harmony_plugin.llamacpp`, for a `with` block. `said`: all that the model will be asked to say."""
    replies = {text: f"reply-{number}" for number, text in enumerate(dict.fromkeys(said))}
    with scripted({"id": name, "raw": text} for text, name in replies.items()) as server:
        yield Server("llamacpp", server.url, replies)


@contextmanager
def scripted(scripts: Iterable[Json]) -> Iterator[ServerProcess]:
    """The llama.cpp server with these scripts (`harmony_plugin.demo.script`), for a `with` block."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "script.jsonl")
        file.write_text("".join(json.dumps(script) + "\n" for script in scripts), "utf-8")
        flags = ("--model", str(build_model()), "--model_alias", MODEL, "--n_ctx", str(CONTEXT), "--n_threads", "1")
        with ServerProcess(["-m", "harmony_plugin.demo.server", "--script", str(file), *flags]) as server:
            yield server


@contextmanager
def vllm(said: Iterable[str]) -> Iterator[Server]:
    """`vllm serve` with the plugin, for a `with` block."""
    sys.path.append(str(ROOT / "tests" / "rigs"))
    from vllm_rig.server import Launch, running

    # Without checkpoints a session finds nothing of another's prompt that goes on in another way (docs/vllm.md).
    caching = ("--enable-prompt-tokens-details", "--prefix-cache-retention-interval", "1024")
    flags = ("--served-model-name", *NAMES, *caching)
    with tempfile.TemporaryDirectory() as folder:
        launch = Launch(flags=flags, max_model_len=CONTEXT)
        with running(launch, Path(folder, "vllm.log")) as server:
            yield Server("vllm", server.url, {})


SERVERS = {"llamacpp": llamacpp, "vllm": vllm}
