"""What is looked at in a process of its own: ``python -m harmony_plugin.doctor.probes NAME …`` prints JSON, on the last
line of its output (what is imported may print, too)."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

__all__: list[str] = []


def vllm() -> dict[str, Any]:
    """vLLM's version, and whether everything is there that the plugin builds on."""
    import vllm as engine

    from ..vllm import grammar, seams

    found: dict[str, Any] = {"version": engine.__version__}
    try:
        holds = seams.load().holds
        seams.check_serving()
    except Exception as error:
        return {**found, "missing": str(error)}
    absent = []
    for module, owner, method in seams.SERVING_WHERE_THERE:
        try:
            seams._attribute(seams._attribute(seams._module(module), owner), method)
        except Exception:
            absent.append(f"{owner}.{method}")
    from vllm.plugins import load_general_plugins
    from vllm.reasoning import ReasoningParserManager

    load: Callable[[], None] = load_general_plugins
    load()
    registered = "harmony" in ReasoningParserManager.list_registered()
    return {**found, "absent": absent, "registered": registered, "holds": holds and grammar.available()}


def llamacpp() -> dict[str, Any]:
    """llama-cpp-python's version, what it was built for, and whether everything is there that the server builds on."""
    import llama_cpp

    found: dict[str, Any] = {"version": llama_cpp.__version__, "gpu": bool(llama_cpp.llama_supports_gpu_offload())}
    try:
        importlib.import_module("harmony_plugin.llamacpp")
    except Exception as error:
        return {**found, "missing": str(error)}
    try:
        importlib.import_module("harmony_plugin.llamacpp.server.stock")
    except Exception as error:
        return {**found, "server": str(error)}
    return found


def vocabulary() -> dict[str, Any]:
    """Whether the Harmony library's vocabulary is there."""
    from ..core import harmony_encoding

    return {"tokens": len(harmony_encoding().encode("Hello", disallowed_special=()))}


def gguf(path: str) -> dict[str, Any]:
    """What a model file says of itself, and whether it has Harmony's vocabulary. Reads no weights."""
    import llama_cpp

    from ..core import Dialect, harmony_encoding
    from ..llamacpp.engine import token_piece
    from ..llamacpp.server import stock

    stock.check_file(path)
    facts = stock.read_facts(path)
    found: dict[str, Any] = {
        "architecture": facts.architecture,
        "parameters": facts.parameters,
        "size": facts.size,
        "context": facts.trained,
        "vocabulary": facts.vocabulary,
        "template": "tokenizer.chat_template" in facts.metadata,
    }
    llama = llama_cpp.Llama(path, vocab_only=True, verbose=False)
    with contextlib.closing(llama):
        vocab = llama_cpp.llama_model_get_vocab(llama.model)

        def piece(token: int) -> str:
            return token_piece(vocab, token).decode("utf-8", "replace") if token < facts.vocabulary else ""

        wanted = Dialect()
        wrong = [text for kind, text in wanted.markers.items() if piece(wanted.ids[kind]) != text]
        words = harmony_encoding().encode("assistant analysis 1234 größer 你好", disallowed_special=())
        wrong += [] if wrong or "".join(map(piece, words)) == "assistant analysis 1234 größer 你好" else ["its words"]
    return {**found, "wrong": wrong}


PROBES: dict[str, Callable[..., dict[str, Any]]] = {
    "vllm": vllm,
    "llamacpp": llamacpp,
    "vocabulary": vocabulary,
    "gguf": gguf,
}

if __name__ == "__main__":
    name, *given = sys.argv[1:]
    try:
        found = PROBES[name](*given)
    except BaseException as error:  # whatever importing an engine may do
        found = {"error": f"{type(error).__name__}: {error}".strip().splitlines()[0]}
    print(f"\n{json.dumps(found)}", flush=True)
