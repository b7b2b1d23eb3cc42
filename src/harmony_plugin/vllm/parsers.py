"""The parsers that vLLM loads under the name ``harmony``, and those that take the place of its own when it does.

vLLM imports this module when the user names ``harmony``, and only then. Importing it rebinds two classes (see `seams`):

- `HarmonyParser` for gpt-oss: chat, ``/v1/messages``, batches (``parse``, ``parse_delta``) and ``/v1/responses``
  (``process_chunk``, ``flush``). Grammars for tools and ``response_format`` are vLLM's own, by inheritance.
- `DelegatingParser` for every other model that writes Harmony: the same, by token ids, so that nothing depends on how
  the text was detokenized.

All splitting is the core's; this module translates types.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harmony_plugin import Delta, Field, HarmonyParseError, Options, Started, Stream
from harmony_plugin.api import debug
from harmony_plugin.api.reply import Ending
from harmony_plugin.settings import REQUEST_KEY, set_up_logging

from . import blocks, metrics, seams
from .client_tools import request_class
from .constraints import bound, constrain, limits_of
from .deltas import delta_message, function_calls, with_id
from .requests import (
    check_tool_choice,
    ended_by,
    has_structural_tag,
    hosted_tools,
    leave_notes,
    leave_plan,
    notes_of,
    options_of,
    stop_of,
    tool_names,
    with_known_effort,
    with_markers,
    with_objects_as_arguments,
    with_server_limits,
    without_calls,
)
from .responses import SegmentMaker
from .serving import Split, ended, take_logprobs, wrap
from .settings import from_environment, limits_of_server
from .splitting import NO_STOP, Plan, Splitter, Stop, patience_of
from .tokenizers import Tokens, tokens_of

__all__ = ["DelegatingParser", "HarmonyParser", "HarmonyReasoningParser", "HarmonyToolParser"]

_vllm = seams.load()
_settings = from_environment()
_limits = limits_of_server(_settings)
set_up_logging(_settings)

#: Ids that a header may take, marker included; longer ones are no headers (SPEC: 512 characters).
_HEADER_IDS = 512


class HarmonyReasoningParser(_vllm.ReasoningParser):  # type: ignore[misc, name-defined]
    """Tells the engine where a grammar begins; splits reasoning off for callers that use it by itself."""

    def __init__(self, tokenizer: Any, *args: Any, **kwargs: Any) -> None:
        self._tokens = tokens_of(tokenizer, _settings)
        # Where the answer begins does not depend on what is shown of it.
        self._plain = replace(self._tokens.options, enabled=True, output="openai_tool_calls", reasoning="keep")
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
        stream = Stream(None, None, self._plain, self._tokens.vocabulary)
        started = [
            event for event in stream.feed_events(list(input_ids[begin : message + 1])) if isinstance(event, Started)
        ]
        return bool(started) and started[-1].field == "content" and started[-1].message.channel != "commentary"

    @property
    def reasoning_start_str(self) -> str:
        """Where vLLM begins to count a thinking budget."""
        markers = self._tokens.options.dialect.markers
        return f"{markers['channel']}analysis{markers['message']}"

    @property
    def reasoning_end_str(self) -> str:
        """What vLLM puts in when the budget is spent, and knows the end of reasoning by.

        The end marker alone: reasoning ends with it whatever comes next, a call or an answer, and grammars take it.
        """
        return self._tokens.options.dialect.markers["end"]

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
    """What both parsers have in common: a `Splitter` for each reply, and vLLM's types around it. A mix-in.

    A parser splits the replies of chat (`parse`, `parse_delta`), or, for gpt-oss, those of ``/v1/responses``
    (`process_chunk`, `flush`); never one reply by both.
    """

    _reasoning_parser: Any
    _tool_parser: Any

    def __init__(self, tokenizer: Any, tools: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(tokenizer, tools, *args, **kwargs)  # type: ignore[call-arg]
        _wrap()  # what was loaded since
        self._template = kwargs.get("chat_template_kwargs")
        self._tokens = tokens_of(tokenizer, _settings)
        self._options = options_of(self._tokens, self._template)
        self._notes = notes_of(self._template)
        self._offered = tools
        # The reply under way.
        self._splitter: Splitter | None = None
        self._segments: SegmentMaker | None = None
        self._feed: Any = None
        self._feed_events: Any = None
        self._reasons = True
        self._blocks: blocks.Blocks | None = None
        self._logprobs: list[Any] | None = None
        self._clock = metrics.Clock() if _settings.debug else None
        self._prompt: Sequence[int] | None = None
        # Of the last whole reply: its ids, and how many of them were reasoning.
        self._counted: tuple[Sequence[int], int] | None = None

    def set_prompt_token_ids(self, prompt_token_ids: Sequence[int]) -> None:
        self._prompt = prompt_token_ids

    def adjust_request(self, request: Any) -> Any:
        check_tool_choice(request)
        with_server_limits(request, _settings)
        request = super().adjust_request(request)  # type: ignore[misc]
        leave_plan(request, self._plan(request), patience_of(_settings))
        return request

    def parse(
        self,
        model_output: str,
        request: Any,
        enable_auto_tools: bool = False,
        model_output_token_ids: Sequence[int] = (),
    ) -> tuple[str | None, str | None, list[Any] | None]:
        """A whole reply: a stream of one chunk."""
        splitter = self._open(request, self._prompt)
        logprobs = _logprobs_of(request, model_output_token_ids, splitter)
        delta = metrics.timed(splitter.feed, self._clock)(model_output_token_ids) + splitter.finish()
        if logprobs is not None:
            logprobs[:] = splitter.lined_up
        self._counted = (model_output_token_ids, splitter.stream.reasoning_tokens)
        self._end(splitter, request)
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
            feed = self._begin(request, prompt_token_ids)
        try:
            delta = feed(delta_token_ids)
            if finished:
                assert self._splitter is not None
                delta += self._splitter.finish()
        except HarmonyParseError as error:  # strict alone
            if self._blocks is not None:
                self._blocks.fail(error)
            raise
        if not finished:
            return delta_message(delta, self._reasons)
        splitter = self._splitter
        assert splitter is not None
        if self._logprobs is not None:
            self._logprobs += splitter.lined_up
        told = self._end(splitter, request)
        return delta_message(delta, self._reasons, told)

    def count_reasoning_tokens(self, token_ids: Sequence[int]) -> int:
        """From the split that was made; a second pass only over ids that this parser has not seen."""
        if self._splitter is not None:
            return self._splitter.stream.reasoning_tokens
        if self._counted is not None:
            ids, reasoning = self._counted
            if ids is token_ids or list(ids) == list(token_ids):
                return reasoning
        return _reasoning_tokens(token_ids, self._tokens, self._options, self._prompt)

    def classify_token_phases(self, token_ids: Sequence[int]) -> Any:
        """What the tokens of a reply were for, for vLLM's metrics, where it asks. A pass of its own."""
        plan = Plan((), self._options, frozenset({"content", "reasoning", "tool_call"}), NO_STOP)
        splitter = self._followed(token_ids, plan)
        reasoning, content = splitter.stream.reasoning_tokens, len(splitter.lined_up)
        rest = len(token_ids) - reasoning - content
        return _vllm.TokenPhaseCounts(reasoning=reasoning, content=content, unclassified=rest)

    def content_places(self, token_ids: Sequence[int], request: Any) -> list[int]:
        """Places of the ids that a whole reply's content came from. A pass of its own."""
        return self._followed(token_ids, self._plan(request)).lined_up

    def _followed(self, token_ids: Sequence[int], plan: Plan) -> Splitter:
        """A whole reply, split with each id followed to the content."""
        splitter = Splitter(self._prompt, plan, self._tokens.vocabulary, follow=True)
        splitter.follow(range(len(token_ids)))
        splitter.feed(token_ids)
        splitter.finish()
        return splitter

    def cuts_a_call(self, token_ids: Sequence[int], request: Any) -> bool:
        """Whether a stop string ends a whole reply inside a call's arguments. A pass of its own."""
        splitter = self._open(request, self._prompt)
        splitter.feed(token_ids)
        splitter.finish()
        return splitter.cut_call

    def _begin(self, request: Any, prompt: Sequence[int] | None) -> Any:
        """A stream begins. Gives what takes its chunks: the core itself where nothing is to be done around it."""
        if self._segments is not None:
            raise RuntimeError("this parser is in the middle of a reply of /v1/responses (process_chunk): flush() it")
        splitter = self._splitter = self._open(request, prompt)
        self._reasons = self._reasoning_parser is not None and getattr(request, "include_reasoning", True)
        follows = getattr(request, "logprobs", False)
        feed = functools.partial(self._feed_with_logprobs, request) if follows else splitter.feed
        self._feed = metrics.timed(feed, self._clock)
        return self._feed

    def _feed_with_logprobs(self, request: Any, ids: Sequence[int]) -> Delta:
        splitter = self._splitter
        assert splitter is not None
        self._logprobs = _logprobs_of(request, ids, splitter)
        delta = splitter.feed(ids)
        if self._logprobs is not None:
            self._logprobs[:] = splitter.lined_up
        splitter.lined_up = []
        return delta

    def _end(self, splitter: Splitter, request: Any) -> dict[str, Any] | None:
        """A reply is whole: what is to be known of it besides its fields. Gives what debugging shows of it."""
        told = self._told(splitter.stream, request)
        ended(Split(splitter.cut_call, told))
        metrics.count(splitter.stream)
        if self._blocks is not None:
            self._blocks.end(Ending(splitter.stream.finish_reason(), splitter.matched))
        return told

    def _told(self, stream: Stream, request: Any) -> dict[str, Any] | None:
        if self._clock is None:
            return None
        seconds, self._clock.seconds = self._clock.seconds, 0.0
        known = {"id": getattr(request, "request_id", None), "model": getattr(request, "model", None)}
        debug.log_reply(stream, seconds, content=_settings.debug_content, **known)
        return debug.told(stream)

    def _plan(self, request: Any) -> Plan:
        """How replies to ``request`` are split."""
        tools = tool_names(getattr(request, "tools", None))
        wanted = self._tool_parser is not None and tools and getattr(request, "tool_choice", None) != "none"
        asked = isinstance(self._template, Mapping) and REQUEST_KEY in self._template
        # Some callers make a parser without the request's settings (vLLM's derender endpoint, for gpt-oss).
        options = self._options if asked else options_of(self._tokens, getattr(request, "chat_template_kwargs", None))
        shown: set[Field] = {"content", "tool_call"}
        if self._reasoning_parser is not None and getattr(request, "include_reasoning", True):
            shown.add("reasoning")
        return Plan(tuple(tools), options if wanted else without_calls(options), frozenset(shown), stop_of(request))

    def _open(self, request: Any, prompt: Sequence[int] | None) -> Splitter:
        """A splitter for a chat reply to ``request``."""
        plan, watch = self._plan(request), None
        self._blocks = blocks.wanted()
        if self._blocks is not None:
            self._blocks.begin(plan.shown, getattr(request, "parallel_tool_calls", None) is not False)
            watch = self._blocks.add
        follow = bool(getattr(request, "logprobs", False))
        return Splitter(prompt, plan, self._tokens.vocabulary, follow=follow, watch=watch)


class HarmonyParser(_Splits, _vllm.HarmonyParser):  # type: ignore[misc, name-defined]
    """vLLM's parser for gpt-oss, with the splitting done by the core."""

    #: Reasoning tokens that only the end of the reply told: see `serving`.
    late_reasoning_tokens = 0
    tool_strict_level: Any

    def is_reasoning_end(self, input_ids: list[int]) -> bool:
        # vLLM's grammars for gpt-oss spell out the headers: they begin with the reply.
        return True

    def adjust_request(self, request: Any) -> Any:
        request = with_known_effort(request, self._reasoning_parser is not None, _settings.reasoning_effort)
        limits, format = limits_of(_limits, request), request.extract_structured_outputs()
        request = super().adjust_request(request)
        plan, ids = self._plan(request).options, self._tokens.options.dialect.ids
        if self._reasoning_parser is not None:  # it is what brings us into the engine, which compiles the grammar
            request = constrain(request, limits, plan, ids, getattr(self, "tool_strict_level", 0) or 0, format)
        if isinstance(request, _vllm.ResponsesRequest):
            leave_notes(request, grammar=has_structural_tag(request))
        return request

    def _apply_structural_tag(self, request: Any) -> Any:
        """vLLM's tags for tools and formats, with calls left possible beside a format."""
        if request.tools and request.tool_choice == "auto" and has_structural_tag(request) and _vllm.call_level:
            # vLLM puts calls into the grammar of a format where it constrains their envelope, and only there.
            level: Any = self.tool_strict_level
            self.tool_strict_level = max(level or 0, _vllm.call_level)
        return with_objects_as_arguments(super()._apply_structural_tag(request))

    def process_chunk(self, token_ids: Sequence[int]) -> Any:
        """A chunk of a reply on ``/v1/responses``."""
        if self._segments is None:
            self._open_response()
        splitter = self._splitter
        assert splitter is not None
        assert self._segments is not None
        before = splitter.stream.reasoning_tokens
        events = self._feed_events(token_ids) if token_ids else []
        segments = self._segments.make(events)
        return _vllm.ChunkResult(segments=segments, reasoning_token_count=splitter.stream.reasoning_tokens - before)

    def flush(self) -> list[Any]:
        """The reply ended: what it left open. The next chunk begins a new reply."""
        splitter, segments = self._splitter, self._segments
        self.late_reasoning_tokens = 0
        if splitter is None or segments is None:
            return []
        self._splitter = self._segments = None
        before = splitter.stream.reasoning_tokens
        flushed = segments.make(splitter.finish_events())
        self.late_reasoning_tokens = splitter.stream.reasoning_tokens - before
        metrics.count(splitter.stream)
        self._told(splitter.stream, None)
        return flushed

    def _plan(self, request: Any) -> Plan:
        if not isinstance(request, _vllm.ResponsesRequest):
            return super()._plan(request)
        return self._response_plan(request.tools, request.tool_choice, request.include_reasoning, stop_of(request))

    def _response_plan(self, tools: Any, tool_choice: Any, include_reasoning: bool, stop: Stop) -> Plan:
        """How a reply on ``/v1/responses`` is split."""
        hosted, labels = hosted_tools(tools)
        options = replace(self._options, builtin_tools="tool_calls") if hosted else self._options
        if tool_choice == "none":
            options = without_calls(options)
        shown: set[Field] = {"content", "tool_call", "reasoning"} if include_reasoning else {"content", "tool_call"}
        return Plan((*tool_names(tools), *labels, *sorted(hosted)), options, frozenset(shown), stop)

    def _open_response(self) -> None:
        if self._splitter is not None:
            raise RuntimeError("this parser has split a reply of chat (parse_delta): make another for /v1/responses")
        notes, (hosted, labels) = self._notes, hosted_tools(self._offered)
        names = {*tool_names(self._offered), *labels}

        def keep_recipient(recipient: str) -> bool:
            if recipient.startswith("functions.") or recipient in names:
                return False
            return recipient.split(".", 1)[0] in hosted or bool(labels)

        stop = notes.get("stop")
        plan = self._response_plan(
            self._offered,
            notes.get("tool_choice"),
            notes.get("include_reasoning", True),
            NO_STOP if not stop else Stop(tuple(stop["strings"]), bool(stop["include"])),
        )
        self._segments = SegmentMaker(_vllm.Segment, keep_recipient)
        # The last prompt is not this turn's when tools run in between; vLLM's all end in <|start|>assistant.
        self._splitter = Splitter(None, plan, self._tokens.vocabulary)
        self._feed_events = metrics.timed(self._splitter.feed_events, self._clock)


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
        if parts and len(ours) == len(parts):
            return
        if ours:
            other = next(part.__name__ for part in parts if part not in ours)
            raise TypeError(f"the parser harmony cannot be combined with {other}: name it for both, or for one alone")
        # A parser of other models, or of no parts, made in a process that has loaded this plugin: as if it had not.
        cls.__bases__ = tuple(_vllm.DelegatingParser if base is DelegatingParser else base for base in cls.__bases__)

    def adjust_request(self, request: Any) -> Any:
        # gpt-oss has <|call|> among its own end tokens; another model need not, and would write the result itself.
        request = super().adjust_request(ended_by(request, self._tokens.options.dialect.ids["call"]))
        limits = limits_of(_limits, request)
        return request if self._reasoning_parser is None else bound(request, limits.max_reasoning_tokens)

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
            with_objects_as_arguments(request)
            if hasattr(request, "_grammar_from_parser"):
                request._grammar_from_parser = True
            if responses:
                leave_notes(request, grammar=True)
        return request


def _logprobs_of(request: Any, ids: Sequence[int], splitter: Splitter) -> list[Any] | None:
    """The list of log probabilities that vLLM has just made for these ids, for the splitter to follow; None: none."""
    logprobs = take_logprobs() if getattr(request, "logprobs", False) else None
    if logprobs is None or len(logprobs) != len(ids):
        return None
    splitter.follow(logprobs)
    return logprobs


def _whole(text: str, request: Any, options: Options) -> Delta:
    """A whole reply given as text."""
    stream = Stream(None, tool_names(getattr(request, "tools", None)), options)
    return stream.feed(text) + stream.finish()


def _reasoning_tokens(ids: Sequence[int], tokens: Tokens, options: Options, prompt: Sequence[int] | None = None) -> int:
    stream = Stream(prompt, None, options, tokens.vocabulary)
    stream.feed(ids)
    stream.finish()
    return stream.reasoning_tokens


def _tokens_of(tokenizer: Any) -> Tokens:
    return tokens_of(tokenizer, _settings)


def _is_ours(parser_class: Any) -> bool:
    """Whether replies of this parser class are split by the core."""
    return isinstance(parser_class, type) and issubclass(parser_class, _Splits)


def _last(ids: Sequence[int], token: int) -> int:
    """The last place of ``token`` in ``ids``, or -1."""
    try:
        return len(ids) - 1 - list(reversed(ids)).index(token)
    except ValueError:
        return -1


def _wrap() -> None:
    wrap(_is_ours, _tokens_of, _settings)


_wrap()
_vllm.rebind(HarmonyParser, DelegatingParser, request_class(_vllm.ResponsesRequest))
