"""What debugging shows of a reply that has ended: a field for its client, and a line for the log. Knows no server."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from ..core import Stream

__all__ = ["header", "log_reply", "told"]

log = logging.getLogger("harmony_plugin.replies")


def told(stream: Stream) -> dict[str, Any]:
    """The ``harmony`` field of a reply: its issues, and how many messages came on which channel."""
    issues = [issue._asdict() for issue in stream.issues]
    channels = {channel or "none": count for channel, count in stream.message_counts.items()}
    return {"issues": issues, "channels": channels}


def header(codes: list[str]) -> str:
    """The value of ``X-Harmony-Issues``: the codes, each once."""
    return ", ".join(sorted(set(codes))) or "none"


def log_reply(stream: Stream, seconds: float, *, content: bool, **more: Any) -> None:
    """One line of JSON at level debug.

    Args:
        stream: finished, of ``Options(keep=True)``.
        seconds: that splitting took.
        content: whether what the model wrote is in it.
        more: what is known of the request: its id, the model, the finish reason.
    """
    if not log.isEnabledFor(logging.DEBUG):
        return
    messages = [
        {
            "channel": message.channel,
            "recipient": message.recipient,
            "characters": len(message.text),
            "complete": message.complete,
            **({"text": message.text} if content else {}),
        }
        for message in stream.reply.messages
    ]
    issues = [_without_text(issue._asdict(), content) for issue in stream.issues]
    line = {**more, "messages": messages, "issues": issues, "microseconds": round(seconds * 1e6)}
    log.debug("reply %s", json.dumps({name: value for name, value in line.items() if value is not None}))


def _without_text(issue: Mapping[str, Any], content: bool) -> dict[str, Any]:
    return {name: value for name, value in issue.items() if content or name not in ("text", "unit")}
