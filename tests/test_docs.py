"""What the pages say of the code, held to the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scripts import architecture, issues_page

import harmony_plugin
from conformance import beside
from harmony_plugin import CODES

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("fuzz/*.md"), *ROOT.glob("examples/**/*.md")]
)
TABLE_CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_the_machines_diagram_is_its_table() -> None:
    text = architecture.PART.page.read_text(encoding="utf-8")
    assert architecture.PART.placed(text, architecture.diagram()) == text, "python -m scripts.architecture --write"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_cell_ends_inside_code(page: Path) -> None:
    """On GitHub a pipe ends a cell of a table, in code, too."""
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert [code[0] for row in rows for code in TABLE_CODE.finditer(row) if re.search(r"(?<!\\)\|", code[2])] == []


def test_the_site_has_every_page() -> None:
    listed = re.findall(r'"([^"]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8"))
    docs = ROOT / "docs"
    assert {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")} - {*listed} == set()
    assert len(listed) == len({*listed})


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "api" / "harmony_plugin.md").read_text(encoding="utf-8")
    assert {*harmony_plugin.__all__} - {*re.findall(r"::: harmony_plugin\.(\w+)", page)} == set()


def test_the_codes_page_is_what_the_code_says() -> None:
    assert issues_page.examples().keys() == CODES.keys()
    text = issues_page.PART.page.read_text(encoding="utf-8")
    assert issues_page.PART.placed(text, issues_page.told()) == text, "python -m scripts.issues_page --write"


@pytest.mark.parametrize("code", CODES)
def test_the_example_of_a_code_has_it(code: harmony_plugin.Code) -> None:
    if code == "arguments_repaired":
        pytest.importorskip("json_repair", reason="needs the extra repair")
    example = issues_page.examples()[code]
    assert code in [issue.code for issue in issues_page.parsed(example).issues]


@pytest.mark.parametrize("page", [*beside.PAGES.glob("*.md")], ids=lambda page: page.name)
def test_examples_are_as_the_servers_answered(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert beside.placed(text, beside.kept()) == text, "write it anew: python -m conformance.beside --pages"


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = set(LINK.findall((folder / "README.md").read_text(encoding="utf-8")))
    assert listed == {page.name for page in folder.glob("*.md")} - {"README.md"}


def test_the_readmes_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = [code for code in CODE.findall((ROOT / "README.md").read_text(encoding="utf-8")) if "parse(" in code]
    exec(code, {})
    first, *deltas = capsys.readouterr().out.splitlines()
    assert first.startswith("Add. 4. () (Issue(code='missing_start'")
    assert deltas == ["None 4. ()"]


def test_the_code_of_the_python_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for code in CODE.findall((ROOT / "docs" / "start-python.md").read_text(encoding="utf-8")):
        exec(code, {})
    said = capsys.readouterr().out.splitlines()
    assert said[:6] == [
        "Add.",
        "It is 4.",
        "missing_start",
        "It is",
        " 4.",
        "{'role': 'assistant', 'content': 'It is 4.', 'reasoning_content': None}",
    ]
