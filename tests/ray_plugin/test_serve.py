"""Ray Serve LLM with the plugin: the replies that `vllm serve` gives, through every ingress that Ray has.

On GPUs Ray makes the engine's arguments in a task, and the replica knows no plugin of vLLM's. That way is the one that
is tested, with Ray's own code: on CPUs, but for the place where the arguments are made.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

if not importlib.util.find_spec("ray") or not importlib.util.find_spec("vllm"):
    pytest.skip("Ray and vLLM are not installed together: make ray", allow_module_level=True)

import ray_rig
from vllm_rig.cases import Case, load, right
from vllm_rig.replies import APIS, Api, Clients, Told, comparable, gather_bounded
from vllm_rig.server import ServerFailed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
CASES = load()
IN_TASK = "ray_callbacks.InTask"


def ask_all(url: str, apis: tuple[Api, ...]) -> dict[tuple[str, Api, bool], Any]:
    """Every case on these APIs, whole and streamed."""
    keys = [(case, api, stream) for case in CASES for api in apis for stream in (False, True)]

    async def ask() -> list[Any]:
        async with Clients(url) as clients:
            jobs = [clients.ask(api, case.script, stream=stream, tools=case.tools) for case, api, stream in keys]
            return await gather_bounded(jobs)

    replies = asyncio.run(ask())
    return {(case.id, api, stream): reply for (case, api, stream), reply in zip(keys, replies, strict=True)}


def the(reply: Told | BaseException) -> Told:
    """The reply; an error that was answered is the test's failure."""
    if isinstance(reply, BaseException):
        raise reply
    return reply


def check(case: Case, api: Api, stream: bool, reply: Told) -> None:
    """What `tests/e2e/vllm` holds `vllm serve` to."""
    expected = right(case.script, case.tools)
    fields = expected.fields
    if api == "messages" and not stream:
        try:
            objects = all(isinstance(json.loads(arguments), dict) for _, arguments in fields[2])
        except ValueError:
            objects = False
        if not objects:  # `input` is an object: arguments that are none stand in it as text
            assert reply.fields[:2] == fields[:2]
            assert [name for name, _ in reply.tool_calls] == [name for name, _ in fields[2]]
            return
    assert comparable(reply.fields, api, stream) == comparable(fields, api, stream)
    assert reply.completion_tokens == len(case.script.seen)
    if api != "messages":
        assert reply.reasoning_tokens == expected.reasoning_tokens


def check_both_names(reply: Told, stream: bool) -> bool:
    """`reasoning_content` beside `reasoning`, the same; whether there was any."""
    parts = [choice.delta for choice in reply.chunks] if stream else [reply.raw.choices[0].message]
    extras = [part.model_extra or {} for part in parts]
    assert all(extra.get("reasoning_content") == extra.get("reasoning") for extra in extras)
    return any(extra.get("reasoning_content") for extra in extras)


@pytest.fixture(scope="module")
def by_ingress(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Chat through Ray's own ingress, the only API of the plugin's that it has."""
    with ray_rig.serving(tmp_path_factory.mktemp("ray") / "ingress.log", IN_TASK) as url:
        return ask_all(url, ("chat",))


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """All three APIs, from the replica's own vLLM."""
    with ray_rig.serving(tmp_path_factory.mktemp("ray") / "direct.log", IN_TASK, direct=True) as url:
        return ask_all(url, APIS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_chat_through_rays_ingress(case: Case, by_ingress: Any) -> None:
    for stream in (False, True):
        check(case, "chat", stream, the(by_ingress[case.id, "chat", stream]))


def test_both_names_of_reasoning_through_rays_ingress(by_ingress: Any) -> None:
    for stream in (False, True):
        told = [the(by_ingress[case.id, "chat", stream]) for case in CASES]
        assert sum(check_both_names(reply, stream) for reply in told) > 10


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_direct_streaming(case: Case, api: Api, direct: Any) -> None:
    for stream in (False, True):
        check(case, api, stream, the(direct[case.id, api, stream]))


def test_both_names_of_reasoning_with_direct_streaming(direct: Any) -> None:
    for stream in (False, True):
        told = [the(direct[case.id, "chat", stream]) for case in CASES]
        assert sum(check_both_names(reply, stream) for reply in told) > 10


def test_without_the_callback_the_replica_knows_no_parser(tmp_path: Path) -> None:
    """Why there is a callback: were this to fail, Ray would load the plugin itself."""
    with (
        pytest.raises(ServerFailed),
        ray_rig.serving(tmp_path / "stock.log", "ray_callbacks.InTaskUnregistered"),
    ):
        pass
    assert "Reasoning parser 'harmony' not found" in (tmp_path / "stock.log").read_text(errors="replace")
