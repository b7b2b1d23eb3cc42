"""`examples/ray_serve.yaml` on a cluster of two nodes, with the tiny scripted gpt-oss model of `vllm_rig` on CPUs.

`serving` starts it in a process of its own, which is this module run as a program. Ray Serve, its replicas and their
vLLM are the real ones. For callbacks beside the example's see `ray_callbacks`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ports import free_port
from vllm_rig.model import model_directory
from vllm_rig.server import MODEL, SAYING, ServerFailed, environment

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_serve.yaml"
READY = "serving"
DIRECT = {"RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}


@contextlib.contextmanager
def serving(log: Path, callback: str = "", *, direct: bool = False) -> Iterator[str]:
    """The URL of a running cluster. ``callback``: in place of the example's; ``direct``: with direct streaming.

    Raises:
        ServerFailed: it did not come up; ends with its log's last lines.
    """
    port = free_port()
    settings = environment() | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"} | (DIRECT if direct else {})
    command = [sys.executable, "-m", "ray_rig", "--port", str(port), "--callback", callback]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, env=settings, text=True
        )
    try:
        assert process.stdout
        if not any(line.strip() == READY for line in process.stdout):
            raise ServerFailed(f"Ray Serve did not come up; its log ends:\n{log.read_text(errors='replace')[-6000:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.communicate()  # it ends when its input does


def application(callback: str) -> dict[str, Any]:
    """The example's arguments, with the tiny model in gpt-oss's place."""
    import yaml

    (app,) = yaml.safe_load(EXAMPLE.read_text())["applications"]
    assert app["import_path"] == "ray.serve.llm:build_openai_app"
    arguments: dict[str, Any] = app["args"]
    (config,) = arguments["llm_configs"]
    config["model_loading_config"] = {"model_id": MODEL, "model_source": str(model_directory("gpt_oss"))}
    config["engine_kwargs"] |= {
        "load_format": "dummy",
        "dtype": "bfloat16",  # vLLM 0.29 has the sinks of gpt_oss in nothing else
        "enforce_eager": True,
        "max_model_len": 4096,
        "logits_processors": [SAYING[1]],
    }
    config["accelerator_config"] = {"kind": "cpu"}
    config["deployment_config"] = {"num_replicas": 1, "max_constructor_retry_count": 1}
    if callback:
        config["callback_config"] = {"callback_class": callback}
    return arguments


def _end_with_input() -> None:
    """Whoever started this process closes its input, or is gone: the cluster must not stay."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGINT)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--callback", default="")
    options = parser.parse_args()

    threading.Thread(target=_end_with_input, daemon=True).start()

    import ray
    from ray import serve
    from ray.cluster_utils import Cluster
    from ray.serve.llm import build_openai_app

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=3)
        ray.init(address=cluster.address)
        serve.start(http_options={"host": "127.0.0.1", "port": options.port})
        serve.run(build_openai_app(application(options.callback)), name="gpt-oss")
        print(READY, flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        with contextlib.suppress(Exception):
            serve.shutdown()
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
