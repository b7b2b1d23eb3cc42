"""The core's cost beside that of an earlier commit, in one process and one run.

    python benchmarks/core_before.py [REVISION] [--rounds N]

Both are imported side by side under names of their own and take the same ids in turns; a row is the best round of each,
in processor time of the thread, and their ratio (above 1: the core as it is now is the faster one). Default: the last
commit.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import io
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))


def load(name: str, folder: Path) -> ModuleType:
    """The package in ``folder``, as ``name``: the core imports itself by relative names alone."""
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def at(revision: str, into: Path) -> Path:
    """The package as it was at a revision."""
    packed = subprocess.run(["git", "archive", revision, "src"], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(into, filter="data")
    return into / "src" / "harmony_plugin"


def by_token(core: ModuleType, ids: list[int]) -> None:
    stream = core.Stream(options=core.Options(keep=False))
    feed = stream.feed
    for token in ids:
        feed([token])
    stream.finish()


def whole(core: ModuleType, ids: list[int]) -> None:
    core.parse(ids)


def headers(core: ModuleType, ids: list[int]) -> None:
    """Many short messages: what headers cost."""
    for _ in range(20):
        core.parse(ids)


def best(
    run: Callable[[ModuleType, Any], None], cores: tuple[ModuleType, ModuleType], ids: Any, rounds: int
) -> list[float]:
    seconds = [float("inf")] * 2
    for core in cores:
        run(core, ids)
    gc.disable()
    for turn in range(rounds):
        for number in (0, 1) if turn % 2 else (1, 0):
            begun = time.thread_time()
            run(cores[number], ids)
            seconds[number] = min(seconds[number], time.thread_time() - begun)
    gc.enable()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", nargs="?", default="HEAD")
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    from core import ENCODING, reply_ids

    with tempfile.TemporaryDirectory() as folder:
        before = load("harmony_before", at(given.revision, Path(folder)))
        now = load("harmony_now", ROOT / "src" / "harmony_plugin")
        message = "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>"
        rows: list[tuple[str, Callable[[ModuleType, Any], None], Any, int]] = []
        for length in (1_000, 10_000, 100_000):
            rows.append((f"one-token chunks, {length:,} ids", by_token, reply_ids(length), length))
            rows.append((f"whole reply, {length:,} ids", whole, reply_ids(length), length))
        short = list(ENCODING.encode(message * 50, allowed_special="all"))
        rows.append(("50 short calls, whole", headers, short, 20 * len(short)))
        rows.append(("50 short calls as text, whole", headers, message * 50, 20 * len(short)))
        print(f"µs a token, best of {given.rounds} rounds: before ({given.revision}), now, before/now")
        for what, run, ids, count in rows:
            old, new = best(run, (before, now), ids, max(3, given.rounds * 1000 // max(1000, count // 10)))
            print(f"{what:32} {old / count * 1e6:8.4f} {new / count * 1e6:8.4f} {old / new:6.2f}")


if __name__ == "__main__":
    main()
