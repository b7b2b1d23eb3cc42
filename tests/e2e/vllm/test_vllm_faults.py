"""Outputs that stock vLLM gets wrong, against replies written by hand: on each API, whole and streamed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from vllm_rig.faults import ALL, Fault
from vllm_rig.replies import APIS, Api, Clients, comparable, gather_bounded
from vllm_rig.server import Launch


@pytest.fixture(scope="module")
def told(pool: Any) -> dict[tuple[str, Api, bool], Any]:
    url = pool.get(Launch()).url
    keys = [(fault, api, stream) for fault in ALL for api in APIS for stream in (False, True)]

    async def ask() -> list[Any]:
        async with Clients(url) as clients:
            return await gather_bounded(
                [clients.ask(api, fault.script, stream=stream, **fault.options(api)) for fault, api, stream in keys]
            )

    replies = asyncio.run(asyncio.wait_for(ask(), timeout=400))
    return {(fault.name, api, stream): reply for (fault, api, stream), reply in zip(keys, replies, strict=True)}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("fault", ALL, ids=lambda fault: fault.name)
def test_native_fault_is_gone(fault: Fault, api: Api, stream: bool, told: Any) -> None:
    reply = told[fault.name, api, stream]
    if isinstance(reply, BaseException):
        raise reply
    assert comparable(reply.fields, api, stream) == comparable(fault.fields, api, stream)
