"""The same plugin behind two API server processes, with several tokens to a delta and a setting of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from vllm_rig.cases import Case, load, right
from vllm_rig.load import complaints, run_round
from vllm_rig.replies import APIS, Api, Clients, comparable, gather_bounded
from vllm_rig.server import Launch

CASES = load()
LAUNCH = Launch(
    flags=("--api-server-count", "2", "--stream-interval", "7"),
    environment=(("HARMONY_COMMENTARY", "reasoning"),),  # a setting must reach every process
)


@pytest.fixture
def server(pool: Any) -> Any:
    return pool.get(LAUNCH)


@pytest.fixture(scope="module")
def told(pool: Any) -> dict[tuple[str, Api], Any]:
    server = pool.get(LAUNCH)
    keys = [(case, api) for case in CASES for api in APIS]

    async def ask() -> list[Any]:
        async with Clients(server.url) as clients:
            return await gather_bounded(
                [clients.ask(api, case.script, stream=True, tools=case.tools) for case, api in keys]
            )

    replies = asyncio.run(asyncio.wait_for(ask(), timeout=400))
    return {(case.id, api): reply for (case, api), reply in zip(keys, replies, strict=True)}


@pytest.mark.parametrize("api", APIS)
def test_deltas_of_several_tokens(api: Api, told: Any) -> None:
    wrong = {}
    for case in CASES:
        reply = told[case.id, api]
        expected = comparable(right(case.script, case.tools, commentary="reasoning").fields, api, True)
        if isinstance(reply, BaseException):
            wrong[case.id] = repr(reply)
        elif comparable(reply.fields, api, True) != expected:
            wrong[case.id] = f"got {reply.fields}, not {expected}"
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())


def test_deltas_carry_several_tokens(told: Any) -> None:
    """The flag is at work: far fewer chunks than tokens."""
    longest: Case = max(CASES, key=lambda case: len(case.script.seen))
    reply = told[longest.id, "chat"]
    assert len(reply.chunks) < len(longest.script.seen) / 2


def test_both_api_servers_answer(server: Any, run: Any) -> None:
    """Streams of both processes are exact, at the same time, and both did work."""
    processes = server.api_processes()
    assert len(processes) == 2
    before = [sum(process.cpu_times()[:2]) for process in processes]

    async def work() -> Any:
        async with Clients(server.url) as clients:
            return await run_round(clients, 7, commentary="reasoning")

    seen = run(work())
    assert not seen.wrong, "\n".join(seen.wrong[:5])
    assert all(sum(process.cpu_times()[:2]) > spent for process, spent in zip(processes, before, strict=True))
    assert not complaints(server.log_text())
