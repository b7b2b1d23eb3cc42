"""The context that a model gets when nobody says: beside what llama.cpp really allocates, and for models that are not
here."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("fastapi")

from harmony_plugin.demo.model import build_model
from harmony_plugin.llamacpp.server import stock
from harmony_plugin.llamacpp.server.context import LEAST, UNSEEN, Facts, Memory, choose

GIB = 1 << 30
TRAINED = 131_072
# gpt-oss-20b in MXFP4, as its GGUF says.
LARGE = Facts(
    {
        "general.architecture": "gpt-oss",
        "gpt-oss.context_length": str(TRAINED),
        "gpt-oss.block_count": "24",
        "gpt-oss.embedding_length": "2880",
        "gpt-oss.attention.head_count": "64",
        "gpt-oss.attention.head_count_kv": "8",
        "gpt-oss.attention.key_length": "64",
        "gpt-oss.attention.value_length": "64",
    },
    size=12_100_000_000,
    parameters=20_914_757_184,
    vocabulary=201_088,
)


def test_the_models_own_where_memory_holds_it() -> None:
    context = choose(None, LARGE, Memory(64 * GIB))
    assert (context.tokens, context.warning) == (TRAINED, None)


def test_less_where_it_does_not_and_it_says_why() -> None:
    context = choose(None, LARGE, Memory(20 * GIB))
    # 24 layers of 8 heads of 64 + 64 values of 2 bytes, and 512 rows of 65 numbers of 4 bytes: 182,272 bytes a token.
    assert 30_000 < context.tokens < 45_000
    assert context.tokens % 1024 == 0
    assert "20.0 GiB" in context.why
    assert "131,072" in context.why
    assert "--flash_attn true" in context.why
    more = choose(None, LARGE, Memory(20 * GIB), flash_attention=True)
    assert more.tokens > 3 * context.tokens
    assert "flash_attn" not in more.why
    smaller = choose(None, LARGE, Memory(20 * GIB), flash_attention=True, cache_types=(8, 8))
    assert smaller.tokens == TRAINED


def test_scores_of_every_position_take_most_of_all() -> None:
    assert choose(None, LARGE, Memory(64 * GIB), all_logits=True).tokens * 4 * LARGE.vocabulary < 50 * GIB


def test_an_agents_first_request_fits_a_model_on_a_small_machine() -> None:
    assert choose(None, LARGE, Memory(16 * GIB), flash_attention=True).tokens > 16_281 + 8_000


def test_too_little_memory_is_said() -> None:
    context = choose(None, LARGE, Memory(8 * GIB))
    assert context.tokens == LEAST
    assert context.warning is not None
    assert "8.0 GiB are free" in context.warning


def test_a_size_that_was_set_wins() -> None:
    assert choose(8192, LARGE, Memory(1)).tokens == 8192
    assert choose(0, LARGE, Memory(1)).tokens == TRAINED
    context = choose(200_000, LARGE, Memory(64 * GIB))
    assert context.tokens == 200_000
    assert context.warning is not None
    assert "131,072" in context.warning


def test_memory_of_gpus_counts_for_the_layers_on_them() -> None:
    # Room for everything in the one place, and little in the other.
    little, much = 13 * GIB, 1000 * GIB
    on_gpus = [choose(None, LARGE, Memory(much, little), gpu_layers=layers).tokens for layers in (-1, 24, 12, 0)]
    assert on_gpus[0] == on_gpus[1] < on_gpus[2] < on_gpus[3] == TRAINED
    on_host = [choose(None, LARGE, Memory(little, much), gpu_layers=layers).tokens for layers in (0, 12, 24, -1)]
    assert on_host == [*on_gpus[1:], TRAINED]
    assert choose(None, LARGE, Memory(much), gpu_layers=-1).tokens == TRAINED, "no GPU that llama.cpp was built for"


def test_what_is_not_known() -> None:
    assert choose(None, None, Memory(64 * GIB)).tokens == UNSEEN
    bare = Facts({"general.architecture": "x", "x.context_length": "4096"}, 1, 1, 1)
    assert choose(None, bare, Memory(64 * GIB)).tokens == 4096
    assert choose(None, Facts({}, 1, 1, 1), Memory(64 * GIB)).tokens == UNSEEN


def test_layers_that_differ_are_counted_one_by_one() -> None:
    same, mixed = (
        Facts(
            {
                "general.architecture": "m",
                "m.context_length": "1000000",
                "m.block_count": "4",
                "m.embedding_length": "1024",
                "m.attention.head_count": "8",
                "m.attention.head_count_kv": heads,
            },
            1,
            1,
            1,
        )
        for heads in ("2", "[2, 2, 2, 2]")
    )
    memory = Memory(2 * GIB)
    assert choose(None, same, memory).tokens == choose(None, mixed, memory).tokens < 1_000_000


# Beside llama.cpp


def test_the_facts_of_a_file_are_those_of_the_loaded_model(llama: Any) -> None:
    read, loaded = stock.read_facts(str(build_model())), stock.facts_of(llama.model)
    assert read == loaded
    assert (read.architecture, read.trained, read.vocabulary) == ("gpt-oss", TRAINED, 201_088)


@pytest.mark.parametrize("flash_attention", [False, True])
def test_the_estimate_holds_what_llama_cpp_allocates(flash_attention: bool) -> None:
    load = (
        "import sys, llama_cpp;"
        f"llama_cpp.Llama(sys.argv[1], n_ctx={TRAINED}, flash_attn={flash_attention}, verbose=True)"
    )
    said = subprocess.run(
        [sys.executable, "-c", load, str(build_model())], capture_output=True, text=True, timeout=120, check=True
    ).stderr
    buffers = re.findall(r"(?:KV|compute) buffer size = +([\d.]+) MiB", said)
    # The caches of the layers that see everything and of those that see a window, and the work area.
    assert len(buffers) == 3, said
    allocated = sum(map(float, buffers)) * (1 << 20)
    facts = stock.read_facts(str(build_model()))

    def fits(memory: float) -> bool:
        return choose(None, facts, Memory(int(memory)), flash_attention=flash_attention).tokens == TRAINED

    assert not fits(allocated), "so little is never enough"
    assert fits(1.2 * allocated + facts.size + 2 * GIB), "and not much more is"


def test_a_file_that_is_no_gguf_says_what_it_is(tmp_path: Any) -> None:
    for content, what in ((b"", "empty"), (b"version https://git-lfs", "Git LFS pointer"), (b"PK\3\4", "PK")):
        file = tmp_path / "model.gguf"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=what):
            stock.check_file(str(file))
