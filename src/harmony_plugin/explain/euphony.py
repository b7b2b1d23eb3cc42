"""A conversation as OpenAI's viewer of Harmony opens it (github.com/openai/euphony): the Harmony library's JSON of a
conversation, with what was repaired as metadata. Knows explanations alone."""

from __future__ import annotations

from typing import Any

from ..core import Explanation, meaning

__all__ = ["conversation"]


def conversation(explanation: Explanation) -> dict[str, Any]:
    """The messages as the model wrote them, and the issues of each as its metadata."""
    messages = []
    for number, shown in enumerate(explanation.messages):
        message = shown.message
        told: dict[str, Any] = {"role": message.role, "content": [{"type": "text", "text": message.text}]}
        for name in ("channel", "recipient", "content_type"):
            if getattr(message, name) is not None:
                told[name] = getattr(message, name)
        told["metadata"] = {"goes_to": shown.field, "complete": message.complete, "number": number + 1}
        messages.append(told)
    issues = [{**issue._asdict(), "meaning": meaning(issue.code)} for issue in explanation.issues]
    return {"messages": messages, "metadata": {"made_by": "harmony-plugin explain", "issues": issues}}
