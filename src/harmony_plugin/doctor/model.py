"""A model on disk: whether its vocabulary is Harmony's, and so whether this package serves it. Reads no weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core import Dialect
from .findings import Finding, State, installed, probe

__all__ = ["examine"]

HERE = "model"
TUNE = "serve it with another chat format or parser; a gpt-oss fine-tune must keep gpt-oss's tokenizer"


def examine(given: str) -> Iterator[Finding]:
    """A .gguf file, or a folder as Hugging Face's libraries write it."""
    path = Path(given)
    if path.is_dir() and (path / "config.json").is_file():
        yield from _folder(path)
    elif path.is_file():
        yield from _gguf(path)
    elif path.is_dir():
        models = ", ".join(sorted(file.name for file in path.glob("*.gguf"))[:5])
        do = f"name one of {models}" if models else "name a .gguf file, or a folder with config.json"
        yield Finding(HERE, given, State.PROBLEM, "is a folder with no config.json", do)
    else:
        do = "a model of a hub is looked at once it is downloaded" if given.count("/") == 1 else "is the path right?"
        yield Finding(HERE, given, State.PROBLEM, "is not there", do)


def _gguf(path: Path) -> Iterator[Finding]:
    if not installed("llama-cpp-python", "llama_cpp_python"):
        do = "pip install 'harmony-plugin[llamacpp]'"
        yield Finding(HERE, path.name, State.PROBLEM, "llama-cpp-python, which reads it, is not installed", do)
        return
    found = probe("gguf", str(path.absolute()))
    if "error" in found:
        yield Finding(HERE, path.name, State.PROBLEM, str(found["error"]))
        return
    size = f"{found['parameters'] / 1e6:,.0f} M parameters, {found['size'] / 2**30:.2f} GiB"
    told = f"{found['architecture']}, {size}, context {found['context']:,}, {found['vocabulary']:,} tokens"
    yield Finding(HERE, path.name, State.OK, told)
    yield _verdict(found["wrong"], "the llama.cpp server serves it with chat format harmony, the default")


def _folder(path: Path) -> Iterator[Finding]:
    config = _json(path / "config.json")
    kind = config.get("model_type")
    context = config.get("max_position_embeddings")
    yield Finding(HERE, path.name, State.OK, f"model_type {kind}, context {context}, {config.get('vocab_size')} tokens")
    tokenizer = _json(path / "tokenizer.json")
    if not tokenizer:
        yield Finding(HERE, "vocabulary", State.PROBLEM, "there is no tokenizer.json", "download the whole model")
        return
    ids = {token.get("content"): token.get("id") for token in tokenizer.get("added_tokens", ())}
    ids |= (tokenizer.get("model") or {}).get("vocab") or {}
    wanted = Dialect()
    missing = [text for kind, text in wanted.markers.items() if text not in ids and kind != "endoftext"]
    other = [text for kind, text in wanted.markers.items() if text in ids and ids[text] != wanted.ids[kind]]
    if kind == "gpt_oss":
        yield _verdict(missing + other, "vLLM serves it with the plugin's parsers")
        return
    if missing:
        yield _verdict(missing, "")
        return
    told = f"it has Harmony's markers{' under other ids' if other else ''}: vLLM serves it with the plugin's parsers"
    yield Finding(HERE, "vocabulary", State.OK, told)


def _verdict(wrong: list[str], right: str) -> Finding:
    if wrong:
        return Finding(
            HERE, "vocabulary", State.PROBLEM, f"is not Harmony's: {', '.join(wrong[:4])} not as there", TUNE
        )
    return Finding(HERE, "vocabulary", State.OK, f"is Harmony's: {right}")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
