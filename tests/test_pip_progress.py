"""`scripts/pip_progress.py` around the real pip, on projects that bring their own build backend: no index is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from scripts.pip_progress import Progress

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "pip_progress.py"
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "slow"
version = "1"
"""
FAILING = """
import sys

def build_wheel(folder, settings=None, metadata=None):
    print("No CMAKE_CXX_COMPILER could be found.")
    sys.exit(1)
"""
BUILDING = """
import zipfile

def build_wheel(folder, settings=None, metadata=None):
    for step in (1, 2):
        print(f"[{step}/2] c++ {step}.cpp", flush=True)
    info = "slow-1.dist-info"
    with zipfile.ZipFile(f"{folder}/slow-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: slow\\nVersion: 1\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return "slow-1-py3-none-any.whl"
"""


def pip_wheel(folder: Path, backend: str) -> subprocess.CompletedProcess[str]:
    project = folder / "slow"
    project.mkdir()
    (project / "pyproject.toml").write_text(PROJECT, "utf-8")
    (project / "backend.py").write_text(backend, "utf-8")
    command = [sys.executable, str(SCRIPT), "wheel", "--no-deps", "--wheel-dir", str(folder / "wheels"), str(project)]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=120, check=False)


def test_a_build_that_works_is_remembered(tmp_path: Path) -> None:
    done = pip_wheel(tmp_path, BUILDING)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("  done")
    assert (tmp_path / "wheels" / "slow-1-py3-none-any.whl").is_file()
    assert list(json.loads((tmp_path / "cache" / "harmony-plugin" / "builds.json").read_text("utf-8"))) == ["slow"]


def test_a_build_that_fails_says_what_to_do(tmp_path: Path) -> None:
    done = pip_wheel(tmp_path, FAILING)
    assert done.returncode == 1
    assert "No CMAKE_CXX_COMPILER could be found." in done.stderr
    assert "It needs a C and a C++ compiler" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "cache").exists()


def test_what_pip_is_at() -> None:
    """Lines as pip 26 and Ninja print them; the more steps are done, the less the last time counts."""
    progress = Progress({"llama-cpp-python": 200.0})
    told = []
    for now, line in [
        (0, "Collecting llama-cpp-python==0.3.36"),
        (1, "  Downloading llama_cpp_python-0.3.36.tar.gz (76.6 MB)"),
        (2, "Progress 38294625 of 76589250"),
        (3, "  Running command installing build dependencies"),
        (10, "  Running command Building wheel for llama-cpp-python (pyproject.toml)"),
        (11, "  [1/80] /usr/bin/c++ -O3"),
        (60, "  [20/80] /usr/bin/c++ -O3"),
        (110, "  [ 50%] Building CXX object"),
        (300, "  Building wheel for llama-cpp-python (pyproject.toml): finished with status 'done'"),
        (301, "Installing collected packages: llama-cpp-python"),
    ]:
        progress.read(line + "\n", now)
        told.append(progress.text(now))
    assert told == [
        "looking for packages",
        "downloading llama_cpp_python-0.3.36.tar.gz, 76.6 MB",
        "downloading llama_cpp_python-0.3.36.tar.gz, 76.6 MB, 50% there",
        "getting what a build needs",
        "building llama-cpp-python, about 3:20 left",
        "compiling llama-cpp-python, 1 of 80, about 3:19 left",
        "compiling llama-cpp-python, 20 of 80, about 2:30 left",
        "compiling llama-cpp-python, 50% there, about 1:40 left",
        "compiling llama-cpp-python, 50% there",
        "installing",
    ]
    assert progress.builds == {"llama-cpp-python": 290.0}
