"""Starts a server as a process of its own and finds out where it listens. Knows the line that says so, and nothing else
of what the server does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

__all__ = ["ServerProcess", "StartError"]

# Ours, and what the stock server, run beside it in benchmarks, leaves to uvicorn.
LISTENING = re.compile(r"^(?:listening|.*Uvicorn running) on (https?)://\S*?:(\d+)", re.MULTILINE)


class StartError(RuntimeError):
    """The server ended, or took too long, before it listened. The message ends with what it printed last."""


class ServerProcess:
    """A server on a free port of this machine, for the time of a `with` block.

    Args:
        arguments: what comes after `python`, such as `["-m", "harmony_plugin.llamacpp", "--model", ...]`. Host and port
            are set in the environment.
        environment: variables to set beside those of this process.
        timeout: seconds that loading may take.
    """

    def __init__(
        self, arguments: Sequence[str], *, environment: Mapping[str, str] | None = None, timeout: float = 600
    ) -> None:
        self._arguments = [sys.executable, *arguments]
        # Not by flags: a config file would replace them.
        self._environment = {**os.environ, "HOST": "127.0.0.1", "PORT": "0", **(environment or {})}
        self._timeout = timeout
        self.url = ""

    def __enter__(self) -> ServerProcess:
        self.log = tempfile.NamedTemporaryFile(mode="w+b", prefix="harmony-plugin-server-", suffix=".log")
        self.process = subprocess.Popen(
            self._arguments, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=self._environment
        )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def output(self) -> str:
        """What the server has printed so far."""
        with open(self.log.name, "rb") as log:
            return log.read().decode("utf-8", "replace")

    def stop(self) -> None:
        """Tell the server to stop, and make sure that it does."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()

    def _wait(self) -> None:
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            listening = LISTENING.search(self.output())
            if listening:
                self.url = f"{listening[1]}://127.0.0.1:{listening[2]}"
                return
            if self.process.poll() is not None:
                raise StartError(f"the server ended with status {self.process.returncode}:\n{self._tail()}")
            time.sleep(0.05)
        raise StartError(f"the server was not ready after {self._timeout:.0f} s:\n{self._tail()}")

    def _tail(self) -> str:
        return "\n".join(self.output().splitlines()[-20:])
