"""Tools of agents on /v1/responses: requests as vLLM takes them, and calls as the client knows them."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from openai.types.responses import (
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseFunctionToolCall,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseTextDeltaEvent,
)

from harmony_plugin.vllm import seams
from harmony_plugin.vllm.client_tools import Calls, as_asked, shown, toolbox_of, translated
from harmony_plugin.vllm.requests import tool_names

from .asking import responses
from .conftest import composed

PATCH = {
    "type": "custom",
    "name": "patch",
    "description": "Patches files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}
SEARCH = {"type": "tool_search", "execution": "client", "description": "Finds tools.", "parameters": {"type": "object"}}
GET = {"type": "function", "name": "get", "strict": False, "parameters": {"type": "object", "properties": {}}}
NAMESPACE = {"type": "namespace", "name": "mcp__w", "description": "Weather.", "tools": [GET]}
TOOLS = [PATCH, SEARCH, GET, NAMESPACE, {"type": "local_shell"}, {"type": "shell"}, {"type": "apply_patch"}]
OFFERED = ["patch", "tool_search", "get", "mcp__w__get", "local_shell", "shell", "apply_patch"]
EXEC = {"type": "custom", "name": "exec", "description": "Runs a program."}
HI = {"role": "user", "content": "hi"}


@pytest.fixture(autouse=True)
def registered() -> None:
    composed(gpt_oss=True)


def asked(**body: Any) -> Any:
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

    return ResponsesRequest.model_validate({"model": "m", "input": [HI], **body})


def plain(request: Any) -> list[dict[str, Any]]:
    """The request's items, without what a class adds."""
    dicts = (item if isinstance(item, dict) else item.model_dump(exclude_none=True) for item in request.input)
    return [{name: value for name, value in item.items() if value is not None} for item in dicts]


def test_all_are_functions_for_vllm() -> None:
    request = asked(tools=TOOLS)
    assert [tool.type for tool in request.tools] == ["function"] * len(OFFERED)
    assert list(tool_names(request.tools)) == OFFERED
    patch, inner = request.tools[0], request.tools[3]
    assert "lark grammar" in patch.parameters["properties"]["input"]["description"]
    assert inner.description == "Weather."


def test_what_vllm_runs_stays() -> None:
    hosted = [{"type": "web_search_preview"}, {"type": "code_interpreter", "container": {"type": "auto"}}]
    assert [tool.type for tool in asked(tools=[*hosted, PATCH]).tools] == ["function", *(t["type"] for t in hosted)]


def test_what_nobody_would_run_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    search = {"type": "web_search", "external_web_access": True}
    foreign = [search, {"type": "web_search"}, {"type": "image_generation"}, {"type": "of_next_year", "name": "x"}]
    inner = {**NAMESPACE, "tools": [GET, {"type": "of_next_year"}]}
    remote = {"type": "shell", "environment": {"type": "container_auto"}}
    items = [{"type": "of_next_year", "text": "x"}, {"type": "compaction", "encrypted_content": "x"}, HI]
    with caplog.at_level(logging.INFO, "harmony_plugin"):
        request = asked(tools=[*foreign, inner, remote], input=items)
    assert list(tool_names(request.tools)) == ["mcp__w__get"]
    assert plain(request) == [HI]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 8, told
    assert all(line.endswith("was left out") for line in told)


def test_items_bring_tools() -> None:
    found = {"type": "tool_search_output", "call_id": "s", "execution": "client", "tools": [NAMESPACE]}
    search = {"type": "tool_search_call", "call_id": "s", "execution": "client", "arguments": {"query": "weather"}}
    bringing = {"type": "additional_tools", "role": "developer", "tools": [EXEC, SEARCH]}
    request = asked(input=[bringing, HI, search, found])
    assert list(tool_names(request.tools)) == ["exec", "tool_search", "mcp__w__get"]
    assert request.tool_choice == "auto"
    assert plain(request) == [
        HI,
        {"type": "function_call", "call_id": "s", "name": "tool_search", "arguments": '{"query": "weather"}'},
        {"type": "function_call_output", "call_id": "s", "output": "Found, and ready to be called: mcp__w__get"},
    ]


RESULTS = [
    ({"type": "custom_tool_call_output", "output": "done"}, "done"),
    ({"type": "local_shell_call_output", "output": "done"}, "done"),
    ({"type": "apply_patch_call_output", "status": "completed"}, "completed"),
    (
        {
            "type": "shell_call_output",
            "output": [{"stdout": "out", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
        },
        "out\nexit code 0",
    ),
    ({"type": "function_call_output", "output": [{"type": "input_text", "text": "a"}]}, "a"),
]


@pytest.mark.parametrize(("result", "output"), RESULTS, ids=[result["type"] for result, _ in RESULTS])
def test_results(result: dict[str, Any], output: str) -> None:
    call = {"type": "function_call", "call_id": "a", "name": "get", "arguments": "{}"}
    request = asked(tools=TOOLS, input=[HI, call, {**result, "call_id": "a"}])
    assert plain(request)[-1] == {"type": "function_call_output", "call_id": "a", "output": output}


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"type": "custom", "name": "patch"}, "patch"),
        ({"type": "function", "name": "get", "namespace": "mcp__w"}, "mcp__w__get"),
        ({"type": "shell"}, "shell"),
        ({"type": "apply_patch"}, "apply_patch"),
    ],
)
def test_choices(choice: dict[str, Any], name: str) -> None:
    assert asked(tools=TOOLS, tool_choice=choice).tool_choice.name == name
    allowed = asked(tools=TOOLS, tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [choice]})
    assert allowed.tool_choice.tools == [{"type": "function", "name": name}]


def test_mistakes_are_named() -> None:
    for body, words in (
        ({"tools": [{"type": "custom"}]}, r"tools\[0\]\.name"),
        ({"tools": [{"name": "f"}]}, r"tools\[0\]\.type"),
        ({"input": [HI, {"type": "custom_tool_call", "call_id": "a", "name": "x"}]}, r"input\[1\]\.input"),
        ({"tools": [{"type": "namespace", "name": "a", "tools": [5]}]}, r"tools\[0\]\.tools"),
        ({"input": [{"type": "additional_tools", "tools": 5}]}, r"input\[0\]\.tools"),
        ({"input": [{"type": "additional_tools", "tools": [5]}]}, r"input\[0\]\.tools"),
        ({"input": [{"type": "function_call_output", "call_id": "a", "output": [5]}]}, r"input\[0\]\.output"),
    ):
        with pytest.raises((ValueError, seams.load().ValidationError), match=words):
            asked(**body)


@pytest.mark.parametrize("body", [{"tools": "x"}, {"tools": [5]}, {"input": 5}, {"input": [5]}, {"input": None}])
def test_what_vllm_itself_refuses(body: dict[str, Any]) -> None:
    with pytest.raises((ValueError, seams.load().ValidationError), match=next(iter(body))):
        asked(**body)


def test_a_request_that_was_made_of_vllms_own_class() -> None:
    """As programs make it that imported the class before the plugin was loaded."""
    own = type(responses()).__mro__[1].model_validate({"model": "m", "input": [HI], "tools": [GET, NAMESPACE]})
    request = as_asked(own)
    assert list(tool_names(request.tools)) == ["get", "mcp__w__get"]
    assert request.request_id == own.request_id
    assert as_asked(request) is request


def test_translating_twice_changes_nothing() -> None:
    once, _ = translated({"model": "m", "input": [HI], "tools": TOOLS})
    assert translated(once)[0] == once


CALLS = [
    ("patch", '{"input": "a patch"}', {"type": "custom_tool_call", "name": "patch", "input": "a patch"}),
    ("get", "{}", {"type": "function_call", "name": "get", "arguments": "{}"}),
    ("mcp__w__get", "{}", {"type": "function_call", "name": "get", "namespace": "mcp__w", "arguments": "{}"}),
    ("made_up", "{}", {"type": "function_call", "name": "made_up", "arguments": "{}"}),
    (
        "tool_search",
        '{"query": "x"}',
        {"type": "tool_search_call", "execution": "client", "arguments": {"query": "x"}},
    ),
    ("local_shell", '{"command": ["ls"]}', {"type": "local_shell_call"}),
    ("shell", '{"commands": ["ls"]}', {"type": "shell_call"}),
    ("apply_patch", '{"type": "delete_file", "path": "a"}', {"type": "apply_patch_call"}),
    ("shell", "no JSON", {"type": "function_call", "name": "shell", "arguments": "no JSON"}),
]


def called(name: str, arguments: str, status: str = "completed") -> Any:
    return ResponseFunctionToolCall(
        type="function_call", id="fc_1", call_id="call_1", name=name, arguments=arguments, status=status
    )


def response(request: Any, *output: Any) -> Any:
    from vllm.entrypoints.openai.responses.protocol import ResponsesResponse
    from vllm.sampling_params import SamplingParams

    made = {"request": request, "model_name": "m", "created_time": 0, "status": "completed"}
    return ResponsesResponse.from_request(
        sampling_params=SamplingParams(temperature=1.0, max_tokens=1), output=list(output), **made
    )


@pytest.mark.parametrize(("name", "arguments", "wanted"), CALLS, ids=[f"{name} {a}" for name, a, _ in CALLS])
def test_calls_come_back(name: str, arguments: str, wanted: dict[str, Any]) -> None:
    """Whole and streamed: the same item, with the same id; and vLLM can write it."""
    request = asked(tools=TOOLS)
    stored = response(request, called(name, arguments))
    told = shown(stored, toolbox_of(request))
    assert stored.output[0].name == name, "vLLM goes on from what it stored"
    assert shown(told, toolbox_of(request)).output == told.output
    (item,) = told.model_dump(mode="json", by_alias=True, exclude_none=True)["output"]
    assert {field: item.get(field) for field in wanted} == wanted
    assert item["call_id"] == "call_1"
    assert [tool["type"] for tool in told.model_dump()["tools"]] == [tool["type"] for tool in TOOLS]

    events = streamed(toolbox_of(request), name, arguments)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    added, done = (
        next(event for event in events if event["type"] == f"response.output_item.{what}") for what in ("added", "done")
    )
    assert done["item"] == item
    assert added["item"]["id"] == item["id"]
    assert added["item"]["type"] == item["type"]
    kinds = [event["type"].removeprefix("response.") for event in events[1:]]
    delta, end = {
        "function_call": ("function_call_arguments.delta", "function_call_arguments.done"),
        "custom_tool_call": ("custom_tool_call_input.delta", "custom_tool_call_input.done"),
    }.get(item["type"], (None, None))
    middle = [kind for kind in kinds if not kind.startswith("output_item")]
    assert set(middle) <= {delta, end}
    assert middle[-1:] == ([end] if end else [])
    told_text = "".join(event.get("delta", "") for event in events[1:])
    assert told_text in ("", item.get("input") or item.get("arguments"))


def streamed(toolbox: Any, name: str, arguments: str) -> list[dict[str, Any]]:
    """What a client gets of vLLM's events of a call; a text's in front of it."""
    place = {"item_id": "fc_1", "output_index": 1, "sequence_number": -1}
    item = {"output_index": 1, "sequence_number": -1}
    text = ResponseTextDeltaEvent(
        type="response.output_text.delta",
        item_id="msg",
        output_index=0,
        content_index=0,
        delta="a",
        logprobs=[],
        sequence_number=0,
    )
    whole = {"name": name, "arguments": arguments}
    half = len(arguments) // 2
    told = [
        ResponseOutputItemAddedEvent(type="response.output_item.added", item=called(name, "", "in_progress"), **item),
        *(
            ResponseFunctionCallArgumentsDeltaEvent(type="response.function_call_arguments.delta", delta=part, **place)
            for part in (arguments[:half], arguments[half:])
        ),
        ResponseFunctionCallArgumentsDoneEvent(type="response.function_call_arguments.done", **place, **whole),
        ResponseOutputItemDoneEvent(type="response.output_item.done", item=called(name, arguments), **item),
    ]
    calls = Calls(toolbox)
    return [
        each.model_dump(mode="json", by_alias=True, exclude_none=True)
        for event in (text, *told)
        for each in calls.show(event)
    ]
