#!/usr/bin/env python3
"""Build the source distribution and the wheel into `dist/`, check both, and use the wheel in an environment of its own.

The wheel is built from the source distribution, so that is known to be complete. What is then installed knows nothing
of this checkout: it splits the tests' cases to what they say, and explains one, as a user's would. At last the core's
tests are collected beside it with what they ask for, so that none of them needs more.

Needs the dependency group `dist`; knows nothing of how splitting works.

    .venv/bin/python scripts/check_dist.py
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
CASES = ROOT / "tests" / "cases" / "split.jsonl"
CORE_TESTS = ROOT / "scripts" / "core_tests.py"


def run(*command: str | Path, where: Path = ROOT) -> str:
    """What it prints.

    Raises:
        SystemExit: it failed; what it printed is the message.
    """
    done = subprocess.run(
        [str(part) for part in command], cwd=where, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def installed(wheel: Path, programs: Path, folder: Path) -> str:
    """Install the wheel, alone, and use it; the line that says what was used."""
    python, plugin = programs / "python", programs / "harmony-plugin"
    run(python, "-m", "pip", "install", "--quiet", "--no-index", wheel, where=folder)
    cases = [json.loads(line) for line in CASES.read_text("utf-8").splitlines()]
    texts = [case for case in cases if case.get("raw") and not case.get("options") and not case.get("tools")]
    for case in texts[:5]:
        (folder / "case.txt").write_text(case["raw"], "utf-8")
        message = json.loads(run(plugin, "parse", "case.txt", where=folder))
        for field, said in (("content", "content"), ("reasoning", "reasoning_content")):
            if message.get(said) != case["expected"].get(field):
                raise SystemExit(f"{case['id']}: {field} is {message.get(said)!r}")
    explained = json.loads(run(plugin, "explain", "--json", "case.txt", where=folder))
    if not explained:
        raise SystemExit("explain says nothing")
    return run(plugin, "--version", where=folder).strip()


def collected(wheel: Path, programs: Path) -> str:
    """Collect the tests that need no engine; the line that says how many there are."""
    pip = [programs / "python", "-m", "pip", "install", "--quiet"]
    run(*pip, f"{wheel}[cli,harmony,repair]", "--group", "core-tests")
    said = run(programs / "python", CORE_TESTS, "--collect-only", "-q", "--no-cov", "-p", "no:cacheprovider")
    return said.splitlines()[-1]


def main() -> int:
    """Exit code: 0 when both are good."""
    began = time.monotonic()
    shutil.rmtree(DIST, ignore_errors=True)
    print("building ...", flush=True)
    run(sys.executable, "-m", "build", "--outdir", DIST)
    files = sorted(DIST.iterdir())
    (wheel,) = DIST.glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    run(sys.executable, "-m", "check_wheel_contents", wheel)
    for file in files:
        print(f"{file.relative_to(ROOT)}  {file.stat().st_size // 1024} KiB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True, upgrade_deps=True)  # dependency groups want a new pip
        programs = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
        print(f"installed and used: {installed(wheel, programs, folder)}")
        print(f"the core's tests: {collected(wheel, programs)}")
    print(f"done in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
