"""Mutation testing of the state machine and the header reader, with cosmic-ray: which changes would no test notice?

    .venv/bin/python scripts/mutation_testing.py                 # all of `MODULES`; prints the survivors
    .venv/bin/python scripts/mutation_testing.py --module machine

Works on a copy in a temporary folder, so the sources stay as they are. Each mutant is tested in a fork of a process
that has pytest and the Harmony library loaded, so that one costs a second or two. Survivors of the fast tests (the
core's own, mirrored by module) are tested once more with all split cases and properties. What is left is explained in
docs/mutation.md. Takes about half an hour on two free cores.

Left out: arithmetic operators other than + and -, orderings in the place of `==` (kinds of markers have none that
means anything), decorators.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("machine", "header", "names", "words")
FAST = (
    "test_header.py",
    "test_machine.py",
    "test_routing.py",
    "test_stream.py",
    "test_accounts.py",
    "test_found_by_fuzzing.py",
)
SLOW = ("test_cases.py", "test_properties.py")
SECONDS = 60  # a mutant that loops for ever
_CONFIGURATION = """
[cosmic-ray]
module-path = "src/harmony_plugin/core/{module}.py"
timeout = {timeout}
excluded-modules = []
test-command = "{python} -S -E {script} --ask {socket} {tests}"
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = [
  "core/ReplaceBinaryOperator_(?!Add_Sub|Sub_Add).*",
  "core/ReplaceComparisonOperator_(Eq|NotEq)_(?!Eq|NotEq).*",
  "core/ReplaceComparisonOperator_(Lt|Gt|LtE|GtE)_(Is|IsNot|Eq|NotEq)",
  "core/RemoveDecorator",
]
"""


def answer(path: str, folder: Path) -> None:
    """Run tests in forks, one for each connection, until the process is ended. Must not import the code under test."""
    import functools

    import hypothesis  # noqa: F401
    import openai_harmony
    import pytest

    openai_harmony.load_harmony_encoding = functools.cache(openai_harmony.load_harmony_encoding)
    openai_harmony.load_harmony_encoding(openai_harmony.HarmonyEncodingName.HARMONY_GPT_OSS)
    os.chdir(folder)
    sys.path[:0] = [str(folder / "src")]
    if os.fork() == 0:  # the first run leaves what it compiled; a mutant's must never be left
        with contextlib.redirect_stdout(io.StringIO()):
            os._exit(pytest.main(["-q", "-p", "no:cacheprovider", *(f"tests/{name}" for name in (*FAST, *SLOW))]))
    _, status = os.wait()
    if status:
        sys.exit("the tests fail without any mutation")
    sys.dont_write_bytecode = True
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    while True:
        client, _ = server.accept()
        if os.fork():
            client.close()
            continue
        server.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.alarm(SECONDS)
        tests = client.makefile().readline().split()
        code = 0
        with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(output):
            for test in tests:  # one file after the other: most mutants die in the first
                code = code or pytest.main(["-x", "-q", "-p", "no:cacheprovider", test])
        with contextlib.suppress(OSError):
            client.sendall(b"%d\n" % code)
        os._exit(0)


def ask(path: str, tests: list[str]) -> int:
    """cosmic-ray's test command: the exit status of the tests, as the answering process gives it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(" ".join(tests).encode() + b"\n")
        said = connection.makefile().readline()
    return int(said) if said else 1  # it hung, or died: killed


def copy(folder: Path) -> None:
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    for name in ("conftest.py", "feeding.py", *FAST, *SLOW):
        shutil.copy(ROOT / "tests" / name, folder / "tests" / name)
    shutil.copytree(ROOT / "tests" / "cases", folder / "tests" / "cases")


def leave_out(session: Path, share: float, seed: int) -> None:
    """Skip all but a share of the mutants, drawn by chance."""
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    random = Random(seed)
    with use_db(session, WorkDB.Mode.open) as database:
        # Their ids are drawn anew each time; what they change is not.
        pending = sorted(
            database.pending_work_items,
            key=lambda item: (
                item.mutations[0].operator_name,
                item.mutations[0].start_pos,
                item.mutations[0].occurrence,
            ),
        )
        for item in random.sample(pending, round(len(pending) * (1 - share))):
            database.set_result(item.job_id, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))


def run(module: str, folder: Path, share: float, seed: int) -> list[tuple[str, int, str]]:
    """Mutate one module; the survivors: operator, line, change."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    path = str(folder / "socket")
    script = str(Path(__file__).resolve())
    server = subprocess.Popen([sys.executable, script, "--answer", path, str(folder)], env=environment)
    tool = Path(sys.executable).parent

    def cosmic_ray(command: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(tool / command), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    try:
        while not os.path.exists(path):
            if server.poll() is not None:
                raise SystemExit("the tests fail without any mutation")
            time.sleep(0.1)
        tests = [f"tests/{name}" for name in sorted(FAST, key=lambda name: name != f"test_{module}.py")]
        configuration = folder / f"{module}.toml"
        session = folder / f"{module}.sqlite"
        configuration.write_text(
            _CONFIGURATION.format(
                module=module,
                timeout=SECONDS + 10.0,
                python=sys.executable,
                script=script,
                socket=path,
                tests=" ".join(tests),
            )
        )
        cosmic_ray("cosmic-ray", "init", configuration.name, session.name)
        cosmic_ray("cr-filter-operators", session.name, configuration.name)
        leave_out(session, share, seed)
        cosmic_ray("cosmic-ray", "exec", configuration.name, session.name)
        items = [json.loads(line) for line in cosmic_ray("cosmic-ray", "dump", session.name).splitlines()]
        done = [(item, result) for item, result in items if result and result["worker_outcome"] == "normal"]
        alive = [(item, result) for item, result in done if result["test_outcome"] == "survived"]
        print(f"{module}: {len(done)} mutants, {len(alive)} survived the fast tests", flush=True)
        survivors = []
        for item, result in alive:
            mutation = item["mutations"][0]
            arguments = (mutation["module_path"], mutation["operator_name"], str(mutation["occurrence"]))
            source = folder / "src" / "harmony_plugin" / "core" / f"{module}.py"
            before = source.read_text()
            try:
                cosmic_ray("cosmic-ray", "apply", *arguments)
                if ask(path, [f"tests/{name}" for name in SLOW]) == 0:
                    survivors.append((mutation["operator_name"], mutation["start_pos"][0], result["diff"]))
            finally:
                source.write_text(before)
        print(f"{module}: {len(survivors)} survived all tests", flush=True)
        return survivors
    finally:
        server.terminate()
        server.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--module", choices=MODULES, action="append")
    parser.add_argument("--share", type=float, default=1.0, help="of the mutants, drawn by chance; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the share")
    parser.add_argument("--answer", nargs=2, metavar=("SOCKET", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--ask", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        answer(options.answer[0], Path(options.answer[1]))
    elif options.ask:
        sys.exit(ask(options.ask[0], options.ask[1:]))
    else:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            copy(folder)
            for module in options.module or MODULES:
                for operator, line, diff in run(module, folder, options.share, options.seed):
                    changed = [row for row in diff.splitlines() if row[:1] in "+-" and row[:3] not in ("+++", "---")]
                    print(f"{module}.py:{line} {operator}", *changed, sep="\n    ", flush=True)


if __name__ == "__main__":
    main()
