"""The page of all issue codes, docs/issues.md, made from the core's codes and from an example of each; a test holds it.

    python -m scripts.issues_page --write

The examples are in tests/cases/issues.jsonl: what the model wrote, or its ids, with the request's tools and the
settings. What each comes to is worked out here, by `parse`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from scripts import generated

from harmony_plugin import CODES, Code, Options, Reply, parse

ROOT = Path(__file__).resolve().parent.parent
PART = generated.Part(ROOT / "docs" / "issues.md", "scripts/issues_page.py")
EXAMPLES = ROOT / "tests" / "cases" / "issues.jsonl"
MARKER = re.compile(r"<\|\w+\|>")


def examples() -> dict[Code, dict[str, Any]]:
    """An example for each code."""
    lines = EXAMPLES.read_text("utf-8").splitlines()
    return {example["code"]: example for example in map(json.loads, lines)}


def parsed(example: dict[str, Any]) -> Reply:
    """What the example comes to."""
    output = example.get("token_ids") or example["raw"]
    return parse(output, tools=example.get("tools"), options=Options(**example.get("options", {})))


def _fields(reply: Reply) -> list[str]:
    """The reply's fields, a line each."""
    told: list[tuple[str, Any]] = [("reasoning_content", reply.reasoning_content), ("content", reply.content)]
    lines = [f"{name}: {json.dumps(text, ensure_ascii=False)}" for name, text in told if text is not None]
    for call in reply.tool_calls or ():
        lines.append(f"tool call: {call.name} {call.arguments}")
    return lines or ["(no field has anything)"]


def _section(code: Code, example: dict[str, Any]) -> list[str]:
    reply = parsed(example)
    given = [f"the request offers {' and '.join(example['tools']) or 'no tools'}"] if "tools" in example else []
    given += [f"the setting `{name}: {value}`" for name, value in example.get("options", {}).items()]
    where = f" ({', '.join(given)})" if given else ""
    shown = example.get("raw") or " ".join(map(str, example["token_ids"]))
    issues = []
    for issue in reply.issues:
        unit = "token" if issue.unit == "tokens" else "character"
        text = f" {json.dumps(issue.text, ensure_ascii=False)}" if issue.text else ""
        issues.append(f"issue: {issue.code} at {unit} {issue.offset}{text}")
    what, _, behind = CODES[code].partition("; text: ")
    return [
        f"### {code}",
        "",
        MARKER.sub(r"`\g<0>`", f"{what[0].upper()}{what[1:]}." + (f" The issue's text: {behind}." if behind else "")),
        "",
        f"The model writes{' token ids' if 'token_ids' in example else ''}{where}:",
        "",
        "```text",
        shown,
        "```",
        "",
        "What comes out:",
        "",
        "```text",
        *_fields(reply),
        *issues,
        "```",
        "",
        f"What to do: {example['do']}",
        *(["", f"Seen at: {example['source']}"] if "source" in example else []),
        "",
    ]


def told() -> str:
    """All codes as Markdown, in the core's order."""
    found = examples()
    return "\n".join([line for code in CODES for line in _section(code, found[code])])


if __name__ == "__main__":
    generated.main(__doc__, PART, told)
