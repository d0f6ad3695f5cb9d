"""mplex without its connection: frames in, events and frames out. (core)

A stream's key is its id twice, plus one if we opened it: both sides number from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from air.base.clock import Now
from air.base.errors import AirError, Closed, LimitReached, Reset, Violation
from air.mux.allowance import Allowance
from air.mux.api import Priority, ResetCode
from air.mux.events import Cut, Data, Eof, Event, Opened, Piece
from air.mux.mplex.config import MplexConfig
from air.mux.mplex.frame import Flag, encode_header, take_header
from air.mux.outgoing import Outgoing
from air.mux.sending import Sending

__all__ = ["MplexCore"]

_OUTPUT_BYTES: Final = 256 * 1024
_HEADER_BYTES: Final = 8
"""What a header takes, roughly."""
_IDS_MAX: Final = 2**28
"""js-libp2p computes ids with 32-bit shifts."""


class _Stream(Outgoing):
    __slots__ = ("accepted", "eof_received", "key", "read_closed", "unread")

    def __init__(self, key: int, priority: Priority) -> None:
        super().__init__(priority)
        self.key = key
        self.unread = 0
        self.accepted = self.eof_received = self.read_closed = False

    @property
    def mine(self) -> bool:
        return bool(self.key & 1)

    def header(self, flag_receiver: Flag, length: int) -> bytes:
        return encode_header(self.key >> 1, flag_receiver + (self.key & 1), length)


class MplexCore:
    """One side of an mplex connection."""

    __slots__ = (
        "_backlog",
        "_body_left",
        "_body_of",
        "_config",
        "_congested",
        "_control",
        "_control_bytes",
        "_head",
        "_inbound",
        "_leaving",
        "_lingering",
        "_next_id",
        "_resets",
        "_sending",
        "_streams",
        "_unread",
        "dropped_bytes",
        "ended",
        "refused",
    )

    rtt_seconds: float | None = None
    """mplex has no ping."""

    def __init__(self, config: MplexConfig, *, now: Now) -> None:
        self._config = config
        self._streams: dict[int, _Stream] = {}
        self._sending: Sending[_Stream] = Sending(config.send_buffer_bytes, config.queued_bytes_max)
        self._control: list[Piece] = []
        self._control_bytes = 0
        self._next_id = self._inbound = self._backlog = self._unread = 0
        self._leaving = False
        self._head = b""
        self._body_left = 0
        self._body_of: _Stream | None = None
        self._congested: dict[int, float] = {}
        self._lingering: dict[int, float] = {}
        self._resets = Allowance(config.resets_burst, config.resets_per_second, now.monotonic)

        self.ended: AirError | None = None
        self.refused = self.dropped_bytes = 0

    # What the shell asks

    @property
    def deadline(self) -> float | None:
        due = [*list(self._congested.values())[:1], *list(self._lingering.values())[:1]]
        return min(due) if due and self.ended is None else None

    @property
    def streams(self) -> int:
        return len(self._streams)

    @property
    def unread_bytes(self) -> int:
        return self._unread

    @property
    def has_output(self) -> bool:
        return bool(self._control) or self._sending.waiting

    @property
    def queued_bytes(self) -> int:
        return self._sending.queued_bytes

    @property
    def drained(self) -> bool:
        return not self.has_output

    @property
    def stalled(self) -> bool:
        return bool(self._congested) or self._control_bytes > self._config.control_bytes_max

    # Input

    def receive(self, data: bytes | bytearray | memoryview, now: Now, /) -> list[Event]:
        """What ``data`` means. Events that came before a fault are returned; the fault is in ``ended``."""
        events: list[Event] = []
        if self.ended is not None:
            return events
        try:
            self._parse(data, now, events)
        except AirError as error:
            self._end(error)
        return events

    def receive_eof(self, now: Now, /, error: AirError | None = None) -> list[Event]:
        if self.ended is None:
            if error is not None and type(error) is not Closed:
                self._end(error)
            elif self._streams or self._head or self._body_left:
                self._end(Reset("the connection ended while streams were open"))
            else:
                self._end(Closed("the peer ended the connection"))
        return []

    def tick(self, now: Now, /) -> list[Event]:
        events: list[Event] = []
        for key in [key for key, due in self._congested.items() if due <= now.monotonic]:
            self._cut(self._streams[key], Reset("it held up the other streams", code="mplex.stalled"), events)
        while self._lingering:
            key = next(iter(self._lingering))
            if self._lingering[key] > now.monotonic:
                break
            self.reset(key, ResetCode.NONE)
        return events

    def _parse(self, data: bytes | bytearray | memoryview, now: Now, events: list[Event]) -> None:
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
                    self._deliver(stream, bytes(data[position:stop]), now, events)
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
                self._new(id << 1, events)
                continue
            stream = self._streams.get(id << 1 | flag & 1)
            if stream is None:
                continue
            if flag <= Flag.MESSAGE_INITIATOR:
                if stream.eof_received and length:
                    self._cut(stream, Reset("data after the end", code="mplex.data-after-close"), events)
                else:
                    self._body_of = stream
            elif flag <= Flag.CLOSE_INITIATOR:
                self._finish(stream, events)
            else:
                self._cut_by_peer(stream, now, events)

    def _new(self, key: int, events: list[Event]) -> None:
        if key in self._streams:
            raise Violation(f"stream {key >> 1} is open already", code="mplex.duplicate-stream", fatal=True)
        config = self._config
        stream = _Stream(key, Priority.INTERACTIVE)
        if self._leaving or (
            self._backlog >= config.backlog_max
            or self._inbound >= config.inbound_max
            or len(self._streams) >= config.streams_max
        ):
            self.refused += 1
            self._say(stream.header(Flag.RESET_RECEIVER, 0))
            return
        self._streams[key] = stream
        self._inbound += 1
        self._backlog += 1
        events.append(Opened(key))

    def _deliver(self, stream: _Stream, data: bytes, now: Now, events: list[Event]) -> None:
        config = self._config
        stream.unread += len(data)
        self._unread += len(data)
        if stream.unread > config.unread_bytes_max or self._unread > config.unread_total_bytes_max:
            self._congested.setdefault(stream.key, now.monotonic + config.stall_seconds)
        events.append(Data(stream.key, data))

    def _finish(self, stream: _Stream, events: list[Event]) -> None:
        if not stream.eof_received:
            stream.eof_received = True
            if not stream.read_closed:
                events.append(Eof(stream.key))
            self._settle(stream)

    def _cut(self, stream: _Stream, error: AirError, events: list[Event]) -> None:
        self.reset(stream.key, ResetCode.VIOLATION)
        events.append(Cut(stream.key, error))

    def _cut_by_peer(self, stream: _Stream, now: Now, events: list[Event]) -> None:
        self._forget(stream)
        events.append(Cut(stream.key, Reset("the peer reset the stream", code=ResetCode.NONE.error_code)))
        if stream.mine:
            return
        if not self._resets.take(now.monotonic):
            raise LimitReached("streams opened and reset too fast", code="mplex.resets")

    def _settle(self, stream: _Stream) -> None:
        if stream.eof_sent and stream.eof_received and not stream.unread:
            self._forget(stream)

    def _forget(self, stream: _Stream) -> None:
        stream.gone = True
        del self._streams[stream.key]
        self._lingering.pop(stream.key, None)
        if not stream.mine:
            self._inbound -= 1
            self._backlog -= not stream.accepted
        self._sending.drop(stream)
        self._read(stream, stream.unread)

    def _read(self, stream: _Stream, count: int) -> None:
        stream.unread -= count
        self._unread -= count
        if not self._congested:
            return
        config = self._config
        crowded = self._unread * 2 > config.unread_total_bytes_max
        for key in list(self._congested):
            held = self._streams.get(key)
            if held is None or not (crowded or held.unread * 2 > config.unread_bytes_max):
                del self._congested[key]

    # What the application does

    def may_open(self) -> bool:
        if self.ended is not None or self._leaving or self._next_id >= _IDS_MAX:
            raise Closed("no new streams: the connection is ending")
        if len(self._streams) >= self._config.streams_max:
            raise LimitReached(f"{len(self._streams)} streams are open", code="mplex.streams")
        return True

    def open(self, priority: Priority, now: Now, /) -> int:
        id = self._next_id
        self._next_id += 1
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

    def room(self, key: int, /) -> bool:
        stream = self._streams.get(key)
        return stream is None or self._sending.room(stream)

    def send(self, key: int, data: Piece, /) -> None:
        stream = self._streams.get(key)
        if stream is not None:
            self._sending.put(stream, data)

    def send_eof(self, key: int, /) -> None:
        stream = self._streams.get(key)
        if stream is not None:
            self._sending.finish(stream)

    def consume(self, key: int, count: int, now: Now, /) -> None:
        stream = self._streams.get(key)
        if stream is None or stream.read_closed:
            return
        self._read(stream, count)
        self._settle(stream)

    def close(self, key: int, now: Now, /) -> None:
        stream = self._streams.get(key)
        if stream is None or stream.read_closed:
            return
        stream.read_closed = True
        self._read(stream, stream.unread)
        self._lingering[key] = now.monotonic + self._config.linger_seconds
        self.send_eof(key)
        self._settle(stream)

    def reset(self, key: int, code: ResetCode, /) -> None:
        stream = self._streams.get(key)
        if stream is not None:
            self._say(stream.header(Flag.RESET_RECEIVER, 0))
            self._forget(stream)

    def prioritise(self, key: int, priority: Priority, /) -> None:
        stream = self._streams.get(key)
        if stream is not None:
            stream.priority = priority

    def leave(self) -> None:
        self._leaving = True

    def go_away(self, code: int, /) -> None:
        if self.ended is None:
            self._end(Closed("closed on this side"))

    # Output

    def take_output(self, limit_bytes: int = _OUTPUT_BYTES, /) -> Sequence[Piece]:
        out, self._control = self._control, []
        size, self._control_bytes = self._control_bytes, 0
        sending, most = self._sending, self._config.frame_bytes
        while size < limit_bytes:
            stream = sending.next()
            if stream is None:
                break
            turn = min(stream.queued, most)
            if turn:
                out.append(stream.header(Flag.MESSAGE_RECEIVER, turn))
                sending.take(stream, turn, out)
            if stream.eof_wanted and not stream.queued and not stream.eof_sent:
                out.append(stream.header(Flag.CLOSE_RECEIVER, 0))
                stream.eof_sent = True
                self._settle(stream)
            turn += _HEADER_BYTES
            size += turn
            sending.sent(stream, turn)
        return out

    def _say(self, frame: bytes) -> None:
        self._control.append(frame)
        self._control_bytes += len(frame)

    def _end(self, error: AirError) -> None:
        self.ended = error
        self._sending.clear()
        for stream in self._streams.values():
            stream.gone = True
        self._streams.clear()
        self._congested.clear()
        self._lingering.clear()
        self._unread = 0
        self._body_of = None
