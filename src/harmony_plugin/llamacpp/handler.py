"""The chat handler: a chat request in, the pieces of its reply out, or an OpenAI chat completion, whole or as chunks.

Puts the parts together. Building prompts, running the engine, constraining it, splitting what it writes and writing
that down are done elsewhere. Knows nothing of HTTP.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

from ..api import debug
from ..api.chat import ChatWriter
from ..api.defaults import REASONING_NAMES, Defaults
from ..api.hosted import HostedTools
from ..api.reply import Outcome, Piece, Usage
from ..api.request import ChatRequest, ContextOverflow
from ..core import (
    SPECIAL_IDS,
    Dialect,
    Explanation,
    Options,
    RequestError,
    Stream,
    Text,
    Trace,
    Vocabulary,
    vocabulary_of,
)
from ..prompts import PromptOptions, Prompts
from ..settings import LIMITS, REQUEST_KEY, Settings, for_request, set_up_logging
from .constraints import Allowed, Constraint, Grammars
from .disk import DiskCache
from .engine import Engine, Processor, stock_defaults
from .generation import Generation, Opening
from .memory import Memory
from .scheduler import Job, Scheduler

__all__ = ["Choices", "HarmonyChatHandler", "ProcessorFactory", "Serving"]

ProcessorFactory = Callable[[Sequence[int], Mapping[str, Any]], Sequence[Processor]]
"""`factory(prompt_ids, request_fields)`: the logits processors for one reply. They see the scores last."""

HEADER_IDS = 512  # at most: a header has 512 characters

log = logging.getLogger("harmony_plugin.llamacpp")


@dataclass
class Model:
    """What is known of a loaded model: read once, kept as long as its `Llama`, shared by all handlers.

    Raises:
        ValueError: the vocabulary is not Harmony's; says what to do.
    """

    engine: Engine
    dialect: Dialect
    vocabulary: Vocabulary
    opening: Opening
    user: tuple[int, int]
    grammars: Grammars
    scheduler: Scheduler

    @classmethod
    def of(
        cls,
        llama: Any,
        prompts: Prompts,
        serving: Serving | None = None,
        markers: Mapping[str, str] | None = None,
    ) -> Model:
        with _MODELS_LOCK:
            model = _MODELS.get(llama)
            if model is None:
                model = cls._read(Engine(llama), prompts.encode, serving or Serving.of(llama), markers)
                _MODELS[llama] = model
            return model

    def parting(self, prompt: Sequence[int]) -> int:
        """Where the first user message of a prompt begins: what is in front of it, others may have, too."""
        start, user = self.user
        places = (place for place, pair in enumerate(itertools.pairwise(prompt)) if pair == (start, user))
        return next(places, 0)

    @classmethod
    def _read(
        cls,
        engine: Engine,
        encode: Callable[[str], list[int]],
        serving: Serving,
        markers: Mapping[str, str] | None,
    ) -> Model:
        try:
            dialect = Dialect.from_vocabulary(engine.lookup, markers=markers, reserved=SPECIAL_IDS)
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
        return cls(
            engine,
            dialect,
            vocabulary_of(engine.piece, dialect),
            opening,
            (ids["start"], *encode("user")),  # type: ignore[arg-type]  # a word of one token
            Grammars(engine),
            serving.scheduler(engine),
        )


@dataclass(frozen=True)
class Serving:
    """How a model's replies are run.

    Attributes:
        parallel: most at a time.
        cache_ram: bytes of main memory for evaluated prompts that were pushed out of the context.
        cache_disk: bytes on disk for those that were pushed out of there; 0: none.
        cache_folder: where.
        drafts: most ids that are guessed ahead for a reply that runs alone.
    """

    parallel: int = 1
    cache_ram: int = 0
    cache_disk: int = 0
    cache_folder: Path | None = None
    drafts: int = 0

    @classmethod
    def of(cls, llama: Any) -> Serving:
        """As a `Llama` was made."""
        return cls(drafts=getattr(llama.draft_model, "num_pred_tokens", 0))

    @property
    def sequences(self) -> int:
        """How many a context should have: those that have ended stay, beside those under way. The windowed layers'
        memory grows with it."""
        return 2 * self.parallel + 2

    def scheduler(self, engine: Engine) -> Scheduler:
        """What runs them."""
        disk = None
        if self.cache_disk and self.cache_folder is not None:
            disk = DiskCache(self.cache_folder, self.cache_disk, engine.fingerprint())
        memory = Memory(engine, self.sequences, ram=self.cache_ram, disk=disk)
        return Scheduler(engine, memory, parallel=self.parallel, drafts=self.drafts)


_MODELS: weakref.WeakKeyDictionary[Any, Model] = weakref.WeakKeyDictionary()
_MODELS_LOCK = threading.Lock()


class HarmonyChatHandler:
    """A `LlamaChatCompletionHandler` for models that write Harmony (gpt-oss).

    Use it as `Llama(chat_handler=HarmonyChatHandler())`, by name as `Llama(chat_format="harmony")` after
    `import harmony_plugin.llamacpp`, or call it directly, which takes more than `create_chat_completion` lets through:
    `handler(llama=llama, messages=[...], reasoning_effort="high", max_reasoning_tokens=500)`. Two more arguments are
    for programs: `cancelled`, asked before each step, and `observe`, called with a `Usage` when the reply has ended,
    however it ended.

    Args:
        options: how output is split; see `harmony_plugin.Options`. The marker ids are taken from the model.
        defaults: what requests get that do not say; see `Defaults`.
        prompt: what the system message says; see `PromptOptions`.
        logits_processors: called for each reply with the prompt's ids and the request's fields; gives logits processors
            that run after all others.
        reasoning_names: the fields that reasoning goes out in; clients read one or the other.
        debug: have replies tell their issues in a field `harmony`, and the log have a line for each.
        debug_content: whether what the model wrote is in that line.
    """

    def __init__(
        self,
        options: Options | None = None,
        defaults: Defaults | None = None,
        *,
        prompt: PromptOptions | None = None,
        logits_processors: ProcessorFactory | None = None,
        reasoning_names: Sequence[str] = REASONING_NAMES,
        debug: bool = False,
        debug_content: bool = False,
    ) -> None:
        self.options = options or Options()
        self.defaults = defaults or Defaults()
        self._prompt_options = prompt
        self._prompts: Prompts | None = None
        self._logits_processors = logits_processors
        self._reasoning_names = reasoning_names
        self._debug, self._debug_content = debug, debug_content
        # Header texts come again with every request.
        self._header_ids = functools.lru_cache(maxsize=4096)(lambda text: tuple(self.prompts.encode(text)))

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        model: str | None = None,
        defaults: Defaults | None = None,
        logits_processors: ProcessorFactory | None = None,
    ) -> HarmonyChatHandler:
        """The handler that settings ask for.

        Args:
            settings: see `harmony_plugin.settings.Settings`; `Settings()` is what the environment says.
            model: the model's name, where settings depend on it.
            defaults: in place of the settings'.
            logits_processors: as of the class.
        """
        set_up_logging(settings)
        return cls(
            settings.options(model=model),
            defaults or settings.defaults(),
            prompt=settings.prompt_options(),
            logits_processors=logits_processors,
            reasoning_names=settings.reasoning_names,
            debug=settings.debug,
            debug_content=settings.debug_content,
        )

    @property
    def prompts(self) -> Prompts:
        """The prompt builder; loads the Harmony library at first use."""
        if self._prompts is None:
            self._prompts = Prompts(self._prompt_options)
        return self._prompts

    def prepare(self, llama: Any, serving: Serving | None = None) -> Scheduler:
        """Check the model's vocabulary, and do now what the first request would wait for.

        Args:
            serving: how its replies are run; None: one at a time.

        Returns:
            what runs them.

        Raises:
            ValueError: the vocabulary is not Harmony's; the message says what to do.
        """
        model = Model.of(llama, self.prompts, serving, self.options.dialect.markers)
        with contextlib.suppress(ImportError):  # without llguidance only schemas are refused
            model.grammars.prepare()
        return model.scheduler

    def prompt(self, llama: Any, **fields: Any) -> list[int]:
        """The prompt's ids for a request, without generating; `len()` of it counts its tokens.

        Args:
            fields: those of a call; only `messages`, `tools`, `tool_choice`, `response_format` and `reasoning_effort`
                matter.

        Raises:
            RequestError: as a call would.
        """
        Model.of(llama, self.prompts, markers=self.options.dialect.markers)
        self._own(fields.pop(REQUEST_KEY, None), fields)
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
        choices = self.replies(llama=llama, messages=messages, stream=stream, **_said(fields))
        writer = choices.writer()
        return _chunks(choices, writer) if stream else writer.whole(choices, choices.usage)

    def replies(self, *, llama: Any, messages: Sequence[Mapping[str, Any]], **fields: Any) -> Choices:
        """Take a request, and give what generates its reply, for those who write it down themselves.

        Args:
            fields: those of a call.

        Raises:
            RequestError: the request is wrong; nothing was generated.
        """
        fields.update(messages=messages)
        own = self._own(fields.pop(REQUEST_KEY, None), fields)
        model = Model.of(llama, self.prompts, markers=self.options.dialect.markers)
        request = ChatRequest.read(fields, self.defaults)
        prompt = self._ids(request)
        if len(prompt) >= model.engine.context_size:
            raise ContextOverflow(len(prompt), model.engine.context_size)
        for token in request.logit_bias:
            if not 0 <= token < model.engine.vocabulary_size:
                raise RequestError(f"logit_bias: the model has no token {token}", "logit_bias", "invalid_value")
        options = replace(
            own,
            dialect=model.dialect,
            keep=self._debug,
            tool_choice="none" if request.tool_choice == "none" else "auto",
        )
        grammar = fields.get("grammar")
        allowed = self._allowed(model, request, options, grammar)
        names = [*(tool.name for tool in request.tools), *request.builtin]
        parting = model.parting(prompt)

        def generation(index: int) -> Generation:
            processors = list(fields.get("logits_processor") or ())
            if self._logits_processors is not None:
                processors += self._logits_processors(prompt, fields)
            return Generation(
                model.engine,
                prompt,
                request,
                Stream(prompt=prompt, tools=names, options=options, decode=model.vocabulary),
                markers=model.dialect.ids,
                opening=model.opening,
                constraint=None if allowed is None else Constraint(allowed),
                processors=processors,
                grammar=grammar,
                seed=None if request.seed is None else request.seed + index,
                index=index,
                parting=parting,
                cancelled=fields.get("cancelled"),
                told=debug.told if self._debug else None,
            )

        return Choices(
            llama,
            model.scheduler,
            request,
            [generation(index) for index in range(request.choices)],
            Usage(prompt=len(prompt)),
            model=request.model or model.engine.name,
            reasoning_names=self._reasoning_names,
            split_by=(names, options, model.vocabulary),
            observe=fields.get("observe"),
            log_reply=self._log(fields.get("request_id")) if self._debug else None,
        )

    def _own(self, changes: Any, fields: dict[str, Any]) -> Options:
        """How the replies to one request are split. What else it changes is put among its fields."""
        if changes is None:
            return self.options
        where = f"chat_template_kwargs.{REQUEST_KEY}"
        try:
            options = for_request(self.options, changes)
        except ValueError as error:
            raise RequestError(str(error), where, "invalid_value") from None
        for name in LIMITS:
            if changes.get(name) is not None:
                fields.setdefault(name, changes[name])
        return options

    def _log(self, identifier: str | None) -> Callable[[Generation, str], None]:
        """What puts a reply that has ended into the log: given it and its model's name."""

        def log_reply(generation: Generation, model: str) -> None:
            if generation.ended:
                how: dict[str, Any] = {"id": identifier, "model": model, "tokens": generation.completion_tokens}
                debug.log_reply(generation.stream, generation.splitting, content=self._debug_content, **how)

        return log_reply

    def _allowed(self, model: Model, request: ChatRequest, options: Options, grammar: Any) -> Allowed | None:
        """What the reply is held to."""
        if grammar is None and Allowed.needed(request):
            allowed = Allowed(request, model.grammars, model.dialect.ids, self._header_ids, options)
            for what in allowed.unenforced:
                log.info("request had an issue: unenforced_schema: %.200s", what)
            return allowed
        if Allowed.wanted(request):
            raise RequestError(
                "grammar holds the whole output, markers included: it goes with neither response_format nor strict or "
                "required tools",
                "grammar",
                "invalid_value",
            )
        return None

    def _ids(self, request: ChatRequest) -> list[int]:
        return self.prompts.render(
            request.messages,
            tools=request.described,
            response_format=request.response_format,
            reasoning_effort=request.reasoning_effort,
            builtin_tools=[recipient.partition(".")[0] for recipient in request.builtin],
        )


class Choices:
    """One request's choices: `run` has them generated side by side, and gives their pieces as they come; iterating does
    that in this thread.

    Attributes:
        usage: counted as it goes, however it ends.
        model: the name that the reply carries.
        debugs: whether the reply tells its issues.
        sampling: what it is sampled by, in OpenAI's names.
    """

    def __init__(
        self,
        llama: Any,
        scheduler: Scheduler,
        request: ChatRequest,
        generations: Sequence[Generation],
        usage: Usage,
        *,
        model: str,
        reasoning_names: Sequence[str],
        split_by: tuple[Sequence[str], Options, Vocabulary],
        observe: Callable[[Usage], None] | None = None,
        log_reply: Callable[[Generation, str], None] | None = None,
    ) -> None:
        self._llama = llama  # stays loaded while pieces are drawn
        self._scheduler = scheduler
        self._request = request
        self._generations = generations
        self._reasoning_names = reasoning_names
        self._split_by = split_by
        self._observe = observe
        self._log_reply = log_reply
        self.debugs = log_reply is not None
        self._jobs: list[Job] = []
        self._left = len(generations)
        self._error: BaseException | None = None
        self._measured, self._seconds = 0, 0.0
        self.usage = usage
        self.model = model
        self.sampling: Mapping[str, float] = {**request.sampling, "temperature": request.sampling["temp"]}

    def explained(self) -> Callable[[], Explanation]:
        """What tells what became of each piece of the first choice, as far as it came; holds no more than its ids."""
        generation = self._generations[0]
        # Behind the last <|start|>, a few ids: where the reply goes on from.
        prompt = generation.ids.view(0, generation.prompt_tokens)[-HEADER_IDS:].tolist()
        output = generation.ids.view(generation.prompt_tokens).copy()
        tools, options, vocabulary = self._split_by

        def explain() -> Explanation:
            trace = Trace(prompt, tools, replace(options, keep=True, strict=False), vocabulary)
            trace.feed(output.tolist())
            return trace.finish()

        return explain

    def writer(self, hosted: HostedTools | None = None) -> ChatWriter:
        """What writes the reply as the chat API has it, without the calls of `hosted` tools."""
        request = self._request
        return ChatWriter(
            self.model,
            custom=frozenset(tool.name for tool in request.tools if tool.custom),
            logprobs=request.logprobs,
            include_usage=request.include_usage,
            reasoning_names=self._reasoning_names,
            hosted=hosted,
        )

    def run(self, took: Callable[[Piece], None], ended: Callable[[BaseException | None], None]) -> Sequence[Job]:
        """Have the choices generated by those who step the scheduler. The first that fails ends all.

        Args:
            took: given each piece.
            ended: called once all have ended, with what went wrong, if anything did.
        """
        for generation in self._generations:
            self._jobs.append(self._run(generation, took, ended))
        return self._jobs

    def close_reasoning(self) -> bool:
        """Have the choices that are reasoning open their answer now; whether any was. For whoever steps the
        scheduler."""
        return sum(self._scheduler.close_reasoning(job) for job in self._jobs) > 0  # any() would leave out the rest

    def _run(
        self, generation: Generation, took: Callable[[Piece], None], ended: Callable[[BaseException | None], None]
    ) -> Job:
        began, before = 0.0, 0

        def note(piece: Piece) -> None:
            nonlocal began, before
            if not began and any(isinstance(event, Text) for event in piece.events):
                began, before = time.monotonic(), generation.completion_tokens
                self.usage.first = self.usage.first or began
            if piece.ending is not None:
                self.usage.finish = piece.ending.finish_reason
            took(piece)

        def over(error: BaseException | None) -> None:
            if began:
                self._measured += generation.completion_tokens - before
                self._seconds += time.monotonic() - began
            self._add(generation)
            if job.began is not None and job.first is not None:
                read, written = job.first - job.began, time.monotonic() - job.first
                self.usage.reading = read if self.usage.reading is None else self.usage.reading
                self.usage.writing = max(written, self.usage.writing or 0.0)
            self._left -= 1
            if error is not None and self._error is None:
                self._error = error
                self._scheduler.drop(self._jobs)
            if not self._left:
                if self._observe is not None:
                    self._observe(self.usage)
                ended(self._error)

        job = self._scheduler.add(generation, note, over)
        return job

    def __iter__(self) -> Iterator[Piece]:
        pieces: deque[Piece] = deque()
        ends: list[BaseException | None] = []
        jobs = self.run(pieces.append, ends.append)
        try:
            while not ends:
                self._scheduler.favour(jobs)
                self._scheduler.step()
                while pieces:
                    yield pieces.popleft()
            if ends[0] is not None:
                raise ends[0]
        finally:
            self._scheduler.drop(jobs)

    def _add(self, generation: Generation) -> None:
        usage = self.usage
        if self._log_reply is not None:
            self._log_reply(generation, self.model)
        for issue in generation.stream.issues:
            log.debug("reply had an issue: %s at %d: %.200r", issue.code, issue.offset, issue.text)
            usage.issues.append(issue.code)
        if generation.ended:
            usage.outcomes.append(Outcome.of(generation.stream))
        usage.completion += generation.completion_tokens
        usage.reasoning += generation.stream.reasoning_tokens
        if usage.cached is None:
            usage.cached = generation.cached_tokens
        if self._measured > 1 and self._seconds > 0:
            usage.rate = self._measured / self._seconds


def _chunks(choices: Choices, writer: ChatWriter) -> Iterator[dict[str, Any]]:
    for piece in choices:
        yield from writer.feed(piece)
    yield from writer.finish(choices.usage)


_STOCK = stock_defaults()


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` less what `Llama.create_chat_completion` filled in by itself.

    That method passes all its parameters, with defaults for another kind of model (temperature 0.2, top_k 40). A call
    that has them all comes from there, and what equals its default counts as not said. Who wants just that value calls
    the handler itself.
    """
    if _STOCK.keys() - {"stream"} <= fields.keys():
        fields = {name: value for name, value in fields.items() if name not in _STOCK or value != _STOCK[name]}
    return fields
