"""Settings in vLLM: the server's, and what a request may change of them. Knows nothing of vLLM."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

from harmony_plugin.settings import LIMITS, Settings, changed, read

__all__ = [
    "Limits",
    "from_environment",
    "guided",
    "limits_for_request",
    "limits_of_server",
]


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


@functools.lru_cache(maxsize=1)
def from_environment() -> Settings:
    """The settings, read once a process.

    Raises:
        ValueError: names the variables whose values are none that they take.
    """
    return read()


def limits_of_server(settings: Settings) -> Limits:
    """What replies are held to where a request does not say."""
    return Limits(settings.headers or Limits.headers, settings.max_reasoning_tokens)


def guided(settings: Settings) -> bool:
    """Whether prompts are those of `harmony_plugin.prompts`: asked for, or the only way to say what is to be said.

    Raises:
        ValueError: the settings contradict each other.
    """
    said = [
        name for name in ("model_identity", "knowledge_cutoff", "current_date") if getattr(settings, name) is not None
    ]
    if said and settings.prompts == "vllm":
        raise ValueError(f"HARMONY_{said[0].upper()} needs HARMONY_PROMPTS=guide: vLLM's prompts cannot say it")
    return bool(said) or settings.prompts == "guide"


def limits_for_request(limits: Limits, changes: Any) -> Limits:
    """``limits`` as one request wants them. ``changes``: what it sent under `REQUEST_KEY`, unchecked.

    Raises:
        ValueError: the client's mistake, in words for the client.
    """
    return changed(limits, changes, LIMITS)
