"""Deltas: events written down as what each chunk adds to a reply, and added up to the whole reply.

The one place where the messages of a field are joined and a reply is added up. Knows events, and no stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from .events import Event, Field, Message, Started, Text, ToolCallDelta
from .issues import Issue

__all__ = ["NO_ARGUMENTS", "BareDelta", "Delta", "Joiner", "Record", "Reply", "ToolCall", "added_up", "finish_reason"]

#: What stands between two messages of one field.
_SEPARATOR = "\n"
#: The arguments of a call that has none.
NO_ARGUMENTS = "{}"


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


class ToolCall(NamedTuple):
    """One tool call. ``arguments``: the model's text, verbatim (usually JSON); ``{}`` where it wrote none."""

    id: str
    name: str
    arguments: str

    def to_openai(self) -> dict[str, Any]:
        """The call as it stands in an assistant message."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


class Joiner:
    """Events to deltas: texts of a field joined, its messages separated by a newline. One for one reply."""

    __slots__ = ("_spoken", "fresh")

    def __init__(self) -> None:
        self._spoken: set[Field] = set()
        #: Whether the message begun last has given no text yet.
        self.fresh = True

    def delta(self, events: list[Event]) -> Delta:
        """The events of one chunk as one delta."""
        if len(events) == 1 and not self.fresh:
            # Text that goes on, the common case.
            (event,) = events
            if isinstance(event, Text):
                if event.index is not None:
                    return Delta(tool_calls=(ToolCallDelta(event.index, None, None, event.text),))
                return Delta(event.text) if event.field == "reasoning" else Delta(None, event.text)
        return self._joined(events)

    def _joined(self, events: list[Event]) -> Delta:
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
                    texts.setdefault(field, []).append(_SEPARATOR + text)
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

    @classmethod
    def of(cls, events: Iterable[Event], issues: Iterable[Issue] = (), reasoning_tokens: int | None = None) -> Reply:
        """The reply that a stream's events add up to: by their text, which may have been cut on the way.

        >>> from harmony_plugin import Reply, Stream
        >>> stream = Stream()
        >>> events = stream.feed_events("<|channel|>final<|message|>It is 21 C.") + stream.finish_events()
        >>> Reply.of(events).content
        'It is 21 C.'

        Of a whole reply it gives what `Stream.reply` gives; so it does without one that was kept (``Options.keep``).
        A message that has not ended counts as far as it came.
        """
        records: list[Record] = []
        begun: Started | None = None
        texts: list[str] = []
        for event in events:
            if isinstance(event, Text):
                texts.append(event.text)
            elif isinstance(event, Started):
                begun, texts = event, []
            elif begun is not None:
                records.append(_record(begun, event.message, "".join(texts)))
                begun = None
        if begun is not None:
            records.append(_record(begun, begun.message._replace(complete=False), "".join(texts)))
        return added_up(records, issues, reasoning_tokens)

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


#: A message that has ended: its field, itself, and the call that it is.
Record = tuple[Field | None, Message, ToolCall | None]


def added_up(records: Sequence[Record], issues: Iterable[Issue], reasoning_tokens: int | None) -> Reply:
    """The reply that messages make, in their order."""
    reasoning: list[str] = []
    content: list[str] = []
    calls: list[ToolCall] = []
    messages: list[Message] = []
    for field, message, call in records:
        messages.append(message)
        if call is not None:
            calls.append(call)
        elif field is not None and message.text:
            (reasoning if field == "reasoning" else content).append(message.text)
    return Reply(
        _SEPARATOR.join(reasoning) or None,
        _SEPARATOR.join(content) or None,
        tuple(calls),
        tuple(messages),
        tuple(issues),
        reasoning_tokens,
    )


def _record(begun: Started, ended: Message, told: str) -> Record:
    """A message of which ``told`` is the text given out; ``ended``: as it is where it was not cut."""
    field, _, call = begun
    if call is None:
        return field, ended if field is None else ended._replace(text=told), None
    assert call.id is not None
    assert call.name is not None
    whole = ToolCall(call.id, call.name, told)
    if not ended.text.startswith(told) and (ended.text or told == NO_ARGUMENTS):
        return field, ended, whole  # arguments that the model did not write: none, or repaired
    return field, ended._replace(text=told), whole


def finish_reason(cut: bool, has_call: bool) -> Literal["length", "tool_calls", "stop"]:
    """``length`` where the engine was cut off; else ``tool_calls`` if the reply has a call; else ``stop``."""
    return "length" if cut else "tool_calls" if has_call else "stop"
