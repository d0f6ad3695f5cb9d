"""Messages on a stream, each behind its length as a varint. (core)

How every libp2p protocol above the muxer delimits its protobuf messages.
"""

from __future__ import annotations

from collections.abc import Iterable

from air.base.errors import LimitReached, Violation
from air.base.varint import encode_varint, take_varint

__all__ = ["FrameReader", "encode_frame", "encode_frames"]


def encode_frame(data: bytes) -> bytes:
    """``data`` with its length in front."""
    return encode_varint(len(data)) + data


def encode_frames(items: Iterable[bytes]) -> bytes:
    """Several frames as one write."""
    return b"".join([piece for data in items for piece in (encode_varint(len(data)), data)])


class FrameReader:
    """Cut a stream into frames.

    Holds at most one incomplete frame: ``limit_bytes``, and the nine bytes of a length.
    """

    __slots__ = ("_chunks", "_head", "_left", "_limit", "_size")

    def __init__(self, limit_bytes: int, *, frames_max: int | None = None) -> None:
        """``limit_bytes`` is the longest frame accepted; a longer one is refused when its length is read.

        After ``frames_max`` frames the stream belongs to something else: see :meth:`take_rest`.
        """
        self._limit = limit_bytes
        self._left = -1 if frames_max is None else frames_max
        self._head = b""
        """The beginning of a length whose end has not come."""
        self._size = -1
        """Bytes that the frame in ``_chunks`` still lacks; -1 between frames."""
        self._chunks: list[bytes | memoryview] = []

    def receive(self, data: bytes) -> list[bytes]:
        """Take bytes off the stream, return the frames they complete.

        Raises LimitReached ``frame.too-big``, or Violation with the code of :func:`take_varint`. The stream
        cannot be read any further then.
        """
        frames: list[bytes] = []
        index, end = 0, len(data)
        while index < end:
            if self._size < 0:
                if not self._left:
                    self._head += data[index:]
                    break
                if self._head:
                    # A byte at a time: what follows the length must not be joined to it and copied.
                    head = self._head + data[index : index + 1]
                    used, index = self._length(head, 0), index + 1
                    self._head = b"" if used else head
                else:
                    used = self._length(data, index)
                    if not used:
                        self._head = data[index:]
                        break
                    index += used
                if not used:
                    continue
                if self._size == 0:
                    frames.append(b"")
                    self._size, self._left = -1, self._left - 1
            elif end - index < self._size:
                # A copy: what came with it may be large and would otherwise live as long as this frame waits.
                self._chunks.append(data[index:])
                self._size -= end - index
                break
            else:
                last = data[index : index + self._size]
                index += self._size
                frames.append(b"".join([*self._chunks, last]) if self._chunks else last)
                self._chunks, self._size, self._left = [], -1, self._left - 1
        return frames

    def receive_eof(self) -> None:
        """The stream has ended. Raises Violation ``frame.truncated`` inside a frame."""
        if self._size >= 0 or (self._head and self._left):
            raise Violation("the stream ended inside a frame", code="frame.truncated")

    def take_rest(self) -> bytes:
        """What came behind the last of ``frames_max`` frames."""
        rest, self._head = self._head, b""
        return rest

    def _length(self, data: bytes, index: int) -> int:
        """Read a length; returns the bytes used, 0 when it is not complete."""
        try:
            taken = take_varint(data, index, limit=self._limit)
        except Violation as error:
            if error.code == "varint.too-large":
                raise LimitReached(
                    f"a frame longer than {self._limit} bytes", code="frame.too-big", fatal=True
                ) from None
            raise
        if taken is None:
            return 0
        self._size = taken[0]
        return taken[1]
