"""What every graph wire has to do, as a suite that anybody can run against their own. (shell)

    await check_wire(join)

where ``join(dialler, listener)`` is an async context manager that keeps a link between two hubs while its
block is open. Runs all of ``CHECKS``; with ``only="values_keep_their_kind"`` one of them. Whatever goes wrong
comes as an AssertionError that names the check, what does not come to an end as a TimeoutError. Checks run
twice: the dialling hub in the first role, then the listening one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import anyio

from air.base.keys import Identity
from air.graph.state import Stamps
from air.model.cell import Cell, Fields, Key, Soul
from air.model.value import Link, Value
from air.store.memory import Memory
from air.sync.hub import Hub
from air.testing.running import run_checks

__all__ = ["CHECKS", "Join", "check_wire"]

Join = Callable[[Hub, Hub], AbstractAsyncContextManager[object]]
"""Links two hubs: the first dials the second."""

MIB: Final = 1024 * 1024
_PATIENCE_SECONDS: Final = 5.0
"""How long a healthy link may take to bring a few kilobytes."""


async def check_wire(join: Join, *, only: str | None = None, seconds: float = 60.0) -> None:
    """Run the suite; ``seconds`` is for each check."""
    await run_checks(CHECKS, lambda check, swapped: check(join, swapped), only=only, seconds=seconds)


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
    lacking = wanted
    with anyio.move_on_after(_PATIENCE_SECONDS):
        while lacking:
            found = _values(await hub.get(soul))
            lacking = {
                key: value
                for key, value in wanted.items()
                if key not in found or not _same(found[key], value)
            }
            if lacking:
                await anyio.sleep(0.01)
    for key, value in lacking.items():
        there = _short(found[key]) if key in found else "nothing"
        raise AssertionError(f"{len(lacking)} fields are wrong: {key!r} has {there}, not {_short(value)}")


def _short(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


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


async def a_watcher_misses_nothing(join: Join, swapped: bool) -> None:
    """Of many small writes and a large one it hears of every field, without asking again."""
    async with _two() as (one, other), join(one, other):
        writer, watcher = _roles(one, other, swapped)
        await writer.put({"ann": {"here": True}})
        async with watcher.watch("ann") as changes:
            await _until(watcher, "ann", {"here": True})
            for number in range(50):
                await writer.put({"ann": {f"small{number}": number}})
            await writer.put({"ann": {f"large{number}": number for number in range(2000)}})
            heard = await _hear(changes, 2051)
        assert len(heard) == 2051, f"of 2051 fields that were written, {len(heard)} were heard of"
        for key, (value, state) in (await writer.get("ann")).items():
            assert _same(heard[key].value, value), f"{heard[key].value!r} was heard of, {value!r} written"
            assert heard[key].state == state, (
                f"a write of {state!r} was heard of as one of {heard[key].state!r}"
            )


async def _hear(changes: AsyncIterator[list[Cell]], count: int) -> dict[Key, Cell]:
    """What a watcher is told until it knows of ``count`` fields."""
    heard: dict[Key, Cell] = {}
    with anyio.move_on_after(_PATIENCE_SECONDS):
        async for cells in changes:
            heard.update((cell.key, cell) for cell in cells)
            if len(heard) >= count:
                break
    return heard


async def states_arrive_as_they_are(join: Join, swapped: bool) -> None:
    """A field has the state of its write everywhere: it decides who wins."""
    async with _two() as (one, other), join(one, other):
        writer, reader = _roles(one, other, swapped)
        for number in range(20):
            await writer.put({"ann": {f"key{number}": number}})
        await _until(reader, "ann", {f"key{number}": number for number in range(20)})
        wrote, has = await writer.get("ann"), await reader.get("ann")
        for key, (_, state) in wrote.items():
            assert has[key][1] == state, f"a write of {state!r} has the state {has[key][1]!r} elsewhere"


async def the_writer_hears_who_has_it(join: Join, swapped: bool) -> None:
    """A put of the hub that dialled is acknowledged by the other one."""
    if swapped:
        return
    async with _two() as (one, other), join(one, other):
        await one.put({"ann": {"here": True}})
        await _until(other, "ann", {"here": True})
        receipt = await one.put({"ann": {"name": "Ann"}}, peers=1, timeout=_PATIENCE_SECONDS)
        assert receipt.peers == 1, f"no ack came{''.join(f'; refused: {why}' for why in receipt.refusals)}"


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
        await writer.put({"asked for": values})
        await _until(reader, "asked for", values)
        async with reader.watch("watched") as changes:
            await reader.get("watched")
            await writer.put({"watched": values})
            heard = await _hear(changes, len(values))
        for key, value in values.items():
            assert key in heard, f"{_short(value)} was written, and nothing heard of"
            assert _same(heard[key].value, value), (
                f"{_short(heard[key].value)} was heard of, {_short(value)} written"
            )


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
        a_watcher_misses_nothing,
        states_arrive_as_they_are,
        the_writer_hears_who_has_it,
        writers_of_one_field_agree_in_the_end,
        values_keep_their_kind,
        a_large_node_arrives_whole,
        what_happened_apart_comes_together,
        the_end_of_a_link_harms_no_hub,
    )
}
"""Name -> check, in the order in which they run."""
