"""A multiplexed connection: a core, a byte stream, and the streams that applications hold. (shell)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import anyio

from air.base.env import Env
from air.base.errors import AirError, ConfigError, Misuse, Reset
from air.base.waker import Waker
from air.mux.api import Priority, ResetCode
from air.mux.events import Cut, Data, Event, MuxCore, Opened
from air.mux.stream import CoreStream
from air.transport.api import ByteStream, can_send_now, sender

__all__ = ["ConnConfig", "CoreConn"]

_CUT = (AirError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)
"""How a byte stream says that it is over: ours by AirError, anyio's own streams in their words."""

_SLOW_BYTES: Final = 16 * 1024
"""What a slow line gets in one piece, give or take a frame."""


@dataclass(frozen=True, slots=True)
class ConnConfig:
    """How a connection treats the stream below it. Every value is greater than 0."""

    receive_bytes: int = 256 * 1024
    """What is read at most in one piece."""
    write_bytes: int = 256 * 1024
    """What is written in one piece, give or take a frame; less on a slow line. Urgent data waits for it."""
    write_seconds: float = 10.0
    """How long a piece may take to be written before the peer is cut; looked at when a deadline passes."""
    close_seconds: float = 3.0
    """How long a goodbye may take: to send what is queued, and again to see the peer's end."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be greater than 0, not {getattr(self, name)}")


class CoreConn:
    """What ``Yamux`` and ``Mplex`` make of a byte stream.

    Three tasks live inside ``run``: one reads, one writes, one keeps the deadlines. Applications never touch
    the byte stream, so a cancelled application cannot leave half of a frame on the wire.
    """

    __slots__ = (
        "_alarm",
        "_arrival",
        "_change",
        "_clock",
        "_closing",
        "_config",
        "_core",
        "_error",
        "_inbound",
        "_intake",
        "_lone",
        "_output",
        "_over",
        "_place",
        "_ran",
        "_read_over",
        "_scope",
        "_stream",
        "_target",
        "_write_over",
        "_writing_since",
        "held",
        "piece_bytes",
        "waiting",
    )

    def __init__(self, stream: ByteStream, core: MuxCore, env: Env, config: ConnConfig, piece: int) -> None:
        self._stream, self._core, self._clock, self._config = stream, core, env.clock, config
        self.piece_bytes = piece
        """Data that a stream hands to the core at once."""
        self.held: dict[int, CoreStream] = {}
        """Streams that may still hear something."""
        self.waiting: set[CoreStream] = set()
        """Streams that wait for room to send."""
        self._inbound: list[CoreStream] = []
        self._error: AirError | None = None
        self._scope: anyio.CancelScope | None = None
        self._ran = self._closing = self._read_over = self._write_over = self._over = False
        self._lone = False
        """What was read last concerns one stream, and nothing was written at once since then."""
        self._writing_since: float | None = None
        self._target = 0.0
        self._output = Waker()
        self._intake = Waker()
        self._alarm = Waker()
        self._arrival = Waker()
        # Many may wait for these: made by the first, set and thrown away by whoever has news.
        self._place: anyio.Event | None = None
        self._change: anyio.Event | None = None

    # For everybody

    @property
    def error(self) -> AirError | None:
        return self._error

    @property
    def rtt_seconds(self) -> float | None:
        return self._core.rtt_seconds

    @property
    def streams(self) -> int:
        return self._core.streams

    async def open(self, priority: Priority = Priority.INTERACTIVE) -> CoreStream:
        core = self._core
        while not core.may_open():
            if self._place is None:
                self._place = anyio.Event()
            self._rearm()
            await self._place.wait()
        key = core.open(priority, self._clock.now())
        stream = self.held[key] = CoreStream(self, key, priority, outbound=True)
        self.stir()
        return stream

    async def accept(self) -> CoreStream:
        while True:
            if self._inbound:
                stream = self._inbound.pop(0)
                self._core.accept(stream.id)
                self.stir()
                return stream
            if self._error is not None:
                raise type(self._error)(str(self._error), code=self._error.code)
            await self._arrival.wait()

    async def aclose(self, code: int = 0) -> None:
        if not 0 <= code < 2**32:
            raise Misuse(f"a code from 0 to 2**32 - 1, not {code}")
        patience = self._config.close_seconds
        if self._closing:
            # Somebody else may still wait for data to leave, before the goodbye.
            patience *= 2
        else:
            self._closing = True
            self._core.leave()
            with anyio.move_on_after(self._config.close_seconds, shield=True):
                # Many peers drop everything at a goodbye, so the data goes first.
                while self._scope is not None and self._error is None and not self._core.drained:
                    await self._changed()
            self._core.go_away(code)
            self.stir()
        if self._scope is None:
            await self._close_below()
            return
        with anyio.move_on_after(patience, shield=True):
            while not self._over:
                await self._changed()
        self._scope.cancel()

    async def abort(self) -> None:
        self._closing = True
        self._lose(Reset("the connection was cut on this side"))
        if self._scope is not None:
            self._scope.cancel()
        else:
            await self._close_below()

    async def run(self) -> None:
        if self._ran:
            raise Misuse("a connection runs once")
        self._ran = True
        try:
            async with anyio.create_task_group() as tasks:
                self._scope = tasks.cancel_scope
                tasks.start_soon(self._read)
                tasks.start_soon(self._write)
                await self._watch()
                # A close with unread bytes in a socket is a reset, which can overtake what was just written.
                # So the peer is told the end and read out, and only then the stream is closed.
                with anyio.move_on_after(self._config.close_seconds):
                    while not (self._read_over and self._write_over):
                        await self._changed()
                tasks.cancel_scope.cancel()
        finally:
            self._lose(Reset("the connection was cut on this side"))
            await self._close_below()
            self._over = True
            self._note()

    def tell_state(self) -> Iterator[str]:
        """What is known and waited for, a line for each thing. For looking into a connection that hangs."""
        core = self._core
        flags = {
            "reading over": self._read_over,
            "writing over": self._write_over,
            "write under way": self._writing_since is not None,
            "reader waits for readers": self._intake.waiting,
            "writer waits for output": self._output.waiting,
            "stalled": core.stalled,
            "has output": core.has_output,
            "error": self._error,
        }
        yield ", ".join(f"{name}: {value}" for name, value in flags.items() if value) or "nothing waits"
        for key, known in core.tell_state().items():
            held = self.held.get(key)
            yield f"stream {key}: {known}" + ("" if held is None else f"; {held.tell_state()}")

    # For our streams

    def stir(self) -> None:
        """Look at what a call has changed: output for the writer, perhaps the end."""
        core = self._core
        self._resume_reading()
        if self._output.waiting and core.has_output and not (self._lone and self._write_now()):
            self._output.wake()
        if core.ended is not None and self._error is None:
            self._end(core.ended)
        if self._place is not None:
            self._wake_openers()

    def consumed(self, key: int, count: int) -> None:
        self._core.consume(key, count, self._clock.now())
        self.stir()

    @property
    def core(self) -> MuxCore:
        return self._core

    def close_stream(self, stream: CoreStream) -> None:
        if self._has_id(stream):
            self._core.close(stream.id, self._clock.now())
            self.forget_stream(stream)
            self._rearm()

    def reset_stream(self, stream: CoreStream, code: ResetCode) -> None:
        if self._has_id(stream):
            self._core.reset(stream.id, code)
            self.forget_stream(stream)

    def forget_stream(self, stream: CoreStream) -> None:
        """Nobody is interested in the stream any more."""
        self.held.pop(stream.id, None)
        self.waiting.discard(stream)
        self.stir()

    def _has_id(self, stream: CoreStream) -> bool:
        """False when the peer has given the id to another stream, after this one was over on both sides."""
        return self.held.get(stream.id, stream) is stream

    # The three tasks

    async def _read(self) -> None:
        core, most = self._core, self._config.receive_bytes
        try:
            while True:
                while core.stalled and core.ended is None:
                    await self._intake.wait()
                data = await self._stream.receive(most)
                # After the end it is only read so that the close is no reset.
                if core.ended is None:
                    self._apply(core.receive(data, self._clock.now()))
                # An idle connection would keep its last piece, up to 256 KiB, until the next one comes.
                del data
        except _CUT as error:
            self._lose(error if isinstance(error, AirError) else None)
        self._read_over = True
        self._note()

    async def _write(self) -> None:
        core, clock, most = self._core, self._clock, self._config.write_bytes
        # A line may be so slow that a large piece takes as long as a peer may that takes nothing. It gets
        # small ones until it was quick with one, and whenever it was not.
        slow, few = self._config.write_seconds / 10, min(most, _SLOW_BYTES)
        limit = few
        # A secured connection copies each piece anyway when it encrypts: to join them first is one copy more.
        send = sender(self._stream)
        try:
            while True:
                pieces = core.take_output(limit)
                self._resume_reading()
                if self.waiting:
                    self._wake_senders()
                if pieces:
                    full = core.has_output
                    since = self._writing_since = clock.now().monotonic
                    await send(pieces)
                    self._writing_since = None
                    if clock.now().monotonic - since > slow:
                        limit = few
                    elif full:
                        limit = most
                    continue
                self._note()
                if core.ended is not None:
                    self._end(core.ended)
                    break
                await self._output.wait()
            await self._stream.send_eof()
        except _CUT as error:
            self._writing_since = None
            # What the peer said last tells more than that it takes nothing: let it be read.
            with anyio.move_on_after(self._config.close_seconds):
                while not self._read_over:
                    await self._changed()
            self._lose(error if isinstance(error, AirError) else None)
        self._write_over = True
        self._note()

    async def _watch(self) -> None:
        core, clock, most = self._core, self._clock, self._config.write_seconds
        while self._error is None:
            now = clock.now()
            deadline = core.deadline
            self._target = now.monotonic + most if deadline is None else deadline
            if self._writing_since is not None:
                self._target = min(self._target, self._writing_since + most)
            with anyio.move_on_after(max(0.0, self._target - now.monotonic)):
                await self._alarm.wait()
            now = clock.now()
            since = self._writing_since
            if since is not None and now.monotonic - since >= most:
                self._lose(Reset("the peer takes nothing of what is written", code="mux.slow-peer"))
                return
            self._apply(core.tick(now))

    def _write_now(self) -> bool:
        """Write in the place of the task that writes, which rests; False when it must do it.

        To wake that task takes longer than a small write. It pays where many streams have something to say,
        as one write serves them all. So only the first answer to a message that came alone goes out so.
        """
        core, stream = self._core, self._stream
        self._lone = False
        if not can_send_now(stream):
            return False
        stream.send_now(core.take_output(self._config.write_bytes))  # type: ignore[attr-defined]
        if self.waiting:
            self._wake_senders()
        return not core.has_output and not self._intake.waiting and self._change is None

    # What has happened

    def _apply(self, events: Sequence[Event]) -> None:
        held = self.held
        self._lone = len(events) == 1
        for event in events:
            if type(event) is Data:
                stream = held.get(event.key)
                if stream is not None:
                    stream.arrived(event.data)
            elif type(event) is Opened:
                stream = held[event.key] = CoreStream(self, event.key, Priority.INTERACTIVE, outbound=False)
                self._inbound.append(stream)
                self._arrival.wake()
            elif type(event) is Cut:
                stream = held.pop(event.key, None)
                if stream is not None:
                    self.waiting.discard(stream)
                    stream.cut(event.error)
                    if not stream.outbound and stream in self._inbound:
                        self._inbound.remove(stream)
            else:
                stream = held.get(event.key)
                if stream is not None:
                    stream.finished()
        self.stir()
        self._rearm()
        # Whoever closes waits for data to leave, and that of a stream that was cut need not any more.
        self._note()

    def _rearm(self) -> None:
        """Have the task of the deadlines look again if one is earlier than it thinks."""
        if self._alarm.waiting:
            deadline = self._core.deadline
            if deadline is not None and deadline < self._target:
                self._alarm.wake()

    def _lose(self, error: AirError | None) -> None:
        """The byte stream is over."""
        self._core.receive_eof(self._clock.now(), error)
        if self._core.ended is not None:
            self._end(self._core.ended)

    def _end(self, error: AirError) -> None:
        if self._error is not None:
            return
        self._error = error
        cut = Reset(f"the connection ended: {error}", code=error.code)
        for stream in self.held.values():
            stream.ended(cut)
        self.held.clear()
        self.waiting.clear()
        for waker in (self._output, self._intake, self._alarm, self._arrival):
            waker.wake()
        if self._place is not None:
            self._place.set()
            self._place = None
        self._note()

    def _resume_reading(self) -> None:
        if self._intake.waiting and not self._core.stalled:
            self._intake.wake()

    def _wake_senders(self) -> None:
        for stream in [stream for stream in self.waiting if self._core.room(stream.id)]:
            self.waiting.discard(stream)
            stream.has_room()

    def _wake_openers(self) -> None:
        try:
            if not self._core.may_open():
                return
        except AirError:
            # Whoever waits learns it in its own task.
            pass
        if self._place is not None:
            self._place.set()
            self._place = None

    async def _close_below(self) -> None:
        # anyio's TLS says in its aclose that the peer has gone; it is closed all the same.
        with anyio.CancelScope(shield=True), suppress(*_CUT):
            await self._stream.aclose()

    async def _changed(self) -> None:
        if self._change is None:
            self._change = anyio.Event()
        await self._change.wait()

    def _note(self) -> None:
        if self._change is not None:
            self._change.set()
            self._change = None
