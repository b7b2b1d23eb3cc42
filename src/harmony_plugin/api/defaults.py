"""What a request that does not say gets, as one typed object. Reads no environment: the server does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["REASONING_NAMES", "Defaults"]

#: The fields of a chat message that clients read reasoning from.
REASONING_NAMES = ("reasoning", "reasoning_content")


@dataclass(frozen=True)
class Defaults:
    """Values for the fields that a request leaves out. The sampling values are those that gpt-oss was made for.

    Attributes:
        temperature: 1.0; 0 picks the likeliest token each time.
        top_p: 1.0 keeps all tokens.
        top_k: 0 keeps all tokens.
        min_p: 0.0 keeps all tokens.
        typical_p: 1.0 keeps all tokens.
        repeat_penalty: 1.0 is none. Penalties hurt Harmony: markers repeat by design.
        presence_penalty: 0.0 is none.
        frequency_penalty: 0.0 is none.
        mirostat_mode: 0 is off.
        mirostat_tau: Mirostat's target.
        mirostat_eta: Mirostat's rate.
        seed: None: a new one for each reply.
        max_tokens: most tokens of a reply, reasoning included; None: as many as the context holds.
        max_reasoning_tokens: most tokens of reasoning; then the answer is opened for the model. None: no bound.
        reasoning_effort: a key of `REASONING_EFFORTS`; None: the prompt options' value.
        headers: `constrain`: only well-formed Harmony headers, of messages that the request allows, can be sampled;
            `free`: whatever the model writes (a request that needs constraints has them all the same).
        max_reply_tokens: most tokens of a reply, whatever a request asks for; None: no bound.
        max_tokens_before_final: tokens without an answer or a call begun, after which a reply is ended; None: no bound.
        max_seconds_before_final: seconds of generating, likewise.
        stop: stop strings beside those of a request.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    mirostat_mode: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    seed: int | None = None
    max_tokens: int | None = None
    max_reasoning_tokens: int | None = None
    reasoning_effort: str | None = None
    headers: Literal["constrain", "free"] = "constrain"
    max_reply_tokens: int | None = None
    max_tokens_before_final: int | None = None
    max_seconds_before_final: float | None = None
    stop: tuple[str, ...] = ()
