"""The client's half of RFC 6455, no more than a load generator needs. (core)

Frames are built once, masked, before the clock starts. What comes back is walked header by header,
never copied, so that the caller can search a whole read with one regular expression.
"""

from __future__ import annotations

import base64
import hashlib

from air.base.errors import Violation

__all__ = [
    "CLOSE",
    "PING",
    "PONG",
    "TEXT",
    "MessageReader",
    "encode_frame",
    "read_upgrade",
    "scan",
    "server_frame",
    "split",
    "upgrade_request",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HEAD_BYTES_MAX = 16_384


def _length(size: int, mask_bit: int) -> bytes:
    if size < 126:
        return bytes((mask_bit | size,))
    if size < 65_536:
        return bytes((mask_bit | 126,)) + size.to_bytes(2, "big")
    return bytes((mask_bit | 127,)) + size.to_bytes(8, "big")


def encode_frame(payload: bytes, key: bytes, opcode: int = TEXT) -> bytes:
    """One whole client frame, masked with the 4 bytes of ``key``."""
    size = len(payload)
    # One wide XOR on integers: about a microsecond for 9,000 bytes, without a third-party module.
    stream = int.from_bytes((key * (size // 4 + 1))[:size], "little")
    masked = (int.from_bytes(payload, "little") ^ stream).to_bytes(size, "little")
    return b"".join((bytes((0x80 | opcode,)), _length(size, 0x80), key, masked))


def server_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One whole frame as a server sends it: not masked."""
    return bytes((0x80 | opcode,)) + _length(len(payload), 0) + payload


def scan(data: bytes) -> tuple[int, bool]:
    """Walk server frames. Returns (where the last whole frame ends, whether all are whole text messages).

    Raises Violation ``ws.masked`` when the server masks, which RFC 6455 5.1 forbids.
    """
    position, size, plain = 0, len(data), True
    while position + 2 <= size:
        if data[position] != 0x81:
            plain = False
        length = data[position + 1]
        if length < 126:
            end = position + 2 + length
        elif length == 126:
            if position + 4 > size:
                break
            end = position + 4 + (data[position + 2] << 8 | data[position + 3])
        elif length == 127:
            if position + 10 > size:
                break
            end = position + 10 + int.from_bytes(data[position + 2 : position + 10], "big")
        else:
            raise Violation("a server frame is masked", code="ws.masked", fatal=True)
        if end > size:
            break
        position = end
    return position, plain


def split(data: bytes) -> list[tuple[bool, int, bytes]]:
    """(final, opcode, payload) of every whole frame in ``data``; an unfinished tail is left out."""
    frames = []
    position, (end, _) = 0, scan(data)
    while position < end:
        first, length = data[position], data[position + 1]
        start = position + 2
        if length == 126:
            start, length = position + 4, int.from_bytes(data[position + 2 : position + 4], "big")
        elif length == 127:
            start, length = position + 10, int.from_bytes(data[position + 2 : position + 10], "big")
        position = start + length
        frames.append((first >= 0x80, first & 0x0F, data[start:position]))
    return frames


class MessageReader:
    """Whole frames in, whole messages out: joins fragments and lets control frames through between them."""

    __slots__ = ("_opcode", "_parts")

    def __init__(self) -> None:
        self._opcode: int | None = None
        self._parts: list[bytes] = []

    def receive(self, data: bytes) -> list[tuple[int, bytes]]:
        """(opcode, payload) of every message and control frame completed by the whole frames in ``data``.

        Raises Violation ``ws.fragment`` when a continuation has no start, or a start comes inside a message.
        """
        messages = []
        for final, opcode, payload in split(data):
            if opcode >= CLOSE:
                messages.append((opcode, payload))
                continue
            if (opcode == CONTINUATION) is (self._opcode is None):
                raise Violation("fragments out of order", code="ws.fragment", fatal=True)
            if opcode != CONTINUATION:
                self._opcode = opcode
            self._parts.append(payload)
            if final and self._opcode is not None:
                messages.append((self._opcode, b"".join(self._parts)))
                self._opcode, self._parts = None, []
        return messages


def upgrade_request(host: str, path: str, nonce: bytes) -> tuple[bytes, bytes]:
    """(the HTTP request, the Sec-WebSocket-Accept to expect) for 16 random bytes of ``nonce``."""
    key = base64.b64encode(nonce)
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key.decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    return request.encode(), base64.b64encode(hashlib.sha1(key + _GUID).digest())


def read_upgrade(data: bytes, accept: bytes) -> int | None:
    """Where the frames begin after the server's answer, or None while its head is not complete.

    Raises Violation ``ws.bad-handshake`` for anything but 101 with the accept we expect.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > _HEAD_BYTES_MAX:
            raise Violation("endless HTTP head", code="ws.bad-handshake", fatal=True)
        return None
    status, *lines = data[:end].split(b"\r\n")
    if status.split(b" ")[1:2] != [b"101"]:
        raise Violation(f"not upgraded: {status[:60]!r}", code="ws.bad-handshake", fatal=True)
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (one.partition(b":") for one in lines)
    }
    if headers.get(b"sec-websocket-accept") != accept:
        raise Violation("wrong Sec-WebSocket-Accept", code="ws.bad-handshake", fatal=True)
    return end + 4
