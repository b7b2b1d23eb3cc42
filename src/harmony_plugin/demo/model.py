"""Builds the demo's model: a tiny random GGUF that carries the complete o200k_harmony vocabulary.

Every token id and every piece of text is the one that gpt-oss has, so prompts, markers, detokenising and grammars
behave as with the real model; only the weights are noise. One layer of width 64 makes a file of about 34 MB that
loads in half a second and decodes in about 2 ms a token on two CPU cores. What it *says* is decided by
`harmony_plugin.demo.script`.

The vocabulary comes from the Harmony library (it decodes single ids), and the byte-pair merges are recovered from the
order of the ids, so nothing is downloaded. This module knows nothing of servers or scripts.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..core import SPECIAL_IDS, VOCABULARY_SIZE, Dialect, harmony_encoding

__all__ = ["build_model", "cache_folder"]

# The name carries the recipe's version: change it when the file's contents change, so that old caches are not reused.
FILE_NAME = "tiny-random-o200k-harmony-1.gguf"
CONTEXT_LENGTH = 131_072
WIDTH = 64
FEED_FORWARD = 128
HEADS = 2

FIRST_SPECIAL = SPECIAL_IDS.start  # <|startoftext|>; every id from here on is a special token
MARKERS = Dialect().ids

Progress = Callable[[str, float], None]
"""Called with the name of the step under way and the share done, 0.0 to 1.0."""


def cache_folder() -> Path:
    """The folder where the demo keeps its model: the user's cache folder, as the platform has it."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("harmony-plugin", appauthor=False))


def build_model(path: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> Path:
    """Return the tiny model's path, writing the file first if it is not there yet (a few seconds, once).

    The file appears whole or not at all: it is written beside its place and renamed, so several processes may call this
    at the same time.

    Args:
        path: the file to write; default: in `cache_folder()`.
        progress: told how far each step is; see `Progress`.

    Raises:
        ImportError: without the `gguf` package or the Harmony library (extra `llamacpp`).
    """
    target = Path(path) if path is not None else cache_folder() / FILE_NAME
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=target.name + ".", suffix=".part", dir=target.parent)
    os.close(handle)
    try:
        _write(temporary, progress or (lambda step, share: None))
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def _write(path: str, progress: Progress) -> None:
    try:
        import gguf
        import numpy as np
    except ImportError as error:
        raise ImportError(
            "the demo's model is written with the gguf package: pip install 'harmony-plugin[llamacpp]'"
        ) from error

    pieces = _vocabulary()
    merges: list[str] = []
    text = _byte_alphabet()
    for number, (left, right) in enumerate(_merges(pieces)):
        merges.append(f"{''.join(text[b] for b in left)} {''.join(text[b] for b in right)}")
        if number % 5_000 == 0:
            progress("recovering merges", number / FIRST_SPECIAL)
    progress("recovering merges", 1.0)

    tokens = ["".join(text[b] for b in piece) for piece in pieces[:FIRST_SPECIAL]]
    tokens += [piece.decode() for piece in pieces[FIRST_SPECIAL:]]
    types = [gguf.TokenType.NORMAL] * FIRST_SPECIAL + [gguf.TokenType.CONTROL] * (VOCABULARY_SIZE - FIRST_SPECIAL)

    progress("writing", 0.0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny random model with the o200k_harmony vocabulary")
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(VOCABULARY_SIZE)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-4o")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(FIRST_SPECIAL)
    writer.add_eos_token_id(MARKERS["return"])
    writer.add_pad_token_id(MARKERS["endoftext"])
    writer.add_add_bos_token(False)

    random = np.random.default_rng(20_250_805)

    def noise(*shape: int, dtype: type = np.float32) -> np.ndarray:
        return (random.standard_normal(shape, dtype=np.float32) * 0.05).astype(dtype)

    head = WIDTH // HEADS
    # No output matrix: llama.cpp then ties it to the embedding, which halves the file.
    writer.add_tensor("token_embd.weight", noise(VOCABULARY_SIZE, WIDTH, dtype=np.float16))
    progress("writing", 0.5)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    writer.add_tensor("blk.0.attn_norm.weight", np.ones(WIDTH, dtype=np.float32))
    writer.add_tensor("blk.0.ffn_norm.weight", np.ones(WIDTH, dtype=np.float32))
    writer.add_tensor("blk.0.attn_q.weight", noise(WIDTH, WIDTH))
    writer.add_tensor("blk.0.attn_k.weight", noise(head, WIDTH))
    writer.add_tensor("blk.0.attn_v.weight", noise(head, WIDTH))
    writer.add_tensor("blk.0.attn_output.weight", noise(WIDTH, WIDTH))
    writer.add_tensor("blk.0.ffn_gate.weight", noise(FEED_FORWARD, WIDTH))
    writer.add_tensor("blk.0.ffn_up.weight", noise(FEED_FORWARD, WIDTH))
    writer.add_tensor("blk.0.ffn_down.weight", noise(WIDTH, FEED_FORWARD))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    progress("writing", 1.0)


def _vocabulary() -> list[bytes]:
    """The bytes of every id below `VOCABULARY_SIZE`, by the Harmony library."""
    # The public decode() turns broken UTF-8 into U+FFFD; single tokens need their bytes.
    decode: Callable[[Sequence[int]], bytes] = harmony_encoding()._inner.decode_bytes
    return [decode([token]) for token in range(VOCABULARY_SIZE)]


def _merges(pieces: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The merges of a byte-pair vocabulary in order: each token split as the ids below its own split it."""
    ranks = {piece: rank for rank, piece in enumerate(pieces[:FIRST_SPECIAL])}
    for rank, piece in enumerate(pieces[:FIRST_SPECIAL]):
        if len(piece) < 2:
            continue
        parts = [piece[i : i + 1] for i in range(len(piece))]
        while len(parts) > 2:
            lowest, place = rank, -1
            for i in range(len(parts) - 1):
                candidate = ranks.get(parts[i] + parts[i + 1], rank)
                if candidate < lowest:
                    lowest, place = candidate, i
            if place < 0:
                raise ValueError(f"token {rank} {piece!r} is not made of two tokens below it")
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        yield parts[0], parts[1]


def _byte_alphabet() -> list[str]:
    """GPT-2's printable character for each byte, the alphabet that GGUF token lists are written in."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {byte: chr(byte) for byte in printable}
    spare = 0x100
    for byte in range(256):
        if byte not in alphabet:
            alphabet[byte] = chr(spare)
            spare += 1
    return [alphabet[byte] for byte in range(256)]
