"""Anthropic's Messages API: `/v1/messages` through the `anthropic` client. Knows no server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import anthropic
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from .api import Api, counted, shape_problems
from .asks import Ask, Call, Json, Reply, Tool, Usage

__all__ = ["Messages"]

WHOLE: TypeAdapter[Any] = TypeAdapter(Message)
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
FINISH = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
CHOICES = {"auto": "auto", "none": "none", "required": "any"}
HELLO = [{"role": "user", "content": "Hello!"}]
DELTAS = {"text_delta": "text", "thinking_delta": "thinking"}
LEAST_THINKING = 1024  # Anthropic's


class Messages(Api):
    """`client`: whose base URL is what comes before `/v1`."""

    name = "messages"
    path = "/v1/messages"

    def __init__(self, client: anthropic.Anthropic) -> None:
        self._create: Any = client.messages.create

    def body(self, ask: Ask, model: str, max_tokens: int) -> Json:
        messages: list[Json] = [{"role": "user", "content": ask.text}]
        for turn in ask.turns:
            blocks = turn.reply.back if turn.reasoning else self.without_reasoning(turn.reply.back)
            results = [
                {"type": "tool_result", "tool_use_id": call.id, "content": turn.result} for call in turn.reply.calls
            ]
            messages += [{"role": "assistant", "content": blocks}, {"role": "user", "content": results}]
        limit = ask.max_tokens or max_tokens
        forced = ask.choice == "required" or isinstance(
            ask.choice, Tool
        )  # which Anthropic does not allow with thinking
        body: Json = {"model": model, "messages": messages, "max_tokens": limit, "temperature": ask.temperature}
        if limit > LEAST_THINKING and not forced:
            body["thinking"] = {"type": "enabled", "budget_tokens": max(LEAST_THINKING, limit // 2)}
        if ask.tools:
            body["tools"] = [
                {"name": tool.name, "description": tool.description, "input_schema": dict(tool.schema)}
                for tool in ask.tools
            ]
        if isinstance(ask.choice, Tool):
            body["tool_choice"] = {"type": "tool", "name": ask.choice.name}
        elif ask.choice is not None:
            body["tool_choice"] = {"type": CHOICES[ask.choice]}
        elif ask.parallel:
            body["tool_choice"] = {"type": "auto", "disable_parallel_tool_use": False}
        if ask.schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": ask.schema}}
        if ask.stop:
            body["stop_sequences"] = list(ask.stop)
        return body

    def send(self, body: Json) -> Json | str:
        got = self._ask(body)
        return got if isinstance(got, str) else got.to_dict(mode="json", warnings=False)

    def stream(self, body: Json) -> Iterator[Json]:
        with self._ask(body, stream=True) as events:
            for event in events:
                yield event.to_dict(mode="json", warnings=False)

    def _ask(self, body: Json, **more: Any) -> Any:
        # Other fields may be younger than the client.
        known = ("model", "messages", "max_tokens")
        rest = {name: value for name, value in body.items() if name not in known}
        return self._create(**{name: body[name] for name in known}, **more, extra_body=rest)

    def whole_problems(self, data: Any) -> list[str]:
        return shape_problems(WHOLE, data)

    def event_problems(self, event: Any) -> list[str]:
        return shape_problems(EVENT, event)

    def without_reasoning(self, back: list[Json]) -> list[Json]:
        return [block for block in back if block.get("type") not in ("thinking", "redacted_thinking")]

    def read(self, reply: Reply, data: Json) -> None:
        reply.problems += [] if data.get("id") else ["id: empty"]
        for block in data["content"]:
            kind = block["type"]
            if kind == "text":
                reply.content += block["text"]
            elif kind == "thinking":
                reply.reasoning += block["thinking"]
            elif kind == "tool_use":
                reply.calls.append(Call(block["id"], block["name"], json.dumps(block["input"], ensure_ascii=False)))
            else:
                reply.problems.append(f"a block of the type {kind!r}, which was not asked for")
        reply.back = list(data["content"])
        if not counted(call.id for call in reply.calls):
            reply.problems.append("content: ids of calls are missing or not distinct")
        reply.finish = FINISH.get(str(data.get("stop_reason")), str(data.get("stop_reason")))
        reply.stopped_by = data.get("stop_sequence")
        if (data.get("stop_reason") == "stop_sequence") != (reply.stopped_by is not None):
            reply.problems.append("stop_reason and stop_sequence do not agree")
        reply.usage = _usage(data.get("usage"))

    def read_events(self, reply: Reply, events: Sequence[Json]) -> None:
        events = [event for event in events if event["type"] != "ping"]
        kinds = [event["type"] for event in events]
        if kinds[:1] != ["message_start"] or kinds[-2:] != ["message_delta", "message_stop"]:
            reply.problems.append(f"events: {kinds[:1]} first and {kinds[-2:]} last")
            return
        blocks = _Blocks()
        for event in events:
            blocks.add(event)
        reply.problems += blocks.problems()
        begun, last = events[0]["message"], events[-2]
        data = {**begun, **last["delta"], "content": blocks.content}
        # The last event's counts are those of the whole reply; what it leaves out stands in the first.
        data["usage"] = {**(begun.get("usage") or {}), **{k: v for k, v in (last.get("usage") or {}).items() if v}}
        self.read(reply, data)

    def wrong_bodies(self, model: str) -> dict[str, Json]:
        right = {"model": model, "messages": HELLO, "max_tokens": 16}
        tool = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
        return {
            "no messages": {"model": model, "max_tokens": 16},
            "messages a number": {**right, "messages": 5},
            "no max_tokens": {"model": model, "messages": HELLO},
            "unknown role": {**right, "messages": [{"role": "narrator", "content": "Hello!"}]},
            "temperature a word": {**right, "temperature": "hot"},
            "a tool without a name": {**right, "tools": [{"input_schema": {"type": "object"}}]},
            "a tool_choice that is no tool": {
                **right,
                "tools": [tool],
                "tool_choice": {"type": "tool", "name": "nowhere"},
            },
        }

    def error_problem(self, body: Any) -> str | None:
        if not isinstance(body, dict) or body.get("type") != "error":
            return "no type `error`"
        error = body.get("error")
        told = isinstance(error, dict) and isinstance(error.get("type"), str) and isinstance(error.get("message"), str)
        return None if told else "no object `error` with `type` and `message`"


class _Blocks:
    """The blocks of a stream, put together from its events."""

    def __init__(self) -> None:
        self.content: list[Json] = []
        self._open: int | None = None
        self._arguments = ""
        self._problems: list[str] = []

    def problems(self) -> list[str]:
        return self._problems + (["a content block is not stopped"] if self._open is not None else [])

    def add(self, event: Json) -> None:
        kind, index = event["type"], event.get("index")
        if kind == "content_block_start":
            if self._open is not None or index != len(self.content):
                self._problems.append(f"content_block_start: index {index} out of turn")
            self.content.append(dict(event["content_block"]))
            self._open, self._arguments = index, ""
        elif kind in ("content_block_delta", "content_block_stop"):
            if index is None or index != self._open:
                self._problems.append(f"{kind}: index {index} is not the open block's")
            elif kind == "content_block_delta":
                self._delta(event["delta"])
            else:
                self._stop()

    def _delta(self, delta: Json) -> None:
        block, kind = self.content[-1], delta["type"]
        if kind == "input_json_delta":
            self._arguments += delta["partial_json"]
        elif kind == "signature_delta":
            block["signature"] = delta["signature"]
        elif DELTAS.get(kind) == block["type"]:
            block[block["type"]] += delta[block["type"]]
        else:
            self._problems.append(f"{kind} in a block of the type {block['type']!r}")

    def _stop(self) -> None:
        block = self.content[-1]
        if block["type"] == "tool_use" and self._arguments:
            try:
                block["input"] = json.loads(self._arguments)
            except ValueError:
                # Kept as a text, which no tool's schema allows.
                block["input"] = self._arguments
        self._open = None


def _usage(usage: Any) -> Usage | None:
    if not usage:
        return None
    cached = [usage.get(name) or 0 for name in ("cache_read_input_tokens", "cache_creation_input_tokens")]
    return Usage(usage["input_tokens"] + sum(cached), usage["output_tokens"])
