"""The core's cost, beside `openai_harmony.StreamableParser` in one run.

    python benchmarks/core.py [--json] [--rounds N]

Ratios compare the two on the same ids in the same process, round by round in turns, best round against best round, in
processor time of the thread: what else the machine does touches both, and little. The peer is fed token by token, as it
can only be, and read as a server must read it, the channel, the recipient and the delta after every token. A second row
for whole replies has it fed alone, with its messages read once at the end: the least that a caller can do. Our
one-token chunks are new lists, as a server makes them. Both are warm: vocabularies are loaded.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

from openai_harmony import Role, StreamableParser

from harmony_plugin import Options, Stream, parse
from harmony_plugin.core import harmony_encoding

LENGTHS = (1_000, 10_000, 100_000)
PROSE = (
    "The user asks about the weather in Paris. I should look it up with the tool, then answer in one or two sentences; "
    "if the tool fails, I say so. Let's check: 21 °C, light wind from the west — “fine”, as they say. "
)
ENCODING = harmony_encoding()


class Row(NamedTuple):
    """One line of the table. ``better``: whether the value should be above or below the target."""

    what: str
    ours: str
    peer: str
    value: float
    unit: str
    target: float | None = None
    better: str = "above"
    #: For what is plotted: how it was fed, how many ids, and microseconds an id of both.
    plotted: tuple[str, int, float, float] | None = None

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "above" else self.value <= self.target


def reply_ids(length: int) -> list[int]:
    """A reply of about so many ids: reasoning, a tool call, reasoning again, an answer."""

    def marked(text: str) -> list[int]:
        return list(ENCODING.encode(text, allowed_special="all"))

    prose = ENCODING.encode(PROSE, allowed_special="all")

    def body(size: int) -> list[int]:
        return (prose * (size // len(prose) + 1))[:size]

    parts = [
        marked("<|channel|>analysis<|message|>"),
        body(length * 5 // 10),
        marked("<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"),
        marked('{"location": "Paris", "unit": "celsius"}<|call|><|start|>assistant<|channel|>analysis<|message|>'),
        body(length * 1 // 10),
        marked("<|end|><|start|>assistant<|channel|>final<|message|>"),
    ]
    used = sum(map(len, parts)) + 1
    return [token for part in (*parts, body(length - used), marked("<|return|>")) for token in part]


def ours_by_token(ids: list[int]) -> None:
    stream = Stream(tools=["get_weather"])
    for token in ids:
        delta = stream.feed([token])
        _ = delta.reasoning_content, delta.content, delta.tool_calls
    stream.finish()


def peer_by_token(ids: list[int]) -> None:
    parser = StreamableParser(ENCODING, Role.ASSISTANT)
    for token in ids:
        parser.process(token)
        _ = parser.current_channel, parser.current_recipient, parser.last_content_delta
    parser.process_eos()


def ours_whole(ids: list[int]) -> None:
    parse(ids, tools=["get_weather"])


def peer_whole(ids: list[int]) -> None:
    parser = StreamableParser(ENCODING, Role.ASSISTANT)
    for token in ids:
        parser.process(token)
    parser.process_eos()
    _ = parser.messages


def best(runs: dict[str, tuple[Callable[[], None], int]], rounds: int) -> dict[str, float]:
    """Best seconds of a run, by name: ``(run, how often in a round)``; in turns."""
    seconds = dict.fromkeys(runs, float("inf"))
    for run, _ in runs.values():
        run()
    gc.collect()
    for _ in range(rounds):
        for name, (run, times) in runs.items():
            begin = time.thread_time()
            for _ in range(times):
                run()
            seconds[name] = min(seconds[name], (time.thread_time() - begin) / times)
    return seconds


def microseconds(seconds: float, per: int) -> str:
    return f"{seconds / per * 1e6:.3f} us/token"


def versus(what: str, ours: Callable[[list[int]], None], peer: Callable[[list[int]], None], ids: list[int],
           target: float | None, rounds: int, way: str = "") -> Row:  # fmt: skip
    # Rounds of some milliseconds: shorter ones measure the clock.
    times = max(1, 20_000 // len(ids))
    seconds = best({"ours": (lambda: ours(ids), times), "peer": (lambda: peer(ids), max(1, times // 4))}, rounds)
    size = len(ids)
    plotted = (way, size, *(round(seconds[name] / size * 1e6, 4) for name in ("ours", "peer"))) if way else None
    return Row(what, microseconds(seconds["ours"], size), microseconds(seconds["peer"], size),
               seconds["peer"] / seconds["ours"], "x", target, plotted=plotted)  # fmt: skip


def flatness(what: str, run: Callable[[list[int]], None], rounds: int) -> Row:
    short, long = reply_ids(1_000), reply_ids(100_000)
    seconds = best({"short": (lambda: run(short), 50), "long": (lambda: run(long), 1)}, rounds)
    each = seconds["short"] / len(short), seconds["long"] / len(long)
    return Row(what, f"{each[1] * 1e6:.3f} us/token", f"{each[0] * 1e6:.3f} us/token at 1,000", each[1] / each[0], "x",
               1.2, "below")  # fmt: skip


def megabyte(rounds: int) -> Row:
    body = (PROSE * 6_000)[: 500 * 1024 - 100]
    text = f"<|channel|>analysis<|message|>{body}<|end|><|start|>assistant<|channel|>final<|message|>{body}<|return|>"
    seconds = best({"ours": (lambda: check(parse(text).content), 5)}, rounds)["ours"]
    return Row(f"{len(text) / 1e6:.2f} million characters of text parsed", f"{seconds * 1e3:.2f} ms", "", seconds * 1e3,
               "ms", 3, "below")  # fmt: skip


def check(value: object) -> None:
    assert value


def import_time(rounds: int) -> Row:
    code = "import time; t = time.thread_time(); import harmony_plugin; print(time.thread_time() - t)"
    # As pip leaves a package: compiled. The least of several is that of a run that had the compiled files.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    times = [float(subprocess.run(command, capture_output=True, check=True, env=env).stdout) for _ in range(rounds + 5)]
    return Row("import harmony_plugin", f"{min(times) * 1e3:.1f} ms", "", min(times) * 1e3, "ms", 30, "below")


def memory(what: str, length: int, keep: bool) -> Row:
    """Bytes that a stream holds after so many ids."""
    ids = reply_ids(max(length, 1_000))[:length]
    options = Options(keep=keep)
    count = 200 if length < 10_000 else 1
    ours_by_token(ids)
    gc.collect()
    tracemalloc.start()
    streams = [Stream(options=options) for _ in range(count)]
    for stream in streams:
        for token in ids:
            stream.feed([token])
    size = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()
    return Row(what, f"{size / 1024:.1f} KiB", "", size / 1024, "KiB")


def machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def rows(rounds: int) -> list[Row]:
    found = [versus(f"one-token chunks, {size:,} ids", ours_by_token, peer_by_token, reply_ids(size), 4, rounds,
                    "streamed") for size in LENGTHS[:2]]  # fmt: skip
    for size in (300, *LENGTHS):
        ids = reply_ids(size)
        target = 30 if size in LENGTHS else None
        found.append(versus(f"whole reply, {size:,} ids", ours_whole, peer_by_token, ids, target, rounds, "whole"))
        found.append(versus("— the peer fed alone, its messages read once", ours_whole, peer_whole, ids, None, rounds))
    found += [
        flatness("token by token: 100,000 ids against 1,000", ours_by_token, rounds),
        flatness("whole reply: 100,000 ids against 1,000", ours_whole, rounds),
        megabyte(rounds),
        import_time(rounds),
        memory("memory of a new stream", 0, keep=True),
        memory("memory of a stream after 1,000 ids, keep=True", 1_000, keep=True),
        memory("memory of a stream after 1,000 ids, keep=False", 1_000, keep=False),
        memory("memory of a stream after 50,000 ids, keep=False", 50_000, keep=False),
    ]
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--json", action="store_true", help="figures as JSON")
    arguments.add_argument("--rounds", type=int, default=15, help="how many rounds the best is taken of")
    given = arguments.parse_args()
    found = rows(given.rounds)
    if given.json:
        names = ("way", "length", "ours_us", "peer_us")
        figures: list[dict[str, Any]] = [
            row._asdict() | {"met": row.met} | dict(zip(names, row.plotted or (), strict=False)) for row in found
        ]
        print(json.dumps({"machine": machine(), "rows": figures}, indent=2))
        return
    print(f"{machine()}; best of {given.rounds} rounds, in turns\n")
    print("| what | harmony_plugin | openai_harmony | result | target |")
    print("| --- | --- | --- | --- | --- |")
    for row in found:
        sign = "at least" if row.better == "above" else "at most"
        target = "" if row.target is None else f"{sign} {row.target:g} {row.unit}" + ("" if row.met else " **missed**")
        print(f"| {row.what} | {row.ours} | {row.peer} | {row.value:.3g} {row.unit} | {target} |")


if __name__ == "__main__":
    main()
