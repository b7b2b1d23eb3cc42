"""What later Responses requests go on from: replies that are kept here, and reasoning that clients keep, sealed.

Knows items and messages as JSON values; translates nothing.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from cryptography.fernet import Fernet, InvalidToken

from ...core import RequestError

__all__ = ["Seal", "Store", "Stored", "no_item", "not_found"]

Json: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True)
class Stored:
    """One reply that later requests can go on from.

    Attributes:
        items: the input items that led to it, those of the replies before it included.
    """

    items: Sequence[Json]
    response: Json


def not_found(identifier: str, param: str | None) -> RequestError:
    """What a client is told of a reply that is not kept. ``param``: the field that names it; None: the path does."""
    if param:
        return RequestError(
            f"Previous response with id '{identifier}' not found.", param, "previous_response_not_found"
        )
    return RequestError(f"Response with id '{identifier}' not found.", None, None, 404)


def no_item(identifier: str, param: str, bound: int) -> RequestError:
    """What a client is told of an item that no reply has."""
    what = f"Item with id '{identifier}' not found. Items are kept, with `store` on, for the last {bound} responses"
    return RequestError(f"{what}: send the item itself.", param, "item_not_found", 404)


class Store:
    """The last replies, in memory: the oldest goes when the bound is reached. Safe for several threads.

    Args:
        bound: how many are kept.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._kept: OrderedDict[str, Stored] = OrderedDict()
        self._items: dict[str, Json] = {}
        self._uses: Counter[str] = Counter()  # of each item, by the replies that are kept
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, stored: Stored) -> None:
        """Keep a finished reply."""
        if not self._bound:
            return
        with self._lock:
            self._kept[stored.response["id"]] = stored
            for item in self._all(stored):
                self._items.setdefault(item["id"], item)  # what a client calls its items changes no other's
                self._uses[item["id"]] += 1
            while len(self._kept) > self._bound:
                self._forget(self._kept.popitem(last=False)[1])

    def get(self, identifier: str, param: str | None = None) -> Stored:
        """A reply that is kept.

        Raises:
            RequestError: 404 (400 where it is a field of a request: `param`) when it is not there (any more).
        """
        with self._lock:
            found = self._kept.get(identifier)
            if found is None:
                raise not_found(identifier, param)
            self._kept.move_to_end(identifier)
            return found

    def item(self, identifier: str, param: str) -> Json:
        """An item of a reply that is kept, or of its input.

        Raises:
            RequestError: 404, naming `param`, when it is not there (any more).
        """
        found = self._items.get(identifier)
        if found is None:
            raise no_item(identifier, param, self._bound)
        return found

    def drop(self, identifier: str) -> None:
        """Forget a reply.

        Raises:
            RequestError: 404 when it is not there.
        """
        with self._lock:
            self._forget(self.get(identifier))
            del self._kept[identifier]

    def close(self) -> None:
        """Nothing is to be closed."""

    @staticmethod
    def _all(stored: Stored) -> list[Json]:
        return [*stored.items, *stored.response["output"]]

    def _forget(self, stored: Stored) -> None:
        for item in self._all(stored):
            self._uses[item["id"]] -= 1
            if not self._uses[item["id"]]:
                del self._uses[item["id"]], self._items[item["id"]]


class Seal:
    """Makes reasoning opaque for a client that keeps it, and takes it back only as it was given out.

    Args:
        key: any text, the longer the better; None: a new one, so that nothing sealed outlives the process.
    """

    def __init__(self, key: str | None) -> None:
        secret = secrets.token_bytes(32) if key is None else hashlib.sha256(key.encode()).digest()
        self._fernet = Fernet(base64.urlsafe_b64encode(secret))

    def close(self, text: str) -> str:
        """`text`, encrypted and signed."""
        return self._fernet.encrypt(text.encode("utf-8", "surrogatepass")).decode()

    def open(self, sealed: Any) -> str | None:
        """What `close` was given; None for anything that it did not give out under this key."""
        try:
            return self._fernet.decrypt(sealed).decode("utf-8", "surrogatepass")
        except (InvalidToken, TypeError, ValueError):
            return None
