"""What agents sent, as requests for tests: nothing of this machine in them, long texts cut, each with what the model
said to it.

A value that the server gave (a call's id, sealed reasoning) and got back is written as `<reply.item.field>`: the tests
put the value of their own server there. Knows where replies hold such values; knows no agent.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from .clients import Place
from .relay import Exchange
from .run import Outcome

__all__ = ["RECORDED", "lines", "record", "write"]

Json: TypeAlias = "dict[str, Any]"

RECORDED = Path(__file__).resolve().parent.parent / "tests" / "e2e" / "llamacpp" / "agent_requests.jsonl"
LONGEST = 80
HOME, PROJECT = "/home/me", "/home/me/project"
GIVEN_BACK = ("id", "call_id", "encrypted_content")
WHOLE = ("arguments", "image_url", "data", "url")  # would mean nothing if cut
DROPPED = ("metadata", "client_metadata", "prompt_cache_key")  # the machine's, and nothing that the servers read
CONVERSATIONS = ("task-alpha", "task-epsilon", "side")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
PLAIN: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:8000"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "2026-01-01"),
    (re.compile(r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\w* \w{3,9} \d{1,2},? \d{4}"), "Thu Jan 01 2026"),
    (re.compile(r"\b[0-9a-f]{16,}\b"), "0123456789abcdef"),
    (re.compile(r"\bses_\w+"), "ses_1"),
)


def record(outcomes: Iterable[Outcome], places: Iterable[Place]) -> None:
    """Write the loops of `outcomes`, and what stood beside them."""
    write(
        RECORDED,
        (
            line
            for outcome, place in zip(outcomes, places, strict=True)
            for line in lines(outcome.agent, outcome.version, outcome.exchanges, CONVERSATIONS, place)
        ),
    )


def write(file: Path, recorded: Iterable[Json]) -> None:
    """A conversation a line."""
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in recorded), "utf-8")


def lines(
    client: str, version: str, exchanges: Iterable[Exchange], conversations: Iterable[str], place: Place
) -> Iterator[Json]:
    """Those of a client's conversations that are named, to be written."""
    seen: dict[str, list[Exchange]] = {}
    for exchange in exchanges:
        if exchange.generates and not exchange.left:
            seen.setdefault(exchange.conversation or "side", []).append(exchange)
    for conversation in conversations:
        if conversation in seen:
            found = seen[conversation]
            # Requests on the side belong to no loop.
            found = found[:1] if conversation == "side" else found
            yield {"client": f"{client}, {conversation}", "version": version, **_line(found, place)}


def _line(exchanges: list[Exchange], place: Place) -> Json:
    clean = _cleaner(place)
    given: dict[str, str] = {}
    bodies = []
    for number, exchange in enumerate(exchanges):
        body = {k: v for k, v in (exchange.body or {}).items() if k not in DROPPED}
        bodies.append(_each(body, functools.partial(_told, given=given, clean=clean)))
        for i, item in enumerate(_items(exchange)):
            given.update((value, f"<{number}.{i}.{field}>") for field, value in item.items())
    common = {k: v for k, v in bodies[0].items() if all(body.get(k) == v for body in bodies)}
    return {
        "path": exchanges[0].path,
        "says": [exchange.said.replace(str(place.work), PROJECT) for exchange in exchanges],
        "common": common,
        "requests": [{k: v for k, v in body.items() if k not in common} for body in bodies],
    }


def _told(key: str, text: str, *, given: Mapping[str, str], clean: Callable[[str, str], str]) -> str:
    return given.get(text) or clean(key, text)


def _items(exchange: Exchange) -> list[dict[str, str]]:
    """The items, blocks or calls of a reply, with those of their fields that come back."""
    items: list[Json] = []
    for event in exchange.events():
        if event.get("type") == "response.completed":
            items = event["response"]["output"]
        elif event.get("object") == "response":
            items = event["output"]
        elif event.get("type") == "content_block_start":
            items.append(event["content_block"])
        for choice in event.get("choices") or ():
            calls = choice.get("delta", choice.get("message", {})).get("tool_calls") or ()
            items += [call for call in calls if call.get("id")]
    return [{field: item[field] for field in GIVEN_BACK if isinstance(item.get(field), str)} for item in items]


def _cleaner(place: Place) -> Callable[[str, str], str]:
    """What makes a text fit to be kept: no paths, ids and dates of this machine, and no more of it than is needed."""
    numbers = itertools.count(1)
    uuids: dict[str, str] = {}

    def own(match: re.Match[str]) -> str:
        return uuids.setdefault(match[0], f"00000000-0000-4000-8000-{next(numbers):012d}")

    def clean(key: str, text: str) -> str:
        text = text.replace(str(place.work), PROJECT).replace(str(place.home), HOME)
        text = UUID.sub(own, text)
        if key in WHOLE:
            return text
        for pattern, plain in PLAIN:
            text = pattern.sub(plain, text)
        return text if len(text) <= LONGEST else text[:LONGEST] + "…"

    return clean


def _each(value: Any, change: Callable[[str, str], str], key: str = "") -> Any:
    """`value` with every string changed, by the name that it stands under."""
    if isinstance(value, str):
        return change(key, value)
    if isinstance(value, list):
        return [_each(inner, change, key) for inner in value]
    if isinstance(value, dict):
        return {k: _each(inner, change, k) for k, inner in value.items()}
    return value
