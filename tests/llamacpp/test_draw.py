"""The draw beside llama.cpp's own samplers, chained as llama-cpp-python chains them, on the same scores."""

from __future__ import annotations

import ctypes
import itertools
import math
from typing import Any

import numpy as np
import pytest

from harmony_plugin.llamacpp.draw import Draw

from .conftest import llama_cpp

SIZE = 300
DRAWS = 4_000
SCORES = (np.random.default_rng(5).standard_normal(SIZE) * 2).astype(np.float32)
CUTS = list(itertools.product((0, 20), (1.0, 0.9, 0.5), (0.0, 0.05)))


class Chain:
    """llama.cpp's samplers, in the order of `Llama._init_sampler`."""

    def __init__(self, *, temperature: float, top_k: int, top_p: float, min_p: float, seed: int = 1) -> None:
        self._chain = chain = llama_cpp._internals.LlamaSampler()
        chain.add_top_k(top_k)
        chain.add_typical(1.0, 1)
        chain.add_top_p(top_p, 1)
        chain.add_min_p(min_p, 1)
        chain.add_temp(temperature)
        chain.add_dist(seed)

    def __call__(self, scores: Any) -> tuple[int, set[int]]:
        """The id that is drawn, and those it was drawn from."""
        array = candidates(scores)
        llama_cpp.llama_sampler_apply(self._chain.sampler, ctypes.byref(array))
        return array.data[array.selected].id, {array.data[place].id for place in range(array.size)}


def candidates(scores: Any) -> Any:
    table = np.zeros(len(scores), [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    table["id"], table["logit"] = np.arange(len(scores)), scores
    rows = (llama_cpp.llama_token_data * len(scores)).from_buffer_copy(table.tobytes())
    array = llama_cpp.llama_token_data_array(data=rows, size=len(scores), selected=-1, sorted=False)
    array._rows = rows  # C has the address alone
    return array


def differ(ours: Any, theirs: Any) -> bool:
    """Whether two counts of draws can't be of the same distribution: the two-sample chi-square test, at 1 in a million
    (the critical value by Wilson and Hilferty)."""
    order = np.argsort(ours + theirs)
    bins: list[list[float]] = []
    pooled = np.zeros(2)
    for token in order:
        pooled += ours[token], theirs[token]
        if pooled.sum() >= 20:
            bins.append(list(pooled))
            pooled = np.zeros(2)
    if pooled.sum() and bins:
        bins[-1] = list(np.add(bins[-1], pooled))
    table = np.array(bins)
    if len(table) < 2:
        return False
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    freedom = len(table) - 1
    critical = freedom * (1 - 2 / (9 * freedom) + 4.7534 * math.sqrt(2 / (9 * freedom))) ** 3
    return bool(((table - expected) ** 2 / expected).sum() > critical)


def counts(draw: Any, size: int = SIZE, number: int = DRAWS) -> Any:
    return np.bincount([draw() for _ in range(number)], minlength=size).astype(float)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize(("top_k", "top_p", "min_p"), CUTS)
def test_ids_come_as_often_as_from_llama_cpp(temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    how = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    chain, draw = Chain(**how), Draw(seed=3, size=SIZE, **how)  # type: ignore[arg-type]
    theirs = counts(lambda: chain(SCORES)[0])
    assert not differ(counts(lambda: draw(SCORES.copy())), theirs)


@pytest.mark.parametrize("seed", range(4))
def test_the_check_can_fail(seed: int) -> None:
    """A temperature that is off by a quarter is always found; one that is off by 0.15 with every other seed alone."""
    chain, draw = Chain(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0), Draw(temperature=1.25, seed=seed, size=SIZE)
    assert differ(counts(lambda: draw(SCORES.copy())), counts(lambda: chain(SCORES)[0]))


@pytest.mark.parametrize("spread", [0.5, 2.0, 8.0])
@pytest.mark.parametrize(("top_k", "top_p", "min_p"), CUTS[1:])
def test_the_cuts_leave_what_llama_cpps_leave(spread: float, top_k: int, top_p: float, min_p: float) -> None:
    for seed in range(5):
        scores = (np.random.default_rng(seed).standard_normal(2_000) * spread).astype(np.float32)
        draw = Draw(temperature=1.0, top_k=top_k, top_p=top_p, min_p=min_p, seed=1, size=2_000)
        _, theirs = Chain(temperature=1.0, top_k=top_k, top_p=top_p, min_p=min_p)(scores)
        kept = draw.kept(scores, scores.max())
        ours = set(range(2_000)) if kept is None else set(kept.tolist())
        # Sums of single precision may leave one more or less of a thousand, where they just reach the share.
        assert len(ours ^ theirs) <= (1 if top_p < 1 else 0)


@pytest.mark.parametrize("penalties", [(1.3, 0.0, 0.0), (1.0, 0.7, 0.0), (1.0, 0.0, 0.4), (1.2, 0.5, 0.3)])
def test_penalties_are_llama_cpps(penalties: tuple[float, float, float]) -> None:
    repeat, presence, frequency = penalties
    sampler = llama_cpp.llama_sampler_init_penalties(SIZE, 64, repeat, frequency, presence)
    draw = Draw(
        temperature=0.0,
        repeat_penalty=repeat,
        presence_penalty=presence,
        frequency_penalty=frequency,
        seed=1,
        size=SIZE,
    )
    history = np.random.default_rng(1).integers(0, 60, 200).tolist()
    for token in history:
        llama_cpp.llama_sampler_accept(sampler, token)
        draw.accept(token)
    array, scores = candidates(SCORES), SCORES.copy()
    llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
    chosen = draw(scores)
    theirs = np.array([array.data[place].logit for place in range(SIZE)])
    llama_cpp.llama_sampler_free(sampler)
    np.testing.assert_allclose(scores, theirs, rtol=1e-6)
    assert chosen == theirs.argmax()
    assert len(draw._counts) <= 60


def test_the_same_seed_gives_the_same_ids() -> None:
    def ids(seed: int) -> list[int]:
        draw = Draw(temperature=1.0, seed=seed, size=SIZE)
        return [draw(SCORES.copy()) for _ in range(50)]

    assert ids(1) == ids(1) != ids(2)


def test_only_those_allowed_come_and_as_often_as_among_themselves() -> None:
    only = np.array([3, 7, 50, 299])
    for how in ({}, {"top_p": 0.95}, {"top_k": 3}):
        draw = Draw(temperature=1.0, seed=1, size=SIZE, **how)  # type: ignore[arg-type]
        masked = Draw(temperature=1.0, seed=2, size=SIZE, **how)  # type: ignore[arg-type]
        scores = np.full(SIZE, -np.inf, np.float32)
        scores[only] = SCORES[only]
        ours = counts(lambda draw=draw: draw(SCORES.copy(), only))
        assert set(np.flatnonzero(ours)) <= set(only.tolist())
        assert not differ(ours, counts(lambda masked=masked, scores=scores: masked(scores.copy())))


def test_below_0_nothing_is_cut_off() -> None:
    """llama-cpp-python's chain is the draw alone then."""
    chain = llama_cpp._internals.LlamaSampler()
    chain.add_dist(1)

    def theirs() -> int:
        array = candidates(SCORES)
        llama_cpp.llama_sampler_apply(chain.sampler, ctypes.byref(array))
        return int(array.data[array.selected].id)

    draw = Draw(temperature=-1.0, top_k=2, top_p=0.1, min_p=0.9, seed=3, size=SIZE)
    assert not differ(counts(lambda: draw(SCORES.copy())), counts(theirs))


@pytest.mark.parametrize("size", [SIZE, 5_000])
def test_temperatures_next_to_0_are_as_0(size: int) -> None:
    scores = (np.random.default_rng(5).standard_normal(size) * 4).astype(np.float32)
    scores[::2] = -np.inf
    for temperature in (1e-6, 1e-8, 1e-30, 1e-40, 5e-324):
        draw = Draw(temperature=temperature, seed=1, size=size)
        assert {draw(scores.copy()) for _ in range(20)} == {int(scores.argmax())}
    best = np.flatnonzero(np.isfinite(scores))[:2]
    scores[best] = 30.0
    draw = Draw(temperature=1e-8, seed=1, size=size)
    assert {draw(scores.copy()) for _ in range(40)} == set(best.tolist())


@pytest.mark.parametrize("size", [SIZE, 5_000])
def test_at_high_temperatures_what_is_forbidden_stays_so(size: int) -> None:
    scores = np.zeros(size, np.float32)
    scores[::2] = -np.inf
    for temperature in (1e5, 1e39, 1e300, math.inf):
        draw = Draw(temperature=temperature, seed=1, size=size)
        ids = [draw(scores.copy()) for _ in range(100)]
        assert all(token % 2 for token in ids)
        assert len(set(ids)) > 50


def test_what_is_not_a_number_does_not_come() -> None:
    for how in ({"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 5, "top_p": 0.5}):
        draw = Draw(seed=1, size=SIZE, **how)  # type: ignore[arg-type]
        scores = np.full(SIZE, -np.inf, np.float32)
        scores[9] = np.nan
        assert draw(scores.copy()) == 0
        assert draw(scores.copy(), [4, 9]) == 4
        scores[20] = 1.0
        assert draw(scores.copy()) == 20
        scores[SIZE - 1] = np.inf
        assert draw(scores.copy()) == SIZE - 1


def test_the_likeliest_is_never_cut_off() -> None:
    for how in ({"min_p": 2.0}, {"top_p": 0.0}, {"top_p": -1.0}, {"top_k": 9, "min_p": 2.0}, {"top_k": 1}):
        draw = Draw(temperature=1.0, seed=1, size=SIZE, **how)  # type: ignore[arg-type]
        assert draw(SCORES.copy()) == SCORES.argmax()


def test_odd_rows() -> None:
    for how in ({"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 5, "top_p": 0.5}):
        draw = Draw(seed=1, size=SIZE, **how)  # type: ignore[arg-type]
        one = np.full(SIZE, -np.inf, np.float32)
        assert draw(one.copy()) == 0
        assert draw(SCORES.copy(), [9]) == 9
        one[17] = -5.0
        assert all(draw(one.copy()) == 17 for _ in range(20))
        one[17], one[200] = 1e4, 9_000.0
        assert draw(one.copy()) == 17
    ties = np.zeros(SIZE, np.float32)
    assert Draw(temperature=0.0, seed=1, size=SIZE)(ties.copy()) == 0
    assert 0 <= Draw(temperature=1.0, top_k=4, seed=1, size=SIZE)(ties.copy()) < SIZE


def test_what_is_far_below_the_top_comes_as_often_as_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    from harmony_plugin.llamacpp import draw as module

    monkeypatch.setattr(module, "MANY", 1)
    monkeypatch.setattr(module, "NEAR", 3.0)  # so that much is far, and is drawn
    scores = np.full(SIZE, -4.0, np.float32)
    scores[:20] = np.linspace(-1, 0, 20)
    scores[-50:] = -np.inf
    draw = Draw(temperature=1.0, seed=3, size=SIZE)
    chain = Chain(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
    ours = counts(lambda: draw(scores.copy()))
    assert not differ(ours, counts(lambda: chain(scores)[0]))
    assert ours[20:-50].sum() > 0.1 * DRAWS
    assert not ours[-50:].any()


def test_each_call_takes_one_number_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the numbers of the ids to come do not hang on where the last one fell."""
    from harmony_plugin.llamacpp import draw as module

    monkeypatch.setattr(module, "MANY", 1)
    monkeypatch.setattr(module, "NEAR", 3.0)
    steep = np.full(SIZE, -9.0, np.float32)
    steep[:5] = 0
    for how, taken in (({}, 100), ({"top_k": 5, "top_p": 0.9}, 100), ({"top_k": 1}, 0), ({"temperature": 0.0}, 0)):
        draw = Draw(seed=1, size=SIZE, **{"temperature": 1.0, **how})  # type: ignore[arg-type]
        numbers: list[float] = []

        def number(numbers: list[float] = numbers, origin: Any = draw._random.random) -> float:
            numbers.append(origin())
            return numbers[-1]

        draw._random.random = number  # type: ignore[method-assign]
        for _ in range(100):
            draw(steep.copy())
        assert len(numbers) == taken


def test_a_number_that_rounds_up_is_none_that_is_forbidden() -> None:
    scores = SCORES.copy()
    scores[100:] = -np.inf
    draw = Draw(temperature=1.0, seed=1, size=SIZE)
    draw._random.random = lambda: 1.0  # type: ignore[method-assign]
    assert draw(scores) < 100


@pytest.mark.parametrize(("spread", "temperature"), [(2.0, 1.0), (5.0, 1.0), (5.0, 0.5), (5.0, 1.5)])
def test_a_whole_vocabulary(spread: float, temperature: float) -> None:
    """A flat one, and steep ones, of which most is far below the top."""
    size = 201_088
    scores = (np.random.default_rng(1).standard_normal(size) * spread).astype(np.float32)
    draw = Draw(temperature=temperature, seed=1, size=size)
    parts = 50
    ours = np.bincount([draw(scores.copy()) * parts // size for _ in range(3_000)], minlength=parts).astype(float)
    weights = np.exp(scores.astype(np.float64) / temperature)
    share = np.bincount(np.arange(size) * parts // size, weights=weights) / weights.sum()
    # Beside many more draws from the distribution itself.
    assert not differ(ours, np.random.default_rng(2).multinomial(3_000, share).astype(float))


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0, 8.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(40, 1.0), (5_000, 1.0), (0, 0.9), (0, 0.999), (5_000, 0.9)])
def test_the_cuts_of_a_whole_vocabulary(spread: float, top_k: int, top_p: float) -> None:
    """Beside a full sort in double precision, as llama.cpp's sums in single precision are off by more than these."""
    size = 201_088
    scores = (np.random.default_rng(1).standard_normal(size) * spread).astype(np.float32)
    scores[::3] = -np.inf
    kept = Draw(temperature=1.0, top_k=top_k, top_p=top_p, seed=1, size=size).kept(scores, scores.max())
    order = np.argsort(-scores, kind="stable")[: top_k or size]
    assert sorted(kept.tolist()) == sorted(order[: len(kept)].tolist())
    if top_p < 1:
        sums = np.cumsum(np.exp(scores[order].astype(np.float64) - float(scores.max())))
        share = sums[-1] * np.array([top_p - 3e-6, top_p + 3e-6])
        least, most = sums.searchsorted(share) + 1
        assert least <= len(kept) <= most
    else:
        assert len(kept) == top_k
