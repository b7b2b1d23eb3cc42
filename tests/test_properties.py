"""SPEC section 1: the five promises, on output that nobody thought of.

Soups of markers, header words and sentinels (words that each stand once in the output, so that they can be found
again); random text; random bytes behind ids; all under random options, tools and prompts, cut at random. And against
`openai_harmony.StreamableParser` (strict) on generated well-formed output.
"""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from openai_harmony import Role, StreamableParser, TextContent

from feeding import check_chunks, check_strict, codes, cut, encode, encode_plain, fields, signs
from harmony_plugin import CODES, Dialect, Options, Reply, Vocabulary, parse
from harmony_plugin.core.vocabulary import harmony_encoding

MARKERS = [marker for kind, marker in Dialect().markers.items() if kind != "endoftext"]
TOOLS = ["get_weather", "say hello", "mcp.search", "json"]
WORDS = [
    *("assistant", "user", "system", "tool", "analysis", "final", "commentary", "thinking", "finale", "critique"),
    *(" to=functions.", " to=", " to=assistant", " to=python", " to=browser.open", " to=get_weather", " to=functions "),
    *("functions.", "json", " json", "code", " ", "\n", "??", "–", ".", "{}", '{"a":1}', "[", "say hello", "é🦀"),
    "a word or two ",
]

options = st.builds(
    Options,
    commentary=st.sampled_from(["content", "reasoning", "drop"]),
    channels=st.sampled_from([{}, {"critique": "reasoning"}, {"critique": "drop", "final": "content"}]),
    builtin_tools=st.sampled_from(["auto", "hide", "tool_calls"]),
    tool_choice=st.sampled_from(["auto", "none"]),
)
tools = st.sampled_from([None, [], TOOLS])
prompts = st.sampled_from(
    [
        None,
        "<|start|>",
        "<|start|>assistant",
        "<|start|>assistant<|channel|>",
        "<|start|>assistant<|channel|>commentary to=functions.f",
        "<|start|>assistant<|channel|>analysis<|message|>",
        "<|start|>assistant to=functions.f<|channel|>commentary<|message|>",
        "<|start|>user<|message|>hi<|end|>",
    ]
)
how = st.fixed_dictionaries({"prompt": prompts, "tools": tools, "options": options})
SENTINEL = None  # in a soup: a word of its own
soups = st.lists(st.one_of(st.sampled_from(MARKERS), st.sampled_from(WORDS), st.just(SENTINEL)), max_size=24)


def sentinels(soup: list[str | None]) -> tuple[list[str], list[str]]:
    """The soup with its sentinels spelled out, and the sentinels."""
    numbers = itertools.count(10)
    pieces = [f" q{next(numbers)}z " if piece is SENTINEL else piece for piece in soup]
    return pieces, [piece.strip() for piece, was in zip(pieces, soup, strict=True) if was is SENTINEL]


def cuts(data: st.DataObject, output: Any) -> list[Any]:
    places = data.draw(st.lists(st.integers(0, len(output)), max_size=6), "places")
    return cut(output, places)


def fielded(reply: Reply) -> list[str]:
    return [reply.reasoning_content or "", reply.content or "", *(call.arguments for call in reply.tool_calls)]


# 1. Total, and 4. chunk-invariant


@given(soups, how, st.data())
def test_soups_by_text_and_ids_cut_anywhere(soup: list[str | None], how: dict[str, Any], data: st.DataObject) -> None:
    pieces, _ = sentinels(soup)
    raw = "".join(pieces)
    reply = parse(raw, **how)
    assert all(issue.code in CODES for issue in reply.issues)
    check_chunks(cuts(data, raw), reply, **how)
    check_chunks(list(raw), reply, **how)
    ids = encode(raw)
    by_ids = parse(ids, **how)
    check_chunks(cuts(data, ids), by_ids, **how)
    check_chunks([[token] for token in ids], by_ids, **how)
    assert (fields(by_ids), by_ids.messages, signs(by_ids.issues)) == (
        fields(reply),
        reply.messages,
        signs(reply.issues),
    )
    check_strict(raw, reply, **how)


@given(st.text(), how, st.data())
def test_any_text(text: str, how: dict[str, Any], data: st.DataObject) -> None:
    reply = parse(text, **how)
    check_chunks(cuts(data, text), reply, **how)
    for message in reply.messages:
        assert message.text in text


PIECES = [bytes([byte]) for byte in range(256)] + [
    b"assistant",
    b"final",
    b"analysis",
    b" to=functions.f",
    b"\xf0\x9f",
    b"",
]
BYTES = Vocabulary(lambda token: PIECES[token])
MARKER_IDS = [*Dialect().ids.values()]
ids_of_bytes = st.lists(
    st.one_of(
        st.sampled_from(MARKER_IDS),
        st.integers(0, len(PIECES) - 1),
        st.integers(0x80, 0xFF),
        st.sampled_from([200000, 200013, 201087, -1, 10**7]),
    ),
    max_size=30,
)


@given(ids_of_bytes, how, st.data())
def test_any_bytes_behind_ids(ids: list[int], how: dict[str, Any], data: st.DataObject) -> None:
    how = how | {"decode": BYTES}
    reply = parse(ids, **how)
    check_chunks(cuts(data, ids), reply, **how)
    check_chunks([[token] for token in ids], reply, **how)
    for text in fielded(reply):
        text.encode()  # nothing half-decoded


@given(ids_of_bytes.filter(bool))
def test_bytes_of_a_body_decode_as_python_decodes_them(ids: list[int]) -> None:
    body = [token for token in ids if 0 <= token < len(PIECES)]
    text = b"".join(PIECES[token] for token in body).decode("utf-8", "replace")
    reply = parse([200008, *body, 200007], decode=BYTES)
    assert reply.messages[0].text == text


# 2. Conserved


@given(soups, how)
def test_every_word_lands_in_exactly_one_place(soup: list[str | None], how: dict[str, Any]) -> None:
    pieces, words = sentinels(soup)
    raw = "".join(pieces)
    for output in (raw, encode(raw)):
        reply = parse(output, **how)
        # A recipient that is both misspelled and not the first is told twice: it is header, not text.
        issues = [issue.text for issue in reply.issues if issue.code != "misplaced_recipient"]
        told = "".join(issue.text for issue in reply.issues if issue.code == "misplaced_recipient")
        for word in words:
            found = sum(place.count(word) for place in [*fielded(reply), *issues]) or told.count(word)
            header = any(word in str(message[1:4]) for message in reply.messages)
            if header:
                # Part of a header: a channel, a recipient or a type, told in an issue at most.
                assert not any(word in text for text in fielded(reply)), word
            else:
                # A tool's name in the place of the role is header, too, and Message has no author.
                assert found == 1 or (found == 0 and any(message.role == "tool" for message in reply.messages)), word


@given(st.lists(st.tuples(st.sampled_from(["analysis", "final", "commentary"]), st.text()), max_size=5))
def test_every_character_of_well_formed_bodies_is_kept(messages: list[tuple[str, str]]) -> None:
    # By ids: bodies may spell markers.
    ids: list[int] = []
    for channel, body in messages:
        ids += [*encode(f"<|start|>assistant<|channel|>{channel}<|message|>"), *encode_plain(body), *encode("<|end|>")]
    reply = parse(ids)
    reasoning = [body for channel, body in messages if channel == "analysis" and body]
    content = [body for channel, body in messages if channel != "analysis" and body]
    assert fields(reply) == ("\n".join(reasoning) or None, "\n".join(content) or None, [])
    assert reply.issues == ()


# 3. No leak


@given(soups, how)
def test_no_marker_reaches_a_field_or_a_name(soup: list[str | None], how: dict[str, Any]) -> None:
    raw = "".join(sentinels(soup)[0])
    for output in (raw, encode(raw)):
        reply = parse(output, **how)
        for text in (*fielded(reply), *(call.name for call in reply.tool_calls)):
            assert not any(marker in text for marker in MARKERS)
        for message in reply.messages:
            assert not any(marker in str(message[:3]) + message.text for marker in MARKERS)


@given(soups, soups, st.sampled_from(["analysis", " analysis", "analysis json", "analysis to=python code"]), how)
def test_analysis_never_reaches_content(
    before: list[str | None], after: list[str | None], header: str, how: dict[str, Any]
) -> None:
    around = ["".join(sentinels(soup)[0]) for soup in (before, after)]
    raw = f"<|start|>assistant<|channel|>{header}<|message|>SECRET".join(around)
    for output in (raw, encode(raw)):
        reply = parse(output, **how)
        assert "SECRET" not in (reply.content or "")


@given(
    st.sampled_from(["", "assistant"]),
    st.sampled_from(["analysis", "final", "commentary"]),
    st.lists(st.sampled_from([word for word in WORDS if not word.startswith((" to=", "functions"))]), max_size=3),
    how,
)
def test_header_text_never_reaches_a_field(role: str, channel: str, words: list[str], how: dict[str, Any]) -> None:
    raw = f"<|start|>{role}<|channel|>{channel} WORD {' '.join(words)}<|message|>body<|end|>"
    reply = parse(raw, **how | {"prompt": None})
    assert not any("WORD" in text for text in fielded(reply))
    assert sum("body" in text for text in [*fielded(reply), *(issue.text for issue in reply.issues)]) == 1


# 5. Exact when well-formed

# Left out, since SPEC decides otherwise than the library, on purpose:
# - a type without a recipient (`final <|constrain|>json`, `commentary json`): the library takes it for the recipient;
# - two channel clauses: the library keeps the first, SPEC the last;
# - a channel word for the role (`analysis<|message|>`): the library takes it for the recipient;
# - `to=functions NAME`: for the library NAME is a type;
# - recipients with characters that no name has (`a+b`), and a recipient called like a type (`to=json`);
# - a role `tool` with the author's name: Message has no author.
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_\-]{0,12}", fullmatch=True).filter(
    lambda name: name not in ("json", "code", "functions", "to")
)
RECIPIENTS = st.one_of(
    st.sampled_from(["functions.get_weather", "functions.a.b", "python", "browser.open", "assistant", "all"]),
    NAMES,
    NAMES.map(lambda name: f"functions.{name}"),
)
CHANNELS = st.one_of(
    st.sampled_from(["analysis", "commentary", "final"]), st.sampled_from(["thinking", "finale", "critique", "Final"])
)
TYPES = st.sampled_from(["", " <|constrain|>json", "<|constrain|>json", " json", " code", " <|constrain|>text/plain"])


@st.composite
def well_formed(draw: st.DrawFn) -> list[int]:
    """Ids of a well-formed reply from the prompt's `<|start|>assistant` on."""
    ids: list[int] = []
    for number in range(draw(st.integers(1, 4))):
        role = draw(st.sampled_from(["assistant"] * 6 + ["user", "system", "developer"]))
        role = "assistant" if number == 0 else role
        header = "" if number == 0 else f"<|start|>{role}"
        channel = draw(st.one_of(st.none(), CHANNELS))
        recipient = draw(st.one_of(st.none(), RECIPIENTS))
        in_role = recipient is not None and (channel is None or draw(st.booleans()))
        header += f" to={recipient}" if in_role else ""
        header += f"<|channel|>{channel}" if channel else ""
        header += f"{draw(st.sampled_from([' ', '  ', chr(10)]))}to={recipient}" if recipient and not in_role else ""
        header += draw(TYPES) if recipient else ""
        body = draw(st.one_of(st.sampled_from(["", '{"a":1}', " x\n", "<|end|>", "é🦀"]), st.text(max_size=20)))
        end = draw(st.sampled_from(["<|end|>", "<|call|>", "<|return|>"]))
        ids += [*encode(f"{header}<|message|>"), *encode_plain(body), *encode(end)]
    return ids


@given(well_formed(), st.data())
def test_messages_are_those_of_the_harmony_library(ids: list[int], data: st.DataObject) -> None:
    peer = StreamableParser(harmony_encoding(), Role.ASSISTANT, strict=True)
    for token in ids:
        peer.process(token)
    peer.process_eos()
    expected = []
    for message in peer.messages:
        (content,) = message.content
        assert isinstance(content, TextContent)
        expected.append(
            (message.author.role.value, message.channel, message.recipient, message.content_type, content.text)
        )
    reply = parse(ids)
    assert [message[:5] for message in reply.messages] == expected
    assert all(message.complete for message in reply.messages)
    known = {"foreign_role", "unknown_channel", "misspelled_channel", "builtin_tool", "arguments_not_json"}
    assert set(codes(reply)) <= known
    check_chunks(cuts(data, ids), reply)
