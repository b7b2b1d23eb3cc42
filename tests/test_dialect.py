"""SPEC section 2: the markers, and dialects that rename them."""

from __future__ import annotations

from typing import Any

import pytest

from feeding import check_chunks, codes, encode, fields, texts
from harmony_plugin import Dialect, Options, parse
from harmony_plugin.core.vocabulary import harmony_encoding

RAW = (
    "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.f "
    '<|constrain|>json<|message|>{"a":1}<|call|><|start|>assistant<|channel|>final<|message|>ok<|return|>'
)
FIELDS = ("hm", "ok", [("f", '{"a":1}')])


def test_markers_and_ids_are_those_of_o200k_harmony() -> None:
    dialect = Dialect()
    assert dialect.ids == {
        "start": 200006,
        "end": 200007,
        "message": 200008,
        "channel": 200005,
        "constrain": 200003,
        "return": 200002,
        "call": 200012,
        "endoftext": 199999,
    }
    for kind, token in dialect.ids.items():
        assert dialect.markers[kind] == f"<|{kind}|>"
        assert harmony_encoding().decode([token]) == f"<|{kind}|>"


def test_renamed_strings() -> None:
    dialect = Dialect(markers={"start": "[BEGIN]", "end": "[/E]", "message": "§", "channel": "<ch>", "call": "[CALL]"})
    raw = RAW
    for kind, marker in dialect.markers.items():
        raw = raw.replace(f"<|{kind}|>", marker)
    how: dict[str, Any] = {"options": Options(dialect=dialect)}
    reply = parse(raw, **how)
    assert fields(reply) == FIELDS
    assert not reply.issues
    assert reply.messages[1].content_type == "<|constrain|>json"
    check_chunks(list(raw), reply, **how)
    for place in range(1, len(raw)):
        check_chunks([raw[:place], raw[place:]], reply, **how)


def test_renamed_strings_leave_the_old_ones_as_text() -> None:
    how: dict[str, Any] = {"options": Options(dialect=Dialect(markers={"end": "[END]"}))}
    assert fields(parse("<|channel|>final<|message|>a<|end|>b[END]", **how)) == (None, "a<|end|>b", [])


def test_renamed_ids() -> None:
    renamed = {"start": 200020, "end": 200021, "message": 200022, "channel": 200023}
    dialect = Dialect(ids=renamed)
    swap = {old: dialect.ids[kind] for kind, old in Dialect().ids.items()}
    ids = [swap.get(token, token) for token in encode(RAW)]
    how: dict[str, Any] = {"options": Options(dialect=dialect)}
    reply = parse(ids, **how)
    assert fields(reply) == FIELDS
    assert not reply.issues
    check_chunks([[token] for token in ids], reply, **how)


def test_renamed_ids_leave_the_old_ones_reserved() -> None:
    reply = parse(encode("<|message|>a<|end|>b"), options=Options(dialect=Dialect(ids={"end": 200021})))
    assert fields(reply) == (None, "ab", [])
    assert texts(reply, "reserved_token") == ["<|end|>"]


def test_renamed_ids_in_the_prompt() -> None:
    how: dict[str, Any] = {"options": Options(dialect=Dialect(ids={"message": 200022}))}
    prompt = [200006, *encode("assistant"), 200005, *encode("analysis"), 200022]
    assert fields(parse(encode("x"), prompt=prompt, **how)) == ("x", None, [])


def test_marker_that_holds_another_is_refused() -> None:
    # "<<|end|>>": a stream could not tell whether <|end|> has come.
    for markers in ({"end": "<|e"}, {"end": "<|call|>x"}, {"end": "x<|call|>y"}, {"end": ""}, {"end": "<|call|>"}):
        with pytest.raises(ValueError, match="markers"):
            Dialect(markers=markers | {"start": "<|e|>"})


def test_two_markers_of_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="same id"):
        Dialect(ids={"end": 200002})


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"stop.*start, end"):
        Dialect(ids={"stop": 1})
    with pytest.raises(ValueError, match="stop"):
        Dialect(markers={"stop": "x"})


def test_dialects_alike_are_equal_and_hash_alike() -> None:
    assert Dialect() == Dialect(markers={"end": "<|end|>"})
    assert hash(Dialect()) == hash(Dialect(ids={"end": 200007}))
    assert Dialect() != Dialect(ids={"end": 200021})


def test_from_vocabulary_reads_the_ids() -> None:
    table = {f"<|{kind}|>": 1000 + n for n, kind in enumerate(Dialect().ids)}
    dialect = Dialect.from_vocabulary(table.get, reserved=frozenset({999}))
    assert dialect.ids == {kind: 1000 + n for n, kind in enumerate(Dialect().ids)}
    assert 999 in dialect.reserved
    pieces = {1: b"assistant", 2: b"final", 3: b"hi", 999: b"<|odd|>"}
    ids = [table["<|channel|>"], 2, table["<|message|>"], 3, 999, table["<|return|>"]]
    reply = parse(ids, options=Options(dialect=dialect), decode=pieces.__getitem__)
    assert fields(reply) == (None, "hi", [])
    assert texts(reply, "reserved_token") == ["<|odd|>"]
    assert reply.messages[0].complete


def test_from_vocabulary_with_renamed_markers() -> None:
    table = {f"<|{kind}|>": 1000 + n for n, kind in enumerate(Dialect().ids)} | {"[END]": 7}
    dialect = Dialect.from_vocabulary(table.get, markers={"end": "[END]"})
    assert dialect.ids["end"] == 7
    assert dialect.markers["end"] == "[END]"


def test_from_vocabulary_names_what_is_missing() -> None:
    table = {"<|start|>": 1, "<|end|>": 2, "<|message|>": 3, "<|constrain|>": 4, "<|return|>": 5}
    with pytest.raises(ValueError, match=r"<\|channel\|>, <\|call\|>") as caught:
        Dialect.from_vocabulary(table.get)
    assert "endoftext" not in str(caught.value)


def test_from_vocabulary_does_without_endoftext() -> None:
    table = {f"<|{kind}|>": 1000 + n for n, kind in enumerate(Dialect().ids) if kind != "endoftext"}
    dialect = Dialect.from_vocabulary(table.get)
    ids = [table["<|message|>"], 5, 199999, table["<|end|>"]]
    reply = parse(ids, options=Options(dialect=dialect), decode={5: b"a", 199999: b"b"}.__getitem__)
    assert fields(reply) == (None, "ab", [])
    assert codes(reply) == []
