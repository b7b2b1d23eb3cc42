"""Every check can fail: in front of a real server stands an endpoint that spoils its replies, or what it is asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from faulty_endpoint import Answered, Asked, Exchange, faulty
from verify_rig import script_of

from harmony_plugin.demo.process import ServerProcess
from harmony_plugin.verify import compatibility
from harmony_plugin.verify.checks import CHECKS
from harmony_plugin.verify.endpoint import Endpoint
from harmony_plugin.verify.results import Outcome, Result
from harmony_plugin.verify.runner import examine

assert compatibility.questions()
CHAT, RESPONSES, MESSAGES = APIS = ("chat", "responses", "messages")


def results(url: str, check: str, api: str, **settings: Any) -> list[Result]:
    given = {"key": "none", "headers": {}, "timeout": 60, "max_requests": 100, "max_tokens": 2048, **settings}
    with Endpoint(url, **given) as endpoint:
        endpoint.model = endpoint.find_model()
        return list(examine(endpoint, [CHECKS[check]], [api], passes=2))


def generating(change: Callable[[Any], Any], *, streamed: bool | None = None) -> Answered:
    """Changes the JSON of each reply that was generated, or of each event; `streamed`: of those alone."""

    def answered(seen: Exchange) -> None:
        if seen.request is not None and seen.status == 200 and streamed in (None, seen.streamed):
            seen.edit(change)

    return answered


def replaced(old: str, new: str, *, streamed: bool | None = None) -> Answered:
    """Other text in replies."""

    def answered(seen: Exchange) -> None:
        if seen.request is not None and streamed in (None, seen.streamed):
            seen.text = seen.text.replace(old, new)

    return answered


def without(*names: str) -> Callable[[Any], Any]:
    """JSON without fields, wherever they are."""

    def change(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: change(inner) for name, inner in value.items() if name not in names}
        return [change(inner) for inner in value] if isinstance(value, list) else value

    return change


def field(name: str, value: Any) -> Callable[[Any], Any]:
    """JSON in which a field has `value`, wherever it is."""

    def change(found: Any) -> Any:
        if isinstance(found, dict):
            return {key: value if key == name else change(inner) for key, inner in found.items()}
        return [change(inner) for inner in found] if isinstance(found, list) else found

    return change


def event_without(kind: str) -> Callable[[Any], Any]:
    return lambda event: None if event.get("type") == kind else event


def says(question: str) -> Asked:
    """The model says what it says to another question. Its name is told in each API's own way."""

    def asked(body: Any) -> Any:
        named = {"user_id": script_of(question)} if "max_tokens" in body else {"script": script_of(question)}
        ignored = {name: value for name, value in body.items() if name != "tool_choice"}
        return {**ignored, "metadata": named} if len(body) > 1 else body

    return asked


def stopped_by_headers(seen: Exchange) -> None:
    """As a server does that looks for stop strings in what the model writes, headers included."""
    stop = (seen.request or {}).get("stop") or (seen.request or {}).get("stop_sequences") or []
    if "analysis" in stop:
        seen.edit(
            field("content", []) if "/messages" in seen.path else without("content", "reasoning", "reasoning_content")
        )


def five_hundred(seen: Exchange) -> None:
    if 400 <= seen.status < 500:
        seen.status = 500


def bare_errors(seen: Exchange) -> None:
    if seen.status >= 400:
        seen.text = '{"detail":"no"}'


def taken(body: Any) -> Any:
    """As a server does that does not look at types."""
    return {name: value for name, value in body.items() if name != "temperature"}


def refuses_reasoning(seen: Exchange) -> None:
    back = str((seen.request or {}).get("messages") or (seen.request or {}).get("input"))
    if re.search(r"'(reasoning|reasoning_content|thinking)'", back):
        seen.status, seen.kind, seen.text = 422, "application/json", '{"error":{"message":"Extra inputs","type":"t"}}'


def strings_as_names(seen: Exchange) -> None:
    if seen.streamed:
        seen.text = re.sub(r"^event: .*\n", "", seen.text, flags=re.MULTILINE)


def no_such_route(seen: Exchange) -> None:
    if seen.request is not None:
        seen.status, seen.text = 404, '{"detail":"Not Found"}'


def reasoning_dropped(body: Any) -> Any:
    """History without what was thought."""

    def keeps(item: Any) -> bool:
        return not isinstance(item, dict) or item.get("type") not in ("reasoning", "thinking")

    def change(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: change(v) for k, v in value.items() if k not in ("reasoning", "reasoning_content")}
        return [change(inner) for inner in value if keeps(inner)] if isinstance(value, list) else value

    return {**body, **{name: change(body[name]) for name in ("messages", "input") if name in body}}


def one_id(value: Any) -> Any:
    """Calls that share an id."""
    if isinstance(value, dict):
        return {
            k: "call_0" if k in ("id", "call_id") and str(v).startswith("call_") else one_id(v)
            for k, v in value.items()
        }
    return [one_id(inner) for inner in value] if isinstance(value, list) else value


def miscounted(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: v + 1 if k == "total_tokens" else miscounted(v) for k, v in value.items()}
    return [miscounted(inner) for inner in value] if isinstance(value, list) else value


@dataclass
class Fault:
    """What is spoiled, the check that must see it, and words of what it says then."""

    check: str
    apis: tuple[str, ...]
    told: str
    answered: Answered | None = None
    asked: Asked | None = None


FAULTS = [
    Fault(
        "finish",
        (CHAT,),
        "'stop', not 'tool_calls'",
        replaced('"finish_reason":"tool_calls"', '"finish_reason":"stop"'),
    ),
    Fault(
        "finish",
        (MESSAGES,),
        "'stop', not 'tool_calls'",
        replaced('"stop_reason":"tool_use"', '"stop_reason":"end_turn"'),
    ),
    Fault("finish", (RESPONSES,), "no call came", asked=says("four seasons")),
    Fault(
        "finish",
        (CHAT,),
        "'length', not 'stop'",
        replaced('"finish_reason":"stop"', '"finish_reason":"length"'),
    ),
    Fault("length", (CHAT,), "'stop', not 'length'", replaced('"finish_reason":"length"', '"finish_reason":"stop"')),
    Fault("length", (RESPONSES,), "'stop', not 'length'", asked=without("max_output_tokens")),
    Fault("streamed", APIS, "whole: .*Spring.*streamed: .*Sprung", replaced("Spring", "Sprung", streamed=True)),
    Fault("streamed-calls", APIS, "whole: .*Rome.*streamed: .*Roma", replaced("Rome", "Roma", streamed=True)),
    Fault("streamed-calls", APIS, "no call, but", asked=says("four seasons")),
    Fault("unicode", APIS, "U\\+FFFD", replaced("東", "\ufffd")),
    Fault("n", (CHAT,), "choices are \\[0\\]", asked=without("n")),
    Fault(
        "usage",
        APIS,
        "whole: no usage|whole: usage: Field required|not of the API's shape",
        generating(field("usage", None)),
    ),
    Fault("usage", (CHAT, RESPONSES), "total \\d+ is not", generating(miscounted)),
    Fault("usage", (CHAT,), "streamed: no usage", generating(field("usage", None), streamed=True)),
    Fault("usage-reasoning", (CHAT, RESPONSES), "reasoning_tokens is 0", generating(field("reasoning_tokens", 0))),
    Fault("usage-reasoning", (CHAT,), "1000 reasoning tokens of", generating(field("reasoning_tokens", 1000))),
    Fault("reasoning", (CHAT,), "no reasoning, content '391'", generating(without("reasoning", "reasoning_content"))),
    Fault("reasoning", (MESSAGES,), "no reasoning", asked=lambda body: {**body, "thinking": {"type": "disabled"}}),
    Fault("reasoning-names", (CHAT,), "reasoning_content is not", generating(without("reasoning_content"))),
    Fault("reasoning-back", APIS, "it is dropped", asked=reasoning_dropped),
    Fault("tool-loop", APIS, "422: Extra inputs", refuses_reasoning),
    Fault("tool-loop", APIS, "the result says 37", replaced("37", "21")),
    Fault("tool-choice-auto", APIS, "no call of get_weather", asked=says("four seasons")),
    Fault("tool-choice-none", APIS, "call get_weather", asked=says("weather in Rome")),
    Fault("tool-choice-required", APIS, "no call, but", asked=says("four seasons")),
    Fault("tool-choice-named", APIS, "where get_time was named", asked=says("weather in Rome")),
    Fault("arguments", APIS, "arguments of book_table: 'roof'", replaced("outside", "roof")),
    Fault("parallel-calls", (CHAT, RESPONSES), "ids are not distinct", generating(one_id)),
    Fault(
        "json-schema",
        APIS,
        "no JSON",
        asked=lambda body: says("four seasons")(without("response_format", "format")(body)),
    ),
    Fault("json-schema", APIS, "is not of type 'integer'", replaced(":36", ":'36'".replace("'", '\\"'))),
    Fault("stop", (CHAT, MESSAGES), "it is not cut", asked=without("stop", "stop_sequences")),
    Fault("stop-headers", (CHAT, MESSAGES), "it acts on headers", stopped_by_headers),
    Fault("errors", APIS, "no JSON: 500; .*unknown role: 500", five_hundred),
    Fault("errors", APIS, "no JSON: 4\\d\\d, no ", bare_errors),
    Fault("errors", APIS, "temperature a word: 200", asked=taken),
    Fault("shapes", (CHAT,), "created: Input should be a valid integer", generating(field("created", "now"))),
    Fault("shapes", (CHAT,), "does not end in data: \\[DONE\\]", replaced("data: [DONE]", ": done")),
    Fault("shapes", (CHAT,), "role: None", generating(field("role", None), streamed=True)),
    Fault(
        "shapes",
        (RESPONSES,),
        "output_item.added item.type: the client knows no 'chat' there|output.0.type: the client knows no 'chat' there",
        replaced('"type":"message"', '"type":"chat"'),
    ),
    Fault("shapes", (RESPONSES,), "not response.created", generating(event_without("response.created"))),
    Fault(
        "shapes", (RESPONSES,), "are not those that were done", generating(event_without("response.output_item.done"))
    ),
    Fault("shapes", (MESSAGES,), "is not stopped", generating(event_without("content_block_stop"))),
    Fault("shapes", (MESSAGES,), "sent under the name None", strings_as_names),
    Fault(
        "shapes",
        APIS,
        "a stream is sent as",
        lambda seen: setattr(seen, "kind", seen.kind.replace("event-stream", "plain")),
    ),
    Fault(
        "leaks", APIS, "content: '<\\|channel\\|>final", replaced("Three spiders", "<|channel|>final<|message|>Three")
    ),
    Fault("leaks", APIS, "reasoning: 'assistantfinal", replaced("Simple", "assistantfinal")),
    Fault("leaks", APIS, "tool's name: 'functions.get_weather'", replaced('"get_weather"', '"functions.get_weather"')),
    Fault("empty-content", (CHAT,), "content is \\[\\]", replaced('"content":null', '"content":[]')),
    Fault("compatibility", APIS, "pass@1 0/12.*called \\[\\], not get_forecast", asked=says("four seasons")),
    Fault("compatibility-streamed", (CHAT,), "forecast: chunk created", generating(field("created", "now"))),
]


@pytest.mark.parametrize(
    ("fault", "api"),
    [pytest.param(fault, api, id=f"{fault.check}-{i}-{api}") for i, fault in enumerate(FAULTS) for api in fault.apis],
)
def test_it_is_seen(server: ServerProcess, fault: Fault, api: str) -> None:
    with faulty(server.url, asked=fault.asked, answered=fault.answered) as url:
        (result,) = results(url, fault.check, api)
    assert result.outcome is Outcome.FAILS, result
    assert re.search(fault.told, " ".join([result.detail, *result.more.get("problems", ())])), result


def test_every_check_has_one() -> None:
    assert {fault.check for fault in FAULTS} == set(CHECKS)


def test_nothing_is_seen_where_nothing_is_spoiled(server: ServerProcess) -> None:
    with faulty(server.url) as url:
        for name in ("shapes", "errors"):
            assert [result.outcome for api in APIS for result in results(url, name, api)] == [Outcome.HOLDS] * 3


def test_an_api_that_is_not_there_is_not_served(server: ServerProcess) -> None:
    with faulty(server.url, answered=no_such_route) as url:
        (result,) = results(url, "usage", MESSAGES)
    assert (result.outcome, result.detail) == (Outcome.NOT_SERVED, "404 at /v1/messages")


def test_a_model_that_varies_is_not_the_servers_fault(server: ServerProcess) -> None:
    said = iter(("Spring", "Lent", "May", "June"))

    def answered(seen: Exchange) -> None:
        if "Spring" in seen.text:
            seen.text = seen.text.replace("Spring", next(said, "July"))

    with faulty(server.url, answered=answered) as url:
        (result,) = results(url, "streamed", CHAT)
    assert (result.outcome, result.passes) == (Outcome.HOLDS, 2), "the second pass says the same in both"


def test_what_comes_in_one_of_the_passes_is_enough(server: ServerProcess) -> None:
    with faulty(
        server.url, asked=lambda body: says("four seasons")(body) if body.get("temperature") == 0 else body
    ) as url:
        (result,) = results(url, "arguments", CHAT)
    assert (result.outcome, result.passes) == (Outcome.HOLDS, 2)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("text/html", "<h1>Welcome</h1>"),
        ("application/json", ""),
        ("application/json", "[]"),
        ("application/json", "{}"),
        ("application/json", '{"choices":[3],"output":{},"content":"x","usage":"y"}'),
        ("application/json", "[" * 100_000),
        ("text/event-stream", "data: []\n\ndata: {\n\n"),
        ("text/event-stream", 'event: message_start\ndata: {"type":"message_start"}\n\n'),
        ("text/event-stream", 'data: {"type":"response.created","choices":[{"index":0,"delta":5}]}\n\n'),
        ("text/event-stream", 'data: {"error":{"message":"broke"}}\n\n'),
    ],
    ids=range(10),
)
def test_nothing_holds_of_an_endpoint_that_talks_nonsense(server: ServerProcess, kind: str, text: str) -> None:
    def answered(seen: Exchange) -> None:
        if seen.request is not None:
            seen.kind, seen.text = kind, text

    with faulty(server.url, answered=answered) as url:
        found = [result for api in APIS for name in ("usage", "shapes") for result in results(url, name, api)]
    assert {result.outcome for result in found} == {Outcome.FAILS}, found


def test_half_a_reply_shows_nothing(server: ServerProcess) -> None:
    (result,) = results(server.url, "arguments", MESSAGES, max_tokens=25)
    assert result.outcome is Outcome.UNCLEAR
    assert "whole: cut at 25 tokens, see --max-tokens" in result.detail


def test_requests_are_bounded(server: ServerProcess) -> None:
    (result,) = results(server.url, "usage", CHAT, max_requests=3)
    assert result.outcome is Outcome.UNCLEAR
    assert "--max-requests 3 is reached" in result.detail


def test_the_key_is_in_no_detail(server: ServerProcess) -> None:
    def answered(seen: Exchange) -> None:
        if seen.request is not None and len(seen.request) > 1:
            seen.status, seen.kind = 400, "application/json"
            seen.text = '{"error":{"message":"the key secret-1 may not do that","type":"t"}}'

    with faulty(server.url, answered=answered) as url:
        (result,) = results(url, "usage", CHAT, key="secret-1")
    assert result.detail == "400: the key … may not do that"
