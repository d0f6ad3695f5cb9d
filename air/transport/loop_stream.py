"""A connected socket on asyncio, with little between it and whoever waits for its bytes. (shell)

anyio's own stream stops and starts the reading around every receive, and keeps two events and a queue. This
one is the transport's protocol itself: it goes on reading while somebody listens, and holds at most the piece
that came when nobody did. Under uvloop that takes 4 µs less for each message at each end. To connect takes a
fifth of what anyio's race of addresses does, which has nothing to race when there is one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

import anyio
from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError, EndOfStream
from anyio.abc import SocketStream
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

__all__ = ["LoopStream", "adopt", "connect", "lighter"]


async def connect(host: str, port: int) -> SocketStream:
    """Connect to a name or an IP address. Raises OSError, as ``anyio.connect_tcp`` does."""
    loop = _loop()
    if loop is None or not _is_address(host):
        return lighter(await anyio.connect_tcp(host, port))
    _, stream = await loop.create_connection(LoopStream, host, port)
    return stream


async def adopt(sock: socket.socket) -> SocketStream:
    """The stream of a connected socket that does not block, which belongs to it from then on."""
    loop = _loop()
    if loop is None:
        return await SocketStream.from_socket(sock)
    _, stream = await loop.connect_accepted_socket(LoopStream, sock)
    return stream


def _loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def lighter(stream: SocketStream) -> SocketStream:
    """Take over a stream that anyio has just connected. Returns ``stream`` where that is not asyncio's."""
    transport, protocol = getattr(stream, "_transport", None), getattr(stream, "_protocol", None)
    if transport is None or protocol is None or transport.is_closing():
        return stream
    taken = LoopStream(list(protocol.read_queue), eof=protocol.is_at_eof)
    transport.set_protocol(taken)
    taken.connection_made(transport)
    return taken


class LoopStream(asyncio.Protocol, SocketStream):
    """anyio's SocketStream. One task may receive and one may send."""

    _transport: Any

    def __init__(self, chunks: list[bytes] | None = None, *, eof: bool = False) -> None:
        """``chunks`` and ``eof`` are what has been read before."""
        self._chunks = [] if chunks is None else chunks
        self._eof = eof
        self._closed = self._lost = self._full = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    # For whoever holds it

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if self._reader is not None:
            raise BusyResourceError("reading from")
        if self._chunks:
            await checkpoint()
        else:
            await self._arrival()
        if not self._chunks:
            if self._closed:
                raise ClosedResourceError
            if self._error is not None:
                raise BrokenResourceError from self._error
            raise EndOfStream
        chunk = self._chunks[0]
        if len(chunk) > max_bytes:
            chunk, self._chunks[0] = chunk[:max_bytes], chunk[max_bytes:]
        else:
            del self._chunks[0]
        return chunk

    async def send(self, item: bytes) -> None:
        if self._writer is not None:
            raise BusyResourceError("writing to")
        await checkpoint_if_cancelled()
        if self._full:
            await self._room()
        self._check()
        try:
            self._transport.write(item)
        except RuntimeError as error:
            # How uvloop says that the connection is gone.
            raise BrokenResourceError from error
        if self._full:
            await self._room()
            self._check()
        else:
            await cancel_shielded_checkpoint()

    async def send_eof(self) -> None:
        self._transport.write_eof()

    async def aclose(self) -> None:
        self._closed = True
        self._transport.abort()
        await checkpoint()

    @property
    def _raw_socket(self) -> socket.socket:
        found: socket.socket = self._transport.get_extra_info("socket")
        return found

    async def _arrival(self) -> None:
        """Wait until there is something, or nothing more to wait for."""
        if self._eof or self._lost or self._closed:
            await checkpoint()
            return
        if not self._transport.is_reading():
            self._transport.resume_reading()
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    async def _room(self) -> None:
        """Wait until the system has taken everything."""
        self._writer = asyncio.get_running_loop().create_future()
        try:
            await self._writer
        finally:
            self._writer = None

    def _check(self) -> None:
        if self._closed:
            raise ClosedResourceError
        if self._error is not None or self._lost:
            raise BrokenResourceError from self._error

    # For the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        # Every write then either has been taken by the system whole, or is waited for.
        self._transport.set_write_buffer_limits(0)

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        if self._reader is None or self._reader.done():
            # Nobody listens: one piece is enough to hold.
            self._transport.pause_reading()
        else:
            self._reader.set_result(None)

    def eof_received(self) -> bool:
        self._eof = True
        self._wake(self._reader)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost, self._full = True, False
        self._error = exc
        self._wake(self._reader)
        self._wake(self._writer)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._wake(self._writer)

    def _wake(self, waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
