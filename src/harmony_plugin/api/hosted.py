"""Hosted tools: those that the server runs itself, as requests offer them and as replies and history name them.

Knows names, schemas and the shape of arguments; neither what runs a tool nor how an API writes its calls down.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

__all__ = ["HostedTool", "HostedTools", "ToolResult", "failure"]

Json: TypeAlias = "dict[str, Any]"


class ToolResult(NamedTuple):
    """What a call came to that the server ran. ``call``: the call's id."""

    call: str
    output: str
    failed: bool = False

    @property
    def shown(self) -> str:
        """What the model is shown of it."""
        return failure(self.output) if self.failed else self.output


def failure(what: str) -> str:
    """What the model is shown of a call that failed."""
    return f"Error: {what}" if what else "Error"


@dataclass(frozen=True)
class HostedTool:
    """A tool of an MCP server.

    Attributes:
        server: the server's label.
        name: the tool's own.
        description: what it does, for the model.
        parameters: the JSON schema of its arguments.
        recipient: of gpt-oss's own tools, the one whose calls it answers; None: it is offered as a function.
        code: the argument that the text of a call is; None: the text is the arguments.
    """

    server: str
    name: str
    description: str
    parameters: Mapping[str, Any]
    recipient: str | None = None
    code: str | None = None

    @property
    def offered(self) -> str:
        """The name that the model calls it by."""
        return self.recipient or joined(self.server, self.name)

    def arguments(self, text: str) -> str:
        """The arguments, as JSON, that the text of a call means."""
        return text if self.code is None else json.dumps({self.code: text}, ensure_ascii=False)

    def text(self, arguments: str) -> str:
        """What `arguments` made these of."""
        if self.code is None:
            return arguments
        try:
            value = json.loads(arguments)
        except (ValueError, RecursionError):
            return arguments
        written = value.get(self.code) if isinstance(value, dict) else None
        return written if isinstance(written, str) else arguments


class HostedTools:
    """The tools that one request may have run, by the names that the model calls them by."""

    def __init__(self, tools: Iterable[HostedTool] = ()) -> None:
        self._tools = {tool.offered: tool for tool in tools}
        self._by_name = {(tool.server, tool.name): tool for tool in self._tools.values()}

    def __bool__(self) -> bool:
        return bool(self._tools)

    def get(self, offered: str | None) -> HostedTool | None:
        """The tool that the model calls by a name; None: the server runs none of that name."""
        return None if offered is None else self._tools.get(offered)

    def call(self, server: str, name: str, arguments: str) -> Json:
        """A call in history, as the function that a chat message has. The tool may be gone since."""
        tool = self._by_name.get((server, name))
        if tool is None:
            return {"name": joined(server, name), "arguments": arguments}
        return {"name": tool.offered, "arguments": tool.text(arguments)}

    def by_server(self) -> dict[str, list[HostedTool]]:
        """The tools, by their server's label."""
        servers: dict[str, list[HostedTool]] = {}
        for tool in self._tools.values():
            servers.setdefault(tool.server, []).append(tool)
        return servers

    def beside(self, given: Mapping[str, Any]) -> HostedTools:
        """Those that a chat request can have: not what the client declares under the same name, and none where several
        choices are asked for, or calls are ruled out."""
        tools = given.get("tools") or ()
        if given.get("n") not in (None, 1) or given.get("tool_choice") == "none" or "functions" in given:
            return HostedTools()
        if not isinstance(tools, Sequence) or not all(isinstance(tool, Mapping) for tool in tools):
            return HostedTools()  # the request is refused for that
        declared = {_name(tool) for tool in tools}
        return HostedTools(tool for name, tool in self._tools.items() if name not in declared)

    def offer(self, given: Mapping[str, Any]) -> Json:
        """A chat request with these tools, behind the client's own, whose places its errors name."""
        functions = [
            {
                "type": "function",
                "function": {"name": tool.offered, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in self._tools.values()
            if tool.recipient is None
        ]
        offered = {**given, "builtin_tools": [tool.recipient for tool in self._tools.values() if tool.recipient]}
        if functions:
            offered["tools"] = [*(given.get("tools") or ()), *functions]
        return offered


def joined(server: str, name: str) -> str:
    """The name of a server's tool among functions."""
    return f"{server}__{name}"


def _name(tool: Mapping[str, Any]) -> Any:
    inner = tool.get(tool.get("type") or "function", tool)
    return inner.get("name") if isinstance(inner, Mapping) else None
