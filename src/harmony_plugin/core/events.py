"""Events: what the core gives out. Plain values; nothing here knows how they come about."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

from .issues import Issue

__all__ = [
    "FIELDS",
    "Delta",
    "Ended",
    "Event",
    "Field",
    "Joiner",
    "Message",
    "Reply",
    "Started",
    "Text",
    "ToolCall",
    "ToolCallDelta",
]

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


class ToolCall(NamedTuple):
    """One tool call. ``arguments``: the model's text, verbatim (usually JSON); ``{}`` where it wrote none."""

    id: str
    name: str
    arguments: str

    def to_openai(self) -> dict[str, Any]:
        """The call as it stands in an assistant message."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


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


class Delta:
    """What one chunk adds to the reply. Falsy when that is nothing; two in a row add up with ``+``.

    ``reasoning_content`` and ``content``: text to append, or None. ``tool_calls``: a tuple of `ToolCallDelta`.

    >>> from harmony_plugin import Delta
    >>> Delta(content="Hel") + Delta(content="lo.")
    Delta(content='Hello.')
    >>> (Delta() + Delta(reasoning_content="So.")).to_openai()
    {'reasoning_content': 'So.'}
    """

    __slots__ = ("content", "reasoning_content", "tool_calls")

    def __init__(
        self,
        reasoning_content: str | None = None,
        content: str | None = None,
        tool_calls: tuple[ToolCallDelta, ...] = (),
    ) -> None:
        self.reasoning_content = reasoning_content
        self.content = content
        self.tool_calls = tool_calls

    def _fields(self) -> dict[str, Any]:
        """What is there."""
        fields: dict[str, Any] = {}
        if self.reasoning_content is not None:
            fields["reasoning_content"] = self.reasoning_content
        if self.content is not None:
            fields["content"] = self.content
        if self.tool_calls:
            fields["tool_calls"] = self.tool_calls
        return fields

    def __add__(self, later: Delta) -> Delta:
        if not isinstance(later, Delta):
            return NotImplemented
        calls = {call.index: call for call in self.tool_calls}
        for call in later.tool_calls:
            known = calls.get(call.index)
            calls[call.index] = call if known is None else known._replace(arguments=known.arguments + call.arguments)
        return Delta(
            _added(self.reasoning_content, later.reasoning_content),
            _added(self.content, later.content),
            tuple(calls.values()),
        )

    def __bool__(self) -> bool:
        return self.content is not None or self.reasoning_content is not None or bool(self.tool_calls)

    def __eq__(self, other: object) -> bool:
        return self._fields() == other._fields() if isinstance(other, Delta) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.reasoning_content, self.content, self.tool_calls))

    def __repr__(self) -> str:
        return f"Delta({', '.join(f'{name}={value!r}' for name, value in self._fields().items())})"

    def to_openai(self) -> dict[str, Any]:
        """The delta of a chat completion chunk: only what is there."""
        delta = self._fields()
        if self.tool_calls:
            delta["tool_calls"] = [call.to_openai() for call in self.tool_calls]
        return delta


def _added(text: str | None, later: str | None) -> str | None:
    return later if text is None else text if later is None else text + later


class BareDelta(Delta):
    """A delta whose maker sets every field: on the token path a call of ``__init__`` counts."""

    __slots__ = ()
    __init__ = object.__init__


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


class Joiner:
    """Events to deltas: texts of a field joined, its messages separated by a newline. One for one reply."""

    __slots__ = ("_spoken", "fresh")

    def __init__(self) -> None:
        self._spoken: set[Field] = set()
        #: Whether the message begun last has given no text yet.
        self.fresh = True

    def delta(self, events: list[Event]) -> Delta:
        """The events of one chunk as one delta."""
        texts: dict[Field, list[str]] = {}
        calls: dict[int, ToolCallDelta] = {}
        arguments: dict[int, list[str]] = {}
        for event in events:
            if isinstance(event, Text):
                field, text, index = event
                if index is not None:
                    calls.setdefault(index, ToolCallDelta(index))
                    arguments.setdefault(index, []).append(text)
                elif self.fresh and field in self._spoken:
                    texts.setdefault(field, []).append("\n" + text)
                else:
                    self._spoken.add(field)
                    texts.setdefault(field, []).append(text)
                self.fresh = False
            elif isinstance(event, Started):
                self.fresh = True
                if event.call:
                    calls[event.call.index] = event.call
        delta = Delta()
        if "reasoning" in texts:
            delta.reasoning_content = "".join(texts["reasoning"])
        if "content" in texts:
            delta.content = "".join(texts["content"])
        if calls:
            delta.tool_calls = tuple(
                call._replace(arguments="".join(arguments.get(index, ()))) for index, call in calls.items()
            )
        return delta


class Reply(NamedTuple):
    """A whole reply, split.

    >>> from harmony_plugin import parse
    >>> reply = parse("<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>4")
    >>> reply.to_openai()
    {'role': 'assistant', 'content': '4', 'reasoning_content': 'Easy.'}
    >>> reply.finish_reason(cut=True)
    'length'

    ``reasoning_content`` and ``content`` are None where the model wrote none. ``reasoning_tokens``: generated ids whose
    text went to reasoning, None for text input. ``issues``: what was wrong with the output (`harmony_plugin.CODES`).
    """

    reasoning_content: str | None
    content: str | None
    tool_calls: tuple[ToolCall, ...]
    messages: tuple[Message, ...]
    issues: tuple[Issue, ...]
    reasoning_tokens: int | None

    def finish_reason(self, cut: bool = False) -> Literal["length", "tool_calls", "stop"]:
        """OpenAI's finish reason. ``cut``: the engine was cut off, by its token limit for instance."""
        return finish_reason(cut, bool(self.tool_calls))

    def to_openai(self) -> dict[str, Any]:
        """The assistant message, in OpenAI's shape; ``tool_calls`` only where there are some."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self.content,
            "reasoning_content": self.reasoning_content,
        }
        if self.tool_calls:
            message["tool_calls"] = [call.to_openai() for call in self.tool_calls]
        return message


def finish_reason(cut: bool, has_call: bool) -> Literal["length", "tool_calls", "stop"]:
    """``length`` where the engine was cut off; else ``tool_calls`` if the reply has a call; else ``stop``."""
    return "length" if cut else "tool_calls" if has_call else "stop"
