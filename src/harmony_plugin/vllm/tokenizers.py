"""From one of vLLM's tokenizers to what the core needs of a vocabulary: the markers' ids, and bytes for every id.

Knows Hugging Face's tokenizer interface and the core's `Dialect` and `Vocabulary`; nothing of requests or replies.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harmony_plugin import Dialect, Options
from harmony_plugin.core import SPECIAL_IDS, Vocabulary, harmony_vocabulary
from harmony_plugin.settings import Settings

__all__ = ["Tokens", "tokens_of"]


@dataclass(frozen=True)
class Tokens:
    """What all streams over one tokenizer share: the settings, in its dialect, and its vocabulary (which learns)."""

    options: Options
    vocabulary: Vocabulary


_known: weakref.WeakKeyDictionary[Any, Tokens] = weakref.WeakKeyDictionary()


def tokens_of(tokenizer: Any, settings: Settings) -> Tokens:
    """The settings and vocabulary for ``tokenizer``; worked out once and kept as long as it lives.

    Raises:
        ValueError: it lacks a marker, so its model does not write Harmony.
    """
    found = _known.get(tokenizer)
    if found is None:
        found = _known[tokenizer] = _read(tokenizer, settings)
    return found


def _read(tokenizer: Any, settings: Settings) -> Tokens:
    ids: Mapping[str, int] = tokenizer.get_vocab()
    special = frozenset(getattr(tokenizer, "all_special_ids", ()))
    options = settings.options(model=getattr(tokenizer, "name_or_path", None), keep=settings.debug)
    dialect = Dialect.from_vocabulary(ids.get, markers=options.dialect.markers, reserved=special)
    dialect = replace(dialect, reserved=special - set(dialect.ids.values()))
    harmony = Dialect()
    if dialect.ids == harmony.ids and len(ids) >= SPECIAL_IDS.start:
        # o200k_harmony itself, gpt-oss's vocabulary: the Harmony library has its bytes.
        dialect = replace(dialect, reserved=harmony.reserved)
        return Tokens(replace(options, dialect=dialect), harmony_vocabulary(dialect))
    return Tokens(replace(options, dialect=dialect), Vocabulary(_bytes_of(tokenizer), dialect))


def _bytes_of(tokenizer: Any) -> Any:
    """id -> bytes of any tokenizer, by xgrammar, which vLLM depends on and which reads them for its grammars."""
    from xgrammar import TokenizerInfo

    pieces: list[bytes] = TokenizerInfo.from_huggingface(tokenizer).decoded_vocab
    return pieces.__getitem__
