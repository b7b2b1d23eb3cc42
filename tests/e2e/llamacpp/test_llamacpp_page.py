"""The page at `/`, in a real browser on the scripted server: what a user sees, and what reaches the API.

Every test ends with the same questions: did the page ask any other host, and did the browser complain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("playwright", reason="needs playwright (the extra dev)")

from browser_rig import launched
from llamacpp_rig import AT_ONCE, ENDLESS, ONE_THREAD, WEATHER, answer, call, encoding, sound
from playwright.sync_api import expect

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
    with launched() as started:
        yield started


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
        expect(self.page.locator("#model option")).not_to_have_text(["…"])
        return self

    def say(self, text: str) -> None:
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.keyboard.press("Enter")

    def wait(self) -> None:
        """Until the reply is complete."""
        expect(self.page.locator("#log")).to_have_attribute("aria-busy", "false")

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
        page.set_default_timeout(15_000)
        tab = Tab(page, url)
        opened.append(tab)
        return tab

    expect.set_options(timeout=15_000)
    yield new
    for tab in opened:
        tab.page.context.close()
        tab.check()


@pytest.fixture
def tab(served: ServerProcess, tabs: Callable[..., Tab]) -> Tab:
    return tabs(served.url).open()


def of_the_api(served: ServerProcess, script: str, *messages: dict[str, Any]) -> dict[str, Any]:
    """The message that the API gives for a script, whole."""
    body = {"messages": list(messages) or [{"role": "user", "content": "hi"}], "metadata": {"script": script}}
    answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=60)
    message: dict[str, Any] = answer.json()["choices"][0]["message"]
    return message


# A conversation


def test_thinking_is_folded_away_and_opens(tab: Tab, served: ServerProcess) -> None:
    reply = tab.ask("What is 2 + 2?")
    told = of_the_api(served, "sum")
    thought = reply.locator(".thought")
    expect(thought).to_be_hidden()
    expect(reply.locator("summary")).to_have_text(re.compile("^Thought for .* s$"))
    reply.locator("summary").click()
    expect(thought).to_be_visible()
    assert thought.text_content() == told["reasoning_content"]
    assert reply.locator(".markdown").text_content() == told["content"]
    stats = re.compile(r"^21 tokens \(3 thinking\) · [\d.]+ tokens/s · prompt \d+")
    expect(reply.locator(".stats")).to_have_text(stats)


def test_thinking_streams_while_it_is_open_and_is_ended_by_answer_now(tab: Tab) -> None:
    tab.say("think")
    reply = tab.reply()
    expect(reply.locator("summary")).to_have_text(re.compile(r"^Thinking… \d+ s$"))
    reply.locator("summary").click()
    before = len(reply.locator(".thought").text_content())
    tab.page.wait_for_function("n => document.querySelector('.thought').textContent.length > n", arg=before)
    expect(reply.locator(".markdown")).to_be_empty()
    tab.button("Answer now").click()
    expect(reply.locator(".markdown p")).to_have_count(1)
    expect(reply.locator("summary")).to_contain_text("Thought for")
    expect(tab.button("Answer now")).to_be_hidden()
    (control,) = [one for one in tab.asked if one.url.endswith("/control")]
    assert json.loads(control.post_data)["action"] == "reasoning_end"
    tab.button("Stop").click()
    tab.wait()


def test_stop_ends_the_reply_at_the_server_too(tab: Tab, served: ServerProcess) -> None:
    tab.say("endless")
    expect(tab.reply().locator(".markdown p")).to_have_count(1)
    tab.button("Stop").click()
    tab.wait()
    expect(tab.reply().locator(".notice")).to_have_text("Stopped.")
    expect(tab.page.get_by_label("Message", exact=True)).to_be_focused()
    tab.page.wait_for_function("fetch('slots').then(r => r.json()).then(s => s.every(one => !one.is_processing))")
    tab.ask("What is 2 + 2?")
    assert [message["role"] for message in tab.sent[1]["messages"]] == ["user", "assistant", "user"]


def test_a_reply_that_was_cut_says_so(tab: Tab) -> None:
    tab.button("Settings").click()
    tab.page.get_by_label("Most tokens of a reply").fill("12")
    tab.button("Done").click()
    expect(tab.ask("endless").locator(".notice")).to_have_text("Cut: the reply reached the limit of tokens.")


def test_markdown_becomes_elements(tab: Tab) -> None:
    shown = tab.ask("Show Markdown").locator(".markdown")
    expect(shown.locator("h3")).to_have_text("Sizes")
    expect(shown.locator("strong")).to_have_text("bold")
    expect(shown.locator("em")).to_have_text("one")
    expect(shown.locator("ul > li > ol > li")).to_have_text(["inner", "more"])
    expect(shown.locator("blockquote")).to_have_text("said")
    expect(shown.locator("td")).to_have_text(["1", "x | y"])
    expect(shown.locator("figure pre")).to_have_text('print("<b>")')
    links = shown.locator("a")
    assert [links.nth(n).get_attribute("href") for n in range(2)] == [
        "https://example.org/a_(b)",
        "https://example.org/c",
    ]
    for n in range(2):
        assert links.nth(n).get_attribute("rel") == "noopener noreferrer"
    at_once = """async (shown, text) => {
      const { Markdown } = await import("./ui/markdown.js");
      const other = document.createElement("div");
      new Markdown(other).show(text);
      return other.innerHTML === shown.innerHTML;
    }"""
    assert shown.evaluate(at_once, MARKDOWN), "streamed and at once"


def test_what_the_model_writes_is_text(tab: Tab) -> None:
    reply = tab.ask("attack")
    for forbidden in ("img", "script", "svg", "b", "i", "a:not([href^='https://elsewhere.example/'])"):
        expect(reply.locator(f":is(.markdown, .thought) {forbidden}")).to_have_count(0)
    shown = reply.locator(".markdown").text_content()
    assert '<img src=x onerror="window.hit=1"> <script>window.hit=1</script> [x](javascript:window.hit=1)' in shown
    assert "<svg onload=hit>" in shown
    assert tab.page.evaluate("window.hit") is None


def test_regenerate_edit_and_new_chat(tab: Tab) -> None:
    roles = ["user", "assistant", "user"]
    tab.ask("turn one")
    expect(tab.ask("turn two").locator(".markdown")).to_have_text("Second.")
    expect(tab.button("Regenerate")).to_have_count(1)
    tab.button("Regenerate").click()
    tab.wait()
    expect(tab.page.locator(".reply")).to_have_count(2)
    assert [one["role"] for one in tab.sent[2]["messages"]] == roles
    tab.button("Edit the message").click()
    box = tab.page.get_by_label("Message", exact=True)
    expect(box).to_have_value("turn two")
    tab.button("Cancel").click()
    expect(box).to_have_value("")
    expect(tab.page.locator(".user")).to_have_count(2)
    tab.button("Edit the message").click()
    tab.ask("turn two, again")
    assert [one["content"] for one in tab.sent[3]["messages"]] == ["turn one", "First.", "turn two, again"]
    expect(tab.page.locator(".bubble")).to_have_text(["turn one", "turn two, again"])
    tab.button("New chat").click()
    expect(tab.page.locator("article")).to_have_count(0)
    tab.ask("turn")
    assert len(tab.sent[4]["messages"]) == 1


def test_copy(served: ServerProcess, tabs: Callable[..., Tab]) -> None:
    tab = tabs(served.url, permissions=["clipboard-read", "clipboard-write"]).open()
    tab.ask("Show Markdown")
    tab.button("Copy the reply").click()
    expect(tab.page.get_by_text("Copied")).to_be_visible()
    assert tab.page.evaluate("navigator.clipboard.readText()") == MARKDOWN
    tab.button("Copy the code").click()
    tab.page.wait_for_function("navigator.clipboard.readText().then(text => text === 'print(\"<b>\")')")


# Calls


def offer_a_tool(tab: Tab) -> None:
    tab.button("Settings").click()
    tab.button("Insert an example").click()
    tab.button("Done").click()


def test_a_call_is_answered_by_hand(tab: Tab) -> None:
    offer_a_tool(tab)
    reply = tab.ask("Weather in Paris?")
    assert tab.sent[0]["tools"] == [WEATHER]
    expect(reply.locator(".name")).to_have_text("get_weather")
    assert json.loads(reply.locator(".call pre").text_content()) == {"city": "Paris"}
    expect(tab.page.get_by_label("Message", exact=True)).to_be_disabled()
    box = tab.page.get_by_label("Result of get_weather")
    expect(box).to_be_focused()
    box.fill('{"temperature": 21}')
    tab.button("Send the result").click()
    tab.wait()
    expect(tab.reply().locator(".markdown")).to_have_text("It is 21 C.")
    expect(box).to_have_count(0)
    asked, called, result = tab.sent[1]["messages"]
    assert (asked["role"], called["reasoning_content"], called["content"]) == ("user", "Need weather.", None)
    (made,) = called["tool_calls"]
    assert made["function"] == {"name": "get_weather", "arguments": '{"city":"Paris"}'}
    assert result == {"role": "tool", "tool_call_id": made["id"], "content": '{"temperature": 21}'}
    tab.button("Regenerate").click()
    tab.wait()
    assert tab.sent[2]["messages"] == tab.sent[1]["messages"]


def test_a_message_whose_reply_waits_for_a_result_can_be_edited(tab: Tab) -> None:
    tab.ask("Weather in Paris?")
    tab.button("Edit the message").click()
    expect(tab.ask("What is 2 + 2?").locator(".markdown")).to_have_text("2 + 2 = 4.")
    assert len(tab.sent[1]["messages"]) == 1


def test_several_calls_are_answered_together(tab: Tab) -> None:
    def allow(route: Any) -> None:
        route.continue_(post_data=json.dumps({**json.loads(route.request.post_data), "parallel_tool_calls": True}))

    tab.page.route("**/v1/chat/completions", allow)
    offer_a_tool(tab)
    tab.ask("Weather in Rome?")
    boxes = tab.page.get_by_label("Result of get_weather")
    expect(boxes).to_have_count(2)
    boxes.nth(1).fill("20")
    boxes.nth(0).fill("21")
    tab.page.keyboard.press("Control+Enter")
    tab.wait()
    _, called, *results = tab.sent[1]["messages"]
    assert [one["tool_call_id"] for one in results] == [one["id"] for one in called["tool_calls"]]
    assert [one["content"] for one in results] == ["21", "20"]


@pytest.mark.parametrize(
    ("tools", "told"),
    [
        ("[{]", "This is not JSON: "),
        ('{"type": "function"}', "This is not a list"),
        ('[{"type": "web_search"}]', 'Tool 1: its "type" is not "function".'),
        ('[{"type": "function", "function": {}}]', 'Tool 1: "function" has no "name".'),
    ],
)
def test_wrong_tools_are_told_and_not_sent(tab: Tab, tools: str, told: str) -> None:
    tab.button("Settings").click()
    box = tab.page.get_by_label("Tools, as a JSON list")
    box.fill(tools)
    expect(tab.page.locator("#tools-error")).to_contain_text(told)
    tab.page.keyboard.press("Escape")
    tab.say("What is 2 + 2?")
    expect(box).to_be_focused()
    assert tab.sent == []
    box.fill("")
    tab.button("Done").click()
    tab.page.keyboard.press("Enter")
    tab.wait()
    assert "tools" not in tab.sent[0]


# Settings and the server


def test_settings_reach_the_request_and_outlive_the_page(tab: Tab) -> None:
    tab.button("Settings").click()
    page = tab.page
    expect(page.get_by_label("Temperature")).to_have_attribute("placeholder", "server's: 0")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Reasoning effort").select_option("high")
    for label, value in (
        ("Most reasoning tokens", "100"),
        ("Temperature", "0.5"),
        ("top_p", "0.9"),
        ("Most tokens of a reply", "200"),
        ("Seed", "7"),
    ):
        page.get_by_label(label).fill(value)
    tab.button("Done").click()
    page.reload()
    tab.ask("What is 2 + 2?")
    (sent,) = tab.sent
    expected = {
        "reasoning_effort": "high",
        "max_reasoning_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 200,
    }
    assert expected.items() <= sent.items()
    assert (sent["seed"], sent["model"]) == (7, "tiny")
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    tab.button("Settings").click()
    tab.button("Reset").click()
    tab.button("Done").click()
    tab.button("Regenerate").click()
    tab.wait()
    assert not tab.sent[1].keys() & {*expected, "seed"}


def test_an_error_is_told_in_the_servers_words_and_can_be_tried_again(tab: Tab) -> None:
    tab.button("Settings").click()
    tab.page.get_by_label("System prompt").fill("so " * 9000)
    tab.button("Done").click()
    reply = tab.ask("What is 2 + 2?")
    expect(reply.locator(".notice")).to_contain_text("8192")
    tab.button("Settings").click()
    tab.button("Reset").click()
    tab.button("Done").click()
    tab.button("Try again").click()
    tab.wait()
    expect(tab.reply().locator(".markdown")).to_have_text("2 + 2 = 4.")
    expect(tab.page.locator(".reply")).to_have_count(1)


def test_a_key_is_asked_for_and_kept_in_the_tab(tmp_path: Path, tabs: Callable[..., Tab]) -> None:
    # Behind a proxy that gives it a path, too.
    with sound(scripted_with(tmp_path, "--n_parallel", "1", "--api_key", "secret", "--root_path", "/base")) as keyed:
        tab = tabs(f"{keyed.url}/base/")
        tab.page.goto(tab.url)
        box = tab.page.get_by_label("API key", exact=True)
        expect(box).to_be_focused()
        box.fill("wrong")
        tab.page.keyboard.press("Enter")
        expect(tab.page.locator("#key-error")).to_have_text("The server did not accept that key.")
        box.fill("secret")
        tab.page.keyboard.press("Enter")
        expect(tab.page.locator("#model option")).to_have_text(["tiny"])
        expect(tab.ask("What is 2 + 2?").locator(".markdown")).to_have_text("2 + 2 = 4.")
        assert "secret" not in json.dumps(tab.page.evaluate("({...localStorage})"))
        assert tab.asked[-1].headers["authorization"] == "Bearer secret"
        tab.page.reload()
        expect(tab.page.locator("#model option")).to_have_text(["tiny"])
        # Whoever cancels is told why nothing works.
        assert {httpx.URL(one.url).path.split("/")[1] for one in tab.asked} == {"base"}
        other = tabs(keyed.url)
        other.page.goto(other.url)
        other.button("Cancel").click()
        expect(other.page.get_by_role("status")).to_have_text("Invalid API key")

        # One place only: whoever comes second waits, and is told.
        tab.say("endless")
        expect(tab.reply().locator(".markdown p")).to_have_count(1)
        other.say("What is 2 + 2?")
        other.page.get_by_label("API key", exact=True).fill("secret")
        other.page.keyboard.press("Enter")
        expect(other.page.get_by_role("status")).to_have_text("Waiting in line: another reply is being written.")
        tab.button("Stop").click()
        other.wait()
        expect(other.reply().locator(".markdown")).to_have_text("2 + 2 = 4.")


@contextmanager
def two_models(folder: Path) -> Iterator[ServerProcess]:
    models = [{"model": str(build_model()), "model_alias": name, "n_ctx": 1024} for name in ("one", "two")]
    config = folder / "config.json"
    config.write_text(json.dumps({"models": models}), "utf-8")
    with sound(ServerProcess(["-m", "harmony_plugin.demo.server", "--config_file", str(config)])) as server:
        yield server


def test_another_model_is_chosen(tmp_path: Path, tabs: Callable[..., Tab]) -> None:
    with two_models(tmp_path) as server:
        tab = tabs(server.url).open()
        tab.page.get_by_label("Model", exact=True).select_option("two")
        tab.ask("What is 2 + 2?")
        assert tab.sent[0]["model"] == "two"


# The inspector


def test_the_inspector_shows_what_was_written(tab: Tab) -> None:
    tab.page.route("**/explain", lambda route: route.fulfill(json=EXPLAINED))
    tab.ask("What is 2 + 2?")
    toggle = tab.button("Inspector")
    toggle.click()
    expect(toggle).to_have_attribute("aria-expanded", "true")
    raw = tab.page.get_by_label("The model's output")
    for kind in ("marker", "header", "reasoning", "tool_call", "dropped"):
        texts = [part["text"] for part in EXPLAINED["segments"] if part["kind"] == kind]
        expect(raw.locator(f".{kind}")).to_have_count(len(texts))
        expect(raw.locator(f".{kind}").first).to_contain_text(texts[0])
    mark = raw.get_by_role("button", name="missing_start")
    assert mark.evaluate("mark => mark.nextElementSibling.textContent").startswith("assistant")
    tip = tab.page.get_by_role("tooltip")
    expect(tip).to_be_hidden()
    mark.focus()
    expect(tip).to_have_text("a message began without <|start|>")
    tab.page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    raw.get_by_role("button", name="loose_text").hover()
    expect(tip).to_have_text("text outside any message: rest")
    expect(raw.get_by_text("200012")).to_be_hidden()
    tab.page.get_by_label("Token ids").check()
    expect(raw.get_by_text("200012")).to_be_visible()
    expect(tab.page.locator(".messages li")).to_have_text(
        [
            "reasoningassistant · analysisHave the result.",
            'tool call: queryassistant · commentary · to functions.query · json · cut{"name":"<b>"}',
        ]
    )
    tab.page.get_by_label("Token ids").focus()
    tab.page.keyboard.press("Escape")
    expect(tab.page.locator("#inspector")).to_be_hidden()
    expect(toggle).to_be_focused()


def test_the_inspector_asks_the_server(tab: Tab) -> None:
    tab.ask("What is 2 + 2?")
    tab.button("Inspect the reply").click()
    raw = tab.page.get_by_label("The model's output")
    expect(raw.locator(".reasoning")).to_contain_text("Simple arithmetic.")
    expect(raw.locator(".content")).to_contain_text("2 + 2 = 4.")
    expect(raw.locator(".marker")).to_have_count(7)
    expect(tab.page.locator(".messages li")).to_have_count(2)
    expect(tab.page.locator("#inspector")).to_contain_text("Well-formed: nothing had to be repaired.")


def test_characters_place_an_issue_inside_of_a_segment(tab: Tab) -> None:
    explained = {
        "unit": "characters",
        "segments": [{"kind": "content", "text": "🦙 one two", "offset": 0, "ids": None, "message": 0}],
        "messages": [],
        "issues": [{"code": "invalid_utf8", "offset": 6, "text": "", "meaning": "bytes"}],
    }
    tab.page.route("**/explain", lambda route: route.fulfill(json=explained))
    tab.ask("What is 2 + 2?")
    tab.button("Inspect the reply").click()
    expect(tab.page.get_by_label("The model's output")).to_have_text("🦙 one invalid_utf8two")
    expect(tab.page.get_by_label("Token ids")).to_be_disabled()


def test_an_inspector_without_its_endpoint_says_so(tab: Tab) -> None:
    missing = {"error": {"message": "no such reply"}}
    tab.page.route("**/explain", lambda route: route.fulfill(json=missing, status=404))
    tab.button("Inspector").click()
    expect(tab.page.locator("#inspector")).to_contain_text("When there is a reply")
    tab.ask("What is 2 + 2?")
    expect(tab.page.locator("#inspector")).to_contain_text("Inspection isn't available for this reply.")


# Everybody


def test_the_keyboard_is_enough(tab: Tab) -> None:
    tab.page.route("**/explain", lambda route: route.fulfill(json=EXPLAINED))
    press = tab.page.keyboard.press

    def reach(name: str) -> None:
        """Tab until the control whose name begins so has the focus."""
        for _ in range(60):
            focused = tab.page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent")
            if focused.startswith(name):
                return
            press("Tab")
        raise AssertionError(f"{name} is not reached by Tab")

    expect(tab.page.get_by_label("Message", exact=True)).to_be_focused()
    tab.page.keyboard.type("first line")
    press("Shift+Enter")
    tab.page.keyboard.type("What is 2 + 2?")
    press("Enter")
    tab.wait()
    assert tab.sent[0]["messages"][0]["content"] == "first line\nWhat is 2 + 2?"
    reach("Thought for")
    press("Enter")
    expect(tab.reply().locator(".thought")).to_be_visible()
    reach("Settings")
    press("Enter")
    expect(tab.page.get_by_role("dialog", name="Settings")).to_be_visible()
    press("Escape")
    reach("Inspector")
    press("Enter")
    expect(tab.page.get_by_label("The model's output")).to_be_visible()
    reach("missing_start")
    expect(tab.page.get_by_role("tooltip")).to_be_visible()
    press("Escape")
    press("Escape")
    reach("Regenerate")
    press("Enter")
    tab.wait()
    expect(tab.page.get_by_label("Message", exact=True)).to_be_focused()
    assert len(tab.sent) == 2


def everything_open(tab: Tab) -> None:
    """A conversation with one of each, and the inspector beside it."""
    tab.page.route("**/explain", lambda route: route.fulfill(json=EXPLAINED))
    for text in ("What is 2 + 2?", "Show Markdown", "attack", "Weather in Rome?"):
        tab.page.get_by_label("Message", exact=True).fill(text)
        tab.button("Send").click()
        tab.wait()
    tab.page.locator("summary").first.click()
    tab.button("Inspector").click()
    expect(tab.page.get_by_label("The model's output")).to_be_visible()


def test_a_phone_has_nothing_to_scroll_sideways(served: ServerProcess, tabs: Callable[..., Tab]) -> None:
    tab = tabs(served.url, viewport=PHONE, has_touch=True, is_mobile=True).open()
    wide = "[document.documentElement, document.querySelector('#log')].map(e => e.scrollWidth - e.clientWidth)"
    assert tab.page.evaluate(wide) == [0, 0]
    everything_open(tab)
    assert tab.page.evaluate(wide) == [0, 0]
    tab.page.get_by_label("Close the inspector").click()
    tab.button("Settings").click()
    tab.button("Insert an example").click()
    assert tab.page.evaluate(wide) == [0, 0]
    box = tab.page.get_by_role("dialog", name="Settings").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]


UNNAMED = """() => {
  const named = (e) => e.ariaLabel || e.labels?.length || e.textContent.trim();
  const controls = "button, input, select, textarea, summary, a, [role=region], pre[aria-label]";
  return [...document.querySelectorAll(controls)].filter((e) => !named(e)).map((e) => e.outerHTML);
}"""
# The contrast of text with what is behind it, as WCAG 2 counts it, where it is less than 4.5.
PALE = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const part = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const texts = [...document.querySelectorAll("body *")].filter(
    (e) => e.checkVisibility() && !e.disabled && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()),
  );
  return texts.flatMap((e) => {
    const [one, other] = [light(rgba(getComputedStyle(e).color)), light(behind(e))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    return contrast < 4.5 ? [`${contrast.toFixed(2)}: ${e.outerHTML.slice(0, 120)}`] : [];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_has_a_name_and_text_stands_out(
    served: ServerProcess, tabs: Callable[..., Tab], scheme: str
) -> None:
    tab = tabs(served.url, color_scheme=scheme).open()
    assert tab.page.evaluate(PALE) == []
    everything_open(tab)
    assert tab.page.evaluate(UNNAMED) == []
    assert tab.page.evaluate(PALE) == []
    tab.button("Settings").click()
    tab.page.get_by_label("Tools, as a JSON list").fill("[")
    assert tab.page.evaluate(PALE) == []
    assert tab.page.evaluate("document.documentElement.lang") == "en"
    assert tab.page.locator("h1").count() == 1


# The files


def test_the_page_is_kept_to_itself(served: ServerProcess) -> None:
    with httpx.Client(base_url=served.url, headers={"accept": "text/html"}) as http:
        page = http.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "accept" in page.headers["vary"]
        for name in ("page.js", "page.css", "icon.svg"):
            part = http.get(f"/ui/{name}")
            assert (part.status_code, part.headers["cache-control"]) == (200, "no-cache")
            tag = {"if-none-match": part.headers["etag"]}
            assert (again := http.get(f"/ui/{name}", headers=tag)).status_code == 304
            assert again.content == b""
            assert http.head(f"/ui/{name}").status_code == 200
        for answer in (page, part):
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
        for nothing in ("/ui/", "/ui/none.js", "/ui/..%2fui.py", "/ui/%2e%2e/ui.py"):
            assert http.get(nothing).status_code == 404
    assert f"{served.url}/  (a page to chat on)" in served.output()


def test_without_the_page(tmp_path: Path) -> None:
    with sound(scripted_with(tmp_path, "--ui", "false")) as server, httpx.Client(base_url=server.url) as http:
        page = http.get("/", headers={"accept": "text/html"})
        assert "<code>tiny</code>" in page.text
        assert "src=" not in page.text
        assert http.get("/ui/page.js").status_code == 404
        assert "page to chat on" not in server.output()
