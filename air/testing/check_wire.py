"""What every graph wire has to do, as a suite that anybody can run against their own. (shell)

    await check_wire(join)

where ``join(dialler, listener)`` is an async context manager that keeps a link between two hubs while its
block is open. Runs all of ``CHECKS``; with ``only="values_keep_their_kind"`` one of them. A failed check
raises AssertionError, one that does not come to an end TimeoutError. Checks run twice: the dialling hub in
the first role, then the listening one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import anyio

from air.base.keys import Identity
from air.graph.state import Stamps
from air.model.cell import Fields, Key, Soul
from air.model.value import Link, Value
from air.store.memory import Memory
from air.sync.hub import Hub

__all__ = ["CHECKS", "Join", "check_wire"]

Join = Callable[[Hub, Hub], AbstractAsyncContextManager[object]]
"""Links two hubs: the first dials the second."""

MIB: Final = 1024 * 1024


async def check_wire(join: Join, *, only: str | None = None, seconds: float = 60.0) -> None:
    """Run the suite; ``seconds`` is for each check."""
    for name in CHECKS if only is None else (only,):
        for swapped in (False, True):
            with anyio.fail_after(seconds):
                await CHECKS[name](join, swapped)


@asynccontextmanager
async def _two() -> AsyncIterator[tuple[Hub, Hub]]:
    one, other = (_hub(seed) for seed in (1, 2))
    async with one.running(), other.running():
        yield one, other


def _hub(seed: int) -> Hub:
    peer = Identity(bytes([seed]) * 32).peer_id
    return Hub(Memory(64 * MIB, authoritative=True), None, peer, Stamps(peer, 0))


def _roles(one: Hub, other: Hub, swapped: bool) -> tuple[Hub, Hub]:
    return (other, one) if swapped else (one, other)


async def _until(hub: Hub, soul: Soul, wanted: dict[Key, Value]) -> None:
    """Wait until a get at ``hub`` finds ``wanted`` in a node, however it got there."""
    while True:
        found = _values(await hub.get(soul))
        if all(key in found and _same(found[key], value) for key, value in wanted.items()):
            return
        await anyio.sleep(0.01)


def _values(fields: Fields) -> dict[Key, Value]:
    return {key: value for key, (value, _) in fields.items()}


def _same(found: Value, wanted: Value) -> bool:
    # True equals 1 in Python and is another value in a graph.
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)


# The checks


async def a_write_is_readable_at_the_other_side(join: Join, swapped: bool) -> None:
    """What one hub writes, the other finds when it asks."""
    async with _two() as (one, other), join(one, other):
        writer, reader = _roles(one, other, swapped)
        await writer.put({"ann": {"name": "Ann", "age": 7}})
        await _until(reader, "ann", {"name": "Ann", "age": 7})


async def what_was_there_before_is_found(join: Join, swapped: bool) -> None:
    """A node written before the link existed is there for who asks over it."""
    async with _two() as (one, other):
        writer, reader = _roles(one, other, swapped)
        await writer.put({"ann": {"name": "Ann"}})
        async with join(one, other):
            await _until(reader, "ann", {"name": "Ann"})


async def a_watcher_hears_of_changes(join: Join, swapped: bool) -> None:
    """Who watches a node is told what changes in it elsewhere, in the end with its last value."""
    async with _two() as (one, other), join(one, other):
        writer, watcher = _roles(one, other, swapped)
        await writer.put({"ann": {"count": 0}})
        async with watcher.watch("ann") as changes:
            await _until(watcher, "ann", {"count": 0})
            for count in range(1, 6):
                await writer.put({"ann": {"count": count}})
            async for cells in changes:
                if any(cell.value == 5 for cell in cells):
                    break


async def writers_of_one_field_agree_in_the_end(join: Join, swapped: bool) -> None:
    """Whoever wins, both sides end with the same value."""
    async with _two() as (one, other), join(one, other):
        first, second = _roles(one, other, swapped)
        for hub in (first, second):
            await hub.get("ann")
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(first.put, {"ann": {"name": f"first {number}"}})
                tasks.start_soon(second.put, {"ann": {"name": f"second {number}"}})
        while True:
            found = [_values(await hub.get("ann")).get("name") for hub in (one, other)]
            if found[0] == found[1] and found[0] is not None:
                return
            await anyio.sleep(0.01)


async def values_keep_their_kind(join: Join, swapped: bool) -> None:
    """Null, truth, numbers, text of any script and links arrive as what they are."""
    values: dict[Key, Value] = {
        "null": None,
        "true": True,
        "false": False,
        "zero": 0,
        "one": 1,
        "tenth": 0.1,
        "huge": 1e21,
        "tiny": 5e-324,
        "negative": -2.5,
        "safe": 2**53 - 1,
        "empty": "",
        "text": "Grüße, 世界 🌍\u0000\n",
        "link": Link("bob"),
        "ключ 🗝": "a name that is not ASCII",
    }
    async with _two() as (one, other), join(one, other):
        writer, reader = _roles(one, other, swapped)
        await writer.put({"kinds": values})
        await _until(reader, "kinds", values)


async def a_large_node_arrives_whole(join: Join, swapped: bool) -> None:
    """Two thousand fields, and a text of 200 kB."""
    values: dict[Key, Value] = {f"key{number}": number for number in range(2000)}
    values["long"] = "x" * 200_000
    async with _two() as (one, other), join(one, other):
        writer, reader = _roles(one, other, swapped)
        await writer.put({"large": values})
        await _until(reader, "large", values)


async def what_happened_apart_comes_together(join: Join, swapped: bool) -> None:
    """Both write while there is no link; after the next one both know everything."""
    async with _two() as (one, other):
        first, second = _roles(one, other, swapped)
        async with join(one, other):
            await first.put({"ann": {"a": 1}})
            await _until(second, "ann", {"a": 1})
        await first.put({"ann": {"b": 2}})
        await second.put({"ann": {"c": 3}})
        async with join(one, other):
            for hub in (first, second):
                await _until(hub, "ann", {"a": 1, "b": 2, "c": 3})


async def the_end_of_a_link_harms_no_hub(join: Join, swapped: bool) -> None:
    """A hub works on when a link goes away in the middle of its work, and another can take its place."""
    async with _two() as (one, other):
        writer, reader = _roles(one, other, swapped)
        for number in range(5):
            async with anyio.create_task_group() as tasks, join(one, other):
                tasks.start_soon(writer.put, {"ann": {f"key{number}": number}})
        async with join(one, other):
            await _until(reader, "ann", {f"key{number}": number for number in range(5)})


CHECKS: Final[dict[str, Callable[[Join, bool], Awaitable[None]]]] = {
    check.__name__: check
    for check in (
        a_write_is_readable_at_the_other_side,
        what_was_there_before_is_found,
        a_watcher_hears_of_changes,
        writers_of_one_field_agree_in_the_end,
        values_keep_their_kind,
        a_large_node_arrives_whole,
        what_happened_apart_comes_together,
        the_end_of_a_link_harms_no_hub,
    )
}
"""Name -> check, in the order in which they run."""
