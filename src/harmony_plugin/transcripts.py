"""Whole transcripts: is it Harmony, what is in it, what is wrong with it, and other ways to write it down.

All splitting is the core's. Knows no server.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

from .core import (
    Code,
    Dialect,
    Issue,
    Message,
    Options,
    Reply,
    Trace,
    Unit,
    Vocabulary,
    harmony_encoding,
    meaning,
    parse,
)

__all__ = [
    "Problem",
    "TokenStatistics",
    "from_think",
    "is_harmony",
    "messages_by_channel",
    "parse_many",
    "repair",
    "to_think",
    "token_statistics",
    "validate",
]

Output = str | Sequence[int]


def is_harmony(output: Output, *, dialect: Dialect | None = None) -> bool:
    """Whether this is Harmony at all: it has a marker that stands at a message's beginning.

    >>> from harmony_plugin import is_harmony
    >>> is_harmony("<|channel|>final<|message|>Hi"), is_harmony("Hi."), is_harmony([200005, 17196, 200008])
    (True, False, True)

    Args:
        output: text or token ids.
        dialect: the markers' spelling, where it is not gpt-oss's own.
    """
    dialect = dialect or Dialect()
    kinds = ("start", "channel", "message")
    if isinstance(output, str):
        return any(dialect.markers[kind] in output for kind in kinds)
    return not {dialect.ids[kind] for kind in kinds}.isdisjoint(output)


def messages_by_channel(output: Output, **how: Any) -> dict[str | None, list[Message]]:
    """The messages by the channel that the model wrote, in order; None: those without one.

    >>> from harmony_plugin import messages_by_channel
    >>> output = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi"
    >>> found = messages_by_channel(output)
    >>> {channel: [message.text for message in messages] for channel, messages in found.items()}
    {'analysis': ['Hm.'], 'final': ['Hi']}

    Args:
        output: text or token ids.
        how: as `parse` takes it.
    """
    found: dict[str | None, list[Message]] = {}
    for message in parse(output, **how).messages:
        found.setdefault(message.channel, []).append(message)
    return found


class Problem(NamedTuple):
    """One thing that is wrong with a transcript. ``offset`` counts ``unit``; ``suggestion``: what would mend it."""

    code: Code
    offset: int
    unit: Unit
    text: str
    meaning: str
    suggestion: str


_SUGGESTIONS: dict[Code, str] = {
    "missing_start": "write <|start|>assistant in front of the message",
    "missing_end": "end the message before with <|end|>",
    "missing_message": "end the header with <|message|>",
    "missing_role": "write the role behind <|start|>: assistant",
    "incomplete_header": "end the header with <|message|> and a body, or leave it out",
    "header_words": "leave the words out of the header",
    "header_too_long": "end the header with <|message|>; what is said belongs behind it",
    "stray_marker": "leave the marker out; as text, spell it with ordinary tokens",
    "filler": "leave the words out",
    "loose_text": "put the text into a message: <|start|>assistant<|channel|>final<|message|>…",
    "missing_channel": "write <|channel|> in front of the channel's name",
    "repeated_channel": "name one channel",
    "misspelled_channel": "spell the channel analysis, commentary or final",
    "unknown_channel": "use analysis, commentary or final; a fine-tune's own channel is named in the setting channels",
    "repeated_recipient": "name one recipient",
    "misplaced_recipient": "write the recipient as to=NAME behind the channel",
    "misspelled_role": "spell the role assistant",
    "repeated_role": "write the role once",
    "foreign_role": "write as the assistant alone; other roles belong into the prompt",
    "swapped_call": "name the assistant as the author, and the tool behind to=",
    "builtin_tool": "declare the tool in the request, or set builtin_tools",
    "dropped_call": "allow calls in the request (tool_choice) and the settings (output)",
    "dropped_text": "have the settings keep it (commentary, channels, reasoning)",
    "arguments_not_json": "write the arguments as a JSON object, or set arguments to repair",
    "arguments_repaired": "write the arguments as a JSON object",
    "reserved_token": "leave the token out",
    "unknown_token": "encode with the model's own vocabulary",
    "invalid_utf8": "give the tokens of whole characters",
}


def validate(output: Output, **how: Any) -> list[Problem]:
    """What is wrong with a transcript, in order of its place; empty where it is well-formed.

    >>> from harmony_plugin import validate
    >>> [(problem.code, problem.offset, problem.suggestion) for problem in validate("<|channel|>finl<|message|>Hi")]
    [('misspelled_channel', 0, 'spell the channel analysis, commentary or final')]

    Args:
        output: text or token ids.
        how: as `parse` takes it; with ``tools``, calls are checked against their names.
    """
    return [_problem(issue) for issue in sorted(parse(output, **how).issues, key=lambda issue: issue.offset)]


def _problem(issue: Issue) -> Problem:
    code, offset, text, unit = issue
    return Problem(code, offset, unit, text, meaning(code), _SUGGESTIONS[code])


class TokenStatistics(NamedTuple):
    """How many tokens of a reply were for what; all of them add up to ``total``."""

    total: int
    reasoning: int
    content: int
    tool_calls: int
    headers: int
    markers: int
    dropped: int


def token_statistics(ids: Sequence[int], **how: Any) -> TokenStatistics:
    """What the tokens of a reply were for.

    >>> from harmony_plugin import token_statistics
    >>> token_statistics([200005, 17196, 200008, 12194, 200002])
    TokenStatistics(total=5, reasoning=0, content=1, tool_calls=0, headers=1, markers=3, dropped=0)

    Args:
        ids: token ids.
        how: as `parse` takes it.

    Raises:
        TypeError: it is text, which has no tokens.
    """
    if isinstance(ids, str):
        raise TypeError("token_statistics: token ids, not text")
    trace = Trace(**how)
    trace.feed(ids)
    counts: dict[str, int] = {}
    for segment in trace.finish().segments:
        counts[segment.kind] = counts.get(segment.kind, 0) + len(segment.ids or ())
    kinds = ("reasoning", "content", "tool_call", "header", "marker", "dropped")
    return TokenStatistics(len(ids), *(counts.get(kind, 0) for kind in kinds))


@overload
def repair(output: str, **how: Any) -> str: ...
@overload
def repair(output: Sequence[int], **how: Any) -> list[int]: ...
def repair(output: Output, **how: Any) -> str | list[int]:
    """The same reply as well-formed Harmony: text for text, token ids for token ids. What reached no field is left out.

    >>> from harmony_plugin import repair
    >>> repair("<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>Hi")
    '<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi<|return|>'

    Args:
        output: goes on behind ``<|start|>assistant``, as the result does.
        how: as `parse` takes it.

    Raises:
        ImportError: token ids need the Harmony library.
    """
    trace = Trace(**how)
    trace.feed(output)
    whole = []
    for shown in trace.finish().messages:
        message, name = shown.message, shown.name
        if name is not None:
            header = f"<|channel|>commentary to=functions.{name} <|constrain|>json"
            whole.append((header, message.text if message.text.strip() else "{}", "<|call|>"))
        elif shown.field == "reasoning" and message.text:
            whole.append(("<|channel|>analysis", message.text, "<|end|>"))
        elif shown.field == "content" and message.text:
            preamble = message.channel == "commentary" and message.recipient is None
            whole.append((f"<|channel|>{'commentary' if preamble else 'final'}", message.text, "<|end|>"))
    if whole and whole[-1][0] == "<|channel|>final":
        whole[-1] = (*whole[-1][:2], "<|return|>")
    if isinstance(output, str):
        return "<|start|>assistant".join(f"{header}<|message|>{text}{end}" for header, text, end in whole)
    encode = harmony_encoding().encode
    ids: list[int] = []
    for number, (header, text, end) in enumerate(whole):
        ids += encode(("<|start|>assistant" if number else "") + header + "<|message|>", allowed_special="all")
        ids += encode(text, disallowed_special=())
        ids += encode(end, allowed_special="all")
    return ids


def to_think(output: Output | Reply, **how: Any) -> str:
    """A reply as models with ``<think>`` write it: reasoning in tags, the content, and a ``<tool_call>`` for each call.

    >>> from harmony_plugin import to_think
    >>> to_think("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi")
    '<think>Hm.</think>Hi'

    Args:
        output: text, token ids, or what `parse` gave.
        how: as `parse` takes it.
    """
    import json  # only calls need it: the package's import stays light

    reply = output if isinstance(output, Reply) else parse(output, **how)
    parts = [f"<think>{reply.reasoning_content}</think>"] if reply.reasoning_content else []
    parts.append(reply.content or "")
    for call in reply.tool_calls:
        parts.append(f'<tool_call>{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}</tool_call>')
    return "".join(parts)


_THINK = re.compile(r"\s*<think>(.*?)(?:</think>|\Z)\s*", re.DOTALL)
_CALL = re.compile(r"\s*<tool_call>\s*(\{.*?\})\s*(?:</tool_call>|\Z)\s*", re.DOTALL)


def from_think(text: str) -> str:
    """What a model with ``<think>`` wrote, as well-formed Harmony that goes on behind ``<|start|>assistant``.

    >>> from harmony_plugin import from_think
    >>> from_think("<think>Hm.</think>Hi")
    '<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi<|return|>'

    A ``<tool_call>`` that holds no JSON with a name stays content.
    """
    import json

    messages: list[tuple[str, str, str]] = []
    thought = _THINK.match(text)
    if thought is not None:
        messages.append(("<|channel|>analysis", thought[1].strip(), "<|end|>"))
        text = text[thought.end() :]
    calls: list[tuple[str, str, str]] = []

    def take(found: re.Match[str]) -> str:
        try:
            call = json.loads(found[1])
            name, arguments = call["name"], call.get("arguments", {})
        except (ValueError, KeyError, TypeError):
            return found[0]
        told = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        calls.append((f"<|channel|>commentary to=functions.{name} <|constrain|>json", told, "<|call|>"))
        return ""

    content = _CALL.sub(take, text)
    if content.strip():
        channel = "commentary" if calls else "final"
        messages.append((f"<|channel|>{channel}", content, "<|end|>" if calls else "<|return|>"))
    whole = [message for message in (*messages, *calls) if message[1]]
    return "<|start|>assistant".join(f"{header}<|message|>{body}{end}" for header, body, end in whole)


def parse_many(
    outputs: Iterable[Output],
    *,
    processes: int | None = None,
    chunk_size: int = 64,
    prompt: Output | None = None,
    tools: Iterable[str | Mapping[str, Any]] | None = None,
    options: Options | None = None,
    decode: Callable[[int], bytes] | Vocabulary | None = None,
) -> Iterator[Reply]:
    """Split many replies, in order, each as `parse` does; for files of outputs that do not fit into memory, too.

    >>> from harmony_plugin import parse_many
    >>> [reply.content for reply in parse_many(["<|channel|>final<|message|>a", "<|channel|>final<|message|>b"])]
    ['a', 'b']

    Args:
        outputs: texts or token ids; read as they are needed, some chunks ahead.
        processes: how many to use; None: this one alone. Worth it from some thousand replies on. On systems that start
            processes anew (macOS, Windows), the caller's module needs ``if __name__ == "__main__"``.
        chunk_size: replies that are handed to a process at a time.
        prompt: as of `parse`; the same for all replies.
        tools: likewise.
        options: likewise.
        decode: likewise.

    Raises:
        HarmonyParseError: strict mode met an issue, at the first reply that has one.
        ValueError: ``processes`` or ``chunk_size`` is less than 1.
    """
    if chunk_size < 1 or (processes is not None and processes < 1):
        raise ValueError("parse_many: processes and chunk_size are 1 or more")
    how = {"prompt": prompt, "tools": None if tools is None else list(tools), "options": options, "decode": decode}
    if processes is None:
        return (parse(output, **how) for output in outputs)  # type: ignore[arg-type]
    return _by_processes(outputs, processes, chunk_size, how)


def _by_processes(outputs: Iterable[Output], processes: int, size: int, how: dict[str, Any]) -> Iterator[Reply]:
    from concurrent.futures import Future, ProcessPoolExecutor

    rest = iter(outputs)
    with ProcessPoolExecutor(processes) as pool:
        under_way: deque[Future[list[Reply]]] = deque()
        try:
            while True:
                while len(under_way) < 2 * processes and (chunk := list(itertools.islice(rest, size))):
                    under_way.append(pool.submit(_parse_chunk, chunk, how))
                if not under_way:
                    return
                yield from under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


def _parse_chunk(outputs: list[Output], how: dict[str, Any]) -> list[Reply]:
    return [parse(output, **how) for output in outputs]
