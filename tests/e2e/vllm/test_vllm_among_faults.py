"""vLLM with the plugin among faults: it goes on, or stops with a line that says why."""

from __future__ import annotations

import re
import shutil
import socket
import urllib.request
from pathlib import Path
from typing import Any

import httpx
import pytest
from faulty_clients import closed_by_server, connect, content_of, killed_while_reading, read_all, request_bytes, until
from vllm_rig import server as rig
from vllm_rig.model import model_directory
from vllm_rig.replies import encode
from vllm_rig.server import MODEL, Launch, Server, ServerFailed, running

WORDS = 1_500
LONG = encode("<|channel|>final<|message|>") + encode(" word") * WORDS


def ask(ids: list[int], pause: float = 0, **more: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Say what the script says."}],
        "temperature": 0,
        "max_completion_tokens": len(ids) + 4,
        "extra_body": {"vllm_xargs": {"script": ids, "script_pause": pause}},
        **more,
    }


def answer(url: str) -> Any:
    fields = ask(encode("<|channel|>final<|message|>2 + 2 = 4.<|return|>"))
    body = fields | fields.pop("extra_body")
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=240)


def assert_goes_on(url: str) -> None:
    reply = answer(url)
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["message"]["content"] == "2 + 2 = 4."


def metric(url: str, name: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as page:
        text = page.read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if re.match(rf"{re.escape(name)}[{{ ]", line))


def test_a_client_that_is_killed(server: Server) -> None:
    """Its request is given up: fewer tokens are generated than it asked for."""
    before = metric(server.url, "vllm:generation_tokens_total")
    for _ in range(2):
        killed_while_reading(server.url, ask(LONG, pause=0.05))  # a minute or more, were it not given up
    until(lambda: metric(server.url, "vllm:num_requests_running") == 0)
    assert metric(server.url, "vllm:generation_tokens_total") - before < 2 * len(LONG)
    assert_goes_on(server.url)


def test_a_slow_reader_gets_every_byte(server: Server) -> None:
    with connect(server.url, buffer=4096) as raw:
        raw.sendall(request_bytes(server.url, ask(LONG, stream=True)))
        got = read_all(raw, size=2048, pause=0.002)
    assert content_of(got) == " word" * WORDS
    assert_goes_on(server.url)


def test_a_reader_that_stops_does_not_stop_the_others(server: Server) -> None:
    with connect(server.url, buffer=4096) as raw:
        raw.sendall(request_bytes(server.url, ask(LONG, stream=True)))
        assert raw.recv(100)
        assert_goes_on(server.url)


@pytest.mark.parametrize("stream", [False, True])
def test_a_connection_half_closed(server: Server, stream: bool) -> None:
    with connect(server.url) as raw:
        raw.sendall(request_bytes(server.url, ask(LONG[:20], stream=stream)))
        raw.shutdown(socket.SHUT_WR)
        assert closed_by_server(raw)
    assert_goes_on(server.url)


def test_nothing_was_raised(server: Server) -> None:
    """In all of the above."""
    assert server.process.poll() is None
    assert "Traceback" not in server.log_text(), server.log_text()[-4000:]


class FullDisk(type(Path())):  # type: ignore[misc]
    """A log that takes nothing; there is nothing to read in it (/dev/full itself never ends)."""

    def open(self, *_: Any, **__: Any) -> Any:
        return open("/dev/full", "wb")

    def read_text(self, *_: Any, **__: Any) -> str:
        return ""


def test_logs_on_a_full_disk() -> None:
    """Nothing can be logged; requests are answered all the same, malformed output, too."""
    with running(Launch(), FullDisk("full")) as one:
        assert_goes_on(one.url)
        bad = ask(encode("??<|end|><|channel|>analyses<|message|>x<|message|>"))
        body = bad | bad.pop("extra_body")
        assert httpx.post(f"{one.url}/v1/chat/completions", json=body, timeout=240).status_code == 200
        assert_goes_on(one.url)


def test_a_vocabulary_that_is_not_harmonys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server does not start, and one line says which markers the vocabulary lacks."""
    directory = tmp_path / "model"
    shutil.copytree(model_directory("llama"), directory)
    tokenizer = directory / "tokenizer.json"
    text = tokenizer.read_text(encoding="utf-8").replace("<|channel|>", "<|chapter|>").replace("<|call|>", "<|cell|>")
    tokenizer.unlink()
    tokenizer.write_text(text, encoding="utf-8")
    monkeypatch.setattr(rig, "model_directory", lambda kind: directory)
    with pytest.raises(ServerFailed) as failed, running(Launch(kind="llama"), tmp_path / "vllm.log"):
        pass
    said = (tmp_path / "vllm.log").read_text(errors="replace")
    assert "not a Harmony vocabulary" in said, str(failed.value)
    assert "<|channel|>" in said


def test_a_wrong_setting(tmp_path: Path) -> None:
    launch = Launch(environment=(("HARMONY_COMMENTARY", "sideways"),))
    with pytest.raises(ServerFailed), running(launch, tmp_path / "vllm.log"):
        pass
    said = (tmp_path / "vllm.log").read_text(errors="replace")
    assert "HARMONY_COMMENTARY='sideways': it is one of content, reasoning, drop" in said
