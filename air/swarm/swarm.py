"""The swarm: listeners, dials and sessions of one node. (shell)"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from air.base.address import Multiaddr
from air.base.env import Env
from air.base.errors import AirError, Closed, ConfigError, Misuse, Violation
from air.base.keys import Identity
from air.base.metrics import Counters
from air.base.peer_id import PeerId
from air.mux.api import Muxer
from air.security.api import Security
from air.swarm.api import SessionHook, StreamHandler
from air.swarm.dial import DialConfig
from air.swarm.dialer import Dialed, Dialer, Target
from air.swarm.events import EventHub, EventWatch
from air.swarm.gate import Gate, GateConfig
from air.swarm.hosts import HostLimits, HostLimitsConfig
from air.swarm.lifecycle import Lifecycle, PeerEvent, Stage
from air.swarm.limits import Limits, LimitsConfig
from air.swarm.peerbook import PeerBook, PeerBookConfig, Source
from air.swarm.pool import Pool, PoolConfig
from air.swarm.rank import host_of
from air.swarm.router import Router
from air.swarm.score import ScoreConfig, Scores
from air.swarm.session import Session, SessionConfig
from air.swarm.stream import Stream
from air.swarm.upgrade import Protector, UpgradeConfig, Upgrader
from air.transport.interfaces import own_addresses
from air.transport.raw import RawConn, RawListener, Transport
from air.transport.resolve import Resolver

__all__ = ["Swarm", "SwarmConfig", "as_address"]

_LOG = logging.getLogger("air.swarm")


@dataclass(frozen=True, slots=True)
class SwarmConfig:
    """Everything about connections that can be set."""

    upgrade: UpgradeConfig = field(default_factory=UpgradeConfig)
    session: SessionConfig = field(default_factory=SessionConfig)
    dial: DialConfig = field(default_factory=DialConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    hosts: HostLimitsConfig = field(default_factory=HostLimitsConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    peerbook: PeerBookConfig = field(default_factory=PeerBookConfig)
    events_max: int = 1024
    """Events that wait for one watcher; of a slower one the oldest are lost."""
    sweep_seconds: float = 1.0
    """How often sessions are looked at: who is idle, who is spare, who must go."""
    goodbye_seconds: float = 5.0
    """How long a node that ends may take to say goodbye."""


class Swarm:
    """Works inside ``async with swarm.running()``.

    ``counters`` receives ``sessions_opened`` by direction, ``sessions_closed`` and ``conns_refused`` by code.
    """

    def __init__(
        self,
        identity: Identity,
        transports: Sequence[Transport],
        security: Sequence[Security],
        muxers: Sequence[Muxer],
        *,
        env: Env | None = None,
        config: SwarmConfig | None = None,
        counters: Counters | None = None,
        resolver: Resolver | None = None,
        protector: Protector | None = None,
    ) -> None:
        self.config = config = SwarmConfig() if config is None else config
        self.identity, self.peer = identity, identity.peer_id
        self.env = env = Env() if env is None else env
        self.counters = counters = Counters() if counters is None else counters
        self.transports = tuple(transports)
        self.upgrader = Upgrader(identity, security, muxers, env, config.upgrade, protector)
        self.peerbook: PeerBook = PeerBook(config.peerbook)
        self.scores = Scores(config.score)
        self.limits = Limits(config.limits)
        self.router = Router(env, counters, config.upgrade.multistream)
        self._gate = Gate(config.gate, self.peer, self.scores)
        self._hosts = HostLimits(config.hosts)
        self._pool: Pool[Session] = Pool(self.peer, config.pool)
        self._events = EventHub(config.events_max)
        self._dialer = Dialer(
            self,
            self.transports,
            self.upgrader,
            self.limits,
            self._gate,
            Resolver() if resolver is None else resolver,
            env,
            config.dial,
        )
        self._hooks: list[SessionHook] = []
        self._listeners: list[RawListener] = []
        self._numbers = 0
        self._tasks: TaskGroup | None = None
        self._stopping = False
        counters.describe("sessions_opened", "Sessions with peers, by who dialled.", "direction")
        counters.describe("sessions_closed", "Sessions that ended, by code.", "code")
        counters.describe("conns_refused", "Inbound connections that became no session, by code.", "code")
        counters.gauge("sessions_open", "Sessions open now.", lambda: len(self._pool))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Swarm]:
        """Be at work inside the block. At its end peers are told goodbye; no task is left."""
        if self._tasks is not None or self._stopping:
            raise Misuse("a swarm runs once")
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self._sweep)
                try:
                    yield self
                finally:
                    self._stopping = True
                    for listener in self._listeners:
                        listener.close()
                    with anyio.move_on_after(self.config.goodbye_seconds, shield=True):
                        async with anyio.create_task_group() as farewells:
                            for session in self._pool:
                                farewells.start_soon(session.aclose)
                    tasks.cancel_scope.cancel()
        finally:
            self._tasks = None
            self._events.close()

    # Listening

    async def listen(self, address: Multiaddr | str) -> tuple[Multiaddr, ...]:
        """Accept connections until the swarm ends; returns where.

        Raises ConfigError when the address cannot be read or listened on, or no transport is for it.
        """
        where = as_address(address)
        transport = next((one for one in self.transports if one.handles(where)), None)
        if transport is None:
            raise ConfigError(f"no transport listens on {where}", code="config.no-transport")
        listener: RawListener = await self._running().start(self._serve, transport, where)
        return listener.addresses

    @property
    def listening(self) -> tuple[Multiaddr, ...]:
        """Where it listens, as it was told."""
        return tuple(address for listener in self._listeners for address in listener.addresses)

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        """Where others may dial, with ``0.0.0.0`` and ``::`` spelled out."""
        return tuple(dict.fromkeys(one for address in self.listening for one in _spelled_out(address)))

    async def _serve(
        self, transport: Transport, address: Multiaddr, *, task_status: TaskStatus[RawListener]
    ) -> None:
        async with transport.listen(address) as listener:
            self._listeners.append(listener)
            task_status.started(listener)
            try:
                await listener.serve(self._accepted)
            except Exception:
                # Supervision: a listener that breaks must not take the sessions with it.
                _LOG.exception("swarm.listener-failed: %s", address)
            finally:
                self._listeners.remove(listener)

    async def _accepted(self, raw: RawConn) -> None:
        clock, remote = self.env.clock, raw.remote_address
        life = Lifecycle(self.number(), str(remote), inbound=True)
        group, hold = "", None
        try:
            # Cheap questions first: a handshake costs us as much as it costs the other side.
            self._gate.may_accept(remote)
            group = self._hosts.opened(host_of(remote), clock.now())
            hold = taken = self.limits.connection(inbound=True)
            self.tell(life.to(Stage.HANDSHAKING, clock.now()))

            def admit(peer: PeerId) -> None:
                self._gate.authenticated(peer, remote, clock.now(), inbound=True)
                taken.authenticated(peer)

            upgraded = await self.upgrader.upgrade(raw, dialer=False, admit=admit)
            await self._carry(self._adopt(Dialed(upgraded, raw, life, taken), inbound=True))
        except AirError as error:
            self.counters.add("conns_refused", label=error.code)
            self.tell(*life.end(error.code, clock.now(), lost=False))
        except Exception:
            # Supervision: a fault of one connection must not end the listener.
            self.counters.add("conns_refused", label="swarm.failed")
            _LOG.exception("swarm.failed: %s", remote)
        finally:
            self._hosts.closed(group)
            if hold is not None:
                hold.release()
            self.tell(*life.end("link.reset", clock.now(), lost=True))

    # Dialling

    async def dial(
        self, target: PeerId | Multiaddr | str, addresses: Iterable[Multiaddr] = (), *, new: bool = False
    ) -> Session:
        """A session with a peer: the one there is, unless ``new``, or one that is made.

        ``target`` is a peer, dialled at ``addresses`` and those in the peer book, or an address. Raises
        Unreachable with every attempt and its reason, a limit of this node among them; Denied; Closed when
        the node does not run, or ends; and Violation for a text that is neither.
        """
        tasks = self._running()
        if isinstance(target, str) and target.startswith("/"):
            target = Multiaddr(target)
        given = tuple(addresses)
        if isinstance(target, Multiaddr):
            peer, given = target.peer, (target, *given)
        else:
            peer = PeerId(target)
        bare = tuple(one.bare or one for one in given)
        if peer is None:
            return await self._dialer.dial(Target(None, bare, frozenset(bare)), tasks)
        found = None if new else self._pool.best(peer)
        if found is not None:
            return found
        now = self.env.clock.now()
        if bare and peer != self.peer:
            self.discovered(peer, bare, Source.GIVEN)
        known = self.peerbook.addresses(peer, now)
        every = tuple(dict.fromkeys((*bare, *known)))
        return await self._dialer.dial(Target(peer, every, frozenset(bare)), tasks)

    async def open_stream(self, peer: PeerId | str, protocols: str | Sequence[str], **how: Any) -> Stream:
        """A new stream to ``peer``, which is dialled if need be; ``how`` as in ``Session.open_stream``."""
        session = await self.dial(PeerId(peer))
        return await session.open_stream(protocols, **how)

    def discovered(self, peer: PeerId, addresses: Iterable[Multiaddr], source: Source) -> None:
        """Addresses of a peer came up."""
        now = self.env.clock.now()
        known = tuple(addresses)
        if self.peerbook.add(peer, known, source, now) and known:
            self.tell(PeerEvent(Stage.DISCOVERED, now, peer, address=str(known[0])))

    # Sessions

    @property
    def sessions(self) -> tuple[Session, ...]:
        """All sessions, the oldest first."""
        return tuple(sorted(self._pool, key=lambda one: one.number))

    def session(self, peer: PeerId) -> Session | None:
        """The session that new streams to ``peer`` use."""
        return self._pool.best(peer)

    @contextmanager
    def protect(self, peer: PeerId) -> Iterator[None]:
        """Inside a block, keep sessions with ``peer`` when others are closed for want of room."""
        self._pool.protect(peer)
        try:
            yield
        finally:
            self._pool.unprotect(peer)

    def events(self) -> EventWatch:
        """What happens to peers from now on."""
        return self._events.watch()

    def handle(self, protocol: str, handler: StreamHandler, /) -> AbstractContextManager[None]:
        """Serve a protocol inside a ``with`` block."""
        return self.router.handle(protocol, handler)

    @property
    def protocols(self) -> tuple[str, ...]:
        return self.router.protocols

    @contextmanager
    def attend(self, hook: SessionHook, /) -> Iterator[None]:
        """Run ``hook`` for every session that begins inside a ``with`` block."""
        self._hooks.append(hook)
        try:
            yield
        finally:
            self._hooks.remove(hook)

    # For the dialler

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def tell(self, *events: PeerEvent) -> None:
        self._events.tell(events)

    def adopt_dialed(self, dialed: Dialed) -> Session:
        tasks = self._running()
        session = self._adopt(dialed, inbound=False)
        tasks.start_soon(self._carry, session)
        return session

    def _running(self) -> TaskGroup:
        if self._tasks is None or self._stopping:
            raise Closed("the node is not running", code="node.closed")
        return self._tasks

    def _adopt(self, dialed: Dialed, *, inbound: bool) -> Session:
        upgraded, raw, life, hold = dialed
        now = self.env.clock.now()
        session = Session(
            life.number,
            upgraded,
            inbound=inbound,
            remote_address=raw.remote_address,
            local_address=raw.local_address,
            hold=hold,
            life=life,
            router=self.router,
            env=self.env,
            config=self.config.session,
            multistream=self.config.upgrade.multistream,
            speaks=self._speaks,
            offended=self._offended,
        )
        peer = session.peer
        self._pool.add(session)
        self.peerbook.use(peer)
        self.peerbook.present(peer, public_key=upgraded.public_key)
        if not inbound:
            self.peerbook.add(peer, (raw.remote_address,), Source.CONNECTED, now)
        self.counters.add("sessions_opened", label="in" if inbound else "out")
        self.tell(life.to(Stage.AUTHENTICATED, now, peer=peer))
        return session

    async def _carry(self, session: Session) -> None:
        try:
            await session.run(tuple(self._hooks), self._attend)
        except Exception:
            # Supervision: a session ends alone, whatever happened in it.
            _LOG.exception("swarm.session-failed: %s", session)
        finally:
            now, error = self.env.clock.now(), session.error
            self._pool.remove(session)
            self.peerbook.unuse(session.peer, now)
            session.release()
            self.counters.add("sessions_closed", label=session.reason)
            if isinstance(error, Violation):
                self._offended(session, 2.0)
            self.tell(*session.life.end(session.reason, now, lost=type(error) is not Closed))

    async def _attend(self, hook: SessionHook, session: Session) -> None:
        try:
            await hook(session)
        except Exception as error:
            # Supervision: what a service does on a session must not end the session.
            if not isinstance(error, AirError):
                _LOG.exception("swarm.hook-failed: %s", session)

    def _speaks(self, peer: PeerId, protocol: str) -> bool:
        info = self.peerbook.info(peer)
        return info is not None and protocol in info.protocols

    def _offended(self, session: Session, weight: float) -> None:
        """Blame the peer; once it is shut out, all of its sessions go."""
        if self.scores.blame(session.peer, weight, self.env.clock.now()) and self._tasks is not None:
            for one in self._pool.of(session.peer):
                self._tasks.start_soon(one.aclose, "peer.banned")

    async def _sweep(self) -> None:
        """Look after all sessions: one task instead of timers for each."""
        idle = self.config.pool.idle_seconds
        while True:
            await anyio.sleep(self.config.sweep_seconds)
            now, tasks = self.env.clock.now(), self._tasks
            if tasks is None or self._stopping:
                return
            for session in self._pool:
                event = session.life.observe(session.streams, idle, now)
                if event is not None:
                    self.tell(event)
            for session in self._pool.spare(now):
                tasks.start_soon(session.aclose, "link.supplanted")
            for session in self._pool.surplus(now, partial(self.scores.value, now=now)):
                tasks.start_soon(session.aclose, "limit.sessions")


def as_address(address: Multiaddr | str) -> Multiaddr:
    """An address out of the configuration. Raises ConfigError with a code of :class:`Multiaddr`."""
    if isinstance(address, Multiaddr):
        return address
    try:
        return Multiaddr(address)
    except Violation as error:
        raise ConfigError(f"an address to listen on: {error}", code=error.code) from None


def _spelled_out(address: Multiaddr) -> list[Multiaddr]:
    first = address.parts[0]
    if first.value not in ("0.0.0.0", "::"):
        return [address]
    family = socket.AF_INET if first.name == "ip4" else socket.AF_INET6
    head = f"/{first.name}/{first.value}"
    return [Multiaddr(f"/{first.name}/{ip}{str(address)[len(head) :]}") for ip in own_addresses(family)]
