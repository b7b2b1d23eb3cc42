"""OpenAI's Responses API: `/v1/responses` through the `openai` client. Knows no server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import openai
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from .api import NAME, Api, counted, shape_problems, text_of
from .asks import Ask, Call, Json, Reply, Tool, Usage
from .chat import openai_error_problem

__all__ = ["Responses"]

WHOLE: TypeAdapter[Any] = TypeAdapter(Response)
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ENDS = ("response.completed", "response.incomplete", "response.failed")


class Responses(Api):
    """`client`: whose base URL ends in `/v1`."""

    name = "responses"
    path = "/v1/responses"

    def __init__(self, client: openai.OpenAI) -> None:
        self._create: Any = client.responses.create

    def body(self, ask: Ask, model: str, max_tokens: int) -> Json:
        items: list[Json] = [{"role": "user", "content": ask.text}]
        for turn in ask.turns:
            items += turn.reply.back if turn.reasoning else self.without_reasoning(turn.reply.back)
            items += [
                {"type": "function_call_output", "call_id": call.id, "output": turn.result} for call in turn.reply.calls
            ]
        body: Json = {"model": model, "input": items, "max_output_tokens": ask.max_tokens or max_tokens}
        body |= {"temperature": ask.temperature, "store": False}
        if ask.tools:
            body["tools"] = [_function(tool) for tool in ask.tools]
        if ask.choice is not None:
            body["tool_choice"] = _named(ask.choice.name) if isinstance(ask.choice, Tool) else ask.choice
        if ask.parallel:
            body["parallel_tool_calls"] = True
        if ask.schema is not None:
            body["text"] = {"format": {"type": "json_schema", "name": NAME, "schema": ask.schema, "strict": True}}
        return body

    def send(self, body: Json) -> Json | str:
        got = self._create(**body)
        return got if isinstance(got, str) else got.to_dict(mode="json", warnings=False)

    def stream(self, body: Json) -> Iterator[Json]:
        with self._create(**body, stream=True) as events:
            for event in events:
                yield event.to_dict(mode="json", warnings=False)

    def whole_problems(self, data: Any) -> list[str]:
        return shape_problems(WHOLE, data)

    def event_problems(self, event: Any) -> list[str]:
        return shape_problems(EVENT, event)

    def without_reasoning(self, back: list[Json]) -> list[Json]:
        return [item for item in back if item.get("type") != "reasoning"]

    def read(self, reply: Reply, data: Json) -> None:
        for item in data["output"]:
            kind = item["type"]
            if kind == "message":
                reply.content += text_of(item["content"])
            elif kind == "reasoning":
                reply.reasoning += text_of(item.get("content")) or text_of(item.get("summary"))
            elif kind == "function_call":
                reply.calls.append(Call(item["call_id"], item["name"], item["arguments"]))
            else:
                reply.problems.append(f"an item of the type {kind!r}, which was not asked for")
        reply.back = list(data["output"])
        if not counted(call.id for call in reply.calls):
            reply.problems.append("output: call_ids are missing or not distinct")
        if not data.get("id") or not counted(item.get("id") for item in data["output"]):
            reply.problems.append("output: ids are missing or not distinct")
        reply.finish = _finish(reply, data)
        reply.usage = _usage(data.get("usage"))

    def read_events(self, reply: Reply, events: Sequence[Json]) -> None:
        kinds = [event["type"] for event in events]
        if kinds[:1] != ["response.created"]:
            reply.problems.append(f"the first event is {kinds[:1]}, not response.created")
        if not kinds or kinds[-1] not in ENDS or sum(kind in ENDS for kind in kinds) != 1:
            reply.problems.append("the stream does not end in one response.completed or response.incomplete")
            return
        numbers = [event.get("sequence_number") for event in events]
        if numbers != list(range(len(events))):
            reply.problems.append("sequence_number: does not count from 0, one by one")
        items = _Items()
        for event in events:
            items.add(event)
        data = events[-1]["response"]
        reply.problems += items.problems(data)
        self.read(reply, data)
        # What was streamed, not what the last event repeats.
        reply.content, reply.reasoning = items.texts("message"), items.texts("reasoning")
        streamed = [items.text[index] for index, item in sorted(items.added.items()) if item["type"] == "function_call"]
        for call, arguments in zip(reply.calls, streamed, strict=False):
            call.arguments = arguments

    def wrong_bodies(self, model: str) -> dict[str, Json]:
        right = {"model": model, "input": "Hello!", "max_output_tokens": 16}
        tool = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
        return {
            "no input": {"model": model, "max_output_tokens": 16},
            "input a number": {**right, "input": 5},
            "unknown role": {**right, "input": [{"role": "narrator", "content": "Hello!"}]},
            "temperature a word": {**right, "temperature": "hot"},
            "a tool without a name": {**right, "tools": [{"type": "function"}]},
            "a tool_choice that is no tool": {**right, "tools": [tool], "tool_choice": _named("nowhere")},
        }

    def error_problem(self, body: Any) -> str | None:
        return openai_error_problem(body)


class _Items:
    """The items of a stream, put together from its events."""

    def __init__(self) -> None:
        self.added: dict[int, Json] = {}
        self.text: dict[int, str] = {}
        self._done: dict[int, Json] = {}
        self._problems: list[str] = []

    def add(self, event: Json) -> None:
        kind, index = event["type"], event.get("output_index")
        if kind == "response.output_item.added":
            if index != len(self.added):
                self._problems.append(f"output_index: {index} after {len(self.added)} items")
            self.added[event["output_index"]], self.text[event["output_index"]] = event["item"], ""
        elif index is not None and index not in self.added:
            self._problems.append(f"{kind} before response.output_item.added")
        elif kind.endswith(".delta"):
            self._delta(event)
        elif kind.endswith((".output_text.done", ".reasoning_text.done", ".arguments.done")):
            said = event.get("text", event.get("arguments"))
            if said != self.text[event["output_index"]]:
                self._problems.append(f"{kind}: not what the deltas said")
        elif kind == "response.output_item.done":
            self._done[event["output_index"]] = event["item"]

    def _delta(self, event: Json) -> None:
        index = event["output_index"]
        self.text[index] += event["delta"]
        if event.get("item_id") != self.added[index].get("id"):
            self._problems.append(f"{event['type']}: item_id is not the item's")

    def texts(self, kind: str) -> str:
        return "".join(self.text[index] for index, item in sorted(self.added.items()) if item["type"] == kind)

    def problems(self, response: Json) -> list[str]:
        """What is wrong with the events, and where they are not what the last one, with `response`, repeats."""
        done = [(item.get("id"), item["type"]) for _, item in sorted(self._done.items())]
        if [(item.get("id"), item["type"]) for _, item in sorted(self.added.items())] != done:
            self._problems.append("items that were added are not those that were done")
        if done != [(item.get("id"), item["type"]) for item in response["output"]]:
            self._problems.append("the last event's output is not the items that were streamed")
        return self._problems


def _function(tool: Tool) -> Json:
    named = {"type": "function", "name": tool.name, "description": tool.description}
    return {**named, "parameters": dict(tool.schema), "strict": False}


def _named(name: str) -> Json:
    return {"type": "function", "name": name}


def _finish(reply: Reply, data: Json) -> str | None:
    status = data.get("status")
    if status == "completed":
        return "tool_calls" if reply.calls else "stop"
    reason = (data.get("incomplete_details") or {}).get("reason")
    return "length" if status == "incomplete" and reason == "max_output_tokens" else f"{status}: {reason}"


def _usage(usage: Any) -> Usage | None:
    if not usage:
        return None
    details = usage.get("output_tokens_details") or {}
    return Usage(
        usage["input_tokens"], usage["output_tokens"], usage.get("total_tokens"), details.get("reasoning_tokens")
    )
