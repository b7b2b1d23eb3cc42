"""Whole chat replies: what vLLM's serving layer does to a parser's result after the parser is done with it.

Two things, once a reply and never once a chunk: `reasoning_content` beside vLLM's `reasoning` (streams have it from
the parser's own deltas), and the finish reason, which vLLM calls ``tool_calls`` in whole replies even where the call
was cut off, and ``length`` in streams. Knows nothing of Harmony.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

from . import seams

__all__ = ["wrap_whole_replies"]

_MARK = "_harmony_plugin"


def wrap_whole_replies(is_ours: Callable[[Any], bool], reasoning_content: bool) -> bool:
    """Wrap ``OpenAIServingChat`` of this process, once. ``is_ours``: whether a parser class is one of this plugin's.

    False where there is nothing to wrap: the process serves no chat.
    """
    serving = seams.chat_serving()
    if serving is None:
        return False
    original = serving.chat_completion_full_generator
    if getattr(original, _MARK, False):
        return True

    @functools.wraps(original)
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

    setattr(chat_completion_full_generator, _MARK, True)
    serving.chat_completion_full_generator = chat_completion_full_generator
    return True


async def _watch(results: AsyncIterator[Any], finished: dict[int, str | None]) -> AsyncIterator[Any]:
    """``results``, with each choice's finish reason noted."""
    async for result in results:
        for output in result.outputs:
            finished[output.index] = output.finish_reason
        yield result
