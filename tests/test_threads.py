"""No shared mutable state but the vocabulary's, which only learns: 16 threads at once give what one gives."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fuzz import mutation
from fuzz.transcript import to_ids, to_text

from feeding import without_call_ids
from harmony_plugin import Reply, Stream, Vocabulary, parse
from harmony_plugin.core.vocabulary import harmony_encoding

THREADS = 16
SEEDS = range(9_000, 9_120)


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads change places far more often than they would."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def replies(outputs: list[list[int] | str], vocabulary: Vocabulary) -> list[Reply]:
    """Whole and token by token, each reply as its stream gives it."""
    found = []
    for output in outputs:
        whole = parse(output, decode=vocabulary)
        stream = Stream(decode=vocabulary)
        for place in range(len(output)):
            stream.feed(output[place : place + 1])
        stream.finish()
        assert without_call_ids(stream.reply) == without_call_ids(whole)
        found.append(without_call_ids(whole))
    return found


def new_vocabulary() -> Vocabulary:
    """One that has learnt nothing yet."""
    decode = harmony_encoding()._inner.decode_bytes
    return Vocabulary(lambda token: bytes(decode([token])))


def test_sixteen_threads_give_what_one_gives(switching: None) -> None:
    """The same outputs in another order in each thread, on one vocabulary that learns while they run."""
    outputs: list[list[int] | str] = []
    for seed in SEEDS:
        pieces, _ = mutation.generate(random.Random(seed))
        outputs.append(to_ids(pieces) if seed % 3 else to_text(pieces))
    expected = replies(outputs, new_vocabulary())
    shared = new_vocabulary()
    together = threading.Barrier(THREADS)

    def work(number: int) -> bool:
        order = list(range(len(outputs)))
        random.Random(number).shuffle(order)
        together.wait()
        return replies([outputs[place] for place in order], shared) == [expected[place] for place in order]

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(work, range(THREADS)))


def test_threads_on_the_librarys_vocabulary(switching: None) -> None:
    """Without ``decode``: the one vocabulary that all streams share."""
    outputs = [to_ids(mutation.generate(random.Random(seed))[0]) for seed in SEEDS[:60]]
    expected = [without_call_ids(parse(output)) for output in outputs]

    def work(_: int) -> bool:
        return [without_call_ids(parse(output)) for output in outputs] == expected

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(work, range(THREADS)))


def test_call_ids_are_unique_across_threads(switching: None) -> None:
    raw = "<|channel|>commentary to=functions.f<|message|>{}<|call|>" * 50

    def work(_: int) -> list[str]:
        return [call.id for call in parse(raw).tool_calls]

    with ThreadPoolExecutor(THREADS) as pool:
        ids = [call_id for found in pool.map(work, range(THREADS)) for call_id in found]
    assert len(ids) == len(set(ids)) == THREADS * 50
