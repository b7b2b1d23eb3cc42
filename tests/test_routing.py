"""SPEC section 4, row by row: which field a message goes to."""

from __future__ import annotations

import pytest

from feeding import codes, feed, fields, split, texts
from harmony_plugin import Options
from harmony_plugin.core.header import Header
from harmony_plugin.core.routing import Route, Router, tool_names

CHANNELS = ("analysis", "commentary", "final")
CHAT_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
RESPONSES_TOOL = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}


# recipient functions.NAME, any channel


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("tools", [None, [], ["get_weather"], ["other"]])
def test_functions_recipient_is_a_call_on_any_channel(channel: str, tools: list[str] | None) -> None:
    reply = split(f'<|channel|>{channel} to=functions.get_weather<|message|>{{"a":1}}<|call|>', tools=tools)
    assert fields(reply) == (None, None, [("get_weather", '{"a":1}')])
    assert reply.issues == ()


def test_functions_recipient_is_a_call_without_a_channel() -> None:
    assert fields(split(" to=functions.f<|message|>{}<|call|>")) == (None, None, [("f", "{}")])


def test_functions_prefix_alone_is_taken_off_the_name() -> None:
    reply = split("<|channel|>commentary to=functions.database.run<|message|>{}<|call|>")
    assert fields(reply) == (None, None, [("database.run", "{}")])
    assert reply.messages[0].recipient == "functions.database.run"


def test_functions_recipient_wins_over_a_builtin_of_that_name() -> None:
    assert fields(split("<|channel|>analysis to=functions.python<|message|>{}<|call|>"))[2] == [("python", "{}")]


# recipient equal to a declared tool's name


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("recipient", ["get_weather", "functions.get_weather", "mcp.get_weather", "a.b.get_weather"])
def test_declared_tool_with_or_without_a_namespace_is_a_call(channel: str, recipient: str) -> None:
    reply = split(f"<|channel|>{channel} to={recipient}<|message|>{{}}<|call|>", tools=["get_weather"])
    assert fields(reply) == (None, None, [("get_weather", "{}")])


def test_declared_tool_whose_name_has_a_namespace_keeps_it() -> None:
    reply = split("<|channel|>commentary to=mcp.search<|message|>{}<|call|>", tools=["mcp.search", "search"])
    assert fields(reply)[2] == [("mcp.search", "{}")]


def test_declared_tool_with_the_functions_prefix_in_its_own_name_keeps_it() -> None:
    reply = split("<|channel|>commentary to=functions.f<|message|>{}<|call|>", tools=["functions.f"])
    assert fields(reply)[2] == [("functions.f", "{}")]


@pytest.mark.parametrize("name", ["python", "browser.search", "container.exec"])
def test_declared_builtin_is_a_call(name: str) -> None:
    assert fields(split(f"<|channel|>analysis to={name}<|message|>{{}}<|call|>", tools=[name]))[2] == [(name, "{}")]


@pytest.mark.parametrize("tools", [[CHAT_TOOL], (RESPONSES_TOOL,), ["get_weather"], iter([CHAT_TOOL])])
def test_tools_in_every_shape(tools: object) -> None:
    total, _ = feed(["<|channel|>commentary to=get_weather<|message|>{}<|call|>"], tools=tools)
    assert total.fields == (None, None, [("get_weather", "{}")])


def test_tool_names() -> None:
    assert tool_names(None) is None
    assert tool_names([]) == ()
    hosted = {"type": "web_search"}
    broken = {"type": "function", "function": {"name": None}}
    assert tool_names([CHAT_TOOL, RESPONSES_TOOL, "g", "g", hosted, broken, ""]) == ("get_weather", "g")
    for wrong in ("get_weather", b"f", {"name": "f"}, [1]):
        with pytest.raises(TypeError, match="tools"):
            tool_names(wrong)  # type: ignore[arg-type]


# built-ins that are not declared

BUILTINS = ("python", "browser", "browser.search", "browser.open", "container", "container.exec")


HIDE = Options(builtin_tools="hide")
#: No tools are offered, or nobody knows, or the settings say so.
HIDDEN = [(None, Options()), ([], Options()), (["get_weather"], HIDE), (None, HIDE), ([], HIDE)]


@pytest.mark.parametrize(("tools", "options"), HIDDEN)
@pytest.mark.parametrize("recipient", BUILTINS)
def test_builtin_on_analysis_is_reasoning(recipient: str, tools: list[str] | None, options: Options) -> None:
    reply = split(f"<|channel|>analysis to={recipient} code<|message|>print(1)<|call|>", tools=tools, options=options)
    assert fields(reply) == ("print(1)", None, [])
    assert reply.finish_reason() == "stop"


@pytest.mark.parametrize(("tools", "options"), HIDDEN)
@pytest.mark.parametrize("recipient", BUILTINS)
@pytest.mark.parametrize("channel", ["commentary", "final"])
def test_builtin_elsewhere_goes_to_an_issue_only(
    channel: str, recipient: str, tools: list[str] | None, options: Options
) -> None:
    reply = split(f"<|channel|>{channel} to={recipient} code<|message|>print(1)<|call|>", tools=tools, options=options)
    assert fields(reply) == (None, None, [])
    assert texts(reply, "builtin_tool") == ["print(1)"]


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("recipient", BUILTINS)
def test_builtin_is_a_call_where_tools_are_offered(channel: str, recipient: str) -> None:
    # The agent answers that there is no such tool, and the model goes on; an empty turn would end it.
    raw = f'<|channel|>{channel} to={recipient} code<|message|>{{"cmd":["ls"]}}<|call|>'
    reply = split(raw, tools=["Bash", "Read"])
    assert fields(reply) == (None, None, [(recipient, '{"cmd":["ls"]}')])
    assert reply.finish_reason() == "tool_calls"


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("recipient", BUILTINS)
def test_builtin_is_a_call_where_the_host_runs_it(channel: str, recipient: str) -> None:
    options = Options(builtin_tools="tool_calls")
    reply = split(f'<|channel|>{channel} to={recipient}<|message|>{{"q":1}}<|call|>', options=options)
    assert fields(reply) == (None, None, [(recipient, '{"q":1}')])


def test_python_has_no_functions_of_its_own() -> None:
    assert fields(split("<|channel|>commentary to=python.run<|message|>{}<|call|>"))[2] == [("python.run", "{}")]


def test_builtin_is_the_whole_name() -> None:
    for name in ("pythonic", "browsers", "container_x"):
        assert fields(split(f"<|channel|>commentary to={name}<|message|>{{}}<|call|>"))[2] == [(name, "{}")]


# other recipients


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("tools", [None, ["get_weather"]])
def test_other_recipient_is_a_call_as_it_stands(channel: str, tools: list[str] | None) -> None:
    reply = split(f"<|channel|>{channel} to=mcp.lookup<|message|>{{}}<|call|>", tools=tools)
    assert fields(reply) == (None, None, [("mcp.lookup", "{}")])


@pytest.mark.parametrize("channel", ["commentary", "final"])
def test_other_recipient_is_content_where_no_tools_are_offered(channel: str) -> None:
    reply = split(f'<|channel|>{channel} to=ms_output <|constrain|>json<|message|>{{"a":1}}<|end|>', tools=[])
    assert fields(reply) == (None, '{"a":1}', [])


def test_other_recipient_on_analysis_never_reaches_content() -> None:
    # Promise 3 decides against the row: analysis text never reaches content.
    assert fields(split("<|channel|>analysis to=x<|message|>hm<|end|>", tools=[])) == ("hm", None, [])


# recipient assistant, and all


def test_recipient_assistant_on_commentary_is_reasoning() -> None:
    for raw in (
        "<|channel|>commentary to=assistant<|message|>x<|end|>",
        " to=assistant<|channel|>commentary<|message|>x",
    ):
        reply = split(raw)
        assert fields(reply) == ("x", None, [])
        assert reply.messages[0].recipient == "assistant"


def test_recipient_assistant_elsewhere_is_no_recipient() -> None:
    assert fields(split("<|channel|>analysis to=assistant<|message|>x<|end|>")) == ("x", None, [])
    assert fields(split("<|channel|>final to=assistant<|message|>x<|end|>")) == (None, "x", [])
    assert fields(split(" to=assistant<|message|>x<|end|>")) == (None, "x", [])


def test_recipient_all_is_no_recipient() -> None:
    assert fields(split("<|channel|>analysis to=all<|message|>x<|end|>")) == ("x", None, [])
    assert fields(split("<|channel|>commentary to=all<|message|>x<|end|>")) == (None, "x", [])
    assert fields(split("<|channel|>final to=all<|message|>x<|end|>")) == (None, "x", [])


# channels


def test_analysis_is_reasoning() -> None:
    reply = split("<|channel|>analysis<|message|>x<|end|>")
    assert fields(reply) == ("x", None, [])
    assert reply.issues == ()


def test_final_is_content() -> None:
    reply = split("<|channel|>final<|message|>x<|return|>")
    assert fields(reply) == (None, "x", [])
    assert reply.issues == ()


@pytest.mark.parametrize(
    ("commentary", "expected"),
    [("content", (None, "x", [])), ("reasoning", ("x", None, [])), ("drop", (None, None, []))],
)
def test_preamble_goes_as_the_setting_says(commentary: str, expected: object) -> None:
    reply = split("<|channel|>commentary<|message|>x<|end|>", options=Options(commentary=commentary))  # type: ignore[arg-type]
    assert fields(reply) == expected
    assert texts(reply, "dropped_text") == (["x"] if commentary == "drop" else [])


def test_preamble_setting_leaves_calls_alone() -> None:
    reply = split("<|channel|>commentary to=functions.f<|message|>{}<|call|>", options=Options(commentary="drop"))
    assert fields(reply) == (None, None, [("f", "{}")])


def test_no_channel_is_content() -> None:
    reply = split("<|message|>x<|return|>")
    assert fields(reply) == (None, "x", [])
    assert reply.messages[0].channel is None


@pytest.mark.parametrize(
    ("target", "expected"), [("content", (None, "x", [])), ("reasoning", ("x", None, [])), ("drop", (None, None, []))]
)
@pytest.mark.parametrize("name", ["critique", "thinking", "finale", "re-view"])
def test_custom_channel_goes_as_the_settings_say(name: str, target: str, expected: object) -> None:
    options = Options(channels={name: target})  # type: ignore[dict-item]
    reply = split(f"<|channel|>{name}<|message|>x<|end|>", options=options)
    assert fields(reply) == expected
    assert reply.messages[0].channel == name
    assert codes(reply) == (["dropped_text"] if target == "drop" else [])


def test_custom_channel_may_be_a_known_one() -> None:
    reply = split("<|channel|>final<|message|>x<|end|>", options=Options(channels={"final": "reasoning"}))
    assert fields(reply) == ("x", None, [])


@pytest.mark.parametrize("name", ["thinking", "thought", "reasoning"])
def test_synonym_of_analysis_is_reasoning_with_an_issue(name: str) -> None:
    reply = split(f"<|channel|>{name}<|message|>x<|end|>")
    assert fields(reply) == ("x", None, [])
    assert texts(reply, "misspelled_channel") == [name]
    assert reply.messages[0].channel == name  # the message is what the Harmony library finds


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        *((word, ("x", None, [])) for word in ("analysi", "anlysis", "analysiss", "Analysis", "anaylsis", "annalysis")),
        *((word, (None, "x", [])) for word in ("finale", "fina", "fnal", "Final", "finnal", "finals", "comentary")),
        *((word, (None, "x", [])) for word in ("commentry", "commentaryy", "Commentary", "commentarys")),
    ],
)
def test_misspelled_channel_is_the_channel_meant_with_an_issue(written: str, expected: object) -> None:
    reply = split(f"<|channel|>{written}<|message|>x<|end|>")
    assert fields(reply) == expected
    assert texts(reply, "misspelled_channel") == [written]
    assert reply.messages[0].channel == written
    assert reply.messages[0].content_type is None


def test_misspelled_commentary_is_a_preamble() -> None:
    reply = split("<|channel|>comentary<|message|>x<|end|>", options=Options(commentary="reasoning"))
    assert fields(reply) == ("x", None, [])


@pytest.mark.parametrize("name", ["critique", "output", "ab"])
def test_unknown_channel_is_content_with_an_issue(name: str) -> None:
    reply = split(f"<|channel|>{name}<|message|>x<|end|>")
    assert fields(reply) == (None, "x", [])
    assert texts(reply, "unknown_channel") == [name]
    assert reply.messages[0].channel == name


# roles


@pytest.mark.parametrize("role", ["user", "system", "developer", "tool"])
@pytest.mark.parametrize("channel", ["", "<|channel|>final", "<|channel|>analysis"])
def test_foreign_role_goes_to_an_issue_only(role: str, channel: str) -> None:
    reply = split(f"<|channel|>final<|message|>a<|end|><|start|>{role}{channel}<|message|>forged<|end|>")
    assert fields(reply) == (None, "a", [])
    assert texts(reply, "foreign_role") == ["forged"]
    assert reply.messages[1].role == role


def test_foreign_role_with_a_recipient_is_no_call() -> None:
    reply = split("<|start|>user to=functions.f<|channel|>commentary<|message|>{}<|call|>")
    assert fields(reply) == (None, None, [])
    assert texts(reply, "foreign_role") == ["{}"]


SWAPPED = '<|start|>{} to=assistant<|channel|>commentary<|message|>{{"a":1}}<|end|>'


@pytest.mark.parametrize("author", ["get_weather", "functions.get_weather"])
def test_swapped_author_and_recipient_is_a_call(author: str) -> None:
    reply = split(SWAPPED.format(author), tools=["get_weather"])
    assert fields(reply) == (None, None, [("get_weather", '{"a":1}')])
    assert codes(reply) == ["swapped_call"]


def test_swapped_call_needs_no_declaration_with_the_functions_prefix() -> None:
    assert fields(split(SWAPPED.format("functions.f")))[2] == [("f", '{"a":1}')]


def test_swapped_name_that_nobody_declared_is_a_foreign_role() -> None:
    reply = split(SWAPPED.format("get_weather"), tools=["other"])
    assert fields(reply) == (None, None, [])
    assert texts(reply, "foreign_role") == ['{"a":1}']


def test_tool_result_after_its_call_is_no_call() -> None:
    call = "<|channel|>commentary to=functions.f<|message|>{}<|call|>"
    reply = split(call + SWAPPED.format("functions.f"))
    assert fields(reply)[2] == [("f", "{}")]
    assert texts(reply, "foreign_role") == ['{"a":1}']


def test_one_result_to_one_call() -> None:
    call = "<|channel|>commentary to=functions.f<|message|>{}<|call|>"
    reply = split(call + SWAPPED.format("functions.f") + SWAPPED.format("functions.f"))
    assert fields(reply)[2] == [("f", "{}"), ("f", '{"a":1}')]


# tool_choice none


@pytest.mark.parametrize("recipient", ["functions.f", "get_weather", "mcp.x"])
def test_tool_choice_none_drops_calls_with_an_issue(recipient: str) -> None:
    raw = f'<|channel|>commentary to={recipient}<|message|>{{"a":1}}<|call|><|channel|>final<|message|>ok'
    reply = split(raw, tools=["get_weather"], options=Options(tool_choice="none"))
    assert fields(reply) == (None, "ok", [])
    assert texts(reply, "dropped_call") == ['{"a":1}']
    assert reply.finish_reason() == "stop"


def test_tool_choice_none_drops_builtin_calls_too() -> None:
    options = Options(tool_choice="none", builtin_tools="tool_calls")
    reply = split("<|channel|>commentary to=python<|message|>1<|call|>", options=options)
    assert fields(reply) == (None, None, [])
    assert texts(reply, "dropped_call") == ["1"]


def test_tool_choice_none_drops_swapped_calls_too() -> None:
    reply = split(SWAPPED.format("functions.f"), options=Options(tool_choice="none"))
    assert fields(reply) == (None, None, [])
    assert texts(reply, "dropped_call") == ['{"a":1}']


def test_router_alone() -> None:
    router = Router(("get_weather",), Options())
    assert router.route(Header(channel="final", known=True)) == Route("content")
    assert router.declared("ns.get_weather") == "get_weather"
    assert router.declared("get_weather:") == "get_weather"
    assert router.declared("get_weather_now") is None
