"""Starts and ends real `vllm serve` processes; knows nothing of scripts' contents or of the plugin beyond its name."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from ports import free_port

import harmony_plugin

from .model import Kind, model_directory

MODEL = "scripted"
START_SECONDS = 600  # a cold start took 30 to 45 s on two free cores; a busy machine gets more
_RIG = Path(__file__).resolve().parent.parent
_SOURCE = Path(harmony_plugin.__file__).resolve().parent.parent  # servers run the code that the tests import
PARSERS = ("--reasoning-parser", "harmony", "--tool-call-parser", "harmony", "--enable-auto-tool-choice")
STOCK_PARSERS = ("--reasoning-parser", "openai_gptoss", "--tool-call-parser", "openai", "--enable-auto-tool-choice")

#: How scripts come to be said.
SAYING = ("--logits-processors", "vllm_rig.scripted_tokens:ScriptedTokens")
SPECULATING = ("--worker-cls", "vllm_rig.scripted_worker.ScriptedWorker")
#: Drafts from what was said before.
NGRAM = '{"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4, "prompt_lookup_min": 1}'


class ServerFailed(Exception):
    """The server ended or did not answer in time; the message ends with its log's last lines."""


@dataclass(frozen=True)
class Launch:
    """How a server is started. Equal launches can share one server."""

    kind: Kind = "gpt_oss"
    parsers: tuple[str, ...] = PARSERS
    flags: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    max_model_len: int = 4096
    speculation: str = ""  # as vLLM's flag takes it, in JSON


@dataclass
class Server:
    """A running server."""

    launch: Launch
    url: str
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """The launched process and everything under it."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def api_processes(self) -> list[psutil.Process]:
        """The processes that answer HTTP, told by the name that vLLM gives them in its log and to the system."""
        named = {int(pid) for pid in re.findall(r"\(ApiServer_\d+ pid=(\d+)\)", self.log_text())}
        if named:
            return [psutil.Process(pid) for pid in sorted(named) if psutil.pid_exists(pid)]
        return [psutil.Process(self.process.pid)]


def environment() -> dict[str, str]:
    """The environment of a process with an engine; a developer's own settings must not change what is tested."""
    foreign = ("HARMONY_", "VLLM_", "PYTEST_", *(() if os.environ.get("COVER_VLLM") else ("COVERAGE_",)))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    return kept | {
        "PYTHONPATH": os.pathsep.join((str(_RIG), str(_SOURCE))),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_SYSTEM_START_DATE": "2026-01-01",
    }


def _end_with_parent() -> None:
    """Run in the new process: a test run that is killed must not leave a server of some 4 GB behind (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the server and all it started: they are one process group, the server its leader."""
    for sig, patience in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 15.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sig)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            process.poll()  # reaps the leader, so that the group can vanish
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url + "/health", timeout=5):
            return
        code = process.poll()
        if code is not None or time.monotonic() > deadline:
            what = f"ended with code {code}" if code is not None else f"did not answer within {START_SECONDS} s"
            raise ServerFailed(f"vllm serve {what}; its log ends:\n{log.read_text(errors='replace')[-6000:]}")
        time.sleep(0.25)


def start(launch: Launch, log: Path) -> Server:
    """Start a server and wait until it answers; `ServerFailed` if it does not. The caller ends it with `stop`."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model_directory(launch.kind))),
        *("--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port)),
        # float32: without instructions for bfloat16 a step over the whole vocabulary takes four times as long.
        *(
            "--load-format",
            "dummy",
            "--dtype",
            "float32",
            "--enforce-eager",
            "--max-model-len",
            str(launch.max_model_len),
        ),
        *(SPECULATING if launch.speculation else SAYING),
        *(("--speculative-config", launch.speculation) if launch.speculation else ()),
        *("--disable-uvicorn-access-log",),
        *launch.parsers,
        *launch.flags,
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment() | dict(launch.environment),
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(process, url, log)
    except BaseException:
        _end_group(process)
        raise
    return Server(launch, url, log, process)


def stop(server: Server) -> None:
    """End the server with every process that it started."""
    _end_group(server.process)


@contextlib.contextmanager
def running(launch: Launch, log: Path) -> Iterator[Server]:
    """A server for the length of a `with` block."""
    server = start(launch, log)
    try:
        yield server
    finally:
        stop(server)
