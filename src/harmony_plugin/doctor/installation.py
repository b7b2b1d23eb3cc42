"""Python, the packages beside this one, the Harmony library, and the settings in force. Imports no engine."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from .. import __version__
from .findings import Finding, State, installed, probe

__all__ = ["examine", "settings"]

HERE = "installation"
LIBRARY = "Harmony library"
#: What is missing without a package, and the extra that brings it.
WANTED = {
    "pydantic-settings": ("settings (HARMONY_…)", "cli"),
    "rich": ("explain on a terminal", "cli"),
    "llguidance": ("constrained headers and JSON on llama.cpp", "llamacpp"),
    "json-repair": ("the setting arguments=repair", "repair"),
    "openai": ("verify, demo", "verify"),
    "anthropic": ("verify", "verify"),
}
NOWHERE = "http://127.0.0.1:9"
OFFLINE = {name: NOWHERE for kind in ("http", "https", "all") for name in (f"{kind}_proxy", f"{kind.upper()}_PROXY")}


def examine(*, quick: bool) -> Iterator[Finding]:
    """Everything but settings. ``quick``: try nothing out."""
    python = f"{platform.python_version()} on {platform.platform()}, {sys.executable}"
    yield Finding(HERE, "Python", State.OK, python)
    yield Finding(HERE, "harmony-plugin", State.OK, f"{__version__}, in {Path(__file__).parents[1]}")
    for name, (what, extra) in WANTED.items():
        found = installed(name)
        if found:
            yield Finding(HERE, name, State.OK, found[name])
        else:
            yield Finding(HERE, name, State.ABSENT, f"for {what}: pip install 'harmony-plugin[{extra}]'")
    yield from _library(quick)


def _library(quick: bool) -> Iterator[Finding]:
    found = installed("oss-harmony", "openai-harmony")
    told = ", ".join(f"{name} {number}" for name, number in found.items())
    if not found:
        do = "pip install 'harmony-plugin[harmony]'"
        yield Finding(
            LIBRARY, "openai_harmony", State.WARNING, "not installed: no prompts, and no ids without decode=", do
        )
        return
    if len(found) > 1:
        do = "pip uninstall -y openai-harmony oss-harmony && pip install oss-harmony"
        yield Finding(
            LIBRARY,
            "openai_harmony",
            State.PROBLEM,
            f"{told}: two distributions of one package, which overwrite each other's files",
            do,
        )
    else:
        yield Finding(LIBRARY, "openai_harmony", State.OK, told)
    if quick:
        return
    offline = probe("vocabulary", environment={**OFFLINE, "NO_PROXY": "", "no_proxy": ""})
    if "error" not in offline:
        yield Finding(LIBRARY, "vocabulary", State.OK, "loads without a network")
        return
    online = probe("vocabulary")
    if "error" in online:
        do = "pip uninstall -y openai-harmony && pip install oss-harmony, which has it embedded"
        yield Finding(LIBRARY, "vocabulary", State.PROBLEM, f"does not load: {online['error']}", do)
    else:
        do = "pip uninstall -y openai-harmony && pip install oss-harmony, for hosts without a network"
        yield Finding(LIBRARY, "vocabulary", State.WARNING, "is downloaded at first use", do)


def settings(*, everything: bool) -> Iterator[Finding]:
    """The settings in force, and where each comes from; those that were changed, or all."""
    section = "settings"
    try:
        from .. import settings as common
    except ImportError:
        named = sorted(name for name in os.environ if name.startswith("HARMONY_"))
        if named:
            do = "pip install 'harmony-plugin[cli]'"
            yield Finding(
                section, named[0], State.WARNING, "is set, and pydantic-settings, which reads it, is missing", do
            )
        return
    for line in common.suspects():
        name, _, told = line.partition(" ")
        yield Finding(section, name, State.WARNING, told, "correct the name, or unset it")
    try:
        chosen = common.read()
    except ValueError as error:
        for line in str(error).split("; HARMONY_"):
            name, _, told = line.removeprefix("HARMONY_").partition("=")
            yield Finding(section, f"HARMONY_{name}", State.PROBLEM, told, "correct the value: docs/settings.md")
        return
    changed = 0
    for name, source in common.sources().items():
        value = getattr(chosen, name)
        if source != "default" or everything:
            changed += source != "default"
            yield Finding(section, f"HARMONY_{name.upper()}", State.OK, f"{value!r} ({source})")
    if not changed:
        yield Finding(section, "HARMONY_…", State.OK, "none is set: the defaults")
