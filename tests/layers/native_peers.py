"""Whole peers in this process: a hub, its store, and a node that speaks the native wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from air.base.backoff import BackoffConfig
from air.base.keys import Identity
from air.graph.state import Stamps
from air.model.cell import Fields
from air.mux.yamux.conn import Yamux
from air.node.node import Node
from air.node.presets import services, transports
from air.security.noise import Noise
from air.store.memory import Memory as MemoryStore
from air.store.sqlite import Sqlite
from air.store.worker import StoreWorker
from air.swarm.swarm import SwarmConfig
from air.sync.hub import Hub
from air.sync.native.limits import NativeConfig
from air.sync.native.session import GraphSync, PeerLink
from air.transport.memory_transport import Memory, MemoryNetwork

MIB = 1024 * 1024
QUICK = BackoffConfig(first_seconds=0.02, max_seconds=0.1)


@dataclass
class Peer:
    """A peer at work."""

    node: Node
    hub: Hub
    sync: GraphSync
    seen: list[PeerLink] = field(default_factory=list)
    """Every call of ``on_peer``."""

    @property
    def address(self) -> str:
        return str(self.node.addresses[0])

    async def fields(self, soul: str) -> dict[str, Any]:
        return values(await self.hub.get(soul))


def values(fields: Fields) -> dict[str, Any]:
    return {key: value for key, (value, _) in fields.items()}


@asynccontextmanager
async def peer(
    *,
    network: MemoryNetwork | None = None,
    listen: str = "",
    dial: Sequence[str] = (),
    data: Path | None = None,
    config: NativeConfig | None = None,
    identity: Identity | None = None,
    swarm: SwarmConfig | None = None,
) -> AsyncIterator[Peer]:
    """Over memory when there is a ``network``, else over TCP. ``data``: a folder for a store on disk."""
    identity = identity or Identity.generate()
    if data is None:
        memory, worker = MemoryStore(256 * MIB, authoritative=True), None
    else:
        data.mkdir(exist_ok=True)
        disk = Sqlite(data / "air.db", writer=str(identity.peer_id))
        memory, worker = MemoryStore(16 * MIB), StoreWorker(disk)
    hub = Hub(memory, worker, str(identity.peer_id), Stamps(str(identity.peer_id)))
    seen: list[PeerLink] = []
    sync = GraphSync(hub, config, on_peer=seen.append)
    node = Node(
        identity,
        [Memory(network)] if network else transports(),
        [Noise()],
        [Yamux()],
        [*services(), sync],
        [listen or ("/memory/0" if network else "/ip4/127.0.0.1/tcp/0")],
        config=swarm,
    )
    async with hub.running(), node, anyio.create_task_group() as tasks:
        for address in dial:
            tasks.start_soon(dialling, sync, address)
        yield Peer(node, hub, sync, seen)
        tasks.cancel_scope.cancel()


async def dialling(sync: GraphSync, address: str) -> None:
    await sync.dial(address, backoff=QUICK)


@asynccontextmanager
async def many(*peers: Any) -> AsyncIterator[list[Peer]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(one) for one in peers]


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.005)


async def eventually(check: Callable[[], Awaitable[Any]], seconds: float = 10) -> None:
    with anyio.fail_after(seconds):
        while not await check():
            await anyio.sleep(0.005)
