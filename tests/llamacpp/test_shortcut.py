"""Masks put to llama.cpp's candidates directly, beside the same masks through llama-cpp-python's own way: the same seed
must give the same ids, whatever is constrained, and the engine must be left as it was."""

from __future__ import annotations

from typing import Any

import pytest

from harmony_plugin.llamacpp import Defaults, HarmonyChatHandler, engine
from harmony_plugin.prompts import PromptOptions

from .conftest import USER, llama_cpp
from .test_constraints import FORMAT, STRICT, TOOLS

REQUESTS: dict[str, dict[str, Any]] = {
    "headers": {},
    "headers, one text after another": {"max_reasoning_tokens": 3, "tools": TOOLS},
    "schema": {"response_format": FORMAT, "max_reasoning_tokens": 4},
    "free JSON": {"response_format": {"type": "json_object"}, "max_reasoning_tokens": 0},
    "strict tools": {"tools": STRICT, "tool_choice": "required", "max_reasoning_tokens": 4},
    "penalties and cuts": {"repeat_penalty": 1.3, "top_k": 30, "top_p": 0.9, "response_format": FORMAT},
    "greedy": {"temperature": 0, "tools": TOOLS, "tool_choice": "required", "max_reasoning_tokens": 2},
}


def handler(*processors: Any) -> HarmonyChatHandler:
    return HarmonyChatHandler(
        None,
        Defaults(headers="constrain"),
        prompt=PromptOptions(current_date="2026-01-02"),
        logits_processors=lambda prompt, fields: list(processors),
    )


def nothing(input_ids: Any, scores: Any) -> Any:
    return scores


def ids_of(llama: Any, handler: HarmonyChatHandler, seed: int, **request: Any) -> list[int]:
    """The ids that the engine was given for the reply."""
    llama.reset()
    reply = handler(llama=llama, messages=[USER], max_tokens=60, seed=seed, **request)
    return [*map(int, llama.input_ids[: llama.n_tokens]), reply["usage"]["completion_tokens"]]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The shortcuts that were taken."""
    made: list[Any] = []

    class Seen(engine.Shortcut):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(engine, "Shortcut", Seen)
    return made


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", REQUESTS)
def test_the_same_ids_as_the_long_way(llama: Any, taken: list[Any], name: str, seed: int) -> None:
    short = ids_of(llama, handler(), seed, **REQUESTS[name])
    assert taken, "the shortcut was not taken"
    del taken[:]
    # Another processor behind the mask must see all scores: this is the long way.
    assert ids_of(llama, handler(nothing), seed, **REQUESTS[name]) == short
    assert not taken


def test_without_the_samplers_it_knows_the_long_way_is_taken(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ids_of(llama, handler(), 7, response_format=FORMAT, max_reasoning_tokens=4)
    for name in ("llama_sampler_init_logit_bias", "llama_sampler_free", "llama_logit_bias"):
        with monkeypatch.context() as patch:
            patch.delattr(llama_cpp, name)
            assert ids_of(llama, handler(), 7, response_format=FORMAT, max_reasoning_tokens=4) == before, name


def test_the_sampler_is_left_as_it_was(llama: Any, taken: list[Any]) -> None:
    chunks = handler()(llama=llama, messages=[USER], stream=True, max_tokens=60, max_reasoning_tokens=30, seed=1)
    for _, _ in zip(range(20), chunks, strict=False):
        pass
    (shortcut,) = taken
    (_, custom), *more = llama._sampler.custom_samplers
    assert not more
    assert shortcut._native, "free text is left to llama.cpp's own sampler"
    chunks.close()
    assert bytes(custom.sampler) == shortcut._called
    assert custom.apply_func == shortcut._apply_func
    assert not shortcut._native


def test_what_a_mask_raises_is_raised(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from harmony_plugin.llamacpp.constraints import Constraint

    real = Constraint.mask
    calls = 0

    def broken(self: Constraint) -> Any:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise LookupError("broken")
        return real(self)

    monkeypatch.setattr(Constraint, "mask", broken)
    with pytest.raises(LookupError, match="broken"):
        handler()(llama=llama, messages=[USER], max_tokens=60, response_format=FORMAT, max_reasoning_tokens=0)
