"""The streams of a connection, as both multiplexing protocols keep them. (core)

What is the same whatever the frames look like: who opened which stream and how many there are, what waits to
be sent, what was closed here and lingers, and how it all ended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from air.base.clock import Now
from air.base.errors import AirError, Closed, LimitReached, Reset
from air.mux.allowance import Allowance
from air.mux.api import Priority, ResetCode
from air.mux.events import Cut, Eof, Event, Opened
from air.mux.limits import MuxLimits
from air.mux.outgoing import Outgoing
from air.mux.sending import Sending
from air.transport.api import Piece

__all__ = ["StreamState", "Streams"]

_OUTPUT_BYTES: Final = 256 * 1024


class StreamState(Outgoing, ABC):
    """A stream that is in use in at least one direction."""

    __slots__ = ("accepted", "eof_received", "key", "mine", "read_closed")

    def __init__(self, key: int, mine: bool, priority: Priority) -> None:
        super().__init__(priority)
        self.key, self.mine = key, mine
        self.accepted = False
        """By the side that did not open it."""
        self.eof_received = False
        self.read_closed = False
        """Nobody will read: what arrives is dropped."""

    @property
    @abstractmethod
    def unread(self) -> int:
        """Bytes that events have brought and the application has not taken."""

    @property
    @abstractmethod
    def sendable_bytes(self) -> int:
        """How much of what is queued the peer may be sent now."""

    @abstractmethod
    def data_header(self, size: int) -> bytes:
        """What is written in front of ``size`` bytes."""

    @abstractmethod
    def end_frame(self) -> bytes:
        """What says that nothing more comes."""


S = TypeVar("S", bound=StreamState)


class Streams(ABC, Generic[S]):
    """The common half of a MuxCore. ``refused`` and ``dropped_bytes`` count what the peer sent in vain."""

    __slots__ = (
        "_backlog",
        "_control",
        "_events",
        "_inbound",
        "_leaving",
        "_limits",
        "_lingering",
        "_name",
        "_resets",
        "_sending",
        "_streams",
        "_unread",
        "dropped_bytes",
        "ended",
        "refused",
    )

    def __init__(self, name: str, limits: MuxLimits, now: Now) -> None:
        """``name`` of the protocol is the first part of its error codes."""
        self._name, self._limits = name, limits
        self._streams: dict[int, S] = {}
        self._sending: Sending[S] = Sending(limits.send_buffer_bytes, limits.queued_bytes_max)
        self._control: list[Piece] = []
        self._events: list[Event] = []
        self._inbound = self._backlog = self._unread = 0
        self._leaving = False
        self._lingering: dict[int, float] = {}
        self._resets = Allowance(limits.resets_burst, limits.resets_per_second, now.monotonic)

        self.ended: AirError | None = None
        self.refused = self.dropped_bytes = 0

    # What the shell asks

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

    def tell_state(self) -> dict[int, str]:
        return {key: stream.tell_state() for key, stream in self._streams.items()}

    # Input

    def receive(self, data: bytes | bytearray | memoryview, now: Now, /) -> list[Event]:
        """What ``data`` means. Events that came before a fault are returned; the fault is in ``ended``."""
        if self.ended is not None:
            return []
        events = self._events = []
        try:
            self._parse(data, now)
        except AirError as error:
            self._fail(error)
        return events

    def receive_eof(self, now: Now, /, error: AirError | None = None) -> list[Event]:
        """The connection ended, because of ``error`` if there was one."""
        if self.ended is None:
            if error is not None and type(error) is not Closed:
                self._end(error)
            elif self._complete:
                self._end(Closed("the peer ended the connection"))
            else:
                self._end(Reset("the connection ended while streams were open"))
        return []

    @abstractmethod
    def _parse(self, data: bytes | bytearray | memoryview, now: Now) -> None:
        """Put into ``_events`` what ``data`` means. Raises what ends the connection."""

    def _fail(self, error: AirError) -> None:
        """The peer broke a rule of the connection."""
        self._end(error)

    @property
    @abstractmethod
    def _complete(self) -> bool:
        """Whether an end now cuts nothing short."""

    def _reset_lingering(self, now: Now) -> None:
        while self._lingering:
            key = next(iter(self._lingering))
            if self._lingering[key] > now.monotonic:
                return
            self.reset(key, ResetCode.GARBAGE_COLLECTED)

    # The life of a stream

    @property
    def _full(self) -> bool:
        """Whether a stream that the peer opens is refused."""
        limits = self._limits
        return self._leaving or (
            self._backlog >= limits.backlog_max
            or self._inbound >= limits.inbound_max
            or len(self._streams) >= limits.streams_max
        )

    def _opened_by_peer(self, stream: S) -> S:
        self._streams[stream.key] = stream
        self._inbound += 1
        self._backlog += 1
        self._events.append(Opened(stream.key))
        return stream

    def _finish(self, stream: S) -> None:
        """The peer sends nothing more on this stream."""
        if not stream.eof_received:
            stream.eof_received = True
            if not stream.read_closed:
                self._events.append(Eof(stream.key))
            self._settle(stream)

    def _cut(self, stream: S, code: ResetCode, error: AirError, now: Now) -> None:
        """Reset one stream because the peer broke a rule on it."""
        self.reset(stream.key, code)
        self._events.append(Cut(stream.key, error))
        self._count_cut(stream, now)

    def _cut_by_peer(self, stream: S, code: ResetCode, now: Now) -> None:
        self._forget(stream)
        self._events.append(Cut(stream.key, Reset("the peer reset the stream", code=code.error_code)))
        self._count_cut(stream, now)

    def _count_cut(self, stream: S, now: Now) -> None:
        # To open a stream and have it cut costs the peer nothing and us a handler each time.
        if not stream.mine and not self._resets.take(now.monotonic):
            raise LimitReached("streams opened and reset too fast", code=f"{self._name}.resets")

    def _settle(self, stream: S) -> None:
        """Forget a stream that is over in both directions and read."""
        if stream.eof_sent and stream.eof_received and not stream.unread:
            self._forget(stream)

    def _forget(self, stream: S) -> None:
        stream.gone = True
        del self._streams[stream.key]
        self._lingering.pop(stream.key, None)
        if not stream.mine:
            self._inbound -= 1
            self._backlog -= not stream.accepted
        self._sending.drop(stream)

    # What the application does

    def may_open(self) -> bool:
        if self.ended is not None or self._leaving:
            raise Closed("no new streams: the connection is ending")
        if len(self._streams) >= self._limits.streams_max:
            raise LimitReached(f"{len(self._streams)} streams are open", code=f"{self._name}.streams")
        return True

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

    def close(self, key: int, now: Now, /) -> None:
        stream = self._streams.get(key)
        if stream is None or stream.read_closed:
            return
        # What still comes is not answered with a reset: that would cut the peer off from the answer that it
        # has yet to read.
        stream.read_closed = True
        self._drop_unread(stream)
        self._lingering[key] = now.monotonic + self._limits.linger_seconds
        self.send_eof(key)
        self._settle(stream)

    @abstractmethod
    def _drop_unread(self, stream: S) -> None:
        """Nobody will take what events have brought."""

    @abstractmethod
    def reset(self, key: int, code: ResetCode, /) -> None: ...

    def prioritise(self, key: int, priority: Priority, /) -> None:
        stream = self._streams.get(key)
        if stream is not None:
            stream.priority = priority

    def leave(self) -> None:
        self._leaving = True

    # Output

    def take_output(self, limit_bytes: int = _OUTPUT_BYTES, /) -> Sequence[Piece]:
        out, size = self._take_control()
        sending, most = self._sending, self._limits.frame_bytes
        while size < limit_bytes:
            stream = sending.next()
            if stream is None:
                break
            turn = min(stream.sendable_bytes, most)
            before = size
            if turn:
                header = stream.data_header(turn)
                out.append(header)
                sending.take(stream, turn, out)
                size += len(header) + turn
            if stream.eof_wanted and not stream.queued and not stream.eof_sent:
                # Never on a frame with data: js- and go-libp2p lose that data.
                end = stream.end_frame()
                out.append(end)
                size += len(end)
                stream.eof_sent = True
                self._settle(stream)
            sending.sent(stream, size - before)
        return out

    @abstractmethod
    def _take_control(self) -> tuple[list[Piece], int]:
        """What is written in front of data, and how many bytes that is."""

    def _end(self, error: AirError) -> None:
        self.ended = error
        self._sending.clear()
        for stream in self._streams.values():
            stream.gone = True
        self._streams.clear()
        self._lingering.clear()
        self._unread = 0
