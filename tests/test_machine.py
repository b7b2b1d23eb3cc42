"""SPEC section 5, row by row: where messages begin and end in malformed output. What a header says: test_header."""

from __future__ import annotations

import pytest

from feeding import Total, codes, encode, fields, split, texts
from harmony_plugin import Message, Options, Stream, parse

END_MARKERS = ("<|end|>", "<|call|>", "<|return|>", "<|endoftext|>")
FINAL = "<|start|>assistant<|channel|>final<|message|>"
ANALYSIS = "<|start|>assistant<|channel|>analysis<|message|>"


# Well-formed (section 3)


@pytest.mark.parametrize("marker", END_MARKERS)
@pytest.mark.parametrize("header", ["<|channel|>final", "<|channel|>analysis", "<|channel|>commentary to=functions.f"])
def test_any_end_marker_closes_any_message(header: str, marker: str) -> None:
    reply = split(f'{header}<|message|>{{"a":1}}{marker}')
    assert reply.issues == ()
    assert [(message.text, message.complete) for message in reply.messages] == [('{"a":1}', True)]


@pytest.mark.parametrize("marker", END_MARKERS)
def test_output_may_go_on_after_any_end_marker(marker: str) -> None:
    reply = split(f"<|channel|>final<|message|>a{marker}{FINAL}b{marker}")
    assert fields(reply) == (None, "a\nb", [])
    assert reply.issues == ()


def test_output_may_begin_with_start_itself() -> None:
    reply = split(f"{FINAL}a<|return|>")
    assert fields(reply) == (None, "a", [])
    assert reply.issues == ()


def test_well_formed_reply_has_no_issues_and_all_messages() -> None:
    reply = split(
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary<|message|>I look<|end|>"
        '<|start|>assistant to=functions.f<|channel|>commentary <|constrain|>json<|message|>{"a":1}<|call|>'
        f"{FINAL}ok<|return|>"
    )
    assert reply.messages == (
        Message("assistant", "analysis", None, None, "hm"),
        Message("assistant", "commentary", None, None, "I look"),
        Message("assistant", "commentary", "functions.f", "<|constrain|>json", '{"a":1}'),
        Message("assistant", "final", None, None, "ok"),
    )
    assert fields(reply) == ("hm", "I look\nok", [("f", '{"a":1}')])
    assert reply.issues == ()


def test_empty_output() -> None:
    reply = split("")
    assert (fields(reply), reply.messages, reply.issues) == ((None, None, []), (), ())


def test_empty_message_is_absent() -> None:
    reply = split("<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|><|return|>")
    assert fields(reply) == (None, None, [])
    assert [message.text for message in reply.messages] == ["", ""]


# A header is due, and <|channel|> or header words come without <|start|>


@pytest.mark.parametrize("header", ["<|channel|>final", "assistant<|channel|>final", "\n<|channel|>final"])
def test_start_and_assistant_left_out(header: str) -> None:
    reply = split(f"<|channel|>analysis<|message|>a<|end|>{header}<|message|>b<|return|>")
    assert fields(reply) == ("a", "b", [])
    assert codes(reply) == ["missing_start"]


def test_start_left_out_in_front_of_a_recipient() -> None:
    reply = split("<|channel|>analysis<|message|>a<|end|> to=functions.f<|channel|>commentary<|message|>{}<|call|>")
    assert fields(reply) == ("a", None, [("f", "{}")])
    assert codes(reply) == ["missing_start"]


def test_message_marker_alone_after_an_end() -> None:
    reply = split("<|channel|>final<|message|>a<|end|><|message|>b<|end|>")
    assert fields(reply) == (None, "a\nb", [])
    assert codes(reply) == ["missing_start"]


# <|start|> inside a body


def test_start_inside_a_body_closes_the_message() -> None:
    reply = split(f"<|channel|>analysis<|message|>hm{FINAL}ok<|return|>")
    assert fields(reply) == ("hm", "ok", [])
    assert codes(reply) == ["missing_end"]
    assert [message.complete for message in reply.messages] == [False, True]


def test_start_inside_arguments_closes_the_call() -> None:
    reply = split(f'<|channel|>commentary to=functions.f<|message|>{{"a":1}}{FINAL}ok<|return|>')
    assert fields(reply) == (None, "ok", [("f", '{"a":1}')])


# <|channel|> inside a body


def test_channel_inside_a_body_opens_a_header_of_the_same_role() -> None:
    reply = split("<|channel|>analysis<|message|>hm<|channel|>final<|message|>ok<|return|>")
    assert fields(reply) == ("hm", "ok", [])
    assert "missing_end" in codes(reply)
    assert [message.complete for message in reply.messages] == [False, True]


def test_channel_inside_a_foreign_body_keeps_the_foreign_role() -> None:
    reply = split("<|start|>user<|message|>a<|channel|>final<|message|>b<|end|>")
    assert fields(reply) == (None, None, [])
    assert texts(reply, "foreign_role") == ["a", "b"]
    assert [message.role for message in reply.messages] == ["user", "user"]


# <|message|> or <|constrain|> inside a body


@pytest.mark.parametrize("marker", ["<|message|>", "<|constrain|>"])
def test_message_or_constrain_inside_a_body_is_dropped(marker: str) -> None:
    reply = split(f"<|channel|>final<|message|>a{marker}b<|return|>")
    assert fields(reply) == (None, "ab", [])
    assert texts(reply, "stray_marker") == [marker]


# <|start|> inside a header


@pytest.mark.parametrize(
    ("abandoned", "issue"),
    [
        ("<|channel|>analysis", None),
        ("<|channel|>", None),
        ("<|channel|>commentary to=functions.f", "commentary to=functions.f"),
        (" to=functions.f<|channel|>commentary <|constrain|>json", " to=functions.fcommentary json"),
    ],
)
def test_start_inside_a_header_abandons_it(abandoned: str, issue: str | None) -> None:
    reply = split(f"{abandoned}{FINAL}ok<|return|>")
    assert fields(reply) == (None, "ok", [])
    assert codes(reply) == ["missing_message"]
    assert texts(reply, "missing_message") == [issue or ""]


def test_words_of_an_abandoned_header_are_loose_text() -> None:
    reply = split(f"Let me see.{FINAL}ok<|return|>")
    assert fields(reply) == (None, "Let me see.\nok", [])  # it opened the reply: content
    reply = split(f"<|channel|>final<|message|>a<|end|><|start|>Let me see.{FINAL}ok<|return|>")
    assert fields(reply) == (None, "a\nok", [])  # it stood between two messages: issue only
    assert texts(reply, "loose_text") == ["Let me see."]


def test_start_twice() -> None:
    reply = split(f"<|channel|>final<|message|>a<|end|><|start|>{FINAL}b<|return|>")
    assert fields(reply) == (None, "a\nb", [])
    assert codes(reply) == ["stray_marker"]


# An end marker where no message is open


@pytest.mark.parametrize("marker", END_MARKERS)
def test_end_marker_where_no_message_is_open_is_dropped(marker: str) -> None:
    reply = split(f"{marker}<|channel|>final<|message|>a<|end|>{marker}")
    assert fields(reply) == (None, "a", [])
    assert texts(reply, "stray_marker") == [marker, marker]


@pytest.mark.parametrize("marker", END_MARKERS)
def test_end_marker_behind_start_is_dropped(marker: str) -> None:
    reply = split(f"<|channel|>final<|message|>a<|end|><|start|>{marker}{FINAL}b")
    assert fields(reply) == (None, "a\nb", [])
    assert "stray_marker" in codes(reply)


# A header that ends with no <|message|>

CLOSERS = ("<|end|>", "<|return|>", "<|call|>", f"{FINAL}z<|return|>", "")


@pytest.mark.parametrize("closer", CLOSERS)
@pytest.mark.parametrize(
    ("header", "body"),
    [
        ('<|channel|>final{"a":1}', '{"a":1}'),
        ('<|channel|>final {"a":1}', '{"a":1}'),
        ("<|channel|>final__X__", "__X__"),
        ("<|channel|>final Hello there.", "Hello there."),
        ("<|channel|>final <|constrain|>json{}", "{}"),
        ('<|channel|>final json {"a":1}', '{"a":1}'),
        ("<|channel|>analysis<|channel|>final Hello", "Hello"),
    ],
)
def test_words_behind_final_without_message_are_content(header: str, body: str, closer: str) -> None:
    reply = split(header + closer)
    assert fields(reply) == (None, f"{body}\nz" if "z" in closer else body, [])
    assert "missing_message" in codes(reply)
    assert reply.messages[0].text == body
    assert reply.messages[0].channel == "final"
    assert reply.messages[0].content_type in (None, "json", "<|constrain|>json")


@pytest.mark.parametrize("closer", CLOSERS)
@pytest.mark.parametrize("channel", ["analysis", "commentary"])
@pytest.mark.parametrize("words", [" I must refuse", "?We need more.", " Let me look it up"])
def test_words_behind_analysis_or_commentary_without_message_are_reasoning(
    channel: str, words: str, closer: str
) -> None:
    reply = split(f"<|channel|>{channel}{words}{closer}")
    assert fields(reply) == (words.strip(), "z" if "z" in closer else None, [])
    assert "missing_message" in codes(reply)


@pytest.mark.parametrize("closer", ["<|end|>", "<|call|>", f"{FINAL}z<|return|>", ""])
@pytest.mark.parametrize("recipient", ["functions.f", "python", "x"])
@pytest.mark.parametrize(
    "behind", ["", " json", " ??", "<|constrain|>json", "<|constrain|>edit: the file", " text/plain"]
)
@pytest.mark.parametrize("header", ["<|channel|>commentary to=", " to="])
def test_header_of_header_words_with_a_recipient_and_no_message_is_no_call(
    header: str, recipient: str, behind: str, closer: str
) -> None:
    reply = split(f"{header}{recipient}{behind}{closer}")
    assert fields(reply) == (None, "z" if "z" in closer else None, [])
    said = f"{header}{recipient}{behind}".replace("<|channel|>", "").replace("<|constrain|>", "")
    assert said in texts(reply, "missing_message") + texts(reply, "incomplete_header")


@pytest.mark.parametrize("closer", CLOSERS)
@pytest.mark.parametrize("recipient", ["functions.f", "python", "x"])
def test_other_words_of_a_header_with_a_recipient_and_no_message_are_text(recipient: str, closer: str) -> None:
    words = f'to={recipient} {{"a":1}}'
    reply = split(f"<|channel|>commentary {words}{closer}")
    assert fields(reply) == (words, "z" if "z" in closer else None, [])
    assert "missing_message" in codes(reply)


# to= or functions. inside other words is text

PROSE = (
    "Open https://x.test/convert?from=eur&to=usd in a browser.",
    "functions.f is what you want.",
    "Use functions.f, then send(to=ann) and to=bob.",
    '{"url": "?to=usd", "then": "to=functions.f"}',
    "mail --to=ann@x.test --cc=bob",
    "to=functions.f is how a call begins",
    "Der Weg von A nach B: ?von=a&to=b — schön.",
    "\n\n  ?a=b&to=c and so on",
)


@pytest.mark.parametrize("length", [0, 5000])
@pytest.mark.parametrize("closer", ["<|return|>", "<|end|>", ""])
@pytest.mark.parametrize("before", ["", "<|channel|>analysis<|message|>hm<|end|>"])
@pytest.mark.parametrize("text", PROSE)
def test_text_with_to_or_functions_in_it_is_no_header(text: str, before: str, closer: str, length: int) -> None:
    text += (" Then read the table." * 300)[:length]
    assert fields(split(f"{before}{text}{closer}")) == ("hm" if before else None, text, [])


@pytest.mark.parametrize("closer", CLOSERS)
@pytest.mark.parametrize(("tools", "length"), [(None, 0), ([], 0), (["f"], 0), (None, 1000)])
@pytest.mark.parametrize("text", PROSE)
def test_text_with_to_or_functions_in_it_behind_a_channel(
    text: str, tools: list[str] | None, closer: str, length: int
) -> None:
    text = text.lstrip() + (" Then read the table." * 300)[:length]
    behind = ["z"] if "z" in closer else []
    assert fields(split(f"<|channel|>final {text}{closer}", tools=tools)) == (None, "\n".join([text, *behind]), [])
    assert fields(split(f"<|channel|>analysis {text}{closer}", tools=tools))[:2] == (text, "".join(behind) or None)


def test_text_that_is_long_behind_a_recipient_goes_where_its_words_go() -> None:
    assert fields(split(f" to=functions.f {LONG}<|return|>")) == (None, f" to=functions.f {LONG}", [])
    reply = split(f"<|channel|>commentary to=functions.f {LONG}<|end|>{FINAL}ok<|return|>")
    assert fields(reply) == (f"to=functions.f {LONG}", "ok", [])


# The role word of a header that never came


@pytest.mark.parametrize("closer", ["<|return|>", "<|end|>", ""])
@pytest.mark.parametrize(
    ("text", "content"),
    [
        ('<|start|>assistant{"answer": 4}', '{"answer": 4}'),
        ("<|start|>assistant The answer is 4.", "The answer is 4."),
        ("<|start|>assistantassistant The answer is 4.", "The answer is 4."),
        ("<|start|>assistantThe answer is 4.", "The answer is 4."),
        ("<|start|>asistant The answer is 4.", "The answer is 4."),
        ("<|start|>assistant to=ann is what you wrote.", "to=ann is what you wrote."),
        ("<|channel|>assistant Hello there.", "Hello there."),
        ("<|start|>assistant<|channel|>assistant Hello there.", "Hello there."),
        ("<|channel|>assistant final Hello there.", "Hello there."),
        ("<|start|>assistant" + "The answer is 4. " * 100, "The answer is 4. " * 100),
    ],
)
@pytest.mark.parametrize("before", ["", "<|channel|>analysis<|message|>hm<|end|>"])
def test_the_role_word_of_a_header_that_never_came_is_no_text(
    before: str, text: str, content: str, closer: str
) -> None:
    assert fields(split(before + text + closer)) == ("hm" if before else None, content, [])


def test_the_role_in_the_prompt_is_no_role_word_of_the_reply() -> None:
    assert fields(split("assistant: an aide.<|return|>")) == (None, "assistant: an aide.", [])
    assert fields(split("assistant: an aide.<|return|>", prompt="<|start|>")) == (None, ": an aide.", [])
    assert fields(split('final{"a":1}<|return|>', prompt="<|start|>")) == (None, '{"a":1}', [])


# A role word opens loose text


@pytest.mark.parametrize("closer", ["<|return|>", "<|end|>", ""])
@pytest.mark.parametrize(
    "text",
    [
        "user accounts live in /etc/passwd.",
        "system calls are slow",
        "tool use is what you want",
        "developer: me",
        "user " * 200,
    ],
)
def test_prose_that_begins_with_a_role_word_is_text(text: str, closer: str) -> None:
    assert fields(split(f"<|channel|>analysis<|message|>hm<|end|>{text}{closer}")) == ("hm", text, [])


# <|channel|> in the place of <|message|>


@pytest.mark.parametrize("end", ["<|end|>", "<|return|>", ""])
@pytest.mark.parametrize(
    ("raw", "reasoning", "content"),
    [
        ("<|channel|>thought<|channel|>T<|channel|>final<|channel|>X", "T", "X"),
        ("<|channel|>analysis<|channel|>Find it<|channel|>final<|channel|>Find it", "Find it", "Find it"),
        ("<|channel|>analysis<|channel|>T 1<|channel|>final<|message|>X", "T 1", "X"),
        ("<|channel|>analysis T 1<|channel|>final<|message|>X", "T 1", "X"),
        ("<|channel|>analysis<|channel|>assistant Find<|channel|>final<|message|>X", None, "X"),
        ("<|channel|>analysis<|channel|>assistant Find it<|channel|>final<|message|>X", "assistant Find it", "X"),
        ("<|channel|>analysis T<|channel|>analysis U<|channel|>final X", "T\nU", "X"),
        ("<|channel|>commentary I look.<|channel|>final<|message|>X", None, "I look.\nX"),
        ("<|channel|>analysis ?a=b&to=c<|channel|>final<|channel|>X", "?a=b&to=c", "X"),
        ("<|channel|>analysis ??<|channel|>final<|message|>X", None, "X"),
        ("<|channel|>analysis<|channel|>final<|message|>X", None, "X"),
        ("<|start|>assistant<|channel|>analysis<|channel|>T<|channel|>final<|channel|>X", "T", "X"),
    ],
)
def test_words_in_front_of_the_channel_that_counts_are_text_of_the_one_before(
    raw: str, reasoning: str | None, content: str, end: str
) -> None:
    assert fields(split(raw + end)) == (reasoning, content, [])


@pytest.mark.parametrize("channel", ["critique", "comment"])
def test_words_behind_a_channel_that_nobody_knows_are_its_text(channel: str) -> None:
    reply = split(f"<|channel|>{channel}<|channel|>T 1<|channel|>final<|channel|>X<|end|>")
    assert fields(reply) == (None, "T 1\nX", [])
    assert texts(reply, "unknown_channel") == [channel]


def test_an_indentation_behind_a_channel_is_the_bodys() -> None:
    assert fields(split("<|channel|>final\n\n    code()\n<|return|>")) == (None, "    code()\n", [])
    assert fields(split("<|channel|>final   code()<|return|>")) == (None, "code()", [])


def test_a_body_behind_the_type_of_a_call_is_text_and_other_words_there_are_the_type() -> None:
    reply = split('<|channel|>commentary to=functions.f <|constrain|>json{"a":1}<|call|>')
    assert fields(reply) == ('to=functions.f {"a":1}', None, [])
    reply = split("<|channel|>commentary to=functions.f <|constrain|>edit: the file<|call|>")
    assert fields(reply) == (None, None, [])


@pytest.mark.parametrize(("text", "content"), [("functions.f is it.", "functions.f is it."), ("functions.f", None)])
def test_a_tool_that_speaks_to_nobody(text: str, content: str | None) -> None:
    reply = split(f"<|channel|>analysis<|message|>hm<|end|><|start|>{text}<|end|>")
    assert fields(reply) == ("hm", content, [])
    assert texts(reply, "foreign_role") == ([] if content else [text])


def test_a_call_in_two_channels_stays_one() -> None:
    header = "<|channel|>commentary to=functions.f ??x<|channel|>analysis json"
    assert fields(split(header + "<|message|>{}<|call|>")) == (None, None, [("f", "{}")])


def test_header_with_no_channel_and_no_message_is_loose_text() -> None:
    assert fields(split("Hello there.<|return|>")) == (None, "Hello there.", [])


@pytest.mark.parametrize("closer", ["<|end|>", "<|return|>", "", f"{FINAL}z<|return|>"])
@pytest.mark.parametrize("words", ["I think so", "think " * 150])
@pytest.mark.parametrize("role", ["", "assistant", "assistant "])
@pytest.mark.parametrize("channel", ["analysis", "commentary", "final"])
def test_words_behind_a_channel_word_in_the_place_of_the_role(channel: str, role: str, words: str, closer: str) -> None:
    reply = split(f"{FINAL}a<|end|><|start|>{role}{channel} {words}{closer}")
    content = ["a", words] if channel == "final" else ["a"]
    content += ["z"] if "z" in closer else []
    assert fields(reply) == (None if channel == "final" else words, "\n".join(content), [])
    assert "missing_message" in codes(reply)


def test_foreign_header_with_no_message_goes_to_an_issue() -> None:
    reply = split("<|channel|>final<|message|>a<|end|><|start|>user: hi there<|end|>")
    assert fields(reply) == (None, "a", [])
    assert texts(reply, "foreign_role") == ["user: hi there"]


def test_channel_alone_with_no_message_is_nothing() -> None:
    reply = split("<|channel|>final<|end|>")
    assert fields(reply) == (None, None, [])
    assert codes(reply) == ["missing_message"]


# Filler


@pytest.mark.parametrize("word", ["commentary", "analysis", "final", "assistant", "user", "tool", " commentary\n"])
@pytest.mark.parametrize("then", ["", "<|end|>", f"{FINAL}ok<|return|>"])
def test_channel_or_role_word_alone_after_a_call_is_filler(word: str, then: str) -> None:
    reply = split(f"<|channel|>commentary to=functions.f<|message|>{{}}<|call|>{word}{then}")
    assert fields(reply) == (None, "ok" if then.startswith("<|start|>") else None, [("f", "{}")])
    assert len(reply.issues) == 1
    assert reply.issues[0].text == word


# Loose text


@pytest.mark.parametrize("closer", ["<|return|>", "<|endoftext|>", ""])
@pytest.mark.parametrize("before", ["", "<|channel|>analysis<|message|>hm<|end|>"])
def test_loose_text_closed_by_return_or_the_end_is_content(before: str, closer: str) -> None:
    reply = split(f"{before}It is 21 C.{closer}")
    assert fields(reply) == ("hm" if before else None, "It is 21 C.", [])
    assert "loose_text" in codes(reply)


def test_loose_text_closed_by_end_is_reasoning_if_a_message_follows() -> None:
    assert fields(split(f"Let me think.<|end|>{FINAL}ok<|return|>")) == ("Let me think.", "ok", [])


@pytest.mark.parametrize("closer", ["<|end|>", "<|end|><|end|>"])
def test_loose_text_closed_by_end_is_content_if_no_message_follows(closer: str) -> None:
    assert fields(split(f"It is 21 C.{closer}")) == (None, "It is 21 C.", [])


def test_loose_text_closed_by_a_message_is_content_if_it_opened_the_reply() -> None:
    assert fields(split(f"Let me think.{FINAL}ok<|return|>")) == (None, "Let me think.\nok", [])


def test_loose_text_between_two_messages_goes_to_an_issue_only() -> None:
    reply = split(f"<|channel|>final<|message|>a<|end|>b c d{FINAL}e<|return|>")
    assert fields(reply) == (None, "a\ne", [])
    assert texts(reply, "loose_text") == ["b c d"]


@pytest.mark.parametrize("mark", [" ", "\n\n", "...", "??", "–", '"', "` ,"])
@pytest.mark.parametrize("closer", ["<|return|>", "<|end|>", "", f"{FINAL}ok<|return|>"])
def test_white_space_or_punctuation_alone_goes_to_an_issue_only(mark: str, closer: str) -> None:
    reply = split(mark + closer)
    assert fields(reply) == (None, "ok" if "ok" in closer else None, [])
    assert texts(reply, "loose_text") == [mark]


def test_loose_text_is_held_until_a_marker_decides() -> None:
    stream, total = Stream(), Total()
    for token in encode("It is 21 C. outside today."):
        assert not total.add(stream.feed([token]))
    assert total.add(stream.finish()).content == "It is 21 C. outside today."


# A header is at most 512 characters

LONG = "word " * 110  # 550 characters


@pytest.mark.parametrize("closer", ["<|return|>", ""])
def test_header_too_long_is_loose_text(closer: str) -> None:
    reply = split(LONG + closer)
    assert fields(reply) == (None, LONG, [])
    assert codes(reply) == ["header_too_long", "loose_text"]


def test_header_too_long_then_a_message() -> None:
    assert fields(split(f"{LONG}<|end|>{FINAL}ok")) == (LONG, "ok", [])
    assert fields(split(f"{LONG}{FINAL}ok")) == (None, f"{LONG}\nok", [])
    assert fields(split(f"{LONG}<|channel|>final<|message|>ok")) == (None, f"{LONG}\nok", [])
    assert fields(split(f"{LONG}<|message|>ok")) == (None, f"{LONG}\nok", [])
    assert fields(split(f"{LONG}<|constrain|>json<|message|>ok")) == (None, f"{LONG}\nok", [])
    reply = split(f"<|channel|>final<|message|>a<|end|>{LONG}{FINAL}ok")
    assert fields(reply) == (None, "a\nok", [])
    assert LONG in texts(reply, "loose_text")


def test_header_too_long_between_marks() -> None:
    reply = split("." * 600 + f"<|end|>{FINAL}ok")
    assert fields(reply) == (None, "ok", [])
    assert texts(reply, "loose_text") == ["." * 600]


@pytest.mark.parametrize("size", [511, 512, 513])
def test_header_limit_is_512_characters(size: int) -> None:
    words = " to=functions.f " + "x" * (size - 16)
    assert len(words) == size
    reply = split(f"{words}<|channel|><|message|>{{}}<|call|>")
    assert fields(reply)[2] == ([("f", "{}")] if size <= 512 else [])
    assert ("header_too_long" in codes(reply)) == (size > 512)


def test_header_limit_counts_all_sections() -> None:
    reply = split(
        f" to=functions.f{'a ' * 100}<|channel|>commentary {'b ' * 100}<|constrain|>json {'c ' * 100}<|message|>"
    )
    assert "header_too_long" in codes(reply)
    assert fields(reply) == ("b " * 100 + " " + "c " * 100, None, [])


@pytest.mark.parametrize(("channel", "place"), [("analysis", 0), ("commentary", 0), ("final", 1)])
def test_header_too_long_behind_a_channel_goes_where_its_words_would(channel: str, place: int) -> None:
    reply = split(f"<|channel|>{channel} {LONG}<|end|>")
    assert fields(reply)[place] == LONG
    assert fields(reply)[1 - place] is None
    assert "header_too_long" in codes(reply)


@pytest.mark.parametrize("text", [f"<|start|>user {LONG}", f"<|channel|>commentary to=functions.{'f' * 600}"])
def test_header_too_long_of_a_foreign_role_or_for_a_recipient_alone_goes_to_an_issue_only(text: str) -> None:
    reply = split(f"{text}<|end|>{FINAL}ok<|return|>")
    assert fields(reply) == (None, "ok", [])
    assert any(text.split()[-1] in issue.text for issue in reply.issues)


def test_header_of_markers_alone_is_bounded() -> None:
    reply = parse("<|channel|>final" + "<|channel|><|constrain|>" * 2000 + "<|message|>ok")
    assert fields(reply) == (None, "ok", [])
    assert reply.messages[0].channel == "final"
    assert "stray_marker" in codes(reply)


# The output ends inside a header


@pytest.mark.parametrize(
    "cut",
    [
        "ass",
        "assistant",
        "assistant<|channel|>",
        "<|channel|>",
        "<|channel|>comm",
        "<|channel|>commentary",
        "<|channel|>commentary to",
        "<|channel|>commentary to=",
        "<|channel|>commentary to=functions.f",
        "<|channel|>commentary to=functions.f <|constrain|>",
        "<|channel|>commentary to=functions.f <|constrain|>js",
        "<|channel|>commentary to=functions.f json",
        "<|channel|>analysis",
        "<|channel|>final",
        " to=functions.x",
        " to=functions.x<|channel|>",
    ],
)
@pytest.mark.parametrize(
    "before", ["", "<|channel|>final<|message|>a<|end|><|start|>", "<|channel|>final<|message|>a<|end|>"]
)
def test_output_that_ends_inside_a_header_drops_it_with_an_issue(before: str, cut: str) -> None:
    reply = split(before + cut)
    assert fields(reply) == (None, "a" if before else None, [])
    assert codes(reply)[-1] == "incomplete_header"


@pytest.mark.parametrize("words", ["It is 21 C.", "Hello", "a", "The answer", "42"])
def test_output_that_ends_inside_other_words_is_loose_text(words: str) -> None:
    reply = split(words)
    assert fields(reply) == (None, words, [])
    assert codes(reply) == ["loose_text"]


def test_output_that_ends_inside_a_foreign_header_goes_to_an_issue() -> None:
    reply = split("<|channel|>final<|message|>a<|end|><|start|>user says hello")
    assert fields(reply) == (None, "a", [])
    assert reply.issues[-1].text == "user says hello"


def test_output_that_ends_behind_start() -> None:
    reply = split("<|channel|>final<|message|>a<|end|><|start|>")
    assert fields(reply) == (None, "a", [])
    assert codes(reply) == ["incomplete_header"]


# The output ends inside a body


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("<|channel|>analysis<|message|>half a th", ("half a th", None, [])),
        ("<|channel|>final<|message|>half an ans", (None, "half an ans", [])),
        ('<|channel|>commentary to=functions.f<|message|>{"ci', (None, None, [("f", '{"ci')])),
    ],
)
def test_output_that_ends_inside_a_body_is_partial(raw: str, expected: object) -> None:
    reply = split(raw)
    assert fields(reply) == expected
    assert not reply.messages[0].complete
    assert reply.finish_reason(cut=True) == "length"


# The rows are applied so that promise 4 holds


def test_body_text_streams_at_once() -> None:
    stream = Stream()
    for token in encode("<|channel|>final<|message|>"):
        assert not stream.feed([token])
    for token in encode("It is 21 C. outside."):
        assert stream.feed([token]).content


def test_held_text_is_never_taken_back() -> None:
    raw = f"Let me think.<|end|>{FINAL}ok<|return|>"
    stream, seen = Stream(), []
    for char in raw:
        delta = stream.feed(char)
        if delta:
            seen.append((delta.reasoning_content, delta.content))
    assert seen == [("Let me think.", None), (None, "o"), (None, "k")]


def test_strict_stops_at_the_first_issue_and_stays_stopped() -> None:
    stream = Stream(options=Options(strict=True))
    assert stream.feed("<|channel|>final<|message|>a").content == "a"
    with pytest.raises(ValueError, match=r"stray_marker at character 28: .*<\|message\|>"):
        stream.feed("<|message|>b")
    with pytest.raises(RuntimeError, match="finished"):
        stream.feed("c")
    assert not stream.finish()


@pytest.mark.parametrize("closed", ["<|end|>", "<|call|>"])
def test_loose_text_of_two_pieces(closed: str) -> None:
    # Nothing lost, in order; whatever the first is taken for, the last is content as no message follows it.
    reply = split(f"first words{closed}last words{closed}")
    assert (reply.reasoning_content or "", reply.content) in [
        ("first words", "last words"),
        ("", "first words\nlast words"),
    ]
