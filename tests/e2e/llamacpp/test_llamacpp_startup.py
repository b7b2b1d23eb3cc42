"""Servers that cannot start say why in one line and with an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harmony_plugin.demo.model import build_model

SETTINGS, MODEL = 2, 1


def start(*arguments: str, module: str = "harmony_plugin.llamacpp", **environment: str) -> tuple[int, str]:
    """Exit code and standard error of a server that should not start."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", "0", *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stderr


def one_line(said: str) -> str:
    lines = [line for line in said.splitlines() if line]
    assert len(lines) == 1, said
    assert lines[0].startswith("harmony-plugin: ")
    return lines[0]


@pytest.fixture
def cut_short(tmp_path: Path) -> Path:
    file = tmp_path / "cut.gguf"
    with open(build_model(), "rb") as whole:
        file.write_bytes(whole.read(1 << 20))
    return file


@pytest.fixture
def other_vocabulary(tmp_path: Path) -> Path:
    """A whole little model whose vocabulary is not Harmony's."""
    import gguf
    import numpy as np

    file = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(str(file), "llama")
    tokens = [f"<{i}>" for i in range(256)]
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(32)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_token_merges(["< 0"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_tensor("token_embd.weight", np.ones((len(tokens), 32), dtype=np.float32))
    writer.add_tensor("output_norm.weight", np.ones(32, dtype=np.float32))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(32, dtype=np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones((32, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_a_model_that_is_not_harmony(other_vocabulary: Path) -> None:
    code, said = start("--model", str(other_vocabulary), "--n_ctx", "256")
    assert code == MODEL
    assert "Harmony vocabulary" in one_line(said)


def test_a_model_cut_short(cut_short: Path) -> None:
    code, said = start("--model", str(cut_short))
    assert code == MODEL
    assert str(cut_short) in one_line(said)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_text("hello")
    code, said = start("--model", str(tmp_path / "no.gguf"))
    assert code == MODEL
    one_line(said)


def test_no_model() -> None:
    code, said = start()
    assert code == SETTINGS
    assert "--model" in one_line(said)


def test_a_model_that_is_not_there() -> None:
    code, said = start("--model", "/nowhere/model.gguf")
    assert code == SETTINGS
    assert "/nowhere/model.gguf" in one_line(said)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "c.yaml",
            "models:\n- model: MODEL\n  n_ctxx: 5\n",
            "models[0].n_ctxx: unknown setting (did you mean 'n_ctx'?)",
        ),
        ("c.json", '{"prot": 1, "models": [{"model": "MODEL"}]}', "prot: unknown setting (did you mean 'port'?)"),
        ("c.yaml", "models:\n- model: MODEL\n  n_ctx: many\n", "models[0].n_ctx"),
        ("c.yaml", "models:\n- model_alias: a\n", "models[0]: no model given"),
        ("c.yaml", "models:\n- {model: MODEL, chat_template_kwargs: {x: 1}}\n", "chat format harmony has no x"),
        ("c.yaml", "models:\n- {model: MODEL, reasoning_effort: extreme}\n", "models[0].reasoning_effort"),
        ("c.yaml", "models: []\n", "`models` is empty"),
        ("c.yaml", "models: [a: {b\n", "c.yaml"),
        ("c.json", "{", "c.json"),
        ("c.json", "[]", "not a mapping"),
        ("c.yaml", "models:\n- {model: MODEL}\n- {model: MODEL}\n", "two models are called"),
    ],
)
def test_a_wrong_config_file(tmp_path: Path, name: str, text: str, told: str) -> None:
    file = tmp_path / name
    file.write_text(text.replace("MODEL", str(build_model())))
    code, said = start("--config_file", str(file))
    assert code == SETTINGS
    assert told in one_line(said)


def test_the_environment_is_read_as_in_the_stock_server(tmp_path: Path) -> None:
    assert start(MODEL="/nowhere/model.gguf") == start("--model", "/nowhere/model.gguf")
    code, said = start(CONFIG_FILE=str(tmp_path / "none.yaml"))
    assert code == SETTINGS
    assert "none.yaml" in one_line(said)
    code, said = start("--model", str(build_model()), PORT="http")
    assert code == SETTINGS
    assert "PORT" in one_line(said)


def test_a_wrong_flag() -> None:
    code, said = start("--model", "x", "--n_ctx", "many")
    assert code == SETTINGS
    assert "--n_ctx" in said


def test_a_certificate_that_is_not_there() -> None:
    code, said = start("--model", str(build_model()), "--ssl_certfile", "/nowhere.pem", "--ssl_keyfile", "/nowhere.key")
    assert code == SETTINGS
    one_line(said)


def test_a_script_that_is_not_there() -> None:
    code, said = start("--model", str(build_model()), "--script", "/nowhere.jsonl", module="harmony_plugin.demo.server")
    assert code == SETTINGS
    assert "/nowhere.jsonl" in one_line(said)
