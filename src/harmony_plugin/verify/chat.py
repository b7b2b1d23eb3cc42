"""OpenAI's chat API: `/v1/chat/completions` through the `openai` client. Knows no server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from .api import NAME, Api, Frame, counted, shape_problems
from .asks import Ask, Call, Json, Reply, Tool, Usage

__all__ = ["Chat", "openai_error_problem"]

WHOLE: TypeAdapter[Any] = TypeAdapter(ChatCompletion)
CHUNK: TypeAdapter[Any] = TypeAdapter(ChatCompletionChunk)
REASONING = ("reasoning", "reasoning_content")
HELLO = [{"role": "user", "content": "Hello!"}]


class Chat(Api):
    """`client`: whose base URL ends in `/v1`."""

    name = "chat"
    path = "/v1/chat/completions"

    def __init__(self, client: openai.OpenAI) -> None:
        self._create: Any = client.chat.completions.create

    def body(self, ask: Ask, model: str, max_tokens: int) -> Json:
        messages: list[Json] = [{"role": "user", "content": ask.text}]
        for turn in ask.turns:
            messages += turn.reply.back if turn.reasoning else self.without_reasoning(turn.reply.back)
            messages += [{"role": "tool", "tool_call_id": c.id, "content": turn.result} for c in turn.reply.calls]
        body: Json = {"model": model, "messages": messages, "max_completion_tokens": ask.max_tokens or max_tokens}
        body |= {"temperature": ask.temperature, "seed": ask.attempt + 1}
        if ask.tools:
            body["tools"] = [{"type": "function", "function": _function(tool)} for tool in ask.tools]
        if ask.choice is not None:
            body["tool_choice"] = _named(ask.choice.name) if isinstance(ask.choice, Tool) else ask.choice
        if ask.parallel:
            body["parallel_tool_calls"] = True
        if ask.schema is not None:
            form = {"name": NAME, "schema": ask.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        if ask.stop:
            body["stop"] = list(ask.stop)
        if ask.n > 1:
            body["n"] = ask.n
        return body

    def send(self, body: Json) -> Json | str:
        got = self._create(**body)
        return got if isinstance(got, str) else got.to_dict(mode="json", warnings=False)

    def stream(self, body: Json) -> Iterator[Json]:
        with self._create(**body, stream=True, stream_options={"include_usage": True}) as chunks:
            for chunk in chunks:
                yield chunk.to_dict(mode="json", warnings=False)

    def whole_problems(self, data: Any) -> list[str]:
        return shape_problems(WHOLE, data)

    def event_problems(self, event: Any) -> list[str]:
        return shape_problems(CHUNK, event)

    def without_reasoning(self, back: list[Json]) -> list[Json]:
        return [{name: value for name, value in message.items() if name not in REASONING} for message in back]

    def read(self, reply: Reply, data: Json) -> None:
        reply.problems += [] if data.get("id") else ["id: empty"]
        for choice in data["choices"]:
            message = choice["message"]
            reply.choices[choice["index"]] = message.get("content") or "", choice.get("finish_reason")
        first = data["choices"][0]
        message = first["message"]
        if "content" not in message:
            reply.problems.append("choices.0.message.content: missing")
        reply.content, reply.finish = message.get("content") or "", first.get("finish_reason")
        reply.empty = None if reply.content else json.dumps(message.get("content"))
        _take_reasoning(reply, {name: message[name] for name in REASONING if message.get(name)})
        for call in message.get("tool_calls") or ():
            reply.calls.append(Call(call["id"], call["function"]["name"], call["function"]["arguments"]))
        reply.back = [{name: value for name, value in message.items() if value is not None}]
        _check_calls(reply)
        reply.usage = _usage(data.get("usage"))

    def read_events(self, reply: Reply, events: Sequence[Json]) -> None:
        if len({event.get("id") for event in events}) != 1 or not events[0].get("id"):
            reply.problems.append("id: not one and the same in all chunks")
        choices: dict[int, _Choice] = {}
        for event in events:
            for choice in event["choices"]:
                choices.setdefault(choice["index"], _Choice()).add(choice)
        if not choices:
            reply.problems.append("a stream without choices")
            return
        for index, choice in sorted(choices.items()):
            reply.problems += [f"choice {index}: {problem}" for problem in choice.problems()]
            reply.choices[index] = choice.content, choice.finish
        first = choices[min(choices)]
        reply.content, reply.calls, reply.finish = first.content, first.calls, first.finish
        _take_reasoning(reply, {name: text for name, text in first.reasoning.items() if text})
        reply.back = [_message(reply)]
        _check_calls(reply)
        told = [i for i, event in enumerate(events) if event.get("usage")]
        if told:
            reply.usage = _usage(events[told[-1]]["usage"])
            if events[-1]["choices"] or told[-1] != len(events) - 1:
                reply.problems.append("usage: not in a last chunk of its own, without choices")

    def frame_problem(self, frames: Sequence[Frame]) -> str | None:
        return None if frames and frames[-1][1] == "[DONE]" else "the stream does not end in data: [DONE]"

    def wrong_bodies(self, model: str) -> dict[str, Json]:
        right = {"model": model, "messages": HELLO, "max_tokens": 16}  # the older name: all servers know it
        return {
            "no messages": {"model": model, "max_tokens": 16},
            "messages a number": {**right, "messages": 5},
            "unknown role": {**right, "messages": [{"role": "narrator", "content": "Hello!"}]},
            "temperature a word": {**right, "temperature": "hot"},
            "a tool without a function": {**right, "tools": [{"type": "function"}]},
            "a tool_choice that is no tool": {**right, "tools": [_tool()], "tool_choice": _named("nowhere")},
        }

    def error_problem(self, body: Any) -> str | None:
        return openai_error_problem(body)


class _Choice:
    """One choice of a stream, added up."""

    def __init__(self) -> None:
        self.content = ""
        self.reasoning = dict.fromkeys(REASONING, "")
        self.calls: list[Call] = []
        self.finish: str | None = None
        self._role: str | None = None
        self._problems: list[str] = []

    def problems(self) -> list[str]:
        found = [] if self._role == "assistant" else [f"role: {self._role!r}"]
        return found + ([] if self.finish else ["no finish_reason"]) + self._problems

    def add(self, choice: Json) -> None:
        delta = choice.get("delta") or {}
        if self.finish is not None and (any(delta.values()) or choice.get("finish_reason")):
            self._problems.append("more came after finish_reason")
        self._role = self._role or delta.get("role")
        self.content += delta.get("content") or ""
        for name in REASONING:
            self.reasoning[name] += delta.get(name) or ""
        for call in delta.get("tool_calls") or ():
            self._call(call)
        self.finish = choice.get("finish_reason") or self.finish

    def _call(self, delta: Json) -> None:
        function = delta.get("function") or {}
        if delta["index"] == len(self.calls):
            self.calls.append(Call("", "", ""))
            if not delta.get("id") or not function.get("name"):
                self._problems.append("a call's first delta has no id or no name")
        elif not 0 <= delta["index"] < len(self.calls):
            self._problems.append(f"tool_calls: index {delta['index']} out of turn")
            return
        call = self.calls[delta["index"]]
        call.id = call.id or delta.get("id") or ""
        call.name = call.name or function.get("name") or ""
        call.arguments += function.get("arguments") or ""


def openai_error_problem(body: Any) -> str | None:
    """Why `body` is no error in OpenAI's shape."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return "no object `error`"
    missing = [name for name in ("message", "type") if not isinstance(error.get(name), str) or not error[name]]
    return f"no error.{missing[0]}" if missing else None


def _function(tool: Tool) -> Json:
    return {"name": tool.name, "description": tool.description, "parameters": dict(tool.schema)}


def _tool() -> Json:
    return {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def _named(name: str) -> Json:
    return {"type": "function", "function": {"name": name}}


def _take_reasoning(reply: Reply, names: dict[str, str]) -> None:
    reply.reasoning_names = names
    reply.reasoning = next(iter(names.values()), "")


def _check_calls(reply: Reply) -> None:
    if not counted(call.id for call in reply.calls):
        reply.problems.append("tool_calls: ids are missing or not distinct")


def _message(reply: Reply) -> Json:
    """The message that a client puts together from a stream."""
    message: Json = {"role": "assistant", "content": reply.content or None, **reply.reasoning_names}
    if reply.calls:
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in reply.calls
        ]
    return message


def _usage(usage: Any) -> Usage | None:
    if not usage:
        return None
    details = usage.get("completion_tokens_details") or {}
    return Usage(
        usage["prompt_tokens"], usage["completion_tokens"], usage.get("total_tokens"), details.get("reasoning_tokens")
    )
