"""Data that has arrived and waits to be read. (core)"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Inbox"]

_SMALL: Final = 1024
"""A chunk below this many bytes costs more in bookkeeping than in copying it once more."""
_LOOSE: Final = 16
"""Small chunks are kept as they are until there are this many."""
_BLOCK: Final = 65536
"""Size to which small chunks are gathered."""


class Inbox:
    """A queue of bytes, taken out in whatever sizes the reader likes.

    Large chunks are passed on as they came. When many small ones wait, they are gathered in blocks: an object
    of two bytes costs fifty, so a window full of them would take twenty times the memory that was granted.
    """

    __slots__ = ("_chunks", "size")

    def __init__(self) -> None:
        self._chunks: deque[bytes | bytearray | memoryview] = deque()
        self.size = 0
        """Bytes waiting."""

    def put(self, data: bytes) -> None:
        """Append ``data``, which is not empty."""
        chunks = self._chunks
        self.size += len(data)
        if len(data) < _SMALL and len(chunks) >= _LOOSE:
            last = chunks[-1]
            if type(last) is bytearray and len(last) < _BLOCK:
                last += data
                return
            chunks.append(bytearray(data))
            return
        chunks.append(data)

    def take(self, max_bytes: int) -> bytes:
        """Up to ``max_bytes`` from the front; everything that fits when several chunks wait."""
        chunks = self._chunks
        first = chunks[0]
        size = len(first)
        if size > max_bytes:
            # Also for a bytearray: it is not appended to any more once a view of it is the first chunk.
            view = memoryview(first)
            chunks[0] = view[max_bytes:]
            self.size -= max_bytes
            return bytes(view[:max_bytes])
        chunks.popleft()
        if not chunks or size + len(chunks[0]) > max_bytes:
            self.size -= size
            return first if type(first) is bytes else bytes(first)
        taken = [first]
        while chunks and size + len(chunks[0]) <= max_bytes:
            chunk = chunks.popleft()
            size += len(chunk)
            taken.append(chunk)
        self.size -= size
        return b"".join(taken)

    def clear(self) -> None:
        self._chunks.clear()
        self.size = 0
