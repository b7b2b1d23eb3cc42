"""The manual as a site: docs/ and what it links to, built by Zensical, warnings as errors, every link checked.

    python -m scripts.build_docs          # build/site; `python -m http.server -d build/site` shows it
    SITE_URL=https://… python -m scripts.build_docs   # where it will be: its 404.html needs that, if under a path

The pages in docs/ are written for GitHub. Here a copy of them is made that Zensical takes as well (build/docs): pages
and sources outside of docs/ get a place on the site, and where GitHub's Markdown and Python's differ, Python's is
written. What the page "Try it" runs (Pyodide) and what draws the diagrams (Mermaid) come from npm, into the built site
alone; nothing is loaded from elsewhere when the site is read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scripts.install_chromium import Unavailable, fetched
from scripts.issues_page import examples
from scripts.plots import plots

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BUILD = ROOT / "build"
STAGED, SITE = BUILD / "docs", BUILD / "site"
CONFIG = ROOT / "zensical.toml"

PYODIDE, MERMAID = "pyodide@314.0.7", "mermaid@12.3.0"
#: What of Pyodide's package runs in a browser.
PYODIDE_FILES = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")
#: What of this package the page needs: it has no dependencies.
PACKAGE = ("__init__.py", "transcripts.py", "core/*.py", "explain/__init__.py", "explain/page.py")

#: Pages outside of docs/, and where they are on the site.
OUTSIDE = {
    "SECURITY.md": "project/security.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "fuzz/README.md": "project/fuzzing.md",
    "examples/README.md": "examples.md",
    "examples/monitoring/README.md": "monitoring.md",
}
#: Where the text of other files is, that pages link to.
SOURCES = "source"
#: Letters of code that stay on a line in a table.
SHORT = 26
LANGUAGES = {".py": "python", ".json": "json", ".toml": "toml", ".sh": "sh", ".yaml": "yaml"}

NAME = "harmony-plugin"
ABOUT = (
    "Splits what gpt-oss writes (Harmony) into reasoning, content and tool calls, in vLLM, llama-cpp-python and Python."
)
#: A page in the configuration's navigation, each on a line of its own.
NAV_LINE = re.compile(r'.*"([^"]+\.md)"\}?,$')
LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"^\s*(```+)")
PLOT = re.compile(r"<!-- plot: (\w+) -->")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
CODE = re.compile(r"(`+)(.+?)\1")


class Broken(Exception):
    """The site cannot be built, or is wrong; the message says what, a line each."""


# The pages, as Zensical takes them


def staged_name(file: Path) -> Path:
    """Where a file of this repository is on the site, as a page."""
    if file.is_relative_to(DOCS):
        return file.relative_to(DOCS)
    name = file.relative_to(ROOT).as_posix()
    if name in OUTSIDE:
        return Path(OUTSIDE[name])
    return Path(SOURCES, name, "README.md") if file.is_dir() else Path(SOURCES, f"{name}.md")


class Stage:
    """Fills the folder that Zensical reads."""

    def __init__(self) -> None:
        self._sources: set[Path] = set()
        self._plots = plots()
        shutil.rmtree(STAGED, ignore_errors=True)
        for file in sorted(DOCS.rglob("*")):
            if file.suffix == ".md":
                self._page(file)
            elif file.is_file():
                target = STAGED / staged_name(file)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
        for name in OUTSIDE:
            self._page(ROOT / name)
        while self._sources:
            self._source(self._sources.pop())

    def _page(self, file: Path) -> None:
        text = as_python_markdown(file.read_text("utf-8"))
        text = PLOT.sub(lambda found: f'<div class="plot">{self._plots[found[1]]}</div>', text)
        if "```mermaid" in text:
            up = "../" * len(staged_name(file).parent.parts)
            text += f'\n<script src="{up}assets/mermaid.min.js"></script>\n'
        self._write(file, text)

    def _source(self, file: Path) -> None:
        """A file that a page links to, as a page; a folder, as a list."""
        name = file.relative_to(ROOT).as_posix()
        if (STAGED / staged_name(file)).exists():
            return
        if file.is_dir():
            inside = [each for each in sorted(file.iterdir()) if each.is_file() and each.suffix in LANGUAGES]
            text = "".join(f"- [{each.name}]({each.name})\n" for each in inside)
        else:
            text = f"````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text('utf-8')}````\n"
        self._write(file, f"---\nsearch:\n  exclude: true\n---\n\n# {name}\n\n{text}")

    def _write(self, file: Path, text: str) -> None:
        base = file if file.is_dir() else file.parent
        target = STAGED / staged_name(file)
        target.parent.mkdir(parents=True, exist_ok=True)

        def placed(found: re.Match[str]) -> str:
            there = Path(os.path.normpath(base / found[2]))
            if not there.exists():
                return found[0]  # which Zensical complains of
            if not there.is_relative_to(DOCS) and there.relative_to(ROOT).as_posix() not in OUTSIDE:
                self._sources.add(there)
            name = os.path.relpath(STAGED / staged_name(there), target.parent)
            return f"{found[1]}{Path(name).as_posix()}{found[3]}"

        target.write_text(outside_fences(text, lambda line: LINK.sub(placed, line)), "utf-8")


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """The text with each line changed that is not in a fenced block."""
    lines, fence = [], ""
    for line in text.splitlines():
        found = FENCE.match(line)
        if fence:
            fence = "" if found and found[1] == fence else fence
        elif found:
            fence = found[1]
        else:
            line = change(line)
        lines.append(line)
    return "\n".join(lines) + "\n"


def as_python_markdown(text: str) -> str:
    """GitHub's Markdown as Python's: pipes in a table's code, lists in lists, Markdown in HTML.

    And short code in a table is marked as such: the theme would break it anywhere.
    """

    def in_cell(code: re.Match[str]) -> str:
        # A pipe in code ends a cell on GitHub unless it has a backslash, which Python-Markdown would show.
        text = code[0].replace("\\|", "|")
        return f"{text}{{.short}}" if len(text) <= SHORT and " " not in text else text

    def changed(line: str) -> str:
        if line.startswith("|"):
            return CODE.sub(in_cell, line)
        indent = len(line) - len(line.lstrip(" "))
        return " " * indent + line.replace("<details>", "<details markdown>")

    return outside_fences(text, changed)


# What the page "Try it" runs, and what draws diagrams


def add_scripts() -> None:
    """Put Pyodide, Mermaid, this package and the examples where the pages look for them."""
    assets = STAGED / "assets"
    pyodide = assets / "pyodide"
    pyodide.mkdir(parents=True, exist_ok=True)
    for name in PYODIDE_FILES:
        shutil.copy(fetched(PYODIDE) / name, pyodide / name)
    shutil.copy(fetched(MERMAID) / "dist" / "mermaid.min.js", assets / "mermaid.min.js")
    package = ROOT / "src" / "harmony_plugin"
    with zipfile.ZipFile(assets / "harmony_plugin.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for pattern in PACKAGE:
            for file in sorted(package.glob(pattern)):
                # The same bytes each time: no dates.
                packed.writestr(zipfile.ZipInfo(file.relative_to(package.parent).as_posix()), file.read_bytes())
    shown = [
        {"name": code, "raw": example["raw"], "tools": example.get("tools")}
        for code, example in examples().items()
        if "raw" in example and "options" not in example
    ]
    (assets / "examples.json").write_text(json.dumps(shown, ensure_ascii=False), "utf-8")


# Building


def configure() -> Path:
    """The configuration beside what it builds; pages that are not there yet are left out of the navigation."""
    lines = CONFIG.read_text("utf-8").splitlines(keepends=True)
    there = [line for line in lines if not (page := NAV_LINE.match(line)) or (STAGED / page[1]).exists()]
    text = "".join(there)
    if url := os.environ.get("SITE_URL"):
        text = text.replace("[project]\n", f"[project]\nsite_url = {json.dumps(url)}\n", 1)
    config = BUILD / CONFIG.name
    config.write_text(text, "utf-8")
    return config


def build() -> None:
    config = configure()
    shutil.rmtree(SITE, ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode or "warning" in said.lower() or "griffe:" in said:
        raise Broken(ESCAPES.sub("", said.partition("Traceback")[0]))


def titles() -> Iterator[tuple[str, Path]]:
    """The pages in the navigation's order."""
    for line in (BUILD / CONFIG.name).read_text("utf-8").splitlines():
        if page := NAV_LINE.match(line):
            text = (STAGED / page[1]).read_text("utf-8")
            yield next((each[2:] for each in text.splitlines() if each.startswith("# ")), page[1]), Path(page[1])


def write_llms() -> None:
    """For language models: the list of pages, and all of them in one file (llmstxt.org)."""
    listed = [f"# {NAME}\n\n> {ABOUT}\n\n## Pages\n"]
    whole = []
    for title, page in titles():
        text = (STAGED / page).read_text("utf-8")
        target = SITE / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")
        listed.append(f"- [{title}]({page.as_posix()})")
        whole.append(text)
    (SITE / "llms.txt").write_text("\n".join(listed) + "\n", "utf-8")
    (SITE / "llms-full.txt").write_text("\n\n".join(whole), "utf-8")


# Checking what was built


class Page(HTMLParser):
    """What a built page refers to, and what can be referred to in it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(file.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.ids.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(given.get("href", ""))
        elif "src" in given:
            self.loads.append(given["src"])


def problems() -> Iterator[str]:
    """Links that lead nowhere, and what would be loaded from elsewhere."""
    pages = {file: Page(file) for file in sorted(SITE.rglob("*.html")) if file.name != "404.html"}
    for file, page in pages.items():
        name = file.relative_to(SITE).as_posix()
        for link in [*page.links, *page.loads]:
            there = urlsplit(link)
            if there.scheme or there.netloc:
                if link in page.loads and there.scheme != "data":
                    yield f"{name}: loads {link} from elsewhere"
                continue
            path = unquote(there.path)
            target = Path(os.path.normpath(file.parent / path)) if path else file
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                yield f"{name}: {link} leads nowhere"
            elif there.fragment and target in pages and unquote(there.fragment) not in pages[target].ids:
                yield f"{name}: {link}: the page has no such place"


def main() -> int:
    """Exit code: 0, and build/site is there; 1: what is wrong is printed."""
    try:
        Stage()
        add_scripts()
        build()
        write_llms()
        if found := list(problems()):
            raise Broken("\n".join(found))
    except (Broken, Unavailable) as error:
        print(f"the site cannot be built:\n{error}", file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in SITE.rglob("*") if file.is_file())
    print(f"build/site: {len(list(SITE.rglob('*.html')))} pages, {size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
