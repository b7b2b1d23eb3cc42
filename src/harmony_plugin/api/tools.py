"""Tools that OpenAI's Responses API and Anthropic's Messages API define by their type.

A tool that the client runs is offered to the model as a function of its documented schema, and its calls are written
as the API has them. One that OpenAI or Anthropic would run is refused: what a server runs itself is its operator's
choice (`hosted`), not a request's. Sources: the two API
references and the types of their Python clients.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, RootModel, ValidationError, model_validator

from ..core import RequestError
from ..prompts import custom_input
from .conversation import string_of

__all__ = ["OfferedTool", "Toolbox", "anthropic_function", "run_by_client"]

Json: TypeAlias = "dict[str, Any]"

log = logging.getLogger("harmony_plugin.server")

STRING: Json = {"type": "string"}
STRINGS: Json = {"type": "array", "items": STRING}
INTEGER: Json = {"type": "integer"}
RANGE: Json = {"type": "array", "items": INTEGER, "description": "First and last line; -1: the end."}


def _object(required: Sequence[str], **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(required)}


# OpenAI's: the schema of the arguments is that of the call item's `action` or `operation`.


class _Exec(BaseModel):
    command: list[str]
    env: dict[str, str] = {}
    timeout_ms: int | None = None
    user: str | None = None
    working_directory: str | None = None


class _Commands(BaseModel):
    commands: list[str]
    timeout_ms: int | None = None
    max_output_length: int | None = None


class _Operation(BaseModel):
    type: Literal["create_file", "update_file", "delete_file"]
    path: str
    diff: str | None = None

    @model_validator(mode="after")
    def _has_diff(self) -> _Operation:
        if (self.diff is None) != (self.type == "delete_file"):
            raise ValueError("a diff goes with create_file and update_file")
        return self


class _Search(RootModel[dict[str, Any]]):
    """What the client's own schema says."""


@dataclass(frozen=True)
class _Typed:
    """A tool that OpenAI's clients run. `field`: of the call item, where its arguments stand."""

    item: str
    field: str
    arguments: type[BaseModel]
    description: str
    parameters: Json


TYPED = {
    "local_shell": _Typed(
        "local_shell_call",
        "action",
        _Exec,
        "Runs a command on the user's machine.",
        _object(
            ["command"],
            command={**STRINGS, "description": "The program and its arguments."},
            working_directory=STRING,
            timeout_ms=INTEGER,
            env={"type": "object", "additionalProperties": STRING},
        ),
    ),
    "shell": _Typed(
        "shell_call",
        "action",
        _Commands,
        "Runs shell commands, in order.",
        _object(["commands"], commands=STRINGS, timeout_ms=INTEGER, max_output_length=INTEGER),
    ),
    "apply_patch": _Typed(
        "apply_patch_call",
        "operation",
        _Operation,
        "Creates, updates or deletes a file. `diff` is a V4A diff: the new file's lines or the changed ones, each "
        "after +, - or a space.",
        _object(
            ["type", "path"],
            type={"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
            path=STRING,
            diff=STRING,
        ),
    ),
    # Of the client's tools that are not shown before they are looked for.
    "tool_search": _Typed(
        "tool_search_call",
        "arguments",
        _Search,
        "Finds more tools by what they do.",
        _object(["query"], query=STRING),
    ),
}
# What a call's item says besides its arguments.
ALSO: Mapping[str, Json] = {"tool_search": {"execution": "client"}}
KINDS = {typed.item: kind for kind, typed in TYPED.items()}


@dataclass(frozen=True)
class OfferedTool:
    """A tool of a Responses request.

    Attributes:
        name: as the client knows it, in its `namespace`.
        offered: the name that the model is given.
        kind: `function`, `custom` or a key of `TYPED`.
    """

    name: str
    offered: str
    kind: str = "function"
    namespace: str | None = None

    @property
    def whole(self) -> bool:
        """Whether a call's item can only be written once the call is complete."""
        return self.kind in TYPED

    def item(self, arguments: str) -> Json:
        """The fields of a finished call's item but its id. Arguments that a typed item has no room for make a call of a
        function of that name, so that the client can tell the model."""
        if self.kind == "custom":
            return self._named({"type": "custom_tool_call", "input": custom_input(arguments)})
        typed = TYPED.get(self.kind)
        if typed is not None:
            try:
                value = typed.arguments.model_validate_json(arguments).model_dump(exclude_none=True)
            except ValidationError:
                return {"type": "function_call", "name": self.offered, "arguments": arguments}
            exec_type = {"type": "exec"} if self.kind == "local_shell" else {}
            return {"type": typed.item, typed.field: {**exec_type, **value}, **ALSO.get(self.kind, {})}
        return self._named({"type": "function_call", "arguments": arguments})

    def _named(self, item: Json) -> Json:
        item["name"] = self.name
        if self.namespace is not None:
            item["namespace"] = self.namespace
        return item


class Toolbox:
    """The tools of a Responses request, and the names that the model knows them by.

    Args:
        tools: the request's own.
        brought: those of its items, by the items' paths (`additional_tools`, and what a search for tools found).

    Attributes:
        chat: as tools of a chat request.
        echo: as the reply repeats them.

    Raises:
        RequestError: for a tool that is wrong or that this server would have to run.
    """

    def __init__(
        self,
        tools: Sequence[Mapping[str, Any]] | None,
        brought: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({}),
    ) -> None:
        self.chat: list[Json] = []
        self.echo: list[Json] = []
        self._by_offered: dict[str, OfferedTool] = {}
        self._by_name: dict[tuple[str | None, str], OfferedTool] = {}
        listed = [*(tools or ()), *(tool for found in brought.values() for tool in found)]
        # A name in a namespace gives way to one outside.
        self._plain = [tool.get("name") for tool in listed if tool.get("type") != "namespace"]
        for i, tool in enumerate(tools or ()):
            self._add(tool, f"tools[{i}]")
        own = len(self.echo)
        for where, found in brought.items():
            for i, tool in enumerate(found):
                name = tool.get("name")
                if not isinstance(name, str) or (None, name) not in self._by_name:  # a search may find what is known
                    self._add(tool, f"{where}.tools[{i}]")
        del self.echo[own:]

    def tool(self, offered: str) -> OfferedTool:
        """The tool that the model calls by a name; what it made up is a function."""
        return self._by_offered.get(offered) or OfferedTool(offered, offered)

    def offered(self, name: str, namespace: str | None = None) -> str:
        """The name that the model knows a tool by, even if it is offered no more."""
        found = self._by_name.get((namespace, name))
        if found is not None:
            return found.offered
        return name if namespace is None else _joined(namespace, name)

    def names(self, tool: Mapping[str, Any]) -> list[str]:
        """The names that the model knows a tool by: several, of a namespace."""
        if tool.get("type") == "namespace":
            return [self.offered(inner["name"], tool["name"]) for inner in tool["tools"]]
        return [self.offered(str(tool.get("name") or tool.get("type")))]

    def _add(self, tool: Mapping[str, Any], where: str) -> None:
        kind = tool.get("type")
        if not isinstance(kind, str):
            raise RequestError(f"{where}.type is not a string.", f"{where}.type", "invalid_type")
        if kind == "web_search" and "external_web_access" in tool:
            # Codex sends it so with every request, unasked: to refuse it would be to refuse Codex.
            log.info("%s: web_search, which this server does not run, was left out", where)
            return
        self.echo.append(
            {"description": None, "parameters": None, "strict": None, **tool} if kind == "function" else dict(tool)
        )
        if kind == "namespace":
            self._add_namespace(tool, where)
        elif kind in ("function", "custom"):
            self._offer(tool, where, None)
        elif kind in TYPED and run_by_client(tool):
            typed, name = TYPED[kind], self._free(kind)
            function = {"name": name, "description": typed.description, "parameters": typed.parameters}
            function |= {key: tool[key] for key in ("description", "parameters") if tool.get(key)}
            self._keep(OfferedTool(kind, name, kind), {"type": "function", "function": function})
        else:
            label = next((f" {tool[key]!r}" for key in ("server_label", "name") if isinstance(tool.get(key), str)), "")
            raise RequestError(
                f"{where}: {kind}{label} is not a tool of the client's, and this server runs none: leave it out, or "
                "offer a function that does the same.",
                f"{where}.type",
                "unsupported_tool",
            )

    def _add_namespace(self, tool: Mapping[str, Any], where: str) -> None:
        namespace, tools = string_of(tool, "name", where, filled=True), tool.get("tools")
        if not isinstance(tools, list) or not all(isinstance(inner, Mapping) for inner in tools):
            raise RequestError(f"{where}.tools is not a list of tools.", f"{where}.tools", "invalid_type")
        description = tool.get("description")
        for j, inner in enumerate(tools):
            at = f"{where}.tools[{j}]"
            if inner.get("type") not in ("function", "custom"):
                raise RequestError(f"{at}.type is {inner.get('type')!r}.", f"{at}.type", "invalid_value")
            if j == 0 and isinstance(description, str) and description:
                # There is no other place for what is said of all of them.
                inner = {**inner, "description": f"{description}\n\n{inner.get('description') or ''}".strip()}
            self._offer(inner, at, namespace)

    def _offer(self, tool: Mapping[str, Any], where: str, namespace: str | None) -> None:
        name, kind = string_of(tool, "name", where, filled=True), tool["type"]
        if namespace is not None and (namespace, name) in self._by_name:
            return
        offered = name if namespace is None else self._free(_joined(namespace, name))
        inner: Json = {"name": offered}
        for key in ("description", "strict") if kind == "function" else ("description", "format"):
            if tool.get(key) is not None:
                inner[key] = tool[key]
        if kind == "function" and tool.get("parameters") is not None:
            if not isinstance(tool["parameters"], Mapping):
                raise RequestError(f"{where}.parameters is not an object.", f"{where}.parameters", "invalid_type")
            inner["parameters"] = tool["parameters"]
        self._keep(OfferedTool(name, offered, kind, namespace), {"type": kind, kind: inner})

    def _keep(self, tool: OfferedTool, chat: Json) -> None:
        self._by_offered[tool.offered] = self._by_name[tool.namespace, tool.name] = tool
        self.chat.append(chat)

    def _free(self, name: str) -> str:
        while name in self._plain or name in self._by_offered:
            name += "_"
        return name


def run_by_client(tool: Mapping[str, Any]) -> bool:
    """Whether the client runs a tool: a shell of its own, not a container of OpenAI's; a search of its own tools."""
    if tool.get("type") in ("function", "custom", "namespace"):
        return True
    if tool.get("type") not in TYPED:
        return False
    if tool["type"] == "tool_search":
        return tool.get("execution") == "client"
    environment = tool.get("environment")
    return environment is None or (isinstance(environment, Mapping) and environment.get("type") == "local")


def _joined(namespace: str, name: str) -> str:
    """As MCP clients write a server's tools: `mcp__server__tool`. To the model, all tools are in `functions`."""
    if namespace == "functions":
        return name
    return namespace + name if namespace.endswith("__") else f"{namespace}__{name}"


# Anthropic's.

PATHS = {"path": STRING, "file_text": STRING, "old_str": STRING, "new_str": STRING, "insert_line": INTEGER}


def _commands(*commands: str, **properties: Json) -> Json:
    return _object(["command"], command={"type": "string", "enum": list(commands)}, **properties)


ANTHROPIC: Mapping[str, tuple[str, Json]] = {
    "bash": (
        "Runs commands in a bash session that stays open between calls.",
        _object([], command=STRING, restart={"type": "boolean", "description": "Start the session anew."}),
    ),
    "text_editor": (
        "Views, creates and edits text files.",
        _commands("view", "create", "str_replace", "insert", **PATHS, insert_text=STRING, view_range=RANGE),
    ),
    "memory": (
        "Keeps files under /memories for later conversations. Look there before you begin.",
        _commands(
            "view",
            "create",
            "str_replace",
            "insert",
            "delete",
            "rename",
            **PATHS,
            insert_text=STRING,
            view_range=RANGE,
            old_path=STRING,
            new_path=STRING,
        ),
    ),
    "computer": (
        "Works a computer's screen, mouse and keyboard.",
        _object(
            ["action"],
            action=STRING,
            coordinate={"type": "array", "items": INTEGER},
            start_coordinate={"type": "array", "items": INTEGER},
            text=STRING,
            duration={"type": "number"},
            scroll_direction={"type": "string", "enum": ["up", "down", "left", "right"]},
            scroll_amount=INTEGER,
            region={"type": "array", "items": INTEGER},
        ),
    ),
}
# The editor's releases differ in one command and one field.
OLD_EDITORS = ("text_editor_20241022", "text_editor_20250124")


def anthropic_function(kind: str, name: str, where: str) -> Json:
    """The function that stands for a tool of one of Anthropic's types (`bash_20250124`).

    Raises:
        RequestError: the type is not one that clients run.
    """
    family = re.fullmatch(r"(bash|text_editor|memory|computer)_\d{8}", kind)
    if family is None:
        raise RequestError(
            f"{where}: {kind} is not a tool of the client's, and this server runs none: leave it out, or offer a tool "
            "with an input_schema that does the same.",
            f"{where}.type",
            "unsupported_tool",
        )
    description, schema = ANTHROPIC[family[1]]
    if kind in OLD_EDITORS:
        schema = _commands("view", "create", "str_replace", "insert", "undo_edit", **PATHS, view_range=RANGE)
    return {"name": name, "description": description, "parameters": schema}


def shell_output(output: Any) -> Any:
    """The parts of a `shell_call_output` as text for the model; anything else as it is."""
    if not isinstance(output, list):
        return output
    texts = []
    for part in output:
        if not isinstance(part, Mapping) or "stdout" not in part:
            return output
        outcome = part.get("outcome")
        ended = outcome if isinstance(outcome, Mapping) else {}
        last = f"exit code {ended.get('exit_code')}" if ended.get("type") == "exit" else str(ended.get("type") or "")
        texts.append("\n".join(str(text) for text in (part["stdout"], part.get("stderr"), last) if text))
    return "\n".join(texts)


def call_arguments(item: Mapping[str, Any]) -> str:
    """The arguments that stand for the call of a typed tool, in history."""
    typed = TYPED[KINDS[item["type"]]]
    value = item.get(typed.field)
    given = value if isinstance(value, Mapping) else {}
    kept = {k: v for k, v in given.items() if v is not None and not (k == "type" and v == "exec")}
    return json.dumps(kept, ensure_ascii=False)
