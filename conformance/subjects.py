"""What is put to the test: each a name and a way from a fixture's tokens to what a client gets, whole and streamed.

Every subject is the real thing on its real path: the libraries called as their users call them, the servers as
processes with a real engine whose choice of tokens is scripted (see tests/e2e). Knows nothing of what is right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from canitoolcall.chunking import DEFAULT_STRATEGIES, ChunkStrategy, split, split_text
from canitoolcall.fixtures import Fixture
from canitoolcall.results import Observation, ParsedToolCall, ParseResult

from harmony_plugin import Delta, Dialect, Reply, Stream, parse
from harmony_plugin.core import harmony_encoding

from . import servers

MARKERS = Dialect().ids
STOPS = frozenset(MARKERS[name] for name in ("return", "call", "endoftext"))
SPECIAL = frozenset(MARKERS.values())
STRATEGIES = (*DEFAULT_STRATEGIES, ChunkStrategy("char"), ChunkStrategy("rand", seed=6, max_group=2))

Observe = Callable[[Fixture], Observation]


def result(reasoning: str | None, content: str | None, calls: Iterable[tuple[str, str]]) -> ParseResult:
    return ParseResult(
        content=content,
        reasoning_content=reasoning,
        tool_calls=tuple(ParsedToolCall(name, arguments) for name, arguments in calls),
    )


def attempt(work: Callable[[], ParseResult]) -> ParseResult:
    """What a subject raises is what it gives."""
    try:
        return work()
    except Exception as error:
        return ParseResult(exception=f"{type(error).__name__}: {str(error)[:200]}")


class Sum:
    """Chunks of one reply, added up as a client adds them up."""

    def __init__(self) -> None:
        self.reasoning: list[str] = []
        self.content: list[str] = []
        self.calls: dict[int, list[str]] = {}

    def add(self, reasoning: str | None, content: str | None, calls: Iterable[tuple[int, str | None, str]]) -> None:
        self.reasoning.append(reasoning or "")
        self.content.append(content or "")
        for index, name, arguments in calls:
            call = self.calls.setdefault(index, ["", ""])
            call[0] += name or ""
            call[1] += arguments

    def result(self) -> ParseResult:
        calls = [(name, arguments) for _, (name, arguments) in sorted(self.calls.items())]
        return result("".join(self.reasoning) or None, "".join(self.content) or None, calls)


def said(fixture: Fixture) -> list[int]:
    """The ids a model says: the fixture's, and the stop token that it leaves out, unless it was cut off."""
    ids = list(fixture.output_token_ids or harmony_encoding().encode(fixture.raw_output, allowed_special="all"))
    if fixture.truncated or ids[-1] in STOPS:
        return ids
    header = fixture.raw_output.rpartition("<|start|>")[2].partition("<|message|>")[0]
    return [*ids, MARKERS["call" if " to=functions" in header else "return"]]


# The core


def core_by_ids(fixture: Fixture) -> Observation:
    ids = list(fixture.output_token_ids or ())
    return _core(fixture, ids, {s.id: split(ids, s, special=SPECIAL) for s in STRATEGIES})


def core_by_text(fixture: Fixture) -> Observation:
    raw = fixture.raw_output
    return _core(fixture, raw, {s.id: split_text(raw, s) for s in STRATEGIES if s.kind != "special"})


def _core(fixture: Fixture, output: Any, cut: Mapping[str, Sequence[Any]]) -> Observation:
    def of(told: Reply | Delta) -> ParseResult:
        calls = [(call.name or "", call.arguments) for call in told.tool_calls]
        return result(told.reasoning_content, told.content, calls)

    def whole() -> ParseResult:
        return of(parse(output, tools=fixture.tools))

    def streamed(chunks: Sequence[Any]) -> ParseResult:
        return of(sum(Stream(tools=fixture.tools).deltas(chunks), Delta()))

    streams = {name: attempt(lambda chunks=chunks: streamed(chunks)) for name, chunks in cut.items()}
    return Observation(nonstream=attempt(whole), streams=streams)


# openai_harmony: it finds messages; the usual reading of channels makes fields of them


def openai_harmony(strict: bool) -> Observe:
    def observe(fixture: Fixture) -> Observation:
        import openai_harmony as library

        def whole() -> ParseResult:
            parser = library.StreamableParser(harmony_encoding(), library.Role.ASSISTANT, strict=strict)
            for token in said(fixture):
                parser.process(token)
            parser.process_eos()
            fields: dict[str, list[str]] = {"reasoning": [], "content": []}
            calls = []
            for message in parser.messages:
                text = "".join(getattr(part, "text", "") for part in message.content)
                if message.recipient and message.recipient.startswith("functions."):
                    calls.append((message.recipient.removeprefix("functions."), text))
                elif not message.recipient:
                    fields["reasoning" if message.channel == "analysis" else "content"].append(text)
            return result("\n".join(fields["reasoning"]) or None, "\n".join(fields["content"]) or None, calls)

        return Observation(nonstream=attempt(whole), streams={})

    return observe


# Servers: the OpenAI client against a process


def _plain(message: Any) -> tuple[str | None, str | None, Any]:
    extra = message.model_extra or {}
    return extra.get("reasoning_content") or extra.get("reasoning"), message.content, message.tool_calls or ()


async def _ask(client: Any, fields: dict[str, Any]) -> Observation:
    """The same request, whole and streamed."""

    async def whole() -> ParseResult:
        reply = await client.chat.completions.create(**fields)
        reasoning, content, calls = _plain(reply.choices[0].message)
        return result(reasoning, content, [(c.function.name, c.function.arguments) for c in calls])

    async def streamed() -> ParseResult:
        total = Sum()
        async for chunk in await client.chat.completions.create(**fields, stream=True):
            if error := (chunk.model_extra or {}).get("error"):
                raise RuntimeError(f"the stream carries an error: {error}")
            for choice in chunk.choices:
                reasoning, content, calls = _plain(choice.delta)
                total.add(
                    reasoning,
                    content,
                    [(c.index, c.function.name, c.function.arguments or "") for c in calls if c.function],
                )
        return total.result()

    async def safely(work: Any) -> ParseResult:
        try:
            return await work  # type: ignore[no-any-return]
        except Exception as error:
            return ParseResult(exception=f"{type(error).__name__}: {str(error)[:200]}")

    return Observation(nonstream=await safely(whole()), streams={"server": await safely(streamed())})


def _ask_all(url: str, requests: Mapping[str, dict[str, Any]], at_once: int) -> dict[str, Observation]:
    import openai

    async def work() -> dict[str, Observation]:
        gate = asyncio.Semaphore(at_once)
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=240) as client:

            async def one(name: str, fields: dict[str, Any]) -> tuple[str, Observation]:
                async with gate:
                    return name, await _ask(client, fields)

            return dict(await asyncio.gather(*(one(name, fields) for name, fields in requests.items())))

    return asyncio.run(work())


def _request(fixture: Fixture, ids: Sequence[int]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Use the tools to answer."}],
        "temperature": 0,
        "max_completion_tokens": len(ids),
    }
    if fixture.tools:
        fields["tools"] = [dict(tool) for tool in fixture.tools]
    return fields


def vllm(plugin: bool, fixtures: Sequence[Fixture]) -> Observe:
    """`vllm serve` with vLLM's own parsers or the plugin's; past stop ids inside a fixture it is told to go on."""
    requests = {}
    for fixture in fixtures:
        ids = said(fixture)
        extra: dict[str, Any] = {"vllm_xargs": {"script": ids}}
        if STOPS & set(ids[:-1]):
            extra["ignore_eos"] = True
        requests[fixture.id] = {**_request(fixture, ids), "model": servers.MODEL, "extra_body": extra}
    with servers.vllm(plugin=plugin) as url:
        seen = _ask_all(url, requests, at_once=16)
    return lambda fixture: seen[fixture.id]


def llamacpp_server(fixtures: Sequence[Fixture]) -> Observe:
    """`python -m harmony_plugin.llamacpp` with scripted sampling, headers unconstrained."""
    scripts, requests = {}, {}
    for fixture in fixtures:
        ids = scripts[fixture.id] = said(fixture)
        # parallel_tool_calls: generation goes on behind <|call|>, as some fixtures do.
        more = {"parallel_tool_calls": True} if fixture.tools else {}
        requests[fixture.id] = {
            **_request(fixture, ids),
            "model": servers.MODEL,
            "metadata": {"script": fixture.id},
            **more,
        }
    with servers.llamacpp(scripts) as url:
        seen = _ask_all(url, requests, at_once=2)
    return lambda fixture: seen[fixture.id]


@contextmanager
def _model() -> Iterator[Any]:
    import llama_cpp

    from harmony_plugin.demo.model import build_model

    llama = llama_cpp.Llama(str(build_model()), n_ctx=8192, verbose=False)
    try:
        yield llama
    finally:
        llama.close()


def llamacpp_stock(fixtures: Sequence[Fixture]) -> Observe:
    """llama-cpp-python as it comes: `create_chat_completion`, sampling scripted in the same way."""
    import llama_cpp

    seen: dict[str, Observation] = {}

    def forced(ids: Sequence[int]) -> Any:
        begin: list[int] = []

        def force(input_ids: Any, scores: Any) -> Any:
            begin[:] = begin or [len(input_ids)]
            place = len(input_ids) - begin[0]
            scores[ids[place] if place < len(ids) else MARKERS["return"]] = 10_000.0
            return scores

        return llama_cpp.LogitsProcessorList([force])

    with _model() as llama:
        for fixture in fixtures:
            ids = said(fixture)
            fields = _request(fixture, ids)
            fields["max_tokens"] = fields.pop("max_completion_tokens")

            def whole(fields: dict[str, Any] = fields, ids: list[int] = ids) -> ParseResult:
                reply = llama.create_chat_completion(**fields, logits_processor=forced(ids))
                message = reply["choices"][0]["message"]
                calls = [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or ()]
                return result(message.get("reasoning_content"), message.get("content"), calls)

            def streamed(fields: dict[str, Any] = fields, ids: list[int] = ids) -> ParseResult:
                total = Sum()
                for chunk in llama.create_chat_completion(**fields, logits_processor=forced(ids), stream=True):
                    delta = chunk["choices"][0]["delta"]
                    calls = [
                        (c["index"], c["function"].get("name"), c["function"].get("arguments") or "")
                        for c in delta.get("tool_calls") or ()
                    ]
                    total.add(delta.get("reasoning_content"), delta.get("content"), calls)
                return total.result()

            seen[fixture.id] = Observation(nonstream=attempt(whole), streams={"library": attempt(streamed)})
    return lambda fixture: seen[fixture.id]
