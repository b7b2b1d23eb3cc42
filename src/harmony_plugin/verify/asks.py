"""What is asked and what came back, in one shape for all three APIs.

Knows no API, no client and no server: `chat`, `responses` and `messages` translate both ways.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import jsonschema

__all__ = ["Ask", "Call", "Json", "Reply", "Tool", "Turn", "Usage"]

Json: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True)
class Tool:
    """A function that a request offers. `schema`: of its arguments."""

    name: str
    description: str
    schema: Mapping[str, Any]

    def problem(self, arguments: str) -> str | None:
        """What is wrong with a call's `arguments`, a JSON text; None: nothing."""
        return schema_problem(arguments, self.schema)


@dataclass(frozen=True)
class Turn:
    """A reply that called tools, sent back with their results. `reasoning` False: what it thought is left out."""

    reply: Reply
    result: str
    reasoning: bool = True


@dataclass(frozen=True)
class Ask:
    """One request.

    Attributes:
        choice: of tools; a tool: that one. None: the request does not say.
        schema: of the content, which is then JSON.
        max_tokens: None: the run's own.
        parallel: say that several calls may come.
        attempt: the first is asked at temperature 0, later ones at 1, and so are several choices (vLLM wants that).
    """

    text: str
    tools: tuple[Tool, ...] = ()
    choice: Literal["auto", "none", "required"] | Tool | None = None
    schema: Mapping[str, Any] | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    n: int = 1
    parallel: bool = False
    turns: tuple[Turn, ...] = ()
    attempt: int = 0

    @property
    def temperature(self) -> int:
        return 0 if self.attempt == 0 and self.n == 1 else 1


@dataclass
class Call:
    """A tool call; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str

    @property
    def meaning(self) -> tuple[str, Any]:
        """The call without how its JSON is written."""
        try:
            return self.name, json.loads(self.arguments)
        except ValueError:
            return self.name, self.arguments


@dataclass
class Usage:
    """Tokens. `prompt` with those that were cached; `total`, `reasoning` None: the API does not tell, or did not."""

    prompt: int
    completion: int
    total: int | None = None
    reasoning: int | None = None


@dataclass
class Reply:
    """A reply.

    Attributes:
        finish: `stop`, `length`, `tool_calls`, or the API's own word where it is none of these.
        stopped_by: the stop string that ended it, where the API tells.
        usage: None: there was none.
        back: what a client sends back of it: messages, items or one message, as the API has them.
        problems: what is wrong with its shape.
        reasoning_names: the fields that held reasoning, with what they held (chat).
        empty: how a message without content has it, as JSON; None: there was content, or the API has no such thing.
        choices: content and finish reason of each choice, by its index (chat).
    """

    ask: Ask
    streamed: bool
    reasoning: str = ""
    content: str = ""
    calls: list[Call] = field(default_factory=list)
    finish: str | None = None
    stopped_by: str | None = None
    usage: Usage | None = None
    back: list[Json] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    reasoning_names: dict[str, str] = field(default_factory=dict)
    empty: str | None = None
    choices: dict[int, tuple[str, str | None]] = field(default_factory=dict)

    @property
    def how(self) -> str:
        return "streamed" if self.streamed else "whole"

    @property
    def said(self) -> tuple[Any, ...]:
        """What a user gets of it; two replies that say the same are equal here."""
        return self.reasoning, self.content, [call.meaning for call in self.calls], self.finish


def schema_problem(text: str, schema: Mapping[str, Any]) -> str | None:
    """Why `text` is not JSON that `schema` allows; None: it is."""
    try:
        value = json.loads(text)
    except ValueError as error:
        return f"no JSON ({error}): {text!r}"
    found: jsonschema.ValidationError | None = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(schema).iter_errors(value)
    )
    return None if found is None else f"{found.message} at {found.json_path}"
