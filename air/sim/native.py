"""The native wire of a simulated peer: the real service and the real links, turned by the scheduler. (core)

Which of two links is kept, what a hello leads to, what is said when a link ends: that is the daemon's own
code. What stands here is its reader and its writer, without waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

from air.base.errors import AirError, Closed
from air.graph.mesh import Role
from air.model.cell import Cell
from air.model.mark import Mark
from air.model.message import Ack, Answer, Get, Put
from air.sim.oracle import Asked
from air.sim.port import note_question
from air.sim.session import Keys, SimSession, SimStream
from air.sync.native.carrier import Carrier
from air.sync.native.limits import NativeConfig
from air.sync.native.link import Event, NativeLink
from air.sync.native.rates import Rates
from air.sync.native.session import GraphSync, PeerLink

if TYPE_CHECKING:
    from air.sim.air_peer import AirPeer

__all__ = ["GRAPH", "HEARTBEAT_SECONDS", "RETRY_SECONDS", "SILENT_SECONDS", "SimCarrier", "SimGraph"]

GRAPH: Final = b"\x01"
"""What a stream begins with that speaks the native wire."""
HEARTBEAT_SECONDS: Final = 5.0
SILENT_SECONDS: Final = 20.0
RETRY_SECONDS: Final = 2.0
"""As the daemon sets them for peers that hold everything."""

_LOOK_SECONDS: Final = 0.05
"""How often a reader that waits looks whether it may go on."""
_LAST_WORDS_SECONDS: Final = 1.0


class _News:
    """Stands for an event and for the reader's scope: something has changed."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def set(self) -> None:
        self._call()

    cancel = set


class SimCarrier(Carrier):
    """One native link at work."""

    def __init__(self, graph: SimGraph, link: NativeLink, stream: SimStream, address: str) -> None:
        # Not the real one's constructor, which makes primitives of an event loop.
        self.link, self.stream = link, cast(Any, stream)
        self._hub, self._config = cast(Any, graph.peer_of.exchange), graph.config
        self._opened = lambda carrier, hello: graph._opened(carrier, hello, address)
        self._overflowed = graph._overflowed
        self.id = None
        self.end = self.left = None
        self._news = self._reading = cast(Any, _News(self._stir))
        self._graph, self._line = graph, stream
        self._world = graph.peer_of.world
        self._paused = self._flushing = self.done = False
        self._alarm = float("inf")
        self.puts: dict[object, tuple[Sequence[Cell], Sequence[Mark] | None]] = {}
        """Writes that came and were not answered yet."""
        self.asked: dict[object, Asked] = {}
        """Questions whose answer is still to be looked at."""
        stream.sink = self
        self._stir()

    # -- what the oracle wants to know -----------------------------------------------

    def queue(self, messages: list[Any]) -> None:
        peer = self._graph.peer_of
        for message in messages:
            if type(message) is Ack and (taken := self.puts.pop(message.re, None)) and message.error is None:
                self._world.oracle.promised(peer.index, taken[0], peer.disk.get)
                self._world.causes.took(peer.index, *taken)
            elif type(message) is Answer and message.re in self.asked:
                self._answers(message)
        super().queue(messages)

    def _answers(self, answer: Answer) -> None:
        """Compare an answer with what was durable when it was asked for."""
        question = self.asked[answer.re]
        # A large node comes in parts, which are not put together here.
        if answer.more or self._world.oracle.answers(question, answer.cells()):
            del self.asked[answer.re]

    def _take(self, event: Event) -> None:
        peer = self._graph.peer_of
        if isinstance(event, Put | Answer):
            cells = event.cells if isinstance(event, Put) else event.cells()
            self._world.lied(self._line.session, cells)
            if isinstance(event, Put):
                self.puts[event.id] = (cells, event.marks)
                self._world.crossed(self._line.session, cells)
            if self.link.outbound and self.link.role is not Role.PEER:
                peer.heard_up.update((self._line.session.end.remote, cell) for cell in cells)
        elif isinstance(event, Get):
            note_question(peer, self.asked, event)
        super()._take(event)

    # -- writing ---------------------------------------------------------------------

    def _stir(self) -> None:
        if not self._flushing and not self.done:
            self._flushing = True
            self._world.scheduler.after(0.0, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        link, hub, line = self.link, self._hub, self._line
        if self.done or not self._graph.alive:
            return
        if self.end is not None:
            link.say_bye(self.end.code, str(self.end))
        elif self.left is not None:
            self._finish()
            return
        now = self._now()
        while line.clear and (data := link.take_output(now)):
            line.send(data)
            if self.id is not None and self.end is None:
                hub.drained(self.id)
                held = link.take_held()
                if held:
                    hub.receive(self.id, held)
        if self.end is not None:
            if line.clear:
                self._finish()
            else:
                self._world.scheduler.after(_LAST_WORDS_SECONDS, self._finish)
            return
        self._rearm()

    def _finish(self) -> None:
        if not self.done and self._graph.alive:
            self.done = True
            self._line.close()
            self._graph.ended(self)

    def _now(self) -> Any:
        return self._hub.env.clock.now()

    # -- reading ---------------------------------------------------------------------

    def readable(self) -> None:
        while not (self._paused or self.end or self.left or self.done):
            data = self._line.read()
            if data is None:
                return
            self._hear(data)

    def writable(self) -> None:
        if self.link.ready or self.link.deadline < self._alarm:
            self._stir()

    def ended(self, error: Closed) -> None:
        self.left = self.left or error
        self._stir()

    def _hear(self, data: bytes) -> None:
        link = self.link
        try:
            for event in link.receive(data, self._now()):
                self._take(event)
                if self.end is not None:
                    return
            wait = link.rates.wait(self._now())
        except Closed as error:
            self.left = error
            self._stir()
            return
        except AirError as error:
            self.cut(error)
            return
        if link.ready:
            self._stir()
        link.pause()
        if wait > 0 or self._crowded:
            self._paused = True
            self._world.scheduler.after(max(wait, _LOOK_SECONDS), self._resume)
        else:
            self._go_on()

    @property
    def _crowded(self) -> bool:
        hub, link = self._hub, self.link
        reading = self.id is not None and hub.engine.reading(self.id) >= self._config.reads_max
        waits = reading and link.queued_bytes <= hub.config.high_bytes
        return waits or self._graph.peer_of.worker.crowded

    def _resume(self) -> None:
        if self.done or not self._graph.alive:
            return
        if self._crowded:
            self._world.scheduler.after(_LOOK_SECONDS, self._resume)
            return
        self._paused = False
        self._go_on()
        self.readable()

    def _go_on(self) -> None:
        self.link.taken()
        self.link.resume(self._now())
        if self.link.ready:
            self._stir()
        self._rearm()

    # -- time ------------------------------------------------------------------------

    def _rearm(self) -> None:
        # A writer that waits for the network does not look at the time; the reader notices silence.
        due = self.link.deadline if self._line.clear else self.link.silent_at
        if due < self._alarm:
            self._alarm = due
            # A moment later: what is due is judged by a difference, which rounding may make too small.
            self._world.scheduler.at(max(due, self._world.scheduler.time) + 0.001, self._ring, due)

    def _ring(self, due: float) -> None:
        if due != self._alarm or self.done or not self._graph.alive:
            return
        self._alarm = float("inf")
        if self.end is None:
            self._tick()
        self._stir()


class SimGraph(GraphSync):
    """The native wire of one process."""

    peer_of: AirPeer

    def __init__(self, peer: AirPeer, keys: Keys, on_peer: Callable[[PeerLink], None]) -> None:
        # A debt of more than fits would never be paid, so only who repairs may have little room.
        everything, tight = peer.plan.everything, peer.plan.everything and peer.plan.narrow
        config = NativeConfig(
            everything=everything,
            heartbeat_seconds=HEARTBEAT_SECONDS,
            silent_seconds=SILENT_SECONDS,
            # Small enough that the ceilings are met within a minute.
            outbox_cells_max=24 if tight else 200_000,
            credit_cells=16 if tight else 32_768,
            credit_bytes=4_096 if tight else 4 * 1024 * 1024,
            batch_cells=8 if tight else 2_048,
        )
        super().__init__(cast(Any, peer.exchange), config, on_peer=on_peer)
        self._host = cast(Any, SimpleNamespace(peer=keys.identity.peer_id))
        self.peer_of, self._epoch = peer, peer.epoch

    @property
    def alive(self) -> bool:
        """The process is still the one that it began in."""
        return self.peer_of.up and self._epoch == self.peer_of.epoch

    @property
    def carriers(self) -> list[SimCarrier]:
        return sorted(
            (cast(SimCarrier, carrier) for carrier in self._carriers), key=lambda carrier: carrier.id or 0
        )

    def carry(self, stream: SimStream, address: str) -> None:
        """As :meth:`GraphSync._run` begins."""
        peer, now = str(stream.peer), self.peer_of.clock.now()
        rates, count = self._rates.get(peer) or (Rates(self.config.rates), 0)
        if count >= self.config.links_per_peer_max:
            stream.reset()
            return
        self._rates[peer] = (rates, count + 1)
        link = NativeLink(
            own=self.peer_of.name,
            expected=peer,
            outbound=stream.outbound,
            ids=self.peer_of.exchange.ids,
            config=self.config,
            rates=rates,
            now=now,
        )
        self._carriers.add(SimCarrier(self, link, stream, address))

    def ended(self, carrier: SimCarrier) -> None:
        """As :meth:`GraphSync._run` ends."""
        self._closed(carrier)
        session = cast(SimSession, carrier.stream.session)
        if carrier.end is not None and carrier.end.code == "link.silent":
            session.cut("link.silent")
        if carrier.link.outbound and self.peer_of.native is not None:
            self.peer_of.native.over(session)

    def linked(self, peer: str) -> bool:
        """There is a link to a peer that holds everything."""
        return peer in self._peers
