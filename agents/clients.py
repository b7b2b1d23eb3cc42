"""The agents: how each is set up for a server on this machine, started, and what the model is to call there.

Knows each agent's command line, settings and tools' names, as its documentation has them; knows nothing of servers.
"""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from .servers import CONTEXT, MODEL

__all__ = ["AGENTS", "Agent", "Place"]

Call: TypeAlias = "tuple[str, dict[str, Any]]"

CALCULATOR = Path(__file__).with_name("calculator.py")


@dataclass(frozen=True)
class Place:
    """Where an agent runs: a home folder of its own, a folder to work in, and the address that it is given."""

    home: Path
    work: Path
    url: str

    @property
    def note(self) -> str:
        return str(self.work / "note.txt")

    @property
    def picture(self) -> str:
        return str(self.work / "picture.png")


class Agent(ABC):
    """One agent.

    Attributes:
        key: its name on the command line.
        name: as its makers write it, and how it is set up where that differs.
        package: npm's.
        program: of that package.
        api: what it speaks.
        structured: whether its command line can be asked for an answer of a schema.
    """

    key: ClassVar[str]
    name: ClassVar[str]
    package: ClassVar[str]
    program: ClassVar[str]
    api: ClassVar[str]
    structured: ClassVar[bool] = True

    @abstractmethod
    def prepare(self, place: Place) -> Mapping[str, str]:
        """Write its settings; the environment that it needs."""

    @abstractmethod
    def command(self, place: Place, prompt: str, schema: Path | None = None) -> list[str]:
        """Its arguments for one prompt, all tools allowed."""

    @abstractmethod
    def steps(self, place: Place, helper: str) -> dict[str, list[Call]]:
        """The calls of a whole loop, a reply each, under the names of what `run` looks for: a `shell` reads the note, a
        `picture` is read, the `MCP` server adds 1234 and 4321, an `edit` makes `old` to `new` in the note, another
        `agent` is started with the prompt `helper`, and `two calls` come in one reply."""

    def answer(self, value: Mapping[str, Any]) -> list[Call]:
        """The calls by which an answer of a schema is given; none: it is the text."""
        return []

    @abstractmethod
    def given(self, output: str) -> Any:
        """The answer of a schema in what the program printed; None: there is none."""


class Codex(Agent):
    """With a model that it does not know: MCP servers and sub-agents are namespaces."""

    key, name, package, program, api = "codex", "Codex", "@openai/codex", "codex", "Responses"
    model = MODEL

    def __init__(self, provider: str = "local", *, websockets: bool = False, compact_at: int | None = None) -> None:
        """`provider`: what it is told of the server; of OpenAI's it asks more. `compact_at`: a number of tokens."""
        self._provider = provider
        self._websockets = websockets
        self._compact_at = compact_at

    def prepare(self, place: Place) -> Mapping[str, str]:
        compact = "" if self._compact_at is None else f"model_auto_compact_token_limit = {self._compact_at}\n"
        settings = f"""\
model = "{self.model}"
model_provider = "local"
model_context_window = {CONTEXT}
{compact}check_for_update_on_startup = false

[model_providers.local]
name = "{self._provider}"
base_url = "{place.url}/v1"
wire_api = "responses"
supports_websockets = {str(self._websockets).lower()}

[analytics]
enabled = false

[feedback]
enabled = false

[features]
apps = false
plugins = false

[mcp_servers.calculator]
command = {json.dumps(sys.executable)}
args = [{json.dumps(str(CALCULATOR))}]
required = true
"""
        (place.home / ".codex").mkdir()
        (place.home / ".codex" / "config.toml").write_text(settings, "utf-8")
        return {}

    def command(self, place: Place, prompt: str, schema: Path | None = None) -> list[str]:
        flags = ["exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
        return [*flags, *(("--output-schema", str(schema)) if schema else ()), prompt]

    def steps(self, place: Place, helper: str) -> dict[str, list[Call]]:
        patch = "apply_patch <<'EOF'\n*** Begin Patch\n*** Update File: note.txt\n@@\n-old\n+new\n*** End Patch\nEOF"
        return {
            "shell": [("exec_command", {"cmd": "cat note.txt"})],
            "picture": [("view_image", {"path": place.picture})],
            "MCP": [("mcp__calculator__add", {"a": 1234, "b": 4321})],
            "edit": [("exec_command", {"cmd": patch})],
            "agent": [("multi_agent_v1__spawn_agent", {"message": helper})],
            "two calls": [("exec_command", {"cmd": f"echo {word}"}) for word in ("quince", "quokka")],
        }

    def given(self, output: str) -> Any:
        items = [json.loads(line).get("item", {}) for line in output.splitlines() if line.startswith("{")]
        texts = [item["text"] for item in items if item.get("type") == "agent_message"]
        return _value(texts[-1]) if texts else None


class CodexSearching(Codex):
    """With a model's name that it knows: freeform patches, and MCP tools that are searched for."""

    key, name, model = "codex-search", 'Codex, `model = "gpt-5.5"`', "gpt-5.5"

    def steps(self, place: Place, helper: str) -> dict[str, list[Call]]:
        patch = "*** Begin Patch\n*** Update File: note.txt\n@@\n-old\n+new\n*** End Patch"
        steps = super().steps(place, helper)
        return {
            "search": [("tool_search", {"query": "calculator add"})],
            **{step: steps[step] for step in ("shell", "picture", "MCP")},
            "edit": [("apply_patch", {"input": patch})],
            "two calls": steps["two calls"],
        }


class CodexCoding(Codex):
    """With the name of a model that calls tools by programs: an item of the conversation brings all tools."""

    key, name, model = "codex-code", 'Codex, `model = "gpt-6.2-sol"`', "gpt-6.2-sol"

    def steps(self, place: Place, helper: str) -> dict[str, list[Call]]:
        adding = "text(JSON.stringify(await tools.mcp__calculator__add({a: 1234, b: 4321})));"
        return {
            "shell": [("exec", {"input": 'text((await tools.exec_command({cmd: "cat note.txt"})).output);'})],
            "MCP": [("exec", {"input": adding})],
        }


class ClaudeCode(Agent):
    key, name, package, program, api = "claude", "Claude Code", "@anthropic-ai/claude-code", "claude", "Messages"

    def prepare(self, place: Place) -> Mapping[str, str]:
        server = {"command": sys.executable, "args": [str(CALCULATOR)]}
        (place.home / "mcp.json").write_text(json.dumps({"mcpServers": {"calculator": server}}), "utf-8")
        models = ("ANTHROPIC_MODEL", "ANTHROPIC_DEFAULT_HAIKU_MODEL", "ANTHROPIC_DEFAULT_SONNET_MODEL")
        return {
            "ANTHROPIC_BASE_URL": place.url,
            "ANTHROPIC_AUTH_TOKEN": "none",
            **dict.fromkeys((*models, "ANTHROPIC_DEFAULT_OPUS_MODEL"), MODEL),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "IS_SANDBOX": "1",
        }

    def command(self, place: Place, prompt: str, schema: Path | None = None) -> list[str]:
        flags = ["-p", "--output-format", "json", "--permission-mode", "bypassPermissions"]
        flags += ["--mcp-config", str(place.home / "mcp.json"), "--strict-mcp-config"]
        return [*flags, *(("--json-schema", schema.read_text("utf-8")) if schema else ()), "--", prompt]

    def steps(self, place: Place, helper: str) -> dict[str, list[Call]]:
        agent = {"description": "A helper", "prompt": helper, "subagent_type": "general-purpose"}
        return {
            "shell": [("Bash", {"command": "cat note.txt", "description": "Reads the note"})],
            "picture": [("Read", {"file_path": place.picture})],
            "MCP": [("mcp__calculator__add", {"a": 1234, "b": 4321})],
            "look": [("Read", {"file_path": place.note})],
            "edit": [("Edit", {"file_path": place.note, "old_string": "old", "new_string": "new"})],
            "agent": [("Agent", agent)],
            "two calls": [
                ("Bash", {"command": f"echo {word}", "description": "Says a word"}) for word in ("quince", "quokka")
            ],
        }

    def answer(self, value: Mapping[str, Any]) -> list[Call]:
        return [("StructuredOutput", dict(value))]

    def given(self, output: str) -> Any:
        found = _value(output)
        last = found[-1] if isinstance(found, list) else found
        return last.get("structured_output") if isinstance(last, dict) else output


class OpenCode(Agent):
    key, name, package, program, api = "opencode", "OpenCode", "opencode-ai", "opencode", "chat"
    structured = False

    def prepare(self, place: Place) -> Mapping[str, str]:
        model = {
            "name": MODEL,
            "reasoning": True,
            "tool_call": True,
            "interleaved": {"field": "reasoning_content"},
            "limit": {"context": CONTEXT, "output": 8_192},
        }
        provider = {
            "npm": "@ai-sdk/openai-compatible",
            "name": "local",
            "options": {"baseURL": f"{place.url}/v1", "apiKey": "none"},
            "models": {MODEL: model},
        }
        settings = {
            "$schema": "https://opencode.ai/config.json",
            "autoupdate": False,
            "share": "disabled",
            "model": f"local/{MODEL}",
            "small_model": f"local/{MODEL}",
            "permission": "allow",
            "provider": {"local": provider},
            "mcp": {"calculator": {"type": "local", "command": [sys.executable, str(CALCULATOR)]}},
        }
        (place.home / "opencode.json").write_text(json.dumps(settings), "utf-8")
        names = ("AUTOUPDATE", "MODELS_FETCH", "DEFAULT_PLUGINS", "LSP_DOWNLOAD")
        return {
            "OPENCODE_CONFIG": str(place.home / "opencode.json"),
            **{f"OPENCODE_DISABLE_{name}": "1" for name in names},
        }

    def command(self, place: Place, prompt: str, schema: Path | None = None) -> list[str]:
        return ["run", "--format", "json", prompt]

    def steps(self, place: Place, helper: str) -> dict[str, list[Call]]:
        edit = {"filePath": place.note, "oldString": "old", "newString": "new"}
        return {
            "shell": [("bash", {"command": "cat note.txt", "description": "Reads the note"})],
            "picture": [("read", {"filePath": place.picture})],
            "MCP": [("calculator_add", {"a": 1234, "b": 4321})],
            "look": [("read", {"filePath": place.note})],
            "edit": [("edit", edit)],
            "agent": [("task", {"description": "A helper", "prompt": helper, "subagent_type": "general"})],
            "two calls": [
                ("bash", {"command": f"echo {word}", "description": "Says a word"}) for word in ("quince", "quokka")
            ],
        }

    def given(self, output: str) -> Any:
        return None


def _value(text: str) -> Any:
    """The JSON value that a text is; the text itself, if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


AGENTS: tuple[Agent, ...] = (Codex(), CodexSearching(), CodexCoding(), ClaudeCode(), OpenCode())
