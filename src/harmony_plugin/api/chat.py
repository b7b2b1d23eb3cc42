"""OpenAI's chat API: a reply's pieces as a chat completion, whole or in chunks.

Pure translation: no HTTP, no engine. `request` reads what is asked.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from ..core import Ended, Event, Joiner, Reply, RequestError, Started, Text, ToolCallDelta
from ..prompts import custom_input
from .defaults import REASONING_NAMES
from .errors import error_body
from .hosted import HostedTools
from .reply import Ending, Piece, TokenLogprob, Usage, Writer

__all__ = ["ChatWriter"]

Json: TypeAlias = "dict[str, Any]"


class ChatWriter(Writer):
    """A reply's pieces in, a chat completion or its chunks out.

    Args:
        model: the name that the reply carries.
        custom: names of custom tools, whose calls hold text.
        logprobs: whether log probabilities were asked for.
        include_usage: whether a stream tells its usage.
        reasoning_names: the fields that reasoning goes out in: `reasoning_content`, as DeepSeek's API has it, and
            `reasoning`, as vLLM has it.
        hosted: the tools that the server runs: the chat API has no place for their calls, which are left out.
    """

    def __init__(
        self,
        model: str,
        *,
        custom: Container[str] = frozenset(),
        logprobs: bool = False,
        include_usage: bool = False,
        reasoning_names: Sequence[str] = REASONING_NAMES,
        hosted: HostedTools | None = None,
    ) -> None:
        self._custom = custom
        self._hidden = _HostedCalls(hosted or HostedTools())
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._reasoning_names = reasoning_names
        self.identifier = f"chatcmpl-{uuid.uuid4().hex}"
        self._head = {"id": self.identifier, "created": int(time.time()), "model": model}
        self._choices: dict[int, _Choice] = {}

    def whole(self, pieces: Iterable[Piece], usage: Usage) -> Json:
        choices = []
        for index, (events, logprobs, ending) in sorted(_gathered(pieces).items()):
            message = self._named(Reply.of(self._hidden.left_out(events)).to_openai())
            for call in message.get("tool_calls", ()):
                if call["function"]["name"] in self._custom:
                    function = call.pop("function")
                    text = custom_input(function["arguments"])
                    call |= {"type": "custom", "custom": {"name": function["name"], "input": text}}
            if ending is not None and ending.told is not None:
                message["harmony"] = ending.told
            entries = _logprobs(logprobs) if self._logprobs else None
            choices.append({"index": index, "message": message, "logprobs": entries, **_done(ending)})
        told = {"choices": choices, "usage": usage.to_openai(), **_timings(usage)}
        return {**self._head, "object": "chat.completion", **told}

    def feed(self, piece: Piece) -> Iterator[Json]:
        choice = self._choices.get(piece.index)
        delta: Json = {}
        if choice is None:
            choice = self._choices[piece.index] = _Choice(self._custom)
        events = self._hidden.left_out(piece.events)
        if events:
            delta = self._named(choice.delta(events))
        if not choice.begun and (delta or piece.logprobs or piece.ending is not None):
            choice.begun = True
            yield self._chunk(piece.index, {"role": "assistant"})
        if delta or piece.logprobs:
            yield self._chunk(piece.index, delta, logprobs=_logprobs(piece.logprobs) if piece.logprobs else None)
        if piece.ending is not None:
            told = piece.ending.told
            yield self._chunk(piece.index, {} if told is None else {"harmony": told}, **_done(piece.ending))

    def finish(self, usage: Usage) -> Iterator[Json]:
        if self._include_usage:
            told = {"choices": [], "usage": usage.to_openai(), **_timings(usage)}
            yield {**self._head, "object": "chat.completion.chunk", **told}

    def fail(self, error: RequestError) -> Iterator[Json]:
        yield error_body(error, anthropic=False)

    def _named(self, fields: Json) -> Json:
        if "reasoning_content" in fields:
            reasoning = fields.pop("reasoning_content")
            fields |= dict.fromkeys(self._reasoning_names, reasoning)
        return fields

    def _chunk(
        self,
        index: int,
        delta: Json,
        *,
        logprobs: Json | None = None,
        finish_reason: str | None = None,
        **more: Any,
    ) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason, **more}
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None
        return chunk


def _gathered(pieces: Iterable[Piece]) -> dict[int, tuple[list[Event], list[TokenLogprob], Ending | None]]:
    """The pieces of each choice as one."""
    choices: dict[int, tuple[list[Event], list[TokenLogprob], Ending | None]] = {}
    for piece in pieces:
        events, logprobs, _ = choices.get(piece.index) or ([], [], None)
        events += piece.events
        logprobs += piece.logprobs
        choices[piece.index] = events, logprobs, piece.ending
    return choices


def _done(ending: Ending | None) -> Json:
    """How a choice ended: the finish reason, and vLLM's `stop_reason` where a stop string ended it."""
    assert ending is not None, "a choice without an end"
    done: Json = {"finish_reason": ending.finish_reason}
    return done if ending.stop_string is None else {**done, "stop_reason": ending.stop_string}


def _timings(usage: Usage) -> Json:
    timings = usage.timings()
    return {} if timings is None else {"timings": timings}


def _logprobs(entries: Sequence[TokenLogprob]) -> Json:
    return {"content": [entry.to_openai() for entry in entries], "refusal": None}


class _HostedCalls:
    """Finds the calls of hosted tools among the events of a reply, which has one choice where there are any."""

    def __init__(self, hosted: HostedTools) -> None:
        self._hosted = hosted
        self._in_call = False

    def left_out(self, events: list[Event]) -> list[Event]:
        """`events` without them."""
        return [event for event in events if not self._is_hosted(event)] if self._hosted else events

    def _is_hosted(self, event: Event) -> bool:
        if isinstance(event, Started):
            self._in_call = event.call is not None and self._hosted.get(event.call.name) is not None
        return self._in_call


class _Choice:
    """One choice's events as deltas."""

    def __init__(self, custom: Container[str]) -> None:
        self.begun = False
        self._joiner = Joiner()
        self._custom = custom
        # The call of a custom tool that is open, and what was written of it.
        self._open: ToolCallDelta | None = None
        self._written: list[str] = []

    def delta(self, events: list[Event]) -> Json:
        """What `events` add, as the chat API has it."""
        if not self._custom:
            return self._joiner.delta(events).to_openai()
        calls: list[Json] = []
        delta = self._joiner.delta([event for event in events if not self._is_custom(event, calls)]).to_openai()
        if calls:
            delta["tool_calls"] = sorted([*delta.get("tool_calls", ()), *calls], key=lambda call: call["index"])
        return delta

    def _is_custom(self, event: Event, calls: list[Json]) -> bool:
        """Whether an event is of a custom tool's call. The model writes JSON around such a call's text, so the text is
        there once the call is complete."""
        if isinstance(event, Started):
            self._open = call = event.call if event.call is not None and event.call.name in self._custom else None
            if call is not None:
                head = {"name": call.name, "input": ""}
                calls.append({"index": call.index, "id": call.id, "type": "custom", "custom": head})
            return call is not None
        opened = self._open
        if opened is None:
            return False
        if isinstance(event, Text):
            self._written.append(event.text)
        elif isinstance(event, Ended):
            calls.append({"index": opened.index, "custom": {"input": custom_input("".join(self._written))}})
            self._open = None
            self._written.clear()
        return True
