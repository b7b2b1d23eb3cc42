"""From settings to a listening server. Knows the command line, the terminal and uvicorn; every way to fail is one line
and an exit code."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TextIO

import uvicorn
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from ...api.hosted import HostedTools
from ...settings import suspects
from .. import ProcessorFactory
from . import about, stock
from .app import create_app, create_host
from .host import Host, Progress
from .mcp import find_tools
from .settings import Chosen, Flags, ModelSettings, ServerSettings, SettingsError, complain, read_settings, say
from .store_file import StoreError

__all__ = ["main"]

log = logging.getLogger("harmony_plugin.server")

NO_MODEL = 1
WRONG_SETTINGS = 2
NO_ADDRESS = 3
INTERRUPTED = 130  # as a shell has it
KEEP_ALIVE = 75  # seconds; longer than balancers keep an idle connection (nginx, AWS: 60), or a request meets its end
GRACE = 2  # seconds for the last words, to clients whose replies were ended


def main(
    argv: Sequence[str] | None = None,
    *,
    parser: Flags | None = None,
    hook: Callable[[argparse.Namespace], ProcessorFactory | None] | None = None,
) -> None:
    """Run the server until it is told to stop.

    Args:
        parser: with more flags than the stock server's.
        hook: given the flags, what `HarmonyChatHandler(logits_processors=...)` gets.
    """
    try:
        chosen = read_settings(argv, parser=parser)
        factory = hook(chosen.arguments) if hook is not None else None
    except SettingsError as error:
        complain(str(error))
        sys.exit(WRONG_SETTINGS)
    for line in suspects():
        complain(line)
    if chosen.ignored:
        complain(f"{', '.join(chosen.ignored)}: not read, the config file replaces flags; set it there")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    host = create_host(chosen.models, chosen.server.max_queue, factory, chosen.server.models_max)
    try:
        mcp_tools = None if chosen.mcp is None else find_tools(chosen.mcp)
        app = create_app(host, chosen.server, mcp_tools)
    except (SettingsError, StoreError) as error:
        complain(str(error))
        sys.exit(WRONG_SETTINGS)
    config = uvicorn.Config(
        app,
        host=chosen.host,
        port=chosen.port,
        ssl_keyfile=chosen.server.ssl_keyfile,
        ssl_certfile=chosen.server.ssl_certfile,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        ws_max_size=chosen.server.max_body_mb << 20,
        log_config=None,  # as the rest
        access_log=False,  # there is a line for each request, which says more
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # What takes no time and can fail comes first: a large model takes minutes.
    try:
        config.load()  # certificates and all
    except (OSError, ValueError) as error:
        complain(f"cannot serve: {error}")
        sys.exit(WRONG_SETTINGS)
    try:
        sockets = bind(chosen.host, chosen.port)
    except OSError as error:
        complain(_not_bound(chosen, error))
        sys.exit(NO_ADDRESS)
    _load(host, chosen.models)
    try:
        _Listener(config, host, chosen.server, None if mcp_tools is None else mcp_tools.hosted).run(sockets)
    except OSError as error:  # somebody else began to listen while the model was loaded
        complain(_not_bound(chosen, error))
        sys.exit(NO_ADDRESS)
    except KeyboardInterrupt:
        pass
    finally:
        host.close()


def _load(host: Host, models: Sequence[ModelSettings]) -> None:
    """Load the first model, after a look at the files of all; or end the process and say why."""
    for model in models:
        try:
            if model.hf_model_repo_id is None:
                stock.check_file(model.model)
        except (OSError, ValueError) as error:
            complain(f"cannot serve model {model.model}: {error}")
            sys.exit(NO_MODEL)
    try:
        with interruptible() as check, progress_on(sys.stderr) as progress:

            def show(what: str, share: float) -> None:
                check()
                progress(what, share)

            host.load(show)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        file, repository = models[0].model, models[0].hf_model_repo_id
        where = f" of {repository} on the Hugging Face hub" if repository else ""
        complain(f"cannot serve model {file}{where}: {_not_loaded(error).removeprefix(f'{file}: ')}")
        sys.exit(NO_MODEL)


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Ctrl+C while llama.cpp works. As Python raises it, it would be raised in a callback from C, and be lost: it is
    noted, and raised by the function that this gives, or at the end. A second one is raised at once."""
    pressed = False

    def note(number: int, frame: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield check
        check()
    finally:
        signal.signal(signal.SIGINT, before)


class _Listener(uvicorn.Server):
    """Says what is served, once it is; and when it is told to stop, finishes what it has begun.

    uvicorn by itself stops listening at once, and the library of our streams ends them half a second later.
    """

    def __init__(
        self, config: uvicorn.Config, host: Host, settings: ServerSettings, hosted: HostedTools | None
    ) -> None:
        super().__init__(config)
        self._hosted = hosted
        self._host = host
        self._settings = settings
        self._told = False
        self._until: float | None = None  # when what runs is ended; None: nobody has said that it should

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first SIGTERM: finish what runs, for some time. Ctrl+C, or a second signal: end it. The next: go."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + (self._settings.drain_seconds if sig == signal.SIGTERM else 0)
            self._host.drain()
        elif now < self._until:
            self._until = now
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn's, ten times a second."""
        if self._until is not None and not self.should_exit:
            self.should_exit = self._finished(self._until - time.monotonic())
        return await super().on_tick(counter)

    def _finished(self, left: float) -> bool:
        """Whether nothing is under way any more, or it was ended and has had its time. `left`: seconds until it is."""
        running = self._host.under_way
        if running and not self._told:
            self._told = True
            log.info("stopping: %d under way, %.0f s for them", running, max(0.0, left))
        if running and left <= 0:
            self._host.stop()
        return not running or left <= -GRACE

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        scheme = "https" if self.config.is_ssl else "http"
        port = sockets[0].getsockname()[1] if sockets else self.config.port
        lines = about.banner(
            self._host,
            scheme,
            self.config.host,
            port,
            keyed=bool(self._settings.api_keys),
            ui=self._settings.ui,
            hosted=self._hosted,
        )
        for line in lines:
            say(line)


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets for all addresses of `host`, bound and not yet listening, all on one port.

    Args:
        port: 0: any that is free.

    Raises:
        OSError: an address is in use, is not this machine's, or is not to be had.
    """
    sockets: list[socket.socket] = []
    failed: OSError | None = None
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            one = socket.socket(family, kind, protocol)
        except OSError as error:  # this machine has no IPv6, say
            failed = error
            continue
        try:
            if os.name == "posix":
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            used = sockets[0].getsockname()[1] if sockets and not port else port
            one.bind((address[0], used, *address[2:]))
        except OSError as error:
            one.close()
            failed = error
            if error.errno == errno.EADDRNOTAVAIL:
                continue
            for other in sockets:
                other.close()
            raise
        sockets.append(one)
    if not sockets:
        raise failed or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return sockets


@contextmanager
def progress_on(stream: TextIO) -> Iterator[Progress]:
    """Shows how far loading is: a bar on a terminal, now and then a line elsewhere.

    Args:
        stream: a real file; llama-cpp-python turns the process's own output off meanwhile, so this writes to a copy.
    """
    try:
        copy = os.dup(stream.fileno())
    except OSError:  # no real file: nobody looks
        yield lambda what, share: None
        return
    try:
        if not os.isatty(copy):
            yield _Lines(copy).show
            return
        with open(copy, "w", encoding=stream.encoding, errors="replace", closefd=False) as out:
            columns = (TextColumn("loading {task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
            with Bars(*columns, console=Console(file=out), transient=True) as bars:
                bar = bars.add_task("the model", total=1.0)
                yield lambda what, share: bars.update(bar, description=what, completed=share)
    finally:
        os.close(copy)


class _Lines:
    """Progress as lines, none of them within seconds of the one before."""

    PAUSE = 5.0

    def __init__(self, out: int) -> None:
        self._out = out
        self._next = 0.0

    def show(self, what: str, share: float) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self.PAUSE
            line = f"loading {what}" + (f": {share:.0%}" if share else "") + "\n"
            with suppress(OSError):  # as in `say`
                os.write(self._out, line.encode("utf-8", "replace"))


def _not_bound(chosen: Chosen, error: OSError) -> str:
    where = f"{chosen.host}:{chosen.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: stop what listens there, or choose another port with --port (0: any that is free)"
    if error.errno == errno.EACCES:
        return f"{where}: not allowed to listen there; ports below 1024 need rights, --port chooses another"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return (
            f"{chosen.host} is no address of this machine: --host 127.0.0.1 is this machine alone, 0.0.0.0 its network"
        )
    return f"cannot listen on {where}: {error.strerror or error}"


def _not_loaded(error: Exception) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    if said.startswith("Failed to load model"):
        said += " (is the file whole, and made for this llama.cpp? `--verbose true` shows what llama.cpp says)"
    elif "llama_context" in said:
        said += " (most likely too little memory: a smaller --n_ctx needs less; `--verbose true` shows more)"
    return said
