"""What everything above the mux floor may expect of a multiplexed connection. (core)"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

from air.base.env import Env
from air.base.errors import AirError
from air.transport.api import ByteStream

__all__ = ["MuxedConn", "MuxedStream", "Muxer", "Priority", "ResetCode"]


class Priority(IntEnum):
    """Whose data goes first when several streams of a connection have some.

    A higher class gets most of the line, not all of it, so a bulk transfer slows down but never stops.
    """

    CONTROL = 0
    """Small and rare: pings, lookups, negotiation."""
    INTERACTIVE = 1
    """Somebody waits for it. The default."""
    BULK = 2
    """Nobody waits for a single piece of it."""


class ResetCode(IntEnum):
    """Why a stream is cut, as go-libp2p numbers it (libp2p-wire 7). mplex cannot carry it."""

    NONE = 0
    NEGOTIATION_FAILED = 0x1001
    RESOURCE_LIMIT = 0x1002
    RATE_LIMITED = 0x1003
    VIOLATION = 0x1004
    SUPPLANTED = 0x1005
    GARBAGE_COLLECTED = 0x1006
    SHUTDOWN = 0x1007
    GATED = 0x1008

    @property
    def error_code(self) -> str:
        """The code of the Reset that users of the stream get, such as ``stream.rate-limited``."""
        return "stream.reset" if not self else "stream." + self.name.lower().replace("_", "-")

    @classmethod
    def known(cls, number: int) -> ResetCode:
        """The code of ``number``; NONE for numbers that nobody has given a meaning."""
        try:
            return cls(number)
        except ValueError:
            return cls.NONE


class MuxedStream(ByteStream, Protocol):
    """A ByteStream inside a connection. It differs from one of its own in these points:

    ``send`` returns when the bytes have a place in the send buffer. A ``send`` that is cancelled before that
    has sent nothing and the stream is intact, unless ``data`` was larger than the buffer: then it is reset.
    ``aclose`` sends what was accepted, then the end; it does not wait for either. What the peer sends
    afterwards is dropped. ``receive`` and ``send`` raise Reset with a code of ResetCode once either side has
    cut the stream, and with the code of the connection's end when the whole connection has ended.
    """

    @property
    def id(self) -> int:
        """A number that no other stream of this connection has at the same time."""
        ...

    @property
    def outbound(self) -> bool:
        """Whether this side opened it."""
        ...

    @property
    def priority(self) -> Priority: ...

    @priority.setter
    def priority(self, priority: Priority, /) -> None: ...

    async def reset(self, code: ResetCode = ResetCode.NONE, /) -> None:
        """Cut both directions at once; unsent and unread data are dropped. May be repeated."""
        ...


class MuxedConn(Protocol):
    """A connection that carries streams. It works while somebody runs ``run``, and only then."""

    async def run(self) -> None:
        """Carry the connection until it ends, then return; ``error`` says how. Call it once, in a task.

        Cancelling it cuts the connection. It closes the stream that it was made from in any case.
        """
        ...

    async def open(self, priority: Priority = Priority.INTERACTIVE) -> MuxedStream:
        """A new stream. Waits while the peer has too many that it has not accepted yet.

        Raises LimitReached when this connection has as many streams as it may have; Closed when it has ended
        or one side has said goodbye.
        """
        ...

    async def accept(self) -> MuxedStream:
        """The next stream that the peer opened; one task at a time. A cancelled call loses none.

        Raises Closed when the connection ended in good order, Reset or Violation when it did not.
        """
        ...

    async def aclose(self, code: int = 0) -> None:
        """Send what the streams have accepted, say goodbye where the protocol has a way to, and end.

        ``code`` is yamux's: 0 for a normal end. Takes a few seconds at most, whatever the peer does. Streams
        that are still open are cut. May be repeated.
        """
        ...

    async def abort(self) -> None:
        """Cut the connection at once, without a word to a peer that would not hear it. May be repeated."""
        ...

    @property
    def error(self) -> AirError | None:
        """How the connection ended; None while it has not."""
        ...

    @property
    def rtt_seconds(self) -> float | None:
        """Round trip time, smoothed; None when it is not known."""
        ...

    @property
    def streams(self) -> int:
        """Streams open now, both directions."""
        ...


class Muxer(Protocol):
    """A way to multiplex, complete with its limits."""

    @property
    def protocol(self) -> str:
        """What multistream-select calls it, such as ``/yamux/1.0.0``."""
        ...

    def wrap(self, conn: ByteStream, /, *, dialer: bool, env: Env) -> MuxedConn:
        """Take over ``conn``. ``dialer`` is true on the side that opened it."""
        ...
