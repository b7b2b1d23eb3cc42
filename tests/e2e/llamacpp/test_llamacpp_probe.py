"""The public conformance suite's live probe (`canitoolcall probe`) against the server, its replies scripted.

The probe names no script, so each is chosen by the user message it answers. It runs its own client.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from llamacpp_rig import answer, call

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

pytest.importorskip("canitoolcall")

EVENT = {
    "title": "Design review",
    "start": "2026-10-01T15:00:00Z",
    "attendees": [{"name": "Ana", "email": "ana@example.com"}, {"name": "Bo", "email": "bo@example.com"}],
    "location": {"city": "Berlin", "room": "4.12"},
}
NOTE = {"title": "Grüße aus Zürich", "body": "Café ☕ in 東京 — naïve résumé 🚀"}
THINK = "<|channel|>analysis<|message|>Let me see.<|end|><|start|>assistant"
FOLLOW_UP = {"replies": [{"raw": call("get_weather", '{"city": "Paris"}')}, {"raw": answer("18 °C, clear sky.")}]}

SCRIPTS = [
    {"when": "weather in Paris right now", "raw": THINK + call("get_weather", '{"city": "Paris"}')},
    {
        "when": "in Paris and in Tokyo",
        "raw": call("get_weather", '{"city": "Paris"}')
        + "<|start|>assistant"
        + call("get_weather", '{"city": "Tokyo"}'),
    },
    {"when": "What is 17 + 25?", "raw": answer("42", "17 + 25 = 42.")},
    {"when": "Design review", "raw": THINK + call("create_event", json.dumps(EVENT))},
    {"when": "Grüße aus Zürich", "raw": THINK + call("save_note", json.dumps(NOTE, ensure_ascii=False))},
    {"when": "What time is it on the server?", "raw": call("get_server_time", "")},
    {"when": "about Lisbon", "raw": THINK + call("get_weather", '{"city": "Lisbon"}')},
    {"when": "What's the weather in Paris?", **FOLLOW_UP},
    {"when": "9.11 or 9.9", "raw": THINK + call("record_answer", '{"answer": "9.9"}')},
]


@pytest.fixture
def probed(tmp_path: Path) -> Iterator[ServerProcess]:
    scripts = tmp_path / "probe.jsonl"
    lines = [{"id": f"probe-{i}", **script} for i, script in enumerate(SCRIPTS)]
    scripts.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    model = ["--model", str(build_model()), "--model_alias", "tiny", "--n_ctx", "4096"]
    with ServerProcess(["-m", "harmony_plugin.demo.server", "--script", str(scripts), *model]) as running:
        yield running


def test_the_probe_passes_with_no_warning(probed: ServerProcess) -> None:
    arguments = ["probe", "--base-url", f"{probed.url}/v1", "--model", "tiny", "--json", "-"]
    done = subprocess.run(
        [sys.executable, "-m", "canitoolcall", *arguments], capture_output=True, text=True, timeout=300
    )
    report = json.loads(done.stdout)
    wrong = [o for o in report["outcomes"] if o["status"] != "pass" or o["warnings"]]
    assert wrong == []
    assert done.returncode == 0, done.stderr
    assert report["summary"]["pass"] == 27  # nine scenarios: whole, streamed, and both alike
