"""Differential fuzzing (SPEC promise 5): well-formed Harmony, ours against `openai_harmony` in strict mode.

Message for message: role, channel, recipient, content type, text; ours fed whole and in chunks.
"""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import openai_harmony

from harmony_plugin import Stream, parse

from . import grammar
from .transcript import cuts, to_ids
from .vocabulary import encoding

Found = list[tuple[str, str | None, str | None, str | None, str]]


def theirs(ids: list[int], strict: bool = True) -> Found:
    """What `openai_harmony` finds. Raises its HarmonyError."""
    parser = openai_harmony.StreamableParser(encoding(), openai_harmony.Role.ASSISTANT, strict=strict)
    for token in ids:
        parser.process(token)
    parser.process_eos()
    return [
        (
            message.author.role.value,
            message.channel,
            message.recipient,
            message.content_type,
            "".join(getattr(content, "text", "") for content in message.content),
        )
        for message in parser.messages
    ]


def ours(ids: list[int], random: Random | None = None, **settings: Any) -> Found:
    """What the core finds; in chunks if ``random`` is given."""
    if random is None:
        found = parse(ids, **settings)
    else:
        stream = Stream(**settings)
        places = cuts(len(ids), random)
        for begin, end in itertools.pairwise(places):
            stream.feed(ids[begin:end])
        stream.finish()
        found = stream.reply
    return [(m.role, m.channel, m.recipient, m.content_type, m.text) for m in found.messages]


def fields(written: list[grammar.WellFormed]) -> tuple[str | None, str | None, list[tuple[str, str]]]:
    """Reasoning, content and calls of a well-formed reply: SPEC section 4 told a second time, for unknown tools."""
    reasoning, content, calls = [], [], []
    asked: list[str] = []
    for m in written:
        to = m.recipient if m.recipient not in ("assistant", "all") else None
        if m.role == "tool":
            name = m.author.removeprefix("functions.")
            if name in asked:
                asked.remove(name)
            else:
                calls.append((name, m.body))  # no result was asked for: author and recipient were swapped
                asked.append(name)
        elif m.role != "assistant":
            continue
        elif to is not None and to.split(".")[0] in ("python", "browser", "container"):
            reasoning += [m.body] if m.channel == "analysis" else []
        elif to is not None:
            name = to.removeprefix("functions.")
            calls.append((name, m.body))
            asked.append(name)
        elif m.channel == "analysis" or (m.channel == "commentary" and m.recipient == "assistant"):
            reasoning.append(m.body)
        else:
            content.append(m.body)
    return (
        "\n".join(filter(None, reasoning)) or None,
        "\n".join(filter(None, content)) or None,
        [(name, arguments if arguments.strip() else "{}") for name, arguments in calls],
    )


def check(seed: int) -> tuple[int, str | None]:
    """One reply: how many tokens it has, and what differs, if anything."""
    random = Random(seed)
    written = grammar.reply(random, random.choice((4, 20, 60, 400)))
    ids = to_ids([piece for message in written for piece in message.pieces], random)
    expected: Found = [(m.role, m.channel, m.recipient, m.content_type, m.body) for m in written]
    try:
        library = theirs(ids)
    except openai_harmony.HarmonyError as error:
        return len(ids), f"the grammar wrote what openai_harmony rejects: {error}; ids {ids}"
    for name, found in (("openai_harmony", library), ("whole", ours(ids)), ("chunks", ours(ids, random))):
        if found != expected:
            where = next((pair for pair in zip(expected, found, strict=False) if pair[0] != pair[1]), None)
            return len(ids), f"{name} differs: {where or (len(expected), len(found))}; ids {ids}"
    split = parse(ids)
    routed = (split.reasoning_content, split.content, [(call.name, call.arguments) for call in split.tool_calls])
    if routed != fields(written):
        return len(ids), f"fields differ: {routed} instead of {fields(written)}; ids {ids}"
    return len(ids), None
