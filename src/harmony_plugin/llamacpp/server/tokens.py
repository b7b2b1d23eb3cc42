"""`/tokenize` and `/detokenize`, as scripts for llama.cpp's `llama-server` know them: ids of a text, and back.

Bodies in, replies out, in any thread; knows no HTTP.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

from ...core import RequestError, harmony_encoding
from ..handler import HarmonyChatHandler
from . import stock

__all__ = ["check", "detokenize", "text_of", "tokenize"]

Json: TypeAlias = "dict[str, Any]"

LONGEST_RUN = 10_000
"""Characters of one kind in a row, past which a text is refused. Tokenizers take such a run as one word: the Harmony
library in time that grows with its square, and llama.cpp's runs out of stack on 40,000, which ends the process."""

# As the tokenizers see it; Python's \\s has the separators U+001C to U+001F besides.
SPACES = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
WORDS = re.compile(f"[{SPACES}]+|[^{SPACES}]+")
# Of the first letters of Unicode's categories: letters, numbers and signs in a row; marks go with letters and signs.
KINDS = (re.compile("[LM]+|N+"), re.compile("[MPSCZ]+"))

CHUNK = 1 << 16
# A word begins there, whatever stands around it.
BREAK = re.compile(r"(?<=[^\W_])(?= )|(?<=\n)(?=[^\W_])")


def tokenize(body: Any, llama: Any) -> Json:
    """The ids of `content`.

    Raises:
        RequestError: for a field of the wrong type, none, or a text that no tokenizer is given.
    """
    fields = _fields(body)
    content = fields.get("content")
    if content is None:
        raise RequestError("Missing required parameter: 'content'.", "content", "missing_required_parameter")
    if not isinstance(content, str):
        raise RequestError("content is not a string", "content", "invalid_type")
    special, whole, pieces = (
        _flag(fields, name, unless)
        for name, unless in (("parse_special", True), ("add_special", False), ("with_pieces", False))
    )
    vocabulary = stock.vocabulary(llama)
    ids = _encode(llama, content, special=special)
    if whole:
        ids = [*vocabulary.before, *ids, *vocabulary.behind]
    if not pieces:
        return {"tokens": ids}
    known = {token: _shown(piece) for token, piece in vocabulary.pieces(ids).items()}
    return {"tokens": [{"id": token, "piece": known[token]} for token in ids]}


def detokenize(body: Any, llama: Any) -> Json:
    """The text of `tokens`.

    Raises:
        RequestError: there are none, or something else is among them.
    """
    ids = _fields(body).get("tokens")
    if ids is None:
        raise RequestError("Missing required parameter: 'tokens'.", "tokens", "missing_required_parameter")
    if not isinstance(ids, list):
        raise RequestError("tokens is not a list of ids", "tokens", "invalid_type")
    vocabulary = stock.vocabulary(llama)
    _check_ids(ids, "tokens", vocabulary.size)
    return {"content": text_of(ids, vocabulary)}


def text_of(ids: Iterable[int], vocabulary: stock.Vocabulary) -> str:
    """The text of ids that the vocabulary has; bytes that are no UTF-8 are U+FFFD.

    Raises:
        RequestError: the model was unloaded.
    """
    ids = list(ids)
    pieces = vocabulary.pieces(ids)
    return b"".join(map(pieces.__getitem__, ids)).decode("utf-8", "replace")


def _encode(llama: Any, text: str, *, special: bool) -> list[int]:
    """Ids as prompts have them; llama.cpp takes some of Harmony's markers for markers even where it must not."""
    handler = stock.chat_handler(llama)
    if not isinstance(handler, HarmonyChatHandler):
        return stock.vocabulary(llama).encode(text, special=special)
    encode: Callable[[str], list[int]] = handler.prompts.encode
    if special:
        encode = partial(harmony_encoding().encode, allowed_special="all")
    return [token for part in _parts(text) for token in encode(part)]


def _parts(text: str) -> Iterator[str]:
    """`text` in parts whose ids are the whole's: no other thread runs while the Harmony library reads one."""
    begin = 0
    while begin < len(text):
        found = BREAK.search(text, begin + CHUNK)
        end = found.start() if found is not None else len(text)
        yield text[begin:end]
        begin = end


def check(body: Any, size: int | None = None) -> None:
    """Refuse what ends the process, or holds it up for minutes, in a tokenizer or in llama.cpp: wherever in a body a
    text stands that is one long word, and ids that the model does not have.

    Args:
        size: how many ids there are; None: ids are not looked at.

    Raises:
        RequestError: says what.
    """
    todo: list[tuple[str, Any]] = [("", body)]
    while todo:
        where, value = todo.pop()
        if isinstance(value, str):
            if any(_long_run(word[0]) for word in WORDS.finditer(value) if word.end() - word.start() > LONGEST_RUN):
                what = f"{where} has more than {LONGEST_RUN:,} letters, digits, signs or spaces in a row"
                raise RequestError(what, where or None, "invalid_value")
        elif isinstance(value, Mapping):
            todo += ((f"{where}.{name}" if where else str(name), inner) for name, inner in value.items())
        elif isinstance(value, list):
            todo += ((f"{where}[{place}]", inner) for place, inner in enumerate(value) if not isinstance(inner, int))
    if size is None or not isinstance(body, Mapping):
        return
    for name in ("prompt", "input", "tokens"):
        given = body.get(name)
        for ids in [given, *given] if isinstance(given, list) else []:
            if isinstance(ids, list) and any(isinstance(token, int) for token in ids):
                _check_ids([token for token in ids if isinstance(token, int)], name, size)


def _check_ids(ids: list[Any], name: str, size: int) -> None:
    for place, token in enumerate(ids):
        where = f"{name}[{place}]"
        if not isinstance(token, int) or isinstance(token, bool):
            raise RequestError(f"{where} is not a whole number", where, "invalid_type")
        if not 0 <= token < size:
            raise RequestError(f"{where}: the model has no token {token}", where, "invalid_value")


def _long_run(word: str) -> bool:
    if re.match(f"[{SPACES}]", word):
        return True
    kinds = "".join(unicodedata.category(char)[0] for char in word)
    return any(run.end() - run.start() > LONGEST_RUN for kind in KINDS for run in kind.finditer(kinds))


def _fields(body: Any) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise RequestError("The body is not a JSON object.", None, "invalid_type")
    return body


def _flag(fields: Mapping[str, Any], name: str, unless: bool) -> bool:
    given = fields.get(name)
    if given is not None and not isinstance(given, bool):
        raise RequestError(f"{name} is not true or false", name, "invalid_type")
    return unless if given is None else given


def _shown(piece: bytes) -> str | list[int]:
    """A piece as text, or where it is a part of a character, as its bytes."""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return list(piece)
