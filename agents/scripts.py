"""What the model says to an agent: replies in Harmony, and which of them a request gets.

A conversation is known by a word in what its user says; where an agent starts another agent, that one's prompt has a
word of its own. Knows Harmony's markers and the relay's exchanges; knows no agent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .relay import Exchange, history, results

__all__ = ["ENDLESS", "SIDE", "THOUGHT", "Scripts", "calls", "says"]

THOUGHT = "Thought number {}."
"""What is in the model's head at each reply; the agent has to give it back."""

_GO_ON = "<|start|>assistant"


def says(text: str, thought: str | None = None, *, json_type: bool = False) -> str:
    """An answer. `json_type`: under a header that says so, which vLLM's grammars ask for where there is a schema."""
    kind = " <|constrain|>json" if json_type else ""
    return f"{_analysis(thought)}<|channel|>final{kind}<|message|>{text}<|return|>"


def calls(*wanted: tuple[str, Mapping[str, Any]], thought: str | None = None, preamble: str | None = None) -> str:
    """Calls of tools: names and arguments."""
    told = f"<|channel|>commentary<|message|>{preamble}<|end|>{_GO_ON}" if preamble else ""
    return (
        _analysis(thought)
        + told
        + _GO_ON.join(
            f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
            f"{json.dumps(arguments, ensure_ascii=False)}<|call|>"
            for name, arguments in wanted
        )
    )


def _analysis(thought: str | None) -> str:
    return f"<|channel|>analysis<|message|>{thought}<|end|>{_GO_ON}" if thought else ""


SIDE = says("A short title")
"""What requests without tools get: titles, summaries."""

ENDLESS = says(" ".join(f"word{i}" for i in range(3_000)))


class Scripts:
    """The conversations of a run: for each word, what the model says, reply by reply; the last one again and again.

    Args:
        aside: whether requests without tools are on the side, whatever words they have.
    """

    def __init__(self, conversations: Mapping[str, Sequence[str]], *, aside: bool = True) -> None:
        self._conversations = conversations
        self._aside = aside

    def replies(self) -> Iterable[str]:
        """All that the model may say."""
        return [SIDE, *(reply for replies in self._conversations.values() for reply in replies)]

    def answer(self, exchange: Exchange, body: Mapping[str, Any]) -> None:
        """Note in `exchange` who answers it, and what."""
        said = history(exchange.path, body)
        found = max(((_place(word, said), word) for word in self._conversations), default=(-1, ""))
        exchange.said = SIDE
        if not self._aside or body.get("tools") or _brings_tools(said):
            place, word = found
            if place >= 0:
                replies = self._conversations[word]
                exchange.conversation = word
                exchange.said = replies[min(_turn(said), len(replies) - 1)]


def _place(word: str, said: Sequence[Any]) -> int:
    """The last message of a user that has the word."""
    places = (i for i, item in enumerate(said) if isinstance(item, Mapping) and item.get("role") == "user")
    return max((i for i in places if not results(said[i]) and word in json.dumps(said[i])), default=-1)


def _turn(said: Sequence[Any]) -> int:
    """How often the agent has handed in results: results that come together are one reply's."""
    handed = [results(item) for item in said]
    return sum(here and not before for before, here in zip([False, *handed], handed, strict=False))


def _brings_tools(said: Sequence[Any]) -> bool:
    return any(isinstance(item, Mapping) and item.get("type") == "additional_tools" for item in said)
