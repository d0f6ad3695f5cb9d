"""One GUN connection of a simulated Air peer: what ``sync/gun/session`` does, without waiting. (core)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from air.base.errors import Violation
from air.graph.mesh import Role
from air.model.cell import Cell
from air.model.message import Answer, Get, Message, Put, SoulRange
from air.sim.network import End
from air.sim.oracle import Asked
from air.sync.gun.wire import KEEP_ALIVE, Greeting, GunLink

if TYPE_CHECKING:
    from air.sim.air_peer import AirPeer

__all__ = ["SimPort", "note_question"]

_LOOK_SECONDS = 0.05
"""How often a reader that waits looks whether it may go on."""
_ASKED_MAX = 64
_HELD_MAX = 40
"""Questions of one connection that are looked at, and fields of a node for which it is worth while."""


class SimPort:
    """One GUN connection, as ``sync/gun/session`` holds it."""

    def __init__(self, peer: AirPeer, end: End, *, dialer: bool) -> None:
        self.peer_of, self.end, self.dialer = peer, end, dialer
        exchange = peer.exchange
        self.link = GunLink(
            dialer=dialer, pid=peer.pid, ids=exchange.ids, config=peer.wire, counters=exchange.counters
        )
        self.codec = peer.codecs[dialer]
        self._flushing = self._paused = False
        self._backlog: list[bytes] = []
        self.cut_by: Violation | None = None
        self.puts: dict[object, list[list[Cell]]] = {}
        """Writes that came on this link and were not answered yet; liars use an id twice."""
        self.asked: dict[object, Asked] = {}
        """Questions whose answer is still to be looked at."""
        self.opened = peer.world.scheduler.time
        end.events = self
        name = f"peer-{end.remote}" if dialer else ""
        role = Role.OUTBOUND if dialer else Role.INBOUND
        self.id = exchange.open_link(role, self, name, name=name)
        self.wake()
        if not dialer:
            peer.world.scheduler.after(peer.wire.keep_alive_seconds, self._keep_alive)

    # -- as the exchange sees it -------------------------------------------------

    @property
    def peer(self) -> str:
        return self.link.peer

    @property
    def queued_bytes(self) -> int:
        return self.link.queued_bytes

    def queue(self, messages: list[Any]) -> None:
        self.link.queue(messages)

    def changed(self, cells: Sequence[Cell]) -> None: ...

    def wake(self) -> None:
        if not self._flushing:
            self._flushing = True
            self.peer_of.world.scheduler.after(0.0, self._flush)

    def refuse(self, id: object, error: Violation) -> None:
        self.answered(id)
        try:
            self.link.refuse(id, error)
        except Violation as last:
            self.cut(last)
            return
        if error.fatal:
            self.cut(error)

    def cut(self, error: Violation) -> None:
        if self.cut_by is None:
            self.cut_by = error
            self.peer_of.world.cuts += 1
            self.wake()

    def answered(self, id: object) -> list[Cell] | None:
        """What was written as ``id``, now that it is answered."""
        writes = self.puts.get(id)
        if writes is None:
            return None
        if len(writes) == 1:
            del self.puts[id]
        return writes.pop(0)

    # -- writing -----------------------------------------------------------------

    def _flush(self) -> None:
        self._flushing = False
        end = self.end
        if not end.open:
            return
        if self.link.waiting and end.room:
            frames = self.link.take_frames()
            self.peer_of.sending(self, frames)
            end.send(frames)
            self.peer_of.exchange.drained(self.id)
        if self.cut_by is not None:
            end.lose(self.cut_by.code)

    def writable(self) -> None:
        self.wake()

    def _keep_alive(self) -> None:
        if self.end.open:
            if self.end.room:
                self.end.send([KEEP_ALIVE])
            self.peer_of.world.scheduler.after(self.peer_of.wire.keep_alive_seconds, self._keep_alive)

    # -- reading -----------------------------------------------------------------

    def received(self, frame: bytes) -> None:
        if self.cut_by is not None:
            return
        if self._paused:
            self._backlog.append(frame)
            return
        self._take(frame)

    def _take(self, frame: bytes) -> None:
        peer = self.peer_of
        exchange = peer.exchange
        batch: list[Message] = []
        try:
            for item in self.link.receive(frame):
                if isinstance(item, Greeting):
                    self._receive(batch)
                    batch = []
                    exchange.greeted(self.id, item.peer)
                else:
                    batch.append(item)
            self._receive(batch)
            wait = self.link.pace(exchange.env.clock.now())
        except Violation as error:
            self._receive(batch)
            self.cut(error)
            return
        if self.link.waiting:
            self.wake()
        crowded = self.link.queued_bytes > exchange.config.high_bytes or peer.worker.crowded
        if wait > 0 or crowded:
            self._paused = True
            peer.world.scheduler.after(max(wait, _LOOK_SECONDS if crowded else 0.0), self._resume)

    def _receive(self, batch: list[Message]) -> None:
        if not batch:
            return
        for message in batch:
            if type(message) is Put:
                self.puts.setdefault(message.id, []).append(list(message.cells))
            elif type(message) is Get:
                note_question(self.peer_of, self.asked, message)
            if self.dialer and isinstance(message, Put | Answer):
                cells = message.cells if isinstance(message, Put) else message.cells()
                self.peer_of.heard_up.update((self.end.remote, cell) for cell in cells)
        exchange = self.peer_of.exchange
        before = exchange.engine.duplicates
        exchange.receive(self.id, batch)
        if exchange.engine.duplicates != before:
            self.link.guard.repeated(message.id for message in batch)

    def _resume(self) -> None:
        if not self.end.open or self.cut_by is not None:
            return
        exchange = self.peer_of.exchange
        if self.link.queued_bytes > exchange.config.high_bytes or self.peer_of.worker.crowded:
            self.peer_of.world.scheduler.after(_LOOK_SECONDS, self._resume)
            return
        self._paused = False
        while self._backlog and not self._paused and self.cut_by is None:
            self._take(self._backlog.pop(0))

    def closed(self, reason: str) -> None:
        peer = self.peer_of
        peer.ports.pop(self.id, None)
        peer.exchange.close_link(self.id)
        if self.dialer:
            peer.hung_up(self)


def note_question(peer: AirPeer, asked: dict[object, Asked], get: Get) -> None:
    """Note what is durable now: the answer may be newer, but not older."""
    disk, soul, key = peer.disk, get.soul, get.key
    if isinstance(soul, SoulRange) or not (key or get.lex.is_all) or len(asked) >= _ASKED_MAX:
        return
    if key is not None:
        cell = disk.get(soul, key)
        held = [] if cell is None else [cell]
    else:
        held = disk.node(soul)
    if len(held) <= _HELD_MAX:
        asked[get.id] = Asked(peer.world.scheduler.time, held)
