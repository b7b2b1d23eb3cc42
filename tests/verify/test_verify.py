"""The command as people run it: what it prints, the JSON, exit codes, and what it asks of whom."""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from faulty_endpoint import Exchange, faulty

from harmony_plugin.demo.process import ServerProcess
from harmony_plugin.verify import add_arguments, compatibility, run
from harmony_plugin.verify.checks import CHECKS

REPORT = Path(__file__).with_name("report.txt")
FAILING = """\
URL, model tiny, 7 requests

check            chat   messages
usage            fails  fails
reasoning-names  holds

usage: Tokens are counted, streamed too, and add up
  chat       fails   whole: no usage
  messages   fails   whole: no usage

1 holds, 2 fails
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "harmony_plugin.verify", *arguments]


def verify(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # Nobody listens at this proxy, and the names are not this endpoint's business.
    given = {"COLUMNS": "100", "HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}
    environment = {
        **os.environ,
        **given,
        "OPENAI_ORG_ID": "org",
        "OPENAI_BASE_URL": "http://127.0.0.1:9",
        **environment,
    }
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, env=environment)


def verify_here(*arguments: str) -> int:
    """The same in this process; what is printed is the test's to read."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(arguments))


def printed(text: str, url: str) -> str:
    return "".join(line.rstrip() + "\n" for line in text.replace(url, "URL").splitlines())


def test_a_server_that_is_right(server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    done = verify(f"{server.url}/v1/", "--json", str(file))
    assert done.stderr == ""
    assert printed(done.stdout, server.url) == REPORT.read_text("utf-8")
    assert done.returncode == 0
    report = json.loads(file.read_text("utf-8"))
    assert {name: report[name] for name in ("url", "model")} == {"url": server.url, "model": "tiny"}
    assert set(report["clients"]) == {"harmony-plugin", "openai", "anthropic"}
    assert report["counts"] == {"holds": 72, "fails": 0, "cannot tell": 0, "not served": 0}
    assert sum(report["counts"].values()) == len(report["checks"]) == sum(len(check.apis) for check in CHECKS.values())
    for found in report["checks"]:
        assert found["meaning"] == CHECKS[found["name"]].meaning
        assert found["result"] in report["counts"]
        assert found["detail"]
    asked = next(found for found in report["checks"] if found["name"] == "compatibility")
    assert asked["pass@1"] == asked["pass@3"] == 1.0
    assert [question["id"] for question in asked["questions"]] == [q.id for q in compatibility.questions()]


def test_a_server_that_is_wrong(server: ServerProcess) -> None:
    def answered(seen: Exchange) -> None:
        if seen.status == 200 and seen.request is not None:
            seen.edit(lambda reply: {**reply, "usage": None} if "usage" in reply else reply)

    flags = ("--apis", "messages,chat", "--only", "usage", "--only", "reasoning-names")
    with faulty(server.url, answered=answered) as url:
        done = verify(url, *flags)
        alone = verify(url, *flags, "--json", "-", "--concurrency", "3")
    assert printed(done.stdout, url) == FAILING
    assert (done.returncode, done.stderr) == (1, "")
    report = json.loads(alone.stdout)
    assert (alone.returncode, report["requests"]) == (1, 7)
    results = {(found["name"], found["api"]): found["result"] for found in report["checks"]}
    assert results == {
        ("usage", "chat"): "fails",
        ("usage", "messages"): "fails",
        ("reasoning-names", "chat"): "holds",
    }


def test_the_checks_are_listed() -> None:
    done = verify("--list")
    assert done.returncode == 0
    for check in CHECKS.values():
        assert re.search(rf"^ *{check.name} .*{', '.join(check.apis)}$", printed(done.stdout, "URL"), re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give the URL of an endpoint"),
        (("localhost:8000",), "is no URL of a server"),
        (("http://me:secret@127.0.0.1:9",), "use --api-key or --header"),
        (("http://127.0.0.1:9",), "no server answers at http://127.0.0.1:9"),
        (("http://127.0.0.1:9", "--only", "usages"), "there is no check 'usages'; --list names them"),
        (("http://127.0.0.1:9", "--apis", "chat,embeddings"), "the APIs are chat, responses, messages"),
        (("http://127.0.0.1:9", "--apis", ","), "--apis names none"),
        (("http://127.0.0.1:9", "--header", "X-Team"), "is not NAME:VALUE"),
        (("http://127.0.0.1:9", "--api-key", "schlüssel"), "the key or a header cannot be sent"),
        (("http://[::1",), "is no URL"),
        (("http://127.0.0.1:9", "--json", "/nowhere/report.json"), "No such file or directory: '/nowhere/report.json'"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_here(*arguments) == 2
    out, err = capsys.readouterr()
    assert told in err
    assert (out, len(err.splitlines())) == ("", 1)


def test_numbers_are_above_0(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--passes", "--timeout", "--max-requests", "--max-tokens", "--concurrency"):
        with pytest.raises(SystemExit, match="2"):
            verify_here("http://127.0.0.1:9", flag, "0")
        assert f"{flag}: 0 is not above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "text", "arguments", "told"),
    [
        (401, "{}", (), "wants another key (401): --api-key, or OPENAI_API_KEY"),
        (307, "", (), "leads to None: give that URL, if you trust it"),
        (404, "{}", (), "names no model (404 {}): name one with --model"),
        (404, '{"detail":"Not Found"}', ("--model", "m1"), "serves none of chat, responses, messages"),
        (404, '{"error":{"message":"no m1 here"}}', ("--model", "m1"), "does not serve the model 'm1'"),
        (200, "{}", ("--model", "m1", "--max-requests", "1"), "nothing can be checked: not asked: --max-requests 1"),
    ],
)
def test_an_endpoint_that_cannot_be_checked(
    server: ServerProcess,
    status: int,
    text: str,
    arguments: tuple[str, ...],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answered(seen: Exchange) -> None:
        seen.status, seen.kind, seen.text = status, "application/json", text

    with faulty(server.url, answered=answered) as url:
        assert verify_here(url, *arguments) == 2
    err = capsys.readouterr().err
    assert told in err
    assert len(err.splitlines()) == 1


def test_key_and_headers_are_sent_with_every_request(server: ServerProcess) -> None:
    seen: list[dict[str, str]] = []
    with faulty(server.url, answered=lambda exchange: seen.append(exchange.headers)) as url:
        done = verify(url, "--header", "X-Team: a:b", "--only", "usage", "--only", "shapes", OPENAI_API_KEY="secret-1")
    assert done.returncode == 0
    assert len(seen) > 10
    for headers in seen:
        told = (headers["authorization"], headers["x-api-key"], headers["x-team"])
        assert told == ("Bearer secret-1", "secret-1", "a:b")
        assert "openai-organization" not in headers


def test_what_was_found_is_told_when_it_is_interrupted(server: ServerProcess) -> None:
    asked = threading.Semaphore(0)
    interrupted = threading.Event()
    count = iter(range(1_000))

    def answered(_: Any) -> None:
        asked.release()
        if next(count) >= 5:  # the model, the API, and the first check
            interrupted.wait(60)

    with faulty(server.url, answered=answered) as url:
        flags = ("--apis", "chat", "--only", "usage", "--only", "reasoning")
        process = subprocess.Popen(command(url, *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(6):
            assert asked.acquire(timeout=60)
        out = err = None
        for _ in range(3):  # on a machine that is very busy, a signal may come while nobody can take it
            process.send_signal(signal.SIGINT)
            try:
                out, err = process.communicate(timeout=30)
                break
            except subprocess.TimeoutExpired:
                continue
        interrupted.set()
    assert process.returncode == 130
    assert err == ""
    assert out is not None
    assert "usage  holds" in out
    assert "reasoning" not in out


def test_progress_is_for_terminals(server: ServerProcess) -> None:
    ours, theirs = pty.openpty()
    flags = ("--apis", "chat", "--only", "usage")
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(
        command(server.url, *flags), stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=60, env=environment
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "requests, chat usage" in shown
    assert "\x1b" not in done.stdout
