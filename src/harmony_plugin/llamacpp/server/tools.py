"""The tool loop: a reply, the calls in it that the server runs, the next reply from what they gave, and so on.

To the routes it is one turn with one reply. Knows rounds, and which calls are whose; neither what runs a call nor how
an API writes one down. Between rounds the request has no seat at the model: whoever waits goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol, TypeAlias

from ...api.chat import ChatWriter
from ...api.conversation import Conversation
from ...api.errors import ClientGone
from ...api.hosted import HostedTool, HostedTools, ToolResult
from ...api.reply import Ending, Piece, Usage
from ...core import Ended, Event, Explanation, Started, Text
from ..handler import Choices
from .host import Turn

__all__ = ["Runs", "ToolLoop"]

Json: TypeAlias = "dict[str, Any]"
Begin: TypeAlias = "Callable[[Mapping[str, Any], Callable[[Usage], None], bool], Turn]"
"""Makes a round's turn: of the chat request, who is told what it came to, and whether the request had a seat before."""


class Runs(Protocol):
    """What runs calls.

    Attributes:
        rounds: most rounds with calls.
    """

    rounds: int

    async def run(self, tool: HostedTool, call: str, text: str) -> ToolResult:
        """What a call comes to; never raises for what goes wrong with it."""


class ToolLoop:
    """One request's rounds, in the place of a `Turn` and of its reply.

    Args:
        begin: see `Begin`.
        given: the chat request, the hosted tools among its own.
        hosted: these.
        runs: what runs their calls.
        observe: told what the request came to so far, after each round, in the engine's thread.

    Attributes:
        usage: of all rounds together; a prompt counts when it is taken, everything else when its round has ended.
    """

    def __init__(
        self,
        begin: Begin,
        given: Mapping[str, Any],
        hosted: HostedTools,
        runs: Runs,
        observe: Callable[[Usage], None],
    ) -> None:
        self.usage = Usage()
        self._begin = begin
        self._given = given
        self._hosted = hosted
        self._runs = runs
        self._observe = observe
        self._streamed = bool(given.get("stream"))
        self._most_calls = given.get("max_tool_calls")
        self._calls = 0
        self._told: list[Json] = []
        self._over = False
        self._waiting: list[Callable[[], None]] = []
        self._turn = begin(given, self._ended, False)
        self._choices: Choices

    # As a turn

    async def start(self) -> ToolLoop:
        """As `Turn.start`, of the first round."""
        await self._start()
        return self

    def cancel(self) -> None:
        """As `Turn.cancel`. A call that runs is ended with whoever waits for the next item."""
        self._turn.cancel()
        self._close()

    def when_done(self, call: Callable[[], None]) -> None:
        """As `Turn.when_done`, of the last round."""
        if self._over:
            self._turn.when_done(call)
        else:
            self._waiting.append(call)

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for piece in self._pieces():
                yield piece if self._streamed else [piece]
        finally:
            self._close()

    # As a reply

    @property
    def sampling(self) -> Mapping[str, float]:
        """As `Choices` has it."""
        return self._choices.sampling

    @property
    def debugs(self) -> bool:
        """As `Choices` has it."""
        return self._choices.debugs

    def writer(self) -> ChatWriter:
        """As of `Choices`."""
        return self._choices.writer(self._hosted)

    def explained(self) -> Callable[[], Explanation]:
        """As of `Choices`: of the last round."""
        return self._choices.explained()

    def close_reasoning(self) -> bool:
        """As of `Choices`: of the round under way."""
        return self._choices.close_reasoning()

    # Rounds

    async def _start(self) -> None:
        choices = await self._turn.start()
        if not isinstance(choices, Choices):  # the turn was cancelled: the server is going down
            raise ClientGone
        self._choices = choices
        self.usage.prompt += self._choices.usage.prompt

    def _ended(self, usage: Usage) -> None:
        self.usage.add(usage)
        self._observe(self.usage)

    def _close(self) -> None:
        self._over = True
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            self._turn.when_done(call)

    async def _pieces(self) -> AsyncIterator[Piece]:
        number = 0
        while True:
            number += 1
            reply = _Round(self._hosted)
            async for item in self._turn:
                for piece in (item,) if self._streamed else item:
                    yield reply.take(piece)
            ending = reply.ending
            assert ending is not None, "a reply without an end"
            # A call that was cut, by a limit or a stop string, is not to be run.
            calls = reply.calls if ending.finish_reason == "tool_calls" else []
            results = []
            for call, tool, text in calls:
                result = await self._ran(call, tool, text)
                results.append(result)
                yield Piece([], result=result)
            if ending.told is not None:
                self._told.append({**ending.told, "calls": _told(reply, results)})
            left = self._left()
            if not calls or reply.clients or left == 0:
                yield Piece([], ending=self._last(ending, cut=left == 0 and not reply.clients and bool(calls)))
                return
            self._given = self._next(reply.messages(results), left, last=number >= self._runs.rounds)
            if self._over:  # cancelled meanwhile
                return
            self._turn = self._begin(self._given, self._ended, True)
            await self._start()

    async def _ran(self, call: str, tool: HostedTool, text: str) -> ToolResult:
        if self._exhausted():
            return ToolResult(call, "no more calls can be made for this request", failed=True)
        self._calls += 1
        return await self._runs.run(tool, call, text)

    def _exhausted(self) -> bool:
        return isinstance(self._most_calls, int) and self._calls >= self._most_calls

    def _left(self) -> int | None:
        """How many tokens may come yet; None: the request sets no limit."""
        limit = self._given.get("max_completion_tokens", self._given.get("max_tokens"))
        return max(0, limit - self._choices.usage.completion) if isinstance(limit, int) else None

    def _next(self, messages: list[Json], left: int | None, *, last: bool) -> Json:
        """The request of the next round."""
        given = {**self._given, "messages": [*self._given["messages"], *messages]}
        # A call that had to be made was made. Where there may be no more, the answer is due.
        given["tool_choice"] = "none" if last or self._exhausted() else "auto"
        if left is not None:
            given.pop("max_tokens", None)
            given["max_completion_tokens"] = left
        return given

    def _last(self, ending: Ending, *, cut: bool) -> Ending:
        if ending.told is not None:
            ending = ending._replace(told={**ending.told, "rounds": self._told})
        return ending._replace(finish_reason="length") if cut else ending


class _Round:
    """Reads what one round brings.

    Attributes:
        calls: ids, tools and texts of the calls that the server runs.
        clients: how many others there are.
        ending: how it ended.
    """

    def __init__(self, hosted: HostedTools) -> None:
        self.calls: list[tuple[str, HostedTool, str]] = []
        self.clients = 0
        self.ending: Ending | None = None
        self._hosted = hosted
        self._conversation = Conversation()
        self._started: Started | None = None
        self._text: list[str] = []
        self._numbers: dict[int, int] = {}  # of the client's calls: among all, and among those

    def take(self, piece: Piece) -> Piece:
        """A piece as the client has it: whether it was the last one is found out later."""
        self.ending = piece.ending or self.ending
        return piece._replace(events=[self._read(event) for event in piece.events], ending=None)

    def messages(self, results: list[ToolResult]) -> list[Json]:
        """The round as messages of a chat request."""
        for result in results:
            self._conversation.result(result.call, result.shown)
        return self._conversation.messages

    def _read(self, event: Event) -> Event:
        if isinstance(event, Started):
            self._started, self._text = event, []
            call = event.call
            if call is not None and self._hosted.get(call.name) is None:
                self._numbers[call.index] = self.clients
                self.clients += 1
                return event._replace(call=call._replace(index=self._numbers[call.index]))
            return event
        if isinstance(event, Text):
            self._text.append(event.text)
        elif isinstance(event, Ended):
            self._end()
        if event.index in self._numbers:
            return event._replace(index=self._numbers[event.index])
        return event

    def _end(self) -> None:
        started, text = self._started, "".join(self._text)
        self._started = None
        if started is None:
            return
        if started.call is not None:
            assert started.call.id is not None
            assert started.call.name is not None
            function = {"name": started.call.name, "arguments": text}
            self._conversation.call({"id": started.call.id, "type": "function", "function": function})
            tool = self._hosted.get(started.call.name)
            if tool is not None:
                self.calls.append((started.call.id, tool, text))
        elif text and started.field == "reasoning":
            self._conversation.reasoning(text)
        elif text:
            phase = "commentary" if started.message.channel == "commentary" else None
            self._conversation.content(text, phase)


def _told(reply: _Round, results: list[ToolResult]) -> list[Json]:
    """What debugging shows of a round's calls."""
    return [
        {"server": tool.server, "tool": tool.name, "failed": result.failed}
        for (_, tool, _), result in zip(reply.calls, results, strict=False)
    ]
