"""Both servers as processes, each with a real engine on the CPU whose choice of tokens is scripted."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "rigs"))

from vllm_rig.server import MODEL, PARSERS, STOCK_PARSERS, Launch, running

__all__ = ["MODEL", "llamacpp", "vllm"]


@contextmanager
def vllm(*, plugin: bool) -> Iterator[str]:
    """`vllm serve` with the plugin's parsers or vLLM's own: its URL. A request's `vllm_xargs` name its script."""
    launch = Launch(parsers=PARSERS if plugin else STOCK_PARSERS, max_model_len=16_384)
    with tempfile.TemporaryDirectory() as folder, running(launch, Path(folder) / "vllm.log") as server:
        yield server.url


@contextmanager
def llamacpp(scripts: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """The llama.cpp server: its URL. A request's `metadata` names its script."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scripts.jsonl"
        lines = [json.dumps({"id": name, "token_ids": list(ids)}) + "\n" for name, ids in scripts.items()]
        file.write_text("".join(lines), encoding="utf-8")
        arguments = ["-m", "harmony_plugin.demo.server", "--script", str(file), "--model", str(build_model())]
        arguments += ["--model_alias", MODEL, "--n_ctx", "32768", "--n_parallel", "4"]
        # On a busy machine llama.cpp's threads wait long for each other.
        arguments += ["--n_threads", "1", "--n_threads_batch", "1"]
        with ServerProcess(arguments) as server:
            yield server.url
