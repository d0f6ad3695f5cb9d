"""Whatever the graph API waits for may be cancelled at any await, and nothing stays behind."""

from __future__ import annotations

import asyncio
import gc
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import sniffio
import trio
from anyio.lowlevel import checkpoint

import air
from air import Graph
from air.node.config import Config, GunConfig, NodeConfig
from air.node.relay import Relay
from air.sync.opening import Opening

pytestmark = pytest.mark.anyio

AWAITS_MAX = 400
"""More than any of these calls has; a call that has more fails the test."""


@types.coroutine
def cancelled_at(
    number: int, call: Coroutine[Any, Any, Any], scope: anyio.CancelScope
) -> Generator[Any, Any, bool]:
    """Run ``call``, and cancel it when it waits for the ``number``-th time. True: that never came."""
    waits, answer, error = 0, None, None
    while True:
        try:
            trap = call.throw(error) if error is not None else call.send(answer)
        except StopIteration:
            return waits < number
        waits += 1
        if waits == number:
            scope.cancel()
        answer = error = None
        try:
            answer = yield trap
        except BaseException as raised:
            error = raised


def tasks() -> int:
    if sniffio.current_async_library() == "trio":
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


async def once(graph: Graph) -> None:
    await graph.get("ann", "home", "city").once()
    await graph.get("ann").once(depth=3)
    await graph.get("nobody", "x").once(timeout=0.02)


async def put(graph: Graph) -> None:
    await graph.put("ann", {"a": 1, "home": {"geo": {"lat": 1}}, "self": graph.get("ann", "home")})
    await graph.get("ann", "home", "geo", "lon").put(2)


async def sets(graph: Graph) -> None:
    member = await graph.get("ann", "friends").add({"name": "Tom"})
    await graph.get("ann", "friends").map().once()
    await graph.get("ann", "friends").range(limit=1, reverse=True).once(depth=2)
    await graph.get("ann", "friends").unset(member)


async def loop(graph: Graph) -> None:
    count = 0
    async for _ in graph.get("ann", "home").on():
        await checkpoint()
        await graph.get("ann", "home", "n").put(count)
        count += 1
        if count == 3:
            break
    async for value in graph.get("ann", "home", "n").on(whole=True):
        assert value == 2
        break
    async for _ in graph.get("ann", "home").map():
        await checkpoint()
        break


async def blocks(graph: Graph) -> None:
    async with graph.get("ann", "home").on() as changes, graph.get("ann").map() as entries:
        await anext(changes)
        await anext(entries)
        await checkpoint()


CALLS = [once, put, sets, loop, blocks]


async def check(graph: Graph, call: Callable[[Graph], Coroutine[Any, Any, None]]) -> None:
    await graph.put("ann", {"home": {"city": "Hue", "n": 0}})
    hub: Any = graph._source._hub  # type: ignore[attr-defined]
    await call(graph)
    gc.collect()

    def standing() -> Any:
        return set(hub._links), set(hub.books), dict(hub._expected), dict(hub._waiting), dict(hub._reaching)

    before, living = standing(), tasks()
    for number in range(1, AWAITS_MAX):
        done = False
        with anyio.CancelScope() as scope:
            done = await cancelled_at(number, call(graph), scope)
        # The scope has swallowed the cancellation, and with it all that held the call's frames.
        assert standing() == before, f"cancelled at await {number}"
        assert tasks() == living, f"cancelled at await {number}"
        if done:
            break
    else:
        pytest.fail("it never came to its end")
    assert number > 2
    await graph.put("after", {"x": 1})
    assert await graph.get("after", "x").once() == 1


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
@pytest.mark.parametrize("where", ["memory", "disk"])
async def test_cancelling_at_any_await_leaves_no_task_and_no_link(
    where: str, call: Callable[[Graph], Coroutine[Any, Any, None]], tmp_path: Path
) -> None:
    async with air.open(None if where == "memory" else tmp_path / "data") as graph:
        await check(graph, call)


@asynccontextmanager
async def relay(folder: Path) -> AsyncIterator[Relay]:
    async with Relay(Config(node=NodeConfig(data=folder), gun=GunConfig(port=0))) as relay:
        yield relay


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
async def test_cancelling_at_any_await_leaves_nothing_of_a_connected_graph_either(
    call: Callable[[Graph], Coroutine[Any, Any, None]], tmp_path: Path
) -> None:
    async with relay(tmp_path) as there, air.connect(there.gun_addresses[0]) as graph:
        await check(graph, call)


@pytest.mark.parametrize("where", ["memory", "disk", "relay"])
async def test_opening_may_be_cancelled_at_any_await(where: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        url = ""
        if where == "relay":
            url = (await stack.enter_async_context(relay(tmp_path / "relay"))).gun_addresses[0]

        def opening() -> Opening:
            if where == "relay":
                return air.connect(url)
            return air.open(None if where == "memory" else tmp_path / "data")

        async def use() -> None:
            async with opening() as graph:
                await graph.put("a", {"x": 1})

        await use()
        living = await steady()
        for number in range(1, AWAITS_MAX):
            done = False
            with anyio.CancelScope() as scope:
                done = await cancelled_at(number, use(), scope)
            assert await steady() == living, f"cancelled at await {number}"
            if done:
                break
        else:
            pytest.fail("it never came to its end")
        async with opening() as graph:
            assert await graph.get("a", "x").once() in (1, None)


async def steady() -> int:
    """How many tasks there are once connections that have ended are gone."""
    least, quiet = tasks(), 0
    while quiet < 10:
        await anyio.sleep(0.001)
        quiet = quiet + 1 if tasks() == least else 0
        least = tasks()
    return least
