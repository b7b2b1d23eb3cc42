"""Settings of the vLLM plugin: the environment (read here and nowhere else) and what a request may change.

Knows the core's `Options`, and nothing of vLLM.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, cast, get_args

from harmony_plugin import Dialect, Options
from harmony_plugin.core import Target

__all__ = ["REQUEST_KEY", "Limits", "PluginSettings", "for_request", "from_environment", "limits_for_request"]

#: ``chat_template_kwargs: {"harmony": {...}}`` changes settings for one request.
REQUEST_KEY = "harmony"

_OPTIONS = ("commentary", "channels", "arguments", "builtin_tools")
_LIMITS = ("headers", "max_reasoning_tokens")
_PER_REQUEST = (*_OPTIONS, *_LIMITS)


@dataclass(frozen=True)
class Limits:
    """What replies are held to while they are generated.

    Args:
        headers: ``constrain``: only well-formed Harmony headers, of messages that the request allows, can be sampled;
            ``free``: whatever the model writes.
        max_reasoning_tokens: most tokens of reasoning; then the answer is opened. None: no bound.

    Raises:
        ValueError: it takes no such value; says which.
    """

    headers: Literal["constrain", "free"] = "free"
    max_reasoning_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.headers not in ("constrain", "free"):
            raise ValueError(f"headers={self.headers!r}: it is one of constrain, free")
        most = self.max_reasoning_tokens
        if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 0):
            raise ValueError(f"max_reasoning_tokens={most!r}: it is a number of tokens, 0 or more")


_Settings = TypeVar("_Settings", Options, Limits)


@dataclass(frozen=True)
class PluginSettings:
    """What the operator set. See docs/vllm.md for the table.

    Args:
        options: the core's settings.
        limits: what replies are held to.
        markers: renamed markers, by kind; empty for Harmony's own.
        reasoning_content: send ``reasoning_content`` beside vLLM's ``reasoning``.
        prompts: ``vllm``: gpt-oss's chat prompts are vLLM's; ``guide``: those of `harmony_plugin.prompts`.
    """

    options: Options = field(default_factory=lambda: Options(keep=False))
    limits: Limits = field(default_factory=Limits)
    markers: Mapping[str, str] = field(default_factory=dict)
    reasoning_content: bool = True
    prompts: Literal["vllm", "guide"] = "vllm"


@functools.lru_cache(maxsize=1)
def from_environment() -> PluginSettings:
    """The settings in ``HARMONY_*``, read once a process.

    Raises:
        ValueError: names the variable whose value is not one it takes.
    """
    return parse_environment(os.environ)


def parse_environment(environment: Mapping[str, str]) -> PluginSettings:
    """The settings in an environment. Raises ValueError, naming the variable."""
    values: dict[str, Any] = {}
    for name in ("commentary", "arguments", "builtin_tools"):
        if value := environment.get(f"HARMONY_{name.upper()}"):
            values[name] = value
    with _naming("HARMONY_CHANNELS"):
        values["channels"] = _channels(environment.get("HARMONY_CHANNELS", ""))
    with _naming("HARMONY_*"):
        options = Options(keep=False, **values)
        limits = _limits(environment)
    with _naming("HARMONY_MARKERS"):
        markers = json.loads(environment.get("HARMONY_MARKERS") or "{}")
        Dialect(markers=markers)
    switch = environment.get("HARMONY_REASONING_CONTENT", "1").strip().lower()
    if switch not in ("0", "1", "false", "true"):
        raise ValueError(f"HARMONY_REASONING_CONTENT={switch!r}: it is 1 or 0")
    prompts: Any = environment.get("HARMONY_PROMPTS") or PluginSettings.prompts
    if prompts not in ("vllm", "guide"):
        raise ValueError(f"HARMONY_PROMPTS={prompts!r}: it is vllm or guide")
    return PluginSettings(options, limits, markers, switch in ("1", "true"), prompts)


def for_request(options: Options, changes: Any) -> Options:
    """``options`` as one request wants them. ``changes``: what it sent under `REQUEST_KEY`, unchecked.

    Raises:
        ValueError: the client's mistake, in words for the client.
    """
    return _changed(options, changes, _OPTIONS)


def limits_for_request(limits: Limits, changes: Any) -> Limits:
    """The same for ``limits``."""
    return _changed(limits, changes, _LIMITS)


def _changed(settings: _Settings, changes: Any, names: Collection[str]) -> _Settings:
    if changes is None:
        return settings
    if not isinstance(changes, Mapping):
        raise ValueError(f"chat_template_kwargs.{REQUEST_KEY} is an object with {', '.join(_PER_REQUEST)}")
    unknown = sorted(str(name) for name in set(changes) - set(_PER_REQUEST))
    if unknown:
        raise ValueError(
            f"chat_template_kwargs.{REQUEST_KEY} has no {', '.join(unknown)}; it takes {', '.join(_PER_REQUEST)}"
        )
    try:
        return replace(settings, **{name: value for name, value in changes.items() if name in names})
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"chat_template_kwargs.{REQUEST_KEY}: {error}") from None


def _limits(environment: Mapping[str, str]) -> Limits:
    most = environment.get("HARMONY_MAX_REASONING_TOKENS") or None
    if most is not None and not most.strip().isdecimal():
        raise ValueError(f"max_reasoning_tokens={most!r}: it is a number of tokens, 0 or more")
    headers: Any = environment.get("HARMONY_HEADERS") or Limits.headers
    return Limits(headers, None if most is None else int(most))


def _channels(text: str) -> dict[str, Target]:
    """``critic=reasoning,sketch=drop`` as a mapping."""
    channels: dict[str, Target] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, _, target = (word.strip() for word in pair.partition("="))
        if not name or target not in get_args(Target):
            raise ValueError(f"{pair!r} is not CHANNEL=content, CHANNEL=reasoning or CHANNEL=drop")
        channels[name] = cast(Target, target)
    return channels


class _naming:
    """Puts the variable's name in front of a ValueError's message."""

    def __init__(self, variable: str) -> None:
        self._variable = variable

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, (ValueError, TypeError, AttributeError)):
            raise ValueError(f"{self._variable}: {error}") from None
