"""Opening a graph: in this program with its data in a folder, or as a view of a peer elsewhere. (root)"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from ssl import SSLContext
from types import TracebackType
from typing import Final, Literal, TypeAlias

import anyio
from anyio.abc import TaskStatus

from air.base.address import Multiaddr
from air.base.backoff import BackoffConfig
from air.base.env import Env
from air.base.errors import AirError, ConfigError
from air.base.groups import lone
from air.base.keys import Identity
from air.base.metrics import Counters
from air.graph.chain import Graph
from air.graph.state import Stamps
from air.store import Memory, Sqlite, SqliteConfig, StoreWorker, WorkerConfig
from air.sync.gun.session import GunWire
from air.sync.hub import STAMP_META, HubConfig
from air.sync.source import AskingHub, HubSource, SourceConfig
from air.transport.tls import client_context

__all__ = ["ConnectConfig", "OpenConfig", "Opening", "connect", "open"]

log = logging.getLogger("air.open")

MIB: Final = 1024 * 1024
_URLS: Final = ("ws://", "wss://", "http://", "https://")
Durability: TypeAlias = Literal["sync", "group", "memory"]
_Built: TypeAlias = tuple[Identity, AskingHub, bool]
"""A hub, its identity, and whether what it has written outlives the process."""


@dataclass(frozen=True, slots=True)
class OpenConfig:
    """What few programs need to change about a graph that they hold themselves."""

    cache_bytes: int = 64 * MIB
    """Nodes kept in memory in front of the disk."""
    memory_bytes: int = 256 * MIB
    """Nodes kept when there is no disk; beyond, the least recently used are forgotten."""
    goodbye_seconds: float = 5.0
    """How long the end of the block waits for peers that are connected to take what is owed to them."""
    retry_max_seconds: float = 10.0
    """The longest wait between two attempts to reach a peer."""
    peer_ca: Path | None = None
    """Authorities that vouch for peers behind wss:// and https://; None: those of this machine."""


@dataclass(frozen=True, slots=True)
class ConnectConfig(OpenConfig):
    """What few programs need to change about a view of a peer's graph."""

    connect_seconds: float = 3.0
    """How long the block waits for the first connection before it begins without one."""
    answer_seconds: float = 5.0
    """How long a read waits for the peer's answer."""
    put_seconds: float = 10.0
    """How long a put waits for the peer's disk."""


class Opening:
    """``async with`` this, and the graph runs while the block is open.

    What the block raises comes out as it is, and what ends the graph from inside as one error, not as a
    group.
    """

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[Graph]]) -> None:
        self._opened = opened
        self._inside: AbstractAsyncContextManager[Graph] | None = None

    async def __aenter__(self) -> Graph:
        self._inside = self._opened()
        try:
            return await self._inside.__aenter__()
        except BaseExceptionGroup as group:
            raise lone(group) from None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        inside, self._inside = self._inside, None
        assert inside is not None
        # A task group would wrap the block's error; only a cancellation may be its own and has to reach it.
        if not isinstance(error, anyio.get_cancelled_exc_class()):
            kind = trace = None
            passed = None
        else:
            passed = error
        try:
            return bool(await inside.__aexit__(kind, passed, trace))
        except BaseExceptionGroup as group:
            raise lone(group) from None


def open(
    path: str | os.PathLike[str] | None = None,
    *,
    peers: Sequence[str] = (),
    durability: Durability = "group",
    config: OpenConfig | None = None,
) -> Opening:
    """Run a graph in this program: ``async with air.open("data") as graph``.

    ``path`` is a folder, made when it is not there, as the daemon keeps its data; None keeps the graph in
    memory. ``peers`` are addresses as for :func:`connect`, to stay connected to: they are told every write,
    and asked for what is not here. ``durability``: a put returns once it is flushed to disk, with others that
    came meanwhile (``group``) or by itself (``sync``); ``memory`` does not flush, so a crash of the system
    may cost the last writes.

    Raises StoreError ``store.locked`` when another program has the folder open, and what the store finds
    wrong.
    """
    chosen = config or OpenConfig()
    return Opening(
        lambda: _running(
            _embedded(None if path is None else Path(path), durability, chosen), peers, chosen, SourceConfig()
        )
    )


def connect(url: str, *more: str, config: ConnectConfig | None = None) -> Opening:
    """View the graph of a peer: ``async with air.connect("ws://127.0.0.1:8765/gun") as graph``.

    ``url`` is ``ws://``, ``wss://``, ``http://`` or ``https://`` of a GUN relay, or the multiaddr of an Air
    peer, such as ``/ip4/127.0.0.1/tcp/8764/p2p/12D3…``; ``more`` may follow. The block begins when one is
    connected, or after ``connect_seconds`` without; connections are made anew for ever. What was read or
    written is held in memory and can be read and written while no peer is reached; what peers have not
    acknowledged is sent when they are back, as long as the block is open.

    Raises ConfigError ``config.bad-peer`` for what is no address.
    """
    chosen = config or ConnectConfig()
    view = SourceConfig(peers_first=True, answer_seconds=chosen.answer_seconds)
    return Opening(lambda: _running(_remote(chosen), [url, *more], chosen, view))


def _embedded(
    path: Path | None, durability: Durability, config: OpenConfig
) -> Callable[[Env, Counters], _Built]:
    def build(env: Env, counters: Counters) -> _Built:
        if path is None:
            return _in_memory(config.memory_bytes, HubConfig(), env, counters)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        identity = Identity.load_or_create(path / "identity.key")
        disk = Sqlite(
            path / "air.db",
            SqliteConfig(durable=durability != "memory"),
            writer=identity.peer_id,
            clock=env.clock,
        )
        try:
            remembered = disk.get_meta(STAMP_META)
            last = 0.0 if remembered is None else float(remembered)
        except (AirError, ValueError):
            # A damaged stamp costs nothing but the guard against a clock that was set back.
            last = 0.0
        worker = StoreWorker(disk, WorkerConfig(durability=durability), clock=env.clock, counters=counters)
        peer_id = identity.peer_id
        hub = AskingHub(
            Memory(config.cache_bytes), worker, peer_id, Stamps(peer_id, last), env, HubConfig(), counters
        )
        return identity, hub, durability != "memory"

    return build


def _remote(config: ConnectConfig) -> Callable[[Env, Counters], _Built]:
    def build(env: Env, counters: Counters) -> _Built:
        hub_config = HubConfig(reach_seconds=config.put_seconds)
        return _in_memory(config.memory_bytes, hub_config, env, counters)

    return build


def _in_memory(limit_bytes: int, config: HubConfig, env: Env, counters: Counters) -> _Built:
    identity = Identity.generate()
    peer_id = identity.peer_id
    memory = Memory(limit_bytes, authoritative=True)
    return identity, AskingHub(memory, None, peer_id, Stamps(peer_id), env, config, counters), False


@asynccontextmanager
async def _running(
    build: Callable[[Env, Counters], _Built],
    peers: Sequence[str],
    config: OpenConfig,
    view: SourceConfig,
) -> AsyncIterator[Graph]:
    for peer in peers:
        if not peer.startswith((*_URLS, "/")):
            raise ConfigError(
                f"a peer is a ws:// or wss:// URL or a multiaddr, not {peer!r}", code="config.bad-peer"
            )
    urls = [peer for peer in peers if not peer.startswith("/")]
    multiaddrs = [Multiaddr(peer) for peer in peers if peer.startswith("/")]
    env, counters = Env(), Counters()
    identity, hub, durable = build(env, counters)
    hub.begin(view)
    backoff = BackoffConfig(max_seconds=config.retry_max_seconds)
    async with hub.running(), anyio.create_task_group() as tasks:
        wire = GunWire(hub)
        tls: SSLContext | None = None
        for url in urls:
            if url.startswith(("wss:", "https:")):
                tls = tls or client_context(ca=config.peer_ca)
            tasks.start_soon(partial(wire.dial, url, tls=tls, backoff=backoff))
        if multiaddrs:
            await tasks.start(_dial_native, hub, identity, multiaddrs, backoff)
        if isinstance(config, ConnectConfig):
            await hub.first_connection(config.connect_seconds)
            if not hub.above:
                log.warning("not connected yet", extra={"peer": peers[0]})
        try:
            yield Graph(HubSource(hub, durable=durable))
        finally:
            await hub.settle_debts(config.goodbye_seconds)
            await hub.quiesce(config.goodbye_seconds)
            tasks.cancel_scope.cancel()


async def _dial_native(
    hub: AskingHub,
    identity: Identity,
    addresses: Sequence[Multiaddr],
    backoff: BackoffConfig,
    *,
    task_status: TaskStatus[None],
) -> None:
    """Speak the native wire with peers, as one that does not hold everything and listens nowhere."""
    # These floors cost as much to import as all others together, and most programs do not need them.
    from air.mux.yamux.conn import Yamux
    from air.protocols import Identify, Ping
    from air.security.noise import Noise
    from air.swarm.swarm import Swarm
    from air.sync.native.limits import NativeConfig
    from air.sync.native.session import GraphSync
    from air.transport.tcp_transport import Tcp
    from air.transport.ws_transport import WebSocket

    sync = GraphSync(hub, NativeConfig(everything=False))
    swarm = Swarm(identity, [Tcp(), WebSocket()], [Noise()], [Yamux()], env=hub.env, counters=hub.counters)
    async with swarm.running(), anyio.create_task_group() as tasks:
        with ExitStack() as handlers:
            for service in (Ping(), Identify(), sync):
                for protocol, handler in service.handlers.items():
                    handlers.enter_context(swarm.handle(protocol, handler))
                await tasks.start(partial(service.run, swarm))
            for address in addresses:
                tasks.start_soon(partial(sync.dial, str(address), backoff=backoff))
            task_status.started()
            await anyio.sleep_forever()
