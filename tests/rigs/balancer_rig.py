"""nginx and HAProxy in front of servers, run by the files in `examples/deploy/balancer`.

Knows the addresses that stand in those files, and puts others in their place; knows nothing of what the servers do.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ports import free_port

__all__ = ["BALANCERS", "Balancer", "binary"]

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "deploy" / "balancer"
BALANCERS = {"nginx": ("nginx.conf",), "haproxy": ("haproxy.cfg", "servers.cfg")}
LISTENS, SERVERS = "127.0.0.1:8000", ("127.0.0.1:8001", "127.0.0.1:8002")
# What makes a conversation stay at a server; without it, they take turns.
STICKY = re.compile(r"^ *(?:hash \$|balance hash|hash-type).*\n", re.MULTILINE)
# Where each request went: its path, and server and status of each try.
NGINX = """daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    log_format tries '$request_uri $status $upstream_addr $upstream_status';
    access_log {folder}/access.log tries;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi; uwsgi_temp_path {folder}/uwsgi;
    include {folder}/0.conf;
}}
"""


def binary(name: str) -> str | None:
    """A balancer's program; None: it is not installed."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))


class Balancer:
    """A balancer as a process, for the time of a `with` block.

    Args:
        name: of `BALANCERS`; it has to be installed.
        servers: two servers, as host:port.
        sticky: whether conversations stay at a server, as in the file; else each request goes to the next server.
        health: what HAProxy asks a server for.
    """

    def __init__(self, name: str, servers: Sequence[str], *, sticky: bool = True, health: str = "/readyz") -> None:
        self.name = name
        self._servers = servers
        self._sticky = sticky
        self._health = health
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Balancer:
        self._folder = tempfile.TemporaryDirectory(prefix=f"harmony-plugin-{self.name}-")
        folder = Path(self._folder.name)
        program = binary(self.name)
        assert program is not None, f"{self.name} is not installed"
        files = []
        for number, name in enumerate(BALANCERS[self.name]):
            files.append(folder / f"{number}.conf")
            files[-1].write_text(self._text(FOLDER / name), "utf-8")
        if self.name == "nginx":
            (folder / "nginx.conf").write_text(NGINX.format(folder=folder), "utf-8")
            command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        else:
            command = [program, "-db", *(word for file in files for word in ("-f", str(file)))]
        self._log = (folder / "output.log").open("wb")
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        self._wait(folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()
        self._folder.cleanup()

    def _text(self, path: Path) -> str:
        """A file of the example, with this run's addresses."""
        text = path.read_text("utf-8")
        for there, here in zip((LISTENS, *SERVERS), (f"127.0.0.1:{self._port}", *self._servers), strict=True):
            text = text.replace(there, here)
        text = text.replace("/readyz", self._health)
        return text if self._sticky else STICKY.sub("", text)

    def complaints(self) -> list[str]:
        """The lines of nginx's log of errors; HAProxy writes none."""
        log = Path(self._folder.name) / "error.log"
        return log.read_text("utf-8").splitlines() if log.exists() else []

    def tries(self) -> list[tuple[str, str, list[str]]]:
        """nginx's: path, status and the statuses of each try, of all requests so far."""
        lines = (Path(self._folder.name) / "access.log").read_text("utf-8").splitlines()
        words = [line.replace(", ", ",").split() for line in lines]
        return [(path, status, tried.split(",")) for path, status, _, tried in words]

    def _wait(self, folder: Path) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=5).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    said = (folder / "output.log").read_text("utf-8")
                    raise RuntimeError(f"{self.name} does not listen: {said[-2000:]}") from None
                time.sleep(0.05)
