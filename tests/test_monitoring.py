"""`examples/monitoring` by itself: what it reads is what the servers export, and its files are what they should be.

With a real Prometheus over real servers: `tests/e2e/*/test_*_monitoring.py`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitoring_rig import (
    MONITORING,
    PANELS,
    RECORDED,
    RULES,
    asked,
    exported,
    queries,
    read,
    tool,
    wrong_labels,
)
from prometheus_client import REGISTRY, generate_latest

from harmony_plugin import CODES, Stream
from harmony_plugin.api.reply import Usage
from harmony_plugin.core import BY_SETTING
from harmony_plugin.vllm import metrics as plugin

ALERTS = [rule for rule in RULES if "alert" in rule]


def of_llamacpp() -> dict[str, set[str]]:
    """What the llama.cpp server exports; its engine's counters without labels, which they have with a model alone."""
    pytest.importorskip("llama_cpp", reason="needs the extra llamacpp")
    from harmony_plugin.llamacpp.server.metrics import Metrics

    metrics = Metrics(lambda: 0, lambda: 0, dict)
    metrics.requests.labels("/v1/messages", "200").inc()
    metrics.cancelled.labels("/v1/messages").inc()
    metrics.first.labels("/v1/messages").observe(1)
    metrics.duration.labels("/v1/messages").observe(1)
    metrics.tokens("tiny", Usage(prompt=1))
    return exported(metrics.text().decode())


def of_plugin() -> dict[str, set[str]]:
    """What the plugin adds to vLLM's metrics."""
    stream = Stream()
    stream.feed("<|channel|>critic<|message|>No.<|return|>")
    stream.finish()
    plugin.count(stream)
    names = exported(generate_latest(REGISTRY).decode())
    return {name: labels for name, labels in names.items() if name.startswith("harmony_")}


def source(module: str, file: str) -> str:
    """The text of an installed package's file, nothing imported."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        pytest.skip(f"needs {module}, to read the names of its metrics")
    return (Path(found.origin).parent / file).read_text("utf-8")


def of_vllm() -> set[str]:
    """The names of vLLM's own metrics, out of its source."""
    suffixes = {"_counter_cls": ["_total"], "_histogram_cls": ["_bucket", "_count", "_sum"], "_gauge_cls": [""]}
    names = {
        keyword.value.value + suffix
        for node in ast.walk(ast.parse(source("vllm", "v1/metrics/loggers.py")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in suffixes
        for keyword in node.keywords
        if keyword.arg == "name" and isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str)
        for suffix in suffixes[node.func.attr]
    }
    # vLLM counts HTTP requests with that library.
    if '"http_requests_total"' in source("prometheus_fastapi_instrumentator", "metrics.py"):
        names.add("http_requests_total")
    return names


def test_metrics_of_ours_are_exported() -> None:
    there = of_llamacpp() | of_plugin()
    assert read("harmony_") - set(there) == set()
    assert wrong_labels(there) == {}


def test_metrics_of_vllm_are_exported() -> None:
    assert read() - read("harmony_") - of_vllm() == set()


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    shown = {name for panel in PANELS for query in queries(panel) for name in asked(query).labels}
    there = {name for name in of_llamacpp() | of_plugin() if not name.endswith(("_created", "_sum", "_count"))}
    assert there - shown == set()


def values(label: str, where: list[dict[str, Any]]) -> set[str]:
    """What rules want a label to be; a regular expression of words is its words."""
    matches = [match for rule in where for match in asked(rule["expr"]).matches]
    return {word for _, name, value in matches if name == label for word in value.split("|")}


def test_codes_and_outcomes_exist() -> None:
    by_setting = [rule for rule in ALERTS if rule["alert"] == "HarmonyTextDroppedBySetting"]
    assert values("code", by_setting) == BY_SETTING
    lost = [rule for rule in ALERTS if rule["alert"] == "HarmonyTextLost"]
    assert values("code", lost) <= set(CODES) - BY_SETTING
    assert values("outcome", RULES) == {"repaired"}
    assert values("kind", RULES) == {"prompt", "prompt_cached"}


def test_what_is_recorded_is_recorded_first_and_used() -> None:
    order = [rule.get("record") for rule in RULES]
    used = set()
    for place, rule in enumerate(RULES):
        recorded = set(asked(rule["expr"]).labels) & {
            name for name in asked(rule["expr"]).labels if ":harmony_" in name
        }
        assert recorded <= set(order[:place]), rule
        used |= recorded
    assert used == set(RECORDED)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_alerts_are_whole_and_tested(rule: dict[str, Any]) -> None:
    assert rule["for"]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "description"}
    tests = yaml.safe_load((MONITORING / "alerts_test.yaml").read_text("utf-8"))["tests"]
    told = [test["name"].removeprefix(rule["alert"]) for test in tests]
    assert any(name.startswith(" fires") for name in told)
    assert any(name.startswith(" stays silent") for name in told)


@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")])
def test_promtool(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([tool("promtool"), *arguments], cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.filterwarnings("ignore:Prefer using dashboardv2:DeprecationWarning")
def test_the_dashboard_is_what_its_script_gives() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="needs Python 3.11, and grafana-foundation-sdk")
    script: Any = importlib.import_module("examples.monitoring.dashboard")
    assert script.FILE.read_text("utf-8") == script.text(), "build it anew: examples/monitoring/dashboard.py --write"


@pytest.mark.filterwarnings("ignore:Prefer using dashboardv2:DeprecationWarning")
def test_grafanas_model_takes_the_dashboard_whole() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="needs Python 3.11, and grafana-foundation-sdk")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    given = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
    assert json.loads(JSONEncoder().encode(Dashboard.from_json(given))) == given


def test_panels_stand_beside_each_other() -> None:
    places = [panel["gridPos"] for panel in PANELS]
    cells = [(place["x"] + x, place["y"] + y) for place in places for x in range(place["w"]) for y in range(place["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    identifiers = [panel["id"] for panel in PANELS]
    assert len(identifiers) == len(set(identifiers))
