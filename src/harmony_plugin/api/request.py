"""A chat request's fields, checked and typed, with the defaults filled in.

Every field that is wrong raises `RequestError` with its name. Knows nothing of the engine or of HTTP.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ..core import RequestError
from ..prompts import MAX_SCHEMA_DEPTH, REASONING_EFFORTS, nests_too_deep, tool_function, tool_name
from .defaults import Defaults

__all__ = ["AllowedCalls", "ChatRequest", "ContextOverflow", "FunctionTool", "allowed_calls"]

MOST_CHOICES = 128
MOST_TOP_LOGPROBS = 20


class ContextOverflow(RequestError):
    """The prompt leaves no room in the context.

    Attributes:
        tokens: the prompt's.
        most: the context's.
    """

    def __init__(self, tokens: int, most: int) -> None:
        super().__init__(
            f"This model's maximum context length is {most} tokens, and the messages (with tools) are {tokens}: "
            "shorten them, or load the model with a larger n_ctx",
            "messages",
            "context_length_exceeded",
        )
        self.tokens = tokens
        self.most = most


@dataclass(frozen=True)
class FunctionTool:
    """A function on offer.

    Attributes:
        parameters: the JSON schema of its arguments.
        strict: whether arguments are always held to it.
        custom: whether it stands for a custom tool, whose calls hold text.
    """

    name: str
    parameters: Mapping[str, Any]
    strict: bool = False
    custom: bool = False


class AllowedCalls(NamedTuple):
    """What a request lets the model call.

    ``mode``: a named function is ``required``. ``names``: what may be called. ``shown``: what the model is told of.
    """

    mode: Literal["none", "auto", "required"]
    names: tuple[str, ...]
    shown: tuple[str, ...]


@dataclass(frozen=True)
class ChatRequest:
    """A request as the handler works with it. The names are OpenAI's where OpenAI has one.

    Attributes:
        described: the tools as the prompt shows them; None without tools or with `tool_choice: none`, unless the field
            `tools_shown` says otherwise.
        tools: the functions that may be called.
        tool_choice: `none`, `auto`, `required`; a named function is `required` with only that one callable.
        schema: what the final message's text is held to; None: free text.
        sampling: how ids are drawn, in the words of `Llama.generate`.
        builtin: recipients of gpt-oss's own tools that are on offer.
        parallel: None: stop at the first call, as gpt-oss was trained; True: go on; False: one call at most.
    """

    messages: Sequence[Mapping[str, Any]]
    described: Sequence[Mapping[str, Any]] | None
    tools: tuple[FunctionTool, ...]
    builtin: tuple[str, ...]
    tool_choice: Literal["none", "auto", "required"]
    callable_names: tuple[str, ...]
    response_format: Mapping[str, Any] | None
    schema: Mapping[str, Any] | None
    reasoning_effort: str | None
    max_reasoning_tokens: int | None
    parallel: bool | None
    max_tokens: int | None
    max_tokens_before_final: int | None
    max_seconds_before_final: float | None
    stop: tuple[str, ...]
    seed: int | None
    sampling: Mapping[str, Any]
    logit_bias: Mapping[int, float]
    logprobs: bool
    top_logprobs: int
    choices: int
    stream: bool
    include_usage: bool
    model: str | None
    headers: Literal["constrain", "free"]

    @classmethod
    def read(cls, fields: Mapping[str, Any], defaults: Defaults) -> ChatRequest:
        """Check `fields` (None means left out).

        Raises:
            RequestError: names the first field that is wrong.
        """
        given = Fields(fields)
        tools, choice = fields.get("tools"), fields.get("tool_choice")
        if tools is None and fields.get("functions") is not None:
            tools = [{"type": "function", "function": f} for f in given.list("functions")]
        if choice is None and fields.get("function_call") is not None:
            choice = fields["function_call"]
            if isinstance(choice, Mapping):
                choice = {"type": "function", "function": choice}
        described = _list(tools, "tools")
        names = [tool_name(tool, f"tools[{i}]") for i, tool in enumerate(described)]
        allowed = allowed_calls(choice, names)
        # Only `allowed_tools` hides some, and it can name none of these.
        builtin = fields.get("builtin_tools") if set(names) == set(allowed.shown) and allowed.mode != "none" else None
        described = [tool for tool, name in zip(described, names, strict=True) if name in allowed.shown]
        offered = tuple(_tool(tool, f"tools[{i}]") for i, tool in enumerate(described))
        response_format = given.mapping("response_format")
        options = given.mapping("stream_options") or {}
        effort = given.text("reasoning_effort") or defaults.reasoning_effort
        if effort is not None and effort not in REASONING_EFFORTS:
            known = ", ".join(REASONING_EFFORTS)
            raise RequestError(
                f"reasoning_effort {effort!r} is not one of {known}", "reasoning_effort", "invalid_value"
            )
        headers = given.text("headers") or defaults.headers
        if headers not in ("constrain", "free"):
            raise RequestError(f"headers {headers!r} is not one of constrain, free", "headers", "invalid_value")
        top_logprobs = given.integer("top_logprobs", 0, MOST_TOP_LOGPROBS)
        logprobs = given.flag("logprobs") or False
        if top_logprobs and not logprobs:
            raise RequestError("top_logprobs needs logprobs: true", "top_logprobs", "invalid_value")
        budget = given.integer("max_reasoning_tokens", 0)
        seed = given.integer("seed")
        return cls(
            messages=fields.get("messages") or (),
            described=described if described and (allowed.mode != "none" or fields.get("tools_shown")) else None,
            tools=offered,
            builtin=tuple(builtin or ()),
            tool_choice=allowed.mode,
            callable_names=allowed.names,
            response_format=response_format,
            schema=_response_schema(response_format),
            reasoning_effort=effort,
            max_reasoning_tokens=defaults.max_reasoning_tokens if budget is None else budget,
            parallel=given.flag("parallel_tool_calls"),
            max_tokens=_limit(given, defaults),
            max_tokens_before_final=defaults.max_tokens_before_final,
            max_seconds_before_final=defaults.max_seconds_before_final,
            stop=tuple(dict.fromkeys((*_stop(fields.get("stop")), *defaults.stop))),
            seed=defaults.seed if seed is None else seed,
            sampling=_sampling(given, defaults),
            logit_bias=_logit_bias(fields.get("logit_bias")),
            logprobs=logprobs,
            top_logprobs=top_logprobs or 0,
            choices=given.integer("n", 1, MOST_CHOICES) or 1,
            stream=given.flag("stream") or False,
            include_usage=Fields(options, "stream_options.").flag("include_usage") or False,
            model=given.text("model"),
            headers="constrain" if headers == "constrain" else "free",
        )


class Fields:
    """Typed reading of a mapping whose values came from a client."""

    def __init__(self, fields: Mapping[str, Any], prefix: str = "") -> None:
        self._fields = fields
        self._prefix = prefix

    def _wrong(self, name: str, what: str) -> RequestError:
        return RequestError(f"{self._prefix}{name} is not {what}", f"{self._prefix}{name}", "invalid_type")

    def text(self, name: str) -> str | None:
        value = self._fields.get(name)
        if value is not None and not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def flag(self, name: str) -> bool | None:
        value = self._fields.get(name)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def list(self, name: str) -> Sequence[Any]:
        value = self._fields.get(name)
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise self._wrong(name, "a list")
        return value

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        value = self._fields.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise self._wrong(name, "an object")
        return value

    def integer(self, name: str, least: int | None = None, most: int | None = None) -> int | None:
        value = self._fields.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, "a whole number")
        return int(self._within(name, value, least, most))

    def number(self, name: str, least: float | None = None, most: float | None = None) -> float | None:
        value = self._fields.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._wrong(name, "a number")
        return self._within(name, float(value), least, most)

    def _within(self, name: str, value: float, least: float | None, most: float | None) -> float:
        if (least is not None and value < least) or (most is not None and value > most):
            bounds = (
                f"at least {least}" if most is None else f"at most {most}" if least is None else f"{least} to {most}"
            )
            raise RequestError(
                f"{self._prefix}{name} is {value}; it may be {bounds}", f"{self._prefix}{name}", "invalid_value"
            )
        return value


def _list(tools: Any, where: str) -> list[Mapping[str, Any]]:
    if tools is None:
        return []
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes):
        raise RequestError(f"{where} is not a list", where, "invalid_type")
    return list(tools)


def allowed_calls(choice: Any, names: Sequence[str]) -> AllowedCalls:
    """OpenAI's ``tool_choice``, in chat or responses shape, for tools of these names.

    Raises:
        RequestError: it names a tool that there is none of, asks for a call where there are no tools, or is none.
    """
    where = "tool_choice"
    everything = tuple(dict.fromkeys(names))
    if choice is None:
        choice = "auto"
    if choice in ("none", "auto", "required"):
        if choice == "required" and not names:
            raise RequestError("tool_choice is required, and there are no tools", where, "invalid_value")
        return AllowedCalls(choice, everything if choice != "none" else (), everything)
    if not isinstance(choice, Mapping):
        raise RequestError(
            f"{where} {choice!r} is not one of none, auto, required, or an object naming a function",
            where,
            "invalid_value",
        )
    if choice.get("type") != "allowed_tools":
        name = tool_name(choice, where)
        if name not in names:
            raise RequestError(f"{where} names {name!r}, which is not in tools", where, "invalid_value")
        return AllowedCalls("required", (name,), everything)
    allowed = choice.get("allowed_tools", choice)
    if not isinstance(allowed, Mapping) or allowed.get("mode") not in ("auto", "required"):
        raise RequestError(f"{where}.mode is not auto or required", f"{where}.mode", "invalid_value")
    wanted = [
        tool_name(tool, f"{where}.tools[{i}]") for i, tool in enumerate(_list(allowed.get("tools"), f"{where}.tools"))
    ]
    unknown = [repr(name) for name in wanted if name not in names]
    if unknown or not wanted:
        what = f"names {', '.join(unknown)}, not in tools" if unknown else "names no tool"
        raise RequestError(f"{where}.tools {what}", f"{where}.tools", "invalid_value")
    kept = tuple(name for name in everything if name in wanted)
    return AllowedCalls(allowed["mode"], kept, kept)


def _tool(tool: Mapping[str, Any], where: str) -> FunctionTool:
    name = tool_name(tool, where)
    function = tool_function(tool, where)
    strict, parameters = function.get("strict"), function.get("parameters")
    if strict is not None and not isinstance(strict, bool):
        raise RequestError(f"{where}.function.strict is not true or false", f"{where}.function.strict", "invalid_type")
    if parameters is None:
        parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    if not isinstance(parameters, Mapping):
        at = f"{where}.function.parameters"
        raise RequestError(f"{at} is not an object", at, "invalid_type")
    if strict:
        _bounded(parameters, f"{where}.function.parameters")
    return FunctionTool(name, parameters, bool(strict), tool.get("type") == "custom")


def _response_schema(response_format: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if response_format is None:
        return None
    kind = response_format.get("type")
    if kind == "json_object":
        schema: Any = response_format.get("schema") or {"type": "object"}
    elif kind == "json_schema":
        inner = response_format.get("json_schema", response_format)
        schema = inner.get("schema") if isinstance(inner, Mapping) else None
        if schema is None:
            where = "response_format.json_schema.schema"
            raise RequestError(f"{where} is missing", where, "missing_required_parameter")
    else:
        return None  # text; anything else was refused when the prompt was made
    if not isinstance(schema, Mapping):
        where = "response_format.json_schema.schema"
        raise RequestError(f"{where} is not an object", where, "invalid_type")
    return _bounded(schema, "response_format.json_schema.schema")


def _bounded(schema: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    if nests_too_deep(schema):
        raise RequestError(f"{where} nests deeper than {MAX_SCHEMA_DEPTH}", where, "invalid_json_schema")
    return schema


def _limit(given: Fields, defaults: Defaults) -> int | None:
    limit = given.integer("max_completion_tokens", 1)
    if limit is None:
        limit = given.integer("max_tokens")
        if limit is None:
            limit = defaults.max_tokens
        # llama-cpp-python's convention for "as many as fit".
        if limit is not None and limit <= 0:
            limit = None
    most = defaults.max_reply_tokens
    return limit if most is None else min(limit or most, most)


def _stop(stop: Any) -> tuple[str, ...]:
    if stop is None:
        return ()
    if isinstance(stop, str):
        stop = [stop]
    if not isinstance(stop, Sequence) or not all(isinstance(s, str) for s in stop):
        raise RequestError("stop is neither a string nor a list of strings", "stop", "invalid_type")
    return tuple(dict.fromkeys(s for s in stop if s))


def _sampling(given: Fields, defaults: Defaults) -> dict[str, Any]:
    def number(name: str, least: float | None = None, most: float | None = None) -> float:
        value = given.number(name, least, most)
        return float(getattr(defaults, name)) if value is None else value

    def integer(name: str, least: int | None = None, most: int | None = None) -> int:
        value = given.integer(name, least, most)
        return int(getattr(defaults, name)) if value is None else value

    return {
        "temp": number("temperature", 0.0, 2.0),
        "top_p": number("top_p", 0.0, 1.0),
        "top_k": integer("top_k", -1),
        "min_p": number("min_p", 0.0, 1.0),
        "typical_p": number("typical_p", 0.0, 1.0),
        "repeat_penalty": number("repeat_penalty", 0.0),
        "presence_penalty": number("presence_penalty", -2.0, 2.0),
        "frequency_penalty": number("frequency_penalty", -2.0, 2.0),
        "mirostat_mode": integer("mirostat_mode", 0, 2),
        "mirostat_tau": number("mirostat_tau", 0.0),
        "mirostat_eta": number("mirostat_eta", 0.0),
    }


def _logit_bias(bias: Any) -> dict[int, float]:
    if bias is None:
        return {}
    if not isinstance(bias, Mapping):
        raise RequestError("logit_bias is not an object", "logit_bias", "invalid_type")
    out = {}
    for key, value in bias.items():
        try:
            token = int(key)
        except (TypeError, ValueError):
            raise RequestError(f"logit_bias: {key!r} is not a token id", "logit_bias", "invalid_value") from None
        if isinstance(value, bool) or not isinstance(value, int | float) or not -100 <= value <= 100:
            raise RequestError(f"logit_bias[{token}] is not a number from -100 to 100", "logit_bias", "invalid_value")
        out[token] = float(value)
    return out
