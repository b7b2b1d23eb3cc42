"""What vLLM's serving layer does around a parser, put right.

Each wrapper here works once a reply, or once a chunk for the price of a call; none knows Harmony:

- Whole replies of chat, of ``/v1/chat/completions/batch`` and of ``/v1/chat/completions/derender`` get
  ``reasoning_content`` beside vLLM's ``reasoning`` (streams have it from the parser's deltas), the finish reason that
  streams have, and reasoning tokens where vLLM leaves them out.
- A reply that a stop string ended inside a call's arguments has the finish reason ``stop``: the call is not to be run.
- Log probabilities are made before the parser sees their tokens; it is handed them, to keep those of the content.
- ``/v1/messages`` has blocks of our own: see `blocks`.
- Strict settings end a stream of ``/v1/responses`` or ``/v1/messages`` with an error event; vLLM would break it off.
- ``/v1/responses`` takes the tools that agents send: see `client_tools`.
- A response tells of the format that was asked for (``text``).
- ``/v1/responses``: reasoning tokens that only the end of the reply tells are added, and ``include_reasoning: false``
  leaves reasoning out.
- Stop strings act on what the client sees: see `engine_stops`.
- Prompts are those of `rendering` where the operator asks for them.
- What replies are held to is put back where the grammar backend refuses it: see `constraints`.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from openai.types.responses import ResponseErrorEvent

from harmony_plugin import HarmonyParseError
from harmony_plugin.api.errors import MalformedOutput
from harmony_plugin.settings import Settings

from . import blocks, client_tools, seams
from .constraints import on_grammars, on_sampling_params
from .engine_stops import on_detokenizers, on_outputs
from .rendering import on_chat_prompts
from .settings import guided
from .splitting import patience_of
from .tokenizers import Tokens

__all__ = ["Split", "ended", "take_logprobs", "wrap"]

_MARK = "_harmony_plugin"
#: Of the serving object: the tools of responses that it has stored, by their ids; for as long as it stores them.
_TOOLBOXES = "_harmony_plugin_toolboxes"


class Split(NamedTuple):
    """A reply that its parser is done with: whether a stop string ended it inside a call's arguments, and what
    debugging shows of it."""

    cut_call: bool = False
    told: dict[str, Any] | None = None


#: The replies parsed in this context.
_splits: contextvars.ContextVar[list[Split] | None] = contextvars.ContextVar("splits", default=None)
#: The log probabilities that vLLM made last: it hands their tokens to the parser next, with nothing in between.
_made = threading.local()


def ended(split: Split) -> None:
    """A parser is done with a reply."""
    splits = _splits.get()
    if splits is not None:
        splits.append(split)


def take_logprobs() -> list[Any] | None:
    """The entries that vLLM has just made, the list itself: what the caller changes is sent. None: there are none."""
    logprobs, _made.logprobs = getattr(_made, "logprobs", None), None
    return getattr(logprobs, "content", None)


def wrap(is_ours: Callable[[Any], bool], tokens_of: Callable[[Any], Tokens], settings: Settings) -> None:
    """Wrap the classes that this process has loaded, each once. An engine core has loaded its grammars' backend alone.

    Args:
        is_ours: whether a parser class is one of this plugin's; every other's replies stay as they are.
        tokens_of: the vocabulary of a tokenizer.
        settings: the names that reasoning has in whole replies, and whose prompts are used.
    """
    complete = functools.partial(_complete, names=settings.reasoning_names)
    wrappers: dict[str, Callable[[Any], Any]] = {
        "chat_completion_full_generator": functools.partial(_whole_chat, is_ours=is_ours, complete=complete),
        "chat_completion_stream_generator": _streamed_chat,
        "chat_completion_full_generator_batch": functools.partial(_batch, is_ours=is_ours, complete=complete),
        "derender_chat_response": functools.partial(_derendered, is_ours=is_ours, complete=complete),
        "_create_chat_logprobs": _logprobs,
        "messages_full_converter": blocks.whole,
        "message_stream_converter": functools.partial(blocks.streamed, is_ours=is_ours),
        "append_output": _response_output,
        "create_responses": _asked_response,
        "responses_full_generator": _whole_response,
        "responses_stream_generator": _streamed_response,
        "retrieve_responses": _stored_response,
        "verify": on_sampling_params,
        "compile_grammar": on_grammars,
        "from_new_request": functools.partial(on_detokenizers, tokens_of=tokens_of, patience=patience_of(settings)),
        "make_request_output": on_outputs,
    }
    if guided(settings):
        wrappers["_make_request_with_harmony"] = on_chat_prompts
    for module, owner, method in (*seams.SERVING, *seams.SERVING_WHERE_THERE):
        if method not in wrappers:
            continue
        serving = seams.loaded(module, owner)
        original = inspect.getattr_static(serving, method, None)
        if original is None or hasattr(original, _MARK) or method not in vars(serving):
            continue
        wrapped = wrappers[method](original)
        if not isinstance(wrapped, classmethod):
            wrapped = functools.wraps(original)(wrapped)
        setattr(wrapped, _MARK, True)
        setattr(serving, method, wrapped)


# Chat


def _complete(choice: Any, engine: str | None, split: Split, *, names: Sequence[str]) -> None:
    """A whole choice, with what streams have. ``engine``: the engine's own finish reason."""
    if engine == "length" or (
        choice.finish_reason == "tool_calls" and (split.cut_call or not choice.message.tool_calls)
    ):
        choice.finish_reason = engine
    if choice.message.content == "":
        # vLLM's for calls that had to be made; absent is None, as everywhere.
        choice.message.content = None
    if choice.message.reasoning is not None:
        if "reasoning_content" in names:
            choice.message.reasoning_content = choice.message.reasoning
        if "reasoning" not in names:
            choice.message.reasoning = None
    if split.told is not None:
        choice.message.harmony = split.told


def _whole_chat(
    original: Any, *, is_ours: Callable[[Any], bool], complete: Callable[[Any, str | None, Split], None]
) -> Any:
    async def chat_completion_full_generator(
        self: Any, request: Any, result_generator: AsyncIterator[Any], *args: Any, **kwargs: Any
    ) -> Any:
        if not is_ours(getattr(self, "parser_cls", None)):
            return await original(self, request, result_generator, *args, **kwargs)
        if hasattr(self, "messages_full_converter"):
            blocks.collect()
        finished: dict[int, str | None] = {}
        splits: list[Split] = []
        _splits.set(splits)
        response = await original(self, request, _watch(result_generator, finished), *args, **kwargs)
        choices = getattr(response, "choices", ())
        if len(splits) != len(choices):
            splits = [Split()] * len(choices)
        for choice, split in zip(choices, splits, strict=True):
            complete(choice, finished.get(choice.index), split)
        return response

    return chat_completion_full_generator


async def _watch(results: AsyncIterator[Any], finished: dict[int, str | None]) -> AsyncIterator[Any]:
    """``results``, with each choice's finish reason noted."""
    async for result in results:
        for output in result.outputs:
            finished[output.index] = output.finish_reason
        yield result


def _streamed_chat(original: Any) -> Any:
    def chat_completion_stream_generator(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        chunks = original(self, request, *args, **kwargs)
        return _cut_calls_stop(chunks) if getattr(request, "stop", None) else chunks

    return chat_completion_stream_generator


async def _cut_calls_stop(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    """The chunks of a stream whose request has stop strings: the finish reason of a call that one cut is ``stop``."""
    splits: list[Split] = []
    _splits.set(splits)
    async for chunk in chunks:
        if any(split.cut_call for split in splits):
            splits.clear()
            chunk = chunk.replace('"finish_reason":"tool_calls"', '"finish_reason":"stop"')
        yield chunk


def _logprobs(original: Any) -> Any:
    def _create_chat_logprobs(self: Any, *args: Any, **kwargs: Any) -> Any:
        _made.logprobs = original(self, *args, **kwargs)
        return _made.logprobs

    return _create_chat_logprobs


def _batch(original: Any, *, is_ours: Callable[[Any], bool], complete: Callable[[Any, str | None, Split], None]) -> Any:
    async def chat_completion_full_generator_batch(
        self: Any,
        request: Any,
        generators: Sequence[AsyncIterator[Any]],
        request_id: str,
        model_name: str,
        all_conversations: Any,
        tokenizer: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        rest = (request_id, model_name, all_conversations, tokenizer, *args)
        if not is_ours(self.parser_cls):
            return await original(self, request, generators, *rest, **kwargs)
        last: dict[int, Any] = {}
        watched = [_last_of(generator, number, last) for number, generator in enumerate(generators)]
        response = await original(self, request, watched, *rest, **kwargs)
        reasoning = 0
        for choice in getattr(response, "choices", ()):
            result = last[choice.index]
            complete(choice, choice.finish_reason, Split())
            single = request.to_chat_completion_request(request.messages[choice.index])
            for output in result.outputs:
                parser = self.parser_cls(tokenizer, None, chat_template_kwargs=single.chat_template_kwargs)
                parser.set_prompt_token_ids(result.prompt_token_ids)
                reasoning += parser.count_reasoning_tokens(output.token_ids)
        _tell_reasoning_tokens(response, reasoning)
        return response

    return chat_completion_full_generator_batch


async def _last_of(results: AsyncIterator[Any], number: int, last: dict[int, Any]) -> AsyncIterator[Any]:
    """``results``, with the last one noted."""
    async for result in results:
        last[number] = result
        yield result


def _derendered(
    original: Any, *, is_ours: Callable[[Any], bool], complete: Callable[[Any, str | None, Split], None]
) -> Any:
    async def derender_chat_response(self: Any, request: Any) -> Any:
        response = await original(self, request)
        parser_cls, chat = self.online_derenderer.parser, request.chat_request
        if not is_ours(parser_cls) or chat is None:
            return response
        generated = request.generate_response
        reasoning = 0
        for choice, made in zip(getattr(response, "choices", ()), generated.choices, strict=False):
            parser = parser_cls(
                self.online_derenderer.renderer.get_tokenizer(),
                chat.tools,
                chat_template_kwargs=chat.chat_template_kwargs,
            )
            prompt = request.prompt_token_ids or generated.prompt_token_ids
            if prompt is not None:
                parser.set_prompt_token_ids(prompt)
            calls = choice.message.tool_calls
            if calls and made.finish_reason == "stop" and chat.tool_choice in (None, "auto", "required"):
                choice.finish_reason = "tool_calls"
            cut_call = bool(calls) and parser.cuts_a_call(made.token_ids, chat)
            complete(choice, made.finish_reason, Split(cut_call))
            content = getattr(choice.logprobs, "content", None)
            if content is not None and len(content) == len(made.token_ids):
                choice.logprobs.content = [content[place] for place in parser.content_places(made.token_ids, chat)]
            reasoning += parser.count_reasoning_tokens(made.token_ids)
        _tell_reasoning_tokens(response, reasoning)
        return response

    return derender_chat_response


def _tell_reasoning_tokens(response: Any, count: int) -> None:
    """The tokens of all choices, where vLLM's usage leaves them out."""
    usage = getattr(response, "usage", None)
    details = seams.load().CompletionTokenUsageInfo
    if usage is not None and details is not None and getattr(usage, "completion_tokens_details", None) is None:
        usage.completion_tokens_details = details(reasoning_tokens=count)


# Responses


def _response_output(original: Any) -> Any:
    def append_output(self: Any, output: Any, *args: Any, **kwargs: Any) -> None:
        original(self, output, *args, **kwargs)
        if output.finished:
            self.num_reasoning_tokens += getattr(self.response_parser, "late_reasoning_tokens", 0)
        if not getattr(getattr(self, "request", None), "include_reasoning", True):
            # The messages stay: tools that vLLM runs go on from them.
            self.last_append_segments = [
                segment for segment in self.last_append_segments if segment.channel != "analysis" or segment.recipient
            ]

    return append_output


def _asked_response(original: Any) -> Any:
    async def create_responses(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        text = getattr(request, "text", None)
        made = await original(self, client_tools.as_asked(request), *args, **kwargs)
        return made if text is None else _telling_text(made, text)

    return create_responses


def _telling_text(made: Any, text: Any) -> Any:
    """A response, or the events of one, with the request's ``text``: parsers take it out of the request once they have
    made a grammar of it, and clients look there for the format that the answer has."""
    if hasattr(made, "__aiter__"):
        return _telling_text_in(made, text)
    if hasattr(made, "text"):
        made.text = text
    return made


async def _telling_text_in(events: AsyncIterator[Any], text: Any) -> AsyncIterator[Any]:
    async for event in events:
        if hasattr(event, "response"):
            event.response.text = text
        yield event


def _whole_response(original: Any) -> Any:
    async def responses_full_generator(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        response = await original(self, request, *args, **kwargs)
        if not getattr(request, "include_reasoning", True) and getattr(self, "use_harmony", False):
            output = getattr(response, "output", None)
            if output is not None:
                response.output = [item for item in output if getattr(item, "type", None) != "reasoning"]
        toolbox = client_tools.toolbox_of(request)
        if request.store:
            # Later requests go on from what vLLM stored, so that stays as it is.
            vars(self).setdefault(_TOOLBOXES, {})[request.request_id] = toolbox
        return client_tools.shown(response, toolbox)

    return responses_full_generator


def _stored_response(original: Any) -> Any:
    async def retrieve_responses(self: Any, response_id: str, *args: Any, **kwargs: Any) -> Any:
        response = await original(self, response_id, *args, **kwargs)
        toolbox = vars(self).get(_TOOLBOXES, {}).get(response_id)
        return response if toolbox is None else client_tools.shown(response, toolbox)

    return retrieve_responses


def _streamed_response(original: Any) -> Any:
    async def responses_stream_generator(self: Any, request: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        calls = client_tools.Calls(client_tools.toolbox_of(request))
        try:
            async for event in original(self, request, *args, **kwargs):
                for each in calls.show(event):
                    yield each
        except HarmonyParseError as error:
            told = MalformedOutput(error)
            yield ResponseErrorEvent(
                type="error", code=told.code, message=told.message, param=None, sequence_number=calls.number
            )

    return responses_stream_generator
