"""The examples that talk to the server run as they stand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from llamacpp_rig import answer, call

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def paris(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    file = tmp_path_factory.mktemp("examples") / "scripts.jsonl"
    think = "<|channel|>analysis<|message|>Need weather.<|end|><|start|>assistant"
    replies = [{"raw": think + call("get_weather", '{"city":"Paris"}')}, {"raw": answer("It is 21 C.")}]
    file.write_text(json.dumps({"id": "paris", "when": "Paris", "replies": replies}))
    with ServerProcess(
        ["-m", "harmony_plugin.demo.server", "--script", str(file), "--model", str(build_model()), "--n_ctx", "4096"]
    ) as running:
        yield running


@pytest.mark.parametrize(("name", "path"), [("server_responses_agent.py", "/v1"), ("server_anthropic.py", "")])
def test_example(paris: ServerProcess, name: str, path: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        env={**os.environ, "HARMONY_URL": paris.url + path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Need weather." in done.stdout
    assert "It is 21 C." in done.stdout


def test_the_example_config_has_only_known_keys() -> None:
    import yaml

    from harmony_plugin.llamacpp.server.settings import ConfigFile

    config = ConfigFile.model_validate(yaml.safe_load((EXAMPLES / "server_config.yaml").read_text("utf-8")))
    assert [model.model_alias for model in config.models] == ["gpt-oss-20b", "gpt-oss-120b"]
