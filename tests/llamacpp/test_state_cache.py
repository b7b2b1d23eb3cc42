"""`Llama.set_cache`: conversations that stay warm beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import llama_cpp
import pytest

from .conftest import USER

WORDS = "A question of some length, " * 20
ANSWER = "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>"


@pytest.fixture
def cache(llama: Any) -> Iterator[Any]:
    llama.set_cache(llama_cpp.LlamaRAMCache(1 << 30))
    yield llama.cache
    llama.set_cache(None)


def turns(name: str, count: int) -> list[dict[str, str]]:
    """A conversation of which `count` turns are done, and the next is asked for."""
    messages = [{"role": "user", "content": f"{name}: {WORDS}"}]
    for number in range(count):
        messages += [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": f"And {number}?"}]
    return messages


def test_two_conversations_in_turn_stay_warm_and_hold_one_state_each(cache: Any, say: Callable[..., Any]) -> None:
    before: dict[str, int] = {}
    for count in range(4):
        for name in ("first", "second"):
            usage = say(ANSWER, messages=turns(name, count))["usage"]
            if count:
                assert usage["prompt_tokens_details"]["cached_tokens"] >= before[name]
            before[name] = usage["prompt_tokens"]
    assert len(cache.cache_state) == 2
    assert {len(state.scores) for state in cache.cache_state.values()} == {1}, "no scores of the whole vocabulary"


def test_a_conversation_that_branches_keeps_its_common_part(cache: Any, say: Callable[..., Any]) -> None:
    shared = say(ANSWER, messages=turns("first", 1))["usage"]["prompt_tokens"]
    for last in ("What now?", "Or rather?"):
        say(ANSWER, messages=[USER])
        messages = [*turns("first", 2)[:-1], {**USER, "content": last}]
        usage = say(ANSWER, messages=messages)["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] >= shared


def test_states_go_to_and_from_the_bindings_own_completions(
    llama: Any, cache: Any, say: Callable[..., Any], handler: Any
) -> None:
    say(ANSWER, messages=turns("first", 0))
    other = llama.tokenize(b"something else entirely " * 30, add_bos=False)
    llama.create_completion(other, max_tokens=2)
    # Ours, read there:
    prompt = handler.prompt(llama, messages=turns("first", 0))
    said = llama.create_completion(prompt, max_tokens=2)
    assert said["usage"] == {"prompt_tokens": len(prompt), "completion_tokens": 2, "total_tokens": len(prompt) + 2}
    # And one of its states, which have all their scores, here:
    ids = handler.prompt(llama, messages=turns("third", 0))
    llama.create_completion(ids, max_tokens=1)
    say(ANSWER, messages=[USER])
    usage = say(ANSWER, messages=turns("third", 0))["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= len(ids) - 1
