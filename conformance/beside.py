"""What clients get of the stock servers and of ours where the model says the same: the examples in the manual.

    python -m conformance.beside            # asks all four servers, keeps their answers, writes the pages
    python -m conformance.beside --pages    # the pages alone, of what was kept (beside.json)

A page names what it shows: `<!-- begin: conformance/beside.py llamacpp answer call -->`, up to the end's comment.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harmony_plugin.core import harmony_encoding

ROOT = Path(__file__).resolve().parent.parent
KEPT = Path(__file__).with_suffix(".json")
PAGES = ROOT / "docs"
BLOCK = re.compile(
    r"(<!-- begin: conformance/beside\.py (\w+) ([\w -]+) -->\n).*?(<!-- end: conformance/beside\.py -->)", re.DOTALL
)
#: The names of the servers that a page's word asks for: the stock one, and ours.
PAIRS = {"llamacpp": ("llama.cpp, stock", "llama.cpp, ours"), "vllm": ("vLLM, stock", "vLLM, plugin")}
TOLD = {
    "llama.cpp, stock": "`llama_cpp.server`",
    "llama.cpp, ours": "harmony-plugin",
    "vLLM, stock": "vLLM's own parsers",
    "vLLM, plugin": "harmony-plugin",
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
THOUGHT = "<|channel|>analysis<|message|>Let me think.<|end|>"
FINAL = "<|channel|>final<|message|>It is sunny.<|return|>"
CALL = "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"

JSON = '{"sky":"clear"}'
#: What the model says, by name; and what is said of it, which is a headline.
SAID = {
    "answer": ("An answer", f"{THOUGHT}<|start|>assistant{FINAL}"),
    "call": ("A tool call", f'{THOUGHT}<|start|>assistant{CALL}{{"city":"Paris"}}<|call|>'),
    "unicode": ("Arguments that are not ASCII", f'{CALL}{{"city":"München",  "days": 2.50}}<|call|>'),
    "missing-start": ("`<|start|>` is missing", f"{THOUGHT}{FINAL}"),
    "missing-end": ("`<|end|>` is missing", f"{THOUGHT.removesuffix('<|end|>')}{FINAL}"),
    "missing-message": (
        "`<|message|>` is missing",
        f"{THOUGHT}<|start|>assistant<|channel|>final{JSON}<|return|>",
    ),
    "cut-header": ("Cut off inside a header, by `max_tokens`", f"{THOUGHT}<|start|>assistant<|channel|>comm"),
    "no-markers": ("No marker at all", "It is sunny.<|return|>"),
    "misspelled": ("A misspelled channel", f"{THOUGHT}<|start|>assistant{FINAL.replace('final', 'finall')}"),
    "stop": (
        'With `stop: ["Observ"]`',
        f"{THOUGHT}<|start|>assistant{FINAL.replace('<|return|>', ' Observation: none<|return|>')}",
    ),
    "developer": ("A message with the role `developer`", f"{THOUGHT}<|start|>assistant{FINAL}"),
    "loop": ("A call and its result in the history", f"{THOUGHT}<|start|>assistant{FINAL}"),
    "schema": (
        "With `response_format: json_schema`",
        f"{THOUGHT}<|start|>assistant{FINAL.replace('It is sunny.', JSON)}",
    ),
}
SKY = {"type": "object", "properties": {"sky": {"type": "string"}}, "required": ["sky"], "additionalProperties": False}
#: And what is asked, where it is more than a question: what each begins with.
HELD_CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
ASKED: dict[str, dict[str, Any]] = {
    "developer": {"messages": [{"role": "developer", "content": "Answer briefly."}]},
    "loop": {
        "messages": [
            {"role": "user", "content": "And in Paris?"},
            {"role": "assistant", "content": None, "tool_calls": [HELD_CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "21 C"},
        ]
    },
    "schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "sky", "schema": SKY}}},
    "stop": {"stop": ["Observ"]},
}
WELL_FORMED = ("answer", "call", "unicode", *ASKED)


def question(name: str) -> str:
    """What is asked, by which a script is found."""
    return f"Example {name}: say it."


def body(name: str, model: str) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "model": model,
        "tools": [WEATHER],
        "max_tokens": 64,
        "temperature": 0,
        **ASKED.get(name, {}),
    }
    asked["messages"] = [*asked.get("messages", ()), {"role": "user", "content": question(name)}]
    if name == "cut-header":
        asked["max_tokens"] = len(harmony_encoding().encode(SAID[name][1], allowed_special="all"))
    if name not in WELL_FORMED:
        # The llama.cpp server of ours would not let the model say it; the others look past this.
        asked["chat_template_kwargs"] = {"harmony": {"headers": "free"}}
    return asked


def ask(url: str, name: str, model: str) -> dict[str, Any]:
    """A reply's fields, as a client sees them; or the error."""
    data = json.dumps(body(name, model)).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as reply:
            choice = json.load(reply)["choices"][0]
    except urllib.error.HTTPError as error:
        return {"error": f"HTTP {error.code}"}
    message = choice["message"]
    calls = [
        {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}
        for call in message.get("tool_calls") or []
    ]
    return {
        "reasoning": message.get("reasoning_content") or message.get("reasoning"),
        "content": message.get("content"),
        "tool_calls": calls,
        "finish_reason": choice["finish_reason"],
    }


def run() -> dict[str, Any]:
    """Every example of every server."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "rigs")]
    from .endpoints import SERVERS

    found: dict[str, Any] = {
        "versions": {
            "llamacpp": f"llama-cpp-python {version('llama_cpp_python')}",
            "vllm": f"vLLM {version('vllm').partition('+')[0]}",
        },
        "servers": {},
    }
    for server, start in SERVERS.items():
        print(f"== {server}", flush=True)
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            script = folder / "examples.jsonl"
            lines = [{"id": name, "when": question(name), "raw": raw} for name, (_, raw) in SAID.items()]
            script.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
            with start(folder, script) as url:
                with urllib.request.urlopen(f"{url}/v1/models", timeout=60) as reply:
                    model = json.load(reply)["data"][0]["id"]
                found["servers"][server] = {name: ask(url, name, model) for name in SAID}
    return found


def code(text: str) -> str:
    """As code in a table's cell."""
    shown = text.replace("|", "\\|").replace("\n", "\\n")
    return f"`{shown}`" if "`" not in shown else f"`` {shown} ``"


def cells(reply: dict[str, Any]) -> list[str]:
    """Status, reasoning, content and tool calls, as cells of a table."""
    if "error" in reply:
        return [f"**{reply['error']}**", "–", "–", "–"]
    calls = [f"{code(call['name'])} {code(call['arguments'])}" for call in reply["tool_calls"]]
    fields = [code(reply[name]) if reply[name] else "–" for name in ("reasoning", "content")]
    return ["HTTP 200", *fields, ", ".join(calls) or "–"]


def shown(answers: dict[str, Any], pair: str, names: list[str]) -> Iterator[str]:
    stock, ours = PAIRS[pair]
    for name in names:
        title, raw = SAID[name]
        yield f"**{title}.** The model writes\n\n```text\n{raw}\n```\n\n"
        yield f"| | {TOLD[stock]} | {TOLD[ours]} |\n| --- | --- | --- |\n"
        fields = zip(
            ("", "reasoning", "content", "tool calls"),
            *(cells(answers["servers"][each][name]) for each in (stock, ours)),
            strict=True,
        )
        for row in fields:
            yield f"| {' | '.join(row)} |\n".replace("|  |", "| |")
        yield "\n"
    yield f"*As answered by {answers['versions'][pair]}.*\n"


def kept() -> dict[str, Any]:
    """What the servers answered when they were asked last."""
    return dict(json.loads(KEPT.read_text("utf-8")))


def placed(page: str, answers: dict[str, Any]) -> str:
    """A page with its examples as they were answered."""
    return BLOCK.sub(lambda found: found[1] + "".join(shown(answers, found[2], found[3].split())) + found[4], page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", action="store_true", help="write the pages alone, of what was kept")
    if not parser.parse_args().pages:
        KEPT.write_text(json.dumps(run(), ensure_ascii=False, indent=1) + "\n", "utf-8")
    for page in PAGES.rglob("*.md"):
        text = page.read_text("utf-8")
        if (new := placed(text, kept())) != text:
            page.write_text(new, "utf-8")


if __name__ == "__main__":
    main()
