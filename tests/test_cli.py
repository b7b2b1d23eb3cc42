"""The console script: `parse` on files and pipes, `demo` with and without a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harmony_plugin import parse
from harmony_plugin.cli import main

RAW = (
    "<|channel|>analysis<|message|>Need “weather”.<|end|><|start|>assistant"
    "<|channel|>commentary to=functions.get_weather "
    '<|constrain|>json<|message|>{"city":"Zürich"}<|call|>'
)
ANSWER = "<|channel|>final<|message|>Hello.\n<|return|>"


def run(*arguments: str, given: bytes = b"", timeout: float = 300) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "harmony_plugin.cli", *arguments]
    return subprocess.run(command, input=given, capture_output=True, timeout=timeout)


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(message), object_hook=lambda o: {k: v for k, v in o.items() if k != "id"})  # type: ignore[no-any-return]


def test_parse_prints_the_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "reply.txt"
    file.write_text(RAW, "utf-8")
    assert main(["parse", str(file)]) == 0
    assert without_ids(json.loads(capsys.readouterr().out)) == without_ids(parse(RAW).to_openai())


def test_parse_reads_a_pipe() -> None:
    done = run("parse", given=RAW.encode())
    assert done.returncode == 0
    assert without_ids(json.loads(done.stdout)) == without_ids(parse(RAW).to_openai())
    assert done.stderr == b""


def test_what_is_written_to_a_pipe_is_utf_8() -> None:
    """Python would take the locale's encoding there: ASCII here, a code page on Windows."""
    foreign = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
    command = [sys.executable, "-m", "harmony_plugin.cli", "parse"]
    given = "<|channel|>final<|message|>é 😀<|return|>".encode()
    done = subprocess.run(command, input=given, capture_output=True, timeout=300, env=kept | foreign, check=False)
    assert json.loads(done.stdout.decode("utf-8"))["content"] == "é 😀", done.stderr


def test_the_line_break_that_ends_a_file_is_not_the_models() -> None:
    cut = b"<|channel|>final<|message|>Hello.\n\n"
    assert json.loads(run("parse", given=cut).stdout)["content"] == "Hello.\n"
    assert json.loads(run("parse", given=ANSWER.encode() + b"\n").stdout)["content"] == "Hello.\n"


def test_parse_takes_ids_tools_and_a_prompt(tmp_path: Path) -> None:
    pytest.importorskip("openai_harmony")
    ids = [200_005, 12_606, 815, 316, 28, 44_580, 775, 23_981, 170_154, 5_701, 200_008, 10_848, 200_012]
    message = json.loads(run("parse", "--ids", given=json.dumps(ids).encode()).stdout)
    assert without_ids(message) == without_ids(parse(ids).to_openai())
    assert message["tool_calls"]
    (tmp_path / "tools.json").write_text("[]")
    other = b"<|channel|>commentary to=ms_output<|message|>{}<|end|>"
    assert "tool_calls" in json.loads(run("parse", given=other).stdout)
    assert json.loads(run("parse", "--tools", str(tmp_path / "tools.json"), given=other).stdout)["content"] == "{}"
    body = run("parse", "--prompt", "<|start|>assistant<|channel|>final<|message|>", given=b"Hi")
    assert json.loads(body.stdout)["content"] == "Hi"


def test_stream_prints_deltas_while_input_comes() -> None:
    command = [sys.executable, "-m", "harmony_plugin.cli", "parse", "--stream"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"<|channel|>final<|message|>Hel")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"content": "Hel"}
        process.stdin.write(b"lo.<|return|>")
        process.stdin.close()
        rest = [json.loads(line) for line in process.stdout.read().splitlines()]
    assert "".join(delta.get("content", "") for delta in rest) == "lo."
    assert rest[-1] == {"finish_reason": "stop"}


def test_issues_go_to_standard_error_and_strict_fails() -> None:
    broken = b"<|channel|>analysis<|message|>thinking<|end|><|channel|>final<|message|>done<|end|>"
    done = run("parse", given=broken)
    assert done.returncode == 0
    assert json.loads(done.stdout)["content"] == "done"
    assert done.stderr.startswith(b"issue: ")
    strict = run("parse", "--strict", given=broken)
    assert strict.returncode == 1
    assert strict.stderr.startswith(b"harmony-plugin: ")


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["/nowhere/file"], b""),
        (["--ids"], b"hello"),
        (["--ids"], b'["a"]'),
        (["--ids"], b"[true]"),
        (["--tools", "/nowhere/tools.json"], b""),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments: Sequence[str], given: bytes) -> None:
    done = run("parse", *arguments, given=given)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    command = f"{sys.executable} -m harmony_plugin.cli parse --stream | head -1"
    text = b"<|channel|>final<|message|>" + b"x" * 5_000_000
    done = subprocess.run(["bash", "-c", command], input=text, capture_output=True, timeout=60)
    assert b"Traceback" not in done.stderr


# The demo is the real server and a real client.

demo_needs = pytest.mark.e2e


def extras() -> None:
    for module in ("llama_cpp", "openai", "gguf"):
        pytest.importorskip(module)


@demo_needs
def test_demo_without_a_terminal() -> None:
    extras()
    done = run("demo")
    said = done.stdout.decode()
    assert done.returncode == 0, said + done.stderr.decode()
    assert "\x1b" not in said
    assert "SAMPLING IS SCRIPTED" in said
    assert said.count("streamed = whole") == 4
    assert 'tool call: query_dataset {"name":"sales"}' in said
    assert said.rstrip().endswith("Streamed and whole replies agree.")


@demo_needs
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_demo_in_a_terminal_is_coloured() -> None:
    extras()
    import pty

    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "harmony_plugin.cli", "demo"]
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"}
    with subprocess.Popen(command, stdout=follower, stderr=follower, stdin=follower, env=environment) as process:
        os.close(follower)
        said = b""
        while True:
            try:
                read = os.read(leader, 4096)
            except OSError:
                break
            if not read:
                break
            said += read
    os.close(leader)
    assert process.returncode == 0, said.decode()
    assert b"\x1b[32m" in said  # content
    assert b"\x1b[36m" in said  # tool call
    assert b"\x1b[2;3m" in said  # reasoning


@demo_needs
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_demo_opens_its_page_and_stays_until_it_is_told_to_end(tmp_path: Path) -> None:
    extras()
    import httpx

    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/part && mv {tmp_path}/part {tmp_path}/opened\n')
    browser.chmod(0o755)
    command = [sys.executable, "-m", "harmony_plugin.cli", "demo", "--open"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "BROWSER": str(browser)}
    ) as process:
        while not (tmp_path / "opened").exists():
            assert process.poll() is None
            time.sleep(0.1)
        page = httpx.get((tmp_path / "opened").read_text(), headers={"accept": "text/html"})
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 0, said
    assert "ui/page.js" in page.text
    assert "What is the weather in Paris?" in said.split("The page: ")[1]


@demo_needs
def test_demo_on_a_model_of_ones_own_is_not_scripted() -> None:
    extras()
    from harmony_plugin.demo.model import build_model

    done = run("demo", "--model", str(build_model()), "--max-tokens", "20")
    said = done.stdout.decode()
    assert done.returncode == 0, said + done.stderr.decode()
    assert "unscripted" in said
    assert "finish_reason length" in said


@demo_needs
def test_demo_fails_when_streamed_and_whole_replies_differ(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    extras()
    from harmony_plugin.demo import show

    whole = show._whole

    def other(*arguments: Any) -> Any:
        seen, message = whole(*arguments)
        seen.content += "!"
        return seen, message

    monkeypatch.setattr(show, "_whole", other)
    assert main(["demo"]) == 1
    assert "differ" in capsys.readouterr().out


def test_demo_says_when_the_server_cannot_start(capsys: pytest.CaptureFixture[str]) -> None:
    extras()
    assert main(["demo", "--model", "/nowhere/model.gguf"]) == 1
    assert "model file not found: /nowhere/model.gguf" in capsys.readouterr().out
