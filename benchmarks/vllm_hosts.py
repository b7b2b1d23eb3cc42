"""vLLM on two hosts, one of which goes; and two API servers, one of which is killed: what the clients see.

Hosts are network namespaces of this machine (Linux, as root), joined by a pair of virtual network cards. Host A runs
the API server and one engine, host B another engine (`--headless`), for the tiny dense model whose words are scripted.

- Streams on three APIs while all is well; then long ones, in the middle of which host B goes, by its processes' death
  or by its network's; then new ones; then host B comes back.
- The other way: a whole server on each host and HAProxy in front of both, streams as before, host B's network gone.
- One server that is told to stop in the middle of long streams: by SIGTERM to its first process, as a container gets
  it, or to all of them, as systemd sends it unless told otherwise; and without time to end.
- One host with `--api-server-count 2`: long streams, in the middle of which an API server is killed; then the server is
  started again, as systemd or Kubernetes would.

Each reply is compared with what was scripted. `cut`: the client was told, or its connection closed; `hung`: nothing
came for a time.

    sudo .venv/bin/python benchmarks/vllm_hosts.py [hosts] [link] [balanced] [stop] [api] [--streams 12]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "rigs"))

from balancer_rig import Balancer, binary
from vllm_rig.cases import right
from vllm_rig.faults import WEATHER
from vllm_rig.load import WORDS
from vllm_rig.load import script as short_script
from vllm_rig.model import model_directory
from vllm_rig.replies import APIS, Api, Clients, Script, comparable, encode
from vllm_rig.server import MODEL, PARSERS, SAYING, Launch, Server, environment, running, start, stop

A, B = "10.99.0.1", "10.99.0.2"
RPC = "13345"
WHAT = ("hosts", "link", "balanced", "stop", "api")
HEAD = "| streams | exact | cut | hung | wrong |\n| --- | --- | --- | --- | --- |"
HUNG = 180.0  # seconds for a whole stream, which takes some 20 on a machine that does nothing else
BACK = 90  # seconds that host B has to start anew
DATA_PARALLEL = ("--data-parallel-size", "2", "--data-parallel-size-local", "1", "--data-parallel-address", A)
DATA_PARALLEL += ("--data-parallel-rpc-port", RPC)


# Hosts


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def enter(namespace: int) -> None:
    """Have this thread, and the processes that it starts, in a network namespace, by its file."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, 0):
        raise OSError(ctypes.get_errno(), "setns")


@dataclass
class Hosts:
    """Two network namespaces that see each other and nothing else."""

    a: str = field(default_factory=lambda: f"hosts-a-{os.getpid()}")
    b: str = field(default_factory=lambda: f"hosts-b-{os.getpid()}")

    def __enter__(self) -> Hosts:
        for name in (self.a, self.b):
            ip("netns", "add", name)
        ip("-n", self.a, "link", "add", "to-b", "type", "veth", "peer", "name", "to-a", "netns", self.b)
        for name, card, address in ((self.a, "to-b", A), (self.b, "to-a", B)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", card)
            for each in ("lo", card):
                ip("-n", name, "link", "set", each, "up")
        # This process, and what it starts, is on host A from here on.
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.a}", os.O_RDONLY)
        enter(there)
        os.close(there)
        return self

    def __exit__(self, *_: object) -> None:
        enter(self._home)
        os.close(self._home)
        for name in (self.a, self.b):
            ip("netns", "del", name)

    def link(self, state: str) -> None:
        """`up` or `down`: host B's network. What it sends and gets vanishes; no connection is closed."""
        ip("-n", self.b, "link", "set", "to-a", state)


@dataclass
class OnB:
    """A `vllm serve` on host B: what has no API there (`--headless`), or a server of its own."""

    hosts: Hosts
    log: Path
    flags: tuple[str, ...]

    def start(self) -> None:
        command = ["ip", "netns", "exec", self.hosts.b, sys.executable, "-m", "vllm.entrypoints.cli.main", "serve"]
        command += [str(model_directory("llama")), "--served-model-name", MODEL, "--load-format", "dummy"]
        command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "4096", *SAYING, *PARSERS, *self.flags]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                env=environment() | {"VLLM_HOST_IP": B, "GLOO_SOCKET_IFNAME": "to-a"},
                start_new_session=True,
            )

    def kill(self) -> None:
        """All its processes, at once; the kernel closes their connections."""
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            for each in (*psutil.Process(self.process.pid).children(recursive=True), self.process):
                os.kill(each.pid, signal.SIGKILL)
        self.process.wait()


# Streams


def long_script(seed: int) -> Script:
    """Some 1,500 tokens of reasoning and answer."""
    dice = random.Random(seed)
    think, say = (" ".join(dice.choice(WORDS) for _ in range(400)) for _ in range(2))
    return Script(
        tuple(
            encode(
                f"<|channel|>analysis<|message|>{think}<|end|><|start|>assistant<|channel|>final<|message|>{say}<|return|>"
            )
        )
    )


async def streams(
    url: str, count: int, make: Callable[[int], Script], fault: Callable[[], None] | None = None, pause: float = 0
) -> Counter[str]:
    """How so many streams at once ended. ``fault``: called some seconds after they began; ``pause``: of each token."""

    async def one(clients: Clients, number: int) -> str:
        wanted, api = make(number), APIS[number % len(APIS)]
        return await outcome(clients, api, wanted, pause)

    async with Clients(url) as clients:
        tasks = [asyncio.create_task(one(clients, number)) for number in range(count)]
        if fault is not None:
            await asyncio.sleep(4)
            await asyncio.to_thread(fault)
        return Counter(await asyncio.gather(*tasks))


async def outcome(clients: Clients, api: Api, wanted: Script, pause: float) -> str:
    said = {"vllm_xargs": {"script": list(wanted.ids), "script_pause": pause}}
    try:
        told = await asyncio.wait_for(clients.ask(api, wanted, stream=True, tools=[WEATHER], extra=said), HUNG)
    except asyncio.TimeoutError:
        return "hung"
    except Exception as error:
        print(f"    {api}: {type(error).__name__}: {str(error)[:160]}", file=sys.stderr)
        return "cut"
    exact = comparable(told.fields, api, True) == right(wanted, [WEATHER]).fields
    return "exact" if exact else "wrong"


def show(what: str, seen: Counter[str]) -> None:
    print(f"| {what} | " + " | ".join(str(seen[name]) for name in ("exact", "cut", "hung", "wrong")) + " |", flush=True)


def healthy(url: str) -> str:
    try:
        with urllib.request.urlopen(url + "/health", timeout=10) as answer:
            return str(answer.status)
    except OSError as error:
        return str(error)


def work_of_engines(url: str) -> dict[str, int]:
    """Tokens that each engine has generated, by its number."""
    with urllib.request.urlopen(url + "/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found: Counter[str] = Counter()
    for labels, value in re.findall(r"^vllm:generation_tokens_total\{(.*?)\} (\S+)$", text, re.MULTILINE):
        found[re.findall(r'engine="(\d+)"', labels)[0]] += int(float(value))
    return dict(sorted(found.items()))


# What is done


def two_hosts(logs: Path, count: int, *, link: bool) -> bool:
    """Whether all was exact that had nothing to do with the host that went."""
    with Hosts() as hosts, contextlib.ExitStack() as stack:
        engines = OnB(hosts, logs / "b.log", ("--headless", *DATA_PARALLEL, "--data-parallel-start-rank", "1"))
        engines.start()
        stack.callback(engines.kill)
        launch = Launch(
            kind="llama",
            flags=(*DATA_PARALLEL, "--api-server-count", "1"),
            environment=(("VLLM_HOST_IP", A), ("GLOO_SOCKET_IFNAME", "to-b")),
        )
        began = time.monotonic()
        server = stack.enter_context(running(launch, logs / "a.log"))
        print(
            f"\nboth hosts were there after {time.monotonic() - began:.0f} s; host B goes by its "
            f"{'network' if link else 'processes'}\n\n{HEAD}"
        )
        before = asyncio.run(streams(server.url, count, short_script))
        show("while all is well", before)
        print(f"  tokens by engine: {work_of_engines(server.url)}", file=sys.stderr)

        def fault() -> None:
            if link:
                hosts.link("down")
            else:
                engines.kill()

        show("host B goes in the middle of them", asyncio.run(streams(server.url, count, long_script, fault)))
        print(f"  /health: {healthy(server.url)}; exit code of the server: {server.process.poll()}", file=sys.stderr)
        if server.process.poll() is not None:
            return before["exact"] == count
        show("begun after that", asyncio.run(streams(server.url, count, short_script)))
        if link:
            hosts.link("up")
        else:
            engines.start()
        time.sleep(BACK)
        show(f"host B is back for {BACK} s", asyncio.run(streams(server.url, count, short_script)))
        print(f"  tokens by engine: {work_of_engines(server.url)}", file=sys.stderr)
        return before["exact"] == count


def two_servers(logs: Path, count: int) -> bool:
    """A whole server on each host, HAProxy in front of both, as in `examples/deploy/balancer`."""
    there = f"{B}:8000"
    with Hosts() as hosts, contextlib.ExitStack() as stack:
        other = OnB(hosts, logs / "other.log", ("--host", B, "--port", "8000"))
        other.start()
        stack.callback(other.kill)
        server = stack.enter_context(running(Launch(kind="llama"), logs / "own.log"))
        until_healthy(f"http://{there}")
        own = server.url.removeprefix("http://")
        balancer = stack.enter_context(Balancer("haproxy", [own, there], sticky=False, health="/health"))
        print(f"\na server on each host, HAProxy in front; host B goes by its network\n\n{HEAD}")
        before = asyncio.run(streams(balancer.url, count, short_script))
        show("while all is well", before)
        during = asyncio.run(streams(balancer.url, count, long_script, lambda: hosts.link("down")))
        show("host B goes in the middle of them", during)
        after = asyncio.run(streams(balancer.url, count, short_script))
        show("begun after that", after)
        hosts.link("up")
        until_healthy(f"http://{there}")
        time.sleep(5)
        back = asyncio.run(streams(balancer.url, count, short_script))
        show("host B is back", back)
        return before["exact"] == after["exact"] == back["exact"] == count and not during["hung"] + during["wrong"]


def until_healthy(url: str) -> None:
    while healthy(url) != "200":
        time.sleep(0.5)


def told_to_stop(logs: Path, count: int) -> bool:
    """Whether a server that has the time, and is told as a container is, ends all streams as they should."""
    print(f"\none server, told to stop in the middle of long streams\n\n{HEAD}")
    kept = False
    for what, seconds, everyone in (
        ("its first process is told, --shutdown-timeout 100", 100, False),
        ("all its processes are told, --shutdown-timeout 100", 100, True),
        ("its first process is told, no --shutdown-timeout", 0, False),
    ):
        launch = Launch(flags=("--shutdown-timeout", str(seconds)))
        server = start(launch, logs / f"stop-{seconds}-{everyone}.log")
        began, meanwhile = 0.0, ""

        def stopped(server: Server = server, everyone: bool = everyone) -> None:
            nonlocal began, meanwhile
            for process in server.processes() if everyone else server.processes()[:1]:
                process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            time.sleep(2)
            meanwhile = f"/health says {healthy(server.url)}, a chat gets {new_chat(server.url)}"

        try:
            # Slow tokens: the streams go on for longer than a signal takes.
            seen = asyncio.run(streams(server.url, count, long_script, stopped, pause=0.02))
            show(what, seen)
            code = ended(server)
            took = time.monotonic() - began
            print(f"  meanwhile {meanwhile}; it ended with code {code} after {took:.0f} s", file=sys.stderr)
        finally:
            stop(server)
        kept = kept or seen["exact"] == count
    return kept


def new_chat(url: str) -> str:
    """What comes of a chat that is begun now."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello."}], "max_completion_tokens": 5}
    try:
        reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)
    except httpx.HTTPError as error:
        return type(error).__name__
    if reply.status_code != 200:
        return str(reply.status_code)
    (choice,) = reply.json()["choices"]
    return f"200, finish_reason {choice['finish_reason']}, content {choice['message']['content']}"


def two_api_servers(logs: Path, count: int) -> bool:
    launch = Launch(kind="llama", flags=("--api-server-count", "2"))
    server = start(launch, logs / "api.log")
    try:
        print(f"\none host, two API servers\n\n{HEAD}")
        show("both API servers are there", asyncio.run(streams(server.url, count, short_script)))
        killed = 0.0

        def kill() -> None:
            nonlocal killed
            server.api_processes()[0].send_signal(signal.SIGKILL)
            killed = time.monotonic()

        show("one is killed in the middle of them", asyncio.run(streams(server.url, count, long_script, kill)))
        code = ended(server)
        print(
            f"  the server ended with code {code}, {time.monotonic() - killed:.0f} s after the kill at most",
            file=sys.stderr,
        )
    finally:
        stop(server)
    began = time.monotonic()
    with running(launch, logs / "again.log") as server:
        print(f"  started again, it answered after {time.monotonic() - began:.0f} s", file=sys.stderr)
        after = asyncio.run(streams(server.url, count, short_script))
        show("the server was started again", after)
    return after["exact"] == count


def ended(server: Server) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return server.process.wait(120)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*WHAT, []], help="by default all")
    parser.add_argument("--streams", type=int, default=12)
    parser.add_argument("--logs", type=Path, help="a folder for the servers' logs; default: they are thrown away")
    arguments = parser.parse_args()
    chosen = arguments.what or WHAT
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        logs = arguments.logs or Path(temporary)
        logs.mkdir(parents=True, exist_ok=True)
        if "balanced" in chosen and binary("haproxy") is None:
            print("balanced: left out: haproxy is not installed", file=sys.stderr)
        elif "balanced" in chosen:
            good = two_servers(logs, arguments.streams) and good
        if "stop" in chosen:
            good = told_to_stop(logs, arguments.streams) and good
        if "api" in chosen:
            good = two_api_servers(logs, arguments.streams) and good
        for what in ("hosts", "link"):
            if what in chosen:
                good = two_hosts(logs, arguments.streams, link=what == "link") and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
