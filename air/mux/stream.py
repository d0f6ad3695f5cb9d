"""One stream of a multiplexed connection, as an application holds it. (shell)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from air.base.errors import AirError, Closed, Misuse, Reset
from air.base.waker import Waker
from air.mux.api import Priority, ResetCode
from air.mux.inbox import Inbox

if TYPE_CHECKING:
    from air.mux.conn import CoreConn

__all__ = ["CoreStream"]


class CoreStream:
    """A MuxedStream. One task may be in ``receive`` and one in ``send``."""

    __slots__ = (
        "_conn",
        "_eof",
        "_eof_sent",
        "_error",
        "_inbox",
        "_news",
        "_priority",
        "_room",
        "id",
        "outbound",
    )

    def __init__(self, conn: CoreConn, key: int, priority: Priority, *, outbound: bool) -> None:
        self._conn, self.id, self._priority, self.outbound = conn, key, priority, outbound
        self._inbox = Inbox()
        self._eof = self._eof_sent = False
        self._error: AirError | None = None
        self._news = Waker()
        self._room = Waker()

    @property
    def priority(self) -> Priority:
        return self._priority

    @priority.setter
    def priority(self, priority: Priority) -> None:
        self._priority = priority
        self._conn.core.prioritise(self.id, priority)

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        if max_bytes < 1:
            raise Misuse("receive at least one byte")
        while not self._inbox.size:
            if self._eof:
                raise Closed("the peer ended the stream")
            if self._error is not None:
                raise self._again()
            await self._news.wait()
        data = self._inbox.take(max_bytes)
        self._conn.consumed(self.id, len(data))
        if self._eof and self._eof_sent and not self._inbox.size:
            self._conn.forget_stream(self)
        return data

    async def send(self, data: bytes, /) -> None:
        conn = self._conn
        piece = conn.piece_bytes
        if len(data) <= piece:
            await self._wait_room()
            # A copy of what the caller could still change.
            conn.core.send(self.id, data if type(data) is bytes else bytes(data))
            conn.stir()
            return
        view = memoryview(data if type(data) is bytes else bytes(data))
        start = 0
        try:
            while start < len(view):
                await self._wait_room()
                conn.core.send(self.id, view[start : start + piece])
                conn.stir()
                start += piece
        finally:
            if 0 < start < len(view) and self._error is None:
                # Cancelled with a part under way: what followed it would pass for the rest.
                self._end(ResetCode.NONE)

    async def send_eof(self) -> None:
        if self._eof_sent or self._error is not None:
            return
        self._eof_sent = True
        # A task in send has come too late, and may not be told of room any more.
        self.has_room()
        self._conn.core.send_eof(self.id)
        if self._eof and not self._inbox.size:
            self._conn.forget_stream(self)
        else:
            self._conn.stir()

    async def reset(self, code: ResetCode = ResetCode.NONE, /) -> None:
        self._end(code)

    async def aclose(self) -> None:
        if self._error is None:
            self._conn.close_stream(self)
        self.cut(Reset("the stream was closed on this side"))

    # For the connection

    def arrived(self, data: bytes) -> None:
        self._inbox.put(data)
        self._news.wake()

    def finished(self) -> None:
        """The peer sends nothing more."""
        self._eof = True
        self._wake()
        if self._eof_sent and not self._inbox.size:
            self._conn.forget_stream(self)

    def cut(self, error: AirError) -> None:
        """The stream is gone, and with it what was not read."""
        if self._error is None:
            self._error = error
        self._inbox.clear()
        self._eof = False
        self._wake()

    def ended(self, error: AirError) -> None:
        """The connection is gone; what has arrived can still be read."""
        if self._error is None:
            self._error = error
        self._wake()

    def tell_state(self) -> str:
        waits = [name for name, event in (("data", self._news), ("room", self._room)) if event.waiting]
        return f"inbox {self._inbox.size}, waits for {' and '.join(waits) or 'nothing'}"

    def has_room(self) -> None:
        self._room.wake()

    def _end(self, code: ResetCode) -> None:
        if self._error is None:
            self._conn.reset_stream(self, code)
        self.cut(Reset("the stream was reset on this side", code=code.error_code))

    def _wake(self) -> None:
        self._news.wake()
        self.has_room()

    async def _wait_room(self) -> None:
        conn = self._conn
        while True:
            if self._error is not None:
                raise self._again()
            if self._eof_sent:
                raise Misuse("sending after the end was sent")
            if conn.core.room(self.id):
                return
            conn.waiting.add(self)
            await self._room.wait()

    def _again(self) -> AirError:
        """A fresh copy: a raised exception keeps the frames it went through alive."""
        assert self._error is not None
        return type(self._error)(str(self._error), code=self._error.code)
