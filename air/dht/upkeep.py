"""What the DHT does unasked: fill the table and keep it fresh, put this peer's things again. (shell)"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import anyio

from air.base.address import Multiaddr
from air.base.errors import AirError
from air.base.peer_id import PeerId
from air.dht.key import place, preimage
from air.dht.message import Kind, Message
from air.dht.parts import Parts
from air.swarm.peerbook import PeerInfo

__all__ = ["Upkeep"]

_LOG = logging.getLogger("air.dht")

_LOOK_SECONDS = 30.0
"""How often it is looked what is due, once the table has somebody in it."""
_LONELY_SECONDS = 5.0
"""How often while it has nobody."""
_NAME_BYTES = 32


class Upkeep:
    """The tasks behind a :class:`~air.dht.kademlia.Kademlia`."""

    def __init__(self, parts: Parts, bootstrap: Sequence[Multiaddr]) -> None:
        self.parts, self._bootstrap = parts, bootstrap
        self._candidates: dict[PeerId, None] = {}
        """Servers that have shown up and are to be tried."""
        self._wake = anyio.Event()
        self._values: dict[bytes, tuple[bytes, float]] = {}
        """What this peer has put -> the value, and when it is due again (monotonic)."""
        self._provided: dict[bytes, float] = {}

    # -- what others tell it ---------------------------------------------------

    def presented(self, info: PeerInfo) -> None:
        """A peer has said what it speaks: only servers belong into the table."""
        if self.parts.config.protocol in info.protocols:
            self._candidates[info.peer] = None
            self._wake.set()
        else:
            self._candidates.pop(info.peer, None)
            self.parts.table.remove(info.peer)

    def keep_value(self, key: bytes, value: bytes) -> None:
        """Put a value again in time; of several puts of a key the last."""
        self._values[key] = (value, self._due())

    def keep_provided(self, key: bytes) -> None:
        """Provide again in time."""
        self._provided[key] = self._due()

    def drop_value(self, key: bytes) -> None:
        self._values.pop(key, None)

    def drop_provided(self, key: bytes) -> None:
        self._provided.pop(key, None)

    # -- its tasks -------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._maintain)
            await self._check()

    async def _check(self) -> None:
        room = anyio.Semaphore(self.parts.config.checks_max)
        async with anyio.create_task_group() as tasks:
            while True:
                self._wake = anyio.Event()
                while self._candidates:
                    await room.acquire()
                    peer = next(iter(self._candidates), None)
                    if peer is None:
                        room.release()
                        break
                    del self._candidates[peer]
                    tasks.start_soon(self._try, peer, room)
                await self._wake.wait()

    async def _try(self, peer: PeerId, room: anyio.Semaphore) -> None:
        """A server that answers gets a place in the table, if there is one."""
        parts = self.parts
        try:
            if peer not in parts.table:
                [contact] = parts.querier.contacts([peer])
                await parts.querier.ask(contact, Message(Kind.FIND_NODE, parts.host.peer.multihash))
        except AirError:
            # It may come again, or be met in a search.
            return
        finally:
            room.release()

    async def _maintain(self) -> None:
        """What fails is tried again the next time."""
        parts, config = self.parts, self.parts.config
        env, joined = parts.host.env, float("-inf")
        while True:
            if not len(parts.table):
                await self._join()
                with anyio.move_on_after(_LONELY_SECONDS):
                    await parts.ready(1)
                continue
            now = env.clock.now()
            if now.monotonic - joined >= config.refresh_seconds:
                joined = now.monotonic
                await parts.querier.search(parts.host.peer.multihash, settle=config.k)
            for bits in parts.table.stale(now):
                name = preimage(place(parts.host.peer.multihash), bits, self._name)
                await parts.querier.search(name, settle=config.k)
            parts.records.sweep(now)
            parts.providers.sweep(now)
            await self.again()
            await anyio.sleep(_LOOK_SECONDS)

    async def _join(self) -> None:
        host = self.parts.host
        for session in host.sessions:
            # Dropped for want of answers, and still there: it may have been a bad moment.
            info = host.peerbook.info(session.peer)
            if info is not None and info.protocols:
                self.presented(info)
        for address in self._bootstrap:
            try:
                await host.dial(address)
            except AirError as error:
                said = {"peer": str(address), "code": error.code, "reason": str(error)}
                _LOG.info("bootstrap peer unreachable", extra=said)

    async def again(self) -> None:
        """Put and provide what is due."""
        now = self.parts.host.env.clock.now().monotonic
        again = []
        for key, (value, due) in self._values.items():
            if now >= due:
                self._values[key] = (value, self._due())
                again.append(partial(self.parts.spread_value, key, value))
        for key, due in self._provided.items():
            if now >= due:
                self._provided[key] = self._due()
                again.append(partial(self.parts.spread_provider, key))
        for spread in again:
            try:
                await spread()
            except AirError as error:
                # A value may have an end of its own; and servers may be back the next time.
                _LOG.info("not put again", extra={"code": error.code, "reason": str(error)})

    def _due(self) -> float:
        """About ``republish_seconds`` ahead: not all things of all peers at once."""
        env = self.parts.host.env
        seconds = self.parts.config.republish_seconds
        return env.clock.now().monotonic + seconds * (0.9 + 0.1 * env.entropy.fraction())

    def _name(self) -> bytes:
        return self.parts.host.env.entropy.bits(8 * _NAME_BYTES).to_bytes(_NAME_BYTES, "big")
