"""pydantic-ai: an agent's run, whole and streamed; an output type by the API's format, and by a tool."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ThinkingPart, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from told import API, MODEL, URL, Told, add, main, prompt


class Sum(BaseModel):
    sum: int
    word: str


def agent(**more: Any) -> Agent[None, Any]:
    kind = OpenAIChatModel if API == "chat" else OpenAIResponsesModel
    model = kind(MODEL, provider=OpenAIProvider(base_url=f"{URL}/v1", api_key="none"))
    settings = {"parallel_tool_calls": True} if more.get("tools") else None
    return Agent(model, model_settings=settings, retries=0, **more)


def told(result: Any) -> Told:
    thoughts = []
    for message in result.all_messages():
        for part in message.parts:
            if isinstance(part, ThinkingPart):
                raw = (part.provider_details or {}).get("raw_content") or []
                thoughts += [part.content, *raw]
    details = {"reasoning": result.usage.details.get("reasoning_tokens", 0)}
    return Told(
        result.output, thoughts, {"input": result.usage.input_tokens, "output": result.usage.output_tokens, **details}
    )


def loop() -> Told:
    return told(agent(tools=[add]).run_sync(prompt("loop")))


def streamed() -> Told:
    # Not `run_stream`, which takes the first text for the answer: the preamble of a call.
    async def handler(context: Any, events: Any) -> None:
        async for _ in events:
            pass

    return told(agent(tools=[add]).run_sync(prompt("streamed"), event_stream_handler=handler))


def schema() -> Told:
    return Told(value=agent(output_type=NativeOutput(Sum)).run_sync(prompt("schema")).output.model_dump())


def tool() -> Told:
    return Told(value=agent(output_type=ToolOutput(Sum)).run_sync(prompt("tool")).output.model_dump())


def partial() -> Told:
    async def run() -> Told:
        async with agent(output_type=NativeOutput(Sum)).run_stream(prompt("partial")) as result:
            return Told(value=[value async for value in result.stream_output(debounce_by=None)][-1].model_dump())

    return asyncio.run(run())


main({"loop": loop, "streamed": streamed, "schema": schema, "tool": tool, "partial": partial})
