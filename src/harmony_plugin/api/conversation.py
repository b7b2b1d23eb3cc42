"""Chat messages, put together from the items or blocks in which other APIs write a turn down.

Each Harmony message that the model wrote becomes one again when the prompt is made, in its place: prompts that went on
from the reply itself share their whole prefix with those that a client sends anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ..core import RequestError

__all__ = ["Conversation", "string_of"]

Json: TypeAlias = "dict[str, Any]"

# In the order in which a prompt shows what one assistant message holds.
ORDER = ("reasoning_content", "content", "tool_calls")


class Conversation:
    """Messages in the order in which they were said.

    What the assistant said joins its last message, if it is still its turn and nothing of that kind or behind it is
    there; calls join those before them.

    Attributes:
        messages: as ``/v1/chat/completions`` has them.
    """

    def __init__(self) -> None:
        self.messages: list[Json] = []

    def say(self, role: str, text: str) -> None:
        """A system, developer or user message."""
        self.messages.append({"role": role, "content": text})

    def result(self, call: str, text: str) -> None:
        """A tool's result. ``call``: the call's id."""
        self.messages.append({"role": "tool", "tool_call_id": call, "content": text})

    def reasoning(self, text: str) -> None:
        """A message of the assistant's reasoning."""
        last = self.messages[-1] if self.messages else {}
        if last.get("role") == "assistant" and last.get("content") and not last.get("tool_calls"):
            last.setdefault("phase", "commentary")  # it went on thinking: that was no answer
        self._assistant("reasoning_content")["reasoning_content"] = text

    def content(self, text: str, phase: str | None = None) -> None:
        """What the assistant told the user. ``phase``: OpenAI's, `commentary` for words in front of the answer."""
        message = self._assistant("content")
        message["content"] = text
        if phase is not None:
            message["phase"] = phase

    def call(self, call: Json) -> None:
        """A tool call, as a chat message has it."""
        self._assistant("tool_calls").setdefault("tool_calls", []).append(call)

    def _assistant(self, name: str) -> Json:
        taken = ORDER[ORDER.index(name) :] if name != "tool_calls" else ()
        last = self.messages[-1] if self.messages else {}
        if last.get("role") == "assistant" and not any(last.get(field) for field in taken):
            return last
        self.messages.append({"role": "assistant", "content": None})
        return self.messages[-1]


def string_of(item: Mapping[str, Any], name: str, where: str, *, filled: bool = False) -> str:
    """A string that an item, a block or a tool must hold.

    Args:
        where: the path of what holds it.
        filled: whether it may not be empty.

    Raises:
        RequestError: it is missing, or no such string.
    """
    value = item.get(name)
    if not isinstance(value, str) or (filled and not value):
        code = "invalid_type" if name in item else "missing_required_parameter"
        raise RequestError(f"{where}.{name} is not a string.", f"{where}.{name}", code)
    return value
