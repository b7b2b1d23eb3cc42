"""``/v1/messages``: its content blocks are written from the core's events, one for each message, whole and streamed.

vLLM would make them of chat's fields, in which the messages of a field have become one text. All around the blocks
stays its own: ids, usage, errors, and the frames that open and close a stream. Knows no parser, and of vLLM's classes
no more than that they are pydantic's.
"""

from __future__ import annotations

import contextvars
import json
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from harmony_plugin import Event, Field, HarmonyParseError, Started, Text
from harmony_plugin.api.errors import MalformedOutput, error_body
from harmony_plugin.api.messages import MessageWriter
from harmony_plugin.api.reply import Ending, Piece

__all__ = ["Blocks", "collect", "streamed", "wanted", "whole"]


class Blocks:
    """The blocks of one reply. Its parser tells of events and of the end; who answers takes what is to be sent."""

    def __init__(self) -> None:
        self._writer = MessageWriter("")
        self._unsent: list[dict[str, Any]] = []
        self._shown: Collection[Field] = ()
        self._parallel = True
        self._ending: Ending | None = None
        self.failed: MalformedOutput | None = None

    def begin(self, shown: Collection[Field], parallel: bool) -> None:
        """What is sent: of which fields, and whether of more calls than the first."""
        self._shown, self._parallel = shown, parallel

    def add(self, events: list[Event]) -> None:
        """More of the reply."""
        self._unsent += self._writer.feed(Piece([event for event in events if self._is_sent(event)]))

    def end(self, ending: Ending) -> None:
        """The reply is whole."""
        self._ending = ending
        # There are clients that look at the first block, whatever there is.
        nothing: list[Event] = [] if self._writer.message["content"] else [Text("content", "")]
        self._unsent += self._writer.feed(Piece(nothing, ending=ending))

    def fail(self, error: HarmonyParseError) -> None:
        """The reply ends here: its settings are strict."""
        self.failed = MalformedOutput(error)

    @property
    def ended(self) -> bool:
        return self._ending is not None

    def take(self) -> list[dict[str, Any]]:
        """The stream events that were not taken yet."""
        unsent, self._unsent = self._unsent, []
        return unsent

    def close(self) -> list[dict[str, Any]]:
        """The stream events of the end, whether the reply is whole or not."""
        return [*self.take(), *self._writer.close()]

    @property
    def content(self) -> list[dict[str, Any]]:
        """The blocks, once they are closed."""
        content: list[dict[str, Any]] = self._writer.message["content"]
        return content

    def stop_reason(self, vllms: str | None) -> dict[str, Any]:
        """``stop_reason`` and ``stop_sequence``. ``vllms``: the reason by vLLM, which knows of the token limit."""
        told = {"stop_reason": vllms, "stop_sequence": None}
        if self.ended and vllms != "max_tokens":
            told = {name: self._writer.message[name] for name in told}
        return told

    def _is_sent(self, event: Event) -> bool:
        index = (event.call.index if event.call else None) if isinstance(event, Started) else event.index
        return event.field in self._shown and (self._parallel or not index)


#: The blocks of the reply that is made in this context; None: it is another API's.
_blocks: contextvars.ContextVar[Blocks | None] = contextvars.ContextVar("blocks", default=None)


def wanted() -> Blocks | None:
    """The blocks to be made of the reply that is parsed in this context; None: none."""
    return _blocks.get()


def collect() -> Blocks:
    """The reply that is made next in this context is for ``/v1/messages``."""
    blocks = Blocks()
    _blocks.set(blocks)
    return blocks


def whole(original: Any) -> Any:
    """``AnthropicServingMessages.messages_full_converter``, with our blocks where a parser made some."""

    def messages_full_converter(self: Any, generator: Any, *args: Any, **kwargs: Any) -> Any:
        blocks = wanted()
        if blocks is None:
            return original(self, generator, *args, **kwargs)
        message = generator.choices[0].message
        # vLLM would make blocks of them, and fails on arguments that are no JSON.
        message.reasoning, message.content, message.tool_calls = None, None, []
        reply = original(self, generator, *args, **kwargs)
        blocks.close()
        reply.content = type(reply).model_validate({**reply.model_dump(), "content": blocks.content}).content
        for name, value in blocks.stop_reason(reply.stop_reason).items():
            setattr(reply, name, value)
        return reply

    return messages_full_converter


def streamed(original: Any, is_ours: Callable[[Any], bool]) -> Any:
    """``AnthropicServingMessages.message_stream_converter``, with our blocks between vLLM's own frames."""

    def message_stream_converter(self: Any, generator: Any, *args: Any, **kwargs: Any) -> AsyncIterator[str]:
        def frames_of(chunks: AsyncIterator[Any]) -> AsyncIterator[str]:
            frames: AsyncIterator[str] = original(self, chunks, *args, **kwargs)
            return frames

        return (
            _with_blocks(frames_of, generator) if is_ours(getattr(self, "parser_cls", None)) else frames_of(generator)
        )

    return message_stream_converter


async def _with_blocks(
    frames_of: Callable[[AsyncIterator[Any]], AsyncIterator[str]], chunks: AsyncIterator[Any]
) -> AsyncIterator[str]:
    """The frames of a stream. vLLM's converter is given no chunk that has but text: no blocks of its own, and no work.

    Args:
        frames_of: vLLM's converter.
        chunks: of chat, text in some releases and objects in others: they are not looked into.
    """
    blocks = collect()
    kept: list[Any] = []
    error: Exception | None = None
    try:
        async for chunk in chunks:
            events = blocks.take()
            if events:
                yield _frames(events)
            if blocks.failed is not None:
                yield _frames([*blocks.close(), error_body(blocks.failed, anthropic=True)])
                return
            if not kept:
                async for frame in frames_of(_each([chunk])):
                    if not frame.startswith("event: message_stop"):  # 0.33: where the chunks end
                        yield frame
                    if frame.startswith("event: error"):
                        return
            if not kept or not events or blocks.ended:
                kept.append(chunk)
    except Exception as failure:
        error = failure
    if events := blocks.close():
        yield _frames(events)
    async for frame in _ending(frames_of(_each(kept, error)), blocks):
        yield frame


async def _ending(frames: AsyncIterator[str], blocks: Blocks) -> AsyncIterator[str]:
    """Of the frames that vLLM makes of the first chunk and the last ones, those behind the blocks."""
    async for frame in frames:
        if frame.startswith("event: message_delta"):
            event = json.loads(frame.partition("data:")[2])
            event["delta"] |= blocks.stop_reason(event["delta"].get("stop_reason"))
            yield _frames([event])
        elif not frame.startswith(("event: message_start", "event: content_block")):
            yield frame


async def _each(chunks: list[Any], error: Exception | None = None) -> AsyncIterator[Any]:
    for chunk in chunks:
        yield chunk
    if error is not None:
        raise error


_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _frames(events: list[dict[str, Any]]) -> str:
    return "".join(f"event: {event['type']}\ndata: {_dump(event)}\n\n" for event in events)
