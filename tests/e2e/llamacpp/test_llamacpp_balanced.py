"""Two servers behind nginx and HAProxy, by the files in `examples/deploy/balancer`. Without those programs: skipped."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from balancer_rig import BALANCERS, Balancer, binary
from llamacpp_rig import LONG, ONE_THREAD, chat_text, scripted

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

ASKED = {"model": "tiny", "messages": [{"role": "user", "content": "Go on."}], "max_completion_tokens": 7000}
WHO = "x-harmony-model"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServerProcess]]:
    model = ("--model", str(build_model()), "--n_ctx", "8192", *ONE_THREAD)
    folder = tmp_path_factory.mktemp("two")
    with (
        scripted(folder, *model, "--model_alias", "first") as first,
        scripted(folder, *model, "--model_alias", "second") as second,
    ):
        yield [first, second]


def need(name: str) -> None:
    if binary(name) is None:
        pytest.skip(f"{name} is not installed; `apt-get install {name}` brings it")


@pytest.fixture(scope="module", params=BALANCERS)
def balancer(request: pytest.FixtureRequest, servers: list[ServerProcess]) -> Iterator[Balancer]:
    need(request.param)
    with Balancer(request.param, [server.url.removeprefix("http://") for server in servers]) as running:
        yield running


def ask(url: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    body = ASKED | {"metadata": {"script": "answer"}} | fields
    reply = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=120)
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["message"]["content"] == "2 + 2 = 4."
    return reply


def found(balancer: Balancer, request: Callable[[str], dict[str, Any]]) -> dict[str, set[str]]:
    """Which servers each of some conversations gets, asked for twice."""
    seen: dict[str, set[str]] = {}
    for number in [*range(16)] * 2:
        conversation = f"Bearer {number}"
        fields = request(conversation)
        # No reply is generated for this, and balancers do not look at the path.
        body = {"content": "a"} | fields.pop("body", {})
        reply = httpx.post(f"{balancer.url}/tokenize", json=body, timeout=120, **fields)
        assert reply.status_code == 200, reply.text
        seen.setdefault(conversation, set()).add(reply.headers[WHO])
    return seen


@pytest.mark.parametrize("name", ["x-session-id", "session-id", "x-claude-code-session-id", "authorization"])
def test_a_header_leads_a_conversation_to_its_server(balancer: Balancer, name: str) -> None:
    servers = found(balancer, lambda conversation: {"headers": {name: conversation}}).values()
    assert all(len(each) == 1 for each in servers)
    assert set.union(*servers) == {"first", "second"}


@pytest.mark.parametrize("balancer", ["haproxy"], indirect=True)  # nginx reads no bodies
@pytest.mark.parametrize("name", ["prompt_cache_key", "metadata"])
def test_a_field_of_the_body_does_too(balancer: Balancer, name: str) -> None:
    def request(conversation: str) -> dict[str, Any]:
        return {"body": {name: {"user_id": conversation} if name == "metadata" else conversation}}

    servers = found(balancer, request).values()
    assert all(len(each) == 1 for each in servers)
    assert set.union(*servers) == {"first", "second"}


@pytest.mark.parametrize("name", BALANCERS)
def test_a_server_that_stops_is_not_noticed(tmp_path: Path, servers: list[ServerProcess], name: str) -> None:
    """Its stream ends whole; its conversations are answered by the other one, while it stops and after that."""
    need(name)
    model = ("--model", str(build_model()), "--model_alias", "third", "--n_ctx", "8192", *ONE_THREAD)
    with (
        scripted(tmp_path, *model) as third,
        Balancer(name, [server.url.removeprefix("http://") for server in (third, servers[0])]) as balancer,
    ):
        sessions = ({"x-session-id": f"session {number}"} for number in range(100))
        its = next(headers for headers in sessions if ask(balancer.url, headers).headers[WHO] == "third")
        fields = ASKED | {"stream": True, "metadata": {"script": "long"}}
        chat = f"{balancer.url}/v1/chat/completions"
        with httpx.stream("POST", chat, json=fields, headers=its, timeout=120) as stream:
            assert stream.headers[WHO] == "third"
            lines = stream.iter_lines()
            next(lines)  # the role
            third.process.send_signal(signal.SIGTERM)
            assert {ask(balancer.url, its).headers[WHO] for _ in range(4)} == {"first"}
            assert chat_text(lines) == LONG
        assert third.process.wait(60) == 0
        assert ask(balancer.url, its).headers[WHO] == "first"
