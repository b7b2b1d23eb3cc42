"""How large a context a model is loaded with when nobody says: its own, as far as memory holds it.

An estimate, on the safe side, of what llama.cpp will allocate. Knows a model's metadata and the machine's memory; loads
nothing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import psutil

__all__ = ["Context", "Facts", "Memory", "choose", "gib"]

GIB = 1 << 30
STEP = 1024
LEAST = 4096
UNSEEN = 32_768  # tokens, for a model of which nothing is known yet: one that is still to be downloaded
SPARE = GIB // 2  # for what is not counted here
# Every other layer has a window; of other models that have some it is not told how many.
HALF_WINDOWED = frozenset({"gpt-oss"})
SHARE = 0.9  # of what is left behind the weights

# Bytes a value of the cache, by ggml's number for the type (`type_k`, `type_v`).
CACHE_BYTES = {0: 4, 1: 2, 2: 18 / 32, 3: 20 / 32, 6: 22 / 32, 7: 24 / 32, 8: 34 / 32, 20: 18 / 32, 30: 2}


@dataclass(frozen=True)
class Facts:
    """What a model file says of itself.

    Attributes:
        metadata: GGUF keys and their values as text; lists as JSON.
        size: of the weights, in bytes.
    """

    metadata: Mapping[str, str]
    size: int
    parameters: int
    vocabulary: int

    @property
    def architecture(self) -> str | None:
        return self.metadata.get("general.architecture")

    @property
    def trained(self) -> int | None:
        """The context that the model was trained for, in tokens."""
        return self.number("context_length")

    def number(self, key: str) -> int | None:
        """The architecture's value for `key`."""
        values = self.numbers(key)
        return values[0] if len(values) == 1 else None

    def numbers(self, key: str) -> list[int]:
        """The architecture's value for `key`; one for each layer where layers differ; empty: none."""
        try:
            value = json.loads(self.metadata.get(f"{self.architecture}.{key}", ""))
        except ValueError:
            return []
        values = value if isinstance(value, list) else [value]
        return [int(number) for number in values if isinstance(number, int | float)]


@dataclass(frozen=True)
class Memory:
    """Bytes that can be had.

    Attributes:
        host: main memory; this process's control group included.
        device: of all GPUs together; None: no GPU that llama.cpp was built for.
    """

    host: int
    device: int | None = None

    @classmethod
    def at_hand(cls, device: int | None = None) -> Memory:
        host = psutil.virtual_memory().available
        limit = _group_limit()
        return cls(host if limit is None else min(host, limit), device)


@dataclass(frozen=True)
class Context:
    """A context size in tokens, why it is that, and what to look out for.

    Attributes:
        memory: bytes that it takes, as far as can be told.
    """

    tokens: int
    why: str
    warning: str | None = None
    memory: float | None = None


def choose(
    asked: int | None,
    facts: Facts | None,
    memory: Memory,
    *,
    batch: int = 512,
    flash_attention: bool = False,
    cache_types: tuple[int | None, int | None] = (None, None),
    gpu_layers: int = 0,
    all_logits: bool = False,
    sequences: int = 1,
    whole_window: bool = True,
    aside: int = 0,
) -> Context:
    """The context for a model.

    Args:
        asked: the setting: a size wins over everything, 0 is the model's own, None leaves it to this function.
        facts: None for a model that is still to be downloaded.
        batch: llama.cpp's `n_ubatch`.
        cache_types: ggml's numbers for the types of keys and values; None: 16 bits.
        gpu_layers: layers on GPUs; -1: all.
        all_logits: whether the scores of every position are kept (`logits_all`).
        sequences: how many the context tells apart.
        whole_window: whether layers with a window keep everything, too (`swa_full`).
        aside: bytes of main memory that something else will take.
    """
    cost = None if facts is None else _cost(facts, batch, flash_attention, cache_types, sequences, whole_window)
    chosen = _choose(asked, facts, memory, cost, batch, flash_attention, gpu_layers, all_logits, aside)
    if cost is None or not chosen.tokens:
        return chosen
    return replace(chosen, memory=cost.cache * chosen.tokens + cost.fixed)


def _choose(
    asked: int | None,
    facts: Facts | None,
    memory: Memory,
    cost: _Cost | None,
    batch: int,
    flash_attention: bool,
    gpu_layers: int,
    all_logits: bool,
    aside: int,
) -> Context:
    trained = facts.trained if facts is not None else None
    if asked:
        warning = None
        if trained is not None and asked > trained:
            warning = f"n_ctx {asked:,} is more than the {trained:,} tokens that the model was trained for"
        return Context(asked, "as set", warning)
    if asked == 0:
        return Context(trained or 0, "the model's own, as set")
    if facts is None or trained is None:
        return Context(UNSEEN, "the model's own is not known beforehand; --n_ctx sets it")
    if cost is None:
        return Context(min(trained, UNSEEN), "what its layers need is not known; --n_ctx sets it")
    each = cost.cache + cost.work
    if all_logits:
        each += 4 * facts.vocabulary
    share = _share_on_device(facts, gpu_layers) if memory.device is not None else 0.0
    buffers = SPARE + 4 * facts.vocabulary * batch
    holds, there = min(
        (SHARE * (there - part * (facts.size + cost.fixed) - buffers) / (part * each), there)
        for there, part in ((memory.host - aside, 1 - share), (memory.device or 0, share))
        if part > 0
    )
    if holds >= trained:
        return Context(trained, "the model's own")
    limit = f"its own is {trained:,}"
    if not flash_attention:
        limit += "; --flash_attn true makes room for more"
    tokens = int(holds) // STEP * STEP
    least = min(trained, LEAST)
    if tokens < least:
        warning = f"memory is short: {gib(there)} are free, and the weights alone are {gib(facts.size)}"
        return Context(least, limit, warning)
    return Context(tokens, f"what {gib(there)} of free memory hold; {limit}")


class _Cost(NamedTuple):
    """Bytes: keys and values of one more token, a row of the attention's work area, and what windowed layers take
    however long the context is."""

    cache: float
    work: float
    fixed: float


def _cost(
    facts: Facts,
    batch: int,
    flash_attention: bool,
    cache_types: tuple[int | None, int | None],
    sequences: int,
    whole_window: bool,
) -> _Cost | None:
    layers, heads = facts.number("block_count"), facts.numbers("attention.head_count")
    width = facts.number("embedding_length")
    if not layers or not heads or not max(heads) or not width:
        return None
    shared = facts.numbers("attention.head_count_kv") or heads
    pairs: float = shared[0] * layers if len(shared) == 1 else sum(shared)
    head = width // max(heads)
    key = facts.number("attention.key_length") or head
    value = facts.number("attention.value_length") or head
    key_type, value_type = (CACHE_BYTES.get(1 if kind is None else kind, 4) for kind in cache_types)
    pair = key * key_type + value * value_type
    # Without flash attention all heads' scores of a batch are held at once, and that is most of it.
    work = batch * (2 if flash_attention else 4 * (max(heads) + 1))
    window, fixed = facts.number("attention.sliding_window"), 0.0
    if window and not whole_window and facts.architecture in HALF_WINDOWED:
        pairs /= 2
        fixed = pairs * pair * (window * sequences + batch)
    return _Cost(pairs * pair, work, fixed)


def _share_on_device(facts: Facts, gpu_layers: int) -> float:
    layers = facts.number("block_count") or 1
    return 1.0 if gpu_layers < 0 else min(1.0, gpu_layers / layers)


def _group_limit() -> int | None:
    """What the control group of this process (a container's, say) leaves it; None: no limit."""
    for limit, used, name in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.stat", "anon"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.stat", "total_rss"),
    ):
        with contextlib.suppress(OSError, ValueError, KeyError):
            most = int(Path(limit).read_text())  # `max`: ValueError, no limit
            # Files that are cached count, too, but give way.
            taken = dict(line.split() for line in Path(used).read_text().splitlines())[name]
            return max(0, most - int(taken))
    return None


def gib(size: float) -> str:
    """A size in bytes as people read it."""
    for unit, name in ((GIB, "GiB"), (1 << 20, "MiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1024:.0f} KiB"
