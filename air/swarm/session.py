"""A session: one multiplexed connection with one peer, its streams and its end. (shell)"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from air.base.address import Multiaddr
from air.base.env import Env
from air.base.errors import AirError, Closed, LimitReached, Reset, Violation
from air.base.peer_id import PeerId
from air.base.public_key import PublicKey
from air.mux.api import MuxedConn, MuxedStream, Priority, ResetCode
from air.negotiate.multistream import MultistreamConfig
from air.negotiate.select import propose, propose_lazily
from air.swarm.api import SessionHook
from air.swarm.lifecycle import Lifecycle
from air.swarm.limits import ConnectionHold, StreamHold
from air.swarm.router import Router
from air.swarm.stream import Stream
from air.swarm.upgrade import Upgraded
from air.transport.api import ByteStream

__all__ = ["Session", "SessionConfig"]

_GO_AWAY: Final = {"peer.banned": 0x1003, "limit.sessions": 0x1005, "link.supplanted": 0x1004}
"""Reason -> what go-libp2p is told; 0 for everything else: to most peers any number means the same."""


@dataclass(frozen=True, slots=True)
class SessionConfig:
    open_seconds: float = 10.0
    """How long opening a stream may take, its negotiation included."""
    drain_seconds: float = 5.0
    """How long handlers may go on after the connection has ended: what has arrived can still be read."""


class Session:
    """One connection with a peer. Made by the swarm; others open streams on it and close it."""

    __slots__ = (
        "__weakref__",
        "_config",
        "_env",
        "_handlers",
        "_hold",
        "_hooks",
        "_multistream",
        "_muxed",
        "_offended",
        "_quiet",
        "_router",
        "_speaks",
        "inbound",
        "life",
        "live",
        "local_address",
        "muxer",
        "number",
        "opened_at",
        "peer",
        "public_key",
        "reason",
        "remote_address",
        "security",
    )

    def __init__(
        self,
        number: int,
        upgraded: Upgraded,
        *,
        inbound: bool,
        remote_address: Multiaddr,
        local_address: Multiaddr | None,
        hold: ConnectionHold,
        life: Lifecycle,
        router: Router,
        env: Env,
        config: SessionConfig,
        multistream: MultistreamConfig,
        speaks: Callable[[PeerId, str], bool],
        offended: Callable[[Session, float], None],
    ) -> None:
        self.number = number
        """Counts the connections of this node."""
        self.peer: PeerId = upgraded.peer
        self.public_key: PublicKey = upgraded.public_key
        self.security, self.muxer = upgraded.security, upgraded.muxer
        self.inbound = inbound
        """Whether the other side dialled."""
        self.remote_address, self.local_address = remote_address, local_address
        self.opened_at = env.clock.now()
        self.life = life
        self.reason = ""
        """The code it ended with; empty while it lives."""
        self.live: set[Stream] = set()
        """Streams with an agreed protocol, both directions."""
        self._muxed: MuxedConn = upgraded.muxed
        self._hold, self._router, self._env, self._config = hold, router, env, config
        self._multistream, self._speaks, self._offended = multistream, speaks, offended
        self._hooks: Sequence[SessionHook] = ()
        self._handlers = 0
        self._quiet: anyio.Event | None = None

    def __repr__(self) -> str:
        way = "from" if self.inbound else "to"
        return f"Session({self.number} {way} {self.peer} {self.remote_address})"

    @property
    def streams(self) -> int:
        """Streams open now, both directions."""
        return self._muxed.streams

    @property
    def rtt_seconds(self) -> float | None:
        """Round trip time as the muxer knows it."""
        return self._muxed.rtt_seconds

    @property
    def relayed(self) -> bool:
        """Whether it leads through another peer."""
        return "p2p-circuit" in self.remote_address.names

    @property
    def closed(self) -> bool:
        """Whether it has ended, or is about to."""
        return bool(self.reason) or self._muxed.error is not None

    @property
    def error(self) -> AirError:
        """For the swarm, after ``run``: how it ended."""
        return self._muxed.error or Reset("the session was cut on this side")

    async def open_stream(
        self,
        protocols: str | Sequence[str],
        *,
        priority: Priority = Priority.INTERACTIVE,
        lazy: bool | None = None,
    ) -> Stream:
        """A new stream in the first of ``protocols`` that the peer speaks.

        ``lazy`` saves a round trip: the stream is there at once, and that the peer does not speak the
        protocol shows at the first ``receive``. By default it is used for a single protocol that the peer has
        said to speak. Raises Denied ``multistream.unsupported``, LimitReached, Closed when the session has
        ended, and Violation ``multistream.timeout`` when the peer does not answer.
        """
        wanted = (protocols,) if isinstance(protocols, str) else tuple(protocols)
        if self.closed:
            raise Closed(f"the session has ended: {self.reason or self._muxed.error}")
        hold = self._hold.stream(inbound=False)
        muxed: MuxedStream | None = None
        try:
            with anyio.fail_after(self._config.open_seconds):
                muxed = await self._muxed.open(priority)
                if lazy is None:
                    lazy = len(wanted) == 1 and self._speaks(self.peer, wanted[0])
                protocol, io = await self._agree(muxed, wanted, lazy)
                hold.negotiated(protocol)
        except BaseException as error:
            hold.release()
            if muxed is not None:
                with anyio.CancelScope(shield=True):
                    await muxed.reset(ResetCode.NONE)
            if isinstance(error, TimeoutError):
                raise Violation("the peer opens no stream in time", code="multistream.timeout") from None
            raise
        stream = Stream(self, muxed, io, protocol, hold)
        self.live.add(stream)
        return stream

    async def _agree(self, muxed: MuxedStream, wanted: tuple[str, ...], lazy: bool) -> tuple[str, ByteStream]:
        if lazy and len(wanted) == 1:
            return wanted[0], propose_lazily(muxed, wanted[0], env=self._env, config=self._multistream)
        agreed = await propose(muxed, wanted, env=self._env, config=self._multistream)
        return agreed.protocol, agreed.stream

    async def aclose(self, reason: str = "link.closed") -> None:
        """Send what streams have accepted, say goodbye, end. A few seconds at most. May be repeated."""
        if not self.reason:
            self.reason = reason
        await self._muxed.aclose(_GO_AWAY.get(reason, 0))

    async def abort(self, reason: str) -> None:
        """End at once and without a goodbye, because the peer is not there to hear it. May be repeated."""
        if not self.reason:
            self.reason = reason
        await self._muxed.abort()

    def release(self) -> None:
        """For the swarm: stop counting the connection."""
        self._hold.release()

    def tell_state(self) -> Iterator[str]:
        """What its multiplexer knows and waits for, a line for each. For looking into one that hangs."""
        tell = getattr(self._muxed, "tell_state", None)
        return iter(()) if tell is None else tell()

    def offended(self, weight: float) -> None:
        """The peer has broken a rule on this session."""
        self._offended(self, weight)

    async def run(
        self,
        hooks: Sequence[SessionHook],
        attend: Callable[[SessionHook, Session], Coroutine[Any, Any, None]],
    ) -> None:
        """For the swarm: carry the session until it ends; ``error`` says how it did."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._accept, tasks)
                # Not a task group of their own: a session that is idle is to cost little, and most hooks
                # are done after a moment.
                attending: set[anyio.CancelScope] = set()
                for hook in hooks:
                    tasks.start_soon(self._attended, hook, attend, attending)
                await self._muxed.run()
                for scope in tuple(attending):
                    scope.cancel()
                with anyio.move_on_after(self._config.drain_seconds):
                    while self._handlers:
                        self._quiet = anyio.Event()
                        await self._quiet.wait()
                tasks.cancel_scope.cancel()
        finally:
            for stream in tuple(self.live):
                stream.release()
            if not self.reason:
                self.reason = self.error.code

    async def _attended(
        self,
        hook: SessionHook,
        attend: Callable[[SessionHook, Session], Coroutine[Any, Any, None]],
        attending: set[anyio.CancelScope],
    ) -> None:
        with anyio.CancelScope() as scope:
            attending.add(scope)
            try:
                await attend(hook, self)
            finally:
                attending.discard(scope)

    async def _accept(self, tasks: TaskGroup) -> None:
        while True:
            try:
                muxed = await self._muxed.accept()
            except AirError:
                # How it ended is in ``run``'s hands.
                return
            try:
                hold = self._hold.stream(inbound=True)
            except LimitReached:
                await muxed.reset(ResetCode.RESOURCE_LIMIT)
                continue
            self._handlers += 1
            tasks.start_soon(self._serve, muxed, hold)
            # Not kept until the next one comes: it may be closed long before.
            del muxed, hold

    async def _serve(self, muxed: MuxedStream, hold: StreamHold) -> None:
        try:
            await self._router.serve(self, muxed, hold)
        finally:
            self._handlers -= 1
            if self._quiet is not None and not self._handlers:
                self._quiet.set()
                self._quiet = None
