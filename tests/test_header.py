"""SPEC sections 3 and 5: what a header says, well-formed or not. Where it ends: test_machine."""

from __future__ import annotations

from typing import Any

import pytest

from feeding import codes, fields, split, texts
from harmony_plugin import parse
from harmony_plugin.core.header import Header, body_behind, could_become_header, is_filler, read_header, spellings
from harmony_plugin.core.tokens import CHANNEL, CONSTRAIN, KIND_OF, START

ARGUMENTS = '{"a":1}'


def call(header: str, tools: list[str] | None = None) -> tuple[list[str], list[str | None], list[str]]:
    """Names of the calls, the message's channel, recipient and content type, and issue codes, of a header."""
    reply = split(f"{header}<|message|>{ARGUMENTS}<|call|>", tools=tools)
    assert all(call.arguments == ARGUMENTS for call in reply.tool_calls)
    assert reply.tool_calls or ARGUMENTS in (reply.content, reply.reasoning_content)
    _, channel, recipient, content_type, _, _ = reply.messages[0]
    return [call.name for call in reply.tool_calls], [channel, recipient, content_type], codes(reply)


# Section 3: every spelling of a well-formed header


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (" to=functions.f<|channel|>commentary<|constrain|>json", ["commentary", "functions.f", "<|constrain|>json"]),
        (" to=functions.f<|channel|>commentary <|constrain|>json", ["commentary", "functions.f", "<|constrain|>json"]),
        (" to=functions.f<|channel|>commentary json", ["commentary", "functions.f", "json"]),
        (" to=functions.f<|channel|>analysis code", ["analysis", "functions.f", "code"]),
        (" to=functions.f<|channel|>commentary", ["commentary", "functions.f", None]),
        (" to=functions.f code", [None, "functions.f", "code"]),
        (" to=functions.f", [None, "functions.f", None]),
        ("<|channel|>commentary to=functions.f<|constrain|>json", ["commentary", "functions.f", "<|constrain|>json"]),
        ("<|channel|>commentary to=functions.f <|constrain|>json", ["commentary", "functions.f", "<|constrain|>json"]),
        ("<|channel|>commentary to=functions.f json", ["commentary", "functions.f", "json"]),
        ("<|channel|>commentary to=functions.f text/plain", ["commentary", "functions.f", "text/plain"]),
        ("<|channel|>commentary   to=functions.f", ["commentary", "functions.f", None]),
        ("<|channel|>commentary\nto=functions.f", ["commentary", "functions.f", None]),
        ("<|channel|>analysis to=functions.f code", ["analysis", "functions.f", "code"]),
        ("<|channel|>final to=functions.f", ["final", "functions.f", None]),
    ],
)
@pytest.mark.parametrize("begin", ["", "<|start|>assistant"])
def test_well_formed_header(begin: str, header: str, expected: list[str | None]) -> None:
    assert call(begin + header) == (["f"], expected, [])


@pytest.mark.parametrize(
    ("header", "content_type"),
    [
        ("<|channel|>final <|constrain|>json", "<|constrain|>json"),
        ("<|channel|>final<|constrain|>json", "<|constrain|>json"),
        ("<|channel|>final json", "json"),
        ("<|channel|>commentary json", "json"),
        ("<|channel|>commentary code", "code"),
    ],
)
def test_content_type_is_never_a_recipient(header: str, content_type: str) -> None:
    # The Harmony library takes these types for the recipient: SPEC decides.
    names, (_, recipient, found), issues = call(header)
    assert (names, recipient, found, issues) == ([], None, content_type, [])


@pytest.mark.parametrize("header", ["<|channel|>commentary to=json", " to=code<|channel|>commentary"])
def test_content_type_in_a_to_clause_is_no_recipient(header: str) -> None:
    names, (_, recipient, found), issues = call(header)
    assert (names, recipient) == ([], None)
    assert found in ("json", "code")
    assert issues == ["misplaced_recipient"]


def test_tool_that_is_called_like_a_content_type_is_a_recipient() -> None:
    assert call("<|channel|>commentary to=json", tools=["json"])[0] == ["json"]


# Several <|channel|> clauses


@pytest.mark.parametrize(
    ("header", "channel"),
    [
        ("<|channel|>analysis<|channel|>final", "final"),
        ("<|channel|>final<|channel|>analysis", "analysis"),
        ("<|channel|>final<|channel|>", "final"),
        ("<|channel|><|channel|>final", "final"),
        ("<|channel|>final<|channel|>whatever", "final"),
        ("<|channel|>whatever<|channel|>final", "final"),
        ("<|channel|>analysis<|channel|>final<|channel|>x<|channel|> ", "final"),
        ("<|channel|>final<|channel|>json", "final"),
    ],
)
def test_last_non_empty_known_channel_counts(header: str, channel: str) -> None:
    reply = split(f"{header}<|message|>x<|end|>")
    assert fields(reply) == (("x", None, []) if channel == "analysis" else (None, "x", []))
    assert reply.messages[0].channel == channel
    if header.count("<|channel|>final") + header.count("analysis") > 1:
        assert "repeated_channel" in codes(reply)


def test_no_channel_in_any_clause() -> None:
    reply = split("<|channel|><|message|>x<|end|>")
    assert fields(reply) == (None, "x", [])
    assert codes(reply) == ["unknown_channel"]


# Several to= clauses, or words glued to one


@pytest.mark.parametrize(
    "header",
    [
        "<|channel|>commentary to=functions.f to=functions.g",
        " to=functions.f<|channel|>commentary to=functions.g",
        " to=functions.f<|channel|>commentary to=assistant",
        " to=assistant<|channel|>commentary to=functions.f",
        "<|channel|>commentary to=assistant to=functions.f",
        "<|channel|>commentary to=all to=functions.f",
    ],
)
def test_first_recipient_that_is_not_assistant_counts(header: str) -> None:
    names, (_, recipient, _), issues = call(header)
    assert (names, recipient) == (["f"], "functions.f")
    assert issues == ["repeated_recipient"]


@pytest.mark.parametrize("glued", ["<", ">{}", "(x)", '"', ",x", "{", "!", "–", "…", "**", "？", "$x", "\\n"])
def test_recipient_ends_at_a_character_no_name_has(glued: str) -> None:
    names, (_, recipient, _), issues = call(f"<|channel|>commentary to=functions.f{glued}")
    assert (names, recipient) == (["f"], "functions.f")
    assert issues == ["header_words"]


@pytest.mark.parametrize("space", [" ", "\n", "\t", "\u00a0", "\u3000"])
def test_recipient_ends_at_white_space(space: str) -> None:
    assert call(f"<|channel|>commentary to=functions.f{space}json") == (
        ["f"],
        ["commentary", "functions.f", "json"],
        [],
    )


@pytest.mark.parametrize("marker", ["<|channel|>commentary", "<|constrain|>json", "<|channel|>"])
def test_recipient_ends_at_a_marker(marker: str) -> None:
    assert call(f"<|channel|>commentary to=functions.f{marker}")[0] == ["f"]


@pytest.mark.parametrize(
    "name", ["f", "F_1", "a-b", "a.b", "a/b", "a:b", "wetter_für_münchen", "天気", "погода", "हिन्दी"]
)
def test_names_of_any_script(name: str) -> None:
    assert call(f"<|channel|>commentary to=functions.{name}")[0] == [name]


@pytest.mark.parametrize("name", ["get weather", "f(x)", "naïve+", "c++", "a,b", "say hello world"])
@pytest.mark.parametrize("prefix", ["", "functions."])
def test_declared_tool_is_recognised_by_its_whole_name(prefix: str, name: str) -> None:
    assert call(f"<|channel|>commentary to={prefix}{name} <|constrain|>json", tools=[name])[0] == [name]
    assert call(f" to={prefix}{name}<|channel|>commentary", tools=["get", name])[0] == [name]


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("shelljson", "shell"),
        ("shellcode", "shell"),
        ("shell天天中彩票能json", "shell"),
        ("shelljson天天", "shell"),
        ("saveAnswer天天中彩票能json", "saveAnswer"),
        ("shellцҳауеит", "shell"),
        ("поиск_1json", "поиск_1"),
        ("поискabc", "поиск"),
        ("获取の", "获取"),
        ("srv.shelljson", "shell"),
    ],
)
@pytest.mark.parametrize("prefix", ["to=", "to=functions.", "functions.", "to=functions "])
def test_a_type_or_another_script_glued_to_a_declared_name(prefix: str, name: str, tool: str) -> None:
    tools = ["shell", "saveAnswer", "поиск_1", "поиск", "获取", "she"]
    names, _, issues = call(f"<|channel|>commentary {prefix}{name}", tools=tools)
    assert names == [tool]
    assert {"header_words", "misplaced_recipient"} & set(issues) or name.endswith(("json", "code", "abc"))
    assert call(f"<|channel|>commentary {prefix}{name}")[0] != [tool]  # nobody declared it


@pytest.mark.parametrize("name", ["shells", "shell2", "shell_json", "shell.json", "jsonshell", "shelljsonx", "shel"])
def test_what_is_glued_to_a_declared_name_is_another_name_else(name: str) -> None:
    assert call(f"<|channel|>commentary to=functions.{name}", tools=["shell"])[0] == [name]
    assert call(f"<|channel|>commentary to=functions.{name}", tools=["shell", name])[0] == [name]


def test_a_declared_name_that_is_itself_like_one_glued() -> None:
    assert call("<|channel|>commentary to=functions.shelljson", tools=["shell", "shelljson"])[0] == ["shelljson"]


@pytest.mark.parametrize(
    ("author", "tools", "name"),
    [
        ("functions.f??ddb", None, "f"),
        ("functions.f", None, "f"),
        ("functions.f{}", None, "f"),
        ("functions f", None, "f"),
        ("functions.shelljson", ["shell"], "shell"),
        ("shell天天", ["shell"], "shell"),
        ("get weather", ["get weather"], "get weather"),
        ("functions.get weather", ["get weather"], "get weather"),
    ],
)
def test_an_author_that_stands_for_a_recipient_is_read_by_the_rules_of_names(
    author: str, tools: list[str] | None, name: str
) -> None:
    reply = split(f"<|start|>{author} to=assistant<|channel|>commentary<|message|>x<|call|>", tools=tools)
    assert fields(reply) == (None, None, [(name, "x")])
    rest = author.removeprefix("functions.").removeprefix("functions ").removeprefix(name).removesuffix("json")
    assert texts(reply, "header_words") == ([rest] if rest else [])


def test_a_declared_name_in_the_channel_clause_with_a_type_glued_to_it() -> None:
    assert call("<|channel|>shelljson", tools=["shell"])[:2] == (["shell"], [None, "shell", "json"])


def test_to_inside_other_words_is_no_recipient_unless_it_names_a_function() -> None:
    header = "<|channel|>final see?from=eur&to=usd"
    assert call(header)[1] == ["final", None, None]
    assert call(header, tools=["usd"])[0] == ["usd"]
    assert call("<|channel|>commentary x?to=functions.f")[0] == ["f"]
    assert call("<|channel|>commentary??to=python.run")[0] == ["python.run"]


def test_declared_tool_whose_name_holds_a_recipient() -> None:
    names, _, issues = call("<|channel|>commentary to=a to=b to=functions.c", tools=["a to=b"])
    assert (names, issues) == (["a to=b"], ["repeated_recipient"])


def test_declared_tool_whose_name_begins_another() -> None:
    assert call("<|channel|>commentary to=functions.get_weather_now", tools=["get_weather"])[0] == ["get_weather_now"]
    assert call("<|channel|>commentary to=get weather", tools=["get", "get weather"])[0] == ["get weather"]


@pytest.mark.parametrize("word", ["assistant", "commentary", "analysis", "final"])
def test_recipient_glued_to_a_word_of_the_format(word: str) -> None:
    begin = "<|start|>assistant" if word == "assistant" else f"<|channel|>{word}"
    assert call(f"{begin}to=functions.f")[0] == ["f"]


def test_to_inside_a_word_is_no_recipient() -> None:
    names, (_, recipient, _), _ = call("<|channel|>final xto=functions.f")
    assert (names, recipient) == ([], None)


def test_empty_to_clause() -> None:
    names, (_, recipient, _), issues = call("<|channel|>final to=")
    assert (names, recipient, issues) == ([], None, ["misplaced_recipient"])


# to=functions NAME


@pytest.mark.parametrize("header", ["<|channel|>commentary to=functions f", " to=functions f<|channel|>commentary"])
def test_to_functions_with_the_name_apart(header: str) -> None:
    names, (_, recipient, _), issues = call(header)
    assert (names, recipient, issues) == (["f"], "functions.f", ["misplaced_recipient"])


def test_to_functions_with_the_name_apart_and_a_type() -> None:
    assert call("<|channel|>commentary to=functions f <|constrain|>json")[1] == [
        "commentary",
        "functions.f",
        "<|constrain|>json",
    ]


@pytest.mark.parametrize("behind", [" json", " <|constrain|>json", "<|channel|>commentary"])
def test_to_functions_without_a_name(behind: str) -> None:
    names, (_, recipient, _), issues = call(f"<|channel|>commentary to=functions{behind}")
    assert (names, recipient) == (["functions"], "functions")
    assert "misplaced_recipient" not in issues


# functions.NAME in another clause


@pytest.mark.parametrize(
    "header",
    [
        "<|channel|>functions.f",
        "<|channel|>functions.f json",
        "<|channel|>functions.f<|channel|>commentary json",
        "<|channel|>commentary functions.f",
        "<|channel|>commentary <|constrain|>functions.f",
        "<|channel|>commentary<|constrain|>functions.f json",
        "<|constrain|>functions.f",
        " functions.f<|channel|>commentary",
    ],
)
def test_functions_name_in_another_clause_is_the_recipient(header: str) -> None:
    names, (_, recipient, _), issues = call(header)
    assert (names, recipient) == (["f"], "functions.f")
    assert "misplaced_recipient" in issues


@pytest.mark.parametrize("clause", ["<|channel|>functions.g", "<|constrain|>functions.g"])
def test_functions_name_in_another_clause_is_ignored_beside_a_recipient(clause: str) -> None:
    assert call(f"<|channel|>commentary to=functions.f{clause}")[0] == ["f"]


def test_declared_name_in_the_channel_clause_is_the_recipient() -> None:
    assert call("<|channel|>get_weather", tools=["get_weather"])[0] == ["get_weather"]


# Words before, between or after the clauses


@pytest.mark.parametrize(
    "header",
    [
        "<|channel|>final ??",
        "<|channel|>final –",
        "<|channel|>final |json",
        "<|channel|>final some more words",
        " 4-word description:<|channel|>final",
        " 4-word description:",
        "<|start|>assistant ??<|channel|>final",
        "<|channel|>final <|constrain|>??",
        "<|channel|>final <|constrain|>json and more",
    ],
)
def test_other_words_in_a_header_are_ignored_with_an_issue(header: str) -> None:
    reply = split(f"{header}<|message|>x<|end|>")
    assert fields(reply) == (None, "x", [])
    assert codes(reply) == ["header_words"]
    word = header.replace("json and", "and").split()[-1].removesuffix("<|channel|>final")
    assert word.rpartition(">")[2] in texts(reply, "header_words")[0]


@pytest.mark.parametrize(
    "header",
    [
        "<|channel|>commentary ––commentary to=functions.f <|constrain|>json",
        "<|channel|>commentary to=functions.f to=functions.f>{}</assistant<|channel|>commentary <|constrain|>json",
        "<|channel|>commentary to=functions.f <|constrain|>analysis json",
        "<|channel|>commentary?? to=functions.f",
        "<|channel|>commentary to=functions.f what is this",
    ],
)
def test_other_words_around_a_call_are_ignored_with_an_issue(header: str) -> None:
    names, _, issues = call(header)
    assert names == ["f"]
    assert "header_words" in issues


# The role


@pytest.mark.parametrize("role", ["assistantassistant", "assistant assistant", "assistantassistantassistant"])
def test_role_word_repeated_is_the_assistant(role: str) -> None:
    reply = split(f"<|start|>{role}<|channel|>final<|message|>x<|end|>")
    assert fields(reply) == (None, "x", [])
    assert reply.messages[0].role == "assistant"
    assert set(codes(reply)) == {"repeated_role"}


@pytest.mark.parametrize(
    ("channel", "expected"),
    [("analysis", ("x", None, [])), ("commentary", (None, "x", [])), ("final", (None, "x", []))],
)
@pytest.mark.parametrize("begin", ["", "<|start|>", "<|start|>assistant"])
def test_channel_word_in_the_place_of_the_role(begin: str, channel: str, expected: object) -> None:
    reply = split(f"{begin}{channel}<|message|>x<|end|>")
    assert fields(reply) == expected
    assert reply.messages[0].role == "assistant"
    assert reply.messages[0].channel == channel
    assert reply.issues


def test_channel_clause_counts_before_the_role_word() -> None:
    assert split("<|start|>commentary<|channel|>final<|message|>x").messages[0].channel == "final"


@pytest.mark.parametrize("role", ["asistant", "assistent", "Assistant"])
def test_misspelled_assistant_is_the_assistant(role: str) -> None:
    reply = split(f"<|start|>{role}<|channel|>final<|message|>x<|end|>")
    assert fields(reply) == (None, "x", [])
    assert texts(reply, "misspelled_role") == [role]


def test_no_role_at_all() -> None:
    reply = split("<|start|><|channel|>final<|message|>x<|end|>")
    assert fields(reply) == (None, "x", [])
    assert codes(reply) == ["missing_role"]


def test_role_word_in_the_channel_clause() -> None:
    reply = split("<|channel|>assistant final<|message|>x<|end|>")
    assert fields(reply) == (None, "x", [])
    assert reply.messages[0].channel == "final"


# The reader alone


def test_reader_is_a_pure_function_of_the_sections() -> None:
    sections = ((START, "assistant to=functions.f"), (CHANNEL, "commentary "), (CONSTRAIN, "json"))
    header = read_header(sections)
    assert header == Header(
        "assistant", None, "commentary", "functions.f", "<|constrain|>json", True, (), None, "commentary"
    )
    assert header.addressed
    assert not read_header(((START, "assistant"),)).addressed
    assert read_header(((START, ""), (CHANNEL, "critique")), "assistant", ("critique",)).known


@pytest.mark.parametrize("size", [1, 100, 512])
def test_hostile_headers_are_read_in_bounded_time(size: int) -> None:
    # No figure here; a header that took quadratic time in the number of clauses would still end at 512 characters.
    for piece in ("to=", "to=a ", "assistant", "functions ", "final", " ", "to=functions ", "a.", "́"):
        text = (piece * size)[:512]
        read_header(((START, text), (CHANNEL, text), (CONSTRAIN, text)), None, (), ("a", "functions.a"))


# What mutation testing found unwatched (docs/mutation.md): the reader's own answers, clause by clause.


@pytest.mark.parametrize(
    ("role", "clauses", "says"),
    [
        # The last word of the role section is the content type where there is a recipient.
        ("assistant to=functions.f xml", [], {"content_type": "xml"}),
        ("assistant to=functions.f foo bar", [], {"content_type": "bar", "issues": (("header_words", "foo"),)}),
        ("assistant foo", [], {"content_type": None, "issues": (("header_words", "foo"),)}),
        ("tool", [], {"role": "tool", "author": "tool"}),
        ("user", [], {"role": "user", "author": None}),
        ("assistant!", [], {"channel": None, "issues": (("header_words", "!"),)}),
        ("assistant.final", [], {"channel": None, "issues": (("header_words", ".final"),)}),
        ("assistant to=a to=b to=c", [], {"recipient": "a", "issues": (("repeated_recipient", "b c"),)}),
        ("assistant to=assistant to=all", [], {"recipient": "assistant"}),
        ("", [(CHANNEL, "commentary functions.f")], {"issues": (("misplaced_recipient", "functions.f"),)}),
        (
            "",
            [(CHANNEL, "commentary functions.f!x")],
            {"issues": (("misplaced_recipient", "functions.f"), ("header_words", "!x"))},
        ),
        (
            "",
            [(CHANNEL, "commentary functions.a functions.b")],
            {
                "recipient": "functions.a",
                "issues": (("misplaced_recipient", "functions.a"), ("header_words", "functions.b")),
            },
        ),
        ("", [(CHANNEL, "final json code")], {"content_type": "json", "issues": ()}),
        ("", [(CHANNEL, "final json code"), (CONSTRAIN, "json")], {"content_type": "<|constrain|>json", "issues": ()}),
        ("", [(CHANNEL, "final"), (CONSTRAIN, "xml")], {"content_type": "<|constrain|>xml", "issues": ()}),
        (
            "",
            [(CHANNEL, "final"), (CONSTRAIN, "json!")],
            {"content_type": "<|constrain|>json", "issues": (("header_words", "!"),)},
        ),
        *[("", [(CHANNEL, word)], {"channel": "final"}) for word in ("finalxx", "xxfinal", "finxxal", "fxnxl")],
        *[("", [(CHANNEL, word)], {"channel": word}) for word in ("xfinlz", "fxnxlz", "fi")],
    ],
)
def test_what_the_reader_says(role: str, clauses: list[tuple[int, str]], says: dict[str, object]) -> None:
    header = read_header(((START, role), *clauses), None if role else "assistant")
    assert {name: getattr(header, name) for name in says} == says


@pytest.mark.parametrize(
    ("sections", "before", "behind", "written"),
    [
        ([(START, ""), (CHANNEL, "analysis"), (CONSTRAIN, " json words")], "", "words", "analysis"),
        ([(START, ""), (CHANNEL, "analysis a "), (CHANNEL, "json b")], "", "a json b", "analysis"),
        ([(START, "one"), (CHANNEL, "analysis a")], "one", "a", "analysis"),
        ([(START, "analysis words"), (CONSTRAIN, " json x")], "", "words x", None),
        ([(START, "foo analysis bar")], "", "foo analysis bar", None),
        ([(START, ""), (CHANNEL, "finalHi")], "", "Hi", "final"),
        ([(START, ""), (CHANNEL, "finel Hi")], "", "Hi", "finel"),
    ],
)
def test_the_body_behind_a_header_without_message(
    sections: list[tuple[int, str]], before: str, behind: str, written: str | None
) -> None:
    body = body_behind(tuple(sections))
    assert (body.before, body.written) == (before, written)
    joined = "".join(text for _, text in sections)
    assert "".join(joined[begin:end] for begin, end in body.spans) == behind


def test_a_body_glued_to_its_channel_is_told_once() -> None:
    reply = split("<|channel|>finalHi<|end|>")
    assert (reply.content, reply.messages[0].channel, codes(reply)) == ("Hi", "final", ["missing_message"])
    assert codes(split("<|channel|>finel Hi<|end|>")) == ["missing_message", "misspelled_channel"]


@pytest.mark.parametrize(
    ("word", "opening", "could"),
    [
        ("as", False, True),
        ("as", True, False),
        ("ass", True, True),
        ("us", False, True),
        ("us", True, False),
        ("user t", False, True),
        ("user zzz", False, False),
        ("x user", False, False),
        ("functions.f", False, False),
        ("t", False, True),
        ("t", True, False),
        ("to", True, True),
        ("assistantt", False, True),
        ("assistanttofinal", False, False),
    ],
)
def test_role_sections_that_could_go_on(word: str, opening: bool, could: bool) -> None:
    assert could_become_header(((START, word),), opening) is could


@pytest.mark.parametrize(
    ("clauses", "could"),
    [
        ([(CHANNEL, "commentary functions.f")], True),
        ([(CHANNEL, "final json co")], True),
        ([(CHANNEL, "analysis t")], True),
        ([(CHANNEL, "analysis user")], False),
        ([(CHANNEL, "final"), (CONSTRAIN, "xml")], True),
        ([(CHANNEL, "final"), (CONSTRAIN, "] js")], False),
        ([(CHANNEL, "final"), (CONSTRAIN, "xml ]")], False),
    ],
)
def test_clauses_that_could_go_on(clauses: list[tuple[int, str]], could: bool) -> None:
    assert could_become_header(((START, "assistant"), *clauses), False) is could


SPELLINGS = [
    (said, sections)
    for said in (
        ("analysis", None, None),
        ("commentary", None, None),
        ("final", None, None),
        ("final", None, "json"),
        ("commentary", "functions.get_weather", "json"),
        ("analysis", "browser.search", "code"),
        ("commentary", "functions.f", None),
    )
    for sections in spellings(*said)
]


@pytest.mark.parametrize(("said", "sections"), SPELLINGS)
def test_what_models_write_is_read_as_what_they_say(
    said: tuple[Any, ...], sections: tuple[tuple[str, str], ...]
) -> None:
    header = read_header(tuple((KIND_OF[marker], text) for marker, text in sections), "assistant")
    channel, recipient, content_type = said
    assert header[:4] == ("assistant", None, channel, recipient)
    typed = content_type and any(content_type in text for _, text in sections)
    marked = "<|constrain|>" if sections[-1][0] == "constrain" else ""
    assert header.content_type == (f"{marked}{content_type}" if typed else None)
    assert (header.known, header.issues, header.wordy) == (True, (), False)


@pytest.mark.parametrize(("said", "sections"), SPELLINGS)
def test_what_models_write_could_become_a_header_wherever_it_is_cut(
    said: tuple[Any, ...], sections: tuple[tuple[str, str], ...]
) -> None:
    whole = tuple((KIND_OF[marker], text) for marker, text in sections)
    for number, (kind, text) in enumerate(whole):
        for size in range(len(text) + 1):
            cut = (*whole[:number], (kind, text[:size]))
            assert could_become_header(cut, False), cut
            # At the opening of a reply, one letter of a role section may be the beginning of anything.
            assert could_become_header(cut, True) or (number == 0 and size < 3), cut


def test_a_word_that_is_glued_to_a_header_word_at_the_end_is_not_lost() -> None:
    reply = split('final{"a": 1}')
    assert (reply.content, codes(reply)) == ('final{"a": 1}', ["loose_text"])


@pytest.mark.parametrize("before", ["<|channel|>final", "<|channel|>analysis", "assistant"])
@pytest.mark.parametrize("begun", ["<", "<|", "<|mess", "<|channel|"])
def test_a_marker_that_the_end_cut_off_is_no_text(before: str, begun: str) -> None:
    reply = parse(before + begun)
    assert (fields(reply), codes(reply)) == ((None, None, []), ["incomplete_header"])


@pytest.mark.parametrize("cut", ["comment", "ass", "fi", "f"])
def test_a_second_channel_that_the_end_cut_off_is_a_header(cut: str) -> None:
    assert codes(split(f"<|channel|>commentary to=functions.f<|channel|>{cut}"))[-1] == "incomplete_header"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("user", "loose_text"),
        ("syst", "loose_text"),
        ("<", "loose_text"),
        ("us<|constrain|>", "loose_text"),
        (" to t", "loose_text"),
    ],
)
def test_words_that_begin_a_reply_or_are_half_are_text(raw: str, code: str) -> None:
    assert codes(split(raw)) == [code]


def test_custom_channels_and_declared_tools_could_be_headers_too() -> None:
    clauses = ((START, "assistant"), (CHANNEL, "analysis"), (CHANNEL, "side"))
    assert could_become_header(clauses, False, ("side",))
    assert not could_become_header(clauses, False)
    assert codes(split("<|channel|>commentary to=get weather", tools=["get weather"])) == ["incomplete_header"]


def test_a_role_word_alone_is_filler_but_not_at_the_opening() -> None:
    assert is_filler(((START, "user"),), False)
    assert not is_filler(((START, "user"),), True)
    assert is_filler(((START, "assistantfinal"),), True)


def test_a_combining_mark_is_part_of_a_name_and_what_follows_is_not() -> None:
    assert call(" to=functions.cafe\u0301 json<|channel|>commentary")[0] == ["cafe\u0301"]
