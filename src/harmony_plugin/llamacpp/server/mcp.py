"""The MCP servers of the config file: which of their tools there are, and calls of these.

The one place that touches the `mcp` package. Knows tools by their names; neither requests nor models. A connection is
opened at the first call, and serves all requests; one that broke is opened anew by the next call.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

import anyio

from ...api.hosted import HostedTool, HostedTools, ToolResult
from ...core import BUILTIN_RECIPIENTS
from ...prompts import placeholder
from .settings import McpServer, McpSettings, SettingsError, did_you_mean

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult, Tool

__all__ = ["McpTools", "find_tools"]

log = logging.getLogger("harmony_plugin.server")

MOST_PAGES = 100  # of a list of tools: a server that has no last one would be asked for ever


def find_tools(settings: McpSettings) -> McpTools:
    """Ask the MCP servers for their tools, once, and choose those that the settings name.

    Raises:
        SettingsError: a server cannot be reached, or has no such tool; or the `mcp` package is not installed.
    """
    try:
        import mcp  # noqa: F401
    except ImportError:
        raise SettingsError("mcp: needs the mcp package: pip install 'harmony-plugin[mcp]'") from None
    # The libraries below log every request and message at this level.
    for name in ("httpx2", "mcp"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return McpTools(settings, HostedTools(asyncio.run(_found(settings))))


async def _found(settings: McpSettings) -> list[HostedTool]:
    found: list[HostedTool] = []
    for label, server in settings.servers.items():
        recipients = {recipient: name for recipient, (of, name) in settings.recipients().items() if of == label}
        if not server.tools and not recipients:
            continue
        try:
            with anyio.fail_after(settings.seconds):
                async with _connected(server) as client:
                    there = {tool.name: tool for tool in await _listed(client)}
        except (Exception, asyncio.CancelledError) as error:
            raise SettingsError(f"mcp.servers.{label}: {_reason(error)}") from error
        for name in server.tools:
            found.append(_hosted(label, name, there, f"mcp.servers.{label}.tools"))
        for recipient, name in recipients.items():
            found.append(_hosted(label, name, there, f"mcp.builtin.{recipient}", recipient))
    return found


def _hosted(label: str, name: str, there: Mapping[str, Tool], where: str, recipient: str | None = None) -> HostedTool:
    tool = there.get(name)
    if tool is None:
        raise SettingsError(f"{where}: {label} has no tool {name!r}{did_you_mean(name, there)}")
    code = None
    if recipient == BUILTIN_RECIPIENTS[0]:
        code = _code_argument(tool.input_schema)
        if code is None:
            raise SettingsError(f"{where}: {name} has no one argument for code: a string, `code` or the only required")
    return HostedTool(label, name, tool.description or "", tool.input_schema, recipient, code)


def _code_argument(schema: Mapping[str, Any]) -> str | None:
    """The argument that python's code goes into."""
    properties, required = schema.get("properties") or {}, schema.get("required") or []
    named = "code" if "code" in properties else required[0] if len(required) == 1 else None
    return named if set(required) <= {named} else None


@asynccontextmanager
async def _connected(server: McpServer, errors: TextIO = sys.stderr) -> AsyncIterator[Client]:
    """A connection. `errors`: where what a command writes to its standard error goes."""
    import httpx2
    from mcp import Client, StdioServerParameters, stdio_client
    from mcp.client.streamable_http import streamable_http_client

    async with AsyncExitStack() as stack:
        if server.url is None:
            assert server.command is not None
            command = StdioServerParameters(
                command=server.command, args=server.args, env=server.env or None, cwd=server.cwd
            )
            transport: Any = stdio_client(command, errors)
        else:
            # A call may take as long as the settings say; how long is watched from outside.
            http = httpx2.AsyncClient(headers=server.headers, timeout=httpx2.Timeout(30, read=None))
            transport = streamable_http_client(server.url, http_client=await stack.enter_async_context(http))
        yield await stack.enter_async_context(Client(transport))


async def _listed(client: Client) -> list[Tool]:
    tools: list[Tool] = []
    cursor = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            break
    return tools


class McpTools:
    """Runs calls on the MCP servers. `close` it in the event loop that used it.

    Attributes:
        hosted: the tools that may be called.
        rounds: most rounds of calls that a request may have.
    """

    def __init__(self, settings: McpSettings, hosted: HostedTools) -> None:
        self.hosted = hosted
        self.rounds = settings.rounds
        self._settings = settings
        self._servers = {label: _Server(server) for label, server in settings.servers.items()}

    async def run(self, tool: HostedTool, call: str, text: str) -> ToolResult:
        """Run a call; whatever goes wrong is its result.

        Args:
            call: its id.
            text: what the model wrote.
        """
        began = time.monotonic()
        output, failed = await self._ran(tool, text)
        output = output.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be sent on
        most = self._settings.output
        if len(output) > most:
            output = f"{output[:most]}\n[{len(output) - most} more characters left out]"
        took, how = time.monotonic() - began, "failed" if failed else "done"
        log.info("call of %s.%s %s in %.3fs", tool.server, tool.name, how, took)
        return ToolResult(call, output, failed)

    async def _ran(self, tool: HostedTool, text: str) -> tuple[str, bool]:
        try:
            arguments = json.loads(tool.arguments(text) or "{}")
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            return "the arguments are not a JSON object", True
        try:
            with anyio.fail_after(self._settings.seconds):
                result = await self._servers[tool.server].call(tool.name, arguments)
        except TimeoutError:
            return f"timed out after {self._settings.seconds:g} seconds", True
        except Exception as error:
            return _reason(error), True
        return _text(result), result.is_error

    async def close(self) -> None:
        """End the connections, and with them the processes of servers that are commands."""
        await asyncio.gather(*(server.close() for server in self._servers.values()))


class _Connection:
    """A connection, held open by a task of its own, as the package wants it: whoever opens one has to close it."""

    def __init__(self, server: McpServer) -> None:
        self.broken = False
        self._users = 0
        self._leave = asyncio.Event()
        self._ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())  # nobody may have waited
        self.held = asyncio.create_task(self._hold(server))

    async def _hold(self, server: McpServer) -> None:
        try:
            # What the process says besides may hold what was said, and this server's log never does.
            with open(os.devnull, "w") as nowhere:
                async with _connected(server, nowhere) as client:
                    self._ready.set_result(client)
                    await self._leave.wait()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(RuntimeError(_reason(error)))
            log.debug("connection ended: %s", error)
        finally:
            self.broken = True

    async def call(self, name: str, arguments: dict[str, Any]) -> CallToolResult:
        from mcp import MCPError
        from mcp.types import CONNECTION_CLOSED

        self._users += 1
        try:
            client = await asyncio.shield(self._ready)
            return await client.call_tool(name, arguments)
        except Exception as error:
            # What the server says of the call itself is no fault of the connection; and it may keep a session.
            self.broken = self.broken or not isinstance(error, MCPError) or error.code == CONNECTION_CLOSED
            raise
        finally:
            self._users -= 1
            self.broken = self.broken or not self._ready.done()  # nobody waited long enough
            if self.broken and not self._users:
                self.leave()

    def leave(self) -> None:
        """Have it closed."""
        self._leave.set()
        if not self._ready.done():
            self.held.cancel()


class _Server:
    def __init__(self, server: McpServer) -> None:
        self._server = server
        self._connection: _Connection | None = None
        #: Those that are being closed, too.
        self._connections: set[_Connection] = set()

    async def call(self, name: str, arguments: dict[str, Any]) -> CallToolResult:
        connection = self._connection
        if connection is None or connection.broken:
            connection = self._connection = _Connection(self._server)
            self._connections.add(connection)
            connection.held.add_done_callback(partial(self._ended, connection))
        return await connection.call(name, arguments)

    def _ended(self, connection: _Connection, task: asyncio.Task[None]) -> None:
        self._connections.discard(connection)

    async def close(self) -> None:
        for connection in self._connections:
            connection.leave()
        await asyncio.gather(*(connection.held for connection in self._connections), return_exceptions=True)


def _text(result: CallToolResult) -> str:
    """What a tool gave, for a model that reads text."""
    texts = []
    for block in result.content:
        part = block.model_dump(by_alias=True)
        inner = part.get("resource")
        text = part.get("text") if inner is None else inner.get("text")
        texts.append(text if isinstance(text, str) else placeholder(part))
    if not texts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(texts)


def _reason(error: BaseException) -> str:
    """The innermost of what went wrong, in one line."""
    while isinstance(getattr(error, "exceptions", None), Sequence) and error.exceptions:  # type: ignore[attr-defined]
        error = error.exceptions[0]  # type: ignore[attr-defined]
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return " ".join(str(error).split())[:500] or type(error).__name__
