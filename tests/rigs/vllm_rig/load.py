"""Many clients at once, some of whom hang up: what the load test and the soak script run."""

from __future__ import annotations

import asyncio
import random
import re
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from .cases import right
from .faults import WEATHER
from .replies import APIS, LEFT, Api, Clients, Script, comparable, encode
from .server import Server

WORDS = (
    "sun",
    "rain",
    "Übergröße",
    "北京",
    "🦀",
    "wind",
    "“quoted”",
    "a<b",
    "{x:",
    "1}",
    "naïve",
    "is\nto",
    "in",
    "that",
)


def script(seed: int) -> Script:
    """A reply of some 100 to 300 tokens: reasoning, perhaps a preamble, a call or an answer, perhaps badly formed."""
    dice = random.Random(seed)

    def words(least: int, most: int) -> str:
        return " ".join(dice.choice(WORDS) for _ in range(dice.randint(least, most)))

    between = dice.choice(["<|end|><|start|>assistant", "<|end|><|start|>assistant", "<|end|>", ""])
    text = f"<|channel|>analysis<|message|>{words(30, 80)}{between}"
    if dice.random() < 0.3:
        text += f"<|channel|>commentary<|message|>{words(5, 20)}<|end|><|start|>assistant"
    if dice.random() < 0.4:
        text += f'<|channel|>commentary to=functions.get_weather json<|message|>{{"city": "{words(10, 40)!r}"}}<|call|>'
    else:
        text += f"<|channel|>final<|message|>{words(30, 80)}<|return|>"
    return Script(tuple(encode(text)))


@dataclass
class Round:
    """What one round of clients saw."""

    exact: int = 0
    left: int = 0
    wrong: list[str] = field(default_factory=list)


async def run_round(clients: Clients, seed: int, streams: int = 64, **options: Any) -> Round:
    """So many streams at once, every third hung up on mid-way; each of the others is held against the core.

    `options`: fields of the core's `Options` that the server was started with.
    """

    async def one(number: int) -> tuple[str, Any, Any]:
        wanted = script(seed * 1000 + number)
        api: Api = APIS[number % len(APIS)]
        leave = random.Random(number).randint(5, len(wanted.seen) // 2) if number % 3 == 2 - seed % 3 else None
        try:
            told = await clients.ask(api, wanted, stream=True, tools=[WEATHER], leave_after=leave)
        except Exception as error:
            return api, wanted, error
        return api, wanted, told

    seen = Round()
    for api, wanted, told in await asyncio.gather(*(one(number) for number in range(streams))):
        if isinstance(told, Exception):
            seen.wrong.append(f"{api}: {told!r}")
        elif told.finish == LEFT:
            seen.left += 1
        elif comparable(told.fields, api, True) == right(wanted, [WEATHER], **options).fields:
            seen.exact += 1
        else:
            seen.wrong.append(f"{api}: got {told.fields}")
    return seen


def unfinished(url: str) -> int:
    """Requests that the engine still works on, by the server's own metrics."""
    with urllib.request.urlopen(url + "/metrics", timeout=30) as answer:
        text = answer.read().decode()
    counts = re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*?\} ([0-9.e+]+)$", text, flags=re.MULTILINE)
    return int(sum(float(count) for count in counts))


def api_memory(server: Server) -> int:
    """Resident memory of the API server processes, in bytes."""
    return sum(process.memory_info().rss for process in server.api_processes())


def complaints(log: str) -> list[str]:
    """The lines of a server's log that tell of an error."""
    return [line for line in log.splitlines() if " ERROR " in line or "Traceback" in line]
