"""yamux without its connection: frames in, events and frames out. (core)

Every rule about what a peer may send is in here; libp2p-wire section 7 names its source. A broken rule ends
the connection with GoAway 1 unless it concerns one stream only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from air.base.clock import Now
from air.base.errors import AirError, Closed, LimitReached, Reset
from air.mux.allowance import Allowance
from air.mux.api import Priority, ResetCode
from air.mux.events import Cut, Data, Eof, Event, Opened, Piece
from air.mux.sending import Sending
from air.mux.yamux.config import YamuxConfig
from air.mux.yamux.flow import GrowthBudget, ReceiveFlow
from air.mux.yamux.frame import (
    ACK,
    CREDIT_MAX,
    DATA,
    FIN,
    GO_AWAY,
    HEADER_BYTES,
    PING,
    RST,
    SYN,
    WINDOW_BYTES,
    WINDOW_UPDATE,
    GoAway,
    encode_header,
    violation,
)
from air.mux.yamux.keepalive import KeepAlive
from air.mux.yamux.reader import FrameReader
from air.mux.yamux.stream import Stream

__all__ = ["YamuxCore"]

_OUTPUT_BYTES: Final = 256 * 1024
_IDS_MAX: Final = 2**32 - 1


class YamuxCore:
    """One side of a yamux connection. A stream's key is its id.

    ``refused``, ``dropped_bytes`` and ``pings_ignored`` count what the peer sent in vain.
    """

    __slots__ = (
        "_alive",
        "_backlog",
        "_budget",
        "_config",
        "_control",
        "_events",
        "_inbound",
        "_leaving",
        "_left_by_peer",
        "_lingering",
        "_next_id",
        "_now",
        "_pongs",
        "_reader",
        "_resets",
        "_sending",
        "_streams",
        "_unacked",
        "_unread",
        "dropped_bytes",
        "ended",
        "pings_ignored",
        "refused",
    )

    def __init__(self, config: YamuxConfig, *, dialer: bool, now: Now) -> None:
        self._config = config
        self._streams: dict[int, Stream] = {}
        self._sending: Sending[Stream] = Sending(config.send_buffer_bytes, config.queued_bytes_max)
        self._reader = FrameReader()
        self._events: list[Event] = []
        self._now = now
        self._budget = GrowthBudget(config.windows_grown_bytes_max)
        self._control: list[Piece] = []
        self._next_id = 1 if dialer else 2
        self._inbound = self._backlog = self._unacked = self._unread = self._pongs = 0
        self._leaving = self._left_by_peer = False
        self._alive = KeepAlive(config.ping_seconds, config.answer_seconds, now.monotonic)
        self._resets = Allowance(config.resets_burst, config.resets_per_second, now.monotonic)
        self._lingering: dict[int, float] = {}

        self.ended: AirError | None = None
        self.refused = self.dropped_bytes = self.pings_ignored = 0
        self.tick(now)

    # What the shell asks

    @property
    def deadline(self) -> float | None:
        if self.ended is not None:
            return None
        for first in self._lingering.values():
            return min(first, self._alive.deadline)
        return self._alive.deadline

    @property
    def rtt_seconds(self) -> float | None:
        return self._alive.rtt_seconds

    @property
    def streams(self) -> int:
        return len(self._streams)

    @property
    def unread_bytes(self) -> int:
        """Data of all streams that was handed out in events and not consumed."""
        return self._unread

    @property
    def has_output(self) -> bool:
        return bool(self._control) or self._sending.waiting

    @property
    def queued_bytes(self) -> int:
        return self._sending.queued_bytes

    @property
    def drained(self) -> bool:
        return not self.queued_bytes and not self.has_output

    @property
    def stalled(self) -> bool:
        return len(self._control) * HEADER_BYTES > self._config.control_bytes_max

    # Input

    def receive(self, data: bytes | bytearray | memoryview, now: Now, /) -> list[Event]:
        """What ``data`` means. Events that came before a fault are returned; the fault is in ``ended``."""
        if self.ended is not None:
            return []
        events = self._events = []
        self._now = now
        self._alive.heard(now.monotonic)
        try:
            self._reader.feed(data, self)
        except AirError as error:
            code = GoAway.RATE_LIMITED if isinstance(error, LimitReached) else GoAway.PROTOCOL_ERROR
            self._say(GO_AWAY, 0, 0, code)
            self._end(error)
        return events

    def receive_eof(self, now: Now, /, error: AirError | None = None) -> list[Event]:
        """The connection ended, because of ``error`` if there was one."""
        if self.ended is None:
            if error is not None and type(error) is not Closed:
                self._end(error)
            elif self._left_by_peer or (not self._streams and self._reader.between_frames):
                self._end(Closed("the peer ended the connection"))
            else:
                self._end(Reset("the connection ended while streams were open"))
        return []

    def tick(self, now: Now, /) -> list[Event]:
        time = now.monotonic
        if self.ended is not None:
            return []
        if self._alive.lost(time):
            self._end(Reset("no answer to a ping", code="yamux.keepalive"))
            return []
        value = self._alive.ping(time)
        if value is not None:
            self._say(PING, SYN, 0, value)
        while self._lingering:
            id = next(iter(self._lingering))
            if self._lingering[id] > time:
                break
            self.reset(id, ResetCode.GARBAGE_COLLECTED)
        return []

    @property
    def over(self) -> bool:
        return self.ended is not None

    def frame(self, kind: int, flags: int, id: int, length: int, /) -> Stream | None:
        """For the reader: a header has arrived."""
        if kind == DATA:
            return self._data(flags, id, length)
        if kind == WINDOW_UPDATE:
            self._window_update(flags, id, length)
        elif kind == PING:
            self._ping(flags, id, length)
        elif kind == GO_AWAY:
            self._gone_away(id, length)
        else:
            raise violation("bad-type", f"frame type {kind}")
        return None

    def body(self, stream: Stream | None, data: bytes, /) -> None:
        """For the reader: a part of a body has arrived."""
        if stream is None or stream.gone or stream.read_closed:
            self.dropped_bytes += len(data)
            return
        stream.flow.unread += len(data)
        self._unread += len(data)
        self._events.append(Data(stream.id, data))

    def body_over(self, stream: Stream, flags: int, /) -> None:
        """For the reader: the body is complete."""
        if flags & FIN and not stream.gone:
            self._finish(stream)

    def _data(self, flags: int, id: int, length: int) -> Stream | None:
        """Returns whom the body is for."""
        stream = self._syn(id) if flags & SYN else self._streams.get(id)
        if stream is None:
            # The rest of what the peer sent before it heard that the stream is gone.
            if not id:
                raise violation("bad-stream-id", "data for stream 0")
            if length > self._config.window_bytes_max:
                raise violation("window-exceeded", f"{length} bytes for a stream that is not open")
            return None
        if flags & ACK:
            self._acknowledged(stream)
        if flags & RST:
            self._cut_by_peer(stream, ResetCode.NONE)
            return None
        if length:
            # Compared when the header is read: nothing is kept of a body that may not come.
            if length > stream.flow.granted:
                raise violation("window-exceeded", f"{length} bytes, {stream.flow.granted} granted")
            stream.flow.granted -= length
            if stream.eof_received:
                error = Reset("data after the end", code="yamux.data-after-fin")
                self._cut(stream, ResetCode.VIOLATION, error)
                return None
            if self._unread + length > self._config.unread_bytes_max:
                error = Reset("too much unread data on this connection", code="yamux.unread")
                self._cut(stream, ResetCode.RESOURCE_LIMIT, error)
                return None
        elif flags & FIN:
            self._finish(stream)
        return stream

    def _window_update(self, flags: int, id: int, length: int) -> None:
        stream = self._syn(id) if flags & SYN else self._streams.get(id)
        if stream is None:
            if not id:
                raise violation("bad-stream-id", "a window update for stream 0")
            return
        if flags & ACK:
            self._acknowledged(stream)
        if flags & RST:
            # Here the length is a reason, not credit.
            self._cut_by_peer(stream, ResetCode.known(length))
            return
        if length:
            stream.credit += length
            if stream.credit > CREDIT_MAX:
                raise violation("window-overflow", f"credit of stream {id} above 2**32 - 1")
            self._sending.line_up(stream)
        if flags & FIN:
            self._finish(stream)

    def _ping(self, flags: int, id: int, value: int) -> None:
        if id:
            raise violation("bad-stream-id", f"a ping on stream {id}")
        kind = flags & (SYN | ACK)
        if kind == SYN:
            if self._pongs < self._config.pongs_max:
                self._pongs += 1
                self._say(PING, ACK, 0, value)
            else:
                self.pings_ignored += 1
        elif kind == ACK:
            self._alive.answered(value, self._now.monotonic)
        elif kind:
            raise violation("bad-ping", "a ping that is its own answer")

    def _gone_away(self, id: int, code: int) -> None:
        if id:
            raise violation("bad-stream-id", f"a go away on stream {id}")
        if code:
            self._end(Reset(f"the peer ended the connection with code {code:#x}", code="yamux.go-away"))
            return
        # Streams that exist may finish. Most implementations cut them soon, which we then notice.
        self._left_by_peer = True
        if not self._streams:
            self._end(Closed("the peer said goodbye"))

    # The life of a stream

    def _syn(self, id: int) -> Stream | None:
        """A new stream of the peer's, or None when it was refused."""
        config = self._config
        if not id or id & 1 == self._next_id & 1:
            raise violation("bad-stream-id", f"stream {id} is not the peer's to open")
        if id in self._streams:
            raise violation("duplicate-syn", f"stream {id} is open already")
        if self._leaving or (
            self._backlog >= config.backlog_max
            or self._inbound >= config.inbound_max
            or len(self._streams) >= config.streams_max
        ):
            self.refused += 1
            code = ResetCode.SHUTDOWN if self._leaving else ResetCode.RESOURCE_LIMIT
            self._say(WINDOW_UPDATE, RST, id, code)
            return None
        flow = ReceiveFlow(WINDOW_BYTES, WINDOW_BYTES, self._now.monotonic)
        stream = Stream(id, False, Priority.INTERACTIVE, WINDOW_BYTES, flow)
        self._streams[id] = stream
        self._inbound += 1
        self._backlog += 1
        self._events.append(Opened(id))
        return stream

    def _acknowledged(self, stream: Stream) -> None:
        if stream.mine and not stream.acked:
            stream.acked = True
            self._unacked -= 1

    def _finish(self, stream: Stream) -> None:
        if not stream.eof_received:
            stream.eof_received = True
            if not stream.read_closed:
                self._events.append(Eof(stream.id))
            self._settle(stream)

    def _cut(self, stream: Stream, code: ResetCode, error: AirError) -> None:
        """Reset one stream because the peer broke a rule on it."""
        self.reset(stream.id, code)
        self._events.append(Cut(stream.id, error))

    def _cut_by_peer(self, stream: Stream, code: ResetCode) -> None:
        self._forget(stream)
        self._events.append(Cut(stream.id, Reset("the peer reset the stream", code=code.error_code)))
        if stream.mine:
            return
        # To open and reset costs the peer nothing and us a handler each time.
        if not self._resets.take(self._now.monotonic):
            raise LimitReached("streams opened and reset too fast", code="yamux.resets")

    def _settle(self, stream: Stream) -> None:
        """Forget a stream that is over in both directions and read."""
        if stream.eof_sent and stream.eof_received and not stream.flow.unread:
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        if stream.gone:
            return
        stream.gone = True
        del self._streams[stream.id]
        self._lingering.pop(stream.id, None)
        if stream.mine:
            self._unacked -= not stream.acked
        else:
            self._inbound -= 1
            self._backlog -= not stream.acked
        self._sending.drop(stream)
        self._unread -= stream.flow.unread
        self._budget.give_back(stream.flow.grown)
        if self._left_by_peer and not self._streams and self.ended is None:
            self._end(Closed("the peer said goodbye"))

    # What the application does

    def may_open(self) -> bool:
        if self.ended is not None or self._leaving or self._left_by_peer or self._next_id > _IDS_MAX:
            raise Closed("no new streams: the connection is ending")
        if len(self._streams) >= self._config.streams_max:
            raise LimitReached(f"{len(self._streams)} streams are open", code="yamux.streams")
        return self._unacked < self._config.backlog_max

    def open(self, priority: Priority, now: Now, /) -> int:
        id = self._next_id
        self._next_id += 2
        window = self._config.window_bytes
        stream = Stream(id, True, priority, WINDOW_BYTES, ReceiveFlow(window, window, now.monotonic))
        self._streams[id] = stream
        self._unacked += 1
        self._say(WINDOW_UPDATE, SYN, id, window - WINDOW_BYTES)
        return id

    def accept(self, key: int, /) -> None:
        stream = self._streams.get(key)
        if stream is None or stream.mine or stream.acked:
            return
        stream.acked = True
        self._backlog -= 1
        more = self._config.window_bytes - WINDOW_BYTES
        stream.flow.window += more
        stream.flow.granted += more
        self._say(WINDOW_UPDATE, ACK, key, more)

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
        self._unread -= count
        flow = stream.flow
        if stream.eof_received:
            flow.unread -= count
            self._settle(stream)
            return
        most = self._config.window_bytes_max
        credit = flow.consume(count, now.monotonic, self.rtt_seconds, most, self._budget)
        if credit:
            self._say(WINDOW_UPDATE, 0, key, credit)

    def close(self, key: int, now: Now, /) -> None:
        stream = self._streams.get(key)
        if stream is None or stream.read_closed:
            return
        # No credit from now on: a peer that goes on sending stops at its window, and is not cut off from the
        # answer that it has yet to read, as a reset would do.
        stream.read_closed = True
        self._unread -= stream.flow.unread
        stream.flow.unread = 0
        self._lingering[key] = now.monotonic + self._config.linger_seconds
        self.send_eof(key)
        self._settle(stream)

    def reset(self, key: int, code: ResetCode, /) -> None:
        stream = self._streams.get(key)
        if stream is None:
            return
        self._say(WINDOW_UPDATE, RST, key, code)
        self._forget(stream)

    def prioritise(self, key: int, priority: Priority, /) -> None:
        stream = self._streams.get(key)
        if stream is not None:
            stream.priority = priority

    def leave(self) -> None:
        self._leaving = True

    def go_away(self, code: int, /) -> None:
        if self.ended is None:
            self._say(GO_AWAY, 0, 0, code)
            self._end(Closed("closed on this side"))

    # Output

    def take_output(self, limit_bytes: int = _OUTPUT_BYTES, /) -> Sequence[Piece]:
        out, self._control, self._pongs = self._control, [], 0
        size = len(out) * HEADER_BYTES
        sending, most = self._sending, self._config.frame_bytes
        while size < limit_bytes:
            stream = sending.next()
            if stream is None:
                break
            turn = min(stream.queued, stream.credit, most)
            if turn:
                out.append(encode_header(0, DATA, 0, stream.id, turn))
                stream.credit -= turn
                sending.take(stream, turn, out)
            if stream.eof_wanted and not stream.queued and not stream.eof_sent:
                # Never on a frame with data: js- and go-libp2p lose that data.
                out.append(encode_header(0, WINDOW_UPDATE, FIN, stream.id, 0))
                stream.eof_sent = True
                self._settle(stream)
            turn += HEADER_BYTES
            size += turn
            sending.sent(stream, turn)
        return out

    def _say(self, kind: int, flags: int, id: int, length: int) -> None:
        self._control.append(encode_header(0, kind, flags, id, length))

    def _end(self, error: AirError) -> None:
        self.ended = error
        self._sending.clear()
        for stream in self._streams.values():
            stream.gone = True
        self._streams.clear()
        self._lingering.clear()
        self._unread = 0
