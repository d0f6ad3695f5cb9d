"""A stream whose protocol is agreed on, or taken for granted. (shell)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from air.base.peer_id import PeerId
from air.mux.api import MuxedStream, Priority, ResetCode
from air.swarm.limits import StreamHold
from air.transport.api import ByteStream

if TYPE_CHECKING:
    from air.swarm.session import Session

__all__ = ["Stream"]


class Stream:
    """A ByteStream to a peer, inside a session, in one protocol.

    Close it when done: until then it counts against the limits. As a context manager it closes itself, and
    resets itself when the block raises.
    """

    __slots__ = ("_hold", "_io", "_muxed", "protocol", "session")

    def __init__(
        self, session: Session, muxed: MuxedStream, io: ByteStream, protocol: str, hold: StreamHold
    ) -> None:
        self.session, self._muxed, self._io, self.protocol, self._hold = session, muxed, io, protocol, hold

    @property
    def peer(self) -> PeerId:
        """Who is on the other side."""
        return self.session.peer

    @property
    def outbound(self) -> bool:
        """Whether this side opened it."""
        return self._muxed.outbound

    @property
    def priority(self) -> Priority:
        return self._muxed.priority

    @priority.setter
    def priority(self, priority: Priority) -> None:
        self._muxed.priority = priority

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        """At least one byte. Raises Closed at the end, Reset when it was cut, and the first time Denied
        ``multistream.unsupported`` when the peer was thought to speak the protocol and does not."""
        return await self._io.receive(max_bytes)

    async def send(self, data: bytes, /) -> None:
        """Return when ``data`` has a place in the send buffer. Raises Reset when the stream was cut."""
        await self._io.send(data)

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; reading goes on."""
        await self._io.send_eof()

    async def aclose(self) -> None:
        """Send what was accepted, then the end; what still comes is dropped. May be repeated."""
        try:
            await self._io.aclose()
        finally:
            self.release()

    async def reset(self, code: ResetCode = ResetCode.NONE, /) -> None:
        """Cut both directions at once. May be repeated."""
        try:
            await self._muxed.reset(code)
        finally:
            self.release()

    def reserve(self, count: int) -> None:
        """Count ``count`` bytes of memory until the stream is closed. Raises LimitReached; Misuse later."""
        self._hold.reserve(count)

    def release(self) -> None:
        """For the session: stop counting."""
        self._hold.release()
        self.session.live.discard(self)

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None:
            await self.aclose()
        else:
            await self.reset()
