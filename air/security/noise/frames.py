"""The encrypted stream behind a Noise handshake: frames sealed and opened. (core)

A frame is two bytes of length, big-endian, and that many bytes of ciphertext, the last 16 of which are the
tag. The n-th frame of a direction has the nonce n; the associated data is empty; keys never change.

The cipher needs 18 µs for 64 KiB, so each copy of a frame is felt. Large frames are sealed straight into the
buffer that goes to the transport, and opened straight out of the bytes that came from it.

Source: libp2p noise, wire format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from air.base.errors import Misuse, Violation
from air.transport.api import Piece

__all__ = ["APART_BYTES", "PLAINTEXT_BYTES_MAX", "TAG_BYTES", "Opener", "Sealer"]

TAG_BYTES: Final = 16
FRAME_BYTES_MAX: Final = 65535
"""Ciphertext of one frame: what two bytes of length can say."""
PLAINTEXT_BYTES_MAX: Final = FRAME_BYTES_MAX - TAG_BYTES
NONCE_MAX: Final = 2**64 - 2
"""The last nonce is reserved (Noise 5.1)."""

OVERHEAD_BYTES: Final = 2 + TAG_BYTES
"""What a frame is longer than its contents."""

APART_BYTES: Final = 4 * 1024
"""A piece at least this long is not copied together with its neighbours: a frame of its own costs less."""
_BATCH_BYTES: Final = 96 * 1024
"""Frames up to this many bytes share a buffer. From 128 KiB on, malloc takes pages from the system for each
buffer and gives them back: touching them anew costs as much as the cipher."""

_LENGTH = struct.Struct(">H")
_NONCE = struct.Struct("<4xQ")


class Sealer:
    """One direction, the sending end."""

    __slots__ = ("_cipher", "_nonce")

    def __init__(self, key: bytes, nonce: int = 0) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._nonce = nonce

    def seal(self, data: Piece) -> Iterator[bytes | bytearray]:
        """``data`` in as few frames as possible. See :meth:`seal_many`."""
        size = len(data)
        if size <= APART_BYTES:
            yield self._seal_one(data)
            return
        view = memoryview(data)
        for start in range(0, size, PLAINTEXT_BYTES_MAX):
            part = view[start : start + PLAINTEXT_BYTES_MAX]
            yield self._seal([part], len(part) + OVERHEAD_BYTES)

    def seal_many(self, pieces: Iterable[Piece]) -> Iterator[bytes | bytearray]:
        """The pieces one behind the other; the peer cannot see where one ends. Small ones share a frame.

        Yields buffers of whole frames, sealed when they are asked for, each new and never touched again. They
        must all be sent, in this order.
        """
        batch: list[Piece] = []
        size = 0
        for part in _parts(pieces):
            if batch and size + len(part) + OVERHEAD_BYTES > _BATCH_BYTES:
                yield self._seal(batch, size)
                batch, size = [], 0
            batch.append(part)
            size += len(part) + OVERHEAD_BYTES
        if batch:
            yield self._seal(batch, size)

    def _seal_one(self, part: Piece) -> bytes:
        head = _LENGTH.pack(len(part) + TAG_BYTES)
        return head + self._cipher.encrypt(_NONCE.pack(self._take(1)), part, None)

    def _seal(self, parts: list[Piece], size: int) -> bytes | bytearray:
        if len(parts) == 1 and size <= APART_BYTES:
            return self._seal_one(parts[0])
        nonce = self._take(len(parts))
        out = bytearray(size)
        at, encrypt_into = 0, self._cipher.encrypt_into
        with memoryview(out) as target:
            for part in parts:
                length = len(part) + TAG_BYTES
                _LENGTH.pack_into(out, at, length)
                encrypt_into(_NONCE.pack(nonce), part, None, target[at + 2 : at + 2 + length])
                at += 2 + length
                nonce += 1
        return out

    def _take(self, count: int) -> int:
        nonce = self._nonce
        if nonce + count > NONCE_MAX:
            raise Misuse("the nonces of this connection are used up", code="noise.nonces")
        self._nonce = nonce + count
        return nonce


def _parts(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The pieces as contents of frames: small ones joined, large ones divided, none of them empty."""
    small: list[Piece] = []
    joined = 0
    for piece in pieces:
        size = len(piece)
        if small and (size >= APART_BYTES or joined + size > PLAINTEXT_BYTES_MAX):
            yield small[0] if len(small) == 1 else b"".join(small)
            small, joined = [], 0
        if size >= APART_BYTES:
            view = memoryview(piece)
            for start in range(0, size, PLAINTEXT_BYTES_MAX):
                yield view[start : start + PLAINTEXT_BYTES_MAX]
        elif size:
            small.append(piece)
            joined += size
    if small:
        yield small[0] if len(small) == 1 else b"".join(small)


class Opener:
    """One direction, the receiving end. Holds at most one incomplete frame, 65,537 bytes."""

    __slots__ = ("_cipher", "_nonce", "_tail", "error")

    def __init__(self, key: bytes, nonce: int = 0) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._nonce = nonce
        self._tail = bytearray()
        """The beginning of a frame whose end has not come."""
        self.error: Violation | None = None
        """What ended the direction, ``noise.frame``. Frames before it are good."""

    def receive(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take bytes off the stream, return the contents of the frames they complete, none of them empty.

        After a frame that is forged or no frame, ``error`` is set, and a further call raises it.
        """
        if self.error is not None:
            raise self.error
        frames: list[bytes] = []
        with memoryview(data) as view:
            start = self._finish(view, frames) if self._tail and data else 0
            end, nonce, decrypt = len(view), self._nonce, self._cipher.decrypt
            try:
                while end - start > 1:
                    stop = start + 2 + (view[start] << 8 | view[start + 1])
                    if stop > end:
                        break
                    plain = decrypt(_NONCE.pack(nonce), view[start + 2 : stop], None)
                    nonce += 1
                    start = stop
                    if plain:
                        frames.append(plain)
            except InvalidTag:
                self._fail("a frame failed its authentication")
            self._nonce = nonce
            if self.error is None and start < end:
                if end - start > 1 and stop - start < 2 + TAG_BYTES:
                    self._fail("a frame too short for its tag")
                else:
                    self._tail += view[start:]
        return frames

    def receive_eof(self) -> None:
        """The stream has ended. Raises Violation ``noise.truncated`` inside a frame.

        An end between two frames looks the same whoever made it: whether the peer meant it, only the muxer
        can tell.
        """
        if self.error is not None:
            raise self.error
        if self._tail:
            self.error = Violation("the stream ended inside a frame", code="noise.truncated", fatal=True)
            self._tail = bytearray()
            raise self.error

    def _finish(self, view: memoryview, frames: list[bytes]) -> int:
        """Complete the frame in ``_tail``; returns how many bytes of ``view`` that took."""
        tail, used = self._tail, 0
        if len(tail) == 1:
            tail += view[:1]
            used = 1
        size = 2 + (tail[0] << 8 | tail[1])
        if size < 2 + TAG_BYTES:
            self._fail("a frame too short for its tag")
            return len(view)
        missing = size - len(tail)
        tail += view[used : used + missing]
        used += missing
        if used > len(view):
            return len(view)
        self._tail = bytearray()
        try:
            plain = self._cipher.decrypt(_NONCE.pack(self._nonce), memoryview(tail)[2:], None)
        except InvalidTag:
            self._fail("a frame failed its authentication")
            return len(view)
        self._nonce += 1
        if plain:
            frames.append(plain)
        return used

    def _fail(self, why: str) -> None:
        self.error = Violation(why, code="noise.frame", fatal=True)
        self._tail = bytearray()
