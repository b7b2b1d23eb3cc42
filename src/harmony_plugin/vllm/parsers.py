"""The parsers that vLLM loads under the name ``harmony``, and those that take the place of its own when it does.

vLLM imports this module when the user names ``harmony``, and only then. Importing it rebinds two classes (see `seams`):

- `HarmonyParser` for gpt-oss: chat, ``/v1/messages``, batches (``parse``, ``parse_delta``) and ``/v1/responses``
  (``process_chunk``, ``flush``). Grammars for tools and ``response_format`` are vLLM's own, by inheritance.
- `DelegatingParser` for every other model that writes Harmony: the same, by token ids, so that nothing depends on how
  the text was detokenized.

All splitting is the core's; this module translates types.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from harmony_plugin import Delta, Options, Started, Stream

from . import seams
from .messages import added, delta_message, function_calls, with_id
from .requests import (
    has_structural_tag,
    leave_notes,
    notes_of,
    options_of,
    stop_of,
    tool_names,
    with_markers,
    without_calls,
)
from .responses import SegmentMaker
from .serving import wrap
from .settings import from_environment
from .splitting import NO_STOP, Splitter, Stop
from .tokenizers import Tokens, tokens_of

__all__ = ["DelegatingParser", "HarmonyParser", "HarmonyReasoningParser", "HarmonyToolParser"]

_vllm = seams.load()
_settings = from_environment()

#: Ids that a header may take, marker included; longer ones are no headers (SPEC: 512 characters).
_HEADER_IDS = 512
#: gpt-oss's own tools, by the type under which /v1/responses declares them.
_BUILTIN_TYPES = {
    "code_interpreter": "python",
    "web_search_preview": "browser",
    "web_search": "browser",
    "container": "container",
}


class HarmonyReasoningParser(_vllm.ReasoningParser):  # type: ignore[misc, name-defined]
    """Tells the engine where a grammar begins; splits reasoning off for callers that use it by itself."""

    def __init__(self, tokenizer: Any, *args: Any, **kwargs: Any) -> None:
        self._tokens = tokens_of(tokenizer, _settings)
        super().__init__(tokenizer, *args, **kwargs)
        self._stream: Stream | None = None
        # Set where the grammar spells the whole reply out, headers included, and so begins with it.
        self._whole_reply = bool(notes_of(kwargs.get("chat_template_kwargs")).get("grammar"))

    def is_reasoning_end(self, input_ids: Sequence[int]) -> bool:
        """Whether a grammar is to begin behind ``input_ids``, a prompt: it ends inside the body of a final message.

        Also where there is no marker in it at all, as in a plain prompt for ``/v1/completions``: none will come.
        """
        if self._whole_reply:
            return True
        ids = self._tokens.options.dialect.ids
        message = _last(input_ids, ids["message"])
        if message > _last(input_ids, ids["start"]):
            return self._opens_final(input_ids, message)
        return len(input_ids) > 0 and not any(token in input_ids for token in ids.values())

    def is_reasoning_end_streaming(self, input_ids: Sequence[int], delta_ids: Iterable[int]) -> bool:
        """Whether the body of a final message begins in ``delta_ids``, the end of ``input_ids``.

        Looks at the new ids, and at the ids of a header where one ends in them.
        """
        if self._whole_reply:
            return True
        new = delta_ids if isinstance(delta_ids, Sequence) else list(delta_ids)
        message, before = self._tokens.options.dialect.ids["message"], len(input_ids) - len(new)
        return message in new and any(
            token == message and self._opens_final(input_ids, before + place) for place, token in enumerate(new)
        )

    def _opens_final(self, input_ids: Sequence[int], message: int) -> bool:
        """Whether the ``<|message|>`` at ``message`` opens the body of a final message."""
        ids = self._tokens.options.dialect.ids
        ends = {ids[kind] for kind in ("end", "call", "return", "endoftext")}
        begin, channel, whole = message, -1, False
        while begin > max(0, message - _HEADER_IDS):
            token = input_ids[begin - 1]
            if token in ends or token == ids["message"]:
                whole = token in ends
                break
            begin -= 1
            if token == ids["channel"]:
                channel = begin
            elif token == ids["start"]:
                whole = True
                break
        else:
            whole = begin == 0
        if not whole:
            # Inside a body: a header only from a <|channel|> on, else a stray marker.
            if channel < 0:
                return False
            begin = channel
        stream = Stream(None, None, self._tokens.options, self._tokens.vocabulary)
        started = [
            event for event in stream.feed_events(list(input_ids[begin : message + 1])) if isinstance(event, Started)
        ]
        return bool(started) and started[-1].field == "content" and started[-1].message.channel != "commentary"

    def count_reasoning_tokens(self, token_ids: Sequence[int]) -> int:
        """Generated ids whose text is reasoning."""
        return _reasoning_tokens(token_ids, self._tokens, self._tokens.options)

    def extract_content_ids(self, input_ids: list[int]) -> list[int]:
        """The ids from the final message's body on; none where it has not begun."""
        message = self._tokens.options.dialect.ids["message"]
        for place, token in enumerate(input_ids):
            if token == message and self._opens_final(input_ids, place):
                return list(input_ids[place + 1 :])
        return []

    def adjust_request(self, request: Any) -> Any:
        return with_markers(super().adjust_request(request))

    # For callers that use this parser by itself, and beside another tool parser. vLLM hands over text here; the markers
    # must be in it.

    engine_based_streaming = True

    def has_engine_confirmed_reasoning_end(self) -> bool:
        # Content leaves this parser beside reasoning: there is no second phase.
        return False

    def extract_reasoning(self, model_output: str, request: Any) -> tuple[str | None, str | None]:
        delta = _whole(model_output, request, self._tokens.options)
        return delta.reasoning_content, delta.content

    def extract_reasoning_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
    ) -> Any:
        if self._stream is None:
            self._stream = Stream(None, None, without_calls(self._tokens.options))
        return delta_message(self._stream.feed(delta_text), True)

    def finish_streaming(self) -> Any:
        stream, self._stream = self._stream, None
        return None if stream is None else delta_message(stream.finish(), True)


class HarmonyToolParser(_vllm.ToolParser):  # type: ignore[misc, name-defined]
    """Declares Harmony's tool calls to vLLM; splits them off for callers that use a tool parser by itself."""

    supports_required_and_named = False
    engine_based_streaming = True

    def __init__(self, tokenizer: Any, tools: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(tokenizer, tools, *args, **kwargs)
        self._options = tokens_of(tokenizer, _settings).options
        self._stream: Stream | None = None

    def adjust_request(self, request: Any) -> Any:
        return with_markers(super().adjust_request(request))

    def extract_tool_calls(self, model_output: str, request: Any, **kwargs: Any) -> Any:
        delta = _whole(model_output, request, self._options)
        calls = [{"function": call} | with_id(call.id) for call in function_calls(delta.tool_calls)]
        return _vllm.ExtractedToolCallInformation(tools_called=bool(calls), tool_calls=calls, content=delta.content)

    def extract_tool_calls_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
        request: Any,
    ) -> Any:
        if self._stream is None:
            self._stream = Stream(None, tool_names(getattr(request, "tools", None)), self._options)
        return delta_message(self._stream.feed(delta_text), False)

    def finish_streaming(self) -> Any:
        stream, self._stream = self._stream, None
        return None if stream is None else delta_message(stream.finish(), False)


class _Splits:
    """What both parsers have in common: a `Splitter` for each reply, and vLLM's types around it. A mix-in."""

    _reasoning_parser: Any
    _tool_parser: Any

    def __init__(self, tokenizer: Any, tools: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(tokenizer, tools, *args, **kwargs)  # type: ignore[call-arg]
        wrap(_is_ours, _settings.reasoning_content)
        template = kwargs.get("chat_template_kwargs")
        self._tokens = tokens_of(tokenizer, _settings)
        self._options = options_of(self._tokens, template)
        self._notes = notes_of(template)
        self._offered = tools
        self._splitter: Splitter | None = None
        self._segments: SegmentMaker | None = None
        self._feed: Any = None
        self._reasons = True
        self._prompt: Sequence[int] | None = None
        # Of the last whole reply: its ids, and how many of them were reasoning.
        self._counted: tuple[int, int] = (-1, 0)

    def set_prompt_token_ids(self, prompt_token_ids: Sequence[int]) -> None:
        self._prompt = prompt_token_ids

    def parse(
        self,
        model_output: str,
        request: Any,
        enable_auto_tools: bool = False,
        model_output_token_ids: Sequence[int] = (),
    ) -> tuple[str | None, str | None, list[Any] | None]:
        """A whole reply: a stream of one chunk."""
        splitter = self._open(request, self._prompt)
        delta = added(splitter.feed(model_output_token_ids), splitter.finish())
        self._counted = (len(model_output_token_ids), splitter.stream.reasoning_tokens)
        reasoning = delta.reasoning_content if self._reasoning_parser is not None else None
        return reasoning, delta.content, function_calls(delta.tool_calls) or None

    def parse_delta(
        self,
        delta_text: str,
        delta_token_ids: list[int],
        request: Any,
        prompt_token_ids: list[int] | None = None,
        *,
        finished: bool,
    ) -> Any:
        """One chunk of a stream."""
        feed = self._feed
        if feed is None:
            splitter = self._splitter = self._open(request, prompt_token_ids)
            feed = self._feed = splitter.feed
            self._reasons = self._reasoning_parser is not None and getattr(request, "include_reasoning", True)
        if not finished:
            return delta_message(feed(delta_token_ids), self._reasons)
        assert self._splitter is not None
        return delta_message(added(feed(delta_token_ids), self._splitter.finish()), self._reasons)

    def count_reasoning_tokens(self, token_ids: Sequence[int]) -> int:
        """From the split that was made; a second pass only over ids that this parser has not seen."""
        if self._splitter is not None:
            return self._splitter.stream.reasoning_tokens
        count, reasoning = self._counted
        if count == len(token_ids):
            return reasoning
        return _reasoning_tokens(token_ids, self._tokens, self._options)

    def _open(self, request: Any, prompt: Sequence[int] | None) -> Splitter:
        """A splitter for a chat reply to ``request``."""
        tools = tool_names(getattr(request, "tools", None))
        wanted = self._tool_parser is not None and tools and getattr(request, "tool_choice", None) != "none"
        options = self._options if wanted else without_calls(self._options)
        return Splitter(prompt, tools, options, self._tokens.vocabulary, stop_of(request))


class HarmonyParser(_Splits, _vllm.HarmonyParser):  # type: ignore[misc, name-defined]
    """vLLM's parser for gpt-oss, with the splitting done by the core."""

    #: Reasoning tokens that only the end of the reply told: see `serving`.
    late_reasoning_tokens = 0

    def is_reasoning_end(self, input_ids: list[int]) -> bool:
        # vLLM's grammars for gpt-oss spell out the headers: they begin with the reply.
        return True

    def adjust_request(self, request: Any) -> Any:
        request = super().adjust_request(request)
        if isinstance(request, _vllm.ResponsesRequest):
            leave_notes(request, grammar=has_structural_tag(request))
        return request

    def process_chunk(self, token_ids: Sequence[int]) -> Any:
        """A chunk of a reply on ``/v1/responses``."""
        splitter = self._splitter
        if splitter is None:
            splitter = self._open_response()
        assert self._segments is not None
        before = splitter.stream.reasoning_tokens
        segments = self._segments.make(splitter.feed_events(token_ids)) if token_ids else []
        return _vllm.ChunkResult(segments=segments, reasoning_token_count=splitter.stream.reasoning_tokens - before)

    def flush(self) -> list[Any]:
        """The reply ended: what it left open. The next chunk begins a new reply."""
        splitter, segments = self._splitter, self._segments
        self._splitter = self._segments = None
        self.late_reasoning_tokens = 0
        if splitter is None or segments is None:
            return []
        before = splitter.stream.reasoning_tokens
        flushed = segments.make(splitter.finish_events())
        self.late_reasoning_tokens = splitter.stream.reasoning_tokens - before
        return flushed

    def _open_response(self) -> Splitter:
        tools = self._offered or ()
        names = tool_names(tools)
        types = {getattr(tool, "type", None) for tool in tools}
        hosted = {_BUILTIN_TYPES[kind] for kind in types if kind in _BUILTIN_TYPES}
        if "mcp" in types:
            hosted |= {"python", "browser", "container"}
            names = [*names, *(f"mcp.{tool.server_label}" for tool in tools if getattr(tool, "type", None) == "mcp")]
        options = self._options
        if hosted:
            options = replace(options, builtin_tools="tool_calls")
        if self._notes.get("tool_choice") == "none":
            options = without_calls(options)

        def keep_recipient(recipient: str) -> bool:
            if recipient.startswith("functions.") or recipient in names:
                return False
            return recipient.split(".", 1)[0] in hosted or "mcp" in types

        self._segments = SegmentMaker(_vllm.Segment, keep_recipient)
        stop = self._notes.get("stop")
        self._splitter = Splitter(
            None,  # the last prompt is not this turn's when tools run in between; vLLM's all end in <|start|>assistant
            [*names, *hosted],
            options,
            self._tokens.vocabulary,
            NO_STOP if not stop else Stop(tuple(stop["strings"]), bool(stop["include"])),
        )
        return self._splitter


class DelegatingParser(_Splits, _vllm.DelegatingParser):  # type: ignore[misc, name-defined]
    """vLLM's parser for all other models, with the splitting done by the core where ``harmony`` is named."""

    #: Without it vLLM adjusts no request that has no tools.
    always_adjust_request = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """vLLM composes a parser as a subclass with two parser classes in it.

        Raises:
            TypeError: one is ours and the other is some other model's. They would have to split the same text.
        """
        super().__init_subclass__(**kwargs)
        parts = [part for part in (cls.reasoning_parser_cls, cls.tool_parser_cls) if part is not None]
        ours = [part for part in parts if issubclass(part, (_vllm.ReasoningParser, _vllm.ToolParser))]
        if len(ours) == len(parts):
            return
        if ours:
            other = next(part.__name__ for part in parts if part not in ours)
            raise TypeError(f"the parser harmony cannot be combined with {other}: name it for both, or for one alone")
        # A parser of other models, composed in a process that has loaded this plugin: as if it had not.
        for name in ("always_adjust_request", *vars(_Splits), "_apply_structural_tag"):
            if hasattr(_vllm.DelegatingParser, name) and (not name.startswith("__") or name == "__init__"):
                setattr(cls, name, getattr(_vllm.DelegatingParser, name))

    def _apply_structural_tag(self, request: Any) -> Any:
        """Grammars for tools spell out the whole reply: the engine must begin them with it."""
        apply = super()._apply_structural_tag
        formatted = request.extract_structured_outputs() is not None
        if formatted and request.tool_choice == "auto":
            return request  # the format alone, from the final body on
        responses = isinstance(request, _vllm.ResponsesRequest)
        if not responses and not hasattr(request, "_grammar_from_parser"):
            return request  # this vLLM cannot be told where the grammar begins
        before = request.structured_outputs
        request = apply(request)
        if request.structured_outputs is not before and has_structural_tag(request):
            if hasattr(request, "_grammar_from_parser"):
                request._grammar_from_parser = True
            if responses:
                leave_notes(request, grammar=True)
        return request


def _whole(text: str, request: Any, options: Options) -> Delta:
    """A whole reply given as text."""
    stream = Stream(None, tool_names(getattr(request, "tools", None)), options)
    return added(stream.feed(text), stream.finish())


def _reasoning_tokens(ids: Sequence[int], tokens: Tokens, options: Options) -> int:
    stream = Stream(None, None, options, tokens.vocabulary)
    stream.feed(ids)
    stream.finish()
    return stream.reasoning_tokens


def _is_ours(parser_class: Any) -> bool:
    """Whether replies of this parser class are split by the core."""
    return isinstance(parser_class, type) and issubclass(parser_class, _Splits)


def _last(ids: Sequence[int], token: int) -> int:
    """The last place of ``token`` in ``ids``, or -1."""
    try:
        return len(ids) - 1 - list(reversed(ids)).index(token)
    except ValueError:
        return -1


_vllm.rebind(HarmonyParser, DelegatingParser)
