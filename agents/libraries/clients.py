"""The libraries: what of each is installed, the program that drives it, and what that is asked to do.

Knows the registries' names and the programs' runs; knows no server.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LIBRARIES", "Known", "Library"]


@dataclass(frozen=True)
class Known:
    """What is known to be missing, with whose doing it is.

    Attributes:
        checks: those that show it.
        api: on which of the library's; empty: all.
        server: with which; empty: both.
    """

    why: str
    checks: tuple[str, ...]
    api: str = ""
    server: str = ""

    def covers(self, check: str, api: str, server: str) -> bool:
        return check in self.checks and self.api in ("", api) and self.server in ("", server)


@dataclass(frozen=True)
class Library:
    """One library, in an environment of its own: together they hold each other's releases back.

    Attributes:
        key: its name on the command line.
        requirements: of pip, or of npm; the first one's version is shown.
        program: in `programs`.
        apis: what it is asked to speak.
        tool: the tool by which it asks for a value of a schema; empty: it has no such way.
        known: what does not go, and is not this project's to change.
    """

    key: str
    requirements: tuple[str, ...]
    program: str
    apis: tuple[str, ...] = ("chat", "Responses")
    tool: str = ""
    known: tuple[Known, ...] = ()

    @property
    def npm(self) -> bool:
        return self.program.endswith(".mjs")


SHOWN, BACK = ("reasoning shown",), ("reasoning back",)

# The bounds are the releases that the programs were written against.
LIBRARIES = (
    Library("openai-agents", ("openai-agents>=0.24",), "with_openai_agents.py"),
    Library("pydantic-ai", ("pydantic-ai-slim[openai]>=2.68",), "with_pydantic_ai.py", tool="final_result"),
    Library(
        "langchain-openai",
        ("langchain-openai>=1.7",),
        "with_langchain.py",
        tool="Sum",
        known=(
            Known("the library reads no reasoning of chat, so it has none to send", BACK, "chat"),
            Known("the library reads summaries of a stream, not `reasoning_text`", SHOWN, "Responses"),
            Known(
                "the library sends what it has of a streamed reply: the sealed text, and vLLM seals none",
                BACK,
                "Responses",
                "vllm",
            ),
        ),
    ),
    Library("litellm", ("litellm>=1.110",), "with_litellm.py"),
    Library("instructor", ("instructor>=1.17",), "with_instructor.py", tool="Sum"),
    Library(
        "ai-sdk",
        ("ai@>=6", "@ai-sdk/openai@>=3", "@ai-sdk/openai-compatible@>=2", "zod@>=4"),
        "with_ai_sdk.mjs",
        apis=("chat", "chat, openai", "Responses", "Responses, store: false"),
        known=(
            Known("the provider reads no reasoning of chat, so it has none to send", BACK, "chat, openai"),
            Known("the provider reads summaries, not `reasoning_text`", SHOWN, "Responses"),
            Known("the provider reads summaries, not `reasoning_text`", SHOWN, "Responses, store: false"),
            Known("vLLM takes no `item_reference`: set `store: false`", ("loop", "streamed"), "Responses", "vllm"),
            Known(
                "the provider sends sealed reasoning alone, and vLLM seals none",
                BACK,
                "Responses, store: false",
                "vllm",
            ),
        ),
    ),
)
