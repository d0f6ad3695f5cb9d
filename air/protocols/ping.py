"""Ping: is the peer there, and how far away. (shell)

The opener sends 32 random bytes and gets them back, as often as it likes. Source: libp2p ping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakValueDictionary

import anyio

from air.base.errors import AirError, Closed, LimitReached, Misuse, Reset, Violation
from air.base.peer_id import PeerId
from air.mux.api import Priority
from air.swarm.api import Host, StreamHandler
from air.swarm.session import Session
from air.swarm.stream import Stream

__all__ = ["PROTOCOL", "Ping", "PingConfig"]

PROTOCOL: Final = "/ipfs/ping/1.0.0"
SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class PingConfig:
    interval_seconds: float = 0.0
    """Time between pings of each session on our own account; 0 is never, because yamux has its own."""
    timeout_seconds: float = 10.0
    """How long an answer may take; how long who is pinged waits for the next question, and for room."""
    inbound_max: int = 2
    """Ping streams of one peer at a time; a further one is reset (go-libp2p and js-libp2p: 2)."""


class Ping:
    """Answers pings, and asks them: ``await ping(session)`` on the object of a running node."""

    def __init__(self, config: PingConfig | None = None) -> None:
        self._config = PingConfig() if config is None else config
        self._inbound: dict[PeerId, int] = {}
        self._turns: WeakValueDictionary[PeerId, anyio.Lock] = WeakValueDictionary()
        """Of the peers that are being asked."""
        self._host: Host | None = None

    @property
    def handlers(self) -> Mapping[str, StreamHandler]:
        return {PROTOCOL: self._serve}

    async def run(self, host: Host, *, task_status: Any) -> None:
        self._host = host
        if not self._config.interval_seconds:
            task_status.started()
            return
        with host.attend(self._keep_alive):
            task_status.started()
            await anyio.sleep_forever()

    async def ping(self, session: Session, count: int = 1) -> list[float]:
        """Ask ``count`` times on one stream; seconds of each round trip.

        Two who ask one peer take turns: it need not take more than one stream at a time (libp2p-wire 11).
        Raises Violation ``ping.wrong-echo`` or ``ping.timeout``, Closed when the peer ends the stream, and
        whatever opening a stream raises.
        """
        if self._host is None:
            raise Misuse("ping belongs to no running node")
        env, patience = self._host.env, self._config.timeout_seconds
        turn = self._turns.setdefault(session.peer, anyio.Lock())
        found = []
        async with turn, await session.open_stream(PROTOCOL, priority=Priority.CONTROL) as stream:
            try:
                # One scope for all: to enter and leave one takes longer than to move its deadline.
                with anyio.fail_after(patience) as scope:
                    for _ in range(count):
                        sent = env.entropy.bits(8 * SIZE).to_bytes(SIZE, "big")
                        scope.deadline = anyio.current_time() + patience
                        start = env.clock.now().monotonic
                        await stream.send(sent)
                        got = await _take(stream)
                        found.append(env.clock.now().monotonic - start)
                        if got != sent:
                            raise Violation("a ping came back changed", code="ping.wrong-echo")
            except TimeoutError:
                raise Violation("no answer to a ping", code="ping.timeout") from None
        self._host.scores.praise(session.peer, 0.1, env.clock.now())
        return found

    async def _serve(self, stream: Stream) -> None:
        peer = stream.peer
        here = self._inbound.get(peer, 0)
        if here >= self._config.inbound_max:
            raise LimitReached(f"{peer} has its ping streams", code="ping.streams")
        self._inbound[peer] = here + 1
        stream.priority = Priority.CONTROL
        try:
            await self._answer(stream)
        finally:
            left = self._inbound[peer] - 1
            if left:
                self._inbound[peer] = left
            else:
                del self._inbound[peer]

    async def _answer(self, stream: Stream) -> None:
        rest, patience, answering = b"", self._config.timeout_seconds, False
        with anyio.move_on_after(patience) as scope:
            while True:
                try:
                    rest += await stream.receive(64 * SIZE)
                except Reset:
                    raise
                except Closed:
                    if rest:
                        raise Violation("a ping that is cut short", code="ping.truncated") from None
                    return
                whole = len(rest) - len(rest) % SIZE
                if whole:
                    answering = True
                    await stream.send(rest[:whole])
                    answering = False
                    rest = rest[whole:]
                    # Behind the answer, which is not kept waiting for it.
                    scope.deadline = anyio.current_time() + patience
        if answering:
            raise LimitReached("answers to pings that nobody reads", code="ping.unread")
        # A peer that asks rarely opens a new stream each time.

    async def _keep_alive(self, session: Session) -> None:
        while True:
            await anyio.sleep(self._config.interval_seconds)
            try:
                await self.ping(session)
            except AirError:
                # One lost ping is no reason to close anything; the muxer notices a dead peer.
                continue


async def _take(stream: Stream) -> bytes:
    got = await stream.receive(SIZE)
    while len(got) < SIZE:
        got += await stream.receive(SIZE - len(got))
    return got
