"""What the pages say of the code, held to the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from scripts import architecture

from harmony_plugin import Stream, parse

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("fuzz/*.md"), *ROOT.glob("examples/**/*.md")]
)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_the_machines_diagram_is_its_table() -> None:
    text = architecture.PAGE.read_text(encoding="utf-8")
    assert architecture.page(text) == text, "draw it anew: scripts/architecture.py --write"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = set(LINK.findall((folder / "README.md").read_text(encoding="utf-8")))
    assert listed == {page.name for page in folder.glob("*.md")} - {"README.md"}


def test_the_readmes_code_runs() -> None:
    (code,) = [code for code in CODE.findall((ROOT / "README.md").read_text(encoding="utf-8")) if "parse(" in code]
    output = "<|channel|>analysis<|message|>Add.<|end|><|start|>assistant<|channel|>final<|message|>4.<|return|>"
    names: dict[str, Any] = {"output": output, "tools": ["look"], "chunks": list(output)}
    exec(code, names)
    assert names["reply"] == parse(output)
    assert isinstance(names["stream"], Stream)
    assert names["stream"].reply == parse(output)
