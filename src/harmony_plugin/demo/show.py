"""`harmony-plugin demo`: the real server, a real client, and what arrives, field by field.

The model is tiny and random, so its sampling is scripted (`harmony_plugin.demo.script`); with a model of your own it
is not. This module talks to the server as any client would and knows nothing of Harmony.
"""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TextIO

from .model import build_model
from .process import ServerProcess, StartError
from .script import RECORDED, Scripts

__all__ = ["demo"]

RESET = "\x1b[0m"
STYLES = {
    "title": "\x1b[1m",
    "reasoning": "\x1b[2;3m",
    "content": "\x1b[32m",
    "tool call": "\x1b[36m",
    "bad": "\x1b[31m",
}


def _tool(name: str, description: str, argument: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


@dataclass(frozen=True)
class Scene:
    """One request, or one tool loop. `result`: what the tool gives when it is called; None: the call is the end."""

    title: str
    script: str
    question: str
    tools: Sequence[dict[str, Any]] = ()
    result: str | None = None


SCENES = (
    Scene("A reasoned answer", "answer", "What is 2 + 2?"),
    Scene(
        "A tool call, its result fed back",
        "tool",
        "What is the weather in Paris?",
        [_tool("get_weather", "Current weather of a city.", "city")],
        result='{"temperature": 21, "unit": "C"}',
    ),
    Scene(
        "A malformed reply, with what gpt-oss does get wrong (start marker left out, channel said twice)",
        "malformed",
        "Look at the sales dataset.",
        [_tool("query_dataset", "Rows of a dataset.", "name")],
    ),
)


@dataclass
class Seen:
    """A reply as the client saw it; call ids are left out, since each reply has its own."""

    reasoning: str = ""
    content: str = ""
    calls: list[dict[str, str]] = field(default_factory=list)
    finish: str | None = None


class Screen:
    """Writes fields in colour where the output can show it (a terminal, and no NO_COLOR), plainly elsewhere."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._colour = self._live and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._field: str | None = None

    def line(self, text: str = "", style: str | None = None) -> None:
        self.end()
        self._out.write(self._styled(text, style) + "\n")
        self._out.flush()

    def piece(self, name: str, text: str) -> None:
        """Text of a field, as it comes; a change of the field begins a new line."""
        if name != self._field:
            self.end()
            self._out.write(f"  {name + ':':<11}")
            self._field = name
        self._out.write(self._styled(text, name))
        self._out.flush()

    def end(self) -> None:
        if self._field is not None:
            self._field = None
            self._out.write("\n")

    def progress(self, step: str, share: float) -> None:
        if self._live:
            bar = "#" * round(20 * share)
            self._out.write(f"\r  {step:<20} [{bar:<20}]" + ("\n" if share >= 1 else ""))
        elif share >= 1:
            self._out.write(f"  {step}: done\n")
        self._out.flush()

    def _styled(self, text: str, style: str | None) -> str:
        return f"{STYLES[style]}{text}{RESET}" if self._colour and style in STYLES and text else text


def demo(
    model: str | None = None, max_tokens: int = 2048, out: TextIO | None = None, *, open_page: bool = False
) -> int:
    """Run the demo; gives the exit code: 0 if streamed and whole replies agreed everywhere.

    Args:
        model: a GGUF file of your own, run unscripted; None: the tiny model, scripted.
        max_tokens: most tokens of a reply of your model.
        open_page: keep the server up, and open its page in the browser, until Ctrl+C.
    """
    screen = Screen(out or sys.stdout)
    try:
        from openai import OpenAI, OpenAIError
    except ImportError:
        screen.line("the demo talks through OpenAI's client: pip install 'harmony-plugin[demo]'", "bad")
        return 1
    try:
        if model is None:
            screen.line("A tiny random model with the whole Harmony vocabulary (made once, about 36 MB)", "title")
            path = build_model(progress=screen.progress)
            screen.line(f"  {path}")
            screen.line("Engine, server, HTTP and client are real. The model is noise, so its SAMPLING IS SCRIPTED:")
            screen.line("each token is the next one of a recorded transcript (demo/recorded.jsonl names the sources).")
            arguments = ["-m", "harmony_plugin.demo.server", "--model", str(path), "--n_ctx", "4096"]
        else:
            screen.line(f"Your model, unscripted: {model}", "title")
            arguments = ["-m", "harmony_plugin.llamacpp", "--model", model]
        with ServerProcess([*arguments, "--model_alias", "demo"]) as server:
            screen.line(f"Server at {server.url}", "title")
            if not open_page:
                screen.line("  a browser gets a page to chat on there; --open keeps the server up and opens it")
            client = OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=3600)
            limit = None if model is None else max_tokens
            agreed = [_play(client, scene, screen, limit) for scene in SCENES]
            screen.line()
            if all(agreed):
                screen.line("Streamed and whole replies agree.", "title")
            else:
                screen.line("Streamed and whole replies differ.", "bad")
            if open_page:
                _stay(server, screen, scripted=model is None)
    except (StartError, OpenAIError, ImportError, OSError) as error:
        screen.line(str(error), "bad")
        return 1
    return 0 if all(agreed) else 1


def _stay(server: ServerProcess, screen: Screen, *, scripted: bool) -> None:
    """The page in the user's browser, until Ctrl+C."""
    screen.line()
    screen.line(f"The page: {server.url}/  (Ctrl+C ends it)", "title")
    if scripted:
        screen.line("  These have a recorded reply; to anything else the random model writes noise:")
        for scene in SCENES:
            screen.line(f"    {scene.question}")
    with suppress(KeyboardInterrupt):
        webbrowser.open(f"{server.url}/")
        server.process.wait()


def _play(client: Any, scene: Scene, screen: Screen, limit: int | None) -> bool:
    """One scene; whether its replies agreed. `limit` None: scripted."""
    scripts = Scripts.load(RECORDED) if limit is None else None
    screen.line()
    screen.line(scene.title, "title")
    messages: list[dict[str, Any]] = [{"role": "user", "content": scene.question}]
    screen.line(f"  user:      {scene.question}")
    agreed = True
    while True:
        request: dict[str, Any] = {"model": "demo", "messages": messages}
        if scene.tools:
            request["tools"] = list(scene.tools)
        if scripts is not None:
            request["metadata"] = {"script": scene.script}
            screen.line(f"  script:    {scripts.text(request)}")
        else:
            request |= {"temperature": 0, "seed": 1, "max_completion_tokens": limit}
        streamed = _stream(client, request, screen)
        screen.end()
        whole, message = _whole(client, request)
        screen.line(f"  whole:     {_summary(whole)}")
        same = streamed == whole
        screen.line(f"  {'streamed = whole' if same else 'streamed: ' + _summary(streamed)}", None if same else "bad")
        agreed = agreed and same
        if not message.tool_calls or scene.result is None or len(messages) > 6:
            return agreed
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            messages.append({"role": "tool", "tool_call_id": call.id, "content": scene.result})
        screen.line(f"  tool:      {scene.result}")


def _stream(client: Any, request: dict[str, Any], screen: Screen) -> Seen:
    seen = Seen()
    for chunk in client.chat.completions.create(**request, stream=True):
        choice = chunk.choices[0]
        reasoning = getattr(choice.delta, "reasoning_content", None)
        if reasoning:
            seen.reasoning += reasoning
            screen.piece("reasoning", reasoning)
        if choice.delta.content:
            seen.content += choice.delta.content
            screen.piece("content", choice.delta.content)
        for call in choice.delta.tool_calls or ():
            if call.id is not None:
                seen.calls.append({"name": call.function.name, "arguments": ""})
                screen.end()
                screen.piece("tool call", f"{call.function.name} ")
            seen.calls[call.index]["arguments"] += call.function.arguments or ""
            screen.piece("tool call", call.function.arguments or "")
        seen.finish = choice.finish_reason or seen.finish
    return seen


def _whole(client: Any, request: dict[str, Any]) -> tuple[Seen, Any]:
    choice = client.chat.completions.create(**request).choices[0]
    message = choice.message
    calls = [{"name": c.function.name, "arguments": c.function.arguments} for c in message.tool_calls or ()]
    reasoning = getattr(message, "reasoning_content", None) or ""
    return Seen(reasoning, message.content or "", calls, choice.finish_reason), message


def _summary(seen: Seen) -> str:
    parts = [f"reasoning {seen.reasoning!r}"] if seen.reasoning else []
    parts += [f"content {seen.content!r}"] if seen.content else []
    parts += [f"call {call['name']}({call['arguments']})" for call in seen.calls]
    return ", ".join([*parts, f"finish_reason {seen.finish}"])
