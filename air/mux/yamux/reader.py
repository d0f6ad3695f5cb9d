"""Cutting what arrives into headers and bodies, however it was cut in transit. (core)"""

from __future__ import annotations

from typing import Protocol

from air.mux.yamux.frame import DATA, HEADER, HEADER_BYTES, violation
from air.mux.yamux.stream import Stream

__all__ = ["FrameReader", "FrameSink"]


class FrameSink(Protocol):
    """Who is told. Any call may raise Violation, which ends the reading."""

    def frame(self, kind: int, flags: int, id: int, length: int, /) -> Stream | None:
        """A header. For data: the stream that the body belongs to, None to drop it."""
        ...

    def body(self, stream: Stream | None, data: bytes, /) -> None:
        """A part of the body, not empty."""
        ...

    def body_over(self, stream: Stream, flags: int, /) -> None:
        """The body is complete."""
        ...

    @property
    def over(self) -> bool:
        """Whether nothing more should be told."""
        ...


class FrameReader:
    """Keeps at most an incomplete header; bodies are handed on as they come, each byte copied once."""

    __slots__ = ("_flags", "_head", "_left", "_stream")

    def __init__(self) -> None:
        self._head = b""
        self._left = self._flags = 0
        self._stream: Stream | None = None

    @property
    def between_frames(self) -> bool:
        return not self._head and not self._left

    def feed(self, data: bytes | bytearray | memoryview, sink: FrameSink) -> None:
        position, end = 0, len(data)
        unpack = HEADER.unpack_from
        while not sink.over:
            if self._left:
                if position == end:
                    return
                stop = min(position + self._left, end)
                self._left -= stop - position
                sink.body(self._stream, bytes(data[position:stop]))
                position = stop
                if self._left:
                    return
                stream, self._stream = self._stream, None
                if stream is not None:
                    sink.body_over(stream, self._flags)
            if self._head:
                missing = HEADER_BYTES - len(self._head)
                self._head += data[position : position + missing]
                position += missing
                if len(self._head) < HEADER_BYTES:
                    return
                version, kind, flags, id, length = unpack(self._head)
                self._head = b""
            elif end - position >= HEADER_BYTES:
                version, kind, flags, id, length = unpack(data, position)
                position += HEADER_BYTES
            else:
                self._head = bytes(data[position:])
                return
            if version:
                raise violation("bad-version", f"version {version}")
            stream = sink.frame(kind, flags, id, length)
            if kind == DATA and length:
                self._stream, self._flags, self._left = stream, flags, length
