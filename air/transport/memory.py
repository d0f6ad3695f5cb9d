"""A pair of byte streams inside one process, with a bounded buffer each way. (shell)"""

from __future__ import annotations

from collections import deque

import anyio

from air.base.errors import Closed, Reset

__all__ = ["MemoryStream", "memory_pair"]


class _Pipe:
    """One direction. A reader and a writer, each at most one task at a time."""

    __slots__ = ("chunks", "cut", "ended", "limit", "news", "room", "size")

    def __init__(self, limit: int) -> None:
        self.chunks: deque[bytes | memoryview] = deque()
        self.size = 0
        self.limit = limit
        self.ended = False
        """Nothing more will be written; what is in here can be read."""
        self.cut = False
        """The reader has gone."""
        self.news: anyio.Event | None = None
        self.room: anyio.Event | None = None

    def wake_reader(self) -> None:
        if self.news is not None:
            self.news.set()
            self.news = None

    def wake_writer(self) -> None:
        if self.room is not None:
            self.room.set()
            self.room = None


class MemoryStream:
    """A ByteStream whose other end is in this process too. Made by ``memory_pair``.

    It behaves as a socket does: a write waits while the buffer is full, closing lets the peer read what was
    written, and writing to a peer that has closed is a Reset. What was sent is not copied.
    """

    __slots__ = ("_closed", "_in", "_out")

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._in, self._out = incoming, outgoing
        self._closed = False

    @property
    def unread_bytes(self) -> int:
        """Bytes that the other end has sent and this one did not receive yet."""
        return self._in.size

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        pipe = self._in
        while not pipe.chunks:
            if self._closed:
                raise Reset("the stream was closed on this side")
            if pipe.ended:
                raise Closed("the peer ended the stream")
            if pipe.news is None:
                pipe.news = anyio.Event()
            await pipe.news.wait()
        chunk = pipe.chunks.popleft()
        if len(chunk) > max_bytes:
            view = memoryview(chunk)
            pipe.chunks.appendleft(view[max_bytes:])
            chunk = view[:max_bytes]
        pipe.size -= len(chunk)
        pipe.wake_writer()
        return chunk if type(chunk) is bytes else bytes(chunk)

    async def send(self, data: bytes, /) -> None:
        pipe = self._out
        rest: bytes | memoryview = data
        while rest:
            while pipe.size >= pipe.limit and not (self._closed or pipe.cut):
                if pipe.room is None:
                    pipe.room = anyio.Event()
                await pipe.room.wait()
            if self._closed or pipe.ended:
                raise Reset("the stream was closed on this side")
            if pipe.cut:
                raise Reset("the stream was cut: the peer has closed it")
            space = pipe.limit - pipe.size
            if len(rest) <= space:
                part, rest = rest, b""
            else:
                view = memoryview(rest)
                part, rest = view[:space], view[space:]
            pipe.chunks.append(part)
            pipe.size += len(part)
            pipe.wake_reader()

    async def send_eof(self) -> None:
        self._out.ended = True
        self._out.wake_reader()

    async def aclose(self) -> None:
        self._closed = True
        self._in.cut = True
        self._in.chunks.clear()
        self._in.size = 0
        self._out.ended = True
        for pipe in (self._in, self._out):
            pipe.wake_reader()
            pipe.wake_writer()


def memory_pair(limit_bytes: int = 1024 * 1024) -> tuple[MemoryStream, MemoryStream]:
    """Two connected streams; each direction holds at most ``limit_bytes``, then its writer waits."""
    there, back = _Pipe(limit_bytes), _Pipe(limit_bytes)
    return MemoryStream(back, there), MemoryStream(there, back)
