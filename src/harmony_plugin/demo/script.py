"""Scripted sampling: recorded transcripts replayed, token by token, through a real decode loop.

A `Replay` is a llama-cpp-python logits processor: at every step it lifts the next recorded token above all others, so
the engine evaluates, samples, stops and counts as it always does, and only the choice of the token is ours. `Scripts`
picks the transcript for a request. A constraint still wins: a recorded token that a grammar forbids is not lifted.

This module knows token ids and the shape of a chat request; it knows nothing of HTTP, of the server, or of how
Harmony is split.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import Dialect, harmony_encoding

__all__ = ["RECORDED", "Replay", "Script", "Scripts"]

RECORDED = Path(__file__).with_name("recorded.jsonl")
"""The transcripts that the demo replays."""

RETURN = Dialect().ids["return"]
LIFT = 10_000.0


class Replay:
    """A logits processor that makes `tokens` come out next, then `<|return|>` for ever.

    Args:
        tokens: the recorded ids.
        prompt_length: ids in front of the first generated one; the place in the script is counted from there.
    """

    def __init__(self, tokens: Sequence[int], prompt_length: int) -> None:
        self._tokens = tokens
        self._prompt_length = prompt_length

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        place = len(input_ids) - self._prompt_length
        token = self._tokens[place] if 0 <= place < len(self._tokens) else RETURN
        if scores[token] != -float("inf"):
            scores[token] = LIFT
        return scores


@dataclass(frozen=True)
class Script:
    """One recorded conversation.

    Attributes:
        id: the name that requests choose it by.
        replies: the ids of each reply; a request gets the one whose number is that of the assistant messages it already
            holds (the last one, if there are more).
        when: chosen for requests whose last user message contains this text, if no request names a script.
    """

    id: str
    replies: tuple[tuple[int, ...], ...]
    when: str | None = None


class Scripts:
    """A set of recorded transcripts, and the choice among them for each request.

    A request names its script in `metadata.script`, `metadata.user_id` (the one metadata field that Anthropic's clients
    send) or `user`. Without a name, the first script whose `when` is in the last user message is taken. Without any,
    sampling is left to the model.
    """

    def __init__(self, scripts: Iterable[Script]) -> None:
        self._scripts = {script.id: script for script in scripts}

    @classmethod
    def load(cls, *paths: str | os.PathLike[str]) -> Scripts:
        """Read JSON lines. A line has `id` and one of `raw` (text, markers spelled out), `segments` (pairs of kind
        `special` or `text`, and text), `token_ids`, or `replies` (a list of such objects); `when` is optional; other
        keys are ignored.

        Raises:
            ValueError: for a line that has none of them, with its file and line number.
        """
        scripts = []
        for path in paths:
            for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), 1):
                if not line.strip():
                    continue
                entry = json.loads(line)
                try:
                    replies = tuple(_ids(reply) for reply in entry.get("replies") or [entry])
                    scripts.append(Script(entry["id"], replies, entry.get("when")))
                except (KeyError, TypeError) as error:
                    raise ValueError(f"{os.fspath(path)}:{number}: not a script: {error!r}") from error
        return cls(scripts)

    def __getitem__(self, name: str) -> Script:
        return self._scripts[name]

    def choose(self, request: Mapping[str, Any]) -> Script | None:
        """The script that `request` (fields of a chat request) asks for, or None."""
        metadata = request.get("metadata") or {}
        for name in (metadata.get("script"), metadata.get("user_id"), request.get("user")):
            if isinstance(name, str) and name in self._scripts:
                return self._scripts[name]
        said = _last_user_text(request.get("messages") or [])
        return next((s for s in self._scripts.values() if s.when is not None and s.when in said), None)

    def processors(self, prompt_ids: Sequence[int], request: Mapping[str, Any]) -> list[Callable[[Any, Any], Any]]:
        """The logits processors for a request: the hook that the chat handler calls for each generation."""
        tokens = self.reply(request)
        return [] if tokens is None else [Replay(tokens, len(prompt_ids))]

    def reply(self, request: Mapping[str, Any]) -> tuple[int, ...] | None:
        """The recorded ids that will answer `request`; None: sampling is the model's."""
        script = self.choose(request)
        if script is None:
            return None
        said = sum(1 for message in request.get("messages") or [] if message.get("role") == "assistant")
        return script.replies[min(said, len(script.replies) - 1)]

    def text(self, request: Mapping[str, Any]) -> str:
        """What will answer `request`, markers spelled out, for people to read."""
        return str(harmony_encoding().decode(list(self.reply(request) or ())))


def _ids(reply: Mapping[str, Any]) -> tuple[int, ...]:
    if reply.get("token_ids") is not None:
        return tuple(reply["token_ids"])
    encoding = harmony_encoding()
    if reply.get("segments") is not None:
        ids: list[int] = []
        for kind, text in reply["segments"]:
            if kind == "special":
                ids += encoding.encode(text, allowed_special="all")
            else:
                ids += encoding.encode(text, disallowed_special=())
        return tuple(ids)
    return tuple(encoding.encode(reply["raw"], allowed_special="all"))


def _last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            return "".join(part.get("text") or "" for part in content or [] if isinstance(part, Mapping))
    return ""
