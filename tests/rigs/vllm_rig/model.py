"""A model directory that vLLM serves on a CPU in seconds: tiny, its weights random, its vocabulary the real one.

The tokenizer is complete o200k_harmony, recovered from the Harmony library, so ids and texts are gpt-oss's own. What
the model "says" comes from `scripted_tokens.py`; nothing here knows of scripts, servers or the plugin.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any, Literal

Kind = Literal["gpt_oss", "llama"]

VOCABULARY_SIZE = 201_088
FIRST_SPECIAL = 199_998
STOP_IDS = (
    200_002,
    199_999,
    200_012,
)  # <|return|>, <|endoftext|>, <|call|>, as gpt-oss's generation_config.json has them

# How o200k cuts text before it merges (tiktoken_ext/openai_public.py).
_LETTERS_UP = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LETTERS_LOW = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN = "|".join(
    [
        rf"[^\r\n\p{{L}}\p{{N}}]?{_LETTERS_UP}*{_LETTERS_LOW}+{_SUFFIX}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_LETTERS_UP}+{_LETTERS_LOW}*{_SUFFIX}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 64,
    "head_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": True,
    "bos_token_id": FIRST_SPECIAL,
    "eos_token_id": STOP_IDS[0],
    "pad_token_id": STOP_IDS[1],
    "torch_dtype": "float32",
}
CONFIGS: dict[Kind, dict[str, Any]] = {
    "gpt_oss": _COMMON
    | {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "layer_types": ["sliding_attention", "full_attention"],
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
        "rope_theta": 150_000,
        "attention_bias": True,
    },
    "llama": _COMMON | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rope_theta": 150_000},
}

# vLLM renders gpt_oss prompts through the Harmony library and never reads this one.
CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def cache_directory() -> Path:
    """Where generated models are kept between runs: `harmony-plugin/e2e-vllm` in the user's cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "harmony-plugin" / "e2e-vllm"


def _generation() -> str:
    """Names what is generated: a change to this recipe makes a new directory."""
    return hashlib.sha256(Path(__file__).read_bytes() + CHAT_TEMPLATE.read_bytes()).hexdigest()[:12]


def _write_tokenizer(directory: Path) -> None:
    """Write `tokenizer.json`; a few seconds, most of them recovering the merges from the ranks."""
    from openai_harmony import HarmonyEncodingName, load_harmony_encoding
    from tokenizers import AddedToken
    from transformers.convert_slow_tokenizer import TikTokenConverter

    encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    decode = encoding._inner.decode_bytes  # bytes of one id; the public `decode` gives text, lossy for part characters
    ranks = {bytes(decode([i])): i for i in range(FIRST_SPECIAL)}
    if len(ranks) != FIRST_SPECIAL:
        raise RuntimeError(f"expected {FIRST_SPECIAL} different tokens, the Harmony library has {len(ranks)}")
    with tempfile.TemporaryDirectory() as work:
        vocabulary = Path(work) / "ranks.tiktoken"
        vocabulary.write_bytes(b"".join(b"%s %d\n" % (b64encode(token), rank) for token, rank in ranks.items()))
        tokenizer = TikTokenConverter(vocab_file=str(vocabulary), pattern=PATTERN).converted()
    names = [bytes(decode([i])).decode() for i in range(FIRST_SPECIAL, VOCABULARY_SIZE)]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
    for name, i in ((names[0], FIRST_SPECIAL), ("<|call|>", 200_012), (names[-1], VOCABULARY_SIZE - 1)):
        if tokenizer.token_to_id(name) != i:
            raise RuntimeError(f"{name} got id {tokenizer.token_to_id(name)}, not {i}")
    tokenizer.save(str(directory / "tokenizer.json"))


def _tokenizer_directory() -> Path:
    # Named by the library's version too: another one may carry another vocabulary.
    import importlib.metadata

    version = "unknown"
    for name in ("oss-harmony", "openai-harmony"):
        try:
            version = f"{name}-{importlib.metadata.version(name)}"
            break
        except importlib.metadata.PackageNotFoundError:
            continue
    return cache_directory() / f"tokenizer-{version}"


def _build_once(target: Path, build: Any) -> Path:
    """Build into a directory beside `target` and rename it: two test runs at once, or one cut off, leave no half."""
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=target.name + "."))
    try:
        build(work)
        work.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def model_directory(kind: Kind) -> Path:
    """The directory for `vllm serve`, made at the first call and kept in the user's cache."""
    tokenizer = _build_once(_tokenizer_directory(), _write_tokenizer) / "tokenizer.json"

    def build(work: Path) -> None:
        (work / "config.json").write_text(json.dumps(CONFIGS[kind], indent=1))
        (work / "generation_config.json").write_text(json.dumps({"eos_token_id": list(STOP_IDS)}))
        special = {"bos_token": "<|startoftext|>", "eos_token": "<|return|>", "pad_token": "<|endoftext|>"}
        (work / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 131_072} | special)
        )
        (work / "special_tokens_map.json").write_text(json.dumps(special))
        shutil.copy(CHAT_TEMPLATE, work)
        os.link(tokenizer, work / "tokenizer.json")

    return _build_once(cache_directory() / f"{kind}-{_generation()}", build)


if __name__ == "__main__":
    for name in CONFIGS:
        print(model_directory(name))
