"""mplex without its connection: frames in, events and frames out. (core)

A stream's key is its id twice, plus one if we opened it: both sides number from 0.
"""

from __future__ import annotations

from typing import Final

from air.base.clock import Now
from air.base.errors import AirError, Closed, Reset, Violation
from air.mux.api import Priority, ResetCode
from air.mux.events import Cut, Data, Event
from air.mux.mplex.config import MplexConfig
from air.mux.mplex.frame import Flag, encode_header, take_header
from air.mux.streams import Streams, StreamState
from air.transport.api import Piece

__all__ = ["MplexCore"]

_IDS_MAX: Final = 2**28
"""js-libp2p computes ids with 32-bit shifts."""


class _Stream(StreamState):
    __slots__ = ("held",)

    def __init__(self, key: int, priority: Priority) -> None:
        super().__init__(key, bool(key & 1), priority)
        self.held = 0

    @property
    def unread(self) -> int:
        return self.held

    @property
    def sendable_bytes(self) -> int:
        return self.queued

    def header(self, flag_receiver: Flag, length: int) -> bytes:
        return encode_header(self.key >> 1, flag_receiver + (self.key & 1), length)

    def data_header(self, size: int) -> bytes:
        return self.header(Flag.MESSAGE_RECEIVER, size)

    def end_frame(self) -> bytes:
        return self.header(Flag.CLOSE_RECEIVER, 0)

    def tell_state(self) -> str:
        return f"{super().tell_state()}, unread {self.held}"


class MplexCore(Streams[_Stream]):
    """One side of an mplex connection."""

    __slots__ = (
        "_body_left",
        "_body_of",
        "_config",
        "_congested",
        "_control_bytes",
        "_head",
        "_next_id",
        "_opened",
    )

    rtt_seconds: float | None = None
    """mplex has no ping."""

    def __init__(self, config: MplexConfig, *, now: Now) -> None:
        super().__init__("mplex", config, now)
        self._config = config
        self._control_bytes = self._next_id = 0
        self._opened: list[float] = []
        """When the latest streams were opened here, at most ``opens_max``."""
        self._head = b""
        self._body_left = 0
        self._body_of: _Stream | None = None
        self._congested: dict[int, float] = {}

    # What the shell asks

    @property
    def deadline(self) -> float | None:
        due = [*list(self._congested.values())[:1], *list(self._lingering.values())[:1]]
        if len(self._opened) >= self._config.opens_max:
            due.append(self._opened[0] + self._config.opens_seconds)
        return min(due) if due and self.ended is None else None

    @property
    def stalled(self) -> bool:
        return bool(self._congested) or self._control_bytes > self._config.control_bytes_max

    # Input

    @property
    def _complete(self) -> bool:
        return not self._streams and not self._head and not self._body_left

    def tick(self, now: Now, /) -> list[Event]:
        self._events = []
        while self._opened and self._opened[0] + self._config.opens_seconds <= now.monotonic:
            del self._opened[0]
        for key in [key for key, due in self._congested.items() if due <= now.monotonic]:
            # The end of one may have made enough room for the others.
            if key in self._congested:
                self.reset(key, ResetCode.VIOLATION)
                error = Reset("it held up the other streams", code="mplex.stalled")
                self._events.append(Cut(key, error))
        self._reset_lingering(now)
        return self._events

    def _parse(self, data: bytes | bytearray | memoryview, now: Now) -> None:
        if self._head:
            # At most 18 bytes in front of what came; long bodies are never kept back.
            data = self._head + bytes(data)
            self._head = b""
        position, end = 0, len(data)
        while self.ended is None:
            if self._body_left:
                if position == end:
                    return
                stop = min(position + self._body_left, end)
                self._body_left -= stop - position
                stream = self._body_of
                if stream is None or stream.gone or stream.read_closed:
                    self.dropped_bytes += stop - position
                else:
                    self._deliver(stream, bytes(data[position:stop]), now)
                position = stop
                if self._body_left:
                    return
            taken = take_header(data, position, self._config.message_bytes_max)
            if taken is None:
                self._head = bytes(data[position:])
                return
            (id, flag, length), used = taken
            position += used
            self._body_left, self._body_of = length, None
            if flag == Flag.NEW:
                self._new(id << 1)
                continue
            stream = self._streams.get(id << 1 | flag & 1)
            if stream is None:
                continue
            if flag <= Flag.MESSAGE_INITIATOR:
                if stream.eof_received and length:
                    error = Reset("data after the end", code="mplex.data-after-close")
                    self._cut(stream, ResetCode.VIOLATION, error, now)
                else:
                    self._body_of = stream
            elif flag <= Flag.CLOSE_INITIATOR:
                self._finish(stream)
            else:
                self._cut_by_peer(stream, ResetCode.NONE, now)

    def _new(self, key: int) -> None:
        if key in self._streams:
            raise Violation(f"stream {key >> 1} is open already", code="mplex.duplicate-stream", fatal=True)
        stream = _Stream(key, Priority.INTERACTIVE)
        if self._full:
            self.refused += 1
            self._say(stream.header(Flag.RESET_RECEIVER, 0))
            return
        self._opened_by_peer(stream)

    def _deliver(self, stream: _Stream, data: bytes, now: Now) -> None:
        config = self._config
        stream.held += len(data)
        self._unread += len(data)
        if stream.held > config.unread_bytes_max or self._unread > config.unread_total_bytes_max:
            self._congested.setdefault(stream.key, now.monotonic + config.stall_seconds)
        self._events.append(Data(stream.key, data))

    def _forget(self, stream: _Stream) -> None:
        super()._forget(stream)
        self._drop_unread(stream)

    def _drop_unread(self, stream: _Stream) -> None:
        self._read(stream, stream.held)

    def _read(self, stream: _Stream, count: int) -> None:
        stream.held -= count
        self._unread -= count
        if not self._congested:
            return
        config = self._config
        crowded = self._unread * 2 > config.unread_total_bytes_max
        for key in list(self._congested):
            held = self._streams.get(key)
            if held is None or not (crowded or held.held * 2 > config.unread_bytes_max):
                del self._congested[key]

    # What the application does

    def may_open(self) -> bool:
        if self._next_id >= _IDS_MAX:
            raise Closed("no new streams: the numbers of this connection are used up")
        return super().may_open() and len(self._opened) < self._config.opens_max

    def open(self, priority: Priority, now: Now, /) -> int:
        id = self._next_id
        self._next_id += 1
        self._opened.append(now.monotonic)
        key = id << 1 | 1
        self._streams[key] = _Stream(key, priority)
        name = b"%d" % id
        self._say(encode_header(id, Flag.NEW, len(name)) + name)
        return key

    def accept(self, key: int, /) -> None:
        stream = self._streams.get(key)
        if stream is not None and not stream.mine and not stream.accepted:
            stream.accepted = True
            self._backlog -= 1

    def consume(self, key: int, count: int, now: Now, /) -> None:
        stream = self._streams.get(key)
        if stream is None or stream.read_closed:
            return
        self._read(stream, count)
        self._settle(stream)

    def reset(self, key: int, code: ResetCode, /) -> None:
        stream = self._streams.get(key)
        if stream is not None:
            self._say(stream.header(Flag.RESET_RECEIVER, 0))
            self._forget(stream)

    def go_away(self, code: int, /) -> None:
        if self.ended is None:
            self._end(Closed("closed on this side"))

    # Output

    def _take_control(self) -> tuple[list[Piece], int]:
        out, size = self._control, self._control_bytes
        self._control, self._control_bytes = [], 0
        return out, size

    def _say(self, frame: bytes) -> None:
        self._control.append(frame)
        self._control_bytes += len(frame)

    def _end(self, error: AirError) -> None:
        super()._end(error)
        self._congested.clear()
        self._body_of = None
