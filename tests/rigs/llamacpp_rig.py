"""The rig of these tests: scripts for the tiny model, servers as processes, and replies brought to one shape.

Everything is real but the choice of tokens: `harmony_plugin.demo.server` is the server with scripted sampling.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from harmony_plugin import Reply, parse
from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "cases" / "split.jsonl").read_text("utf-8").splitlines()
    if line.strip()
]
END = (200_002, 199_999)  # <|return|>, <|endoftext|>: nothing is generated after these
CALL = 200_012


@functools.cache
def encoding() -> Any:
    from openai_harmony import HarmonyEncodingName, load_harmony_encoding

    return load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)


def ids_of(case: Mapping[str, Any]) -> list[int]:
    """The ids of a case or script: markers are special tokens, unless its `segments` say otherwise."""
    if case.get("token_ids"):
        return list(case["token_ids"])
    if case.get("segments"):
        ids: list[int] = []
        for kind, text in case["segments"]:
            special = kind == "special"
            ids += encoding().encode(text, **({"allowed_special": "all"} if special else {"disallowed_special": ()}))
        return ids
    return list(encoding().encode(case["raw"], allowed_special="all"))


def answer(text: str, reasoning: str | None = None) -> str:
    thought = f"<|channel|>analysis<|message|>{reasoning}<|end|><|start|>assistant" if reasoning else ""
    return f"{thought}<|channel|>final<|message|>{text}<|return|>"


def call(name: str, arguments: str, end: str = "<|call|>") -> str:
    return f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{arguments}{end}"


#: How many replies at once: the tests pass with 1, and with more.
AT_ONCE = ("--n_parallel", os.environ.get("HARMONY_TEST_PARALLEL", "4"))
#: The machine's other work would make llama.cpp's threads wait for each other, and that for long.
ONE_THREAD = ("--n_threads", "1", "--n_threads_batch", "1")
ENDLESS = 6_000
LONG = " ".join(f"word{i}" for i in range(200))
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}

SCRIPTS: list[dict[str, Any]] = [
    {"id": "answer", "raw": answer("2 + 2 = 4.", "Simple arithmetic.")},
    {"id": "long", "raw": answer(LONG, "Long.")},
    {"id": "weather", "raw": answer("It is 21 C in Rome.")},
    {"id": "malformed", "raw": "<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>Hi.<|return|>"},
    # Far longer than any test waits for: what is left of it must not be generated.
    {
        "id": "endless",
        "token_ids": encoding().encode("<|channel|>final<|message|>", allowed_special="all") + ENDLESS * [350],
    },
    {
        "id": "thinker",
        "token_ids": encoding().encode("<|channel|>analysis<|message|>", allowed_special="all") + ENDLESS * [350],
    },
    {"id": "unicode", "raw": answer('München 🦙 東京\n\ttab "quote"', "naïve")},
    {
        "id": "loop",
        "replies": [
            {
                "raw": "<|channel|>analysis<|message|>Need weather.<|end|><|start|>assistant"
                + call("get_weather", '{"city":"Paris"}')
            },
            {"raw": answer("It is 21 C.", "Have the result.")},
        ],
    },
    {
        "id": "preamble",
        "raw": "<|channel|>commentary<|message|>Let me look.<|end|><|start|>assistant"
        + call("get_weather", '{"city":"Rome"}'),
    },
    {
        "id": "two-calls",
        "raw": call("get_weather", '{"city":"Paris"}') + "<|start|>assistant" + call("get_weather", '{"city":"Rome"}'),
    },
    {"id": "not-json", "raw": call("get_weather", "Paris, please")},
    {"id": "patch", "raw": call("apply_patch", '{"input":"*** Begin Patch"}')},
    {"id": "namespace", "raw": call("mcp__w__get", '{"city":"Paris"}')},
    {"id": "local-shell", "raw": call("local_shell", '{"command":["ls","-l"]}')},
    {"id": "shell", "raw": call("shell", '{"commands":["ls"],"timeout_ms":1000}')},
    {"id": "operation", "raw": call("apply_patch", '{"type":"update_file","path":"a.py","diff":"+x"}')},
    {"id": "bash", "raw": call("bash", '{"command":"ls"}')},
    {"id": "editor", "raw": call("str_replace_based_edit_tool", '{"command":"view","path":"/a"}')},
    {
        "id": "namespace-loop",
        "replies": [
            {
                "raw": "<|channel|>analysis<|message|>Need weather.<|end|><|start|>assistant"
                + call("mcp__w__get", '{"city":"Paris"}')
            },
            {"raw": answer("It is 21 C.")},
        ],
    },
    {
        "id": "search-loop",
        "replies": [
            {"raw": call("tool_search", '{"query":"weather"}')},
            {"raw": call("mcp__w__get", '{"city":"Paris"}')},
            {"raw": answer("It is 21 C.")},
        ],
    },
    {"id": "summary", "raw": answer("The weather of Paris was asked for: 21 C.", "What mattered?")},
    {"id": "program", "raw": call("exec", '{"input":"text(1)"}')},
    {
        "id": "bash-loop",
        "replies": [
            {
                "raw": "<|channel|>analysis<|message|>Run it.<|end|><|start|>assistant"
                + call("Bash", '{"command":"echo hi"}')
            },
            {"raw": answer("Said hi.")},
        ],
    },
    {
        "id": "place",
        "raw": answer('{"path":"/a","secret":"b","raw":"c","network":"10.0.0.0/8","tags":["d","e"]}'),
    },
    {"id": "numbers", "raw": answer("one two three four five six seven")},
]


# What agents and libraries sent, recorded by `python -m agents --record` and `python -m agents.libraries --record`.
# Each request has a script of its own.
AGENTS = [
    json.loads(line)
    for name in ("agent_requests.jsonl", "library_requests.jsonl")
    for line in (Path(__file__).parents[1] / "e2e" / "llamacpp" / name).read_text("utf-8").splitlines()
]
SCRIPTS += [
    {"id": f"agent-{i}-{j}", "raw": raw} for i, recorded in enumerate(AGENTS) for j, raw in enumerate(recorded["says"])
]


def write_scripts(path: Path) -> Path:
    lines = [*SCRIPTS, *({k: c[k] for k in ("id", "raw", "segments", "token_ids") if k in c} for c in CASES)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def scripted(folder: Path, *arguments: str) -> ServerProcess:
    """The scripted server on the tiny model, not yet started."""
    return ServerProcess(
        [
            "-m",
            "harmony_plugin.demo.server",
            "--script",
            str(write_scripts(folder / "scripts.jsonl")),
            *(
                arguments
                or ("--model", str(build_model()), "--model_alias", "tiny", "--n_ctx", "8192", *AT_ONCE, *ONE_THREAD)
            ),
        ]
    )


@contextmanager
def sound(server: ServerProcess) -> Iterator[ServerProcess]:
    """The server, started; fails if it died meanwhile, or said that something was raised."""
    with server as running:
        yield running
        assert running.process.poll() is None, "the server died:\n" + running.output()
        assert "Traceback" not in running.output(), running.output()


@dataclass
class Seen:
    """A reply in one shape, whatever API it came through. Call ids are each reply's own, so they are kept apart."""

    reasoning: str | None = None
    content: str | None = None
    calls: list[tuple[str, str]] = field(default_factory=list)
    finish: str | None = None
    ids: list[str] = field(default_factory=list, compare=False)

    @classmethod
    def of_reply(cls, reply: Reply, *, cut: bool) -> Seen:
        calls = [(call.name, call.arguments) for call in reply.tool_calls]
        return cls(reply.reasoning_content, reply.content, calls, reply.finish_reason(cut=cut))

    @classmethod
    def of_message(cls, choice: Any) -> Seen:
        message = choice.message
        calls = message.tool_calls or []
        assert message.reasoning == message.reasoning_content
        return cls(
            getattr(message, "reasoning_content", None),
            message.content,
            [(c.function.name, c.function.arguments) for c in calls],
            choice.finish_reason,
            [c.id for c in calls],
        )

    @classmethod
    def of_chunks(cls, chunks: Iterable[Any], index: int = 0) -> Seen:
        seen = cls()
        for chunk in chunks:
            for choice in chunk.choices:
                if choice.index == index:
                    seen.add(choice)
        return seen

    def add(self, choice: Any) -> None:
        delta = choice.delta
        assert getattr(delta, "reasoning", None) == getattr(delta, "reasoning_content", None)
        if getattr(delta, "reasoning_content", None) is not None:
            self.reasoning = (self.reasoning or "") + delta.reasoning_content
        if delta.content is not None:
            self.content = (self.content or "") + delta.content
        for call in delta.tool_calls or ():
            if call.id is not None:
                assert call.index == len(self.calls), "a call's first delta comes in order"
                assert call.type == "function"
                self.calls.append((call.function.name, ""))
                self.ids.append(call.id)
            name, arguments = self.calls[call.index]
            self.calls[call.index] = (name, arguments + (call.function.arguments or ""))
        if choice.finish_reason is not None:
            assert self.finish is None, "one finish reason"
            self.finish = choice.finish_reason


def generated(ids: list[int], *, past_calls: bool) -> tuple[list[int], bool]:
    """What the server generates of scripted `ids` when it may not write more than those; and whether it was cut."""
    for i, token in enumerate(ids):
        if token in END or (token == CALL and not past_calls):
            return ids[: i + 1], False
    return ids, True


def expected(case: Mapping[str, Any], *, past_calls: bool) -> Seen:
    """What `parse` gives for what the server generates of a case."""
    ids, cut = generated(ids_of(case), past_calls=past_calls)
    return Seen.of_reply(parse(ids, tools=case.get("tools") or []), cut=cut)


def chat_tools(tools: Iterable[Any] | None) -> list[dict[str, Any]]:
    """A case's tools (names or OpenAI tools) as a request has them."""
    plain = {"type": "object", "properties": {}}
    return [
        {"type": "function", "function": {"name": t, "parameters": plain}} if isinstance(t, str) else t
        for t in tools or ()
    ]


def events(http: httpx.Client, path: str, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The events of a stream of `/v1/responses` or `/v1/messages`, each sent under its type's name."""
    with http.stream("POST", path, json={**fields, "stream": True}) as stream:
        assert stream.status_code == 200, stream.read()
        lines = [line for line in stream.iter_lines() if line and not line.startswith(":")]
    names = [line.removeprefix("event: ") for line in lines[::2]]
    found = [json.loads(line.removeprefix("data: ")) for line in lines[1::2]]
    assert names == [event["type"] for event in found]
    return found


def chat_text(lines: Iterable[str]) -> str:
    """The answer that the lines of a chat stream add up to."""
    found = (line.removeprefix("data: ") for line in lines if line.startswith("data: {"))
    return Seen.of_chunks(map(ChatCompletionChunk.model_validate_json, found)).content or ""


def items_and_text(
    http: httpx.Client, path: str, body: dict[str, Any], script: str
) -> tuple[list[dict[str, Any]], str]:
    """A scripted reply's items, blocks or calls, and its text, on any API."""
    body = {**body, "metadata": {"user_id" if path == "/v1/messages" else "script": script}}
    if path == "/v1/chat/completions":
        if body.get("stream"):
            with http.stream("POST", path, json=body) as stream:
                lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: {")]
            chunks = [ChatCompletionChunk.model_validate_json(line) for line in lines]
            seen = Seen.of_chunks(chunks)
        else:
            seen = Seen.of_message(ChatCompletion.model_validate(_post(http, path, body)).choices[0])
        return [{"id": id} for id in seen.ids], seen.content or ""
    if path == "/v1/messages":
        if body.get("stream"):
            found = events(http, path, body)
            blocks = [e["content_block"] for e in found if e["type"] == "content_block_start"]
            return blocks, "".join(e["delta"].get("text", "") for e in found if e["type"] == "content_block_delta")
        blocks = _post(http, path, body)["content"]
        return blocks, "".join(block.get("text", "") for block in blocks)
    reply = events(http, path, body)[-1]["response"] if body.get("stream") else _post(http, path, body)
    assert reply["status"] == "completed"
    said = [item for item in reply["output"] if item["type"] == "message"]
    return reply["output"], "".join(part["text"] for item in said for part in item["content"])


def _post(http: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    reply = http.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


@contextmanager
def no_retries(client: Any) -> Any:
    yield client.with_options(max_retries=0)
