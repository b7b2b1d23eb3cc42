"""The examples that talk to the server run as they stand, and its example settings are served by."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from llamacpp_rig import ONE_THREAD, answer, call

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

EXAMPLES = Path(__file__).parents[3] / "examples"
NEED = "<|channel|>analysis<|message|>Need weather.<|end|><|start|>assistant"
ADA = '{"name": "Ada", "birthplace": "London", "birth_year": 1815}'
SCRIPTS: list[dict[str, Any]] = [
    {"when": "Paris", "replies": [NEED + call("get_weather", '{"city":"Paris"}'), answer("It is 21 C.")]},
    {"when": "umbrella", "replies": [NEED + call("get_weather", '{"city":"Rome"}'), answer("None.", "It is clear.")]},
    {"when": "2 + 2", "replies": [answer("4.", "Add.")]},
    {"when": "3 more", "replies": ["", answer("7.", "Add again.")]},
    {"when": "Ada", "replies": [answer(ADA, "Read.")]},
    {"when": "time", "replies": [call("llm_time", "{}"), answer("It is noon.")]},
]


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    file = tmp_path_factory.mktemp("examples") / "scripts.jsonl"
    lines = [
        json.dumps(
            {"id": script["when"], "when": script["when"], "replies": [{"raw": raw} for raw in script["replies"]]}
        )
        for script in SCRIPTS
    ]
    file.write_text("\n".join(lines), "utf-8")
    model = ("--model", str(build_model()), "--n_ctx", "4096", *ONE_THREAD)
    with ServerProcess(["-m", "harmony_plugin.demo.server", "--script", str(file), *model]) as running:
        yield running


def run(server: ServerProcess, *command: str, **environment: str) -> str:
    """What the command prints that is told where the server is."""
    urls = {"OPENAI_BASE_URL": f"{server.url}/v1", "ANTHROPIC_BASE_URL": server.url}
    done = subprocess.run(
        command,
        env={**os.environ, **urls, "PYTHONIOENCODING": "utf-8", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("example", "arguments", "expected"),
    [
        ("server_responses_agent.py", [], ["Need weather.", '-> get_weather({"city":"Paris"})', "It is 21 C."]),
        ("server_anthropic.py", [], ["Need weather.", "It is 21 C."]),
        ("server_tool_loop.py", [], ["Need weather.", "call: {'name': 'get_weather'", "It is clear.None."]),
        ("server_chat.py", ["What is 2 + 2?", "And 3 more?"], ["\033[2mAdd", "\033[0m\n4.", "\033[0m\n7."]),
        ("server_structured.py", [], ["Person(name='Ada', birthplace='London', birth_year=1815)"]),
    ],
)
def test_example(scripted: ServerProcess, example: str, arguments: list[str], expected: list[str]) -> None:
    said = run(scripted, sys.executable, str(EXAMPLES / example), *arguments)
    assert [text for text in expected if text not in said] == [], said


def test_the_command_llm(scripted: ServerProcess, tmp_path: Path) -> None:
    """A question, a schema and a tool, as the file says."""
    pytest.importorskip("llm", reason="needs the extra dev")
    settings = (EXAMPLES / "llm" / "extra-openai-models.yaml").read_text("utf-8")
    (tmp_path / "extra-openai-models.yaml").write_text(settings.replace("http://localhost:8000", scripted.url), "utf-8")

    def llm(*arguments: str) -> str:
        command = [sys.executable, "-W", "ignore", "-m", "llm", "-m", "gpt-oss", *arguments]
        return run(scripted, *command, LLM_USER_PATH=str(tmp_path))

    assert llm("What is 2 + 2?").endswith("4.\n")
    schema = "name, birthplace, birth_year int"
    assert json.loads(llm("--schema", schema, "Ada Lovelace was born in London.").splitlines()[-1]) == json.loads(ADA)
    assert llm("-T", "llm_time", "What time is it?").endswith("It is noon.\n")


def test_the_agents_settings_lead_to_the_server(scripted: ServerProcess, tmp_path: Path) -> None:
    """Address, path and model of each agent's file; the agents themselves are run by `make agents`."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 brings it")
    agents = EXAMPLES / "agents"
    codex = tomllib.loads((agents / "codex.toml").read_text("utf-8"))
    provider = codex["model_providers"][codex["model_provider"]]
    assert provider["wire_api"] == "responses"
    opencode = json.loads((agents / "opencode.json").read_text("utf-8"))
    name, _, model = opencode["model"].partition("/")
    assert model in opencode["provider"][name]["models"]
    (tmp_path / "claude").write_text('#!/bin/sh\nenv; echo "$@"\n', "utf-8")
    (tmp_path / "claude").chmod(0o755)
    path = os.pathsep.join((str(tmp_path), os.environ["PATH"]))
    said = run(scripted, "sh", str(agents / "claude-code.sh"), "--version", PATH=path).splitlines()
    assert said[-1] == "--version"
    claude = dict(line.split("=", 1) for line in said if "=" in line)

    messages = [{"role": "user", "content": "What is 2 + 2?"}]
    asked = [
        (f"{provider['base_url']}/responses", {"model": codex["model"], "input": messages}),
        (
            f"{opencode['provider'][name]['options']['baseURL']}/chat/completions",
            {"model": model, "messages": messages},
        ),
        (
            f"{claude['ANTHROPIC_BASE_URL']}/v1/messages",
            {"model": claude["ANTHROPIC_MODEL"], "messages": messages, "max_tokens": 100},
        ),
    ]
    for url, body in asked:
        assert url.startswith("http://localhost:8000/")
        reply = httpx.post(url.replace("http://localhost:8000", scripted.url), json=body, timeout=120)
        assert (reply.status_code, "4." in reply.text) == (200, True), reply.text


@pytest.mark.parametrize("file", ["server_config.yaml", "server_config_several.yaml"])
def test_the_server_starts_with_the_example_settings(file: str, tmp_path: Path) -> None:
    """As they stand, but for the port, the models' files and, as they are tiny, how much they read at a time."""
    settings = yaml.safe_load((EXAMPLES / file).read_text("utf-8")) | {"port": 0}
    for model in settings["models"]:
        model |= {"model": str(build_model()), "n_ctx": 2048, "n_threads": 1}
    (tmp_path / file).write_text(yaml.safe_dump(settings), "utf-8")
    key = {"Authorization": f"Bearer {settings.get('api_key', 'none')}"}
    body = {"messages": [{"role": "user", "content": "Hello."}], "max_completion_tokens": 1}
    with (
        ServerProcess(["-m", "harmony_plugin.llamacpp", "--config_file", str(tmp_path / file)]) as server,
        httpx.Client(base_url=server.url, headers=key, timeout=120) as client,
    ):
        names = [model["model_alias"] for model in settings["models"]]
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == names
        for name in names:
            reply = client.post("/v1/chat/completions", json={**body, "model": name})
            assert (reply.status_code, reply.json()["model"]) == (200, name)
        unknown = client.post("/v1/chat/completions", json={**body, "model": "another"})
        assert unknown.status_code == (404 if settings.get("strict_models") else 200)
        no_key = client.post("/v1/chat/completions", json=body, headers={"Authorization": "Bearer wrong"})
        assert no_key.status_code == (401 if "api_key" in settings else 200)
