"""Replies in a file: what the store in memory does, over restarts, between processes, and among faults."""

from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from harmony_plugin import RequestError
from harmony_plugin.llamacpp.server.store import Stored
from harmony_plugin.llamacpp.server.store_file import FileStore, StoreError

MB = 1 << 20


def stored(name: str, *items: dict[str, Any], text: str = "") -> Stored:
    return Stored(items, {"id": name, "output": [{"id": f"out_{name}", "text": text}]})


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "responses.sqlite")


def test_a_reply_survives_a_restart(path: str) -> None:
    store = FileStore(path, 5, MB)
    store.put(stored("a", {"id": "said", "content": "größer 🦙"}))
    store.close()
    again = FileStore(path, 5, MB)
    found = again.get("a")
    assert (list(found.items), found.response) == ([{"id": "said", "content": "größer 🦙"}], stored("a").response)
    assert again.item("said", "x") == {"id": "said", "content": "größer 🦙"}
    assert len(again) == 1


def test_the_oldest_reply_goes_first(path: str) -> None:
    store = FileStore(path, 2, MB)
    for name in "abc":
        store.put(stored(name))
    assert len(store) == 2
    with pytest.raises(RequestError) as error:
        store.get("a")
    assert error.value.status == 404
    with pytest.raises(RequestError) as error:
        store.get("a", "previous_response_id")
    assert (error.value.status, error.value.param) == (400, "previous_response_id")
    store.get("b")  # used: now younger than c
    store.put(stored("d"))
    assert store.get("b").response["output"][0]["id"] == "out_b"
    with pytest.raises(RequestError):
        store.get("c")
    nothing = FileStore(path, 0, MB)
    assert len(nothing) == 0, "a smaller bound holds for what is there"


def test_the_size_is_bounded(path: str) -> None:
    store = FileStore(path, 100, 5000)
    for number in range(10):
        store.put(stored(str(number), text="x" * 1000))
    assert 3 <= len(store) <= 4
    assert store.get("9").response["output"][0]["text"] == "x" * 1000
    store.put(stored("large", text="x" * 6000))
    assert len(store) == 0, "a reply that alone is too large is not kept"


def test_an_item_is_kept_as_long_as_a_reply_that_has_it(path: str) -> None:
    store = FileStore(path, 2, MB)
    said = {"id": "said", "content": "a"}
    store.put(stored("a", said))
    store.put(stored("b", said, {"id": "out_a"}))
    store.put(stored("c", {"id": "said", "content": "another's"}))  # a is gone, b still has both
    assert store.item("said", "x") == said
    assert store.item("out_a", "x") == {"id": "out_a"}
    store.drop("b")
    with pytest.raises(RequestError) as error:
        store.item("out_a", "input[0].id")
    assert (error.value.status, error.value.param) == (404, "input[0].id")
    assert store.item("said", "x")["content"] == "another's"
    with pytest.raises(RequestError):
        store.drop("b")


def test_only_its_user_may_read_it(path: str) -> None:
    store = FileStore(path, 2, MB)
    store.put(stored("a"))
    for file in Path(path).parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


@pytest.mark.parametrize("what", ["a folder", "text", "nowhere"])
def test_a_file_that_is_none(what: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if what == "a folder":
        path.mkdir()
    elif what == "text":
        path.write_text("hello " * 200)
    else:
        path = tmp_path / "no" / "x"
    with pytest.raises(StoreError, match=f"^responses_file {path}: ") as error:
        FileStore(str(path), 2, MB)
    assert "\n" not in str(error.value)


def test_a_file_that_breaks_later(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be kept is told to the log alone; what cannot be read, to the client."""
    store = FileStore(path, 2, MB)
    store.put(stored("a"))
    store._file.execute("DROP TABLE items")
    store.put(stored("b"))
    assert "response b is not kept: no such table: items" in caplog.text
    with pytest.raises(RequestError) as error:
        store.item("x", "y")
    assert (error.value.status, error.value.code) == (503, "store_unavailable")
    assert store.get("a").response["id"] == "a"
    with pytest.raises(RequestError):
        store.get("b")


def test_text_that_utf8_has_no_room_for(path: str, caplog: pytest.LogCaptureFixture) -> None:
    store = FileStore(path, 2, MB)
    store.put(stored("a", text="\ud800"))
    assert "response a is not kept" in caplog.text


def _put(path: str, name: str) -> None:
    store = FileStore(path, 1000, MB)
    for number in range(50):
        store.put(stored(f"{name}{number}"))


def test_several_processes_and_threads(path: str) -> None:
    FileStore(path, 1000, MB).close()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_put, args=(path, name)) for name in "ab"]
    for process in processes:
        process.start()
    store = FileStore(path, 1000, MB)
    threads = [
        threading.Thread(target=lambda n=n: [store.put(stored(f"t{n}{i}")) for i in range(25)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for each in (*threads, *processes):
        each.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(store) == 200
    assert json.loads(json.dumps(store.get("a49").response))["id"] == "a49"
    with sqlite3.connect(path) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert os.path.exists(path)
