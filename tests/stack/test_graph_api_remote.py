"""The graph API as a view of a real daemon's graph, on both event loops."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import air
from air import ConnectConfig, Graph, Link
from air.base.errors import AirError
from tests.interop.relays import AirDaemon
from tests.ports import kept_port

pytestmark = pytest.mark.anyio

SECONDS = 10.0


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[AirDaemon]:
    listen = f"/ip4/127.0.0.1/tcp/{kept_port()}"
    async with AirDaemon.start(tmp_path / "daemon", arguments=["--listen", listen]) as daemon:
        yield daemon


@pytest.fixture
def address(anyio_backend: str, daemon: AirDaemon) -> str:
    """Where the daemon is, also when it is started again.

    Ann comes by the GUN wire on one event loop and by the native wire on the other, Bob by GUN on both.
    """
    return daemon.url if anyio_backend == "asyncio" else str(daemon.ready["native"][0])


@pytest.fixture
async def ann(address: str) -> AsyncIterator[Graph]:
    async with air.connect(address) as graph:
        yield graph


@pytest.fixture
async def bob(daemon: AirDaemon) -> AsyncIterator[Graph]:
    async with air.connect(daemon.url) as graph:
        yield graph


async def taken(live: Any) -> Any:
    with anyio.fail_after(SECONDS):
        return await anext(live)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(SECONDS):
        while not condition():
            await anyio.sleep(0.005)


async def test_what_one_writes_the_other_reads(ann: Graph, bob: Graph) -> None:
    receipt = await ann.put("x", {"a": 1, "in": {"b": {"c": 2}}})
    assert (receipt.peers, receipt.durable) == (1, True)
    assert await bob.get("x").once(depth=3) == {"a": 1, "in": {"b": {"c": 2}}}
    assert await bob.get("x", "in", "b", "c").once() == 2
    assert await bob.get("nobody").once() is None
    assert await bob.get("x", "nothing", "more").once() is None


async def test_a_read_waits_for_the_answer_although_a_part_is_here(ann: Graph, bob: Graph) -> None:
    await ann.put("x", {"a": 1, "b": 2})
    await bob.put("x", {"c": 3})
    assert await bob.get("x").once() == {"a": 1, "b": 2, "c": 3}
    await ann.put("y", {"z": 1})
    await bob.put("y", {"a": 2}, peers=0)
    assert await bob.get("y", "z").once() == 1
    assert await bob.get("y").map().once() == {"a": 2, "z": 1}
    assert await bob.get("y").range(start="b").once() == {"z": 1}


async def test_many_reads_at_once_each_get_the_whole_answer(ann: Graph, bob: Graph) -> None:
    await ann.put({f"n{i}": {"a": i, "b": i} for i in range(50)})
    found: list[Any] = []

    async def read(soul: str) -> None:
        found.append(await bob.get(soul).once())

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(read, f"n{number % 50}")
    assert sorted(node["a"] for node in found) == sorted([*range(50)] * 2)
    assert all(len(node) == 2 for node in found)


async def test_nested_writes_go_where_the_links_of_the_peer_lead(ann: Graph, bob: Graph) -> None:
    await ann.put({"x": {"home": Link("house")}, "house": {"city": "Hue"}})
    await bob.get("x").put({"home": {"zip": 1}})
    await bob.get("x", "home", "door").put("red")
    assert await ann.get("house").once() == {"city": "Hue", "zip": 1, "door": "red"}


async def test_changes_come_live_through_links(ann: Graph, bob: Graph) -> None:
    await ann.put({"x": {"friend": Link("p")}, "p": {"name": "Pia"}, "q": {"name": "Quy"}})
    async with bob.get("x", "friend", "name").on() as names, bob.get("x", "friend").on(whole=True) as nodes:
        assert (await taken(names)).value == "Pia"
        assert await taken(nodes) == {"name": "Pia"}
        await ann.put("p", {"name": "Pia 2"})
        assert (await taken(names)).value == "Pia 2"
        assert await taken(nodes) == {"name": "Pia 2"}
        await ann.get("x", "friend").put(Link("q"))
        assert (await taken(names)).value == "Quy"
        assert await taken(nodes) == {"name": "Quy"}


async def test_a_set_is_live_between_two_programs(ann: Graph, bob: Graph) -> None:
    async with bob.get("room").map() as messages:
        first = await ann.get("room").add({"who": "Ann", "text": "hi"})
        assert (await taken(messages)).value == {"who": "Ann", "text": "hi"}
        await first.put({"text": "hello"})
        assert (await taken(messages)).value == {"who": "Ann", "text": "hello"}
    assert len(await bob.get("room").map().once()) == 1
    assert await bob.get("room").unset(first) == 1
    assert await ann.get("room").map().once() == {}


async def test_an_acknowledged_put_survives_the_death_of_the_daemon(daemon: AirDaemon, ann: Graph) -> None:
    for number in range(2):
        assert (await ann.put("x", {f"k{number}": number})).durable
        daemon.kill()
        await until(lambda: not daemon.alive)
        await daemon.restart()
        await until(lambda: ann.online)
    async with air.connect(daemon.url) as fresh:
        assert await fresh.get("x").once() == {f"k{number}": number for number in range(2)}


async def test_without_the_daemon_what_is_known_is_read_and_what_is_written_is_sent_later(
    daemon: AirDaemon, ann: Graph
) -> None:
    await ann.put("x", {"a": 1})
    assert await ann.get("x").once() == {"a": 1}
    async with ann.get("x").on() as changes:
        await taken(changes)
        daemon.kill()
        await until(lambda: not ann.online)
        began = time.monotonic()
        assert await ann.get("x").once() == {"a": 1}
        assert await ann.get("x", "a").once() == 1
        assert await ann.get("x").map().once() == {"a": 1}
        receipt = await ann.put("x", {"b": {"c": 2}})
        assert (receipt.peers, receipt.durable) == (0, False)
        assert await ann.get("x", "b", "c").once() == 2
        assert time.monotonic() - began < 1
        assert (await taken(changes)).key == "b"
        with pytest.raises(AirError) as caught:
            await ann.get("unknown").once(timeout=0.05)
        assert caught.value.code == "graph.no-answer"
        with pytest.raises(AirError) as caught:
            await ann.get("unknown").map().once(timeout=0.05)
        assert caught.value.code == "graph.no-answer"
        late = await ann.put("x", {"d": 4}, peers=1, timeout=0.05)
        assert late.peers == 0
        await daemon.restart()
        await until(lambda: ann.online)
        async with air.connect(daemon.url) as other:
            async with other.get("x").on(whole=True) as values:
                while await taken(values) != {"a": 1, "b": other.get("x/b"), "d": 4}:
                    pass
            # The live view goes on over the new connection.
            assert (await taken(changes)).key == "d"
            await other.put("x", {"e": 5})
            assert (await taken(changes)).key == "e"


async def test_a_put_waits_for_a_daemon_that_comes_back_in_time(daemon: AirDaemon, ann: Graph) -> None:
    daemon.kill()
    await until(lambda: not ann.online)
    receipts: list[air.Receipt] = []

    async def put() -> None:
        receipts.append(await ann.put("x", {"a": 1}, peers=1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put)
        await daemon.restart()
    assert receipts[0].peers == 1


async def test_a_read_waits_for_a_daemon_that_comes_back_in_time(daemon: AirDaemon, ann: Graph) -> None:
    async with air.connect(daemon.url) as other:
        await other.put("x", {"a": 1})
    daemon.kill()
    await until(lambda: not ann.online)
    found: list[Any] = []

    async def read() -> None:
        found.append(await ann.get("x").once(timeout=SECONDS))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await daemon.restart()
    assert found == [{"a": 1}]


async def test_a_block_begins_without_a_daemon_and_goes_on_when_it_comes(
    daemon: AirDaemon, address: str
) -> None:
    daemon.kill()
    await until(lambda: not daemon.alive)
    async with air.connect(address, config=ConnectConfig(connect_seconds=0.05)) as graph:
        assert not graph.online
        assert not (await graph.put("x", {"a": 1})).durable
        assert await graph.get("x").once() == {"a": 1}
        await daemon.restart()
        await until(lambda: graph.online)
    async with air.connect(daemon.url) as other:
        assert await other.get("x").once() == {"a": 1}


async def test_the_end_of_the_block_waits_for_what_was_written(daemon: AirDaemon, address: str) -> None:
    async with air.connect(address) as graph:
        await graph.put({f"n{i}": {"v": i} for i in range(2000)}, peers=0)
    async with air.connect(daemon.url) as other:
        assert await other.get("n1999", "v").once() == 1999


async def test_a_slow_reader_holds_up_neither_the_daemon_nor_another_reader(
    daemon: AirDaemon, ann: Graph, bob: Graph
) -> None:
    async with bob.get("n").on() as slow, bob.get("n").on() as quick:
        for number in range(100):
            await ann.put("n", {"v": number, "pad": "x" * 1000})
            while (change := await taken(quick)).value != number:
                assert change.key == "pad"
        seen = {}
        while len(seen) < 2:
            change = await taken(slow)
            assert change.key not in seen
            seen[change.key] = change.value
        assert seen["v"] == 99


async def test_a_graph_in_this_program_shares_with_its_peer(
    daemon: AirDaemon, address: str, tmp_path: Path
) -> None:
    async with air.connect(daemon.url) as there:
        await there.put("x", {"a": 1})
        async with air.open(tmp_path / "own", peers=[address]) as here:
            await until(lambda: here.online)
            assert await here.get("x").once(timeout=SECONDS) == {"a": 1}
            receipt = await here.put("x", {"b": 2}, peers=1)
            assert (receipt.peers, receipt.durable) == (1, True)
            assert await there.get("x").once() == {"a": 1, "b": 2}
            async with here.get("x").on() as changes:
                await taken(changes)
                await taken(changes)
                await there.put("x", {"c": 3})
                assert (await taken(changes)).key == "c"
    async with air.open(tmp_path / "own") as alone:
        assert await alone.get("x").once() == {"a": 1, "b": 2, "c": 3}


async def test_what_the_daemon_refuses_is_an_error_with_its_code(bob: Graph) -> None:
    with pytest.raises(AirError) as caught:
        await bob.put("x", {"k" * 100_000: 1})
    assert caught.value.code.startswith(("gun.", "limit."))
