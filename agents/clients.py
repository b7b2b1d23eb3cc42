"""The agents: how each is installed, configured and run, with everything but this machine out of reach.

Knows their command lines; knows no server but its address and model.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

__all__ = ["AGENTS", "Agent", "Missing", "binary"]

FOLDER = Path(platformdirs.user_cache_dir("harmony-plugin", appauthor=False)) / "npm-agents"
#: Nobody listens there.
NOWHERE = "http://127.0.0.1:9"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}


class Missing(Exception):
    """An agent cannot be had here; the message says why."""


@dataclass(frozen=True)
class Agent:
    """One agent.

    Attributes:
        package: on the npm registry.
        api: the one that it speaks.
        tool: its tool that runs a command, and the arguments that make it say `agent-said-hi`.
        schema: whether it takes a schema for its answer.
    """

    name: str
    package: str
    program: str
    api: str
    tool: tuple[str, str]
    schema: bool

    def command(self, folder: Path, prompt: str, schema: bool = False) -> list[str]:
        """Its command line for one question, without a terminal."""
        if self.program == "codex":
            flags = ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
            return [*flags, *(["--output-schema", str(folder / "schema.json")] if schema else ()), prompt]
        if self.program == "claude":
            return ["-p", prompt, "--allowedTools", "Bash", *(["--json-schema", json.dumps(SCHEMA)] if schema else ())]
        return ["run", prompt]

    def prepare(self, folder: Path, url: str, model: str) -> dict[str, str]:
        """Write its configuration; gives its environment."""
        (folder / "home").mkdir(exist_ok=True)
        (folder / "work").mkdir(exist_ok=True)
        (folder / "schema.json").write_text(json.dumps(SCHEMA))
        environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ},
            "HOME": str(folder / "home"),
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), NOWHERE),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
        }
        if self.program == "codex":
            (folder / "codex").mkdir(exist_ok=True)
            (folder / "codex" / "config.toml").write_text(
                f'model = "{model}"\nmodel_provider = "local"\n\n[model_providers.local]\nname = "local"\n'
                f'base_url = "{url}/v1"\nwire_api = "responses"\n\n[analytics]\nenabled = false\n'
            )
            return environment | {"CODEX_HOME": str(folder / "codex")}
        if self.program == "claude":
            own = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_AUTH_TOKEN": "none", "ANTHROPIC_MODEL": model}
            off = ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_TELEMETRY", "DISABLE_AUTOUPDATER")
            return environment | own | {"ANTHROPIC_SMALL_FAST_MODEL": model} | dict.fromkeys(off, "1")
        provider = {
            "npm": "@ai-sdk/openai-compatible",
            "name": "local",
            "options": {"baseURL": f"{url}/v1"},
            "models": {model: {"name": model, "limit": {"context": 32768, "output": 4096}}},
        }
        config = {
            "provider": {"local": provider},
            "model": f"local/{model}",
            "small_model": f"local/{model}",
            "autoupdate": False,
            "share": "disabled",
            "permission": {"bash": "allow"},
        }
        (folder / "work" / "opencode.json").write_text(json.dumps(config))
        return environment | dict.fromkeys(("OPENCODE_DISABLE_AUTOUPDATE", "OPENCODE_DISABLE_MODELS_FETCH"), "1")


AGENTS = (
    Agent("Codex", "@openai/codex", "codex", "Responses", ("exec_command", '{"cmd":"echo agent-said-hi"}'), True),
    Agent(
        "Claude Code",
        "@anthropic-ai/claude-code",
        "claude",
        "Messages",
        ("Bash", '{"command":"echo agent-said-hi","description":"say hi"}'),
        True,
    ),
    Agent(
        "OpenCode",
        "opencode-ai",
        "opencode",
        "chat",
        ("bash", '{"command":"echo agent-said-hi","description":"say hi"}'),
        False,
    ),
)


def binary(agent: Agent) -> Path:
    """Its program, installed into the user's cache at the first call.

    Raises:
        Missing: there is no npm, or it cannot install it.
    """
    found = FOLDER / "node_modules" / ".bin" / agent.program
    if not found.exists():
        if shutil.which("npm") is None:
            raise Missing("there is no npm to install it with")
        FOLDER.mkdir(parents=True, exist_ok=True)
        _npm("install", "--no-audit", "--no-fund", "--prefix", str(FOLDER), agent.package)
        if not found.exists():
            raise Missing(f"npm installed {agent.package}, and there is no {agent.program} in it")
    return found


def _npm(*arguments: str) -> None:
    done: subprocess.CompletedProcess[str] = _run(["npm", *arguments], 900)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise Missing(f"npm cannot install it: {said}")


def _run(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
