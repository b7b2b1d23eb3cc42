"""A real Prometheus, as `examples/monitoring` configures it, over vLLM with the plugin: rules, panels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from monitoring_rig import Prometheus, exported, read, wrong_labels
from vllm_rig.faults import WEATHER
from vllm_rig.replies import APIS, Clients, Script, encode

CALL = "<|channel|>analysis<|message|>Look.<|end|><|start|>assistant" + (
    '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city":"Rome"}<|call|>'
)
REPAIRED = "<|channel|>critic<|message|>No.<|channel|>final<|message|>Yes.<|return|>"
#: What the llama.cpp server alone exports; and what does not happen here: failures, replies given up.
OF_LLAMACPP = {
    "Tokens, llama.cpp",
    "Chunks",
    "Steps",
    "Tokens a step",
    "The engine's thread",
    "Guesses that were right",
    "Hits and evictions, llama.cpp",
    "Main memory of the cache, llama.cpp",
}


async def use(url: str) -> None:
    """A clean reply with a call and a repaired one, on every API."""
    async with Clients(url) as clients:
        for api in APIS:
            for raw in (CALL, REPAIRED):
                await clients.ask(api, Script(tuple(encode(raw))), stream=True, tools=[WEATHER])


def test_prometheus_over_the_server(server: Any, run: Callable[[Any], Any], tmp_path: Path) -> None:
    run(use(server.url))
    with Prometheus(tmp_path, "harmony-vllm", server.url) as prometheus:
        prometheus.wait(scrapes=3)
        run(use(server.url))  # a rate is of what came while Prometheus looked
        prometheus.wait(scrapes=6)
        assert [series["value"][1] for series in prometheus.query("up")] == ["1"]
        rules = list(prometheus.rules())
        assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
        assert {rule["name"] for rule in rules if rule.get("state") == "firing"} == set()
        recorded = {rule["name"] for rule in rules if rule["type"] == "recording" and prometheus.query(rule["name"])}
        assert {rule["name"] for rule in rules if rule["type"] == "recording"} - recorded <= {
            "job_instance:harmony_requests_failed:ratio_rate5m"
        }
        assert prometheus.panels_without_data() - {"Refused and failed"} == OF_LLAMACPP
    there = exported(httpx.get(f"{server.url}/metrics", timeout=60).raise_for_status().text)
    assert {name for name in read("vllm:") | read("http_") if name not in there} == set()
    assert wrong_labels(there) == {}
