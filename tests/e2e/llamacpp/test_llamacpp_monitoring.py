"""A real Prometheus, as `examples/monitoring` configures it, over the server: rules, panels, the key."""

from __future__ import annotations

from pathlib import Path

import httpx
from llamacpp_rig import AT_ONCE, ONE_THREAD, scripted, sound
from monitoring_rig import KEY, Prometheus, exported, tool, wrong_labels

from harmony_plugin.demo.model import build_model

#: What vLLM alone exports; and what does not happen here: guesses ahead, failures.
OF_VLLM = {
    "Tokens, vLLM",
    "Time between tokens, vLLM",
    "KV cache in use",
    "Preemptions",
}
NOT_HERE = {"Guesses that were right", "Issues", "Refused and failed"}


def use(http: httpx.Client) -> None:
    """A whole reply, a streamed one, and one that is given up."""
    user = {"model": "tiny", "metadata": {"script": "answer"}, "messages": [{"role": "user", "content": "Hello"}]}
    assert http.post("/v1/chat/completions", json=user).status_code == 200
    for script in ("answer", "endless"):
        asked = {"model": "tiny", "metadata": {"script": script}, "input": "Hello", "stream": True}
        with http.stream("POST", "/v1/responses", json=asked) as stream:
            assert stream.status_code == 200
            for line in stream.iter_lines():
                if script == "endless" and "output_text.delta" in line:
                    break


def test_prometheus_over_the_server(tmp_path: Path) -> None:
    tool("prometheus")  # before a server is started for it
    flags = ("--model", str(build_model()), "--model_alias", "tiny", "--n_ctx", "8192", *AT_ONCE, *ONE_THREAD)
    with (
        sound(scripted(tmp_path, *flags, "--api_key", KEY)) as server,
        Prometheus(tmp_path, "harmony-llamacpp", server.url) as prometheus,
        httpx.Client(base_url=server.url, timeout=120, headers={"authorization": f"Bearer {KEY}"}) as http,
    ):
        use(http)
        prometheus.wait(scrapes=3)
        use(http)  # a rate is of what came while Prometheus looked
        prometheus.wait(scrapes=6)
        assert [series["value"][1] for series in prometheus.query("up")] == ["1"]
        rules = list(prometheus.rules())
        assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
        assert [rule["name"] for rule in rules if rule.get("state", "inactive") == "firing"] == []
        recorded = {rule["name"] for rule in rules if rule["type"] == "recording" and prometheus.query(rule["name"])}
        assert {rule["name"] for rule in rules if rule["type"] == "recording"} - recorded == {
            "job_instance:harmony_requests_failed:ratio_rate5m",
        }
        assert prometheus.panels_without_data() == OF_VLLM | NOT_HERE
        assert wrong_labels(exported(http.get("/metrics").text)) == {}
