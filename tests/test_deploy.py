"""What the files in `examples/deploy` say of this package, held to it. Their own linters: `make deploy-lint`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import harmony_plugin

DEPLOY = Path(__file__).resolve().parent.parent / "examples" / "deploy"
SOURCES = {path.relative_to(DEPLOY).as_posix(): path.read_text("utf-8") for path in DEPLOY.rglob("*") if path.is_file()}
COMPOSE = yaml.safe_load(SOURCES["compose.yaml"])
MANIFESTS = [
    each
    for name in SOURCES
    if name.startswith("kubernetes/") and name.endswith(".yaml")
    for each in yaml.safe_load_all(SOURCES[name])
]

# Of a pod that says nothing of it, as the chart's.
KUBERNETES_GRACE = 30


def seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(m|min|s)?", text).groups()  # type: ignore[union-attr]
    return int(number) * (60 if unit in ("m", "min") else 1)


def containers(kind: str = "Deployment") -> list[tuple[Any, Any]]:
    """Pods and their containers."""
    pods = [each["spec"]["template"]["spec"] for each in MANIFESTS if each["kind"] == kind]
    return [(pod, container) for pod in pods for container in pod["containers"]]


def vllm_drains(flags: list[str]) -> int | None:
    """Seconds of vLLM's, and those that its engine takes to end behind them (3 to 9 were seen)."""
    return next((int(flag.partition("=")[2]) + 10 for flag in flags if flag.startswith("--shutdown-timeout=")), None)


def test_servers_have_the_time_that_draining_takes() -> None:
    times = []
    for service in COMPOSE["services"].values():
        drain = service.get("environment", {}).get("DRAIN_SECONDS") or vllm_drains(service.get("command", []))
        if drain is not None:
            times.append((int(drain), seconds(service["stop_grace_period"])))
    for pod, container in containers():
        drain = {each["name"]: each.get("value") for each in container.get("env", ())}.get("DRAIN_SECONDS")
        drain = drain or vllm_drains(container["args"])
        if drain is not None:
            hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
            times.append((int(drain) + int(hook[1]), pod["terminationGracePeriodSeconds"]))
    for name in ("systemd/harmony-llamacpp@.service", "systemd/harmony-vllm.service"):
        drains = re.search(r"DRAIN_SECONDS=(\d+)", SOURCES[name])
        drain = vllm_drains(SOURCES[name].split()) if drains is None else int(drains[1]) + 5
        assert drain is not None, name
        (patience,) = re.findall(r"^TimeoutStopSec=(.+)$", SOURCES[name], re.MULTILINE)
        times.append((drain, seconds(patience)))
    values = yaml.safe_load(SOURCES["helm/vllm-stack.yaml"])
    times += [
        (int(vllm_drains(model["vllmConfig"]["extraArgs"]) or 0), KUBERNETES_GRACE)
        for model in values["servingEngineSpec"]["modelSpec"]
    ]
    assert len(times) == 8
    assert all(drain + 5 <= patience for drain, patience in times), times


def test_systemd_tells_the_server_alone_to_stop() -> None:
    """A worker of vLLM's that gets the signal, too, dies at once, and every stream with it."""
    for name in ("systemd/harmony-llamacpp@.service", "systemd/harmony-vllm.service"):
        assert "\nKillMode=mixed\n" in SOURCES[name]


def test_settings_are_ones_that_the_server_has(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    from harmony_plugin.llamacpp.server.settings import FlagSettings, read_settings

    named = {*COMPOSE["services"]["server-a"]["environment"]}
    named |= {each["name"] for _, c in containers() if "llamacpp" in c["image"] for each in c["env"]}
    (line,) = re.findall(r"^Environment=(.+)$", SOURCES["systemd/harmony-llamacpp@.service"], re.MULTILINE)
    named |= {word.partition("=")[0] for word in line.split()}
    assert {"DRAIN_SECONDS", "RESPONSES_FILE", "REASONING_KEY", "API_KEY"} <= named
    assert {name.lower() for name in named} <= {*FlagSettings.model_fields}
    of_pods = [c["args"] for _, c in containers() if "llamacpp" in c["image"]]
    for flags in (COMPOSE["services"]["server-a"]["command"], *of_pods):
        model = tmp_path / "gpt-oss-20b.gguf"
        model.touch()
        given = [flag.replace("/models", str(tmp_path)) for flag in flags]
        assert read_settings(given).models[0].model == str(model)


def test_images_install_this_version_and_nothing_but_packages() -> None:
    for name, extra in (("llamacpp", "llamacpp"), ("vllm", "vllm")):
        source = SOURCES[f"docker/{name}.Dockerfile"]
        lines = [line for line in source.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
        version = harmony_plugin.__version__
        assert f"pip install --no-cache-dir --find-links /context 'harmony-plugin[{extra}]~={version}'" in source
        assert not [line for line in lines if re.match(r"(ADD|COPY(?! --from=build))|.*(curl|wget|git\+)", line)]


def test_both_balancers_know_conversations_by_the_same_headers() -> None:
    nginx = set(re.findall(r"\$http_(\w*session_id)", SOURCES["balancer/nginx.conf"]))
    haproxy = set(re.findall(r"req\.hdr\(([\w-]*session-id)\)", SOURCES["balancer/haproxy.cfg"]))
    assert nginx == {name.replace("-", "_") for name in haproxy}
    page = (DEPLOY.parents[1] / "docs" / "scale.md").read_text("utf-8")
    assert haproxy == {name for name in haproxy if f"`{name}`" in page}
    values = yaml.safe_load(SOURCES["helm/vllm-stack.yaml"])
    assert values["routerSpec"]["sessionKey"] in haproxy
