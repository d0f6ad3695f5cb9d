"""yamux without its connection: frames in, events and frames out. (core)

Every rule about what a peer may send is in here; libp2p-wire section 7 names its source. A broken rule ends
the connection with GoAway 1 unless it concerns one stream only.
"""

from __future__ import annotations

from typing import Final

from air.base.clock import Now
from air.base.errors import AirError, Closed, LimitReached, Reset
from air.mux.api import Priority, ResetCode
from air.mux.events import Data, Event
from air.mux.streams import Streams
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
from air.transport.api import Piece

__all__ = ["YamuxCore"]

_IDS_MAX: Final = 2**32 - 1


class YamuxCore(Streams[Stream]):
    """One side of a yamux connection. A stream's key is its id.

    ``pings_ignored`` counts those that came faster than answers could leave.
    """

    __slots__ = (
        "_alive",
        "_budget",
        "_config",
        "_left_by_peer",
        "_next_id",
        "_now",
        "_pongs",
        "_reader",
        "_unacked",
        "pings_ignored",
    )

    def __init__(self, config: YamuxConfig, *, dialer: bool, now: Now) -> None:
        super().__init__("yamux", config, now)
        self._config = config
        self._reader = FrameReader()
        self._now = now
        self._budget = GrowthBudget(config.windows_grown_bytes_max)
        self._next_id = 1 if dialer else 2
        self._unacked = self._pongs = 0
        self._left_by_peer = False
        self._alive = KeepAlive(config.ping_seconds, config.answer_seconds, now.monotonic)
        self.pings_ignored = 0
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
    def stalled(self) -> bool:
        return len(self._control) * HEADER_BYTES > self._config.control_bytes_max

    # Input

    def _parse(self, data: bytes | bytearray | memoryview, now: Now) -> None:
        self._now = now
        self._alive.heard(now.monotonic)
        self._reader.feed(data, self)

    def _fail(self, error: AirError) -> None:
        code = GoAway.RATE_LIMITED if isinstance(error, LimitReached) else GoAway.PROTOCOL_ERROR
        self._say(GO_AWAY, 0, 0, code)
        self._end(error)

    @property
    def _complete(self) -> bool:
        return self._left_by_peer or (not self._streams and self._reader.between_frames)

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
        self._reset_lingering(now)
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
        self._events.append(Data(stream.key, data))

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
            self._cut_by_peer(stream, ResetCode.NONE, self._now)
            return None
        if length:
            # Compared when the header is read: nothing is kept of a body that may not come.
            if length > stream.flow.granted:
                raise violation("window-exceeded", f"{length} bytes, {stream.flow.granted} granted")
            stream.flow.granted -= length
            if stream.eof_received:
                error = Reset("data after the end", code="yamux.data-after-fin")
                self._cut(stream, ResetCode.VIOLATION, error, self._now)
                return None
            if self._unread + length > self._config.unread_bytes_max:
                error = Reset("too much unread data on this connection", code="yamux.unread")
                self._cut(stream, ResetCode.RESOURCE_LIMIT, error, self._now)
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
            self._cut_by_peer(stream, ResetCode.known(length), self._now)
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
        if not id or id & 1 == self._next_id & 1:
            raise violation("bad-stream-id", f"stream {id} is not the peer's to open")
        if id in self._streams:
            raise violation("duplicate-syn", f"stream {id} is open already")
        if self._full:
            self.refused += 1
            code = ResetCode.SHUTDOWN if self._leaving else ResetCode.RESOURCE_LIMIT
            self._say(WINDOW_UPDATE, RST, id, code)
            return None
        flow = ReceiveFlow(WINDOW_BYTES, WINDOW_BYTES, self._now.monotonic)
        return self._opened_by_peer(Stream(id, False, Priority.INTERACTIVE, WINDOW_BYTES, flow))

    def _acknowledged(self, stream: Stream) -> None:
        if stream.mine and not stream.accepted:
            stream.accepted = True
            self._unacked -= 1

    def _forget(self, stream: Stream) -> None:
        if stream.gone:
            return
        super()._forget(stream)
        self._unacked -= stream.mine and not stream.accepted
        self._unread -= stream.flow.unread
        self._budget.give_back(stream.flow.grown)
        if self._left_by_peer and not self._streams and self.ended is None:
            self._end(Closed("the peer said goodbye"))

    # What the application does

    def may_open(self) -> bool:
        if self._left_by_peer or self._next_id > _IDS_MAX:
            raise Closed("no new streams: the connection is ending")
        return super().may_open() and self._unacked < self._config.backlog_max

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
        if stream is None or stream.mine or stream.accepted:
            return
        stream.accepted = True
        self._backlog -= 1
        more = self._config.window_bytes - WINDOW_BYTES
        stream.flow.window += more
        stream.flow.granted += more
        self._say(WINDOW_UPDATE, ACK, key, more)

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

    def _drop_unread(self, stream: Stream) -> None:
        # No credit from now on: a peer that goes on sending stops at its window.
        self._unread -= stream.flow.unread
        stream.flow.unread = 0

    def reset(self, key: int, code: ResetCode, /) -> None:
        stream = self._streams.get(key)
        if stream is None:
            return
        self._say(WINDOW_UPDATE, RST, key, code)
        self._forget(stream)

    def go_away(self, code: int, /) -> None:
        if self.ended is None:
            self._say(GO_AWAY, 0, 0, code)
            self._end(Closed("closed on this side"))

    # Output

    def _take_control(self) -> tuple[list[Piece], int]:
        out, self._control, self._pongs = self._control, [], 0
        return out, len(out) * HEADER_BYTES

    def _say(self, kind: int, flags: int, id: int, length: int) -> None:
        self._control.append(encode_header(0, kind, flags, id, length))
