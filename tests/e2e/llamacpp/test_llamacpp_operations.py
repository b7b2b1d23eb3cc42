"""Around the three APIs: what is under `/`, the models as clients see them, who answered, and what the log says."""

from __future__ import annotations

import re
import time
from typing import Any

import anthropic
import httpx
import openai
import pytest
from llamacpp_rig import CASES, events, ids_of

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess
from harmony_plugin.doctor import live

USER = [{"role": "user", "content": "A secret question"}]
APIS = {
    "/v1/chat/completions": {"messages": USER, "metadata": {"script": "SCRIPT"}},
    "/v1/responses": {"input": "A secret question", "metadata": {"script": "SCRIPT"}},
    "/v1/messages": {"max_tokens": 500, "messages": USER, "metadata": {"user_id": "SCRIPT"}},
}


def body(path: str, script: str = "answer", model: str = "tiny", **more: Any) -> dict[str, Any]:
    fields = APIS[path]
    metadata = dict.fromkeys(fields["metadata"], script)  # type: ignore[attr-defined]
    return {**fields, "model": model, "metadata": metadata, **more}


# What is there


def test_the_root_says_what_this_is_to_programs_and_people(http: httpx.Client) -> None:
    told = http.get("/").json()
    assert (told["name"], told["models"], told["api_key_needed"]) == ("harmony-plugin", ["tiny"], False)
    assert "/v1/messages" in told["endpoints"]["Anthropic"]
    page = http.get("/", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r'(src|href)="(?!ui/)', page.text), "nothing from elsewhere"


@pytest.mark.parametrize("path", ["/", "/health", "/readyz"])
def test_head(http: httpx.Client, path: str) -> None:
    answer = http.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_no_page_loads_scripts_from_elsewhere(http: httpx.Client) -> None:
    for path in ("/docs", "/redoc"):
        answer = http.get(path)
        assert answer.status_code == 404
        assert "GET / lists the endpoints" in answer.json()["error"]["message"]


def test_what_is_listed_is_served(http: httpx.Client) -> None:
    served = http.get("/openapi.json").json()["paths"].keys() | {"/openapi.json"}
    for paths in http.get("/").json()["endpoints"].values():
        assert set(paths) <= served


@pytest.mark.parametrize(
    ("path", "meant"),
    [("/chat/completions", "/v1/chat/completions"), ("/v1/v1/messages", "/v1/messages"), ("/v1/model", "/v1/models")],
)
def test_a_path_that_is_close_to_one(http: httpx.Client, path: str, meant: str) -> None:
    message = http.post(path, json={}).json()["error"]["message"]
    assert message == f"Nothing is served at {path} (did you mean {meant}?); GET / lists what is"
    told = http.post(path, json={}, headers={"anthropic-version": "2023-06-01"}).json()
    assert (told["type"], told["error"]["type"]) == ("error", "not_found_error")


def test_a_wrong_method_says_which_is_right(http: httpx.Client) -> None:
    answer = http.get("/v1/chat/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["error"]["message"] == "GET is not served at /v1/chat/completions, only POST"


# Models


def test_models_as_openai_has_them(client: openai.OpenAI, http: httpx.Client) -> None:
    (model,) = client.models.list()
    assert model.id == "tiny"
    assert model.owned_by == "llamacpp"
    assert model.created == int(build_model().stat().st_mtime)
    known = model.model_dump()
    assert known["context_length"] == known["max_model_len"] == 8192
    assert known["meta"] == {
        "architecture": "gpt-oss",
        "n_ctx_train": 131_072,
        "n_embd": 64,
        "n_params": 25_891_160,
        "n_vocab": 201_088,
        "size": 27_955_552,
    }
    for name in ("tiny", build_model().name, str(build_model())):
        assert client.models.retrieve(name) == model
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("gpt-4")
    assert error.value.code == "model_not_found"
    assert "Served here: tiny" in error.value.message


def test_models_as_anthropic_has_them(claude: anthropic.Anthropic, http: httpx.Client) -> None:
    page = claude.models.list()
    (model,) = page.data
    assert (model.type, model.id, model.display_name, model.lifecycle) == ("model", "tiny", "tiny", "active")
    assert int(model.created_at.timestamp()) == int(build_model().stat().st_mtime)
    assert (model.max_input_tokens, page.has_more, page.first_id, page.last_id) == (8192, False, "tiny", "tiny")
    assert claude.models.retrieve("tiny") == model
    with pytest.raises(anthropic.NotFoundError) as error:
        claude.models.retrieve("claude-opus-4")
    assert error.value.body["type"] == "error"  # type: ignore[index]
    with pytest.raises(anthropic.BadRequestError):
        claude.models.list(limit=0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", APIS)
def test_a_request_for_an_unknown_model_is_told_who_answered(http: httpx.Client, path: str, stream: bool) -> None:
    for named in ("gpt-4", "tiny"):
        answer = http.post(path, json=body(path, model=named, stream=stream))
        assert answer.status_code == 200
        assert answer.headers["x-harmony-model"] == "tiny"


def test_the_stock_routes_tell_it_too(http: httpx.Client) -> None:
    answer = http.post("/v1/completions", json={"model": "gpt-4", "prompt": "hi", "max_tokens": 1})
    assert (answer.status_code, answer.headers["x-harmony-model"]) == (200, "tiny")
    assert http.post("/v1/completions", content=b"{").status_code == 422


# The log


def line_of(server: ServerProcess, identifier: str) -> str:
    """The one line of a request; it comes when the engine is done with it."""
    for _ in range(1200):
        lines = [line for line in server.output().splitlines() if line.endswith(f" id={identifier}")]
        if lines:
            (line,) = lines
            return line
        time.sleep(0.05)
    raise AssertionError("no line came")


def fields_of(line: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", APIS)
def test_a_request_is_one_line(server: ServerProcess, http: httpx.Client, path: str, stream: bool) -> None:
    chat = http.post("/v1/chat/completions", json=body("/v1/chat/completions")).json()["usage"]
    answer = http.post(path, json=body(path, stream=stream))
    line = line_of(server, answer.headers["request-id"])
    assert f" INFO POST {path} 200 stop model=tiny in={chat['prompt_tokens']} cached=" in line
    fields = fields_of(line)
    assert fields["out"] == str(chat["completion_tokens"])
    assert fields["reasoning"] == str(chat["completion_tokens_details"]["reasoning_tokens"])
    assert int(fields["cached"]) > 0
    assert 0 < float(fields["first"].removesuffix("s")) <= float(fields["total"].removesuffix("s"))
    assert float(fields["rate"].removesuffix("tok/s")) > 0
    assert fields.get("stream") == ("yes" if stream else None)


@pytest.mark.parametrize("path", APIS)
def test_a_stream_that_was_left_is_a_line_with_what_was_generated(
    server: ServerProcess, http: httpx.Client, path: str
) -> None:
    fields = body(path, "endless", stream=True, **({"max_tokens": 7000} if path == "/v1/messages" else {}))
    with http.stream("POST", path, json=fields) as stream:
        lines = stream.iter_lines()
        for _, _line in zip(range(40), lines, strict=False):
            pass
        identifier = stream.headers["request-id"]
    line = line_of(server, identifier)
    assert f"POST {path} 200 cancelled model=tiny in=" in line
    assert 5 < int(fields_of(line)["out"]) < 6000


@pytest.mark.parametrize("path", APIS)
def test_a_whole_reply_that_nobody_waits_for_is_a_line(server: ServerProcess, http: httpx.Client, path: str) -> None:
    before = server.output().count(" client_closed_request ")
    with pytest.raises(httpx.ReadTimeout):
        http.post(path, json=body(path, "endless") | {"max_tokens": 7000}, timeout=0.7)
    for _ in range(1200):
        lines = [line for line in server.output().splitlines() if " client_closed_request " in line]
        if len(lines) > before:
            break
        time.sleep(0.05)
    assert f"POST {path} 499 client_closed_request model=tiny in=" in lines[-1]
    assert int(fields_of(lines[-1])["out"]) > 0


def test_refusals_and_probes(server: ServerProcess, http: httpx.Client) -> None:
    refused = http.post("/v1/messages", json={"model": "tiny", "max_tokens": 5, "messages": []})
    assert " POST /v1/messages 400 " in line_of(server, refused.headers["request-id"])
    lost = http.get("/v1/%0Anowhere")
    assert " GET /v1/%0Anowhere 404 not_found " in line_of(server, lost.headers["request-id"])
    probe, after = http.get("/health"), http.get("/v1/models")
    line_of(server, after.headers["request-id"])
    assert probe.headers["request-id"] not in server.output()


def test_a_reply_with_issues_has_their_codes(server: ServerProcess, http: httpx.Client) -> None:
    answer = http.post("/v1/chat/completions", json=body("/v1/chat/completions", "mh-missing-start"))
    assert "missing_start" in fields_of(line_of(server, answer.headers["request-id"]))["issues"].split(",")


def test_nothing_that_was_said_is_logged(server: ServerProcess, http: httpx.Client) -> None:
    for path in APIS:
        http.post(path, json=body(path, "unicode"))
    events(http, "/v1/responses", body("/v1/responses", "not-json"))
    said = server.output()
    for text in ("München", "secret", "2 + 2", "Paris, please", "word199"):
        assert text not in said


def test_replies_are_explained(http: httpx.Client) -> None:
    """Of each API, by the id that its client got; what was repaired stands at its place."""
    case = next(case for case in CASES if case["id"] == "wf-sidekick-75")
    for path in APIS:
        reply = http.post(path, json=body(path, case["id"])).json()
        told = http.get(f"/v1/chat/completions/{reply['id']}/explain").json()
        assert told["unit"] == "tokens"
        ids = [token for segment in told["segments"] for token in segment["ids"]]
        assert ids == [*ids_of(case), 200_002]
        assert told["message"]["content"] == case["expected"]["content"]
        reasoning = [part["text"] for part in told["segments"] if part["kind"] == "reasoning"]
        assert "".join(reasoning) == case["expected"]["reasoning"]
    missing = http.get("/v1/chat/completions/chatcmpl-none/explain")
    assert missing.status_code == 404
    assert "There is no reply 'chatcmpl-none' to explain" in missing.json()["error"]["message"]


def test_the_doctor_looks_at_it(server: ServerProcess) -> None:
    found = {finding.name: finding for finding in live.examine(server.url, None)}
    assert found["which"].told.startswith("harmony-plugin ")
    assert found["models"].told == "tiny"
    # Nothing is scripted for its question: whatever the tiny model says, no marker is in it.
    assert "markers" not in found["whole reply"].told + found["streamed reply"].told
