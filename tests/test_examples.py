"""The examples as a set, and the one that needs nothing; the others run with the tests of their servers and engines."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_each_is_listed() -> None:
    listed = set(re.findall(r"\]\(([^).]+(?:\.\w+)?)\)", (EXAMPLES / "README.md").read_text("utf-8")))
    there = {path.name for path in EXAMPLES.iterdir() if not path.name.startswith((".", "_"))} - {
        "README.md",
        "monitoring",
    }
    assert there - listed == set()


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_it_says_what_it_shows_and_how_to_run_it(example: Path) -> None:
    told = ast.get_docstring(ast.parse(example.read_text("utf-8"))) or ""
    assert f"python examples/{example.name}" in told


def test_splitting_in_plain_python() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "python_split.py")], capture_output=True, encoding="utf-8", check=True
    )
    message, reason, *deltas, _problem, repaired = done.stdout.splitlines()
    assert "'reasoning_content': 'They want the weather. I should call the tool.'" in message
    assert reason == "tool_calls"
    assert "I'll look it up." in "".join(
        str(ast.literal_eval(delta).get("reasoning_content") or "") for delta in deltas
    )
    assert repaired == "<|channel|>final<|message|>Hello.<|return|>"
