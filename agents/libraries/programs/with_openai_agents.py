"""openai-agents: the runner's loop, whole and streamed, and an output type."""

from __future__ import annotations

import asyncio
from typing import Any

from agents import (
    Agent,
    AgentOutputSchema,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel
from told import API, MODEL, URL, Told, add, main, prompt

set_tracing_disabled(True)


class Sum(BaseModel):
    sum: int
    word: str


def agent(**more: Any) -> Agent[None]:
    client = AsyncOpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
    kind = OpenAIChatCompletionsModel if API == "chat" else OpenAIResponsesModel
    # Off for models that are not DeepSeek's.
    replay = {"should_replay_reasoning_content": lambda context: True} if API == "chat" else {}
    settings = ModelSettings(parallel_tool_calls=True if more.get("tools") else None, include_usage=True)
    return Agent("Adder", model=kind(MODEL, client, **replay), model_settings=settings, **more)


def told(result: Any) -> Told:
    thoughts = []
    for item in result.new_items:
        if item.type == "reasoning_item":
            # Of a stream of chat it makes both, of one text.
            thoughts += [part.text for part in item.raw_item.content or item.raw_item.summary]
    usage = result.context_wrapper.usage
    tokens = {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "reasoning": usage.output_tokens_details.reasoning_tokens,
    }
    return Told(result.final_output, thoughts, tokens)


def loop() -> Told:
    return told(Runner.run_sync(agent(tools=[function_tool(add)]), prompt("loop")))


def streamed() -> Told:
    async def run() -> Told:
        result = Runner.run_streamed(agent(tools=[function_tool(add)]), prompt("streamed"))
        async for _ in result.stream_events():
            pass
        return told(result)

    return asyncio.run(run())


def schema() -> Told:
    result = Runner.run_sync(agent(output_type=AgentOutputSchema(Sum)), prompt("schema"))
    return Told(value=result.final_output.model_dump())


main({"loop": loop, "streamed": streamed, "schema": schema})
