"""langchain-openai: `ChatOpenAI` with a tool bound to it, the loop as its documentation writes it out; and a model with
structured output, by the API's format and by a tool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool as as_tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from told import API, MODEL, URL, Told, add, main, prompt


class Sum(BaseModel):
    """A sum."""

    sum: int
    word: str


ADD = as_tool(add)


def model(**more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model=MODEL,
        base_url=f"{URL}/v1",
        api_key="none",
        max_retries=0,
        use_responses_api=API == "Responses",
        stream_usage=True,
        include=["reasoning.encrypted_content"] if API == "Responses" else None,
        **more,
    )


def thoughts_of(message: AIMessage) -> list[str]:
    found = [block.get("reasoning") or "" for block in message.content_blocks if block["type"] == "reasoning"]
    items = [block for block in message.content if isinstance(block, dict) and block["type"] == "reasoning"]
    return found + [part["text"] for item in items for part in item.get("content") or ()]


def told(ask: Callable[[Any, list[Any]], AIMessage], run: str) -> Told:
    bound = model().bind_tools([ADD], parallel_tool_calls=True)
    messages: list[Any] = [HumanMessage(prompt(run))]
    # Of chat it reads no reasoning.
    result = Told(thoughts=None if API == "chat" else [], usage={"input": 0, "output": 0, "reasoning": 0})
    while True:
        message = ask(bound, messages)
        messages.append(message)
        if result.thoughts is not None:
            result.thoughts += thoughts_of(message)
        usage = message.usage_metadata
        result.usage["input"] += usage["input_tokens"]
        result.usage["output"] += usage["output_tokens"]
        result.usage["reasoning"] += usage["output_token_details"].get("reasoning", 0)
        if not message.tool_calls:
            result.answer = str(message.text)
            return result
        messages += [ADD.invoke(call) for call in message.tool_calls]


def loop() -> Told:
    return told(lambda bound, messages: bound.invoke(messages), "loop")


def streamed() -> Told:
    def ask(bound: Any, messages: list[Any]) -> AIMessage:
        chunks = iter(bound.stream(messages))
        whole = next(chunks)
        for chunk in chunks:
            whole += chunk
        return whole

    return told(ask, "streamed")


def schema() -> Told:
    return Told(value=model().with_structured_output(Sum, method="json_schema").invoke(prompt("schema")).model_dump())


def tool() -> Told:
    asked = model().with_structured_output(Sum, method="function_calling")
    return Told(value=asked.invoke(prompt("tool")).model_dump())


def partial() -> Told:
    asked = model().with_structured_output(Sum, method="json_schema")
    return Told(value=list(asked.stream(prompt("partial")))[-1].model_dump())


main({"loop": loop, "streamed": streamed, "schema": schema, "tool": tool, "partial": partial})
