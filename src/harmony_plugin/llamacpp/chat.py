"""The chat handler: a chat request in, an OpenAI chat completion out, whole or as chunks.

Puts the parts together and writes results down. Building prompts, running the engine, constraining it and splitting
what it writes are done elsewhere. Knows nothing of HTTP.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

from .. import Delta, Dialect, Options, Reply, Stream, ToolCall
from ..api.defaults import Defaults
from ..api.request import ChatRequest, ContextOverflow
from ..core import RequestError, Vocabulary, vocabulary_of
from ..prompts import PromptOptions, Prompts, custom_input
from ._compat import Engine, Processor, stock_defaults
from .constraints import Allowed, Constraint, Grammars
from .generation import Generation, Opening, TokenLogprob

__all__ = ["HarmonyChatHandler", "ProcessorFactory", "Usage"]

ProcessorFactory = Callable[[Sequence[int], Mapping[str, Any]], Sequence[Processor]]
"""`factory(prompt_ids, request_fields)`: the logits processors for one reply. They see the scores last."""

log = logging.getLogger("harmony_plugin.llamacpp")


@dataclass
class Model:
    """What is known of a loaded model: read once, kept as long as its `Llama`, shared by all handlers.

    :raises ValueError: the vocabulary is not Harmony's; says what to do.
    """

    engine: Engine
    dialect: Dialect
    vocabulary: Vocabulary
    opening: Opening
    grammars: Grammars

    @classmethod
    def of(cls, llama: Any, prompts: Prompts) -> Model:
        with _MODELS_LOCK:
            model = _MODELS.get(llama)
            if model is None:
                model = _MODELS[llama] = cls._read(Engine(llama), prompts.encode)
            return model

    @classmethod
    def _read(cls, engine: Engine, encode: Callable[[str], list[int]]) -> Model:
        try:
            dialect = Dialect.from_vocabulary(engine.lookup, reserved=range(199998, 201088))
            if dict(dialect.ids) != dict(Dialect().ids):
                raise ValueError("its markers have other ids than o200k_harmony's")
            for text in ("assistant", " functions", "analysis", "1234 größer 你好"):
                if b"".join(map(engine.piece, encode(text))) != text.encode():
                    raise ValueError(f"its tokens for {text!r} are not o200k_harmony's")
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{engine.name}: this model does not have the Harmony vocabulary (o200k_harmony): {error}. The chat "
                "format `harmony` is for gpt-oss and its fine-tunes; load other models with their own chat format, "
                "and convert a gpt-oss fine-tune to GGUF with the tokenizer that gpt-oss came with."
            ) from error
        ids = dialect.ids
        final = [ids["channel"], *encode("final"), ids["message"]]
        opening = Opening([ids["end"], ids["start"], *encode("assistant"), *final], final)
        return cls(engine, dialect, vocabulary_of(engine.piece, dialect), opening, Grammars(engine))


_MODELS: weakref.WeakKeyDictionary[Any, Model] = weakref.WeakKeyDictionary()
_MODELS_LOCK = threading.Lock()


class HarmonyChatHandler:
    """A `LlamaChatCompletionHandler` for models that write Harmony (gpt-oss).

    Use it as `Llama(chat_handler=HarmonyChatHandler())`, by name as `Llama(chat_format="harmony")` after
    `import harmony_plugin.llamacpp`, or call it directly, which takes more than `create_chat_completion` lets through:
    `handler(llama=llama, messages=[...], reasoning_effort="high", max_reasoning_tokens=500)`. Two more arguments are
    for programs: `cancelled`, asked before each token, and `observe`, called with a `Usage` when the reply has ended,
    however it ended.

    :param options: how output is split; see `harmony_plugin.Options`. The marker ids are taken from the model.
    :param defaults: what requests get that do not say; see `Defaults`.
    :param prompt: what the system message says; see `PromptOptions`.
    :param logits_processors: called for each reply with the prompt's ids and the request's fields; gives logits
        processors that run after all others.
    :param reasoning_content: send `reasoning_content` beside `reasoning`, for the clients that read only that.
    """

    def __init__(
        self,
        options: Options | None = None,
        defaults: Defaults | None = None,
        *,
        prompt: PromptOptions | None = None,
        logits_processors: ProcessorFactory | None = None,
        reasoning_content: bool = True,
    ) -> None:
        self.options = options or Options()
        self.defaults = defaults or Defaults()
        self._prompt_options = prompt
        self._prompts: Prompts | None = None
        self._logits_processors = logits_processors
        self._reasoning_content = reasoning_content
        # Header texts come again with every request.
        self._header_ids = functools.lru_cache(maxsize=4096)(lambda text: tuple(self.prompts.encode(text)))

    @property
    def prompts(self) -> Prompts:
        """The prompt builder; loads the Harmony library at first use."""
        if self._prompts is None:
            self._prompts = Prompts(self._prompt_options)
        return self._prompts

    def prepare(self, llama: Any) -> None:
        """Check the model's vocabulary, and do now what the first request would wait for.

        :raises ValueError: the vocabulary is not Harmony's; the message says what to do.
        """
        model = Model.of(llama, self.prompts)
        with contextlib.suppress(ImportError):  # without llguidance only schemas are refused
            model.grammars.prepare()

    def prompt(self, llama: Any, **fields: Any) -> list[int]:
        """The prompt's ids for a request, without generating; `len()` of it counts its tokens.

        :param fields: those of a call; only `messages`, `tools`, `tool_choice`, `response_format` and
            `reasoning_effort` matter.
        :raises RequestError: as a call would.
        """
        Model.of(llama, self.prompts)
        return self._ids(ChatRequest.read(fields, self.defaults))

    @overload
    def __call__(
        self, *, llama: Any, messages: Sequence[Mapping[str, Any]], stream: Literal[True], **fields: Any
    ) -> Iterator[dict[str, Any]]: ...

    @overload
    def __call__(
        self, *, llama: Any, messages: Sequence[Mapping[str, Any]], stream: Literal[False] = False, **fields: Any
    ) -> dict[str, Any]: ...

    def __call__(
        self, *, llama: Any, messages: Sequence[Mapping[str, Any]], stream: bool = False, **fields: Any
    ) -> dict[str, Any] | Iterator[dict[str, Any]]:
        fields = _said(fields)
        fields.update(messages=messages, stream=stream)
        model = Model.of(llama, self.prompts)
        request = ChatRequest.read(fields, self.defaults)
        prompt = self._ids(request)
        if len(prompt) >= model.engine.context_size:
            raise ContextOverflow(len(prompt), model.engine.context_size)
        for token in request.logit_bias:
            if not 0 <= token < model.engine.vocabulary_size:
                raise RequestError(f"logit_bias: the model has no token {token}", "logit_bias", "invalid_value")
        options = replace(
            self.options,
            dialect=model.dialect,
            keep=False,
            tool_choice="none" if request.tool_choice == "none" else "auto",
        )

        allowed = None
        if fields.get("grammar") is None and Allowed.needed(request):
            allowed = Allowed(request, model.grammars, model.dialect.ids, self._header_ids, options)
            for what in allowed.unenforced:
                log.info("request had an issue: unenforced_schema: %.200s", what)
        elif Allowed.wanted(request):
            raise RequestError(
                "grammar holds the whole output, markers included: it goes with neither response_format nor strict or "
                "required tools",
                "grammar",
                "invalid_value",
            )

        def generate(index: int) -> Generation:
            processors = list(fields.get("logits_processor") or ())
            if self._logits_processors is not None:
                processors += self._logits_processors(prompt, fields)
            grammar = fields.get("grammar")
            names = [tool.name for tool in request.tools]
            return Generation(
                model.engine,
                prompt,
                request,
                Stream(prompt=prompt, tools=names, options=options, decode=model.vocabulary),
                markers=model.dialect.ids,
                opening=model.opening,
                constraint=None if allowed is None else Constraint(allowed),
                processors=processors,
                extra={"grammar": grammar} if grammar is not None else None,
                seed=None if request.seed is None else request.seed + index,
                cancelled=fields.get("cancelled"),
            )

        completion = Completion(
            llama,
            model,
            request,
            generate,
            reasoning_content=self._reasoning_content,
            observe=fields.get("observe"),
        )
        return completion.chunks() if request.stream else completion.whole()

    def _ids(self, request: ChatRequest) -> list[int]:
        return self.prompts.render(
            request.messages,
            tools=request.described,
            response_format=request.response_format,
            reasoning_effort=request.reasoning_effort,
        )


class Completion:
    """One request's choices, one after the other, written down as OpenAI does."""

    def __init__(
        self,
        llama: Any,
        model: Model,
        request: ChatRequest,
        generate: Callable[[int], Generation],
        *,
        reasoning_content: bool,
        observe: Callable[[Usage], None] | None = None,
    ) -> None:
        self._reasoning_content = reasoning_content
        self._observe = observe
        self._custom = frozenset(tool.name for tool in request.tools if tool.custom)
        self._llama = llama  # stays loaded while chunks are drawn
        self._engine = model.engine
        self._request = request
        self._generate = generate
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": request.model or model.engine.name,
        }
        self._usage = Usage()

    def whole(self) -> dict[str, Any]:
        try:
            return self._whole()
        finally:
            self._observed()

    def chunks(self) -> Iterator[dict[str, Any]]:
        try:
            yield from self._chunks()
        finally:
            self._observed()

    def _observed(self) -> None:
        if self._observe is not None:
            self._observe(self._usage)

    def _whole(self) -> dict[str, Any]:
        choices = []
        for index in range(self._request.choices):
            generation = self._generate(index)
            message = Message()
            logprobs: list[TokenLogprob] = []
            for delta, entries in self._usage.of(generation):
                message.add(delta)
                logprobs += entries
            fields = self._named(message.to_openai())
            if self._custom and "tool_calls" in fields:
                fields["tool_calls"] = CustomCalls(self._custom).whole(fields["tool_calls"])
            choice: dict[str, Any] = {"index": index, "message": fields}
            choice["logprobs"] = self._logprobs(logprobs) if self._request.logprobs else None
            choice |= self._done(generation)
            choices.append(choice)
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": self._usage.to_openai()}

    def _chunks(self) -> Iterator[dict[str, Any]]:
        for index in range(self._request.choices):
            generation = self._generate(index)
            started = False
            custom = CustomCalls(self._custom) if self._custom else None
            for delta, entries in self._usage.of(generation):
                if not started:
                    started = True
                    yield self._chunk(index, {"role": "assistant"})
                logprobs = self._logprobs(entries) if entries else None
                fields = self._named(delta.to_openai())
                if custom is None or custom.feed(fields) or logprobs:
                    yield self._chunk(index, fields, logprobs=logprobs)
            if not started:
                yield self._chunk(index, {"role": "assistant"})
            if custom is not None and (rest := custom.rest()):
                yield self._chunk(index, {"tool_calls": rest})
            yield self._chunk(index, {}, **self._done(generation))
        if self._request.include_usage:
            yield {**self._chunk_head(), "choices": [], "usage": self._usage.to_openai()}

    def _named(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A message or delta with its reasoning under the names that clients read, those of vLLM and of DeepSeek."""
        if "reasoning_content" in fields:
            fields["reasoning"] = fields["reasoning_content"]
            if not self._reasoning_content:
                del fields["reasoning_content"]
        return fields

    def _done(self, generation: Generation) -> dict[str, Any]:
        """How a choice ended: the finish reason, and vLLM's `stop_reason` where a stop string ended it."""
        for issue in generation.stream.issues:
            log.debug("reply had an issue: %s at %d: %.200r", issue.code, issue.offset, issue.text)
        done: dict[str, Any] = {"finish_reason": generation.finish_reason}
        return done if generation.stop_string is None else {**done, "stop_reason": generation.stop_string}

    def _chunk_head(self) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk"}

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason, **more}
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        if self._request.include_usage:
            chunk["usage"] = None
        return chunk

    def _logprobs(self, entries: Sequence[TokenLogprob]) -> dict[str, Any]:
        return {
            "content": [
                {
                    **self._token(entry.token, entry.logprob),
                    "top_logprobs": [self._token(token, logprob) for token, logprob in entry.top],
                }
                for entry in entries
            ],
            "refusal": None,
        }

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        piece = self._engine.piece(token)
        return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}


class CustomCalls:
    """Calls of custom tools as OpenAI writes them. The model writes JSON around their text, so a stream has it once the
    call is complete.

    :param names: the custom tools'.
    """

    def __init__(self, names: Container[str]) -> None:
        self._names = names
        self._open: int | None = None
        self._written: list[str] = []

    def whole(self, calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """A message's calls."""
        return [self._custom(call) if call["function"]["name"] in self._names else call for call in calls]

    @staticmethod
    def _custom(call: dict[str, Any]) -> dict[str, Any]:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        return {"id": call["id"], "type": "custom", "custom": {"name": name, "input": custom_input(arguments)}}

    def feed(self, delta: dict[str, Any]) -> bool:
        """Rewrite a delta's calls; False if nothing of it is left."""
        calls: list[dict[str, Any]] = []
        for call in delta.pop("tool_calls", ()):
            if "id" in call:
                calls += self.rest()
                if call["function"]["name"] in self._names:
                    self._open = call["index"]
                    self._written.append(call["function"]["arguments"])
                    head = {"name": call["function"]["name"], "input": ""}
                    call = {"index": call["index"], "id": call["id"], "type": "custom", "custom": head}
                calls.append(call)
            elif call["index"] == self._open:
                self._written.append(call["function"]["arguments"])
            else:
                calls.append(call)
        if calls:
            delta["tool_calls"] = calls
        return bool(delta)

    def rest(self) -> list[dict[str, Any]]:
        """The text of the call that is complete now."""
        if self._open is None:
            return []
        call = {"index": self._open, "custom": {"input": custom_input("".join(self._written))}}
        self._open = None
        self._written.clear()
        return [call]


class Usage:
    """Token counts of a request: the prompt once, and all its choices.

    :ivar first: `time.monotonic()` when the first text was there; None: there was none.
    :ivar rate: tokens a second from then on; None where there were too few to tell.
    :ivar issues: codes of what was wrong with the output.
    """

    def __init__(self) -> None:
        self.prompt = self.completion = self.reasoning = 0
        self.cached: int | None = None
        self.first: float | None = None
        self.issues: list[str] = []
        self._measured, self._seconds = 0, 0.0

    @property
    def rate(self) -> float | None:
        return self._measured / self._seconds if self._measured > 1 and self._seconds > 0 else None

    def of(self, generation: Generation) -> Iterator[tuple[Delta, list[TokenLogprob]]]:
        """What `generation` gives. It is counted however it ends."""
        began, before = 0.0, 0
        deltas = iter(generation)
        try:
            for item in deltas:
                if not began:
                    began, before = time.monotonic(), generation.completion_tokens
                    self.first = self.first or began
                yield item
        finally:
            close = getattr(deltas, "close", None)
            if close is not None:
                close()
            if began:
                self._measured += generation.completion_tokens - before
                self._seconds += time.monotonic() - began
            self._add(generation)

    def _add(self, generation: Generation) -> None:
        self.issues += [issue.code for issue in generation.stream.issues]
        self.prompt = generation.prompt_tokens
        self.completion += generation.completion_tokens
        self.reasoning += generation.stream.reasoning_tokens
        if self.cached is None:
            self.cached = generation.cached_tokens

    def to_openai(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached or 0},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }


class Message:
    """Adds deltas up to an assistant message."""

    def __init__(self) -> None:
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._calls: list[dict[str, Any]] = []

    def add(self, delta: Delta) -> None:
        if delta.reasoning_content is not None:
            self._reasoning.append(delta.reasoning_content)
        if delta.content is not None:
            self._content.append(delta.content)
        for call in delta.tool_calls:
            if call.id is not None:
                self._calls.append({"id": call.id, "name": call.name, "arguments": []})
            self._calls[call.index]["arguments"].append(call.arguments)

    def to_openai(self) -> dict[str, Any]:
        calls = tuple(ToolCall(call["id"], call["name"], "".join(call["arguments"])) for call in self._calls)
        reasoning, content = ("".join(texts) if texts else None for texts in (self._reasoning, self._content))
        return Reply(reasoning, content, calls, (), (), None).to_openai()


_STOCK = stock_defaults()


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` less what `Llama.create_chat_completion` filled in by itself.

    That method passes all its parameters, with defaults for another kind of model (temperature 0.2, top_k 40). A call
    that has them all comes from there, and what equals its default counts as not said. Who wants just that value calls
    the handler itself.
    """
    if _STOCK.keys() - {"stream"} <= fields.keys():
        return {name: value for name, value in fields.items() if name not in _STOCK or value != _STOCK[name]}
    return dict(fields)
