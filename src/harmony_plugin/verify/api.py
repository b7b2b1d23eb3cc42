"""What an API must be able to do here: put an `Ask` into its words, and read its replies.

Knows pydantic and neither a client's nor a server's names; `chat`, `responses` and `messages` fill it in.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from .asks import Ask, Json, Reply

__all__ = ["Api", "Frame", "counted", "shape_problems", "text_of"]

Frame = tuple[str | None, str]
"""A server-sent event: its name, and its data."""

NAME = "verify_output"
"""How a JSON schema is called where it needs a name."""


class Api(ABC):
    """One API of an endpoint.

    Attributes:
        name: as flags and reports have it.
        path: behind the base URL.
    """

    name: str
    path: str

    @abstractmethod
    def body(self, ask: Ask, model: str, max_tokens: int) -> Json:
        """The request's body."""

    @abstractmethod
    def send(self, body: Json) -> Json | str:
        """Ask for a whole reply, through the client; gives what was sent. A string is a body that is no JSON."""

    @abstractmethod
    def stream(self, body: Json) -> Iterator[Json]:
        """Ask for a stream, through the client; gives its events as they were sent."""

    @abstractmethod
    def read(self, reply: Reply, data: Json) -> None:
        """Fill `reply` in from a whole reply."""

    @abstractmethod
    def read_events(self, reply: Reply, events: Sequence[Json]) -> None:
        """Fill `reply` in from a stream's events."""

    @abstractmethod
    def whole_problems(self, data: Any) -> list[str]:
        """What the client's types do not allow in a whole reply."""

    @abstractmethod
    def event_problems(self, event: Any) -> list[str]:
        """What the client's types do not allow in an event."""

    @abstractmethod
    def without_reasoning(self, back: list[Json]) -> list[Json]:
        """What a client sends back, less the reasoning."""

    @abstractmethod
    def wrong_bodies(self, model: str) -> dict[str, Json]:
        """Requests that must be refused, by what is wrong with them."""

    @abstractmethod
    def error_problem(self, body: Any) -> str | None:
        """Why `body`, JSON, does not report an error as the API does; None: it does."""

    def frame_problem(self, frames: Sequence[Frame]) -> str | None:
        """What is wrong with a stream as it is sent; None: nothing. Here: events have their type as their name."""
        for name, data in frames:
            try:
                kind = json.loads(data)["type"]
            except (ValueError, TypeError, LookupError):
                return f"an event that is no object with a type: {data!r}"
            if name != kind:
                return f"the event {kind!r} is sent under the name {name!r}"
        return None if frames else "no events"


def shape_problems(types: TypeAdapter[Any], value: Any) -> list[str]:
    """What `types` do not allow in `value`: the first thing, with its place.

    Of a union's members those count whose `type` is the value's.
    """
    try:
        types.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        others = [e for e in errors if e["type"] == "literal_error" and e["loc"][-1] == "type"]
        places = [other["loc"][:-1] for other in others]
        meant = [e for e in errors if not any(e["loc"][: len(place)] == place for place in places)]
        if meant:
            return [f"{_place(meant[0]['loc'])}: {meant[0]['msg']}"]
        # The type that is unknown is the one that lies deepest: what is around it was recognized.
        unknown = max(others, key=lambda other: len(other["loc"]))
        return [f"{_place(unknown['loc'])}: the client knows no {unknown['input']!r} there"]
    return []


def _place(parts: tuple[int | str, ...]) -> str:
    """Where it is. Names of classes, which pydantic puts in for unions, are no places in a value."""
    return ".".join(str(part) for part in parts if isinstance(part, int) or not part[:1].isupper())


def text_of(parts: Any, key: str = "text") -> str:
    """The texts of a list of parts, put together."""
    return "".join(part.get(key) or "" for part in parts or ())


def counted(items: Iterable[Any]) -> bool:
    """Whether the items are all there and all different."""
    found = list(items)
    return all(found) and len(set(found)) == len(found)
