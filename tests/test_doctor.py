"""`harmony-plugin doctor`: each finding, in environments made for it; what it prints; exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from harmony_plugin import Dialect
from harmony_plugin.doctor import findings, installation, live, model, servers
from harmony_plugin.doctor.findings import Finding, State, probe

Found = dict[str, Finding]


def named(found: Any) -> Found:
    return {finding.name: finding for finding in found}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("HARMONY_", "VLLM_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    if "harmony_plugin.settings" in sys.modules:
        sys.modules["harmony_plugin.settings"].sources.cache_clear()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes distributions, in front of those that are installed; their versions are `0.0` (installed by nobody)."""
    folder = tmp_path / "packages"

    def make(**versions: str) -> None:
        for name, number in versions.items():
            info = folder / f"{name}-{number}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {number}\n"
            )
        monkeypatch.syspath_prepend(str(folder))

    return make


def doctor(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harmony_plugin.cli", "doctor", *flags]
    env = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, check=False)


def test_as_text_and_as_json() -> None:
    pytest.importorskip("pydantic_settings", reason="needs the extra cli")
    told = doctor("--quick", HARMONY_COMMENTARY="drop", HARMONY_COMENTARY="x")
    assert told.returncode == 0, told.stderr
    assert "settings\n  warning  HARMONY_COMENTARY: is no setting (did you mean HARMONY_COMMENTARY?)\n" in told.stdout
    assert "           → correct the name, or unset it\n" in told.stdout
    assert "  ok       HARMONY_COMMENTARY: 'drop' (environment)\n" in told.stdout
    assert told.stdout.splitlines()[-1].endswith("1 warning")
    assert doctor("--quick", "--strict", HARMONY_COMENTARY="x").returncode == 1
    wrong = doctor("--quick", "--json", HARMONY_COMMENTARY="nowhere", HARMONY_STRICT="perhaps")
    assert wrong.returncode == 1
    problems = [
        each for each in json.loads(wrong.stdout) if each["state"] == "problem" and each["section"] == "settings"
    ]
    assert [(each["name"], each["told"]) for each in problems] == [
        ("HARMONY_STRICT", "'perhaps': it is one of true, false"),
        ("HARMONY_COMMENTARY", "'nowhere': it is one of content, reasoning, drop"),
    ]


def test_every_setting_is_shown_where_that_is_asked_for() -> None:
    settings = pytest.importorskip("harmony_plugin.settings", reason="needs the extra cli")
    found = named(installation.settings(everything=True))
    assert set(found) >= {f"HARMONY_{name.upper()}" for name in settings.Settings.model_fields}
    assert found["HARMONY_COMMENTARY"].told == "'content' (default)"


def test_settings_without_what_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "harmony_plugin.settings", None)
    monkeypatch.delattr("harmony_plugin.settings", raising=False)
    assert list(installation.settings(everything=False)) == []
    monkeypatch.setenv("HARMONY_OUTPUT", "final_only")
    (finding,) = installation.settings(everything=False)
    assert finding.state is State.WARNING
    assert "harmony-plugin[cli]" in finding.do


def test_two_harmony_libraries_fight(packages: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    packages(openai_harmony="0.0.8", oss_harmony="0.0.11")
    found = named(installation.examine(quick=True))["openai_harmony"]
    assert found.state is State.PROBLEM
    assert "two distributions of one package" in found.told
    assert found.do == "pip uninstall -y openai-harmony oss-harmony && pip install oss-harmony"
    monkeypatch.setattr(installation, "installed", lambda *names: {})
    none = named(installation.examine(quick=True))
    assert none["openai_harmony"].state is State.WARNING
    assert none["rich"].state is State.ABSENT


def test_a_vocabulary_that_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It loads here only where a network is: the proxies that the probe is given lead nowhere."""
    monkeypatch.setattr(installation, "installed", lambda *names: {"openai-harmony": "0.0.8"} if len(names) > 1 else {})
    seen: list[Any] = []

    def probed(works_online: bool) -> Callable[..., dict[str, Any]]:
        def probe(name: str, **how: Any) -> dict[str, Any]:
            seen.append(how.get("environment"))
            return {"tokens": 1} if works_online and "environment" not in how else {"error": "no network"}

        return probe

    monkeypatch.setattr(installation, "probe", probed(True))
    assert named(installation.examine(quick=False))["vocabulary"].state is State.WARNING
    assert seen[0]["HTTPS_PROXY"] == "http://127.0.0.1:9"
    monkeypatch.setattr(installation, "probe", probed(False))
    assert named(installation.examine(quick=False))["vocabulary"].state is State.PROBLEM


def test_the_vocabulary_here_loads_without_a_network() -> None:
    pytest.importorskip("openai_harmony")
    assert named(installation.examine(quick=False))["vocabulary"].told == "loads without a network"


@pytest.mark.parametrize(
    ("version", "state"),
    [("0.24.0", State.PROBLEM), ("0.29.0", State.OK), ("0.33.0", State.OK), ("0.99.0", State.WARNING)],
)
def test_versions_of_vllm(version: str, state: State, packages: Callable[..., None]) -> None:
    packages(vllm=version)
    assert named(servers.examine(quick=True))["version"].state is state


def test_neither_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "installed", lambda *names: {})
    found = named(servers.examine(quick=False))
    assert {name: finding.state for name, finding in found.items()} == {
        "vllm": State.ABSENT,
        "llama-cpp-python": State.ABSENT,
    }


def test_what_keeps_vllm_from_loading_the_plugin(
    packages: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    packages(vllm="0.32.0")
    monkeypatch.setenv("VLLM_PLUGINS", "other")
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    found = named(servers.examine(quick=True))
    assert found["VLLM_PLUGINS"].state is State.PROBLEM
    assert "add harmony to it" in found["VLLM_PLUGINS"].do
    assert found["VLLM_USE_RUST_FRONTEND"].state is State.PROBLEM
    monkeypatch.setenv("VLLM_PLUGINS", "other, harmony")
    assert named(servers.examine(quick=True))["VLLM_PLUGINS"].state is State.OK
    monkeypatch.setattr(servers, "entry_points", lambda group: [])
    assert named(servers.examine(quick=True))["entry point"].state is State.PROBLEM


def test_what_an_engine_lacks(packages: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    packages(vllm="0.32.0", llama_cpp_python="0.3.36")
    seen: dict[str, dict[str, Any]] = {"vllm": {"error": "ImportError: no torch"}, "llamacpp": {"error": "crashed"}}
    monkeypatch.setattr(servers, "probe", lambda name, **_: seen[name])
    assert [f.told for f in servers.examine(quick=False) if f.name == "import"] == ["ImportError: no torch", "crashed"]
    seen["vllm"] = {"version": "0.32.0", "missing": "flush is missing"}
    seen["llamacpp"] = {"version": "0.3.36", "gpu": True, "missing": "a name is gone"}
    found = named(servers.examine(quick=False))
    assert (found["seams"].state, found["seams"].told) == (State.PROBLEM, "flush is missing")
    assert (found["chat handler"].state, found["build"].do) == (State.PROBLEM, "")
    seen["vllm"] = {"version": "0.32.0", "absent": ["A.b"], "registered": False, "holds": False}
    seen["llamacpp"] = {"version": "0.3.36", "gpu": False, "server": "another name is gone"}
    found = named(servers.examine(quick=False))
    assert found["parsers"].state is State.PROBLEM
    assert "A.b" in found["seams of some releases"].told
    assert found["server"].told == "another name is gone"


@pytest.mark.parametrize("engine", ["vllm", "llamacpp"])
def test_the_engines_here_have_everything(engine: str) -> None:
    pytest.importorskip({"vllm": "vllm", "llamacpp": "llama_cpp"}[engine])
    section = {"vllm": "vLLM", "llamacpp": "llama.cpp"}[engine]
    found = [finding for finding in servers.examine(quick=False) if finding.section == section]
    assert len(found) >= 4
    assert [finding for finding in found if finding.state is not State.OK] == []


def test_a_probe_that_fails_or_hangs() -> None:
    assert probe("gguf", "/nowhere")["error"]
    assert "took longer" in probe("vocabulary", seconds=0.01)["error"]
    assert "KeyError" in probe("nothing")["error"] or "status" in probe("nothing")["error"]
    assert findings.installed("surely-not-there") == {}


def test_models_that_are_none(tmp_path: Path) -> None:
    (nowhere,) = model.examine(str(tmp_path / "no.gguf"))
    assert nowhere.told == "is not there"
    (hub,) = model.examine("openai/gpt-oss-20b")
    assert "once it is downloaded" in hub.do
    (tmp_path / "a.gguf").write_bytes(b"hello")
    (folder,) = model.examine(str(tmp_path))
    assert folder.do == "name one of a.gguf"
    pytest.importorskip("llama_cpp")
    (text,) = model.examine(str(tmp_path / "a.gguf"))
    assert "not a GGUF file" in text.told


def test_a_gguf_of_gpt_oss() -> None:
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    from harmony_plugin.demo.model import build_model

    facts, vocabulary = model.examine(str(build_model()))
    assert facts.told.startswith("gpt-oss, ")
    assert vocabulary.state is State.OK
    assert vocabulary.told.startswith("is Harmony's")


@pytest.mark.parametrize(
    ("kind", "ids", "state", "told"),
    [
        ("gpt_oss", dict(Dialect().ids), State.OK, "is Harmony's"),
        ("gpt_oss", dict.fromkeys(Dialect().ids, 7), State.PROBLEM, "is not Harmony's"),
        ("llama", dict.fromkeys(Dialect().ids, 7), State.OK, "under other ids"),
        ("llama", {}, State.PROBLEM, "is not Harmony's: <|start|>"),
    ],
)
def test_folders(kind: str, ids: dict[str, int], state: State, told: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "max_position_embeddings": 8}))
    tokens = [{"content": Dialect().markers[name], "id": token} for name, token in ids.items()]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens, "model": {"vocab": {}}}))
    facts, vocabulary = model.examine(str(tmp_path))
    assert kind in facts.told
    assert vocabulary.state is state
    assert told in vocabulary.told
    (tmp_path / "tokenizer.json").unlink()
    assert "no tokenizer.json" in list(model.examine(str(tmp_path)))[1].told


class Answers(BaseHTTPRequestHandler):
    """An endpoint that goes wrong in the way that its class says."""

    content: str | None = "4"
    reasoning: str | None = "Easy."
    key: str | None = None
    models = 1

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.key and self.headers.get("Authorization") != f"Bearer {self.key}":
            self._send(401, b"{}")
        elif self.path == "/v1/models":
            self._send(200, json.dumps({"data": [{"id": "m"}] * self.models}).encode())
        else:
            self._send(404, b"{}")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"content": self.content, "reasoning": self.reasoning}
        if asked.get("stream"):
            chunk = {"choices": [{"delta": message, "finish_reason": "stop"}]}
            self._send(200, f": ping\n\ndata: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())
        else:
            self._send(200, json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode())


def asked(key: str | None = None, **how: Any) -> Found:
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Wrong", (Answers,), how)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        found = named(live.examine(f"127.0.0.1:{server.server_port}/v1/", key))
        server.shutdown()
    return found


def test_a_server_that_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    found = asked()
    assert {finding.state for finding in found.values()} == {State.OK}
    assert found["models"].told == "m"


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"content": "<|channel|>final<|message|>4"}, "has markers in its text: <|message|>, <|channel|>"),
        ({"content": "analysisEasy.assistantfinal4"}, "begins with a header's words"),
        ({"content": None}, "has no content"),
    ],
)
def test_replies_that_are_not_split(how: dict[str, Any], told: str) -> None:
    found = asked(**how)
    for name in ("whole reply", "streamed reply"):
        assert found[name].state is State.PROBLEM
        assert told in found[name].told


def test_no_reasoning_is_a_warning() -> None:
    assert asked(reasoning=None)["whole reply"].state is State.WARNING


def test_servers_that_do_not_answer() -> None:
    (refused,) = live.examine("http://127.0.0.1:9", None)
    assert "cannot be reached" in refused.told
    (keyed,) = _keyed()
    assert "wants a key" in keyed.told
    assert asked(models=0)["models"].state is State.PROBLEM


def test_a_key_goes_nowhere_else() -> None:
    """A server that leads elsewhere is not followed, least of all with the key."""
    seen: list[str | None] = []

    class Elsewhere(Answers):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self._send(200, b"{}")

    class Leads(Answers):
        target = ""

        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", self.target)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as other, ThreadingHTTPServer(("127.0.0.1", 0), Leads) as one:
        Leads.target = f"http://127.0.0.1:{other.server_port}/v1/models"
        for server in (other, one):
            Thread(target=server.serve_forever, daemon=True).start()
        (found,) = live.examine(f"http://127.0.0.1:{one.server_port}", "secret")
        for server in (other, one):
            server.shutdown()
    assert seen == []
    assert found.told == "leads elsewhere (HTTP 302)"


def test_urls_and_answers_that_are_none() -> None:
    (wrong,) = live.examine("http://localhost:x", None)
    assert "is no URL" in wrong.told

    class Odd(Answers):
        def do_POST(self) -> None:
            self._send(200, b"[1, 2]")

    with ThreadingHTTPServer(("127.0.0.1", 0), Odd) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        *_, odd = live.examine(f"http://127.0.0.1:{server.server_port}", None)
        server.shutdown()
    assert "of no shape that is known" in odd.told


def _keyed() -> list[Finding]:
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Keyed", (Answers,), {"key": "secret"})) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        found = list(live.examine(f"http://127.0.0.1:{server.server_port}", "wrong"))
        server.shutdown()
    return found
