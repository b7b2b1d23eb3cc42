"""A folder of replies split on Ray: two local nodes of one CPU each, measured with one of them and with both.

    python benchmarks/ray_folder.py --replies 1000000

The replies are the split cases (`tests/cases/split.jsonl`) in turn, as token ids in Parquet files. With both nodes up
one worker is killed while it is at a file; then a job is killed in the middle and started again. Each time every reply
is held by its id against what the core gives: none lost, none doubled, none other.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "rigs")]
# Workers run the code that this process does.
os.environ["PYTHONPATH"] = os.pathsep.join((sys.path[0], sys.path[1], os.environ.get("PYTHONPATH", "")))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Else Ray ends workers where other programs fill the machine's memory.
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")

import psutil  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from vllm_rig import cases  # noqa: E402

from harmony_plugin import parse  # noqa: E402
from harmony_plugin.ray.folders import split_folder  # noqa: E402

#: Seconds until Ray Data has surely seen a node: it looks every 20.
JOINED = 25
ACTOR = "ray::MapWorker(Map(_Splitter))"


def digest(identity: int, reasoning: str | None, content: str | None, calls: list[tuple[str, str]]) -> int:
    """A reply with its id as a number; of a set of replies the sum tells whether it is another."""
    text = json.dumps([identity, reasoning, content, calls], ensure_ascii=False)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def write(folder: Path, replies: int, files: int) -> tuple[int, int]:
    """Write the replies; gives their tokens and the sum of what the core makes of them."""
    whole = cases.load()
    ids = pa.array([case.ids for case in whole], pa.list_(pa.int32()))
    tools = pa.array([json.dumps(case.tools) for case in whole])
    lengths = [len(case.ids) for case in whole]
    right = [parse(case.ids, tools=case.tools) for case in whole]
    calls = [[(call.name, call.arguments) for call in reply.tool_calls] for reply in right]
    tokens = total = 0
    each = -(-replies // files)
    for number in range(files):
        numbers = range(number * each, min(replies, (number + 1) * each))
        which = pa.array([identity % len(whole) for identity in numbers], pa.int32())
        table = pa.table({"id": list(numbers), "generated_tokens": ids.take(which), "tools": tools.take(which)})
        pq.write_table(table, folder / f"{number:05}.parquet")
        for identity in numbers:
            case = identity % len(whole)
            tokens += lengths[case]
            total += digest(identity, right[case].reasoning_content, right[case].content, calls[case])
    return tokens, total


def read(folder: Path) -> tuple[int, int]:
    """How many replies there are, and their sum."""
    count = total = 0
    for file in sorted(folder.glob("*.parquet")):
        names = ["id", "reasoning_content", "content", "tool_calls"]
        for row in pq.read_table(file, columns=names).to_pylist():
            calls = [(call["function"]["name"], call["function"]["arguments"]) for call in row["tool_calls"]]
            total += digest(row["id"], row["reasoning_content"], row["content"], calls)
            count += 1
    return count, total


def workers() -> Iterator[tuple[psutil.Process, bool]]:
    """The actors of the cluster that was started here, and whether each is at a file."""
    for process in psutil.Process().children(recursive=True):
        try:
            title = "".join(process.cmdline()[:1])
            if title in (ACTOR, f"{ACTOR}.submit"):
                yield process, title != ACTOR
        except psutil.Error:
            continue


class Watch:
    """Samples the workers' memory and CPU time in a thread, and kills one of them where it is told to."""

    def __init__(self, kill_after: float | None = None) -> None:
        self.memory: list[float] = []
        self.most = 0
        self.cpu: dict[int, tuple[float, float]] = {}  # by process: at the first sample, at the last
        self.killed: int | None = None
        self._kill_at = None if kill_after is None else time.monotonic() + kill_after
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(1.0):
            found = list(workers())
            busy = [process for process, at_a_file in found if at_a_file]
            self.most = max(self.most, len(busy))
            for process, _ in found:
                try:
                    self.memory.append(process.memory_info().rss / 2**20)
                    used = sum(process.cpu_times()[:2])
                    self.cpu[process.pid] = (self.cpu.get(process.pid, (used, used))[0], used)
                except psutil.Error:
                    continue
            if busy and self._kill_at is not None and time.monotonic() > self._kill_at:
                os.kill(busy[0].pid, signal.SIGKILL)
                self.killed, self._kill_at = busy[0].pid, None


def run(source: Path, target: Path, every: float = 10.0) -> dict[str, Any]:
    """Split the folder, telling how far it is."""
    began = told = time.monotonic()
    replies = files = skipped = 0
    for done in split_folder(str(source), str(target)):
        files, replies, skipped = files + 1, replies + done.replies, skipped + done.skipped
        if time.monotonic() > told + every:
            told = time.monotonic()
            print(f"  {files} files, {replies} replies, {replies / (told - began):.0f} a second", flush=True)
    return {"replies": replies, "files": files, "skipped": skipped, "seconds": time.monotonic() - began}


def flat(memory: list[float]) -> str:
    """A worker's memory in the first and in the last quarter of its samples."""
    quarter = max(1, len(memory) // 4)
    first, last = sorted(memory[:quarter]), sorted(memory[-quarter:])
    begun, ended = first[len(first) // 2], last[len(last) // 2]
    return f"{begun:.0f} MiB in the first quarter, {ended:.0f} in the last, {max(memory):.0f} at most"


def measure(
    source: Path, target: Path, expected: tuple[int, int], tokens: int, kill_after: float | None = None
) -> None:
    with Watch(kill_after) as watch:
        told = run(source, target)
    right = read(target) == expected
    rate = told["replies"] / told["seconds"]
    killed = "" if kill_after is None else f"; worker {'killed on the way' if watch.killed else 'NOT killed'}"
    print(
        f"{target.name}: {told['replies']} replies in {told['seconds']:.1f} s, {rate:.0f} replies/s, "
        f"{rate * tokens / expected[0] / 1e6:.2f} M tokens/s{killed}; count and sum {'right' if right else 'WRONG'}\n"
        f"  {watch.most} workers at once, {sum(last - first for first, last in watch.cpu.values()):.1f} s of CPU; "
        f"the memory of one: {flat(watch.memory) if watch.memory else 'not seen'}",
        flush=True,
    )
    if not right:
        raise SystemExit(1)


def interrupted(source: Path, target: Path, address: str, expected: tuple[int, int], after: float) -> None:
    """End a job in the middle, as Ctrl+C and a lost machine do, and start it again."""
    job = [sys.executable, str(ROOT / "examples" / "ray_split.py"), str(source), str(target), "--address", address]
    first = subprocess.Popen(job, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(target.glob("[!.]*.parquet"))) < after and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    first.kill()
    first.wait()
    told = run(source, target)
    right = read(target) == expected
    print(
        f"{target.name}: job killed and started again: {told['skipped']} of {told['files']} files were done before; "
        f"count and sum {'right' if right else 'WRONG'}",
        flush=True,
    )
    if not right:
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replies", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=100)
    arguments = parser.parse_args()
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # its own progress; this tells its own
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, Python {platform.python_version()}, Ray {ray.__version__}")
    with tempfile.TemporaryDirectory() as work:
        small, source = Path(work) / "a few", Path(work) / "replies"
        small.mkdir()
        source.mkdir()
        write(small, 100, 2)
        tokens, total = write(source, arguments.replies, arguments.files)
        expected = (arguments.replies, total)
        print(
            f"{arguments.replies} replies, {tokens / arguments.replies:.0f} tokens each, in {arguments.files} files",
            flush=True,
        )
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            ray.init(address=cluster.address, log_to_driver=False, logging_level="warning")
            run(small, Path(work) / "warm-up")
            measure(source, Path(work) / "one worker", expected, tokens)
            cluster.add_node(num_cpus=1)
            time.sleep(JOINED)
            run(small, Path(work) / "warm-up of two")
            measure(source, Path(work) / "two workers", expected, tokens)
            measure(source, Path(work) / "two workers, one killed", expected, tokens, kill_after=5.0)
            interrupted(source, Path(work) / "interrupted", cluster.address, expected, arguments.files / 3)
        finally:
            ray.shutdown()
            cluster.shutdown()


if __name__ == "__main__":
    main()
