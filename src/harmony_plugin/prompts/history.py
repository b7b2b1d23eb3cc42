"""OpenAI messages, read in order, as lines: one for each Harmony message.

Knows OpenAI's fields and where gpt-oss was trained to find what they say; nothing of tokens or of the Harmony library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core import BUILTIN_NAMESPACES, RequestError
from .parts import content_text, encodable, reasoning_apart
from .tools import custom_arguments, tool_name

__all__ = ["History", "Line"]

INSTRUCT = ("system", "developer")


@dataclass(frozen=True)
class Line:
    """One Harmony message as plain values, so that it can be the key of a cache.

    Of the system message, ``text`` is the effort, ``tools`` are (has function tools, date, built-in tools…); of the
    developer message, ``tools`` are the descriptions, ``shape`` is the section on the shape of the answer.
    """

    role: str
    name: str | None = None
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    text: str = ""
    tools: tuple[str, ...] = ()
    shape: str = ""


class History:
    """The lines of a conversation.

    Pictures and files, which gpt-oss cannot read, are refused in the newest user message, where somebody asks about
    them; in what came before and in tools' results a placeholder tells the model that they were there.

    Attributes:
        instructions: the text of the system and developer messages that open the conversation; None without any.
        lines: everything after them.
    """

    def __init__(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None) -> None:
        if not isinstance(messages, Sequence) or isinstance(messages, str | bytes) or not messages:
            raise RequestError("messages is a list with at least one message", "messages", "invalid_type")
        self._declared = {tool_name(tool, f"tools[{i}]") for i, tool in enumerate(tools or ())}
        self._recipients: dict[str, str] = {}
        self.lines: list[Line] = []
        begin = next((i for i, message in enumerate(messages) if _role(message) not in INSTRUCT), len(messages))
        opening = [content_text(m.get("content"), f"messages[{i}].content") for i, m in enumerate(messages[:begin])]
        self.instructions = "\n\n".join(text for text in opening if text) if opening else None
        newest = max((i for i, message in enumerate(messages) if _role(message) == "user"), default=-1)
        for i, message in enumerate(messages[begin:], begin):
            self._add(message, f"messages[{i}]", media=i != newest)
        self._drop_old_reasoning()

    def _add(self, message: Mapping[str, Any], where: str, *, media: bool) -> None:
        if not isinstance(message, Mapping):
            raise RequestError(f"{where} is not an object", where, "invalid_type")
        role = message.get("role")
        if role in INSTRUCT:
            self.lines.append(Line("developer", text=content_text(message.get("content"), f"{where}.content")))
        elif role == "user":
            self.lines.append(Line("user", text=content_text(message.get("content"), f"{where}.content", media=media)))
        elif role == "assistant":
            self._assistant(message, where)
        elif role in ("tool", "function"):
            self._result(message, where)
        else:
            raise RequestError(
                f"{where}.role is {role!r}, not one of system, developer, user, assistant, tool",
                f"{where}.role",
                "invalid_value",
            )

    def _assistant(self, message: Mapping[str, Any], where: str) -> None:
        reasoning, content = reasoning_apart(message)
        if reasoning:
            self.lines.append(Line("assistant", channel="analysis", text=encodable(reasoning)))
        calls = message.get("tool_calls") or []
        if not isinstance(calls, Sequence) or isinstance(calls, str | bytes):
            raise RequestError(f"{where}.tool_calls is not a list", f"{where}.tool_calls", "invalid_type")
        legacy = message.get("function_call")
        text = content_text(content, f"{where}.content", optional=True, media=True)
        if not text and isinstance(message.get("refusal"), str):
            text = encodable(message["refusal"])
        if text:
            # Words beside calls, or that OpenAI's field tells from an answer, are what came in front: a preamble.
            preamble = calls or legacy or message.get("phase") == "commentary"
            self.lines.append(Line("assistant", channel="commentary" if preamble else "final", text=text))
        for j, call in enumerate(calls):
            self._tool_call(call, f"{where}.tool_calls[{j}]")
        if legacy is not None:
            if not isinstance(legacy, Mapping):
                raise RequestError(f"{where}.function_call is not an object", f"{where}.function_call", "invalid_type")
            self._call(legacy, f"{where}.function_call")

    def _tool_call(self, call: Any, where: str) -> None:
        if not isinstance(call, Mapping):
            raise RequestError(f"{where} is not an object", where, "invalid_type")
        kind = "custom" if call.get("type") == "custom" else "function"
        function = call.get(kind)
        if not isinstance(function, Mapping):
            raise RequestError(f"{where}.{kind} is missing", f"{where}.{kind}", "missing_required_parameter")
        if kind == "custom":
            if not isinstance(function.get("input"), str):
                raise RequestError(f"{where}.custom.input is not a string", f"{where}.custom.input", "invalid_type")
            function = {"name": function.get("name"), "arguments": custom_arguments(function["input"])}
        recipient = self._call(function, f"{where}.{kind}")
        if isinstance(call.get("id"), str):
            self._recipients[call["id"]] = recipient

    def _call(self, function: Mapping[str, Any], where: str) -> str:
        """Adds a call; gives its recipient."""
        arguments = function.get("arguments")
        recipient = self._recipient(function.get("name"), where)
        if isinstance(arguments, Mapping):
            arguments = json.dumps(arguments, ensure_ascii=False)
        if arguments is None:
            arguments = "{}"
        if not isinstance(arguments, str):
            raise RequestError(f"{where}.arguments is not a string", f"{where}.arguments", "invalid_type")
        builtin = not recipient.startswith("functions.")
        self.lines.append(
            Line(
                "assistant",
                # gpt-oss calls its own tools while it thinks, and functions where the user may see them.
                channel="analysis" if builtin else "commentary",
                recipient=recipient,
                content_type="code" if builtin else "json",
                text=encodable(arguments),
            )
        )
        return recipient

    def _recipient(self, name: Any, where: str) -> str:
        """The recipient that a tool's name stands for."""
        if not isinstance(name, str) or not name:
            raise RequestError(f"{where}.name is missing", f"{where}.name", "missing_required_parameter")
        tool = encodable(name)
        named = tool.startswith("functions.") or tool.partition(".")[0] in BUILTIN_NAMESPACES
        return tool if named and tool not in self._declared else f"functions.{tool}"

    def _result(self, message: Mapping[str, Any], where: str) -> None:
        if message["role"] == "function":
            author = self._recipient(message.get("name"), where)
        else:
            call, at = message.get("tool_call_id"), f"{where}.tool_call_id"
            if not isinstance(call, str):
                raise RequestError(f"{at} is missing", at, "missing_required_parameter")
            if call not in self._recipients:
                raise RequestError(
                    f"{at} {call!r} is not the id of a tool call in an assistant message before it", at, "invalid_value"
                )
            author = self._recipients[call]
        text = content_text(message.get("content"), f"{where}.content", optional=True, media=True, between="\n")
        self.lines.append(Line("tool", name=author, channel="commentary", recipient="assistant", text=text))

    def _drop_old_reasoning(self) -> None:
        """OpenAI's rule: reasoning that led to a final answer is not shown again; that of a running tool loop is."""
        last = max((i for i, line in enumerate(self.lines) if line.channel == "final"), default=-1)
        self.lines = [
            line
            for i, line in enumerate(self.lines)
            if i > last or line.channel != "analysis" or line.recipient is not None
        ]


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None
