"""The vocabulary: pieces by id, learnt once."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from feeding import encode
from harmony_plugin import Delta, Dialect, Options, Stream, Vocabulary, parse
from harmony_plugin.core import vocabulary as module
from harmony_plugin.core.tokens import RESERVED, UNKNOWN
from harmony_plugin.core.vocabulary import Special, harmony_encoding, harmony_vocabulary

PIECES = {1: b"a", 2: "é".encode()[:1], 3: "é".encode()[1:], 5: b"\xff", 200013: b"<|odd|>"}


def special(piece: object) -> tuple[int, str]:
    assert isinstance(piece, Special)
    return piece.kind, piece.text


def test_pieces() -> None:
    vocabulary = Vocabulary(PIECES.__getitem__)
    assert vocabulary.piece(1) == "a"
    assert vocabulary.piece(2) == b"\xc3"
    assert vocabulary.piece(5) == b"\xff"
    assert special(vocabulary.piece(200013)) == (RESERVED, "<|odd|>")
    assert special(vocabulary.piece(4)) == (UNKNOWN, "4")
    assert special(vocabulary.piece(-1)) == (UNKNOWN, "-1")
    assert special(vocabulary.piece(1 << 40)) == (UNKNOWN, str(1 << 40))


def test_ids_are_decoded_once() -> None:
    seen: list[int] = []

    def decode(token: int) -> bytes:
        seen.append(token)
        return PIECES[token]

    vocabulary = Vocabulary(decode)
    for _ in range(3):
        parse([200008, 1, 1, 2, 3], decode=vocabulary)
    assert seen == [1, 2, 3]


def test_streams_of_one_decoder_learn_together() -> None:
    seen: list[int] = []

    def decode(token: int) -> bytes:
        seen.append(token)
        return b"x"

    for _ in range(3):
        parse([200008, 7, 70_000], decode=decode)
    assert seen == [7, 70_000]


def test_ids_beyond_the_table_are_decoded_each_time() -> None:
    large = (1 << 20) + 5
    vocabulary = Vocabulary({large: b"x", large + 1: b"\xc3"}.__getitem__)
    assert parse([200008, large, large], decode=vocabulary).content == "xx"
    assert parse([200008, large + 1, 200002], decode=vocabulary).content == "�"


def test_id_without_text_gives_nothing() -> None:
    stream = Stream(decode={1: b"a", 2: b""}.__getitem__)
    assert [stream.feed([token]) == Delta() for token in (200008, 1, 2, 2, 1)] == [True, False, True, True, False]


def test_ids_that_are_no_integers_are_misuse() -> None:
    for wrong in ("a", 1.5, None):
        with pytest.raises(TypeError):
            parse([200008, wrong], decode=PIECES.__getitem__)  # type: ignore[list-item]


def test_integers_of_any_kind() -> None:
    class Id:
        def __init__(self, value: int) -> None:
            self.value = value

        def __index__(self) -> int:
            return self.value

    assert parse([Id(200008), Id(1)], decode=PIECES.__getitem__).content == "a"  # type: ignore[list-item]


def test_default_is_the_harmony_vocabulary() -> None:
    assert parse(encode("<|channel|>final<|message|>Grüße 🦀 漢字")).content == "Grüße 🦀 漢字"
    assert harmony_vocabulary(Dialect()) is harmony_vocabulary(Dialect())
    assert harmony_encoding() is harmony_encoding()


def test_vocabulary_of_another_dialect_is_misuse() -> None:
    vocabulary = Vocabulary(PIECES.__getitem__, Dialect(ids={"end": 200021}))
    with pytest.raises(ValueError, match="another dialect"):
        Stream(decode=vocabulary).feed([1])
    options = Options(dialect=Dialect(ids={"end": 200021}))
    assert parse([200008, 1, 200021], decode=vocabulary, options=options).messages[0].complete


@pytest.fixture
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Any:
    module.harmony_encoding.cache_clear()
    module.harmony_vocabulary.cache_clear()
    yield
    module.harmony_encoding.cache_clear()
    module.harmony_vocabulary.cache_clear()


@pytest.mark.usefixtures("_fresh")
def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai_harmony", None)
    with pytest.raises(ImportError, match=r"harmony-plugin\[harmony\].*decode="):
        parse([1])
    assert parse("<|message|>text needs no vocabulary").content == "text needs no vocabulary"
    assert parse([200008, 1], decode=PIECES.__getitem__).content == "a"


class Library:
    """Stands in for a Harmony library that cannot do what is asked."""

    class HarmonyEncodingName:
        HARMONY_GPT_OSS = "gpt-oss"

    def __init__(self, encoding: object) -> None:
        self.encoding = encoding

    def load_harmony_encoding(self, name: str) -> object:
        if self.encoding is None:
            raise OSError("no network")
        return self.encoding


@pytest.mark.usefixtures("_fresh")
def test_library_without_its_vocabulary_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai_harmony", Library(None))
    with pytest.raises(ImportError, match=r"no network.*oss-harmony"):
        parse([1])


@pytest.mark.usefixtures("_fresh")
def test_library_of_another_make_names_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai_harmony", Library(object()))
    with pytest.raises(ImportError, match="known to work: oss-harmony"):
        parse([1])


def test_import_of_the_core_imports_the_standard_library_alone() -> None:
    code = (
        "import sys; before = set(sys.modules); import harmony_plugin; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["harmony_plugin"]
