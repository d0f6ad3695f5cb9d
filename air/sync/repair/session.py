"""Reconciliation between peers that are connected: streams, turns at the store, merging. (shell)"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import anyio

from air.base.errors import AirError, Closed, Denied, LimitReached, Reset, Violation
from air.base.metrics import Counters
from air.base.peer_id import PeerId
from air.codec.frame import FrameReader, encode_frames
from air.model.cell import Cell, Soul
from air.model.mark import Mark
from air.model.value import unit_bytes
from air.mux.api import Priority
from air.store.api import Bound, RangeSource
from air.swarm.api import Host, StreamHandler
from air.swarm.stream import Stream
from air.sync.repair.config import FRAME_BYTES_MAX, RepairConfig, Summary
from air.sync.repair.initiator import Initiator
from air.sync.repair.responder import Responder
from air.sync.repair.salt import SALT_BYTES
from air.sync.repair.side import Side

__all__ = ["PROTOCOL", "Ask", "Merge", "Repair", "RepairServiceConfig"]

PROTOCOL: Final = "/air/repair/1.0.0"
BUSY: Final = "repair.busy"

_READ_BYTES: Final = 256 * 1024
_FAREWELL_SECONDS: Final = 1.0
_FRAME_ROOM: Final = 64
"""What compression may add to a frame that it cannot make smaller."""


class Ask(Protocol):
    """Calls a function with the store on the store's thread; returns when that is done."""

    def __call__(self, question: Callable[[RangeSource], None], /) -> Awaitable[Any]: ...


class Merge(Protocol):
    """Merges cells that a peer sent, with a mark for each; returns once they are durable.

    Cells that are refused for good (by a policy, or as ever newer ones are there) count as merged.
    """

    def __call__(self, peer: PeerId, cells: Sequence[Cell], marks: Sequence[Mark], /) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True)
class RepairServiceConfig:
    session: RepairConfig = field(default_factory=RepairConfig)
    inbound_max: int = 8
    """Sessions that others opened, at a time; a further one is told ``repair.busy``."""
    outbound_max: int = 8
    """Sessions that this side opened, at a time."""


class Repair:
    """Serves reconciliation, and does it: ``await repair.with_peer(host, peer)``."""

    def __init__(
        self,
        ask: Ask,
        merge: Merge,
        config: RepairServiceConfig | None = None,
        counters: Counters | None = None,
    ) -> None:
        self._ask, self._merge = ask, merge
        self._config = config or RepairServiceConfig()
        self.counters = counters if counters is not None else Counters()
        self._inbound: set[PeerId] = set()
        self._outbound: set[PeerId] = set()
        add = self.counters.describe
        add("repair_sessions", "Sessions that ended, by how: ok, unequal, served, or a code.", "result")
        add("repair_cells_sent", "Cells sent in repair sessions.")
        add("repair_cells_received", "Cells received in repair sessions.")
        add("repair_bytes_sent", "Bytes sent in repair sessions.")
        add("repair_bytes_received", "Bytes received in repair sessions.")

    @property
    def handlers(self) -> Mapping[str, StreamHandler]:
        return {PROTOCOL: self._serve}

    async def run(self, host: Host, *, task_status: Any) -> None:
        task_status.started()

    async def with_peer(
        self,
        host: Host,
        peer: PeerId,
        low: Soul | None = None,
        high: Soul | None = None,
        *,
        dry_run: bool = False,
    ) -> Summary:
        """Make this store and the peer's hold the same cells of the souls from ``low`` up to ``high``.

        ``high`` itself is outside; None is no end. ``dry_run`` only counts. Raises Denied ``repair.busy``
        when a session with the peer is under way or there are too many, and with the peer's code when it
        ends the session; LimitReached ``repair.idle`` and ``repair.too-long``; Violation ``repair.…`` when
        the peer breaks the rules; Closed ``repair.cut`` when the stream ends early; and what dialling raises.
        """
        with self._counted(self._outbound, peer, self._config.outbound_max):
            session = await host.dial(peer)
            salt = host.env.entropy.bits(8 * SALT_BYTES).to_bytes(SALT_BYTES, "big")
            side = Initiator(salt, _bound(low), _bound(high), dry_run=dry_run, config=self._config.session)
            start = host.env.clock.now().monotonic
            while not (first := side.take_output()):
                # Until there is something to say, the other side need not wait for it.
                await self._ask(side.work)
            stream = await session.open_stream(PROTOCOL, priority=Priority.BULK)
            async with stream:
                await stream.send(encode_frames(first))
                await self._drive(side, stream)
            summary = side.summary(host.env.clock.now().monotonic - start)
            self.counters.add("repair_sessions", label="ok" if summary.equal else "unequal")
            return summary

    async def _serve(self, stream: Stream) -> None:
        stream.priority = Priority.BULK
        side = Responder(self._config.session)
        try:
            with self._counted(self._inbound, stream.peer, self._config.inbound_max):
                await self._drive(side, stream)
                self.counters.add("repair_sessions", label="served")
        except Denied as denied:
            if denied.code == BUSY:
                await _say_goodbye(side, stream, BUSY)

    @contextmanager
    def _counted(self, sessions: set[PeerId], peer: PeerId, limit: int) -> Iterator[None]:
        """A place among the sessions; how one fails is counted. Raises Denied ``repair.busy``."""
        if peer in sessions or len(sessions) >= limit:
            self.counters.add("repair_sessions", label=BUSY)
            raise Denied("too many repair sessions, or one with this peer", code=BUSY)
        sessions.add(peer)
        try:
            yield
        except AirError as error:
            self.counters.add("repair_sessions", label=error.code)
            raise
        finally:
            sessions.discard(peer)

    async def _drive(self, side: Initiator | Responder, stream: Stream) -> None:
        talk = _Talk(side, stream, self._ask, self._merge, self._config.session)
        try:
            await talk.run()
        finally:
            add = self.counters.add
            add("repair_cells_sent", side.cargo.sent)
            add("repair_cells_received", side.cargo.received)
            add("repair_bytes_sent", side.bytes_out)
            add("repair_bytes_received", side.bytes_in)


class _Talk:
    """One session: a task that reads, and the rest in turns."""

    __slots__ = ("_ask", "_config", "_ended", "_frames", "_merge", "_news", "_side", "_stream", "_waiting")

    def __init__(
        self, side: Initiator | Responder, stream: Stream, ask: Ask, merge: Merge, config: RepairConfig
    ) -> None:
        self._side, self._stream = side, stream
        self._ask, self._merge, self._config = ask, merge, config
        self._frames: deque[bytes] = deque()
        self._waiting = 0
        """Bytes of the frames that have come and were not looked at."""
        self._ended: AirError | None = None
        """How reading ended: Closed when the other side has said all."""
        self._news = anyio.Event()

    async def run(self) -> None:
        """Until the session is over. Raises AirError when it ends otherwise, after telling the other side."""
        failure: AirError | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen)
            try:
                with anyio.fail_after(self._config.session_seconds):
                    await self._turns()
            except TimeoutError:
                failure = LimitReached("a session that took too long", code="repair.too-long")
            except AirError as error:
                failure = error
            tasks.cancel_scope.cancel()
        if isinstance(failure, Closed):
            failure = self._last_words() or failure
        elif failure is not None and not isinstance(failure, Denied):
            code = failure.code if isinstance(failure, Violation) else "repair.failed"
            await _say_goodbye(self._side, self._stream, code)
        if failure is not None:
            raise failure

    def _last_words(self) -> AirError | None:
        """Why the other side closed, when it said so before."""
        try:
            while self._frames:
                self._side.receive(self._frames.popleft())
        except AirError as error:
            return error
        return None

    async def _listen(self) -> None:
        reader = FrameReader(FRAME_BYTES_MAX + _FRAME_ROOM)
        try:
            while True:
                try:
                    data = await self._stream.receive(_READ_BYTES)
                except Reset:
                    raise
                except Closed:
                    reader.receive_eof()
                    raise
                frames = reader.receive(data)
                self._frames += frames
                self._waiting += sum(map(len, frames))
                # Waiting here would stop both sides when both wait to be read.
                if self._waiting > self._config.waiting_bytes_max:
                    raise LimitReached("more is said than is asked for", code="repair.overrun", fatal=True)
                self._news.set()
        except AirError as error:
            self._ended = error
            self._news.set()

    async def _turns(self) -> None:
        side = self._side
        while True:
            while self._frames:
                data = self._frames.popleft()
                self._waiting -= len(data)
                side.receive(data)
            if (taken := side.take_received()) is not None:
                cells, marks, batches = taken
                await self._merge(self._stream.peer, cells, marks)
                side.merged(batches)
            elif side.busy:
                await self._ask(side.work)
            elif isinstance(side, Initiator) and side.done:
                await self._stream.send_eof()
                return
            elif self._ended is not None:
                if isinstance(self._ended, Reset) or not isinstance(self._ended, Closed):
                    raise self._ended
                if isinstance(side, Responder):
                    return
                raise Closed("the other side ended the session", code="repair.cut")
            else:
                await self._wait()
            if output := side.take_output():
                await self._stream.send(encode_frames(output))

    async def _wait(self) -> None:
        self._news = anyio.Event()
        with anyio.move_on_after(self._config.idle_seconds):
            await self._news.wait()
            return
        raise LimitReached("nothing to do for too long", code="repair.idle")


async def _say_goodbye(side: Side, stream: Stream, code: str) -> None:
    """Tell why the session ends, and wait a moment for it to be read: a reset would drop it."""
    side.refuse(code)
    with anyio.move_on_after(_FAREWELL_SECONDS, shield=True):
        try:
            await stream.send(encode_frames(side.take_output()))
            await stream.send_eof()
            while True:
                await stream.receive(_READ_BYTES)
        except AirError:
            return


def _bound(soul: Soul | None) -> Bound:
    return None if soul is None else (unit_bytes(soul), b"")
