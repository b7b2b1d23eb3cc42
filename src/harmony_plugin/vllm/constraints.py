"""Requests whose replies are held to something while they are generated: well-formed headers, a reasoning budget.

A request gets a grammar of its whole reply (see `grammar`) in place of vLLM's. What it would have had without is left
with it as a note, and is put back where the server's grammar backend refuses ours: such a reply is free, and no request
fails that would not fail in stock vLLM. Knows vLLM's requests and sampling parameters by their fields' names.
"""

from __future__ import annotations

import copy
import functools
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from harmony_plugin import Options
from harmony_plugin.core import BUILTIN_RECIPIENTS
from harmony_plugin.settings import REQUEST_KEY

from . import grammar, seams
from .grammar import Format, Reply, Tool
from .requests import hosted_tools, named_tools
from .settings import Limits, limits_for_request

__all__ = ["NOTE", "bound", "check", "constrain", "limits_of", "on_grammars", "on_sampling_params"]

#: The note's name among a request's ``vllm_xargs``.
NOTE = "harmony_plugin_unconstrained"

#: A format of xgrammar's that names token ids.
_OF_TOKENS = re.compile(r'"type"\s*:\s*"(?:\w+_)?tokens?(?:_\w+)?"')
#: vLLM's grammar backends that take them; others would fail in the engine.
_BACKENDS = ("auto", "xgrammar")
#: How many of their grammars an engine keeps compiled.
_COMPILED = 64

log = logging.getLogger("harmony_plugin.vllm")


def check(limits: Limits) -> None:
    """Look whether replies can be held to what the operator set, at the start of a server.

    Raises:
        ValueError: this vLLM, or its xgrammar, cannot do it.
    """
    if limits.headers == "constrain" and not _can():
        raise ValueError(
            "HARMONY_HEADERS=constrain: this vLLM, or the xgrammar beside it, takes no grammar of token ids. Upgrade "
            "them, or unset HARMONY_HEADERS: malformed headers are repaired all the same"
        )


def _can() -> bool:
    return seams.load().holds and grammar.available()


def limits_of(limits: Limits, request: Any) -> Limits:
    """The limits of one request: the server's, and what it asks for.

    Raises:
        ``VLLMValidationError`` (HTTP 400): the client asked for limits that are none.
    """
    template, extra = getattr(request, "chat_template_kwargs", None), getattr(request, "model_extra", None) or {}
    try:
        if isinstance(template, Mapping) and REQUEST_KEY in template:
            limits = limits_for_request(limits, template[REQUEST_KEY])
        # vLLM's own name for it on chat, to which Messages' `budget_tokens` is brought; and the llama.cpp server's.
        for given in (getattr(request, "thinking_token_budget", None), extra.get("max_reasoning_tokens")):
            if given is not None and given != -1:
                limits = Limits(limits.headers, given)
    except ValueError as error:
        raise seams.load().ValidationError(str(error)) from None
    return limits


def constrain(request: Any, limits: Limits, plan: Options, markers: Mapping[str, int], level: int, format: Any) -> Any:
    """Hold replies to ``request`` to ``limits``.

    Args:
        request: as vLLM's own ``adjust_request`` leaves it.
        limits: `limits_of` it.
        plan: how its replies are split.
        markers: the markers' ids, by kind.
        level: vLLM's ``--tool-strict-level``: 2 and above, all tools are strict.
        format: what ``extract_structured_outputs`` gave before vLLM adjusted the request.
    """
    if limits.headers == "free" and limits.max_reasoning_tokens is None:
        return request
    reply = None
    if _can() and not _beyond(request, markers):
        reply = _reply(request, limits, plan, markers, level, format)
    if reply is None:
        return bound(request, limits.max_reasoning_tokens)
    _leave_note(request, limits.max_reasoning_tokens, at_once=False)
    request.structured_outputs = seams.load().StructuredOutputsParams(structural_tag=reply.tag())
    if _has_budget(request):
        request.response_format = request.thinking_token_budget = None
    else:
        request.text = None
    return request


def bound(request: Any, budget: int | None) -> Any:
    """Hold the reasoning of replies to ``budget`` as vLLM does, which puts the end marker in: without a grammar."""
    if budget is None:
        return request
    if _has_budget(request):
        request.thinking_token_budget = budget
    else:
        _leave_note(request, budget, at_once=True)
    return request


def _has_budget(request: Any) -> bool:
    """Chat has a field for it."""
    return "thinking_token_budget" in type(request).model_fields


def _leave_note(request: Any, budget: int | None, at_once: bool) -> None:
    stock = request.structured_outputs
    note = {"budget": budget, "stock": None if stock is None else _told(stock), "at_once": at_once}
    request.vllm_xargs = {**(request.vllm_xargs or {}), NOTE: json.dumps(note)}


def _beyond(request: Any, markers: Mapping[str, int]) -> bool:
    """Whether the request asks for sampling under which a grammar could leave no token at all, or has none."""
    stops = set(getattr(request, "stop_token_ids", None) or ()) - set(markers.values())
    wants = ("min_tokens", "allowed_token_ids", "use_beam_search")
    return bool(stops) or any(getattr(request, name, None) for name in wants)


def _reply(
    request: Any, limits: Limits, plan: Options, markers: Mapping[str, int], level: int, format: Any
) -> Reply | None:
    """What the request's replies are held to; None: what it asks for goes beyond such a grammar."""
    hosted, labels = hosted_tools(request.tools)
    if hosted or labels:
        return None
    final: Format | None = None
    if format is not None:
        converter = seams.load().format_of
        converted = None if converter is None else converter(format)
        if converted is None:
            return None
        final = converted.model_dump()
    choice = getattr(request, "tool_choice", None) or "auto"
    called = getattr(choice, "name", None) or getattr(getattr(choice, "function", None), "name", None)
    tools = [] if plan.tool_choice == "none" else list(_callable(request.tools or (), called, level))
    own = plan.builtin_tools == "tool_calls" and plan.tool_choice != "none"
    return Reply(
        markers,
        tools=tools,
        builtin=BUILTIN_RECIPIENTS if own and called is None else (),
        must_call=bool(tools) and (choice == "required" or called is not None),
        final=final,
        # A preamble is shown beside the answer, which would no longer be in its format.
        preambles=final is None or plan.commentary != "content",
        channels=tuple(plan.channels),
        budget=limits.max_reasoning_tokens,
    )


def _callable(tools: Iterable[Any], called: str | None, level: int) -> Iterable[Tool]:
    for name, function in named_tools(tools):
        if called in (None, name):
            strict = level >= 2 or getattr(function, "strict", None) is True
            yield Tool(name, (getattr(function, "parameters", None) or {"type": "object"}) if strict else None)


def _told(structured: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(structured).items() if value and not name.startswith("_")}


def on_sampling_params(original: Any) -> Any:
    """``SamplingParams.verify``, where vLLM finds out whether its grammar backend takes what a request asks for."""

    def verify(self: Any, *args: Any, **kwargs: Any) -> Any:
        note = (self.extra_args or {}).pop(NOTE, None)
        if note is None:
            return original(self, *args, **kwargs)
        put_back = _of_note(self, note)
        if put_back is None:
            return original(self, *args, **kwargs)
        try:
            backend = next((each.backend for each in (*args, *kwargs.values()) if hasattr(each, "backend")), "auto")
            if not backend.startswith(_BACKENDS):
                raise ValueError(f"the backend {backend} takes no grammar of token ids")
            return original(self, *args, **kwargs)
        except Exception as error:  # what a backend raises is its own affair
            reason = grammar.refusal(getattr(self.structured_outputs, "structural_tag", None)) or str(error)
            put_back()
            original(self, *args, **kwargs)  # which refuses what stock vLLM refuses
            _tell_once(reason.strip().partition("\n")[0])
            return None

    return verify


@functools.lru_cache(maxsize=64)
def _tell_once(reason: str) -> None:
    log.warning("replies are left free that were to be held to a grammar, which is refused: %s", reason)


def _of_note(params: Any, note: Any) -> Callable[[], None] | None:
    """What puts back the parameters that were noted; None for what a client may have sent under the same name."""
    try:
        noted = json.loads(note)
        budget, stock = noted["budget"], noted["stock"]
        structured = None if stock is None else seams.load().StructuredOutputsParams(**stock)
        limits = Limits(max_reasoning_tokens=budget)
    except Exception:
        return None

    def put_back() -> None:
        params.structured_outputs = structured
        params.thinking_token_budget = limits.max_reasoning_tokens

    if noted.get("at_once"):
        put_back()
        return None
    return put_back


def on_grammars(original: Any) -> Any:
    """``XgrammarBackend.compile_grammar``, in the engine, with a compiler of their own for grammars of token ids.

    xgrammar (0.2.8) shares the masks of rules that look alike between grammars, and looks past the ids in them: a
    grammar would forbid the marker that it asks for, because of one compiled before it.
    """

    def compile_grammar(self: Any, request_type: Any, grammar_spec: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(grammar_spec, str) and _OF_TOKENS.search(grammar_spec):
            # Two threads may each make one: either does.
            if (exact := getattr(self, "_harmony_plugin_exact", None)) is None:
                exact = copy.copy(self)
                # Where there are two, the other forbids the markers.
                exact.compiler = exact.full_vocab_compiler = _Apart(getattr(self, "full_vocab_compiler", self.compiler))
                self._harmony_plugin_exact = exact
            self = exact
        compiled = original(self, request_type, grammar_spec, *args, **kwargs)
        if isinstance(grammar_spec, str) and '"max_tokens"' in grammar_spec:
            compiled.validate_tokens = functools.partial(_validated, compiled, self.allocate_token_bitmask(1))
        return compiled

    return compile_grammar


def _validated(held: Any, mask: Any, tokens: Iterable[int]) -> list[int]:
    """``XgrammarGrammar.validate_tokens``: the first of some drafts that the grammar takes.

    xgrammar minds a budget of tokens only behind a mask: else drafts beyond it would be taken here, and be an error in
    the log where the masks are filled.
    """
    taken: list[int] = []
    for token in tokens:
        if held.matcher.is_terminated():
            break
        held.fill_bitmask(mask, 0)
        if not held.matcher.accept_token(token):
            break
        taken.append(token)
    held.matcher.rollback(len(taken))
    return taken


class _Apart:
    """A compiler that shares nothing between grammars. Keeps the last ones whole."""

    def __init__(self, compiler: Any) -> None:
        any_text = json.dumps({"type": "structural_tag", "format": {"type": "any_text"}})
        vocabulary = compiler.compile_structural_tag(any_text).tokenizer_info
        apart = type(compiler)(vocabulary, max_threads=8, cache_enabled=False)
        self.compile_structural_tag = functools.lru_cache(maxsize=_COMPILED)(apart.compile_structural_tag)
