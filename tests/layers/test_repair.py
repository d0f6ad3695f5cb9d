"""Reconciliation between nodes that are really connected, on both event loops."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from air.base.errors import AirError, Closed, Denied, LimitReached, Reset, StoreError
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.model import Cell
from air.model.ham import merge
from air.model.mark import Mark
from air.mux.yamux.conn import Yamux
from air.node.node import Node
from air.security.noise import Noise
from air.store.api import RangeSource
from air.store.sqlite import Sqlite, SqliteConfig
from air.swarm.stream import Stream
from air.sync.repair.config import CREDIT_CELLS, RepairConfig
from air.sync.repair.session import PROTOCOL, Repair, RepairServiceConfig
from air.transport.memory_transport import Memory, MemoryNetwork
from tests.repair_peers import Cells

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000_000


def many(count: int) -> list[Cell]:
    return [Cell(f"user/{i // 2:06d}", ("bio", "name")[i % 2], f"value {i}", NOW + i) for i in range(count)]


@dataclass
class Peer:
    """A store, and what serves it."""

    held: Cells
    config: RepairServiceConfig = field(default_factory=RepairServiceConfig)
    broken: str = ""
    """The store refuses to merge with this code."""
    merges: list[int] = field(default_factory=list)
    gate: anyio.Event | None = None
    """Merging waits for it."""
    waiting: bool = False

    def __post_init__(self) -> None:
        self.repair = Repair(self.ask, self.merge, self.config)

    async def ask(self, question: Callable[[RangeSource], None]) -> None:
        await anyio.to_thread.run_sync(question, self.held)

    async def merge(self, peer: PeerId, cells: Sequence[Cell], marks: Sequence[Mark]) -> None:
        if self.gate is not None:
            self.waiting = True
            await self.gate.wait()
        if self.broken:
            raise StoreError("no", code=self.broken)
        self.held.merge(cells, marks)
        self.merges.append(len(cells))


@asynccontextmanager
async def joined(*peers: Peer) -> AsyncIterator[list[Node]]:
    """Nodes for some peers, which know where the others are."""
    network = MemoryNetwork()
    nodes = [
        Node(Identity.generate(), [Memory(network)], [Noise()], [Yamux()], [peer.repair], ["/memory/0"])
        for peer in peers
    ]
    async with nodes[0]:
        for node in nodes[1:]:
            await node.__aenter__()
        try:
            for one in nodes:
                for other in nodes:
                    if one is not other:
                        await one.dial(other.addresses[0])
            yield nodes
        finally:
            for node in reversed(nodes[1:]):
                await node.__aexit__(None, None, None)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():
            await anyio.sleep(0.005)


async def test_two_peers_agree_afterwards_and_the_summary_says_what_it_took() -> None:
    base = many(4_000)
    rng = random.Random(1)
    one, other = Peer(Cells(base)), Peer(Cells(base))
    mine = [cell._replace(value="mine", state=cell.state + 5) for cell in rng.sample(base, 700)]
    theirs = [cell._replace(value="theirs", state=cell.state + 9) for cell in rng.sample(base, 900)]
    one.held.merge(mine)
    other.held.merge(theirs)
    async with joined(one, other) as (a, b):
        summary = await one.repair.with_peer(a.swarm, b.peer)
        assert one.held.graph == other.held.graph == merge(base, mine, theirs)
        assert summary.equal
        assert summary.received == 900
        assert 0 < summary.sent < 700  # where theirs was newer nothing was sent
        again = await other.repair.with_peer(b.swarm, a.peer)
    assert (again.rounds, again.sent, again.received, again.equal) == (1, 0, 0, True)
    assert again.bytes_in + again.bytes_out <= 200
    counters = one.repair.counters
    assert counters.get("repair_cells_received") == 900
    assert counters.get("repair_sessions", "ok") == 1
    assert counters.get("repair_sessions", "served") == 1
    assert counters.get("repair_bytes_sent") > summary.bytes_out


class Disk(Peer):
    """The same with the real store, which only one thread at a time may use."""

    def __init__(self, store: Sqlite) -> None:
        self.store, self.one = store, anyio.CapacityLimiter(1)
        super().__init__(Cells())

    async def ask(self, question: Callable[[RangeSource], None]) -> None:
        await anyio.to_thread.run_sync(question, self.store, limiter=self.one)

    async def merge(self, peer: PeerId, cells: Sequence[Cell], marks: Sequence[Mark]) -> None:
        await anyio.to_thread.run_sync(partial(self.store.write, cells, marks=marks), limiter=self.one)

    def graph(self) -> dict[tuple[str, str], tuple[Cell, Mark]]:
        places = [place for place, _ in self.store.items(None, None, 10**6)]
        return {
            (cell.soul, cell.key): (cell, mark) for cell, mark in zip(*self.store.cells(places), strict=True)
        }


async def test_stores_on_disk_agree_with_marks_and_all(tmp_path: Path) -> None:
    base = many(6_000)
    rng = random.Random(2)
    config = SqliteConfig(durable=False)
    disks = []
    with ExitStack() as closing:
        for name in ("one", "other"):
            store = Sqlite(tmp_path / f"{name}.db", config, writer=name)
            closing.callback(store.close)
            store.write(base, marks=[(("origin", 1),)] * len(base))
            store.write([cell._replace(value=name, state=cell.state + 5) for cell in rng.sample(base, 400)])
            disks.append(Disk(store))
        one, other = disks
        async with joined(one, other) as (a, b):
            summary = await one.repair.with_peer(a.swarm, b.peer)
            again = await other.repair.with_peer(b.swarm, a.peer)
        assert summary.equal
        assert again.rounds == 1
        assert {at: cell for at, (cell, _) in one.graph().items()} == {
            at: cell for at, (cell, _) in other.graph().items()
        }
        writers = {mark[0][0] for _, mark in one.graph().values()}
        assert writers == {"origin", "one", "other"}


async def test_a_range_of_souls_and_a_dry_run() -> None:
    base = many(400)
    one, other = Peer(Cells()), Peer(Cells(base))
    async with joined(one, other) as (a, b):
        counted = await one.repair.with_peer(a.swarm, b.peer, "user/000010", "user/000020", dry_run=True)
        assert (counted.received, counted.sent, counted.equal) == (20, 0, False)
        assert not one.held.graph
        done = await one.repair.with_peer(a.swarm, b.peer, "user/000010", "user/000020")
    assert (done.received, done.equal) == (20, True)
    assert {soul for soul, _ in one.held.graph} == {f"user/0000{i}" for i in range(10, 20)}


async def test_both_may_open_a_session_with_the_other_at_the_same_time() -> None:
    one, other = Peer(Cells(many(3_000)[:2_000])), Peer(Cells(many(3_000)[1_000:]))
    async with joined(one, other) as (a, b), anyio.create_task_group() as tasks:
        tasks.start_soon(one.repair.with_peer, a.swarm, b.peer)
        tasks.start_soon(other.repair.with_peer, b.swarm, a.peer)
    assert one.held.graph == other.held.graph == merge(many(3_000))


async def test_no_more_cells_are_under_way_than_the_credit_while_the_other_side_cannot_merge() -> None:
    one, other = Peer(Cells()), Peer(Cells(many(20_000)))
    async with joined(one, other) as (a, b), anyio.create_task_group() as tasks:
        one.gate = anyio.Event()
        tasks.start_soon(one.repair.with_peer, a.swarm, b.peer)
        await until(lambda: one.waiting)
        assert not one.held.graph
        one.gate.set()
    assert one.held.graph == other.held.graph
    assert max(one.merges) <= 4096


async def test_one_session_per_peer_and_direction_and_a_ceiling_for_all() -> None:
    gate = anyio.Event()
    one, two, three = (Peer(Cells(many(100))) for _ in range(3))
    busy = Peer(Cells(), RepairServiceConfig(inbound_max=2), gate=gate)
    async with joined(busy, one, two, three) as (n, a, b, c), anyio.create_task_group() as tasks:
        tasks.start_soon(one.repair.with_peer, a.swarm, n.peer)
        tasks.start_soon(two.repair.with_peer, b.swarm, n.peer)
        await until(lambda: len(busy.repair._inbound) == 2)
        with pytest.raises(Denied) as refused:
            await one.repair.with_peer(a.swarm, n.peer)
        assert refused.value.code == "repair.busy"
        with pytest.raises(Denied) as refused:
            await three.repair.with_peer(c.swarm, n.peer)
        assert refused.value.code == "repair.busy"
        # Being busy is nothing to be reset for, nor to be blamed for.
        assert c.swarm.session(n.peer) is not None
        gate.set()
    assert busy.held.graph == one.held.graph


async def test_a_store_that_fails_ends_the_session_and_the_other_side_is_told() -> None:
    one, other = Peer(Cells(many(100))), Peer(Cells(), broken="store.full")
    async with joined(one, other) as (a, b):
        with pytest.raises(Denied) as told:
            await one.repair.with_peer(a.swarm, b.peer)
        assert told.value.code == "repair.failed"
        with pytest.raises(StoreError) as own:
            await other.repair.with_peer(b.swarm, a.peer)
        assert own.value.code == "store.full"
        assert a.swarm.session(b.peer) is not None
        await until(lambda: not one.repair._inbound and not other.repair._inbound)
        other.broken = ""
        await one.repair.with_peer(a.swarm, b.peer)
    assert one.held.graph == other.held.graph


async def test_a_connection_that_breaks_in_the_middle_loses_nothing_and_the_next_session_goes_on() -> None:
    one, other = Peer(Cells()), Peer(Cells(many(30_000)))
    one.gate = anyio.Event()
    async with joined(one, other) as (a, b):
        failed: list[AirError] = []

        async def first() -> None:
            try:
                await one.repair.with_peer(a.swarm, b.peer)
            except AirError as error:
                failed.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
            await until(lambda: bool(other.repair._inbound))
            one.gate.set()
            await until(lambda: bool(one.merges))
            for session in a.sessions:
                await session.aclose()
        assert isinstance(failed[0], Closed)
        kept = len(one.held.graph)
        assert 0 < kept < 30_000
        await until(lambda: not other.repair._inbound)
        session = await a.dial(b.addresses[0])
        assert session.peer == b.peer
        summary = await one.repair.with_peer(a.swarm, b.peer)
    # What is under way when the range is compared once more may come twice, and nothing else does.
    assert 30_000 - kept <= summary.received <= 30_000 - kept + CREDIT_CELLS
    assert one.held.graph == other.held.graph


async def test_a_peer_that_stops_talking_is_given_up() -> None:
    config = RepairServiceConfig(RepairConfig(idle_seconds=0.1))
    one, other = Peer(Cells(many(10)), config), Peer(Cells(many(11)))

    async def mute(stream: Stream) -> None:
        try:
            while True:
                await stream.receive()
        except Closed:
            return

    other.repair._serve = mute  # type: ignore[method-assign]
    async with joined(one, other) as (a, b):
        with pytest.raises(LimitReached) as error:
            await one.repair.with_peer(a.swarm, b.peer)
    assert error.value.code == "repair.idle"


async def test_cancelling_a_session_leaves_no_task_and_no_place_taken() -> None:
    one, other = Peer(Cells()), Peer(Cells(many(5_000)))
    one.gate = anyio.Event()
    async with joined(one, other) as (a, b):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.repair.with_peer, a.swarm, b.peer)
            await until(lambda: bool(other.repair._inbound))
            tasks.cancel_scope.cancel()
        await until(lambda: not other.repair._inbound)
        assert not one.repair._outbound
        one.gate.set()
        await one.repair.with_peer(a.swarm, b.peer)
    assert one.held.graph == other.held.graph


async def test_a_peer_that_does_not_know_the_protocol_is_said_so() -> None:
    one = Peer(Cells())
    network = MemoryNetwork()
    async with (
        Node(Identity.generate(), [Memory(network)], [Noise()], [Yamux()], [one.repair], ["/memory/0"]) as a,
        Node(Identity.generate(), [Memory(network)], [Noise()], [Yamux()], [], ["/memory/0"]) as b,
    ):
        await a.dial(b.addresses[0])
        with pytest.raises(Denied) as error:
            await one.repair.with_peer(a.swarm, b.peer)
    assert error.value.code == "multistream.unsupported"


async def drain(stream: Stream) -> Any:
    got = []
    try:
        while True:
            got.append(await stream.receive())
    except Reset as error:
        return error
    except Closed:
        return b"".join(got)


async def test_garbage_is_answered_with_a_code_and_the_stream_ends_alone() -> None:
    one, other = Peer(Cells()), Peer(Cells())
    async with joined(one, other) as (a, b):
        session = await a.dial(b.peer)
        stream = await session.open_stream(PROTOCOL)
        await stream.send(b"\x03abc")
        assert b"repair.malformed" in await drain(stream)
        await stream.aclose()
        await until(lambda: b.swarm.counters.get("streams_failed", "repair.malformed") == 1)
        assert (await one.repair.with_peer(a.swarm, b.peer)).equal
