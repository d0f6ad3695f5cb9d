"""Relay: the assembled GUN peer, from its settings to its open port. (root)"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from ssl import SSLContext

import anyio

from air.base.clock import SystemClock
from air.base.env import Env
from air.base.errors import AirError, ConfigError
from air.base.keys import Identity, read_secret
from air.base.metrics import Counters
from air.graph.engine import EngineConfig
from air.graph.neighbours import NeighbourConfig
from air.graph.state import Stamps
from air.model.cell import Soul
from air.node.config import Config
from air.node.config import GunConfig as GunSettings
from air.node.lifetime import Lifetime
from air.node.native import Native
from air.store import Memory, Sqlite, SqliteConfig, StoreWorker, WindowConfig, WorkerConfig
from air.sync.gun.guard import GuardConfig
from air.sync.gun.session import GunWire
from air.sync.gun.wire import GunConfig
from air.sync.hub import STAMP_META, Hub, HubConfig
from air.sync.journal import Journal
from air.sync.partition import PartitionConfig
from air.sync.repair.config import Summary
from air.transport.static import StaticFiles
from air.transport.tcp import TcpConfig
from air.transport.tls import client_context, server_context
from air.transport.websocket import WebSocketConfig, WebSocketListener

__all__ = ["Relay"]


class Relay(Lifetime):
    """A GUN peer that serves one port, keeps its data in one folder, and dials its peers.

    ``async with Relay(config) as relay``: inside the block it is open; leaving it says goodbye to the
    peers, writes what is queued and closes the store.
    """

    def __init__(self, config: Config, env: Env | None = None) -> None:
        self._config = config
        self._env = env or Env(clock=SystemClock())
        self.counters = Counters()
        self.hub: Hub
        self.native: Native
        self.journal: Journal
        self.gun_addresses: list[str] = []
        self.native_addresses: list[str] = []
        self.data: Path | None = config.node.data if config.store.engine == "sqlite" else None

    async def compare(
        self, target: str, low: Soul | None = None, high: Soul | None = None, *, dry_run: bool = False
    ) -> Summary:
        """Make the graph and that of another peer hold the same souls, see :meth:`Native.compare`."""
        return await self.native.compare(target, low, high, dry_run=dry_run)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        config, env, counters = self._config, self._env, self.counters
        gun = config.gun
        config.node.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        identity = Identity.load_or_create(config.identity_path)
        memory, worker, last = self._open_store(identity.peer_id)
        hub = self.hub = Hub(
            memory,
            worker,
            identity.peer_id,
            Stamps(identity.peer_id, last),
            env,
            HubConfig(
                engine=EngineConfig(neighbours=NeighbourConfig(subscriptions_max=gun.subscriptions_max)),
                queued_bytes_max=gun.queue_bytes_max,
                partition=PartitionConfig(grace_seconds=config.native.missing_seconds),
            ),
            counters,
        )
        self.journal = Journal(hub)
        websocket = WebSocketConfig(
            origins=None if "*" in gun.origins else frozenset(gun.origins),
            frame_bytes_max=gun.frame_bytes_max,
            handshake_seconds=gun.handshake_seconds,
            handshakes_max=gun.handshakes_max,
            close_seconds=gun.close_seconds,
        )
        listening = WebSocketListener.bind(
            gun.host,
            gun.port,
            config=websocket,
            tcp_config=TcpConfig(
                connections_max=gun.links_max, connections_per_host_max=gun.links_per_address_max
            ),
            tls=self._server_tls(),
            clock=env.clock,
            counters=counters,
        )
        native = self.native = Native(hub, identity, config.native, env, counters)
        async with (
            listening as listener,
            hub.running(),
            native.running(),
            anyio.create_task_group() as tasks,
        ):
            self.native_addresses = list(native.addresses)
            wire = GunWire(hub, GunConfig(keep_alive_seconds=gun.keepalive_seconds, guard=_guard(gun)))
            static = None if gun.static is None else StaticFiles(gun.static)
            self.gun_addresses = list(listener.urls)
            tls: SSLContext | None = None
            for url in gun.peers:
                if url.startswith(("wss:", "https:")):
                    tls = tls or client_context(ca=gun.peer_ca)
                tasks.start_soon(_dial, wire, url, websocket, tls)
            tasks.start_soon(_serve, listener, wire, static)
            try:
                yield
            finally:
                listener.close()
                await hub.quiesce(config.node.stop_seconds / 2)
                tasks.cancel_scope.cancel()

    def _open_store(self, peer_id: str) -> tuple[Memory, StoreWorker | None, float]:
        """Memory, the worker of the disk behind it if there is one, and the highest stamp it remembers."""
        store = self._config.store
        if store.engine == "memory":
            return Memory(store.memory_bytes, authoritative=True), None, 0
        disk = Sqlite(
            self._config.node.data / "air.db",
            SqliteConfig(
                durable=store.durability != "memory",
                key_file=store.key_file,
                cache_bytes=store.page_cache_bytes,
                marks=bool(self._config.native.listen or self._config.native.peers),
            ),
            writer=peer_id,
            clock=self._env.clock,
        )
        try:
            remembered = disk.get_meta(STAMP_META)
            last = 0.0 if remembered is None else float(remembered)
        except (AirError, ValueError):
            # A damaged stamp costs nothing but the guard against a clock that was set back.
            last = 0.0
        worker = StoreWorker(
            disk,
            WorkerConfig(
                durability=store.durability,  # type: ignore[arg-type]
                window=WindowConfig(max_seconds=store.commit_window_ms / 1000),
            ),
            clock=self._env.clock,
            counters=self.counters,
        )
        return Memory(max(store.cache_bytes, 1)), worker, last

    def _server_tls(self) -> SSLContext | None:
        gun = self._config.gun
        if gun.tls_cert is None or gun.tls_key is None:
            return None
        read_secret(gun.tls_key)  # refuses a key that others can read
        return server_context(gun.tls_cert, gun.tls_key)


def _guard(gun: GunSettings) -> GuardConfig:
    """The limits of one link, as far as they can be set."""
    names = {entry.name for entry in fields(gun)}
    return GuardConfig(
        **{entry.name: getattr(gun, entry.name) for entry in fields(GuardConfig) if entry.name in names}
    )


async def _serve(listener: WebSocketListener, wire: GunWire, static: StaticFiles | None) -> None:
    await listener.serve(wire.serve, http=static)


async def _dial(wire: GunWire, url: str, websocket: WebSocketConfig, tls: SSLContext | None) -> None:
    if not url.startswith(("ws://", "wss://", "http://", "https://")):
        raise ConfigError(f"a peer is a ws:// or wss:// URL, not {url!r}", code="config.bad-peer")
    await wire.dial(url, websocket=websocket, tls=tls)
