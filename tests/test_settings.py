"""The settings: where they come from, what they refuse, what they turn into, and the table of them in the docs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic_settings", reason="needs the extra cli")

from harmony_plugin import Options
from harmony_plugin.api.defaults import Defaults
from harmony_plugin.prompts import PromptOptions
from harmony_plugin.settings import Settings, describe, read, sources, suspects


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting but what a test gives."""
    for name in os.environ:
        if name.startswith("HARMONY_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    sources.cache_clear()


def test_the_defaults_are_those_of_what_they_turn_into() -> None:
    settings = Settings()
    assert settings.options() == Options()
    assert settings.prompt_options() == PromptOptions()
    assert settings.defaults() == Defaults()


def test_arguments_then_environment_then_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("HARMONY_COMMENTARY=drop\nHARMONY_OUTPUT=final_only\nHARMONY_STRICT=true\nOTHER=1\n")
    monkeypatch.setenv("HARMONY_COMMENTARY", "reasoning")
    monkeypatch.setenv("HARMONY_STRICT", "")
    settings = read(output="final_plus_tools_text")
    assert (settings.commentary, settings.output, settings.strict) == (
        "reasoning",
        "final_plus_tools_text",
        True,
    )
    assert {name: where for name, where in sources().items() if where != "default"} == {
        "commentary": "environment",
        "output": ".env",
        "strict": ".env",
    }


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("channels", "critic=reasoning, sketch=drop", {"critic": "reasoning", "sketch": "drop"}),
        ("channels", '{"critic": "content"}', {"critic": "content"}),
        ("markers", '{"start": "<|im_start|>"}', {"start": "<|im_start|>"}),
        ("stop", "END", ("END",)),
        ("stop", '["a", "b\\n"]', ("a", "b\n")),
        ("reasoning_names", "reasoning_content", ("reasoning_content",)),
        ("reasoning_names", '["reasoning"]', ("reasoning",)),
        ("enabled", "0", False),
        ("max_reply_tokens", "7", 7),
        ("max_seconds_before_final", "1.5", 1.5),
        ("current_date", "2026-01-31", "2026-01-31"),
        ("knowledge_cutoff", "none", "none"),
    ],
)
def test_how_values_are_written(name: str, text: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"HARMONY_{name.upper()}", text)
    assert getattr(Settings(), name) == value


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("COMMENTARY", "nowhere", "'nowhere': it is one of content, reasoning, drop"),
        ("CHANNELS", "critic", "'critic' is not CHANNEL=content, CHANNEL=reasoning or CHANNEL=drop"),
        ("MARKERS", "no json", "it is a JSON object"),
        ("MARKERS", '{"begin": "<b>"}', "unknown marker kinds ['begin']; the kinds are start, end, message"),
        ("MARKERS", '{"start": 1}', "it is an object of marker kinds and their spellings"),
        ("STRICT", "perhaps", "it is one of true, false"),
        ("HEADERS", "held", "it is one of constrain, free"),
        ("REASONING_NAMES", "thoughts", "it is one of reasoning, reasoning_content"),
        ("REASONING_NAMES", "[]", "it is one of reasoning, reasoning_content"),
        ("MAX_REASONING_TOKENS", "-1", "input should be greater than or equal to 0"),
        ("MAX_SECONDS_BEFORE_FINAL", "inf", "finite number"),
        ("CURRENT_DATE", "tomorrow", "it is today, none, or a date as 2026-01-31"),
        ("KNOWLEDGE_CUTOFF", "2024", "it is none, or a month as 2024-06"),
        ("STOP", '["a', "it is one string, or a JSON list of strings"),
    ],
)
def test_a_wrong_value_is_one_line_with_its_name(
    name: str, text: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"HARMONY_{name}", text)
    with pytest.raises(ValueError, match=f"^HARMONY_{name}=") as error:
        read()
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mistyped_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARMONY_COMENTARY", "drop")
    monkeypatch.setenv("HARMONY_OF_THE_SPHERES", "1")
    assert suspects() == ["HARMONY_COMENTARY is no setting (did you mean HARMONY_COMMENTARY?)"]


def test_markers_by_model() -> None:
    settings = Settings(markers={"acme/*": {"start": "<a>"}, "*.gguf": {"start": "<b>"}})
    assert settings.markers_of("acme/one") == {"start": "<a>"}
    assert settings.markers_of("/models/one.gguf") == {"start": "<b>"}
    assert settings.markers_of("other") == settings.markers_of(None) == {}
    assert settings.options(model="acme/one").dialect.markers["start"] == "<a>"
    assert Settings(markers={"end": "<e>"}).markers_of(None) == {"end": "<e>"}


def test_what_the_prompt_says() -> None:
    said = Settings(model_identity="I am Ada.", knowledge_cutoff="none", current_date="none", reasoning_effort="high")
    assert said.prompt_options() == PromptOptions(
        model_identity="I am Ada.", knowledge_cutoff=None, current_date=None, reasoning_effort="high"
    )


def test_bounds() -> None:
    bounds: dict[str, Any] = {
        "max_reasoning_tokens": 1,
        "max_reply_tokens": 2,
        "max_tokens_before_final": 3,
        "max_seconds_before_final": 4.0,
        "stop": ("x",),
        "headers": "free",
    }
    assert Settings(**bounds).defaults(top_k=5) == Defaults(**bounds, top_k=5)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_has_an_example_that_it_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row[0]: row for _, rows in describe() for row in rows}
    _, takes, _, what, example = rows[name]
    assert takes
    assert what.endswith(".")
    monkeypatch.setenv(f"HARMONY_{name.upper()}", example)
    assert getattr(read(), name) != Settings.model_fields[name].default


def test_the_table_in_the_docs_is_the_one_that_is_generated() -> None:
    from scripts import settings_table

    text = settings_table.PART.page.read_text("utf-8")
    assert settings_table.PART.begin in text
    assert settings_table.PART.placed(text, settings_table.table()) == text, "python -m scripts.settings_table --write"
