"""What the server says of its models, and the line that it logs for a request, without a model in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from harmony_plugin import RequestError
from harmony_plugin.llamacpp import Usage
from harmony_plugin.llamacpp.server import about
from harmony_plugin.llamacpp.server.context import Context, Facts
from harmony_plugin.llamacpp.server.host import Host, Loaded
from harmony_plugin.llamacpp.server.record import Record
from harmony_plugin.llamacpp.server.settings import ModelSettings


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "file.gguf").touch()
    first = ModelSettings(model=str(tmp_path / "file.gguf"), n_ctx=4096)
    return Host([first, *(ModelSettings(model="m", model_alias=alias) for alias in "bcde")], 1)


def test_names(host: Host, tmp_path: Path) -> None:
    assert host.aliases == ["file.gguf", "b", "c", "d", "e"]
    for name in ("file.gguf", "file", str(tmp_path / "file.gguf")):
        assert host.find(name) == "file.gguf"
    assert host.find("m") == "b", "the first of those that have the file"
    assert host.find("x") is None
    assert (host.resolve("x"), host.resolve(None), host.resolve("c")) == ("file.gguf", "file.gguf", "c")


def test_a_model_that_was_not_loaded_yet_says_what_is_known(host: Host, tmp_path: Path) -> None:
    model = about.openai_model(host, "file.gguf")
    assert model == {
        "id": "file.gguf",
        "object": "model",
        "created": int((tmp_path / "file.gguf").stat().st_mtime),
        "owned_by": "llamacpp",
        "context_length": 4096,
        "max_model_len": 4096,
    }
    assert "context_length" not in about.openai_model(host, "b")
    assert about.openai_model(host, "b")["created"] > 0


@pytest.mark.parametrize(
    ("query", "names", "more"),
    [
        ({}, ["file.gguf", "b", "c", "d", "e"], False),
        ({"limit": "2"}, ["file.gguf", "b"], True),
        ({"limit": "2", "after_id": "b"}, ["c", "d"], True),
        ({"limit": "2", "after_id": "c"}, ["d", "e"], False),
        ({"limit": "2", "before_id": "d"}, ["b", "c"], True),
        ({"before_id": "c"}, ["file.gguf", "b"], False),
        ({"after_id": "e"}, [], False),
    ],
)
def test_pages_of_models(host: Host, query: dict[str, str], names: list[str], more: bool) -> None:
    page = about.anthropic_models(host, query)
    assert [model["id"] for model in page["data"]] == names
    assert page["has_more"] is more
    assert (page["first_id"], page["last_id"]) == ((names[0], names[-1]) if names else (None, None))


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "x"}, {"limit": "1001"}, {"after_id": "x"}])
def test_wrong_pages(host: Host, query: dict[str, str]) -> None:
    with pytest.raises(RequestError) as error:
        about.anthropic_models(host, query)
    assert error.value.status == 400


def test_the_page_shows_names_as_text(host: Host) -> None:
    told = {**about.summary(host, keyed=False, shown=True), "models": ["<script>"]}
    shown = about.page(told, "/base")
    assert "<script>" not in shown
    assert "/base/v1/responses" in shown
    assert "http" not in shown.replace("<!doctype html>", ""), "nothing from elsewhere"
    assert "models" not in about.summary(host, keyed=True, shown=False)


def test_the_banner_says_what_to_look_out_for(host: Host) -> None:
    facts = Facts({"general.architecture": "gpt-oss"}, 12_100_000_000, 20_914_757_184, 201_088)
    context = Context(200_192, "as set", "n_ctx 200,000 is more than the 131,072 tokens that the model was trained for")
    host.loaded["file.gguf"] = Loaded(facts, context, 9.44)
    said = list(about.banner(host, "https", "host", 8443, keyed=True))
    assert "file.gguf: gpt-oss, 20.9 B parameters, 11.3 GiB; " in said[1]
    assert said[2].endswith("when asked for, in its place: b, c, d, e")
    assert "200,192 tokens: as set" in said[3]
    assert "WARNING: n_ctx 200,000 is more" in said[4]
    text = "\n".join(said)
    assert "4 at a time, which share the context; 1 may wait" in text
    assert "https://host:8443/v1 " in text
    assert "needed: --api_key" in text
    assert said[-1] == "listening on https://host:8443 (the model took 9.4 s to load); Ctrl+C stops it"
    for address, listening in (("0.0.0.0", "0.0.0.0"), ("::", "[::]")):
        text = "\n".join(about.banner(host, "http", address, 80, keyed=False))
        assert "http://localhost:80/v1 " in text
        assert "all who reach this machine can ask" in text
        assert f"listening on http://{listening}:80 " in text


# The log's line


def closed(**fields: Any) -> str:
    record = Record("POST", "req_1")
    record.endpoint = "/v1/messages"
    record.status = 200
    for name, value in fields.items():
        setattr(record, name, value)
    record.ended = record.since + 2
    return record.line()


def test_a_line_without_tokens() -> None:
    assert closed() == "POST /v1/messages 200 total=2.000s id=req_1"


def test_a_line_with_all_there_is() -> None:
    record = Record("POST", "req_1")
    usage = Usage()
    usage.prompt, usage.cached, usage.completion, usage.reasoning = 9, 4, 20, 7
    usage.first, usage.issues = record.since + 0.5, ["stray_marker", "stray_marker"]
    record.endpoint, record.status, record.model, record.streamed = "/v1/responses", 200, "tiny", True
    usage.finish = "stop"
    record.observe(usage)
    record.ended = record.since + 1
    assert record.line() == (
        "POST /v1/responses 200 stop model=tiny in=9 cached=4 out=20 reasoning=7 first=0.500s total=1.000s "
        "issues=stray_marker stream=yes id=req_1"
    )


def test_a_line_of_a_refusal_has_its_code_and_not_its_words() -> None:
    error = RequestError("secret words", "messages", "invalid_value", 400)
    assert closed(error=error, status=400) == "POST /v1/messages 400 invalid_value total=2.000s id=req_1"


def test_a_path_that_a_client_made_up_is_no_line_of_its_own() -> None:
    line = closed(path="/x\nFAKE line", status=404)
    assert line.startswith("POST /x%0AFAKE%20line 404 ")
