"""Settings: everything that can be set of how Harmony is split, prompted and bounded, the same for every server, the
command line and programs. The one place that reads ``HARMONY_*``, from the environment and a ``.env`` file.

Needs pydantic-settings, which both servers bring (else the extra ``cli``). Knows the core's `Options`, `PromptOptions`
and `Defaults`, and no server.
"""

from __future__ import annotations

import difflib
import functools
import json
import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, TypeVar, get_args

try:
    from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
    from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
except ImportError as error:
    raise ImportError(
        f"settings need pydantic-settings 2.7 or newer ({error}): pip install 'harmony-plugin[cli]'"
    ) from error

from .api.defaults import REASONING_NAMES, Defaults
from .core import Dialect, Options, Output, Target
from .prompts import PromptOptions

__all__ = [
    "LIMITS",
    "PREFIX",
    "REQUEST_KEY",
    "Settings",
    "changed",
    "describe",
    "explain",
    "for_request",
    "read",
    "set_up_logging",
    "shown_default",
    "sources",
    "suspects",
]

PREFIX = "HARMONY_"
ENV_FILE = ".env"

_VLLM, _LLAMA = "vLLM", "llama.cpp"


def _object(value: Any) -> Any:
    """A JSON object, where it was given as text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "{}")
    except ValueError:
        raise ValueError("it is a JSON object") from None


def _channels(value: Any) -> Any:
    """``critic=reasoning,sketch=drop``, or a JSON object."""
    if not isinstance(value, str) or value.lstrip().startswith("{"):
        return _object(value)
    channels: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in value.split(","))):
        name, _, target = (word.strip() for word in pair.partition("="))
        if not name or target not in get_args(Target):
            raise ValueError(f"{pair!r} is not CHANNEL=content, CHANNEL=reasoning or CHANNEL=drop")
        channels[name] = target
    return channels


def _strings(value: Any) -> Any:
    """One string, or a JSON list of strings."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("it is one string, or a JSON list of strings") from None
    return [value] if value else []


def _words(value: Any) -> Any:
    """``reasoning,reasoning_content``, or a list."""
    if not isinstance(value, str) or value.lstrip().startswith("["):
        return _strings(value)
    return [word.strip() for word in value.split(",") if word.strip()]


def _markers(value: Any) -> Any:
    """Checked where it is read, not at the first reply."""
    for markers in _by_model(value).values():
        if not isinstance(markers, Mapping) or not all(isinstance(spelling, str) for spelling in markers.values()):
            raise ValueError("it is an object of marker kinds and their spellings, or of model names and such objects")
        Dialect(markers=markers)
    return value


def _by_model(value: Mapping[str, Any]) -> Mapping[str, Mapping[str, str]]:
    """Markers by model names' patterns. Given by themselves, they are every model's."""
    if all(isinstance(spelling, str) for spelling in value.values()):
        return {"*": value} if value else {}
    return value


def _date(value: str) -> str:
    if value not in ("today", "none") and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        raise ValueError("it is today, none, or a date as 2026-01-31")
    return value


def _cutoff(value: str) -> str:
    if value != "none" and not re.fullmatch(r"\d{4}-\d{2}", value):
        raise ValueError("it is none, or a month as 2024-06")
    return value


def _field(default: Any, what: str, example: Any, only: str | None = None, **bounds: Any) -> Any:
    return Field(default, description=what, examples=[example], json_schema_extra={"only": only}, **bounds)


class Settings(BaseSettings):
    """Every setting. Made without arguments it is what ``HARMONY_*`` says, in the environment or in ``.env``; arguments
    come before both.

    >>> from harmony_plugin.settings import Settings
    >>> Settings(commentary="reasoning").options()
    Options(commentary='reasoning')

    Raises:
        pydantic.ValidationError: a value that a setting does not take (`read` says it in one line).
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        str_strip_whitespace=False,
    )

    # How output is split
    enabled: bool = _field(True, "False: nothing is split; the raw output, markers and all, is the content.", "false")
    strict: bool = _field(
        False, "Malformed output ends the reply with an error (HTTP 422) instead of being repaired.", "true"
    )
    output: Output = _field(
        "openai_tool_calls",
        "What becomes of tool calls: given out as such; left out (`final_only`); or written into the content.",
        "final_plus_tools_text",
    )
    commentary: Target = _field("content", "Where preambles go: commentary without a recipient.", "reasoning")
    channels: Annotated[dict[str, Target], NoDecode, BeforeValidator(_channels)] = _field(
        {}, "Channels that a fine-tune added, and where their text goes.", "critic=reasoning,sketch=drop"
    )
    markers: Annotated[dict[str, Any], NoDecode, BeforeValidator(_object), AfterValidator(_markers)] = _field(
        {},
        "Markers that a fine-tune renamed: kinds and spellings, or such by model name (a pattern, as in `my-*`). The "
        "ids come from the model's vocabulary.",
        '{"my-tune*": {"start": "<|im_start|>"}}',
    )
    builtin_tools: Literal["auto", "hide", "tool_calls"] = _field(
        "auto",
        "Calls of `python`, `browser.*` and `container.*` that the request did not declare: `auto` gives them out as "
        "calls where the request offers tools, so that the agent answers that there is no such tool and the model goes "
        "on.",
        "hide",
    )
    arguments: Literal["verbatim", "repair"] = _field(
        "verbatim",
        "`repair` mends arguments that are not JSON; such calls arrive whole (extra `repair`).",
        "repair",
    )
    reasoning: Literal["keep", "drop"] = _field(
        "keep", "`drop` leaves reasoning out; its tokens are counted all the same.", "drop"
    )
    reasoning_names: Annotated[
        tuple[Literal["reasoning", "reasoning_content"], ...], NoDecode, BeforeValidator(_words)
    ] = _field(
        REASONING_NAMES, "The fields of a chat message that reasoning goes out in.", "reasoning_content", min_length=1
    )

    # Prompts
    reasoning_effort: Literal["low", "medium", "high"] | None = _field(
        None, "Reasoning effort of requests that name none (gpt-oss); none: medium.", "high"
    )
    model_identity: str | None = _field(
        None, "First line of the system message; none: gpt-oss's own.", "You are Ada, a helpful assistant."
    )
    knowledge_cutoff: Annotated[str, AfterValidator(_cutoff)] | None = _field(
        None, "Knowledge cutoff in the system message, as `2024-06`; `none` leaves it out; none: gpt-oss's own.", "none"
    )
    current_date: Annotated[str, AfterValidator(_date)] | None = _field(
        None,
        "Date in the system message: `today`, a fixed one, or `none` to leave it out. With `today` no prompt shares a "
        "prefix with yesterday's; none: the server's own (`today`).",
        "none",
    )
    prompts: Literal["vllm", "guide"] | None = _field(
        None,
        "Whose prompts chat and Messages use for gpt-oss; none: vLLM's, unless the identity, cutoff or date is set.",
        "guide",
        _VLLM,
    )

    # Bounds
    headers: Literal["constrain", "free"] | None = _field(
        None,
        "`constrain`: only well-formed Harmony headers can be sampled; none: `constrain` on llama.cpp, `free` on vLLM.",
        "constrain",
    )
    max_reasoning_tokens: int | None = _field(
        None, "Reasoning tokens after which the answer is opened, for requests that name no budget.", "2000", ge=0
    )
    max_reply_tokens: int | None = _field(
        None, "Longest reply, in tokens, reasoning included, whatever a request asks for.", "16000", ge=1
    )
    max_tokens_before_final: int | None = _field(
        None,
        "Tokens without an answer or a call begun, after which a reply ends with what there is.",
        "8000",
        ge=1,
    )
    max_seconds_before_final: float | None = _field(
        None, "Seconds of generating, likewise.", "120", gt=0, allow_inf_nan=False
    )
    stop: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_strings)] = _field(
        (), "Stop strings beside those of a request: one, or a JSON list.", '["\\n\\nUser:"]'
    )

    # What is told
    debug: bool = _field(
        False,
        "A log line for each reply, a `harmony` field in it (issues, messages), and on llama.cpp the header "
        "`X-Harmony-Issues`.",
        "true",
    )
    debug_content: bool = _field(False, "With `debug`: what the model wrote is in the log line, too.", "true")
    metrics: bool = _field(True, "Count replies, issues and tokens in `/metrics`.", "false")
    log_level: Literal["debug", "info", "warning", "error"] | None = _field(
        None, "Level of the log `harmony_plugin`; none: as the server has it, or `debug` where `debug` is on.", "debug"
    )

    def options(self, *, model: str | None = None, keep: bool = True) -> Options:
        """The core's settings.

        Args:
            model: the model's name, where the markers depend on it.
            keep: see `Options`.
        """
        return Options(
            enabled=self.enabled,
            strict=self.strict,
            output=self.output,
            commentary=self.commentary,
            channels=self.channels,
            builtin_tools=self.builtin_tools,
            arguments=self.arguments,
            reasoning=self.reasoning,
            dialect=Dialect(markers=self.markers_of(model)),
            keep=keep,
        )

    def markers_of(self, model: str | None) -> Mapping[str, str]:
        """The renamed markers of a model, by kind; empty for Harmony's own. Of several patterns the first that fits."""
        names = [name for name in (model, (model or "").rpartition("/")[2]) if name]
        for pattern, markers in _by_model(self.markers).items():
            if pattern == "*" or any(fnmatchcase(name, pattern) for name in names):
                return markers
        return {}

    def prompt_options(self) -> PromptOptions:
        """What the system message says."""
        given: dict[str, Any] = {
            "model_identity": self.model_identity,
            "knowledge_cutoff": self.knowledge_cutoff,
            "current_date": self.current_date,
            "reasoning_effort": self.reasoning_effort,
        }
        said: dict[str, Any] = {name: None if value == "none" else value for name, value in given.items() if value}
        return PromptOptions(**said)

    def defaults(self, **more: Any) -> Defaults:
        """What requests get that do not say, on llama.cpp. ``more``: the server's own."""
        return Defaults(
            reasoning_effort=self.reasoning_effort,
            headers=self.headers or Defaults.headers,
            max_reasoning_tokens=self.max_reasoning_tokens,
            max_reply_tokens=self.max_reply_tokens,
            max_tokens_before_final=self.max_tokens_before_final,
            max_seconds_before_final=self.max_seconds_before_final,
            stop=self.stop,
            **more,
        )


#: ``chat_template_kwargs: {"harmony": {...}}`` changes settings for one request: how its replies are split, and what
#: they are held to.
REQUEST_KEY = "harmony"
LIMITS = ("headers", "max_reasoning_tokens")
_OPTIONS = ("commentary", "channels", "arguments", "builtin_tools", "output", "reasoning")

_Changed = TypeVar("_Changed")


def for_request(options: Options, changes: Any) -> Options:
    """``options`` as one request wants them. ``changes``: what it sent under `REQUEST_KEY`, unchecked.

    Raises:
        ValueError: the client's mistake, in words for the client.
    """
    return changed(options, changes, _OPTIONS)


def changed(held: _Changed, changes: Any, names: Collection[str]) -> _Changed:
    """A frozen dataclass with those of a request's changes that go by these names.

    Raises:
        ValueError: the client's mistake, in words for the client.
    """
    if changes is None:
        return held
    where, all_of_them = f"chat_template_kwargs.{REQUEST_KEY}", (*_OPTIONS, *LIMITS)
    if not isinstance(changes, Mapping):
        raise ValueError(f"{where} is an object with {', '.join(all_of_them)}")
    unknown = sorted(str(name) for name in set(changes) - set(all_of_them))
    if unknown:
        raise ValueError(f"{where} has no {', '.join(unknown)}; it takes {', '.join(all_of_them)}")
    try:
        return replace(held, **{name: value for name, value in changes.items() if name in names})  # type: ignore[type-var]
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{where}: {error}") from None


#: Under which heading a setting stands in the docs, by the first one of each.
_HEADINGS = {
    "enabled": "How output is split",
    "reasoning_effort": "Prompts",
    "headers": "Bounds",
    "debug": "What is told",
}


def read(**given: Any) -> Settings:
    """`Settings`, a mistake in one line.

    Raises:
        ValueError: names the settings whose values are none, and what they take.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        raise ValueError(explain(error)) from None


def explain(error: ValidationError) -> str:
    """All of pydantic's findings in one line, by the variables' names."""
    told: dict[str, str] = {}
    for item in error.errors(include_url=False):
        name, value = str(item["loc"][0]), item["input"]
        told.setdefault(name, f"{PREFIX}{name.upper()}={value!r}: {_reason(name, item)}")
    return "; ".join(told.values())


def _reason(name: str, item: Any) -> str:
    field = Settings.model_fields[name]
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    if allowed := _allowed(field.annotation):
        return f"it is one of {', '.join(allowed)}"
    return f"{str(item['msg'])[0].lower()}{item['msg'][1:]}"


def _allowed(annotation: Any) -> list[str]:
    """The values of a literal, wherever it stands in the annotation; else none."""
    arguments = get_args(annotation)
    if arguments and all(isinstance(value, str) for value in arguments):
        return list(arguments)
    if annotation is bool:
        return ["true", "false"]
    return next((found for argument in arguments if (found := _allowed(argument))), [])


@functools.lru_cache(maxsize=1)
def sources() -> Mapping[str, str]:
    """Where each setting's value comes from: ``environment``, ``.env``, or ``default``."""
    from dotenv import dotenv_values

    environment = {name.upper() for name, value in os.environ.items() if value}
    file = {name.upper() for name, value in dotenv_values(ENV_FILE).items() if value}
    found = {}
    for name in Settings.model_fields:
        variable = f"{PREFIX}{name}".upper()
        found[name] = "environment" if variable in environment else ENV_FILE if variable in file else "default"
    return found


def suspects() -> list[str]:
    """Variables in the environment that look like a setting whose name was mistyped, with the one that was meant."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    found = []
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.85)
            found += [f"{name} is no setting (did you mean {close[0]}?)"] if close else []
    return found


def set_up_logging(settings: Settings) -> None:
    """Give the package's log the level that is set; and a place, where the server gave it none (vLLM sets up its own
    log alone)."""
    level = settings.log_level or ("debug" if settings.debug else None)
    if level is None:
        return
    log = logging.getLogger("harmony_plugin")
    log.setLevel(level.upper())
    if not log.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(asctime)s [%(name)s] %(message)s"))
        log.addHandler(handler)


def describe() -> Iterator[tuple[str, list[tuple[str, str, str, str, str]]]]:
    """The settings as the docs show them: under each heading the name, what it takes, the default, what it does, and an
    example."""
    rows: list[tuple[str, str, str, str, str]] = []
    heading = ""
    for name, field in Settings.model_fields.items():
        if name in _HEADINGS:
            if rows:
                yield heading, rows
            heading, rows = _HEADINGS[name], []
        extra = field.json_schema_extra
        only = extra.get("only") if isinstance(extra, dict) else None
        what = (field.description or "") + (f" {only} alone." if only else "")
        rows.append((name, _takes(field.annotation), _shown(field.default), what, str((field.examples or [""])[0])))
    yield heading, rows


def _takes(annotation: Any) -> str:
    allowed = _allowed(annotation)
    if allowed and getattr(annotation, "__origin__", None) is not dict:
        return ", ".join(f"`{value}`" for value in allowed)
    for kind, told in ((int, "a number"), (float, "a number"), (dict, "see the example"), (tuple, "see the example")):
        if annotation is kind or kind in get_args(annotation) or getattr(annotation, "__origin__", None) is kind:
            return told
    return "text"


def shown_default(name: str) -> str:
    """A setting's default as text; empty where there is none."""
    return _shown(Settings.model_fields[name].default).strip("`")


def _shown(default: Any) -> str:
    if default is None or default in ({}, ()):
        return ""
    if isinstance(default, tuple):
        return f"`{','.join(default)}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"
