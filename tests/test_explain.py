"""`harmony-plugin explain`: what a terminal, a page, a program and OpenAI's viewer get, and exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich", reason="needs the extra cli")

from rich.console import Console
from scripts import explain_picture

from feeding import encode
from harmony_plugin.cli import main
from harmony_plugin.core import Trace
from harmony_plugin.explain.page import page
from harmony_plugin.explain.terminal import Printer

SNAPSHOTS = Path(__file__).parent / "snapshots"
BROKEN = (
    "<|channel|>analysis<|message|>The user wants weather.<|channel|>commentary to=functions.get_weather "
    '<|constrain|>json<|message|>{"city": "Paris"}<|call|>commentary<|start|>assistant<|channel|>finl<|message|>'
    "It is 21 °C <b>.<|return|>"
)
SOUND = "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>"


def snapshot(name: str, text: str) -> None:
    """Compare with what is stored; UPDATE_SNAPSHOTS=1 in the environment stores it anew."""
    file = SNAPSHOTS / name
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.write_text(text, "utf-8")
    assert text == file.read_text("utf-8"), f"{file} has another text: look at it, then UPDATE_SNAPSHOTS=1"


def explained(tmp_path: Path, text: str, *flags: str) -> tuple[int, Path]:
    file = tmp_path / "reply.txt"
    file.write_text(text, "utf-8")
    return main(["explain", str(file), *flags]), file


def test_plain(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert explained(tmp_path, BROKEN)[0] == 1
    snapshot("explain.txt", capsys.readouterr().out)
    assert explained(tmp_path, SOUND)[0] == 0
    assert "well-formed: nothing was repaired" in capsys.readouterr().out


def test_colours(tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=True, color_system="standard", width=100, soft_wrap=True, highlight=False
    )
    trace = Trace()
    trace.feed(encode(BROKEN))
    explanation = trace.finish()
    printer = Printer(console, ids=True)
    printer.segments(explanation.segments, explanation.issues)
    printer.ending(explanation)
    snapshot("explain.ansi", out.getvalue())


def test_ids_as_numbers_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = encode(SOUND)
    for text in (json.dumps(ids), " ".join(map(str, ids)), ",\n".join(map(str, ids))):
        assert explained(tmp_path, text, "--ids", "--json")[0] == 0
        told = json.loads(capsys.readouterr().out)
        assert [token for part in told["segments"] for token in part["ids"]] == ids
    assert explained(tmp_path, "one two", "--ids")[0] == 2
    assert "not a JSON list of token ids" in capsys.readouterr().err


def test_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explained(tmp_path, BROKEN, "--json")[0] == 1
    told = json.loads(capsys.readouterr().out)
    assert "".join(part["text"] for part in told["segments"]) == BROKEN
    assert [message["field"] for message in told["messages"]] == ["reasoning", "tool_call", "content"]


class Words(HTMLParser):
    """The text of a page's output, by class, and every address in it."""

    def __init__(self) -> None:
        super().__init__()
        self.text: dict[str, str] = {}
        self.addresses: list[str] = []
        self._kind = ""
        self._inside = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given: dict[str, Any] = dict(attributes)
        self._inside = self._inside or (tag == "pre" and "tabindex" in given)
        self._kind = given.get("class", "") if self._inside else ""
        self.addresses += [given[name] for name in ("href", "src") if name in given]

    def handle_endtag(self, tag: str) -> None:
        self._kind = ""
        self._inside = self._inside and tag != "pre"

    def handle_data(self, data: str) -> None:
        if self._kind:
            self.text[self._kind] = self.text.get(self._kind, "") + data


def test_a_page_that_needs_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.html"
    assert explained(tmp_path, BROKEN, "--html", str(out))[0] == 1
    assert capsys.readouterr().err == f"written to {out}\n"
    words = Words()
    words.feed(out.read_text("utf-8"))
    assert words.text["content"] == "It is 21 °C <b>."
    assert words.text["reasoning"] == "The user wants weather."
    assert words.text["tool_call"] == '{"city": "Paris"}'
    assert words.text["dropped"] == "commentary"
    assert words.text["issue"] == "missing_endmissing_startfillermisspelled_channel"
    assert all(address.startswith("#") for address in words.addresses)
    assert "<script" not in out.read_text("utf-8")
    assert explained(tmp_path, SOUND, "--html", "-")[0] == 0
    assert "Well-formed: nothing was repaired." in capsys.readouterr().out


def test_a_page_of_ids() -> None:
    trace = Trace()
    trace.feed(encode(BROKEN))
    assert 'title="200005"' in page(trace.finish(), "<x>")
    assert "&lt;x&gt; – Harmony explained" in page(Trace().finish(), "<x>")


def test_for_openais_viewer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harmony = pytest.importorskip("openai_harmony")
    explained(tmp_path, BROKEN, "--euphony")
    line = capsys.readouterr().out
    told = json.loads(line)
    assert [issue["code"] for issue in told["metadata"]["issues"]] == [
        *("missing_end", "missing_start", "filler", "misspelled_channel")
    ]
    conversation = harmony.Conversation.from_json(json.dumps({"messages": told["messages"]}))
    assert [message.channel for message in conversation.messages] == ["analysis", "commentary", "finl"]
    assert conversation.messages[1].recipient == "functions.get_weather"
    assert conversation.messages[1].content[0].text == '{"city": "Paris"}'


def test_settings_are_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pydantic_settings", reason="needs the extra cli")
    assert explained(tmp_path, SOUND, "--json", "--set", "reasoning=drop")[0] == 1
    assert json.loads(capsys.readouterr().out)["issues"][0]["code"] == "dropped_text"
    assert explained(tmp_path, SOUND, "--set", "tone=kind")[0] == 2
    assert "--set tone: there is no such setting" in capsys.readouterr().err
    assert explained(tmp_path, SOUND, "--set", "commentary=nowhere")[0] == 2
    assert "HARMONY_COMMENTARY='nowhere': it is one of" in capsys.readouterr().err
    assert explained(tmp_path, SOUND, "--set", "commentary")[0] == 2
    assert explained(tmp_path, BROKEN, "--strict")[0] == 1
    assert capsys.readouterr().err.endswith("another one began\n")


def test_follow_goes_with_text_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explained(tmp_path, SOUND, "--follow", "--json")[0] == 2
    assert "--follow prints text as it comes" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts as a terminal does")
def test_follow_prints_while_the_file_grows(tmp_path: Path) -> None:
    file = tmp_path / "growing.txt"
    file.write_text("<|channel|>analysis<|message|>So ")
    command = [sys.executable, "-m", "harmony_plugin.cli", "explain", "--follow", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        seen = b""
        while b"So" not in seen:
            seen += os.read(process.stdout.fileno(), 1 << 16)
        with file.open("a") as grows:
            grows.write("far.<|end|><|start|>assistant<|channel|>final<|message|>4")
        while not seen.endswith(b"4"):
            seen += os.read(process.stdout.fileno(), 1 << 16)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        rest, error = process.communicate(timeout=60)
    assert b"well-formed" in rest, error
    assert process.returncode == 0


def test_the_picture_of_the_readme_is_what_is_printed() -> None:
    def words(picture: str) -> list[str]:
        return re.findall(r">([^<>]+)</text>", picture)

    assert words(explain_picture.PICTURE.read_text("utf-8")) == words(explain_picture.draw())
    assert "url(http" not in explain_picture.draw()
