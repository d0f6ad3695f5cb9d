"""Node: the parts of a peer put together, and their common lifetime. (root)"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskStatus

from air.base.address import Multiaddr
from air.base.env import Env
from air.base.errors import AirError, ConfigError
from air.base.keys import Identity
from air.base.metrics import Counters
from air.base.peer_id import PeerId
from air.mux.api import Muxer
from air.node.lifetime import Lifetime
from air.security.api import Security
from air.security.pnet import protect
from air.security.psk import PreSharedKey
from air.swarm.api import Service
from air.swarm.events import EventWatch
from air.swarm.session import Session
from air.swarm.stream import Stream
from air.swarm.swarm import Swarm, SwarmConfig, as_address
from air.transport.raw import Transport
from air.transport.resolve import Resolver

__all__ = ["Node"]

_LOG = logging.getLogger("air.node")


class Node(Lifetime):
    """A peer: ``async with Node(…) as node``. Inside the block it listens and dials; then it says goodbye.

    Lists are ordered by preference, and what is not in a list is not there. An address in ``listen`` needs a
    transport in ``transports``.
    """

    def __init__(
        self,
        identity: Identity,
        transports: Sequence[Transport],
        security: Sequence[Security],
        muxers: Sequence[Muxer],
        services: Sequence[Service] = (),
        listen: Iterable[str | Multiaddr] = (),
        *,
        network: PreSharedKey | None = None,
        config: SwarmConfig | None = None,
        env: Env | None = None,
        counters: Counters | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """``network`` is the key of a private network: then only its members are understood.

        Raises ConfigError for an address that cannot be read, and as the parts do.
        """
        env = Env() if env is None else env
        protector = None if network is None else partial(protect, key=network, env=env)
        self.identity = identity
        self.services = tuple(services)
        self.swarm = Swarm(
            identity,
            transports,
            security,
            muxers,
            env=env,
            config=config,
            counters=counters,
            resolver=resolver,
            protector=protector,
        )
        if isinstance(listen, str | Multiaddr):
            # A text is a list too, of characters.
            raise ConfigError(f"listen is a list of addresses, not {listen!r}", code="config.bad-address")
        self._listen = [as_address(address) for address in listen]

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        swarm = self.swarm
        async with swarm.running(), anyio.create_task_group() as tasks:
            with ExitStack() as handlers:
                served = [handlers.enter_context(ExitStack()) for _ in self.services]
                for service, its in zip(self.services, served, strict=True):
                    for protocol, handler in service.handlers.items():
                        its.enter_context(swarm.handle(protocol, handler))
                for service, its in zip(self.services, served, strict=True):
                    await tasks.start(self._run, service, its)
                # Last: whoever comes in finds everything in its place.
                for address in self._listen:
                    await swarm.listen(address)
                try:
                    yield
                finally:
                    tasks.cancel_scope.cancel()

    async def _run(self, service: Service, served: ExitStack, *, task_status: TaskStatus[None]) -> None:
        ready = _Ready(task_status)
        try:
            await service.run(self.swarm, task_status=ready)
        except Exception as error:
            if not ready.told:
                raise
            # Supervision: one service that breaks must not take the node with it. Nor does the node go on
            # announcing what nobody looks after any more.
            served.close()
            code = error.code if isinstance(error, AirError) else "service.failed"
            _LOG.exception("%s: %s has stopped", code, type(service).__name__)

    @property
    def peer(self) -> PeerId:
        """This peer's name."""
        return self.identity.peer_id

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        """Where others dial this peer, with its name at the end."""
        return tuple(address.at(self.peer) for address in self.swarm.addresses)

    @property
    def protocols(self) -> tuple[str, ...]:
        """Protocols with a handler, sorted."""
        return self.swarm.protocols

    @property
    def sessions(self) -> tuple[Session, ...]:
        """All sessions, the oldest first."""
        return self.swarm.sessions

    async def dial(
        self, target: PeerId | Multiaddr | str, addresses: Iterable[Multiaddr] = (), *, new: bool = False
    ) -> Session:
        """A session with a peer, see :meth:`Swarm.dial`."""
        return await self.swarm.dial(target, addresses, new=new)

    async def open_stream(self, peer: PeerId | str, protocols: str | Sequence[str], **how: Any) -> Stream:
        """A new stream to a peer, see :meth:`Swarm.open_stream`."""
        return await self.swarm.open_stream(peer, protocols, **how)

    def events(self) -> EventWatch:
        """What happens to peers from now on: ``async for event in node.events()``."""
        return self.swarm.events()


class _Ready:
    """Remembers whether a service has said that it is ready."""

    def __init__(self, task_status: TaskStatus[None]) -> None:
        self._status = task_status
        self.told = False

    def started(self, value: Any = None) -> None:
        self.told = True
        self._status.started()
