"""litellm: `completion` and `responses`, the loop as its documentation has it; a pydantic model as the format."""

from __future__ import annotations

import json
import os
from typing import Any

from pydantic import BaseModel
from told import API, MODEL, URL, Told, add, main, prompt

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # not asked for at GitHub
import litellm

# Of a model that it does not know it streams nothing on Responses: it asks for the whole reply.
litellm.register_model({f"openai/{MODEL}": {"litellm_provider": "openai", "supports_native_streaming": True}})

PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
FUNCTION = {"name": "add", "description": "The sum of two numbers.", "parameters": PARAMETERS}
AT: dict[str, Any] = {"model": f"openai/{MODEL}", "api_base": f"{URL}/v1", "api_key": "none", "max_retries": 0}


class Sum(BaseModel):
    sum: int
    word: str


def chat(run: str, stream: bool) -> Told:
    messages: list[Any] = [{"role": "user", "content": prompt(run)}]
    result = Told(usage={"input": 0, "output": 0, "reasoning": 0})
    options = {"tools": [{"type": "function", "function": FUNCTION}], "parallel_tool_calls": True}
    while True:
        reply = litellm.completion(messages=messages, **AT, **options, **(streaming() if stream else {}))
        if stream:
            reply = litellm.stream_chunk_builder(list(reply), messages=messages)
        message, usage = reply.choices[0].message, reply.usage
        messages.append(message)
        result.thoughts.append(getattr(message, "reasoning_content", None) or "")
        result.usage["input"] += usage.prompt_tokens
        result.usage["output"] += usage.completion_tokens
        details = usage.completion_tokens_details
        result.usage["reasoning"] += (details and details.reasoning_tokens) or 0
        if not message.tool_calls:
            result.answer = message.content
            return result
        for call in message.tool_calls:
            given = str(add(**json.loads(call.function.arguments)))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": given})


def streaming() -> dict[str, Any]:
    return {"stream": True, "stream_options": {"include_usage": True}}


def responses(run: str, stream: bool) -> Told:
    items: list[Any] = [{"role": "user", "content": prompt(run)}]
    result = Told(usage={"input": 0, "output": 0, "reasoning": 0})
    options = {"tools": [{"type": "function", **FUNCTION}], "parallel_tool_calls": True}
    while True:
        reply = litellm.responses(input=items, **AT, **options, stream=stream)
        if stream:
            reply = [event for event in reply if event.type == "response.completed"][-1].response
        output = [item if isinstance(item, dict) else item.model_dump(exclude_none=True) for item in reply.output]
        items += output
        for item in output:
            if item["type"] == "reasoning":
                result.thoughts += [part["text"] for part in item.get("content") or ()]
        result.usage["input"] += reply.usage.input_tokens
        result.usage["output"] += reply.usage.output_tokens
        details = reply.usage.output_tokens_details
        result.usage["reasoning"] += (details and details.reasoning_tokens) or 0
        calls = [item for item in output if item["type"] == "function_call"]
        if not calls:
            result.answer = reply.output_text
            return result
        for call in calls:
            given = str(add(**json.loads(call["arguments"])))
            items.append({"type": "function_call_output", "call_id": call["call_id"], "output": given})


def schema() -> Told:
    if API == "chat":
        messages = [{"role": "user", "content": prompt("schema")}]
        text = litellm.completion(messages=messages, **AT, response_format=Sum).choices[0].message.content
    else:
        text = litellm.responses(input=prompt("schema"), **AT, text_format=Sum).output_text
    return Told(value=Sum.model_validate_json(text).model_dump())


asked = chat if API == "chat" else responses
main({"loop": lambda: asked("loop", False), "streamed": lambda: asked("streamed", True), "schema": schema})
