"""Builds the demo's model: a tiny random GGUF that carries the complete o200k_harmony vocabulary.

Every token id and every piece of text is the one that gpt-oss has, and so is the architecture: experts, attention
sinks, and a window of 128 tokens in every other layer. So prompts, markers, detokenising, grammars and the cache behave
as with the real model; only the weights are noise. Four layers of width 64 make a file of about 36 MB that loads in
half a second and decodes in about 2 ms a token on one CPU core. What it *says* is decided by
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
FILE_NAME = "tiny-gpt-oss-o200k-harmony-1.gguf"
CONTEXT_LENGTH = 131_072
WINDOW = 128
WIDTH = 64
LAYERS = 4  # the first and the third see the window only, as llama.cpp has it for gpt-oss
EXPERTS = 4
FEED_FORWARD = 32
HEADS = 2
# Of the weights. With less, greedy replies go in circles; with more, the last bit of a number decides what is said.
SPREAD = 0.2
OUTPUT_SPREAD = 0.05  # so that all tokens are about equally likely

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
    head = WIDTH // HEADS
    writer = gguf.GGUFWriter(path, "gpt-oss")
    writer.add_name("Tiny random gpt-oss with the o200k_harmony vocabulary")
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_expert_feed_forward_length(FEED_FORWARD)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(2)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_sliding_window(WINDOW)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(150_000.0)
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(32.0)
    writer.add_rope_scaling_orig_ctx_len(CONTEXT_LENGTH // 32)
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

    def noise(*shape: int, spread: float = SPREAD) -> np.ndarray:
        return (random.standard_normal(shape, dtype=np.float32) * spread).astype(np.float32)

    def add_vocabulary(name: str, spread: float) -> None:
        eight_bits = gguf.GGMLQuantizationType.Q8_0
        weights = gguf.quants.quantize(noise(VOCABULARY_SIZE, WIDTH, spread=spread), eight_bits)
        writer.add_tensor(name, weights, raw_dtype=eight_bits)

    def add_matrix(name: str, rows: int, columns: int, *experts: int) -> None:
        writer.add_tensor(f"{name}.weight", noise(*experts, rows, columns))
        writer.add_tensor(f"{name}.bias", noise(*experts, rows))

    # Most of a token's time is reading the output matrix, which gpt-oss cannot share with the embedding.
    add_vocabulary("token_embd.weight", SPREAD)
    progress("writing", 0.4)
    add_vocabulary("output.weight", OUTPUT_SPREAD)
    progress("writing", 0.8)
    ones = np.ones(WIDTH, dtype=np.float32)
    writer.add_tensor("output_norm.weight", ones)
    for layer in (f"blk.{number}" for number in range(LAYERS)):
        writer.add_tensor(f"{layer}.attn_norm.weight", ones)
        writer.add_tensor(f"{layer}.post_attention_norm.weight", ones)
        add_matrix(f"{layer}.attn_q", WIDTH, WIDTH)
        add_matrix(f"{layer}.attn_k", head, WIDTH)
        add_matrix(f"{layer}.attn_v", head, WIDTH)
        add_matrix(f"{layer}.attn_output", WIDTH, WIDTH)
        writer.add_tensor(f"{layer}.attn_sinks.weight", noise(HEADS))
        add_matrix(f"{layer}.ffn_gate_inp", EXPERTS, WIDTH)
        add_matrix(f"{layer}.ffn_gate_exps", FEED_FORWARD, WIDTH, EXPERTS)
        add_matrix(f"{layer}.ffn_up_exps", FEED_FORWARD, WIDTH, EXPERTS)
        add_matrix(f"{layer}.ffn_down_exps", WIDTH, FEED_FORWARD, EXPERTS)
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
