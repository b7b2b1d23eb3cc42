"""One server for these tests, whose model answers the checks as it should; see verify_rig."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="needs the extra llamacpp")

from verify_rig import answering

from harmony_plugin.demo.process import ServerProcess


def pytest_collection_modifyitems(items: list[Any]) -> None:
    for item in items:
        if "tests/verify" in item.path.as_posix():
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with answering(tmp_path_factory.mktemp("verify")) as running:
        yield running
