"""The core's events as the segments that vLLM's ``/v1/responses`` is made from.

A segment is a piece of a message's text with the channel and recipient it came under, or a message that is complete.
vLLM routes them by channel and recipient, and fails on those it does not know; so each segment is given the ones that
make vLLM send the text where the core said it belongs. Takes the segment class from its caller; splits nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from harmony_plugin import Ended, Started, Text
from harmony_plugin.core import Event, harmony_library

__all__ = ["SegmentMaker"]


class SegmentMaker:
    """Events in, segments out; one for each reply.

    Args:
        segment: vLLM's ``Segment(channel, recipient, delta, completed_message)``.
        keep_recipient: whether vLLM runs a tool of this name itself (or over MCP), and so wants the name as it stands;
            every other call is a function call.
    """

    def __init__(self, segment: Callable[..., Any], keep_recipient: Callable[[str], bool]) -> None:
        self._segment = segment
        self._keep = keep_recipient
        self._route: tuple[str, str | None] | None = None
        self._texts: list[str] = []

    def make(self, events: Iterable[Event]) -> list[Any]:
        """The segments of ``events``. Text that the core sends to no field gives none."""
        segments: list[Any] = []
        for event in events:
            if isinstance(event, Text):
                if self._route is not None:
                    self._texts.append(event.text)
                    segments.append(self._segment(*self._route, event.text, None))
            elif isinstance(event, Started):
                self._route = self._routed(event)
                self._texts = []
            elif self._route is not None:
                segments.extend(self._completed(event))
                self._route = None
        return segments

    def _routed(self, event: Started) -> tuple[str, str | None] | None:
        channel, recipient = event.message.channel, event.message.recipient
        if event.field == "reasoning":
            return "analysis", None
        if event.field == "content":
            return ("commentary" if channel == "commentary" and recipient is None else "final"), None
        if event.field == "tool_call" and event.call is not None:
            if recipient is not None and self._keep(recipient):
                return channel or "commentary", recipient
            return "commentary", f"functions.{event.call.name}"
        return None

    def _completed(self, event: Ended) -> list[Any]:
        assert self._route is not None
        channel, recipient = self._route
        text = "".join(self._texts)
        if not text and recipient is None:
            return []  # a stream has no item of a message without text, so a whole reply has none
        lib = harmony_library()
        message = lib.Message.from_role_and_content(lib.Role.ASSISTANT, text).with_channel(channel)
        if recipient is not None:
            message = message.with_recipient(recipient)
        if event.message.content_type is not None:
            message = message.with_content_type(event.message.content_type)
        return [self._segment(channel, recipient, "", message)]
