"""SPEC section 2: token ids or text in, markers and text out."""

from __future__ import annotations

from array import array

import pytest

from feeding import check_chunks, codes, cut, encode, encode_plain, feed, fields, pairs, texts
from harmony_plugin import Dialect, Options, Stream, Vocabulary, parse
from harmony_plugin.core.lexer import IdLexer, TextLexer
from harmony_plugin.core.tokens import CHANNEL, END, INVALID, MESSAGE, RETURN, TEXT

MARKERS = Dialect().markers.values()
FINAL = encode("<|channel|>final<|message|>")
#: A decoder whose ids below 256 are bytes.
BYTES = Vocabulary(lambda token: bytes([token]))
MESSAGE_ID, END_ID, START_ID = 200008, 200007, 200006


def by_bytes(data: bytes) -> list[int]:
    return list(data)


# Ids: only the special ids are markers


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("channel", ["final", "analysis"])
def test_look_alikes_spelled_by_ordinary_tokens_are_text(channel: str, marker: str) -> None:
    body = f"say {marker} twice {marker}"
    ids = [*encode(f"<|channel|>{channel}<|message|>"), *encode_plain(body), *encode("<|end|>")]
    reply = parse(ids)
    assert fields(reply) == ((body, None, []) if channel == "analysis" else (None, body, []))
    assert reply.issues == ()
    check_chunks([[token] for token in ids], reply)


def test_look_alikes_in_arguments_are_text() -> None:
    ids = [
        *encode("<|channel|>commentary to=functions.f<|message|>"),
        *encode_plain('{"a":"<|call|><|end|>"}'),
        *encode("<|call|>"),
    ]
    assert fields(parse(ids))[2] == [("f", '{"a":"<|call|><|end|>"}')]


# Text: the seven marker strings are markers wherever they stand


@pytest.mark.parametrize("marker", MARKERS)
def test_marker_strings_in_text_are_markers(marker: str) -> None:
    for place in range(1, len(marker)):
        total, stream = feed([f"<|message|>a{marker[:place]}", marker[place:]])
        assert total.sum.content == "a"
        assert marker not in str(stream.reply.messages)


@pytest.mark.parametrize("piece", ["<", "<|", "<|en", "<|end", "<|end|", "|>", "<|endx|>", "<<", "<|<|", "<|unknown|>"])
def test_what_only_begins_like_a_marker_is_text(piece: str) -> None:
    for raw in (f"<|channel|>final<|message|>a{piece}b<|end|>", f"<|channel|>final<|message|>a{piece}"):
        reply = parse(raw)
        assert reply.content == (f"a{piece}b" if raw.endswith("<|end|>") else f"a{piece}")
        check_chunks(list(raw), reply)
        for place in range(1, len(raw)):
            check_chunks([raw[:place], raw[place:]], reply)


def test_marker_behind_the_beginning_of_another() -> None:
    reply = parse("<|channel|>final<|message|>a<|en<|end|>")
    assert reply.content == "a<|en"
    assert reply.messages[0].complete
    check_chunks(list("<|channel|>final<|message|>a<|en<|end|>"), reply)


def test_text_that_may_become_a_marker_is_held_no_longer_than_needed() -> None:
    stream = Stream()
    stream.feed("<|channel|>final<|message|>")
    assert stream.feed("a<|").content == "a"
    assert not stream.feed("en")
    assert stream.feed("x").content == "<|enx"
    assert stream.feed("<").content is None
    assert stream.finish().content == "<"


# Markers


@pytest.mark.parametrize(("token", "marker"), [(199999, "<|endoftext|>"), (200002, "<|return|>")])
def test_endoftext_ends_like_return(token: int, marker: str) -> None:
    for output in ([*FINAL, *encode("a"), token], f"<|channel|>final<|message|>a{marker}"):
        reply = parse(output)
        assert reply.content == "a"
        assert reply.messages[0].complete
        assert reply.issues == ()


@pytest.mark.parametrize("token", [199998, 200000, 200001, 200004, 200009, 200010, 200011, 200013, 200018, 201087])
def test_reserved_ids_are_dropped_with_an_issue(token: int) -> None:
    body = [*FINAL, *encode("a"), token, *encode("b")]
    for ids in (body, [FINAL[0], token, *FINAL[1:], *encode("ab")]):
        reply = parse(ids)
        assert fields(reply) == (None, "ab", [])
        assert codes(reply) == ["reserved_token"]
        assert reply.issues[0].offset == ids.index(token)
        assert texts(reply, "reserved_token")[0].startswith("<|")
        check_chunks([[token] for token in ids], reply)


@pytest.mark.parametrize("token", [-1, 201088, 999_999, 1 << 63, -(1 << 63)])
def test_ids_of_no_vocabulary_are_dropped_with_an_issue(token: int) -> None:
    ids = [*FINAL, *encode("a"), token, *encode("b")]
    reply = parse(ids)
    assert fields(reply) == (None, "ab", [])
    assert texts(reply, "unknown_token") == [str(token)]
    check_chunks([[token] for token in ids], reply)


def test_decoder_may_raise_anything() -> None:
    def decode(token: int) -> bytes:
        if token == 1:
            raise RuntimeError("boom")
        return b"x"

    assert parse([MESSAGE_ID, 0, 1, 0], decode=decode).content == "xx"


# UTF-8


@pytest.mark.parametrize("body", ["é", "漢字", "🦀", "👩‍👩‍👧", "a🦀b漢c", "\u0301", "\ud7ff\ue000\U0010ffff"])
def test_character_cut_across_ids_is_held_until_whole(body: str) -> None:
    ids = [MESSAGE_ID, *by_bytes(body.encode()), END_ID]
    reply = parse(ids, decode=BYTES)
    assert fields(reply) == (None, body, [])
    assert reply.issues == ()
    for pair in pairs(len(ids), 500, 0):
        check_chunks(cut(ids, pair), reply, decode=BYTES)
    check_chunks([[token] for token in ids], reply, decode=BYTES)


def test_character_cut_across_ids_comes_as_one_delta() -> None:
    stream = Stream(decode=BYTES)
    stream.feed([MESSAGE_ID])
    deltas = [stream.feed([byte]).content for byte in "a🦀b".encode()]
    assert deltas == ["a", None, None, None, "🦀", "b"]


def test_real_tokens_cut_inside_a_character() -> None:
    ids = [*FINAL, *encode("🦀🧬𓀀")]
    reply = parse(ids)
    assert reply.content == "🦀🧬𓀀"
    check_chunks([[token] for token in ids], reply)


INVALID_BYTES = [
    (b"a\xffb", "a\ufffdb"),
    (b"\xc3", "\ufffd"),
    (b"a\xe6\xbc", "a\ufffd"),
    (b"\xe6\xbcA", "\ufffdA"),
    (b"\x80", "\ufffd"),
    (b"\xc3\xc3\xa9", "\ufffdé"),
    (b"\xf0\x9f\xa6", "\ufffd"),
    (b"\xf0\x9f\xa6\xe6\xbc\xa2", "\ufffd漢"),
    (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),  # a surrogate: as Python, one for each byte
    (b"\xf5a", "\ufffda"),
]


@pytest.mark.parametrize(("data", "text"), INVALID_BYTES)
def test_bytes_that_never_become_utf8_turn_into_one_replacement_where_they_stood(data: bytes, text: str) -> None:
    assert data.decode("utf-8", "replace") == text
    ids = [MESSAGE_ID, *by_bytes(data), END_ID, START_ID, *by_bytes(b"assistant"), MESSAGE_ID, *by_bytes(b"next")]
    reply = parse(ids, decode=BYTES)
    assert [message.text for message in reply.messages] == [text, "next"]  # never spills into the next message
    assert "invalid_utf8" in codes(reply)
    for pair in pairs(len(ids), 300, 0):
        check_chunks(cut(ids, pair), reply, decode=BYTES)
    # With the same bytes in one token:
    whole = Vocabulary({1: data, 2: b"z"}.__getitem__)
    assert parse([MESSAGE_ID, 1, END_ID], decode=whole).content == text
    assert parse([MESSAGE_ID, 2, 1, 2, END_ID], decode=whole).content == (b"z" + data + b"z").decode("utf-8", "replace")


@pytest.mark.parametrize("ending", [[END_ID], [START_ID], [200005], [200002], []])
def test_unfinished_character_ends_with_its_message(ending: list[int]) -> None:
    ids = [MESSAGE_ID, *by_bytes(b"ok\xf0\x9f"), *ending]
    reply = parse(ids, decode=BYTES)
    assert reply.content == "ok\ufffd"
    assert ("invalid_utf8", 3) in [issue[:2] for issue in reply.issues]
    check_chunks([[token] for token in ids], reply, decode=BYTES)


def test_unfinished_character_in_a_header() -> None:
    ids = [*by_bytes(b"x\xf0\x9f"), MESSAGE_ID, *by_bytes(b"ok")]
    reply = parse(ids, decode=BYTES)
    assert reply.content == "ok"
    assert texts(reply, "header_words") == ["x\ufffd"]


def test_reserved_id_inside_a_character() -> None:
    vocabulary = Vocabulary({1: b"\xc3", 2: b"\xa9", 200013: b"<|odd|>"}.__getitem__)
    ids = [MESSAGE_ID, 1, 200013, 2]
    reply = parse(ids, decode=vocabulary)
    assert reply.content in ("é", "\ufffd\ufffd")
    check_chunks([[token] for token in ids], reply, decode=vocabulary)


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_offset_of_bytes_that_are_not_utf8(offset: int) -> None:
    vocabulary = Vocabulary({1: b"a", 2: b"\xf0\x9f", 3: b"\xa6"}.__getitem__)
    ids = [MESSAGE_ID, *[1] * (offset - 1), 2, 3, END_ID]
    for reply in (parse(ids, decode=vocabulary), feed([[token] for token in ids], decode=vocabulary)[1].reply):
        assert [issue[:2] for issue in reply.issues] == [("invalid_utf8", offset)]


# Offsets


def test_offsets_are_in_characters_for_text() -> None:
    raw = "<|channel|>final<|message|>a<|message|>b<|end|>??<|channel|>final<|message|>"
    assert [issue[:2] for issue in parse(raw).issues] == [
        ("stray_marker", raw.index("a<|message|>") + 1),
        ("missing_start", raw.index("??")),
        ("header_words", raw.index("??")),
    ]


def test_offsets_are_in_ids_for_ids() -> None:
    ids = encode("<|channel|>final<|message|>a<|message|>b<|end|>??<|channel|>final<|message|>")
    assert [issue[:2] for issue in parse(ids).issues] == [
        ("stray_marker", 4),
        ("missing_start", 7),
        ("header_words", 7),
    ]


# The lexers alone


def test_id_lexer() -> None:
    lexer = IdLexer(BYTES)
    tokens = lexer.feed([200005, 0x66, MESSAGE_ID, 0xC3])
    assert [(kind, text) for kind, text, _, _ in tokens] == [
        (CHANNEL, "<|channel|>"),
        (TEXT, "f"),
        (MESSAGE, "<|message|>"),
        (TEXT, ""),
    ]
    assert lexer.holding
    tokens = lexer.feed([END_ID])
    assert [(kind, text) for kind, text, _, _ in tokens] == [(INVALID, ""), (TEXT, "\ufffd"), (END, "<|end|>")]
    assert not lexer.holding
    assert lexer.finish() == []
    assert lexer.offset == 5


def test_text_lexer() -> None:
    lexer = TextLexer(Dialect())
    assert lexer.feed("a<|retu") == [(TEXT, "a", 0, 0)]
    assert lexer.holding
    assert lexer.feed("rn|>b<") == [(RETURN, "<|return|>", 1, 0), (TEXT, "b", 11, 0)]
    assert lexer.finish() == [(TEXT, "<", 12, 0)]
    assert lexer.finish() == []
    assert lexer.offset == 13


@pytest.mark.parametrize("make", [list, tuple, lambda ids: array("l", ids)])
def test_ids_in_any_sequence(make: object) -> None:
    ids = [*FINAL, *encode("Hello world 🧬"), 200002]
    assert parse(make(ids)).content == "Hello world 🧬"  # type: ignore[operator]


def test_markers_of_a_dialect_may_share_their_beginning_or_nothing() -> None:
    for markers in ({"end": "[END]", "return": "[ENOUGH]"}, {"end": "E1", "return": "R2", "call": "C3"}):
        options = Options(dialect=Dialect(markers=markers))
        raw = f"<|message|>a{markers['end'][:-1]}{markers['return']}"
        reply = parse(raw, options=options)
        assert reply.content == f"a{markers['end'][:-1]}"
        assert reply.messages[0].complete
        check_chunks(list(raw), reply, options=options)


def test_a_nul_among_the_text_is_text() -> None:
    ids = encode("<|channel|>final<|message|>a\x00b \x01é\x00\x00c<|return|>")
    assert [parse(ids).content for _ in range(2)] == ["a\x00b \x01é\x00\x00c"] * 2
    assert parse(ids).issues == ()
