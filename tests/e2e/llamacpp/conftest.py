"""One scripted server for the whole session, see llamacpp_rig; and clients of it, or of a module's own `server`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="needs the extra llamacpp")

import anthropic
import httpx
import openai
from llamacpp_rig import scripted, sound

from harmony_plugin.demo.process import ServerProcess


def pytest_collection_modifyitems(items: list[Any]) -> None:
    for item in items:
        if "e2e/llamacpp" in item.path.as_posix():
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with sound(scripted(tmp_path_factory.mktemp("scripted"))) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def claude(server: ServerProcess) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client
