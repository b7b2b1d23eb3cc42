"""Stream: chunks of one reply in, deltas out; and `parse`, which is a stream fed once.

Puts the rooms together: lexer, machine, routing. It joins messages, numbers the tool calls and counts; it decides
neither what a marker means nor which field a message goes to.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, overload

from .deltas import NO_ARGUMENTS, Delta, Joiner, Record, Reply, ToolCall, added_up, finish_reason
from .events import Ended, Event, Field, Message, Started, Text, ToolCallDelta
from .header import Header
from .issues import BY_SETTING, Code, HarmonyParseError, Issue
from .lexer import IdLexer, TextLexer
from .machine import BODY_TEXT, CLOSE, OPEN, Machine, Verbatim
from .options import Options
from .routing import Route, Router, tool_names
from .shortcut import NO_PIECES, TokenPath
from .tokens import Token
from .vocabulary import Vocabulary, harmony_vocabulary, vocabulary_of

__all__ = ["Stream", "is_json", "parse"]

_DEFAULTS = Options()


def _call_id() -> str:
    """``call_`` and 24 random letters or digits."""
    return f"call_{os.urandom(12).hex()}"


def _repair(arguments: str) -> str:
    try:
        import json_repair
    except ImportError as error:
        raise ImportError(
            "Options(arguments='repair') needs json-repair: pip install 'harmony-plugin[repair]'"
        ) from error
    mended = json_repair.repair_json(arguments, ensure_ascii=False)
    return mended if isinstance(mended, str) and mended else arguments


def is_json(text: str) -> bool:
    """Whether a call's arguments are JSON."""
    import json  # only calls need it: the core's import stays light

    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class Stream(TokenPath):
    """Splits one reply as it comes. Feed it chunks in order, then finish it; one stream for one reply.

    >>> from harmony_plugin import Stream
    >>> stream = Stream(tools=["get_weather"])
    >>> stream.feed("<|channel|>analysis<|message|>Let me ")
    Delta(reasoning_content='Let me ')
    >>> stream.feed("see.<|end|><|start|>assistant<|channel|>final<|mess")
    Delta(reasoning_content='see.')
    >>> stream.feed("age|>It is 21 C.") + stream.finish()
    Delta(content='It is 21 C.')

    Or all at once, as a loop: ``for delta in Stream().deltas(chunks): ...`` (and ``async for``).

    Args:
        prompt: the prompt's text or ids; the output goes on from its end (everything after its last ``<|start|>``).
            None: as if it ended in ``<|start|>assistant``.
        tools: the tools on offer: names or OpenAI tool dicts; ``[]`` where the request offers none; None: not known.
        options: the settings; see `Options`.
        decode: from a token id to its bytes, or a `Vocabulary` (share one: it learns). Default: the Harmony library's
            o200k_harmony. Not needed for text.

    Work per chunk is proportional to the chunk. Not for several threads at once.
    """

    __slots__ = (
        "_append",
        "_body_at",
        "_body_ids",
        "_call",
        "_calls",
        "_channels",
        "_decode",
        "_early",
        "_field",
        "_finished",
        "_gives",
        "_header",
        "_held",
        "_issues",
        "_joiner",
        "_lexer",
        "_machine",
        "_open",
        "_options",
        "_parts",
        "_plain",
        "_reasoning_ids",
        "_records",
        "_route",
        "_router",
        "_shown",
        "_written",
    )

    def __init__(
        self,
        prompt: str | Sequence[int] | None = None,
        tools: Iterable[str | Mapping[str, Any]] | None = None,
        options: Options | None = None,
        decode: Callable[[int], bytes] | Vocabulary | None = None,
    ) -> None:
        super().__init__()
        self._options = options = _DEFAULTS if options is None else options
        names = tool_names(tools)
        self._machine = Machine(tuple(options.channels), names or ()) if options.enabled else Verbatim()
        self._router = Router(names, options)
        self._decode = decode
        self._lexer: IdLexer | TextLexer | None = None
        self._issues: list[Issue] = []
        self._joiner = Joiner()
        # Every message that ended.
        self._records: list[Record] = []
        self._channels: dict[str | None, int] = {}
        self._calls = 0
        self._reasoning_ids = 0
        self._finished = False
        # Deltas or events: text that one of them told would be missing in the other.
        self._gives: Literal["deltas", "events"] | None = None
        # The message that is open.
        self._open = False
        self._field: Field | None = None
        # Its field, as the client sees it: None where a setting drops its text.
        self._shown: Field | None = None
        # Whether it is a call that is written into the content.
        self._written = False
        self._header = Header()
        self._route = Route(None)
        self._call: ToolCallDelta | None = None
        self._parts: list[str] = []
        self._body_at = self._body_ids = 0
        # White space in front of arguments (they may turn out to be empty), or all of arguments that want repair.
        self._held: list[str] | None = None
        # What the prompt began: given out with the first chunk.
        self._early: list[Event] = []
        # The ids that may take the short cut, with their text.
        self._plain = NO_PIECES
        self._append: Callable[[str], object] = self._parts.append
        if prompt is not None and len(prompt) and options.enabled:
            self._prime(prompt)

    # In

    def finish(self) -> Delta:
        """The output ends: gives what was held. Again: nothing."""
        return self._joiner.delta(self._finish("deltas"))

    @overload
    def deltas(self, chunks: AsyncIterable[str | Sequence[int]]) -> AsyncIterator[Delta]: ...
    @overload
    def deltas(self, chunks: Iterable[str | Sequence[int]]) -> Iterator[Delta]: ...
    def deltas(
        self, chunks: Iterable[str | Sequence[int]] | AsyncIterable[str | Sequence[int]]
    ) -> Iterator[Delta] | AsyncIterator[Delta]:
        """The deltas of all these chunks, the end included; those that add nothing are left out.

        For ``for``, or for ``async for`` where the chunks come that way.

        >>> from harmony_plugin import Stream
        >>> list(Stream().deltas(["<|channel|>final<|message|>Hel", "lo.", "<|return|>"]))
        [Delta(content='Hel'), Delta(content='lo.')]
        """
        return self._async_deltas(chunks) if isinstance(chunks, AsyncIterable) else self._deltas(chunks)

    def _deltas(self, chunks: Iterable[str | Sequence[int]]) -> Iterator[Delta]:
        for chunk in chunks:
            if delta := self.feed(chunk):
                yield delta
        if delta := self.finish():
            yield delta

    async def _async_deltas(self, chunks: AsyncIterable[str | Sequence[int]]) -> AsyncIterator[Delta]:
        async for chunk in chunks:
            if delta := self.feed(chunk):
                yield delta
        if delta := self.finish():
            yield delta

    def finish_events(self) -> list[Event]:
        """Like `finish`, as a list of events."""
        return self._finish("events")

    def _finish(self, what: Literal["deltas", "events"]) -> list[Event]:
        self._go_on(what, self._close_path())
        out: list[Event] = []
        self._end_of_output(out)
        return out

    def _go_on(self, what: Literal["deltas", "events"], taken: int) -> None:
        """Before the next chunk, or the end. The first one tells whether this stream gives deltas or events.

        Args:
            what: what is asked for now.
            taken: how many ids took the short cut since.
        """
        if self._gives != what:
            if self._gives is not None:
                raise RuntimeError(f"this stream gives {self._gives}: make another Stream for {what}")
            self._gives = what
        if taken:
            assert self._lexer is not None
            self._lexer.offset += taken
            self._body_ids += taken

    def _feed_slowly(self, chunk: str | Sequence[int], taken: int) -> tuple[Delta, Mapping[int, str]]:
        self._go_on("deltas", taken)
        out: list[Event] = []
        self._take(chunk, out)
        delta = self._joiner.delta(out)
        # The first text of a message may want a separator in front.
        return delta, NO_PIECES if self._joiner.fresh else self._next()

    def _events_slowly(self, chunk: str | Sequence[int], taken: int) -> tuple[list[Event], Mapping[int, str]]:
        self._go_on("events", taken)
        out: list[Event] = []
        self._take(chunk, out)
        return out, self._next()

    def _next(self) -> Mapping[int, str]:
        """The ids that may take the short cut now."""
        lexer = self._lexer
        if self._open and self._shown and lexer and not lexer.holding and self._held is None:
            return self._plain
        return NO_PIECES

    def _take(self, chunk: str | Sequence[int], out: list[Event] | None) -> None:
        """Take a chunk. ``out`` None: nobody wants the events."""
        if self._finished:
            raise RuntimeError("this stream is finished: make a Stream for each reply")
        if type(chunk) is not list and not isinstance(chunk, str):
            _check_chunk(chunk)
        if not len(chunk):
            return
        lexer = self._lexer or self._choose(chunk)
        if isinstance(chunk, str):
            if isinstance(lexer, IdLexer):
                raise TypeError("this stream takes token ids: its first chunk was ids, not text")
            tokens = lexer.feed(chunk)
        else:
            if isinstance(lexer, TextLexer):
                raise TypeError("this stream takes text: its first chunk was text, not token ids")
            try:
                tokens = lexer.feed(chunk)
            except TypeError:
                raise _no_chunk(chunk) from None
        self._machine.feed(tokens)
        self._advance(out)

    def _end_of_output(self, out: list[Event] | None) -> None:
        if self._finished:
            return
        if self._lexer:
            self._machine.feed(self._lexer.finish())
        self._machine.finish(self._lexer.offset if self._lexer else 0)
        self._finished = True
        self._advance(out)

    # State

    @property
    def field(self) -> Field | None:
        """The field that text generated now goes to; None inside a header, between messages, or for an issue's text."""
        return self._field if self._open else None

    @property
    def in_body(self) -> bool:
        """Whether a message is open."""
        return self._open

    @property
    def issues(self) -> tuple[Issue, ...]:
        """The issues so far."""
        return tuple(self._issues)

    @property
    def reasoning_tokens(self) -> int:
        """Generated ids so far whose text went to reasoning (0 for text input)."""
        return self._reasoning_ids + (self._body_ids + self._taken if self.field == "reasoning" else 0)

    @property
    def tool_call_count(self) -> int:
        """How many tool calls have begun."""
        return self._calls

    @property
    def message_counts(self) -> Mapping[str | None, int]:
        """How many messages have ended, by the channel that each was taken for."""
        return MappingProxyType(self._channels)

    def finish_reason(self, cut: bool = False) -> Literal["length", "tool_calls", "stop"]:
        """OpenAI's finish reason, so far. ``cut``: the engine was cut off."""
        return finish_reason(cut, self._calls > 0)

    @property
    def reply(self) -> Reply:
        """The whole reply: what `parse` gives.

        Raises:
            RuntimeError: the stream is not finished, or does not keep its messages (``Options(keep=False)``).
        """
        if not self._finished:
            raise RuntimeError("the reply is not finished: call finish() first")
        if not self._options.keep:
            raise RuntimeError("Options(keep=False) keeps no reply")
        reasoning = None if isinstance(self._lexer, TextLexer) else self._reasoning_ids
        return added_up(self._records, self._issues, reasoning)

    # Inside

    def _choose(self, chunk: str | Sequence[int]) -> IdLexer | TextLexer:
        """The first chunk tells whether this stream takes text or ids."""
        self._lexer = lexer = self._lexer_for(chunk)
        if isinstance(lexer, IdLexer):
            self._plain = lexer.vocabulary.text
            self._machine.apart = lexer.apart
        return lexer

    def _lexer_for(self, chunk: str | Sequence[int]) -> IdLexer | TextLexer:
        if isinstance(chunk, str):
            return TextLexer(self._options.dialect)
        return IdLexer(self._vocabulary())

    def _vocabulary(self) -> Vocabulary:
        if self._decode is None:
            self._decode = harmony_vocabulary(self._options.dialect)
        elif not isinstance(self._decode, Vocabulary):
            self._decode = vocabulary_of(self._decode, self._options.dialect)
        elif self._decode.dialect != self._options.dialect:
            raise ValueError("decode: this Vocabulary was made for another dialect than Options(dialect=…)")
        return self._decode

    def _prime(self, prompt: str | Sequence[int]) -> None:
        """Begin where the prompt ends."""
        dialect = self._options.dialect
        if isinstance(prompt, str):
            marker = dialect.markers["start"]
            place = prompt.rfind(marker)
            tail: str | Sequence[int] = prompt[place + len(marker) :]
        else:
            start = dialect.ids["start"]
            place = next((n for n in range(len(prompt) - 1, -1, -1) if prompt[n] == start), -1)
            tail = prompt[place + 1 :]
        if place < 0:
            return
        tokens: list[Token] = []
        if len(tail):
            lexer = self._lexer_for(tail)
            tokens = lexer.feed(tail) + lexer.finish()  # type: ignore[arg-type]
        self._machine.prime(tokens)
        for _, header, offset in self._machine.take():
            self._start(header, offset, self._early)

    def _advance(self, out: list[Event] | None) -> None:
        """Bring what the machine found to its fields."""
        if self._early:
            if out is not None:
                out += self._early
            self._early = []
        for event in self._machine.take():
            kind = event[0]
            if kind == BODY_TEXT:
                self._text(event[1], event[2], out)
            elif kind == OPEN:
                self._start(event[1], event[2], out)
            elif kind == CLOSE:
                self._end(event[1], out)
            else:
                self._issue(event[1], event[2], event[3])

    def _issue(self, code: Code, offset: int, text: str = "") -> None:
        issue = Issue(code, offset, text, "tokens" if isinstance(self._lexer, IdLexer) else "characters")
        self._issues.append(issue)
        if self._options.strict and code not in BY_SETTING:
            self._finished = True
            raise HarmonyParseError(issue)

    def _message(self, text: str, complete: bool) -> Message:
        header = self._header
        channel = header.written or header.channel
        return Message(header.role, channel, header.recipient, header.content_type, text, complete)

    def _start(self, header: Header, offset: int, out: list[Event] | None) -> None:
        self._header = header
        self._route = route = self._router.route(header)
        self._field = field = route.field
        self._shown = shown = field if route.shown else None
        self._open = True
        self._body_at, self._body_ids = offset, 0
        # What the reply or an issue wants is kept; arguments are looked at as a whole once they end.
        self._parts = []
        self._append = self._parts.append if shown is None or self._options.keep or self._options.strict else _forget
        self._held = None
        self._call = None
        self._written = field == "content" and route.name is not None
        if field == "tool_call":
            self._call = ToolCallDelta(self._calls, _call_id(), route.name)
            self._calls += 1
            self._held = []
        if field is not None and route.issue:
            self._issue(route.issue, offset, header.channel or "" if route.issue == "unknown_channel" else "")
        if out is not None:
            if shown is not None:
                self._aim_path(shown, self._calls - 1, self._append)
            out.append(Started(shown, self._message("", True), self._call))
        if self._written:
            self._text(f"{route.name}(", 0, out)
            self._held = []

    def _text(self, text: str, ids: int, out: list[Event] | None) -> None:
        self._body_ids += ids
        if not text:
            return
        if self._held is None or not self._written:
            self._append(text)
        field = self._shown
        if field is None:
            return
        if self._held is not None:
            self._held.append(text)
            if self._options.arguments == "repair" or text.isspace():
                return
            text = "".join(self._held)
            self._held = None
            if self._written:
                self._append(text)
        if out is not None:
            out.append(Text(field, text, self._call.index if self._call else None))

    def _end(self, complete: bool, out: list[Event] | None) -> None:
        if self._written:
            held, self._held = self._held, None
            self._text("" if held is None else self._late_arguments("".join(held)), 0, out)
            self._text(")", 0, out)
        field, call = self._field, self._call
        text = "".join(self._parts)
        whole: ToolCall | None = None
        if call:
            arguments = text
            if self._held is not None:
                arguments = self._late_arguments("".join(self._held))
                if out is not None:
                    out.append(Text("tool_call", arguments, call.index))
            elif self._append is not _forget and not is_json(text):
                self._issue("arguments_not_json", self._body_at)
            assert call.id is not None
            assert call.name is not None
            whole = ToolCall(call.id, call.name, arguments)
        if field == "reasoning":
            self._reasoning_ids += self._body_ids
        shown = self._shown
        if shown is None and (field is None or text):
            self._issue("dropped_text" if field else self._route.issue or "loose_text", self._body_at, text)
        channel = self._header.channel
        self._channels[channel] = self._channels.get(channel, 0) + 1
        self._open = False
        self._parts = []
        message = self._message(text if self._options.keep else "", complete)
        if self._options.keep:
            self._records.append((shown, message, whole))
        if out is not None:
            out.append(Ended(shown, message, call.index if call else None))

    def _late_arguments(self, text: str) -> str:
        """The arguments of a call that were held to its end: there are none, or they want repair."""
        if not text or text.isspace():
            return NO_ARGUMENTS
        if is_json(text):
            return text
        self._issue("arguments_repaired", self._body_at, text)
        return _repair(text)


def _no_chunk(chunk: object) -> TypeError:
    what = type(chunk).__name__
    if isinstance(chunk, (list, tuple)) and chunk:
        what += f" of {type(chunk[0]).__name__}"
    return TypeError(f"a chunk is text or a sequence of token ids, not {what}")


def _check_chunk(chunk: object) -> None:
    if isinstance(chunk, (bytes, bytearray, Mapping)) or not hasattr(chunk, "__getitem__"):
        raise _no_chunk(chunk)


def _forget(text: str) -> None:
    """In place of list.append where nothing is kept."""


def parse(
    output: str | Sequence[int],
    *,
    prompt: str | Sequence[int] | None = None,
    tools: Iterable[str | Mapping[str, Any]] | None = None,
    options: Options | None = None,
    decode: Callable[[int], bytes] | Vocabulary | None = None,
) -> Reply:
    """Split a whole reply: a `Stream` fed once. See there for the arguments.

    >>> from harmony_plugin import parse
    >>> reply = parse(
    ...     "<|channel|>analysis<|message|>I need the tool.<|end|><|start|>assistant"
    ...     '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Rome"}<|call|>'
    ... )
    >>> reply.reasoning_content, reply.content, reply.finish_reason()
    ('I need the tool.', None, 'tool_calls')
    >>> reply.tool_calls[0].name, reply.tool_calls[0].arguments
    ('get_weather', '{"city": "Rome"}')
    >>> parse("It is 21 C.").issues  # what was wrong with the output is told, never raised
    (Issue(code='loose_text', offset=0, text='', unit='characters'),)

    Raises:
        HarmonyParseError: strict mode met an issue.
    """
    if options is not None and not options.keep:
        raise ValueError("parse() gives the reply: Options(keep=False) is for streams")
    stream = Stream(prompt, tools, options, decode)
    stream._take(output, None)
    stream._end_of_output(None)
    return stream.reply
