"""Events: what the core gives out. Plain values; nothing here knows how they come about, nor what is made of them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

__all__ = ["FIELDS", "Ended", "Event", "Field", "Message", "Started", "Text", "ToolCallDelta"]

#: Where text goes; None, where that may be: to an issue only.
Field = Literal["reasoning", "content", "tool_call"]
FIELDS: frozenset[Field] = frozenset(get_args(Field))


class Message(NamedTuple):
    """One Harmony message of the output, as ``openai_harmony`` has it.

    ``content_type`` is spelled as written: ``json``, or ``<|constrain|>json``. ``complete``: an end marker closed it.
    """

    role: str
    channel: str | None
    recipient: str | None
    content_type: str | None
    text: str
    complete: bool = True


class ToolCallDelta(NamedTuple):
    """A piece of a tool call. ``id`` and ``name`` come once, at its beginning; ``arguments`` add up."""

    index: int  # type: ignore[assignment]  # shadows tuple.index: OpenAI's name is worth more
    id: str | None = None
    name: str | None = None
    arguments: str = ""

    def to_openai(self) -> dict[str, Any]:
        """The piece as it stands in a chunk's delta."""
        if self.id is None:
            return {"index": self.index, "function": {"arguments": self.arguments}}
        function = {"name": self.name, "arguments": self.arguments}
        return {"index": self.index, "id": self.id, "type": "function", "function": function}


class Started(NamedTuple):
    """A message began. ``field`` None: its text reaches no field, but an issue. ``call``: a call's index, id, name."""

    field: Field | None
    message: Message
    call: ToolCallDelta | None = None


class Text(NamedTuple):
    """Text of the message that is open. No separators between messages; ``index``: of the tool call, or None."""

    field: Field
    text: str
    index: int | None = None  # type: ignore[assignment]


class Ended(NamedTuple):
    """The message that was open ended; ``message`` holds its text where the stream keeps it."""

    field: Field | None
    message: Message
    index: int | None = None  # type: ignore[assignment]


Event = Started | Text | Ended
