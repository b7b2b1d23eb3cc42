"""What vLLM's serving layer does to a reply after the parser is done with it, put right.

Each wrapper here works once a reply, or once a chunk for the price of a call; none knows Harmony:

- Whole chat replies get ``reasoning_content`` beside vLLM's ``reasoning`` (streams have it from the parser's deltas),
  and the finish reason that streams have: vLLM says ``tool_calls`` of a call that was cut off.
- Whole ``/v1/messages`` replies hold arguments as an object. vLLM answers HTTP 400 where the model wrote none; here
  they are kept, as text, under the name ``arguments``.
- ``/v1/responses`` counts reasoning tokens before the reply's end is parsed; those of the end are added.
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from . import seams

__all__ = ["wrap"]

_MARK = "_harmony_plugin"


def wrap(is_ours: Callable[[Any], bool], reasoning_content: bool) -> None:
    """Wrap the serving classes that this process has loaded, each once. An engine core has none, and loads none.

    Args:
        is_ours: whether a parser class is one of this plugin's; every other's replies stay as they are.
        reasoning_content: whether whole replies get it.
    """
    chat = functools.partial(_whole_chat_replies, is_ours=is_ours, reasoning_content=reasoning_content)
    wrappers: tuple[Callable[[Any], Any], ...] = (chat, _whole_messages, _late_tokens)
    for (module, owner, method), wrapper in zip(seams.SERVING, wrappers, strict=True):
        serving = seams.loaded(module, owner)
        original = getattr(serving, method, None)
        if original is None or hasattr(original, _MARK):
            continue
        wrapped = functools.wraps(original)(wrapper(original))
        setattr(wrapped, _MARK, True)
        setattr(serving, method, wrapped)


def _whole_chat_replies(original: Any, *, is_ours: Callable[[Any], bool], reasoning_content: bool) -> Any:
    async def chat_completion_full_generator(
        self: Any, request: Any, result_generator: AsyncIterator[Any], *args: Any, **kwargs: Any
    ) -> Any:
        if not is_ours(getattr(self, "parser_cls", None)):
            return await original(self, request, result_generator, *args, **kwargs)
        finished: dict[int, str | None] = {}
        response = await original(self, request, _watch(result_generator, finished), *args, **kwargs)
        for choice in getattr(response, "choices", ()):
            engine = finished.get(choice.index)
            if engine == "length" or (choice.finish_reason == "tool_calls" and not choice.message.tool_calls):
                choice.finish_reason = engine
            if reasoning_content and choice.message.reasoning is not None:
                choice.message.reasoning_content = choice.message.reasoning
        return response

    return chat_completion_full_generator


async def _watch(results: AsyncIterator[Any], finished: dict[int, str | None]) -> AsyncIterator[Any]:
    """``results``, with each choice's finish reason noted."""
    async for result in results:
        for output in result.outputs:
            finished[output.index] = output.finish_reason
        yield result


def _whole_messages(original: Any) -> Any:
    def messages_full_converter(self: Any, generator: Any, *args: Any, **kwargs: Any) -> Any:
        for choice in generator.choices:
            for call in choice.message.tool_calls or ():
                call.function.arguments = _as_object(call.function.arguments)
        return original(self, generator, *args, **kwargs)

    return messages_full_converter


def _as_object(arguments: str) -> str:
    """``arguments`` where they are a JSON object; else an object that holds their text."""
    try:
        if isinstance(json.loads(arguments), dict):
            return arguments
    except (ValueError, RecursionError):
        pass
    return json.dumps({"arguments": arguments})


def _late_tokens(original: Any) -> Any:
    def append_output(self: Any, output: Any, *args: Any, **kwargs: Any) -> None:
        original(self, output, *args, **kwargs)
        if output.finished:
            self.num_reasoning_tokens += getattr(self.response_parser, "late_reasoning_tokens", 0)

    return append_output
