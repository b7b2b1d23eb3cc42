"""The page at `/`, in a real browser on the scripted server: what a user sees, and what reaches the API.

Every test ends with the same questions: did the page ask any other host, and did the browser complain.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (the extra dev)")

from llamacpp_rig import AT_ONCE, ENDLESS, ONE_THREAD, WEATHER, answer, call, encoding, sound
from scripts.install_chromium import Unavailable, chromium

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

THINKING = "<|channel|>analysis<|message|>Need weather.<|end|><|start|>assistant"
MARKDOWN = """# Sizes

A **bold** word, *one* in italics, `code`, [a page](https://example.org/a_(b)) and https://example.org/c.

- one
- two
  1. inner
  2. `more`

> said

| a | b |
| - | - |
| 1 | x \\| y |

```python
print("<b>")
```
End."""
ATTACK = """<img src=x onerror="window.hit=1"> <script>window.hit=1</script> [x](javascript:window.hit=1)
[y](data:text/html,hit) **<b onclick=hit>** `<i>`

| <img src=x onerror=hit> | [z](JavaScript:hit) |
| - | - |
| <svg onload=hit> | ![i](https://elsewhere.example/i.png) |

```html"><img src=x onerror=hit>
</code></pre><img src=x onerror=hit>
```
"""


def running(opening: str) -> dict[str, Any]:
    return {"token_ids": encoding().encode(opening, allowed_special="all") + ENDLESS * [350]}


SCRIPTS: list[dict[str, Any]] = [
    {"id": "sum", "when": "2 + 2", "raw": answer("2 + 2 = 4.", "Simple arithmetic.")},
    {"id": "markdown", "when": "Markdown", "raw": answer(MARKDOWN)},
    {"id": "attack", "when": "attack", "raw": answer(ATTACK, "<img src=x onerror=hit>")},
    {"id": "thinker", "when": "think", **running("<|channel|>analysis<|message|>")},
    {"id": "endless", "when": "endless", **running("<|channel|>final<|message|>")},
    {
        "id": "loop",
        "when": "Paris",
        "replies": [
            {"raw": THINKING + call("get_weather", '{"city":"Paris"}')},
            {"raw": answer("It is 21 C.", "Have the result.")},
        ],
    },
    {
        "id": "two",
        "when": "Rome",
        "raw": call("get_weather", '{"city":"Paris"}') + "<|start|>assistant" + call("get_weather", '{"city":"Rome"}'),
    },
    {
        "id": "turns",
        "when": "turn",
        "replies": [{"raw": answer("First.")}, {"raw": answer("Second.")}, {"raw": answer("Third.")}],
    },
]

EXPLAINED = {
    "unit": "tokens",
    "segments": [
        {"kind": "marker", "text": "<|channel|>", "offset": 0, "ids": [200005], "message": 0},
        {"kind": "header", "text": "analysis", "offset": 1, "ids": [35644], "message": 0},
        {"kind": "marker", "text": "<|message|>", "offset": 2, "ids": [200008], "message": 0},
        {"kind": "reasoning", "text": "Have the result.", "offset": 3, "ids": [18293, 290, 1534, 13], "message": 0},
        {"kind": "marker", "text": "<|end|>", "offset": 7, "ids": [200007], "message": 0},
        {"kind": "header", "text": "assistant", "offset": 8, "ids": [173781], "message": 1},
        {"kind": "marker", "text": "<|channel|>", "offset": 9, "ids": [200005], "message": 1},
        {"kind": "header", "text": "commentary to=functions.query", "offset": 10, "ids": [12606, 815], "message": 1},
        {"kind": "marker", "text": "<|message|>", "offset": 12, "ids": [200008], "message": 1},
        {"kind": "tool_call", "text": '{"name":"<b>"}', "offset": 13, "ids": [10848, 1243], "message": 1},
        {"kind": "marker", "text": "<|call|>", "offset": 15, "ids": [200012], "message": 1},
        {"kind": "dropped", "text": "rest", "offset": 16, "ids": [6644], "message": None},
    ],
    "messages": [
        {
            "field": "reasoning",
            "role": "assistant",
            "channel": "analysis",
            "recipient": None,
            "content_type": None,
            "text": "Have the result.",
            "complete": True,
            "name": None,
        },
        {
            "field": "tool_call",
            "role": "assistant",
            "channel": "commentary",
            "recipient": "functions.query",
            "content_type": "json",
            "text": '{"name":"<b>"}',
            "complete": False,
            "name": "query",
        },
    ],
    "issues": [
        {"code": "missing_start", "offset": 8, "text": "", "meaning": "a message began without <|start|>"},
        {"code": "loose_text", "offset": 16, "text": "rest", "meaning": "text outside any message"},
    ],
}

PHONE = {"width": 390, "height": 844}


def scripted_with(folder: Path, *arguments: str) -> ServerProcess:
    """The scripted server with the scripts of this file."""
    scripts = folder / "page.jsonl"
    scripts.write_text("".join(json.dumps(line) + "\n" for line in SCRIPTS), "utf-8")
    return ServerProcess(
        [
            *("-m", "harmony_plugin.demo.server", "--script", str(scripts), "--model", str(build_model())),
            *("--model_alias", "tiny", "--n_ctx", "8192", *(arguments or AT_ONCE), *ONE_THREAD),
        ]
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with sound(scripted_with(tmp_path_factory.mktemp("page"))) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        found = chromium()
    except Unavailable as error:
        pytest.skip(str(error))
    with sync_api.sync_playwright() as playwright:
        environment = {**os.environ, **found.environment}
        # Chromium's own sandbox is not to be had in most containers, and the page is ours.
        launched = playwright.chromium.launch(
            executable_path=found.path, env=environment, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield launched
        launched.close()


class Tab:
    """A tab of the browser on the page, and what it asked of the server."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.asked: list[Any] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._note)

    def _note(self, said: Any) -> None:
        # That an answer is no 200 is what some tests are about.
        if said.type in ("error", "warning") and "Failed to load resource" not in said.text:
            self.complaints.append(said.text)

    def open(self) -> Tab:
        self.page.goto(self.url)
        sync_api.expect(self.page.locator("#model option")).not_to_have_text(["…"])
        return self

    def say(self, text: str) -> None:
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.keyboard.press("Enter")

    def wait(self) -> None:
        """Until the reply is complete."""
        sync_api.expect(self.page.locator("#log")).to_have_attribute("aria-busy", "false")

    def ask(self, text: str) -> Any:
        """The reply to `text`, complete."""
        self.say(text)
        self.wait()
        return self.reply()

    def reply(self) -> Any:
        return self.page.locator(".reply").last

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def sent(self) -> list[dict[str, Any]]:
        """The chat requests so far."""
        return [json.loads(one.post_data) for one in self.asked if one.url.endswith("/v1/chat/completions")]

    def check(self) -> None:
        origin = httpx.URL(self.url)
        assert {httpx.URL(one.url).netloc for one in self.asked} == {origin.netloc}, "another host was asked"
        assert self.complaints == []


@pytest.fixture
def tabs(browser: Any) -> Iterator[Callable[..., Tab]]:
    opened: list[Tab] = []

    def new(url: str, **context: Any) -> Tab:
        page = browser.new_context(**context).new_page()
        page.set_default_timeout(30_000)
        tab = Tab(page, url)
        opened.append(tab)
        return tab

    sync_api.expect.set_options(timeout=30_000)
    yield new
    for tab in opened:
        tab.page.context.close()
        tab.check()


@pytest.fixture
def tab(served: ServerProcess, tabs: Callable[..., Tab]) -> Tab:
    return tabs(served.url).open()


def expect(what: Any) -> Any:
    return sync_api.expect(what)
