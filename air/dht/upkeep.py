"""What the DHT does unasked: fill the table and keep it fresh, put this peer's things again. (shell)"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
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
_CANDIDATES_MAX = 1024
"""Servers that wait to be tried; further ones are met in a search, or not at all."""


@dataclass(eq=False, slots=True)
class _Own:
    """Something that is put again and again."""

    spread: Callable[[], Awaitable[int]]
    due: float
    """When it is to be put next (monotonic)."""


class Upkeep:
    """The tasks behind a :class:`~air.dht.kademlia.Kademlia`."""

    def __init__(self, parts: Parts, bootstrap: Sequence[Multiaddr]) -> None:
        self.parts, self._bootstrap = parts, bootstrap
        self._candidates: dict[PeerId, None] = {}
        """Servers that have shown up and are to be tried."""
        self._wake = anyio.Event()
        self._own: dict[tuple[Kind, bytes], _Own] = {}
        """What this peer has put and provides, by kind and key."""

    # -- what others tell it ---------------------------------------------------

    def presented(self, info: PeerInfo) -> None:
        """A peer has said what it speaks: only servers belong into the table."""
        if self.parts.config.protocol in info.protocols:
            self._suggest(info.peer)
        else:
            self._candidates.pop(info.peer, None)
            self.parts.table.remove(info.peer)

    def _suggest(self, peer: PeerId) -> None:
        if len(self._candidates) < _CANDIDATES_MAX:
            self._candidates[peer] = None
            self._wake.set()

    async def put_value(self, key: bytes, value: bytes) -> int:
        """Put a value, now and again in time; of several puts of a key the last. Returns how many took it."""
        return await self._begin((Kind.PUT_VALUE, key), partial(self.parts.spread_value, key, value))

    async def provide(self, key: bytes) -> int:
        """Provide, now and again in time. Returns how many were told."""
        return await self._begin((Kind.ADD_PROVIDER, key), partial(self.parts.spread_provider, key))

    def stop(self, kind: Kind, key: bytes) -> None:
        """Neither put nor provided again."""
        self._own.pop((kind, key), None)

    # -- its tasks -------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._maintain)
            tasks.start_soon(self._repeat)
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
        """A server that answers gets a place in the table, if there is one, or keeps the one it has."""
        parts = self.parts
        try:
            if peer not in parts.table or peer in parts.table.quiet(parts.host.env.clock.now()):
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
            self.check_quiet()
            parts.records.sweep(now)
            parts.providers.sweep(now)
            await anyio.sleep(_LOOK_SECONDS)

    def check_quiet(self) -> None:
        """Have those tried that no search has come by for long: they may be gone, and their addresses are
        forgotten in time."""
        for peer in self.parts.table.quiet(self.parts.host.env.clock.now()):
            self._suggest(peer)

    async def _join(self) -> None:
        host = self.parts.host
        now = host.env.clock.now()
        for peer in host.peerbook.peers:
            # Dropped for want of answers. It may have been a bad moment, or this node that had no network.
            info = host.peerbook.info(peer)
            if info is not None and info.protocols and host.peerbook.addresses(peer, now):
                self.presented(info)
        async with anyio.create_task_group() as tasks:
            for address in self._bootstrap:
                tasks.start_soon(self._dial, address)

    async def _dial(self, address: Multiaddr) -> None:
        try:
            await self.parts.host.dial(address)
        except AirError as error:
            said = {"peer": str(address), "code": error.code, "reason": str(error)}
            _LOG.info("bootstrap peer unreachable", extra=said)

    async def _repeat(self) -> None:
        """Apart from the rest: putting many things again takes long, and the table must not wait for it."""
        while True:
            await anyio.sleep(_LOOK_SECONDS)
            await self.again()

    async def again(self) -> None:
        """Put and provide what is due."""
        clock = self.parts.host.env.clock
        for name, own in list(self._own.items()):
            # Meanwhile it may have been stopped, or put anew.
            if self._own.get(name) is not own or clock.now().monotonic < own.due:
                continue
            try:
                await self._spread(own)
            except AirError as error:
                # A value may have an end of its own; and servers may be back the next time.
                _LOG.info("not put again", extra={"code": error.code, "reason": str(error)})

    async def _begin(self, name: tuple[Kind, bytes], spread: Callable[[], Awaitable[int]]) -> int:
        own = self._own[name] = _Own(spread, math.inf)
        return await self._spread(own)

    async def _spread(self, own: _Own) -> int:
        config, taken = self.parts.config, 0
        own.due = math.inf
        try:
            taken = await own.spread()
        finally:
            # What nobody took must not wait until others would have forgotten it.
            own.due = self._ahead(config.republish_seconds if taken else config.refresh_seconds)
        return taken

    def _ahead(self, seconds: float) -> float:
        """About so many ahead: not all things of all peers at once."""
        env = self.parts.host.env
        return env.clock.now().monotonic + seconds * (0.9 + 0.1 * env.entropy.fraction())

    def _name(self) -> bytes:
        return self.parts.host.env.entropy.bits(8 * _NAME_BYTES).to_bytes(_NAME_BYTES, "big")
