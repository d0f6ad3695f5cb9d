"""Comparing and mending between simulated peers: the real sides of a session, turned by the scheduler. (core)

When it is compared, and how often again, is what ``node/native`` says; how a session goes is what
``sync/repair/session`` says. Both are written here once more without waiting, in the same order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, cast

from air.base.backoff import Backoff, BackoffConfig
from air.base.errors import AirError, Closed, Denied, LimitReached, Violation
from air.codec.frame import FrameReader, encode_frames
from air.model.cell import Cell
from air.model.mark import Mark
from air.mux.api import Priority
from air.sim.session import SimSession, SimStream
from air.store.api import RangeSource
from air.sync.native.session import PeerLink
from air.sync.repair.config import FRAME_BYTES_MAX, RepairConfig, Summary
from air.sync.repair.initiator import Initiator
from air.sync.repair.responder import Responder
from air.sync.repair.salt import SALT_BYTES
from air.sync.repair.session import BUSY, RepairServiceConfig

if TYPE_CHECKING:
    from air.sim.air_peer import AirPeer

__all__ = ["REPAIR", "Mender", "Talk"]

REPAIR: Final = b"\x02"
"""What a stream begins with on which two stores are compared."""
_FRAME_ROOM: Final = 64
_UNEQUAL_MAX: Final = 3
_COMPARE_SECONDS: Final = 3600.0


class Talk:
    """One session at work."""

    def __init__(
        self,
        mender: Mender,
        side: Initiator | Responder,
        stream: SimStream | None,
        over: Callable[[AirError | None], None],
        config: RepairConfig,
        session: SimSession,
    ) -> None:
        self._mender, self._side, self._stream, self._over = mender, side, stream, over
        self._config, self._session = config, session
        self._reader = FrameReader(FRAME_BYTES_MAX + _FRAME_ROOM)
        self._frames: deque[bytes] = deque()
        self._ended: Closed | None = None
        self._busy = self._stepping = self.done = False
        self._idle_at = 0.0
        if stream is not None:
            stream.sink = self
        self._world = mender.peer_of.world
        self._step_soon()

    # -- as the stream sees it -----------------------------------------------------

    def readable(self) -> None:
        assert self._stream is not None
        try:
            while (data := self._stream.read()) is not None:
                self._frames += self._reader.receive(data)
        except AirError as error:
            self._fail(error)
            return
        self._step_soon()

    def writable(self) -> None:
        self._step_soon()

    def ended(self, error: Closed) -> None:
        self._ended = self._ended or error
        self._step_soon()

    # -- its turns -------------------------------------------------------------------

    def _step_soon(self) -> None:
        if not self._stepping and not self._busy and not self.done:
            self._stepping = True
            self._world.scheduler.after(0.0, self._step)

    def _step(self) -> None:
        self._stepping = False
        if self.done or self._busy or not self._mender.alive:
            return
        if self._stream is not None and not self._stream.clear and self._ended is None:
            return
        side = self._side
        try:
            while self._frames:
                side.receive(self._frames.popleft())
        except AirError as error:
            self._fail(error)
            return
        if (taken := side.take_received()) is not None:
            cells, marks, batches = taken
            self._busy = True
            self._mender.merge(self._session, cells, marks, lambda error: self._merged(batches, error))
        elif side.busy:
            self._busy = True
            self._mender.ask(side.work, self._worked)
        elif isinstance(side, Initiator) and side.done:
            if self._stream is not None:
                self._stream.send_eof()
            self._finish(None)
        elif self._ended is not None:
            if isinstance(side, Responder) and type(self._ended) is Closed:
                self._finish(None)
            else:
                self._fail(Closed("the other side ended the session", code="repair.cut"))
        else:
            self._idle_at = self._world.scheduler.time
            self._world.scheduler.after(self._config.idle_seconds, self._idle, self._idle_at)
        self._say()

    def _merged(self, batches: int, error: AirError | None) -> None:
        self._busy = False
        if error is not None:
            self._fail(error)
        elif not self.done:
            self._side.merged(batches)
            self._say()
            self._step_soon()

    def _worked(self, error: AirError | None) -> None:
        self._busy = False
        if error is not None:
            self._fail(error)
        elif not self.done:
            self._say()
            self._step_soon()

    def _say(self) -> None:
        output = self._side.take_output()
        if not output or self._ended is not None:
            return
        if self._stream is None:
            # Until there is something to say, the other side need not wait for it.
            self._stream = self._session.open_stream(REPAIR, Priority.BULK)
            if self._stream is None:
                self._fail(Closed("there is no connection any more"))
                return
            self._stream.sink = self
        self._stream.send(encode_frames(output))

    def _idle(self, since: float) -> None:
        if since == self._idle_at and not self.done and self._mender.alive and not self._busy:
            self._fail(LimitReached("nothing to do for too long", code="repair.idle"))

    def _fail(self, error: AirError) -> None:
        if self.done:
            return
        if not isinstance(error, Denied | Closed) and self._stream is not None and self._ended is None:
            self._side.refuse(error.code if isinstance(error, Violation) else "repair.failed")
            self._stream.send(encode_frames(self._side.take_output()))
        self._finish(error)

    def _finish(self, error: AirError | None) -> None:
        self.done = True
        if self._stream is not None:
            self._stream.close()
        self._over(error)


class Mender:
    """Serves comparisons in one process, and begins them."""

    def __init__(self, peer: AirPeer) -> None:
        self.peer_of, self._epoch = peer, peer.epoch
        self.config = RepairServiceConfig()
        self._inbound: set[str] = set()
        self._outbound: set[str] = set()
        self._comparing: set[int] = set()
        self.sessions = self.unequal = self.failed = 0

    @property
    def alive(self) -> bool:
        return self.peer_of.up and self._epoch == self.peer_of.epoch

    # -- when, as ``node/native`` has it -------------------------------------------------

    def met(self, entry: PeerLink) -> None:
        """A link to a peer that holds everything has opened, or has had to drop what waited."""
        # A task that is started runs when the one that started it waits.
        if entry.overflows:
            self.peer_of.world.scheduler.after(0.0, self._make_equal, entry, False)
        elif entry.outbound:
            self.peer_of.world.scheduler.after(0.0, self._make_equal, entry, True)

    def _make_equal(self, entry: PeerLink, again: bool) -> None:
        """``again``: and once more at every interval."""
        if not self.alive or entry.ended.is_set():
            return
        if again:
            self.peer_of.world.scheduler.after(_COMPARE_SECONDS, self._make_equal, entry, True)
        if entry.link not in self._comparing:
            self._comparing.add(entry.link)
            self._compare(entry, Backoff(BackoffConfig(), self.peer_of.exchange.env.entropy), 0)

    def _compare(self, entry: PeerLink, waits: Backoff, unequal: int) -> None:
        if not self.alive:
            return
        if entry.ended.is_set():
            self._comparing.discard(entry.link)
            return
        overflows = entry.overflows

        def over(result: Summary | AirError) -> None:
            missed = unequal
            if isinstance(result, Summary):
                missed += not result.equal
                if entry.overflows == overflows and (result.equal or missed == _UNEQUAL_MAX):
                    self._comparing.discard(entry.link)
                    return
            self.peer_of.world.scheduler.after(waits.failed(), self._compare, entry, waits, missed)

        self._with_peer(entry, over)

    # -- a session, as ``sync/repair/session`` has it --------------------------------------

    def _with_peer(self, entry: PeerLink, over: Callable[[Summary | AirError], None]) -> None:
        peer, session = str(entry.peer), cast(SimSession, entry.session)
        if peer in self._outbound or len(self._outbound) >= self.config.outbound_max:
            over(Denied("too many repair sessions, or one with this peer", code=BUSY))
            return
        self._outbound.add(peer)
        self.sessions += 1
        entropy = self.peer_of.exchange.env.entropy
        salt = entropy.bits(8 * SALT_BYTES).to_bytes(SALT_BYTES, "big")
        side = Initiator(salt, config=self.config.session)

        def ended(error: AirError | None) -> None:
            self._outbound.discard(peer)
            self.failed += error is not None
            if error is None:
                self.unequal += not side.equal
            over(error if error is not None else side.summary(0.0))

        Talk(self, side, None, ended, self.config.session, session)

    def serve(self, stream: SimStream) -> None:
        peer = str(stream.peer)
        side = Responder(self.config.session)
        if peer in self._inbound or len(self._inbound) >= self.config.inbound_max:
            side.refuse(BUSY)
            stream.send(encode_frames(side.take_output()))
            stream.close()
            return
        self._inbound.add(peer)
        Talk(
            self,
            side,
            stream,
            lambda error: self._inbound.discard(peer),
            self.config.session,
            stream.session,
        )

    def ask(self, work: Callable[[RangeSource], None], done: Callable[[AirError | None], None]) -> None:
        self.peer_of.exchange.question(work, done)

    def merge(
        self,
        session: SimSession,
        cells: Sequence[Cell],
        marks: Sequence[Mark],
        done: Callable[[AirError | None], None],
    ) -> None:
        peer = self.peer_of
        peer.world.lied(session, cells)
        peer.world.crossed(session, cells)
        entry = None if peer.native is None else peer.native.graph.peers.get(session.peer)
        peer.merge(cells, marks, 0 if entry is None else entry.link, done)
