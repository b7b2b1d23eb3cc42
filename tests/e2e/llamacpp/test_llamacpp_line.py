"""The line in front of the engine, and the store of replies: order, bounds, and who leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from harmony_plugin import RequestError
from harmony_plugin.api.errors import Busy
from harmony_plugin.demo.model import build_model
from harmony_plugin.llamacpp.server.host import Host, Taken, WaitingLine
from harmony_plugin.llamacpp.server.settings import ModelSettings
from harmony_plugin.llamacpp.server.store import Seal, Store, Stored


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_turns_come_in_the_order_of_asking() -> None:
    async def play() -> None:
        line, came = WaitingLine(10), []

        async def ask(name: int) -> None:
            await line.take("m")
            came.append(name)

        await line.take("m")
        waiting = [asyncio.create_task(ask(name)) for name in range(5)]
        await settle()
        assert (came, len(line)) == ([], 5)
        for turns in range(1, 6):
            line.give("m")
            await settle()
            assert came == list(range(turns))
        line.give("m")
        await asyncio.gather(*waiting)
        await line.take("m")  # free again: no waiting

    asyncio.run(play())


def test_whoever_leaves_makes_room_and_loses_no_turn() -> None:
    async def play() -> None:
        line = WaitingLine(2)
        await line.take("m")
        first, second = (asyncio.create_task(line.take("m")) for _ in range(2))
        await settle()
        with pytest.raises(Busy) as refused:
            await line.take("m")
        assert refused.value.retry_after >= 1
        assert refused.value.status == 429
        first.cancel()
        await settle()
        assert len(line) == 1
        line.give("m")
        second.cancel()  # in the very moment its turn comes
        await settle()
        await asyncio.wait_for(line.take("m"), 5)

    asyncio.run(play())


def test_each_model_has_a_bound_of_its_own() -> None:
    async def play() -> None:
        line = WaitingLine(1)
        await line.take("a")
        waiting = [asyncio.create_task(line.take(model)) for model in ("a", "b")]
        await settle()
        for model in ("a", "b"):
            with pytest.raises(Busy):
                line.check(model)
        line.check("c")
        for task in waiting:
            task.cancel()

    asyncio.run(play())


def test_no_room_at_all_means_one_at_a_time() -> None:
    async def play() -> None:
        line = WaitingLine(0)
        await line.take("m")
        with pytest.raises(Busy):
            await line.take("m")
        line.give("m")
        await line.take("m")

    asyncio.run(play())


def test_a_request_that_had_a_seat_is_not_turned_away() -> None:
    async def play() -> None:
        line = WaitingLine(0)
        await line.take("m")
        again = asyncio.create_task(line.take("m", again=True))
        await settle()
        assert len(line) == 1
        line.give("m")
        await asyncio.wait_for(again, 5)

    asyncio.run(play())


def test_a_model_that_cannot_be_loaded_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    good = ModelSettings(model=str(build_model()), model_alias="good", n_ctx=256)
    host = Host([good, ModelSettings(model=str(broken), model_alias="broken", n_ctx=256)], 1)
    host.load()

    async def ask(model: str) -> Any:
        return await host.turn(model, lambda llama, cancelled: Taken(llama.n_ctx(), ())).start()

    async def by_a_stock_route() -> None:
        async with host.alone() as models:
            models("broken")

    async def play() -> None:
        for asked in (lambda: ask("broken"), by_a_stock_route):
            with pytest.raises(RequestError) as error:
                await asked()
            assert (error.value.status, error.value.code) == (503, "model_not_loaded")
            assert await ask("good") == 256

    try:
        asyncio.run(play())
    finally:
        host.close()
    assert set(host.loaded) == {"good"}


def stored(name: str, *items: dict[str, Any]) -> Stored:
    return Stored(items, {"id": name, "output": [{"id": f"out_{name}"}]})


def test_the_oldest_reply_goes_first() -> None:
    store = Store(2)
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
    assert store.get("b").response["output"] == [{"id": "out_b"}]
    nothing = Store(0)
    nothing.put(stored("a"))
    assert len(nothing) == 0


def test_an_item_is_kept_as_long_as_a_reply_that_has_it() -> None:
    store = Store(2)
    said = {"id": "said", "content": "a"}
    store.put(stored("a", said))
    store.put(stored("b", said, {"id": "out_a"}))
    assert store.item("said", "x") is said
    store.put(stored("c", {"id": "said", "content": "another's"}))  # a is gone, b still has both
    assert store.item("said", "x") is said
    assert store.item("out_a", "x") == {"id": "out_a"}
    store.drop("b")
    with pytest.raises(RequestError) as error:
        store.item("out_a", "input[0].id")
    assert (error.value.status, error.value.param) == (404, "input[0].id")
    store.drop("c")
    with pytest.raises(RequestError):
        store.item("said", "x")


def test_a_seal_opens_what_it_closed() -> None:
    ours, again, other = Seal("key"), Seal("key"), Seal(None)
    sealed = ours.close("Thought \ud800 größer")
    assert again.open(sealed) == "Thought \ud800 größer"
    assert other.open(sealed) is None
    for wrong in (sealed[:-1], "", "x", 5, None, ["a"], "größer"):
        assert ours.open(wrong) is None
