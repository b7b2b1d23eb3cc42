"""vLLM's own tests of Harmony, parsers, chat and Responses, on stock vLLM and with this plugin's parsers in its place.

What passes on stock vLLM and not with the plugin must be in `vllm_own_tests.json`, with the reason; what is listed must
differ. So a new difference shows, and one that went away. No engine runs; tests that need a model hub fail on both
sides and say nothing.

    python scripts/vllm_own_tests.py             # the installed vLLM's
    python scripts/vllm_own_tests.py 0.33.0      # another release's
    python scripts/vllm_own_tests.py ~/src/vllm  # a folder with vLLM's sources: its main branch
    python scripts/vllm_own_tests.py --show      # why each differs
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import matrix

ROOT = matrix.ROOT
CACHE = matrix.CACHE.parent / "vllm-tests"
EXPECTED = Path(__file__).with_suffix(".json")
#: Those that need no server: files, from vLLM's tests folder on; what a release lacks is left out.
FILES = (
    *("parser/test_harmony.py", "parser/test_chat_parsing.py", "parser/test_abstract_parser.py"),
    *("parser/test_include_reasoning.py", "parser/test_parse.py", "parser/test_streaming.py"),
    *("tool_parsers/test_structural_tag_registry.py", "reasoning/test_gptoss_reasoning_parser.py"),
    "entrypoints/unit_tests/test_context.py",
    "entrypoints/anthropic/test_anthropic_messages_conversion.py",
    "entrypoints/openai/parser",
    "entrypoints/openai/chat_completion/test_serving_chat.py",
    *(
        f"entrypoints/openai/responses/test_{name}.py"
        for name in (
            *("parsable_context_unit", "protocol", "streaming_events", "harmony_utils", "response_input_to_harmony"),
            *("serving_responses", "responses_utils", "sampling_params"),
        )
    ),
)


def tests_of(version: str) -> Path:
    """The folder above vLLM's ``tests`` of a release, from its source distribution, downloaded once."""
    folder = Path(version).expanduser()
    if (folder / "tests").is_dir():
        return folder.resolve()
    target = CACHE / version
    if not target.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            # pip cannot fetch sources without asking them what they need, which ends in an error here; it has unpacked
            # them by then, and leaves them where it is told to.
            command = [sys.executable, "-m", "pip", "download", "--no-clean", "--no-deps", "--no-build-isolation"]
            done = subprocess.run(
                [*command, "--no-binary=vllm", f"--dest={scratch}/done", f"vllm=={version}"],
                env=os.environ | {"TMPDIR": scratch},
                capture_output=True,
                text=True,
                check=False,
            )
            unpacked = next(Path(scratch).glob("pip-*/vllm*/tests"), None)
            if unpacked is None:
                raise SystemExit(f"the sources of vLLM {version} cannot be downloaded:\n{done.stderr[-2000:]}")
            (Path(scratch) / "kept").mkdir()
            shutil.move(unpacked, Path(scratch) / "kept" / "tests")
            (Path(scratch) / "kept").rename(target)
    return target


def outcomes(version: str, plugin: bool, show: bool) -> dict[str, str]:
    """Each test's outcome."""
    root = tests_of(version)
    path = [str(ROOT / "scripts"), str(ROOT / "src"), str(ROOT / "tests" / "rigs")]
    if version != installed_version():
        path.append(str(matrix.sources(version)))
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([*path, str(root)]),
            "PYTHONSAFEPATH": "1",  # a checkout's own vllm must not hide the installed one
            "OWN_TESTS_OUTCOMES": file.name,
            "OWN_TESTS_PLUGIN": "1" if plugin else "",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
        }
        command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, f"--rootdir={root}", "--noconftest"]
        options = ["-p", "vllm_own_tests_plugin", "-p", "no:cacheprovider", "-W", "ignore", "--timeout=60"]
        files = [str(root / "tests" / name) for name in FILES if (root / "tests" / name).exists()]
        done = subprocess.run(
            [*command, *options, "--continue-on-collection-errors", *files],
            env=environment,
            cwd=root,
            capture_output=not show,
            text=True,
            check=False,
        )
        try:
            return dict(json.loads(Path(file.name).read_text(encoding="utf-8")))
        except ValueError:
            raise SystemExit(f"vLLM's tests did not run:\n{done.stdout or ''}{done.stderr or ''}") from None


def installed_version() -> str:
    """The installed vLLM's release; its distribution may bear another name."""
    for name in matrix.DISTRIBUTIONS:
        try:
            return installed(name).partition("+")[0]
        except ImportError:
            continue
    raise SystemExit("there is no vLLM here")


def reason_for(test: str, expected: dict[str, list[str]]) -> str | None:
    for reason, patterns in expected.items():
        if any(fnmatch.fnmatchcase(test, pattern) for pattern in patterns):
            return reason
    return None


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("version", nargs="?", help="a release, or a folder; default: the installed one")
    arguments.add_argument("--show", action="store_true", help="pytest's output of the run with the plugin")
    options = arguments.parse_args()
    version = options.version or installed_version()
    stock = outcomes(version, plugin=False, show=False)
    with_plugin = outcomes(version, plugin=True, show=options.show)
    passed = [test for test, outcome in stock.items() if outcome == "passed"]
    differ = [test for test in passed if with_plugin.get(test) != "passed"]
    print(f"vLLM {version}: {len(passed)} of its tests pass on stock vLLM, {len(passed) - len(differ)} with the plugin")
    expected: dict[str, list[str]] = json.loads(EXPECTED.read_text(encoding="utf-8"))
    new = [test for test in differ if reason_for(test, expected) is None]
    gone = [
        pattern
        for patterns in expected.values()
        for pattern in patterns
        if fnmatch.filter(passed, pattern) and not fnmatch.filter(differ, pattern)
    ]
    for reason in expected:
        print(f"  {sum(reason_for(test, expected) == reason for test in differ)} expected: {reason}")
    for test in new:
        print(f"  NEW: {test}")
    for pattern in gone:
        print(f"  NO LONGER DIFFERS: {pattern}")
    return int(bool(new or gone or not passed))


if __name__ == "__main__":
    sys.exit(main())
