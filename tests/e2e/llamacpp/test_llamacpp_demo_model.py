"""The demo's model: Harmony's vocabulary, the architecture of gpt-oss, and a file that is there whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from llamacpp_rig import encoding

from harmony_plugin.core import VOCABULARY_SIZE
from harmony_plugin.demo import model as demo
from harmony_plugin.demo.script import Scripts
from harmony_plugin.llamacpp.engine import Engine

TEXTS = [
    "Hello world, how's it going? 12345 67",
    "día naïve 東京 😀🦙 \n\n  def f(x):\n\treturn x**2  # ok",
    "ΑΒΓ абв ١٢٣ ไทย 한국어 \u200d\u00a0\x00\x7f",
    "".join(chr(c) for c in range(0x20, 0x250)),
]


@pytest.fixture(scope="module")
def llama() -> llama_cpp.Llama:
    return llama_cpp.Llama(str(demo.build_model()), n_ctx=256, logits_all=False, verbose=False)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_the_harmony_library(llama: llama_cpp.Llama, text: str) -> None:
    ids = encoding().encode(text, disallowed_special=())
    assert llama.tokenize(text.encode(), add_bos=False, special=False) == ids
    assert b"".join(llama.detokenize([token], special=True) for token in ids) == text.encode()


def test_every_id_has_the_same_bytes(llama: llama_cpp.Llama) -> None:
    assert llama.n_vocab() == VOCABULARY_SIZE
    decode = encoding()._inner.decode_bytes
    piece = Engine(llama).piece  # Llama.detokenize drops pieces of more than 32 bytes
    for token in (*range(0, demo.FIRST_SPECIAL, 97), *range(demo.FIRST_SPECIAL, VOCABULARY_SIZE, 11)):
        assert piece(token) == decode([token]), token


def loaded(**settings: Any) -> llama_cpp.Llama:
    # With `n_ubatch` so small, a cache of the window's size only holds 256 tokens.
    return llama_cpp.Llama(
        str(demo.build_model()), n_ctx=1024, n_ubatch=64, n_threads=1, n_threads_batch=1, verbose=False, **settings
    )


def greedy(llama: llama_cpp.Llama, prompt: Sequence[int], count: int) -> list[int]:
    return list(islice(llama.generate(prompt, temp=0.0), count))


PROMPT = encoding().encode("<|start|>user<|message|>hi<|end|><|start|>assistant", allowed_special="all")


def test_it_is_a_gpt_oss_with_its_window() -> None:
    llama = loaded()
    assert llama.metadata["general.architecture"] == "gpt-oss"
    assert llama_cpp.llama_model_n_swa(llama.model) == demo.WINDOW == 128
    said = greedy(llama, PROMPT, 300)
    assert len(set(said)) > 200, "not one token over and over"
    assert greedy(loaded(swa_full=False), PROMPT, 300) == said, "a cache of the window's size does"
    wider = greedy(loaded(kv_overrides={"gpt-oss.attention.sliding_window": 512}), PROMPT, 300)
    inside = demo.WINDOW - len(PROMPT)
    assert wider[:inside] == said[:inside]
    assert wider != said, "what left the window is not seen"


def test_rewound_it_says_what_a_fresh_one_says() -> None:
    llama = loaded()  # llama.cpp's default: the window's layers keep everything
    said = greedy(llama, PROMPT, 300)
    assert greedy(llama, PROMPT, 300) == said
    other = [*PROMPT, said[0] + 1]
    assert greedy(llama, other, 50) == greedy(loaded(), other, 50)


def test_it_is_built_once_whole_and_with_progress(tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    path = tmp_path / "new" / "model.gguf"
    with ThreadPoolExecutor(2) as two:
        built = list(
            two.map(lambda _: demo.build_model(path, lambda step, share: seen.append((step, share))), range(2))
        )
    assert built == [path, path]
    assert [file.name for file in path.parent.iterdir()] == ["model.gguf"]
    assert path.read_bytes() == demo.build_model().read_bytes()
    assert {share for _, share in seen} >= {0.0, 1.0}
    seen.clear()
    demo.build_model(path, lambda step, share: seen.append((step, share)))
    assert seen == []


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(step: str, share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.build_model(tmp_path / "model.gguf", stop)
    assert list(tmp_path.iterdir()) == []


def test_scripts_are_chosen_by_name_then_by_what_was_said(tmp_path: Path) -> None:
    file = tmp_path / "scripts.jsonl"
    file.write_text(
        '{"id": "a", "raw": "<|end|>x", "when": "weather"}\n\n'
        '{"id": "b", "segments": [["special", "<|end|>"], ["text", "<|end|>"]]}\n'
        '{"id": "c", "replies": [{"token_ids": [1]}, {"token_ids": [2]}]}\n'
    )
    scripts = Scripts.load(file)
    user = {"role": "user", "content": [{"type": "text", "text": "the weather"}]}
    said = {"role": "assistant", "content": "x"}
    assert scripts.reply({"messages": [user]}) == (200_007, 87)
    named = scripts.reply({"messages": [user], "metadata": {"script": "b"}})
    assert named is not None
    assert named[0] == 200_007
    assert 200_007 not in named[1:]
    for turns, reply in (([user], (1,)), ([user, said], (2,)), ([user, said, said], (2,))):
        assert scripts.reply({"messages": turns, "user": "c"}) == reply
    assert scripts.reply({"messages": [{"role": "user", "content": "hi"}]}) is None
    file.write_text('{"id": "a"}\n')
    with pytest.raises(ValueError, match=r"scripts\.jsonl:1"):
        Scripts.load(file)
