"""What runs inside a simulated Air peer: the real exchange, and watchers of the real kind. (core)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from air.base.env import Env
from air.base.errors import AirError
from air.base.metrics import Counters
from air.model.cell import Cell, Key, Soul
from air.model.value import Link, Value
from air.sim.disk import SimWorker
from air.store.api import RangeSource
from air.store.batch import Failed, Result
from air.store.memory import Memory
from air.store.worker import StoreWorker
from air.sync.exchange import Exchange, ExchangeConfig
from air.sync.local import Watcher

if TYPE_CHECKING:
    from air.sim.air_peer import AirPeer

__all__ = ["SimExchange", "SimWatcher"]


class _Alarm:
    """Stands for the event that ``Exchange`` sets when something may be due earlier."""

    __slots__ = ("_exchange", "_ringing")

    def __init__(self, exchange: SimExchange) -> None:
        self._exchange, self._ringing = exchange, False

    def set(self) -> None:
        if not self._ringing:
            self._ringing = True
            self._exchange.wake(self)


class _Question:
    """Somebody has asked the store something."""

    __slots__ = ("done",)

    def __init__(self, done: Callable[[AirError | None], None]) -> None:
        self.done = done


class SimExchange(Exchange):
    """The real exchange; only its clock task is turned by the scheduler."""

    def __init__(
        self, peer: AirPeer, memory: Memory, worker: SimWorker, env: Env, config: ExchangeConfig
    ) -> None:
        super().__init__(memory, cast(StoreWorker, worker), env, config, Counters())
        self._peer, self._epoch = peer, peer.epoch
        worker.results = self._results
        self._disk_worker = worker
        self._acks = 0
        """As a hub has it: the link of writes that are answered in this program."""
        self._alarm = cast(Any, _Alarm(self))

    def question(
        self, question: Callable[[RangeSource], None], done: Callable[[AirError | None], None]
    ) -> None:
        """As :meth:`Exchange.ask`: behind all that was written, and ``done`` hears of it."""
        self._disk_worker.ask(_Question(done), lambda disk: question(disk.ranges))

    def _results(self, results: Sequence[Result]) -> None:
        for result in results:
            if isinstance(result.token, _Question):
                result.token.done(result.error if isinstance(result, Failed) else None)
            else:
                super()._results((result,))

    def wake(self, alarm: _Alarm) -> None:
        self._peer.world.scheduler.after(0.0, self.turn, alarm)

    def turn(self, alarm: _Alarm) -> None:
        """One turn of the clock task: it has been woken, and goes to sleep again."""
        if cast(Any, self._alarm) is not alarm or self._epoch != self._peer.epoch or not self._peer.up:
            return
        self.tick(self.env.clock.now())
        fresh = _Alarm(self)
        self._alarm = cast(Any, fresh)
        self._peer.world.scheduler.after(self.nap(self.env.clock.now()), self.turn, fresh)


class SimWatcher(Watcher):
    """A watcher in this program that looks at once."""

    def __init__(self, peer: AirPeer, soul: Soul, key: Key | None, follow: bool) -> None:
        super().__init__(soul, key, 100_000)
        self._peer, self._follow = peer, follow
        self.shown: dict[Key, tuple[Value, float]] = {}
        self.link = 0

    def changed(self, cells: Sequence[Cell]) -> None:
        super().changed(cells)
        self.look()

    def look(self) -> None:
        peer = self._peer
        for cell in self.take():
            # A write may be shown before the disk refuses it; what the disk has is right then.
            known = None if peer.doubtful else self.shown.get(cell.key)
            if peer.clock.offset == peer.plan.offset:
                # After a jump back, what was kept in good time may be shown as it is.
                peer.world.oracle.due(peer.index, (cell,), peer.clock.wall)
            peer.world.oracle.saw(peer.index, cell, known)
            self.shown[cell.key] = (cell.value, cell.state)
            if self._follow and isinstance(cell.value, Link):
                # As an app does it: in the next turn of its event loop.
                peer.world.scheduler.after(0.0, peer.follow, peer.epoch, cell.value.soul)
