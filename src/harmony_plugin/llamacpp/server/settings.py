"""The server's settings, and the one place where flags, environment and config file are read.

They are `llama_cpp.server`'s own, name for name, with other defaults where gpt-oss needs them and a few more fields.
This module knows nothing of requests or models in memory.
"""

# The stock server's flags are made from these annotations; it knows Optional[...] but not `... | None`.
# ruff: noqa: UP045

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional, get_args

import platformdirs
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    create_model,
    model_validator,
)

from ...api.defaults import Defaults
from ...core import BUILTIN_RECIPIENTS
from ...prompts import REASONING_EFFORTS, PromptOptions
from ...settings import Settings, read, shown_default
from ...versions import VersionFlag
from ..handler import Serving
from . import stock

__all__ = [
    "FlagSettings",
    "Flags",
    "McpServer",
    "McpSettings",
    "ModelSettings",
    "ServerSettings",
    "SettingsError",
    "complain",
    "did_you_mean",
    "read_settings",
    "say",
]


MOST_PARALLEL = 64  # llama.cpp tells 256 sequences apart, and those that have ended stay beside them


#: Settings that are the process's, not a model's.
PROCESS = ("metrics", "log_level")
#: What this server does not have: it makes the prompts itself.
ELSEWHERE_ONLY = ("prompts",)
#: Flags and config keys without the prefix, for what is asked for most.
SHORT = {f"harmony_{name}": name for name in ("headers", "reasoning_effort", "max_reasoning_tokens")}


def _with_common(base: Any, names: Iterable[str]) -> Any:
    """Settings of the stock server's, and fields `harmony_NAME` for the common ones: their flags, config keys and (as
    `HARMONY_NAME`) variables. Checked by `Settings`, which reads text; a config file may hold lists and objects."""
    fields: dict[str, Any] = {}
    for name in names:
        common = Settings.model_fields[name]
        kinds = [each for each in (common.annotation, *get_args(common.annotation)) if each in (bool, int, float)]
        kind: Any = kinds[0] if kinds else str
        told = (common.description or "").replace("`", "")
        if default := shown_default(name):
            told += f" (default: {default})"
        given = Annotated[Optional[kind], BeforeValidator(_as_text)] if kind is str else Optional[kind]
        fields[f"harmony_{name}"] = (given, Field(default=None, description=told.replace("%", "%%")))
    return create_model(f"Harmony{base.__name__}", __base__=base, **fields)


def _as_text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _common(given: Any) -> Settings:
    values = {name: getattr(given, f"harmony_{name}", None) for name in Settings.model_fields}
    try:
        return read(**{name: value for name, value in values.items() if value is not None})
    except ValueError as error:
        raise SettingsError(str(error)) from None


if TYPE_CHECKING:
    from .stock import ModelSettings as _ModelBase
    from .stock import ServerSettings as _ServerBase
else:
    _ModelBase = _with_common(
        stock.ModelSettings, (name for name in Settings.model_fields if name not in (*PROCESS, *ELSEWHERE_ONLY))
    )
    _ServerBase = _with_common(stock.ServerSettings, PROCESS)


class SettingsError(ValueError):
    """Settings that cannot be used. The message is for the person who wrote them."""


class Flags(argparse.ArgumentParser):
    """A command line whose every mistake is one line, raised rather than printed under all flags there are."""

    def error(self, message: str) -> NoReturn:
        """In the words of flags.

        Raises:
            SettingsError: always.
        """
        kinds = {"int": "a whole number", "float": "a number", "_parse_bool_arg": "true or false"}
        kinds["_parse_json_object_arg"] = "a JSON object"
        wrong = re.fullmatch(r"argument (\S+): invalid (\w+) value: (.*)", message)
        if wrong is not None:
            message = f"{wrong[1]}: {wrong[3]} is not {kinds.get(wrong[2], wrong[2])}"
        raise SettingsError(message)

    def add_argument(self, *names: Any, **how: Any) -> argparse.Action:
        """As argparse's; the key may be given several times."""
        if "--api_key" in names:
            how["action"] = "append"
        names = (*names, *(f"--{SHORT[name[2:]]}" for name in names if name[2:] in SHORT))
        return super().add_argument(*names, **how)

    def read(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """As `parse_args`; a flag that is unknown is told with the one that was meant.

        Raises:
            SettingsError: for whatever is wrong.
        """
        arguments, unknown = self.parse_known_args(argv)
        if not unknown:
            return arguments
        given = next((word for word in unknown if word.startswith("-")), unknown[0])
        flag = given.partition("=")[0]
        if not flag.startswith("-"):
            meant = f" (did you mean --model {flag}?)" if flag.endswith(".gguf") else ""
            raise SettingsError(f"{flag!r} belongs to no flag{meant}")
        known = [option for option in self._option_string_actions if option.startswith("--")]
        name = "--" + flag.lstrip("-").replace("-", "_")
        meant = f" (did you mean {ELSEWHERE[flag]}?)" if flag in ELSEWHERE else did_you_mean(name, known)
        raise SettingsError(f"unknown flag {flag}{meant}; --help lists all")


# What llama.cpp's own `llama-server` calls them.
ELSEWHERE = {
    "-m": "--model",
    "-a": "--model_alias",
    "--alias": "--model_alias",
    "-c": "--n_ctx",
    "--ctx-size": "--n_ctx",
    "-b": "--n_batch",
    "--batch-size": "--n_batch",
    "-ub": "--n_ubatch",
    "--ubatch-size": "--n_ubatch",
    "-t": "--n_threads",
    "--threads": "--n_threads",
    "-ngl": "--n_gpu_layers",
    "--gpu-layers": "--n_gpu_layers",
    "-fa": "--flash_attn true",
    "-hf": "--hf_model_repo_id",
    "--config": "--config_file",
    "-v": "--verbose true",
}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The name that `name` comes close to, as a question to put behind a message; empty if there is none."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


class ModelSettings(_ModelBase):
    """How one model is loaded and, with chat format `harmony`, served."""

    chat_format: Optional[str] = Field(default="harmony", description="Chat format to use.")
    n_ctx: Optional[int] = Field(  # type: ignore[assignment]  # None until the model is loaded
        default=None,
        ge=0,
        description="The context size; 0: the model's own; none: the model's own as far as memory holds it.",
    )
    # The stock default keeps logits of every position: n_ctx x vocabulary floats, 13 GB at 16384.
    logits_all: bool = Field(
        default=False, description="Whether to return logits of the prompt (echo with logprobs in /v1/completions)."
    )
    verbose: bool = Field(default=False, description="Whether to print debug information.")

    n_parallel: int = Field(
        default=4, ge=1, le=MOST_PARALLEL, description="Replies generated at once; they share the context's memory."
    )
    cache_ram_mb: int = Field(
        default=1024,
        ge=0,
        description="Main memory, in MB, for evaluated prompts that the context has no more room for; 0: none.",
    )
    cache_disk_mb: int = Field(
        default=0,
        ge=0,
        description="Disk, in MB, for those that main memory has no more room for; they survive a restart; 0: none.",
    )
    cache_folder: Optional[str] = Field(
        default=None, description="Where those are; none: in the user's cache folder. They hold what was said."
    )
    swa_full: bool = Field(
        default=False,
        description="Whether layers with a sliding window keep everything: twice the memory, and conversations can be "
        "gone back in without evaluating a part of them again.",
    )

    max_tokens: Optional[int] = Field(
        default=Defaults.max_tokens,
        ge=1,
        description="Tokens of a reply, for requests that give no limit; none: what the context holds.",
    )
    temperature: float = Field(
        default=Defaults.temperature, ge=0.0, le=2.0, description="Temperature of requests that give none."
    )
    top_p: float = Field(default=Defaults.top_p, ge=0.0, le=1.0, description="top_p of requests that give none.")
    top_k: int = Field(default=Defaults.top_k, ge=0, description="top_k of requests that give none; 0: off.")
    min_p: float = Field(default=Defaults.min_p, ge=0.0, le=1.0, description="min_p of requests that give none.")
    repeat_penalty: float = Field(
        default=Defaults.repeat_penalty, ge=0.0, description="repeat_penalty of requests that give none."
    )

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, given: Any) -> Any:
        """What may be named without the prefix, under its whole name."""
        if not isinstance(given, dict):
            return given
        whole = {short: name for name, short in SHORT.items()}
        return {whole.get(name, name): value for name, value in given.items()}

    def serving(self) -> Serving:
        """How replies are run. The stock server's `cache` and `draft_model` mean the same for this chat format."""
        ram, disk = self.cache_ram_mb << 20, self.cache_disk_mb << 20
        if self.cache:
            ram, disk = (ram, self.cache_size) if self.cache_type == "disk" else (self.cache_size, disk)
        folder = self.cache_folder or Path(platformdirs.user_cache_dir("harmony-plugin", appauthor=False), "prompts")
        drafts = self.draft_model_num_pred_tokens if self.draft_model is not None else 0
        return Serving(self.n_parallel, ram, disk, Path(folder), drafts)

    def harmony(self) -> Settings:
        """How Harmony is split, prompted and bounded: what is given here, then `HARMONY_*`, then the defaults.

        Raises:
            SettingsError: a value that a setting does not take.
        """
        return _common(self)

    def defaults(self) -> Defaults:
        """What the chat handler gives to requests that do not say.

        Raises:
            SettingsError: for `chat_template_kwargs` that mean nothing here; `reasoning_effort` is read from them.
        """
        defaults = self.harmony().defaults(**{name: getattr(self, name) for name in HANDLER_DEFAULTS})
        template = dict(self.chat_template_kwargs or {})
        effort = template.pop("reasoning_effort", defaults.reasoning_effort or PromptOptions.reasoning_effort)
        if template:
            raise SettingsError(f"chat_template_kwargs: chat format harmony has no {', '.join(sorted(template))}")
        if effort not in REASONING_EFFORTS:
            raise SettingsError(f"reasoning_effort: {effort!r} is not a level that is known")
        return replace(defaults, reasoning_effort=effort)


HANDLER_DEFAULTS = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repeat_penalty")


class ServerSettings(_ServerBase):
    """Where and how the server listens."""

    api_key: Optional[str] = Field(
        default=None,
        description="API key that requests need; none: they need none. May be given several times, or as a list in a "
        "config file: any of the keys will do.",
    )
    api_key_file: Optional[str] = Field(
        default=None,
        description="File with more API keys, one a line, read at start; empty lines and those that begin with # are "
        "left out.",
    )
    max_queue: int = Field(
        default=64,
        ge=0,
        description="Requests that may wait for a model; one more is answered with 429 and Retry-After.",
    )
    stored_responses: int = Field(
        default=256, ge=0, description="Replies of /v1/responses kept for previous_response_id; 0: none."
    )
    responses_file: Optional[str] = Field(
        default=None,
        description="File that they are kept in over restarts, also of several servers; it holds what was said; none: "
        "they are in memory.",
    )
    responses_mb: int = Field(
        default=256, ge=1, description="Size, in MB, that they may have in that file; the oldest go first."
    )
    reasoning_key: Optional[str] = Field(
        default=None,
        description="Secret that seals the reasoning which clients of /v1/responses keep (encrypted_content); none: a "
        "new one at each start.",
    )
    drain_seconds: int = Field(
        default=25,
        ge=0,
        description="Seconds that requests under way have to finish when the server is told to stop (SIGTERM).",
    )
    max_body_mb: int = Field(default=32, ge=1, description="Size of a request body, in MB, past which it is refused.")
    models_max: int = Field(
        default=1, ge=1, description="Models in memory at a time; the one that was used longest ago goes."
    )
    strict_models: bool = Field(
        default=False,
        description="Whether a request that names a model that is not served is a 404; else the first model answers.",
    )
    ui: bool = Field(default=True, description="Whether browsers get a chat page at /; else a list of the endpoints.")
    _keys: tuple[str, ...] | None = PrivateAttr(default=None)

    @property
    def api_keys(self) -> tuple[str, ...]:
        """All keys there are, those of the file included.

        Raises:
            SettingsError: one is empty, or the file cannot be read or has none.
        """
        if self._keys is None:
            self.add_keys(())
        return self._keys or ()

    def harmony(self) -> Settings:
        """The common settings that are the process's.

        Raises:
            SettingsError: a value that a setting does not take.
        """
        return _common(self)

    def add_keys(self, more: Iterable[str]) -> None:
        """Have `more` keys beside the setting's, and read the file, once.

        Raises:
            SettingsError: as `api_keys`.
        """
        keys = [*([] if self.api_key is None else [self.api_key]), *more]
        if not all(key.strip() for key in keys):
            raise SettingsError("api_key: a key is empty; leave it out if none is needed")
        if self.api_key_file is not None:
            keys += _read_keys(self.api_key_file)
        self._keys = tuple(dict.fromkeys(keys))


class FlagSettings(ServerSettings, ModelSettings):
    """One server with one model: what the flags and the environment can say."""


class McpServer(BaseModel):
    """An MCP server: a command that is run, or a URL. `tools`: those that models may call as functions."""

    model_config = ConfigDict(extra="forbid")

    command: Optional[str] = None
    args: list[str] = []
    env: dict[str, str] = {}
    cwd: Optional[str] = None
    url: Optional[str] = None
    headers: dict[str, str] = {}
    tools: list[str] = []

    @model_validator(mode="after")
    def _has_one_way(self) -> McpServer:
        if (self.command is None) == (self.url is None):
            raise ValueError("a server has either a `command` or a `url`")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError("`url` begins with http:// or https://")
        return self


class McpSettings(BaseModel):
    """Tools that the server runs itself, by MCP.

    Attributes:
        servers: by their labels.
        builtin: gpt-oss's own tools (`python`, `browser.search`, …) and what answers their calls, as `server.tool`.
        rounds: most rounds of calls for one request; then the answer is due.
        seconds: most that a call may take.
        output: most characters that are shown of what it gave.
    """

    model_config = ConfigDict(extra="forbid")

    servers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")], McpServer] = Field(min_length=1)
    builtin: dict[str, str] = {}
    rounds: int = Field(default=8, ge=1)
    seconds: float = Field(default=60, gt=0)
    output: int = Field(default=20_000, ge=1)

    @model_validator(mode="after")
    def _names_what_there_is(self) -> McpSettings:
        for recipient, given in self.builtin.items():
            if recipient not in BUILTIN_RECIPIENTS:
                known = ", ".join(BUILTIN_RECIPIENTS)
                raise ValueError(f"`builtin` knows {known}, not {recipient!r}{did_you_mean(recipient, self.builtin)}")
            server, _, tool = given.partition(".")
            if server not in self.servers or not tool:
                raise ValueError(f"`builtin`: {given!r} is not `server.tool` of one of {', '.join(self.servers)}")
        missing = [name for name in BUILTIN_RECIPIENTS if name.startswith("browser.") and name not in self.builtin]
        if 0 < len(missing) < len(BUILTIN_RECIPIENTS) - 1:
            raise ValueError(f"`builtin`: gpt-oss knows its browser as one: {', '.join(missing)} is missing, too")
        return self

    def recipients(self) -> dict[str, tuple[str, str]]:
        """The server and the tool that answer each recipient."""
        pairs = {recipient: given.partition(".") for recipient, given in self.builtin.items()}
        return {recipient: (server, tool) for recipient, (server, _, tool) in pairs.items()}


class ConfigFile(ServerSettings):
    """A config file: the server's settings, a list of models, and what no flag can say."""

    models: list[ModelSettings] = Field(default=[], description="Model configs")
    mcp: Optional[McpSettings] = Field(default=None, description="Tools that the server runs itself.")


@dataclass(frozen=True)
class Chosen:
    """What `read_settings` found.

    Attributes:
        mcp: the tools that the server runs itself.
        ignored: flags that were given and are not read, since a config file replaces them.
    """

    server: ServerSettings
    models: list[ModelSettings]
    host: str
    port: int
    arguments: argparse.Namespace
    mcp: McpSettings | None = None
    ignored: tuple[str, ...] = ()


def read_settings(argv: Sequence[str] | None = None, *, parser: Flags | None = None) -> Chosen:
    """Settings from flags, environment and config file, as `python -m llama_cpp.server` reads them: `CONFIG_FILE` or
    `--config_file` replaces the flags; `HOST` and `PORT` come before both.

    Args:
        parser: a parser with more flags, whose values are in `arguments`.

    Raises:
        SettingsError: for a wrong value, an unknown key or a missing file.
    """
    parser = parser or Flags(
        prog="python -m harmony_plugin.llamacpp",
        description="llama-cpp-python's server for gpt-oss: Harmony in, OpenAI and Anthropic APIs out.",
    )
    # argparse's own would name a hundred flags before it says what any of them does.
    parser.usage = "%(prog)s --model FILE.gguf [flags]"
    stock.add_arguments(parser, FlagSettings)
    parser.add_argument("--config_file", type=str, help="Path to a config file to load (JSON or YAML).")
    parser.add_argument("--version", action=VersionFlag)
    arguments = parser.read(argv)

    config_file = os.environ.get("CONFIG_FILE", arguments.config_file)
    mcp = None
    try:
        if config_file:
            written = _read_config(config_file)
            more_keys = _take_more_keys(written)
            config = ConfigFile.model_validate(written)
            server = ServerSettings.model_validate(config.model_dump(exclude={"models", "mcp"}))
            models, mcp = config.models, config.mcp
            if not models:
                raise SettingsError(f"{config_file}: `models` is empty: list at least one model")
        else:
            more_keys = _take_more_keys(vars(arguments))
            server = stock.from_arguments(ServerSettings, arguments)
            models = [stock.from_arguments(ModelSettings, arguments)]
    except ValidationError as error:
        raise SettingsError(_explain(error, config_file)) from error
    server.add_keys(more_keys)
    server.harmony()
    for number, model in enumerate(models):
        if model.hf_model_repo_id is None and not Path(model.model).is_file():
            raise SettingsError(_not_a_file(Path(model.model)))
        if model.chat_format == "harmony":
            try:
                model.defaults()
            except SettingsError as error:
                where = f"config file {config_file}: models[{number}]: " if config_file else ""
                raise SettingsError(f"{where}{error}") from None
    names = stock.aliases(models)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SettingsError(f"two models are called {twice!r}: give each its own `model_alias`")
    port = os.environ.get("PORT", str(server.port))
    if not port.isdecimal() or int(port) > 65_535:
        raise SettingsError(f"PORT: not a port: {port!r}")
    given = [name for name in FlagSettings.model_fields if getattr(arguments, name, None) is not None]
    ignored = tuple(f"--{name}" for name in given) if config_file else ()
    return Chosen(server, models, os.environ.get("HOST", server.host), int(port), arguments, mcp, ignored)


def _take_more_keys(given: dict[str, Any]) -> list[str]:
    """The keys of a list in `api_key` behind its first, which stays there alone: the stock setting is one key."""
    keys = given.get("api_key")
    if not isinstance(keys, list):
        return []
    if not keys:
        raise SettingsError("api_key: the list is empty; leave it out if no key is needed")
    for place, key in enumerate(keys):
        if not isinstance(key, str):
            raise SettingsError(f"api_key[{place}]: not a string (numbers need quotes)")
    given["api_key"], *more = keys
    return more


def _read_keys(path: str) -> list[str]:
    try:
        lines = map(str.strip, Path(path).read_text("utf-8-sig").splitlines())
    except OSError as error:
        raise SettingsError(f"api_key_file {path}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"api_key_file {path}: not a text in UTF-8") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise SettingsError(f"api_key_file {path}: there is no key in it")
    return keys


def _not_a_file(path: Path) -> str:
    """What is wrong with the path of a model that is not there, and which models are."""
    folder = path if path.is_dir() else path.parent
    models = sorted(file.name for file in folder.glob("*.gguf")) if folder.is_dir() else []
    there = f"; in {folder}: {', '.join(models[:5])}{', …' if models[5:] else ''}" if models else ""
    if path.is_dir():
        return f"model {path} is a folder: name the .gguf file in it{there}"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)) and path.suffix != ".gguf":
        repository = f"--hf_model_repo_id {path} --model FILE.gguf"
        return f"model file not found: {path} (if that is a repository: {repository})"
    return f"model file not found: {path}{did_you_mean(path.name, models) or there}"


def _read_config(path: str) -> dict[str, Any]:
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        raise SettingsError(f"config file {path}: {error.strerror}") from error
    try:
        if path.endswith((".yaml", ".yml")):
            import yaml  # type: ignore[import-untyped, unused-ignore]

            try:
                config = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise SettingsError(f"config file {path}: {' '.join(str(error).split())}") from error
        else:
            config = json.loads(text)
    except ValueError as error:
        raise error if isinstance(error, SettingsError) else SettingsError(f"config file {path}: {error}") from error
    if not isinstance(config, dict):
        raise SettingsError(f"config file {path}: not a mapping of settings")
    return config


def _explain(error: ValidationError, config_file: str | None) -> str:
    """All of pydantic's findings in one line, in the words of flags and config files."""
    found = []
    for item in error.errors(include_url=False):
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]).lstrip(".")
        if item["type"] == "missing" and item["loc"][-1:] == ("model",):
            where = f"{path.removesuffix('.model')}: " if config_file else ""
            found.append(f"{where}no model given (--model FILE.gguf, MODEL, or `model` in a config file)")
        elif item["type"] == "extra_forbidden":
            inner = {"models": ModelSettings, "mcp": McpSettings if len(item["loc"]) == 2 else McpServer}
            known: type[Any] = inner.get(str(item["loc"][0]), ConfigFile) if len(item["loc"]) > 1 else ConfigFile
            found.append(f"{path}: unknown setting{did_you_mean(str(item['loc'][-1]), known.model_fields)}")
        else:
            found.append(f"{path}: {item['msg']}")
    return (f"config file {config_file}: " if config_file else "") + "; ".join(found)


def complain(message: str) -> None:
    """One line on standard error, that says whose it is."""
    say(f"harmony-plugin: {message}")


def say(line: str) -> None:
    """One line on standard error. A disk that is full, or a reader that is gone, stops no server."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
