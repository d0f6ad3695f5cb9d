"""The two varints in front of everything mplex says. (core)

Source: libp2p's mplex specification; libp2p-wire section 8.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from air.base.errors import Violation
from air.base.varint import encode_varint, take_varint

__all__ = ["Flag", "Header", "encode_header", "take_header"]


class Flag(IntEnum):
    """Receiver and initiator are meant of the stream: who sent NEW uses the even ones."""

    NEW = 0
    MESSAGE_RECEIVER = 1
    MESSAGE_INITIATOR = 2
    CLOSE_RECEIVER = 3
    CLOSE_INITIATOR = 4
    RESET_RECEIVER = 5
    RESET_INITIATOR = 6


class Header(NamedTuple):
    stream: int
    flag: int
    length: int


def encode_header(stream: int, flag: int, length: int) -> bytes:
    return encode_varint(stream << 3 | flag) + encode_varint(length)


def take_header(
    data: bytes | bytearray | memoryview, start: int, length_max: int
) -> tuple[Header, int] | None:
    """Read a header from ``data[start:]``: (header, bytes used), or None when it is not complete yet.

    Raises Violation ``mplex.bad-header`` for a varint that never ends or is padded, ``mplex.bad-flag`` and
    ``mplex.too-big``.
    """
    try:
        first = take_varint(data, start)
    except Violation as error:
        raise Violation(f"stream id: {error}", code="mplex.bad-header", fatal=True) from None
    if first is None:
        return None
    value, used = first
    if value & 7 > Flag.RESET_INITIATOR:
        raise Violation("flag 7", code="mplex.bad-flag", fatal=True)
    try:
        second = take_varint(data, start + used, limit=length_max)
    except Violation as error:
        reason = "too-big" if error.code == "varint.too-large" else "bad-header"
        raise Violation(f"length: {error}", code=f"mplex.{reason}", fatal=True) from None
    if second is None:
        return None
    return Header(value >> 3, value & 7, second[0]), used + second[1]
