"""The manual's built site in a real browser: pages that hold, and the page that splits pasted Harmony.

`make docs` builds the site and runs this; without build/site there is nothing to look at.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="needs playwright (the dependency group docs)")

from browser_rig import launched
from playwright.sync_api import expect
from scripts.install_chromium import fetched

from harmony_plugin import parse

SITE = Path(__file__).resolve().parents[2] / "build" / "site"
PAGES = ("", "start-vllm/", "issues/", "architecture/", "performance/", "api/harmony_plugin/", "spec/")
MALFORMED = "<|channel|>analysis<|message|>Look <b>it</b> up.<|channel|>finl<|message|>It is 21 °C.<|return|>"
CALL = '<|channel|>commentary to=weather.get_weather json<|message|>{"city":"Paris"}<|call|>'
# What anyone must be able to read and reach: WCAG 2.1, A and AA.
AXE = "axe-core@4.14.1"
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}
# Python has to start, on a busy machine.
PATIENCE = 120_000

pytestmark = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="the site is not built: make docs")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and says nothing: the log of a test is for what failed."""

    def log_message(self, *_: Any) -> None:
        pass

    def copyfile(self, source: Any, outputfile: Any) -> None:
        with contextlib.suppress(ConnectionError):  # the page was left
            super().copyfile(source, outputfile)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    # Under a path, as a site among others is: no link may begin at the host.
    handler = functools.partial(Quiet, directory=str(SITE.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/site/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as started:
        # One for all tests: what was loaded, it keeps.
        yield started.new_context()


@contextlib.contextmanager
def watched(browser: Any, address: str) -> Iterator[Any]:
    """A tab; at its end nothing was asked of any other host, and the browser had nothing to complain of."""
    tab = browser.new_page()
    complaints: list[str] = []

    def asked(request: Any) -> None:
        if not request.url.startswith((address, "blob:", "data:")):
            complaints.append(request.url)

    def failed(request: Any) -> None:
        if "ABORTED" not in request.failure:  # what a page still loads when it is left is broken off
            complaints.append(f"{request.url}: {request.failure}")

    def said(message: Any) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    tab.on("request", asked)
    tab.on("requestfailed", failed)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("console", said)
    tab.set_default_timeout(PATIENCE)
    yield tab
    tab.close()
    assert complaints == []


@pytest.fixture(scope="module")
def axe() -> str:
    return (fetched(AXE) / "axe.min.js").read_text("utf-8")


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A tab of a test's own."""
    with watched(browser, address) as tab:
        yield tab


@pytest.fixture(scope="module")
def trying(browser: Any, address: str) -> Iterator[Any]:
    """The page "Try it", one for all tests: Python takes seconds to start."""
    with watched(browser, address) as tab:
        tab.goto(f"{address}try/")
        expect(shown(tab).locator("pre .content")).to_be_visible(timeout=PATIENCE)
        yield tab


def shown(page: Any) -> Any:
    """What the page shows of a split."""
    return page.frame_locator("#try iframe")


def split(page: Any, text: str, tools: str = "") -> None:
    page.get_by_label("What the model wrote").fill(text)
    page.get_by_label("The request's tools").fill(tools)


LOOKS = pytest.mark.parametrize(
    ("width", "scheme"), [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")]
)


def look(page: Any, width: int, scheme: str) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)


def check_fit(page: Any, width: int, scheme: str) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width, page.url
    expect(page.locator("body")).to_have_attribute("data-md-color-scheme", "slate" if scheme == "dark" else "default")


@LOOKS
def test_pages_fit(page: Any, address: str, width: int, scheme: str) -> None:
    look(page, width, scheme)
    for name in PAGES:
        page.goto(address + name)
        check_fit(page, width, scheme)


@LOOKS
def test_pages_can_be_read_and_reached(page: Any, address: str, axe: str, width: int, scheme: str) -> None:
    look(page, width, scheme)
    for name in (*PAGES, "agents/", "settings/", "try/"):
        page.goto(address + name)
        page.evaluate(axe)
        found = page.evaluate("rules => axe.run(document, rules)", RULES)["violations"]
        assert [(each["id"], each["nodes"][0]["target"]) for each in found] == [], page.url


def test_keys_can_scroll_what_is_wider_than_the_page(page: Any, address: str) -> None:
    look(page, 390, "light")
    page.goto(f"{address}agents/")
    wide = page.locator(".md-typeset__scrollwrap[tabindex]")
    expect(wide.first).to_be_visible()
    assert wide.evaluate_all("boxes => boxes.every(box => box.scrollWidth > box.clientWidth)")


def test_diagram_is_drawn(page: Any, address: str) -> None:
    page.goto(f"{address}architecture/")
    expect(page.locator("div.mermaid")).to_be_visible(timeout=PATIENCE)


@LOOKS
def test_what_became_of_it_fits_the_page(trying: Any, width: int, scheme: str) -> None:
    look(trying, width, scheme)
    check_fit(trying, width, scheme)
    body = shown(trying).locator("body")
    expect(body).to_have_css("background-color", "rgb(13, 17, 23)" if scheme == "dark" else "rgb(255, 255, 255)")
    # The frame is as high as what it shows.
    trying.wait_for_function(
        "() => { const frame = document.querySelector('#try iframe');"
        " return frame.clientHeight >= frame.contentDocument.documentElement.offsetHeight }"
    )


def test_pasted_text_is_split_and_repairs_are_shown(trying: Any) -> None:
    split(trying, MALFORMED)
    inside = shown(trying)
    expect(inside.locator("pre .content")).to_have_text("It is 21 °C.", timeout=PATIENCE)
    expect(inside.locator("pre .reasoning")).to_have_text("Look <b>it</b> up.")
    expect(inside.locator("li .issue")).to_have_text(["missing_end", "missing_start", "misspelled_channel"])
    assert json.loads(trying.locator("#try details code").text_content()) == parse(MALFORMED).to_openai()


def test_tools_decide_what_a_call_is(trying: Any) -> None:
    split(trying, CALL, "get_weather, look_up")
    expect(shown(trying).locator("td.tool_call")).to_have_text("tool call get_weather", timeout=PATIENCE)


def test_nothing_pasted_shows_nothing(trying: Any) -> None:
    split(trying, MALFORMED)
    expect(trying.locator("#try iframe")).to_be_visible(timeout=PATIENCE)
    split(trying, "")
    expect(trying.locator("#try iframe")).to_be_hidden()
    expect(trying.locator("#try details")).to_be_hidden()


def test_token_ids_are_told_from_text(trying: Any) -> None:
    split(trying, "[200005, 35644, 200008]")
    expect(trying.locator(".try-status")).to_contain_text("--ids", timeout=PATIENCE)
    split(trying, MALFORMED)
    expect(trying.locator(".try-status")).to_have_text("", timeout=PATIENCE)


def test_every_example_can_be_chosen(trying: Any) -> None:
    choice = trying.locator("#try select")
    names = [name for name in choice.locator("option").all_inner_texts() if re.fullmatch(r"\w+", name)]
    assert len(names) > 20
    for name in names:
        choice.select_option(name)
        issue = shown(trying).locator("li .issue").filter(has_text=re.compile(f"^{name}$")).first
        expect(issue).to_be_visible(timeout=PATIENCE)


def test_a_link_brings_the_text_back(trying: Any, page: Any) -> None:
    split(trying, MALFORMED, "get_weather")
    trying.get_by_role("button", name="Copy a link").click()
    trying.wait_for_url(re.compile("#z="))
    page.goto(trying.url)
    expect(page.get_by_label("What the model wrote")).to_have_value(MALFORMED)
    expect(page.get_by_label("The request's tools")).to_have_value("get_weather")
    expect(shown(page).locator("pre .content")).to_have_text("It is 21 °C.", timeout=PATIENCE)


@pytest.mark.parametrize("damaged", ["@@@", "AAAA", "q1Yqyc_PKVayUlKqBQA"])
def test_a_damaged_link_is_told(page: Any, address: str, damaged: str) -> None:
    page.goto(f"{address}try/#z={damaged}")
    expect(page.locator(".try-status")).to_contain_text("damaged")


def test_a_wrong_address_leads_on() -> None:
    article = re.search(r"<article.*?</article>", (SITE / "404.html").read_text("utf-8"), re.DOTALL)
    assert article is not None
    links = re.findall(r'href="/([^"]*)"', article[0])
    assert "symptoms/" in links
    assert [link for link in links if not (SITE / link / "index.html").is_file()] == []


def test_language_models_find_every_page() -> None:
    listed = re.findall(r"\]\(([^)]+)\)", (SITE / "llms.txt").read_text("utf-8"))
    assert len(listed) > 30
    assert [name for name in listed if not (SITE / name).is_file()] == []
