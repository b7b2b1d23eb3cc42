"""Content of every API as the text that gpt-oss is shown, which reads nothing else: the one reading of parts.

Knows chat's parts, those of the Responses API, and where clients put reasoning; nothing of Harmony.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core import RequestError

__all__ = ["content_text", "encodable", "placeholder", "reasoning_apart"]

# Kinds of content parts that hold text, and the field that does.
TEXT_PARTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
}
MEDIA = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "computer_screenshot": "image",
    "audio": "audio",
    "input_audio": "audio",
    "video_url": "video",
    "file": "file",
    "input_file": "file",
    "document": "file",
}


def content_text(content: Any, where: str, *, optional: bool = False, media: bool = False, between: str = "") -> str:
    """The text of ``content``: a string, or parts.

    Args:
        content: as the client sent it.
        where: the path of the field.
        optional: whether it may be None: no text.
        media: whether a placeholder may stand for a part that is no text.
        between: what is put between parts. What a person says is put together as it stands.

    Raises:
        RequestError: it is neither, or holds a part that cannot be read.
    """
    if isinstance(content, str):
        return encodable(content)
    if content is None and optional:
        return ""
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise RequestError(f"{where} is neither a string nor a list of parts", where, "invalid_type")
    return encodable(between.join(_part_text(part, f"{where}[{i}]", media) for i, part in enumerate(content)))


def _part_text(part: Any, where: str, media: bool) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str) or (kind not in TEXT_PARTS and not media):
        raise RequestError(
            f"{where}.type is {kind!r}: gpt-oss reads text parts only", f"{where}.type", "unsupported_content_part"
        )
    if kind not in TEXT_PARTS:
        return placeholder(part)
    field = TEXT_PARTS[kind]
    text = part.get(field)
    if not isinstance(text, str):
        raise RequestError(f"{where}.{field} is not a string", f"{where}.{field}", "invalid_type")
    return text


def placeholder(part: Mapping[str, Any]) -> str:
    """What the model is shown in the place of a content part that it cannot read, of any API."""
    kind = part["type"]
    inner = part.get(kind)
    names = (value.get(key) for value in (part, inner) if isinstance(value, Mapping) for key in ("filename", "title"))
    name = next((f" {name[:200]!r}" for name in names if isinstance(name, str) and name), "")
    return f"[{MEDIA.get(kind, kind[:50])}{name} left out: this model reads text only]"


def reasoning_apart(message: Mapping[str, Any]) -> tuple[str, Any]:
    """The reasoning that an assistant message carries, wherever clients put it, and its content without it.

    ``reasoning_content`` (DeepSeek's field), ``reasoning`` (OpenRouter's and vLLM's), ``thinking`` (Ollama's),
    ``reasoning_details`` (OpenRouter's list) and ``thinking`` parts of the content (Mistral's, LiteLLM's).
    """
    content = message.get("content")
    thoughts: list[str] = []
    if isinstance(content, list | tuple):
        thoughts = [_thought(part) for part in content if _is_thought(part)]
        content = [part for part in content if not _is_thought(part)]
    for field in ("reasoning_content", "reasoning", "thinking"):
        if isinstance(message.get(field), str) and message[field]:
            return message[field], content
    details = message.get("reasoning_details")
    if not thoughts and isinstance(details, list | tuple):
        thoughts = _details(details)
    return "\n".join(filter(None, thoughts)), content


def _details(parts: Sequence[Any]) -> list[str]:
    """The texts of ``reasoning_details``. A stream's pieces of one text have its index."""
    thoughts: list[str] = []
    place: Any = None
    for part in parts:
        thought = _thought(part)
        if not thought:
            continue
        if thoughts and place is not None and part.get("index") == place:
            thoughts[-1] += thought
        else:
            thoughts.append(thought)
        place = part.get("index")
    return thoughts


def _is_thought(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("thinking", "redacted_thinking", "reasoning")


def _thought(part: Any) -> str:
    """The text of a piece of reasoning; empty for what cannot be read (encrypted, or of another shape)."""
    if not isinstance(part, Mapping):
        return ""
    for field in ("text", "thinking", "summary"):
        if isinstance(part.get(field), str):
            return str(part[field])
    return "".join(_thought(inner) for inner in part["thinking"]) if isinstance(part.get("thinking"), list) else ""


def encodable(text: str) -> str:
    """``text`` with surrogates paired or, where they stand alone, replaced: UTF-8 has no room for them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
