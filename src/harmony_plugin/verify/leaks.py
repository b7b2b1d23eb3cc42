"""What a client must never see: markers, and words of headers. Knows their spelling, and no API."""

from __future__ import annotations

import re

from ..core import CHANNELS, Dialect
from .asks import Reply

__all__ = ["leaks"]

MARKER = re.compile("|".join([*map(re.escape, Dialect().markers.values()), r"<\|[a-z_]+\d*\|>"]))
CHANNEL = f"(?:{'|'.join(CHANNELS)})"
#: Words of a header that lost its markers: glued together, with a recipient, or glued to the text that they begin.
HEADER = re.compile(rf"assistant{CHANNEL}|{CHANNEL}\s?to=|\A\s*(?:to=functions\.|{CHANNEL}(?=[A-Z]))")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
AROUND = 20


def leaks(reply: Reply) -> list[str]:
    """Where `reply` shows markers or header words, each with what stands around it."""
    found = []
    texts = {"content": reply.content, "reasoning": reply.reasoning, **dict(reply.reasoning_names)}
    texts |= {f"content of choice {index}": content for index, (content, _) in reply.choices.items() if index}
    texts |= {f"arguments of {call.name}": call.arguments for call in reply.calls}
    for where, text in texts.items():
        leak = MARKER.search(text) or HEADER.search(text)
        if leak is not None:
            found.append(f"{where}: {text[max(0, leak.start() - AROUND) : leak.end() + AROUND]!r}")
    found += [f"a tool's name: {call.name!r}" for call in reply.calls if not NAME.fullmatch(call.name)]
    return found
