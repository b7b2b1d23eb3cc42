"""`/v1/chat/completions`: the body handed to the chat handler, field by field, and what the engine does with its turn.

The handler judges the fields, and its `RequestError` names the one that is wrong; a second check here would only
drift from it. Other APIs are translated to this one's fields, so this module knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from ...api.errors import error_body
from ...api.reply import Ending, Piece, TokenLogprob, Usage, Writer
from ...core import Ended, Event, Field, Message, RequestError, Started, Text, ToolCallDelta
from ...settings import REQUEST_KEY
from ..handler import HarmonyChatHandler
from .host import Call, Taken

__all__ = ["StockReply", "call", "check"]

Json: TypeAlias = "dict[str, Any]"

# Keyword arguments of chat handlers that only code in this process may use.
RESERVED = frozenset(
    {
        *("self", "llama", "cancelled", "observe", "request_id", "builtin_tools", "tools_shown", REQUEST_KEY),
        *("grammar", "logits_processor", "logits_processors"),
    }
)

# What would change the reply, and cannot be had here.
UNSUPPORTED = {
    "grammar": "it would hold the markers around the text, too; use response_format or strict tools",
    "web_search_options": "this server runs no tools; offer a function that searches",
}


def check(body: Any) -> Json:
    """The handler's keyword arguments for `body`, a JSON value: what the client gave, less `null`s.

    Raises:
        RequestError: if it is no object, or asks for something that makes no sense over HTTP.
    """
    if not isinstance(body, dict):
        raise RequestError("The body is not a JSON object.", None, "invalid_type")
    given = {name: value for name, value in body.items() if value is not None and name not in RESERVED}
    if "messages" not in given:
        raise RequestError("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
    for name, kind, what in (
        ("stream", bool, "true or false"),
        ("model", str, "a string"),
        ("metadata", dict, "an object"),
    ):
        if not isinstance(given.get(name, kind()), kind):
            raise RequestError(f"{name} is not {what}", name, "invalid_type")
    for name in ("max_tokens", "max_completion_tokens"):
        # In a program, no number of tokens means as many as fit; a client that sends one has made a mistake.
        limit = given.get(name)
        if isinstance(limit, int) and not isinstance(limit, bool) and limit < 1:
            raise RequestError(f"{name} is {limit}; it may be at least 1", name, "invalid_value")
    for name, instead in UNSUPPORTED.items():
        if body.get(name) is not None:
            raise RequestError(f"{name} is not supported: {instead}.", name, "unsupported_parameter")
    _take_template(given)
    options = given.get("stream_options")
    if options is not None and not given.get("stream"):
        raise RequestError("stream_options needs stream: true", "stream_options", "invalid_value")
    # The chat handlers of other formats do not look at it.
    if isinstance(options, dict) and not isinstance(options.get("include_usage", False), bool | None):
        where = "stream_options.include_usage"
        raise RequestError(f"{where} is not true or false", where, "invalid_type")
    return given


def _take_template(given: Json) -> None:
    """What clients of llama-server and vLLM put among the chat template's variables: they know no better place."""
    template = given.pop("chat_template_kwargs", None)
    if isinstance(template, dict):
        if template.get("reasoning_effort") is not None:
            given.setdefault("reasoning_effort", template["reasoning_effort"])
        if template.get(REQUEST_KEY) is not None:
            given[REQUEST_KEY] = template[REQUEST_KEY]


def call(
    handler_of: Callable[[Any], Callable[..., Any]],
    given: Mapping[str, Any],
    model: str,
    *,
    observe: Callable[[Usage], None],
    as_chat: bool = False,
) -> Call:
    """What a request does with its seat: one call of the model's chat handler. A whole reply is one item, a list of
    pieces.

    Args:
        given: the handler's keyword arguments.
        model: the name that the reply carries.
        observe: told what the reply came to once it has ended, however it did, in the engine's thread.
        as_chat: the items of a `StockReply` are what its handler gives, which is written as the chat API has it.
    """

    def run(llama: Any, cancelled: Callable[[], bool]) -> Taken:
        handler = handler_of(llama)
        fields = {**given, "llama": llama, "model": model, "cancelled": cancelled}
        if isinstance(handler, HarmonyChatHandler):
            reply: Any = handler.replies(**fields, observe=observe)
            items: Iterable[Any] = reply
        else:
            for name in ("request_id", "builtin_tools", "tools_shown", "max_tool_calls", REQUEST_KEY):
                fields.pop(name, None)
            reply = StockReply(_stock(handler, fields), observe)
            items = reply.chunks() if as_chat else reply
        return Taken(reply, items, whole=not given.get("stream"))

    return run


def _stock(handler: Callable[..., Any], fields: Json) -> Json | Iterable[Json]:
    fields.setdefault("max_tokens", fields.pop("max_completion_tokens", None))
    try:
        return handler(**fields)  # type: ignore[no-any-return]
    except (ValueError, TypeError, KeyError) as error:  # what these raise for messages that they cannot take
        raise RequestError(
            f"The model's chat format cannot take this request: {error}", None, "invalid_value"
        ) from error


class StockReply:
    """A reply of one of llama-cpp-python's own chat handlers, for a model with another chat format.

    Iterating gives its pieces, for the APIs that are written from them.

    Attributes:
        usage: as far as the handler tells it.
        sampling: what it is sampled by, beside what the request says: the handler does not tell.
    """

    sampling: Mapping[str, float] = MappingProxyType({})

    def __init__(self, given: Json | Iterable[Json], observe: Callable[[Usage], None]) -> None:
        self.usage = Usage()
        self._observe = observe
        self._given = [given] if isinstance(given, dict) else given

    def writer(self) -> Writer:
        """What passes on what the handler gave."""
        return _Verbatim()

    def chunks(self) -> Iterator[Json]:
        """What the handler gave: a completion, or chunks of one."""
        try:
            for chunk in self._given:
                self._note(chunk)
                yield chunk
        finally:
            self._observe(self.usage)

    def _note(self, chunk: Json) -> None:
        told = chunk.get("usage")
        if told:
            self.usage.prompt, self.usage.completion = told.get("prompt_tokens", 0), told.get("completion_tokens", 0)
            self.usage.cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens")
        for choice in chunk.get("choices") or ():
            self.usage.finish = choice.get("finish_reason") or self.usage.finish

    def __iter__(self) -> Iterator[Piece]:
        reading = _ChunkReader()
        for chunk in self.chunks():
            for choice in (chunk.get("choices") or ())[:1]:
                events = reading.events(choice.get("delta") or choice.get("message") or {})
                if events:
                    yield Piece(events, _logprobs(choice))
        yield Piece(reading.close(), (), Ending(ENDINGS.get(self.usage.finish or "", "stop")))


class _Verbatim(Writer):
    """For items that the chat API has already."""

    def feed(self, piece: Any) -> Iterator[Json]:
        yield piece

    def fail(self, error: RequestError) -> Iterator[Json]:
        yield error_body(error, anthropic=False)

    def whole(self, pieces: Iterable[Any], usage: Usage) -> Json:
        completion: Json
        (completion,) = pieces
        return completion


class _ChunkReader:
    """Chat deltas as events: a message ends where another field, or another call, begins."""

    def __init__(self) -> None:
        self._open: tuple[Field, int | None] | None = None

    def events(self, delta: Mapping[str, Any]) -> list[Event]:
        events: list[Event] = []
        if delta.get("content"):
            self._text(events, "content", delta["content"])
        for number, call in enumerate(delta.get("tool_calls") or ()):
            index, function = call.get("index", number), call.get("function") or {}
            started = ToolCallDelta(index, call.get("id"), function.get("name"))
            self._text(events, "tool_call", function.get("arguments") or "", started)
        return events

    def close(self) -> list[Event]:
        if self._open is None:
            return []
        (field, index), self._open = self._open, None
        return [Ended(field, _MESSAGE, index)]

    def _text(self, events: list[Event], field: Field, text: str, call: ToolCallDelta | None = None) -> None:
        index = None if call is None else call.index
        if self._open != (field, index):
            events += self.close()
            events.append(Started(field, _MESSAGE, call))
            self._open = field, index
        events.append(Text(field, text, index))


ENDINGS: dict[str, Literal["length", "tool_calls"]] = {"length": "length", "tool_calls": "tool_calls"}
_MESSAGE = Message("assistant", None, None, None, "")


def _logprobs(choice: Mapping[str, Any]) -> list[TokenLogprob]:
    entries = (choice.get("logprobs") or {}).get("content") or ()
    return [
        TokenLogprob(_bytes(entry), entry["logprob"], tuple((_bytes(t), t["logprob"]) for t in entry["top_logprobs"]))
        for entry in entries
    ]


def _bytes(entry: Mapping[str, Any]) -> bytes:
    given = entry.get("bytes")
    return str(entry["token"]).encode() if given is None else bytes(given)
