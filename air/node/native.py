"""The native side of a relay: a libp2p node whose service is the graph. (root)"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio
from anyio.abc import TaskGroup

from air.base.address import Multiaddr
from air.base.backoff import Backoff, BackoffConfig
from air.base.env import Env
from air.base.errors import AirError, ConfigError
from air.base.keys import Identity
from air.base.metrics import Counters
from air.base.peer_id import PeerId
from air.model.cell import Cell, Soul
from air.model.mark import Mark
from air.mux.yamux.conn import Yamux
from air.node.config import NATIVE_LISTEN, NativeConfig
from air.node.node import Node
from air.node.presets import services, transports
from air.security.noise import Noise
from air.sync.hub import Hub
from air.sync.native.limits import NativeConfig as WireConfig
from air.sync.native.session import GraphSync, PeerLink
from air.sync.repair.config import Summary
from air.sync.repair.session import Repair

__all__ = ["Native"]

log = logging.getLogger("air.native")

_REFRESH_CELLS: Final = 4096
"""Cells that one visit to the store reads to bring its sums up to date: some milliseconds."""
_REFRESH_SECONDS: Final = 0.25
"""Between two such visits while nobody waits for them: some percent of a core."""
_BUSY_MESSAGES: Final = 100
"""Messages in that time beyond which the store has better things to do."""
_UNEQUAL_MAX: Final = 3
"""Comparisons in a row that found differences to the end, because both sides went on writing. What is written
while two peers are linked is told live, so the next hourly comparison will do."""


class Native:
    """Serves the graph of a hub to Air peers, dials those it is told to, and compares with each of them."""

    def __init__(
        self, hub: Hub, identity: Identity, config: NativeConfig, env: Env, counters: Counters
    ) -> None:
        self._hub, self._config, self._env = hub, config, env
        wire = WireConfig(
            everything=config.everything,
            heartbeat_seconds=config.heartbeat_seconds,
            silent_seconds=config.silent_seconds,
        )
        self.sync = GraphSync(hub, wire, on_peer=self._met)
        self.repair = Repair(hub.ask, self._merge, counters=counters)
        self.node = Node(
            identity,
            transports(),
            [Noise()],
            [Yamux()],
            [*services(), self.sync, self.repair],
            env=env,
            counters=counters,
        )
        self._comparing: set[PeerLink] = set()
        self._tasks: TaskGroup

    @property
    def addresses(self) -> Sequence[str]:
        """Where other peers dial this one."""
        return [str(address) for address in self.node.addresses]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Native]:
        """Listen, dial and compare while the block is open. Raises ConfigError when it cannot listen."""
        async with self.node, anyio.create_task_group() as tasks:
            self._tasks = tasks
            for address in self._config.listen:
                await self._listen(address)
            backoff = BackoffConfig(max_seconds=self._config.retry_seconds)
            for peer in self._config.peers:
                tasks.start_soon(partial(self.sync.dial, peer, backoff=backoff))
            try:
                yield self
            finally:
                tasks.cancel_scope.cancel()

    async def _listen(self, address: str) -> None:
        try:
            await self.node.swarm.listen(address)
        except ConfigError as error:
            if address != NATIVE_LISTEN or self._config.listen != (NATIVE_LISTEN,):
                raise
            # Nobody asked for this port, so a second daemon of this machine shall not fail for it.
            [where] = await self.node.swarm.listen(address.rpartition("/")[0] + "/0")
            log.warning("listening elsewhere", extra={"address": str(where), "reason": error.message})

    # -- comparing -------------------------------------------------------------

    async def compare(
        self,
        target: str,
        low: Soul | None = None,
        high: Soul | None = None,
        *,
        dry_run: bool = False,
    ) -> Summary:
        """Make this store and that of the peer at a multiaddr, or with a peer id, hold the same souls.

        From ``low`` up to ``high``, which is outside; None: no end. Raises as :meth:`Repair.with_peer`.
        """
        peer = PeerId(target) if not target.startswith("/") else await self._peer_at(target)
        return await self.repair.with_peer(self.node.swarm, peer, low, high, dry_run=dry_run)

    async def _peer_at(self, address: str) -> PeerId:
        return (await self.node.dial(Multiaddr(address))).peer

    def _met(self, entry: PeerLink) -> None:
        """A link to a peer that holds everything has opened, or it lacks something that it was told."""
        # Whoever dialled compares; after an overflow it is who dropped something.
        if entry.overflows:
            if entry not in self._comparing:
                self._tasks.start_soon(self._make_equal, entry)
        elif entry.outbound:
            self._tasks.start_soon(self._keep_equal, entry)

    async def _keep_equal(self, entry: PeerLink) -> None:
        """Compare now, and again at every interval while the link lasts."""
        while not entry.ended.is_set():
            await self._make_equal(entry)
            with anyio.move_on_after(self._config.compare_seconds or None):
                await entry.ended.wait()

    async def _refresh_when_idle(self) -> None:
        """Keep the sums of the store near what it holds, so that a comparison need not begin with reading."""
        messages = self._hub.messages
        while True:
            await anyio.sleep(_REFRESH_SECONDS)
            before, messages = messages, self._hub.messages
            while self.sync.peers and messages - before < _BUSY_MESSAGES and await self._refresh():
                await anyio.sleep(_REFRESH_SECONDS)
                before, messages = messages, self._hub.messages

    async def _refresh(self) -> bool:
        """Read some of what has changed; False when the sums are what the store holds."""
        return await self._hub.ask(lambda store: store.refresh(_REFRESH_CELLS))

    async def _make_equal(self, entry: PeerLink) -> None:
        if entry in self._comparing:
            # Whoever is at it sees that more was dropped, and does not stop before that is made good.
            return
        self._comparing.add(entry)
        try:
            await self._compare_until_equal(entry)
        finally:
            self._comparing.discard(entry)

    async def _compare_until_equal(self, entry: PeerLink) -> None:
        waits = Backoff(BackoffConfig(), self._env.entropy)
        unequal = 0
        while not entry.ended.is_set():
            overflows = entry.overflows
            try:
                summary = await self.repair.with_peer(self.node.swarm, entry.peer)
            except AirError as error:
                log.info("not compared", extra={"peer": str(entry.peer), "code": error.code})
            else:
                unequal += not summary.equal
                log.info(
                    "compared",
                    extra={
                        "peer": str(entry.peer),
                        "sent": summary.sent,
                        "received": summary.received,
                        "rounds": summary.rounds,
                        "equal": summary.equal,
                        "seconds": round(summary.seconds, 3),
                    },
                )
                if entry.overflows == overflows and (summary.equal or unequal == _UNEQUAL_MAX):
                    return
            with anyio.move_on_after(waits.failed()):
                await entry.ended.wait()

    async def _merge(self, peer: PeerId, cells: Sequence[Cell], marks: Sequence[Mark]) -> None:
        entry = self.sync.peers.get(peer)
        await self._hub.merge(cells, marks, 0 if entry is None else entry.link)
