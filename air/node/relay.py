"""Relay: the assembled GUN peer, from its settings to its open port. (root)"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
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
from air.node.config import Config
from air.store import Memory, Sqlite, SqliteConfig, StoreWorker, WindowConfig, WorkerConfig
from air.sync.gun.session import GunWire
from air.sync.gun.wire import GunConfig
from air.sync.hub import STAMP_META, Hub, HubConfig
from air.transport.static import StaticFiles
from air.transport.tcp import TcpConfig
from air.transport.tls import client_context, server_context
from air.transport.websocket import WebSocketConfig, WebSocketListener

__all__ = ["Relay"]


class Relay:
    """A GUN peer that serves one port, keeps its data in one folder, and dials its peers.

    ``async with Relay(config) as relay``: inside the block it is open; leaving it says goodbye to the
    peers, writes what is queued and closes the store.
    """

    def __init__(self, config: Config, env: Env | None = None) -> None:
        self._config = config
        self._env = env or Env(clock=SystemClock())
        self._stack = AsyncExitStack()
        self.counters = Counters()
        self.hub: Hub
        self.gun_addresses: list[str] = []
        self.data: Path | None = config.node.data if config.store.engine == "sqlite" else None

    async def __aenter__(self) -> Relay:
        await self._stack.__aenter__()
        try:
            await self._stack.enter_async_context(self._opened())
        except BaseException as error:
            await self._stack.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(self, *error: object) -> bool | None:
        return await self._stack.__aexit__(*error)  # type: ignore[arg-type]

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        config, env, counters = self._config, self._env, self.counters
        gun = config.gun
        config.node.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        identity = Identity.load_or_create(config.identity_path)
        memory, worker, last = self._open_store()
        hub = self.hub = Hub(
            memory,
            worker,
            identity.peer_id,
            Stamps(identity.peer_id, last),
            env,
            HubConfig(
                engine=EngineConfig(neighbours=NeighbourConfig(subscriptions_max=gun.subscriptions_max)),
                queued_bytes_max=gun.queue_bytes_max,
            ),
            counters,
        )
        websocket = WebSocketConfig(
            origins=None if "*" in gun.origins else frozenset(gun.origins),
            frame_bytes_max=gun.frame_bytes_max,
            handshake_seconds=gun.handshake_seconds,
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
        async with listening as listener, hub.running(), anyio.create_task_group() as tasks:
            wire = GunWire(hub, GunConfig(keep_alive_seconds=gun.keepalive_seconds))
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

    def _open_store(self) -> tuple[Memory, StoreWorker | None, float]:
        """Memory, the worker of the disk behind it if there is one, and the highest stamp it remembers."""
        store = self._config.store
        if store.engine == "memory":
            return Memory(store.memory_bytes, authoritative=True), None, 0
        disk = Sqlite(
            self._config.node.data / "air.db",
            SqliteConfig(durable=store.durability != "memory", key_file=store.key_file),
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


async def _serve(listener: WebSocketListener, wire: GunWire, static: StaticFiles | None) -> None:
    await listener.serve(wire.serve, http=static)


async def _dial(wire: GunWire, url: str, websocket: WebSocketConfig, tls: SSLContext | None) -> None:
    if not url.startswith(("ws://", "wss://", "http://", "https://")):
        raise ConfigError(f"a peer is a ws:// or wss:// URL, not {url!r}", code="config.bad-peer")
    await wire.dial(url, websocket=websocket, tls=tls)
