"""The store of replies in a file, so that they survive a restart: SQLite, which several servers may share.

Each call is a transaction of its own and may wait for another process's: for threads, not for the event loop. Knows
replies as JSON values, and nothing of requests.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from ...core import RequestError
from .store import Stored, no_item, not_found

__all__ = ["FileStore", "StoreError"]

Json: TypeAlias = "dict[str, Any]"

log = logging.getLogger("harmony_plugin.server")

WAIT = 5.0  # seconds for another process's transaction
SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, used REAL NOT NULL, size INTEGER NOT NULL, stored TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS responses_used ON responses (used);
CREATE TABLE IF NOT EXISTS items (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL,
    response TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS items_id ON items (id);
CREATE INDEX IF NOT EXISTS items_response ON items (response);
"""


class StoreError(ValueError):
    """The file cannot be a store. The message is one line."""


class FileStore:
    """The last replies, in a file that only its user may read. Safe for several threads, and several processes.

    Args:
        path: of the file; made if it is not there.
        bound: how many are kept.
        size: how many bytes they may take as JSON; those that were used longest ago go first.

    Raises:
        StoreError: the file cannot be opened, or is something else.
    """

    def __init__(self, path: str, bound: int, size: int) -> None:
        self._bound, self._size = bound, size
        self._lock = threading.Lock()
        try:
            # What was said is in it.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._file = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
            self._file.execute("PRAGMA foreign_keys = ON")
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = NORMAL")
            self._file.executescript(SCHEMA)
            with self._transaction() as file:
                self._make_room(file)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"responses_file {path}: {getattr(error, 'strerror', None) or error}") from None

    def __len__(self) -> int:
        with self._transaction() as file:
            return int(file.execute("SELECT count(*) FROM responses").fetchone()[0])

    def put(self, stored: Stored) -> None:
        """Keep a finished reply. Where the file takes no more, the log says so: its client has it all the same."""
        identifier = stored.response["id"]
        try:
            text = json.dumps({"items": list(stored.items), "response": stored.response}, ensure_ascii=False)
            names = {item["id"] for item in (*stored.items, *stored.response["output"])}
            with self._transaction() as file:
                row = (identifier, time.time(), len(text), text)
                file.execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?)", row)
                file.executemany(
                    "INSERT INTO items (id, response) VALUES (?, ?)", [(name, identifier) for name in sorted(names)]
                )
                self._make_room(file)
        except (sqlite3.Error, UnicodeError) as error:
            log.error("response %s is not kept: %s", identifier, error)

    def get(self, identifier: str, param: str | None = None) -> Stored:
        """A reply that is kept.

        Raises:
            RequestError: 404 (400 where it is a field of a request: `param`) when it is not there (any more).
        """
        with self._reading() as file:
            file.execute("UPDATE responses SET used = ? WHERE id = ?", (time.time(), identifier))
            found = file.execute("SELECT stored FROM responses WHERE id = ?", (identifier,)).fetchone()
        if found is None:
            raise not_found(identifier, param)
        told = json.loads(found[0])
        return Stored(told["items"], told["response"])

    def item(self, identifier: str, param: str) -> Json:
        """An item of a reply that is kept, or of its input.

        Raises:
            RequestError: 404, naming `param`, when it is not there (any more).
        """
        # What a client calls its items changes no other's: the first that had the name has it.
        query = (
            "SELECT stored FROM responses JOIN items ON items.response = responses.id WHERE items.id = ? "
            "ORDER BY items.number LIMIT 1"
        )
        with self._reading() as file:
            found = file.execute(query, (identifier,)).fetchone()
        if found is None:
            raise no_item(identifier, param, self._bound)
        told = json.loads(found[0])
        items: list[Json] = [*told["items"], *told["response"]["output"]]
        return next(item for item in items if item["id"] == identifier)

    def drop(self, identifier: str) -> None:
        """Forget a reply.

        Raises:
            RequestError: 404 when it is not there.
        """
        with self._reading() as file:
            gone = file.execute("DELETE FROM responses WHERE id = ?", (identifier,)).rowcount
        if not gone:
            raise not_found(identifier, None)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._file.execute("BEGIN IMMEDIATE")
            try:
                yield self._file
            except BaseException:
                self._file.execute("ROLLBACK")
                raise
            self._file.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction for a client that waits for what it finds."""
        try:
            with self._transaction() as file:
                yield file
        except sqlite3.Error as error:
            log.error("responses_file cannot be read: %s", error)
            raise RequestError("Stored responses cannot be read now.", None, "store_unavailable", 503) from error

    def _make_room(self, file: sqlite3.Connection) -> None:
        count, size = file.execute("SELECT count(*), total(size) FROM responses").fetchone()
        oldest = file.execute("SELECT id, size FROM responses ORDER BY used")
        going = []
        for identifier, its in oldest:
            if count <= self._bound and size <= self._size:
                break
            going.append((identifier,))
            count, size = count - 1, size - its
        file.executemany("DELETE FROM responses WHERE id = ?", going)
