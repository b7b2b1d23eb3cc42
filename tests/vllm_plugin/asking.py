"""Requests as vLLM's server makes them, and replies through a parser in the three ways that the server has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Fields = tuple[str | None, str | None, list[tuple[str, str]]]

PROMPT = [200006, 1428, 200008, 1, 200007, 200006, 173781]  # <|start|>user<|message|>"<|end|><|start|>assistant


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


def chat(tools: Iterable[Any] = (), **options: Any) -> Any:
    """A chat request, with tools by name or as OpenAI has them."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    declared = [tool(each) if isinstance(each, str) else each for each in tools]
    options = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]} | options
    return ChatCompletionRequest(**({"tools": declared} if declared else {}), **options)


def responses(tools: Iterable[str] = (), **options: Any) -> Any:
    """A request of /v1/responses."""
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

    declared = [
        {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}} for name in tools
    ]
    return ResponsesRequest(model="m", input="Hi", tools=declared, **options)


def whole(parser: Any, request: Any, ids: Sequence[int]) -> Fields:
    reasoning, content, calls = parser.parse("", request, enable_auto_tools=True, model_output_token_ids=list(ids))
    return reasoning, content, [(call.name, call.arguments) for call in calls or ()]


def streamed(parser: Any, request: Any, chunks: Sequence[Sequence[int]], prompt: Sequence[int] | None = None) -> Fields:
    """The deltas of a stream, added up as a client does."""
    reasoning: list[str] = []
    content: list[str] = []
    calls: list[Any] = []
    for place, chunk in enumerate(chunks):
        delta = parser.parse_delta("", list(chunk), request, list(prompt or PROMPT), finished=place == len(chunks) - 1)
        if delta is None:
            continue
        assert delta.reasoning or delta.content or delta.tool_calls, "an empty delta is None"
        reasoning.append(delta.reasoning or "")
        content.append(delta.content or "")
        for call in delta.tool_calls:
            if call.id is not None:
                assert call.index == len(calls)
                assert call.type == "function"
                calls.append([call.function.name, ""])
            calls[call.index][1] += call.function.arguments or ""
    return "".join(reasoning) or None, "".join(content) or None, [(name, arguments) for name, arguments in calls]


def one_by_one(ids: Sequence[int]) -> list[list[int]]:
    return [[token] for token in ids] or [[]]


def by(size: int, ids: Sequence[int]) -> list[list[int]]:
    return [list(ids[place : place + size]) for place in range(0, len(ids), size)] or [[]]
