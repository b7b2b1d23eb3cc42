"""What the person who starts a server sees: what is served, or why not, in one line and with an exit code."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

MODEL, SETTINGS, ADDRESS, INTERRUPTED = 1, 2, 3, 130


def start(*arguments: str, module: str = "harmony_plugin.llamacpp", **environment: str) -> tuple[int, str]:
    """Exit code and standard error of a server that should not start."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "HOST": "127.0.0.1", "PORT": "0", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stderr


def one_line(said: str) -> str:
    lines = [line for line in said.splitlines() if line and not line.startswith("loading ")]
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


def test_another_model_that_is_none_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_text("hello")
    config = tmp_path / "c.yaml"
    config.write_text(f"models: [{{model: '{build_model()}'}}, {{model: '{tmp_path}/no.gguf'}}]")
    code, said = start("--config_file", str(config))
    assert code == MODEL
    assert "loading" not in said
    assert f"{tmp_path}/no.gguf: not a GGUF file (it begins b'hell')" in one_line(said)


def test_a_hub_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    flags = ("--hf_model_repo_id", "openai/gpt-oss-20b", "--model", "a.gguf")
    code, said = start(*flags, HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    assert code == MODEL
    assert "cannot serve model a.gguf of openai/gpt-oss-20b on the Hugging Face hub: " in one_line(said)


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
            "models[0].n_ctxx: unknown setting (did you mean n_ctx?)",
        ),
        ("c.json", '{"prot": 1, "models": [{"model": "MODEL"}]}', "prot: unknown setting (did you mean port?)"),
        ("c.yaml", "models:\n- model: MODEL\n  n_ctx: many\n", "models[0].n_ctx"),
        ("c.yaml", "models:\n- model_alias: a\n", "models[0]: no model given"),
        ("c.yaml", "models:\n- {model: MODEL, chat_template_kwargs: {x: 1}}\n", "chat format harmony has no x"),
        (
            "c.yaml",
            "models:\n- {model: MODEL, reasoning_effort: extreme}\n",
            "models[0]: HARMONY_REASONING_EFFORT='extreme'",
        ),
        ("c.yaml", "models:\n- {model: MODEL, harmony_stop: [1]}\n", "models[0]: HARMONY_STOP="),
        ("c.yaml", "harmony_log_level: loud\nmodels:\n- {model: MODEL}\n", "HARMONY_LOG_LEVEL='loud': it is one of"),
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
    assert "port" in one_line(said).lower()


def test_a_file_that_cannot_keep_responses(tmp_path: Path) -> None:
    code, said = start("--model", str(build_model()), "--responses_file", str(tmp_path))
    assert (code, one_line(said)) == (SETTINGS, f"harmony-plugin: responses_file {tmp_path}: Is a directory")


def test_a_common_setting_from_the_environment() -> None:
    code, said = start("--model", str(build_model()), HARMONY_COMMENTARY="nowhere")
    assert code == SETTINGS
    assert one_line(said) == "harmony-plugin: HARMONY_COMMENTARY='nowhere': it is one of content, reasoning, drop"


def test_a_wrong_flag() -> None:
    code, said = start("--model", "x", "--n_ctx", "many")
    assert (code, one_line(said)) == (SETTINGS, "harmony-plugin: --n_ctx: 'many' is not a whole number")
    code, said = start("--model", "x", "--n_ctxx", "5")
    assert code == SETTINGS
    assert "(did you mean --n_ctx?)" in one_line(said)


def test_a_port_in_use_is_told_before_the_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, said = start("--model", str(build_model()), PORT=port)
    assert code == ADDRESS
    assert "loading" not in said
    assert f"127.0.0.1:{port} is in use" in one_line(said)
    assert "--port" in said


def test_an_address_that_is_not_this_machines() -> None:
    code, said = start("--model", str(build_model()), HOST="192.0.2.1")
    assert code == ADDRESS
    assert "192.0.2.1 is no address of this machine" in one_line(said)


@pytest.mark.parametrize("module", ["harmony_plugin.cli", "harmony_plugin.llamacpp"])
def test_the_version(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"harmony-plugin [\d.]+, llama-cpp-python [\d.]+, (oss|openai)-harmony [\d.]+\n", done.stdout)


def test_what_is_served_is_said(server: ServerProcess) -> None:
    # llama.cpp itself says, even when silenced, that a gpt-oss keeps more than its window.
    lines = [line for line in server.output().splitlines() if not line.startswith("llama_kv_cache_iswa: ")]
    said = lines[: next(i for i, line in enumerate(lines) if line.startswith("listening")) + 1]
    assert said[0].startswith("loading tiny (")
    assert re.fullmatch(r"harmony-plugin [\d.]+, llama-cpp-python [\d.]+, \S+-harmony [\d.]+", said[1])
    text = "\n".join(said)
    assert f"tiny: gpt-oss, 25.9 M parameters, 26.7 MiB; {build_model()}" in text
    assert re.search(r"8,192 tokens \([\d.]+ MiB\): as set", text)
    assert f"{server.url}/v1 " in text
    assert "/v1/responses" in text
    assert "/v1/messages" in text
    assert "reasoning effort medium" in text
    assert said[-1].startswith(f"listening on {server.url} ")
    assert len(said) < 15
    assert "\x1b" not in text


def in_terminal(*arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """A server with a terminal of its own, and the terminal's other end."""
    import pty

    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "harmony_plugin.llamacpp", "--host", "127.0.0.1", "--port", "0", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    return process, leader


def read_until(leader: int, what: bytes) -> bytes:
    said = b""
    while what not in said:
        said += os.read(leader, 4096)
    return said


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_in_a_terminal_with_nothing_set_but_the_model() -> None:
    process, leader = in_terminal("--model", str(build_model()))
    try:
        said = read_until(leader, b"Ctrl+C stops it").decode()
        assert "loading" in said
        assert "100%" in said
        assert "\x1b[" in said
        # As much as the model has, if the machine's memory holds it, which it does here.
        assert re.search(r"131,072 tokens \([\d.]+ MiB\): the model's own", said)
        listening = re.search(r"listening on (\S+)", said)
        assert listening is not None
        (model,) = httpx.get(f"{listening[1]}/v1/models").json()["data"]
        assert (model["id"], model["context_length"]) == (build_model().name, 131_072)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_stopped_while_the_model_is_loaded() -> None:
    command = [sys.executable, "-m", "harmony_plugin.llamacpp", "--port", "0", "--model", str(build_model())]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("loading ")
        process.send_signal(signal.SIGINT)
        assert (process.stderr.read(), process.wait(60)) == ("", INTERRUPTED)


def test_a_certificate_that_is_not_there() -> None:
    code, said = start("--model", str(build_model()), "--ssl_certfile", "/nowhere.pem", "--ssl_keyfile", "/nowhere.key")
    assert code == SETTINGS
    one_line(said)


def test_a_script_that_is_not_there() -> None:
    code, said = start("--model", str(build_model()), "--script", "/nowhere.jsonl", module="harmony_plugin.demo.server")
    assert code == SETTINGS
    assert "/nowhere.jsonl" in one_line(said)
