"""The command line's mistakes, each one line that says what to do; and addresses before anything is loaded."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from harmony_plugin.llamacpp.server.run import bind
from harmony_plugin.llamacpp.server.settings import ServerSettings, SettingsError, read_settings


def told(*arguments: str) -> str:
    with pytest.raises(SettingsError) as error:
        read_settings(arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--n_ctxx", "--n_ctx"),
        ("--n-ctx=5", "--n_ctx"),
        ("--modle", "--model"),
        ("--api-key", "--api_key"),
        ("--n-gpu-layers", "--n_gpu_layers"),
        ("--stored-response", "--stored_responses"),
        # As llama-server calls them.
        ("-m", "--model"),
        ("-c", "--n_ctx"),
        ("--ctx-size", "--n_ctx"),
        ("-ngl", "--n_gpu_layers"),
        ("--alias", "--model_alias"),
        ("--threads", "--n_threads"),
    ],
)
def test_an_unknown_flag_is_told_with_the_one_that_was_meant(given: str, meant: str) -> None:
    assert told(given, "5").startswith(f"unknown flag {given.partition('=')[0]} (did you mean {meant}?)")


def test_help_begins_with_how_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        read_settings(["--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "usage: python -m harmony_plugin.llamacpp --model FILE.gguf [flags]"
    assert said[1] == ""


def test_a_flag_that_is_like_no_other() -> None:
    assert told("--xyzzy") == "unknown flag --xyzzy; --help lists all"
    assert "did you mean --model a.gguf?" in told("a.gguf")
    assert told("serve") == "'serve' belongs to no flag"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--n_ctx", "many"), "--n_ctx: 'many' is not a whole number"),
        (("--cache", "maybe"), "--cache: 'maybe' is not true or false"),
        (("--temperature", "warm"), "--temperature: 'warm' is not a number"),
        (("--chat_template_kwargs", "{"), "--chat_template_kwargs: '{' is not a JSON object"),
        (("--n_ctx",), "argument --n_ctx: expected one argument"),
    ],
)
def test_a_wrong_value(arguments: tuple[str, ...], what: str) -> None:
    assert told(*arguments) == what


def test_a_model_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    assert told("--model", str(tmp_path / "a.gguf")) == f"model file not found: {tmp_path / 'a.gguf'}"
    (tmp_path / "gpt-oss-20b-mxfp4.gguf").touch()
    assert told("--model", str(tmp_path / "gpt-oss-20b.gguf")).endswith("(did you mean gpt-oss-20b-mxfp4.gguf?)")
    assert "gpt-oss-20b-mxfp4.gguf" in told("--model", str(tmp_path / "other"))
    repository = told("--model", "openai/gpt-oss-20b")
    assert repository.endswith("(if that is a repository: --hf_model_repo_id openai/gpt-oss-20b --model FILE.gguf)")
    folder = told("--model", str(tmp_path))
    assert "is a folder" in folder
    assert "gpt-oss-20b-mxfp4.gguf" in folder


def test_models_are_called_by_their_files_unless_they_have_an_alias(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.gguf").touch()
    config = tmp_path / "c.yaml"
    config.write_text(f"models: [{{model: {tmp_path}/a/m.gguf}}, {{model: {tmp_path}/b/m.gguf}}]")
    assert "two models are called 'm.gguf'" in told("--config_file", str(config))


def test_flags_beside_a_config_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    config = tmp_path / "c.json"
    config.write_text(f'{{"models": [{{"model": "{tmp_path}/m.gguf"}}]}}')
    chosen = read_settings(["--config_file", str(config), "--port", "9", "--n_ctx", "5"])
    assert set(chosen.ignored) == {"--port", "--n_ctx"}
    assert read_settings(["--model", f"{tmp_path}/m.gguf", "--port", "9"]).ignored == ()


# Keys


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "m.gguf").touch()
    return f"{tmp_path}/m.gguf"


def test_no_key_and_one(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings(["--model", model]).server.api_keys == ()
    server = read_settings(["--model", model, "--api_key", "a b"]).server
    assert (server.api_key, server.api_keys) == ("a b", ("a b",))
    assert ServerSettings(api_key="a").api_keys == ("a",)
    for one in ("123", '["a", "b"]'):
        monkeypatch.setenv("API_KEY", one)
        assert read_settings(["--model", model]).server.api_keys == (one,)


def test_several_keys(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_bytes("\ufeffc\r\n\n  # not one\n d # \r\na".encode())
    given = ["--model", model, "--api_key", "a", "--api_key=b"]
    assert read_settings(given).server.api_keys == ("a", "b")
    assert read_settings([*given, "--api_key_file", str(file)]).server.api_keys == ("a", "b", "c", "d #")
    monkeypatch.setenv("API_KEY_FILE", str(file))
    assert ServerSettings().api_keys == ("c", "d #", "a")
    file_read = read_settings(["--model", model]).server
    file.unlink()
    assert file_read.api_keys == ("c", "d #", "a"), "at start, once"


@pytest.mark.parametrize(
    ("written", "keys"),
    [
        ("", ("from-environment",)),
        ("api_key: a\n", ("a",)),
        ("api_key: [a]\n", ("a",)),
        ("api_key: [a, b, c]\n", ("a", "b", "c")),
        ("api_key: [a, b]\napi_key_file: FILE\n", ("a", "b", "z")),
    ],
)
def test_keys_of_a_config_file(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, keys: tuple[str, ...]
) -> None:
    (tmp_path / "keys").write_text("z\n")
    config = tmp_path / "c.yaml"
    config.write_text(written.replace("FILE", str(tmp_path / "keys")) + f"models: [{{model: {model}}}]")
    monkeypatch.setenv("API_KEY", "from-environment")
    assert read_settings(["--config_file", str(config)]).server.api_keys == keys


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("api_key: []", "api_key: the list is empty"),
        ("api_key: [a, 5]", "api_key[1]: not a string"),
        ("api_key: [a, '']", "api_key: a key is empty"),
        ("api_key: ' '", "api_key: a key is empty"),
        ("api_key: {a: b}", "api_key: "),
    ],
)
def test_wrong_keys_of_a_config_file(model: str, tmp_path: Path, written: str, what: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"{written}\nmodels: [{{model: {model}}}]")
    assert what in told("--config_file", str(config))


def test_wrong_keys(model: str, tmp_path: Path) -> None:
    assert told("--model", model, "--api_key", "") == "api_key: a key is empty; leave it out if none is needed"
    assert "expected one argument" in told("--model", model, "--api_key")
    file = tmp_path / "keys"
    assert told("--model", model, "--api_key_file", str(file)) == f"api_key_file {file}: No such file or directory"
    file.write_text("\n# secret\n")
    assert told("--model", model, "--api_key_file", str(file)) == f"api_key_file {file}: there is no key in it"
    file.write_bytes(b"secret\xff")
    assert told("--model", model, "--api_key_file", str(file)) == f"api_key_file {file}: not a text in UTF-8"
    assert "did you mean --api_key_file?" in told("--api-key-file", "x")


# Addresses


def test_all_addresses_of_a_host_have_one_port() -> None:
    sockets = bind("localhost", 0)
    try:
        assert len({one.getsockname()[1] for one in sockets}) == 1
        assert socket.AF_INET in {one.family for one in sockets}
    finally:
        for one in sockets:
            one.close()


def test_a_port_in_use_is_found_by_binding() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for host in ("127.0.0.1", "localhost", "0.0.0.0"):
            with pytest.raises(OSError, match="Errno") as error:
                bind(host, port)
            assert error.value.errno == errno.EADDRINUSE


def test_a_port_that_was_just_left_can_be_had_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as left:
        port = left.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            left.accept()[0].close()
            client.recv(1)
    for one in bind("127.0.0.1", port):
        one.close()


def test_an_address_of_another_machine() -> None:
    with pytest.raises(OSError, match="Errno") as error:
        bind("192.0.2.1", 0)
    assert error.value.errno == errno.EADDRNOTAVAIL
    with pytest.raises(socket.gaierror):
        bind("no-such-host.invalid", 0)
