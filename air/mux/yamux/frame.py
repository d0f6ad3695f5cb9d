"""The twelve bytes in front of everything yamux says. (core)

Source: the yamux specification of hashicorp and libp2p; libp2p-wire section 7.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from air.base.errors import Violation

__all__ = [
    "ACK",
    "CREDIT_MAX",
    "DATA",
    "FIN",
    "GO_AWAY",
    "HEADER",
    "HEADER_BYTES",
    "PING",
    "RST",
    "SYN",
    "WINDOW_BYTES",
    "WINDOW_UPDATE",
    "GoAway",
    "Header",
    "decode_header",
    "encode_header",
    "violation",
]

HEADER: Final = struct.Struct(">BBHII")
HEADER_BYTES: Final = 12

DATA, WINDOW_UPDATE, PING, GO_AWAY = 0, 1, 2, 3
SYN, ACK, FIN, RST = 1, 2, 4, 8

WINDOW_BYTES: Final = 256 * 1024
"""Credit that each direction of each stream starts with, whatever is configured."""
CREDIT_MAX: Final = 2**32 - 1


class GoAway(IntEnum):
    """Why a connection ends. Numbers from 0x1000 on are go-libp2p's."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    NEGOTIATION_FAILED = 0x1000
    RESOURCE_LIMIT = 0x1001
    RATE_LIMITED = 0x1002
    VIOLATION = 0x1003
    SUPPLANTED = 0x1004
    GARBAGE_COLLECTED = 0x1005
    SHUTDOWN = 0x1006
    GATED = 0x1007


class Header(NamedTuple):
    version: int
    kind: int
    flags: int
    stream: int
    length: int
    """Bytes that follow (data), credit or with RST a ResetCode (window update), any value (ping), GoAway."""


encode_header = HEADER.pack
"""``(0, kind, flags, stream, length)`` as 12 bytes."""


def decode_header(data: bytes | bytearray | memoryview, offset: int = 0) -> Header:
    """The header at ``offset``; 12 bytes must be there. Judges nothing."""
    return Header(*HEADER.unpack_from(data, offset))


def violation(reason: str, text: str) -> Violation:
    """A fault of the peer that ends the connection with GoAway 1; ``reason`` is the last part of its code."""
    return Violation(text, code=f"yamux.{reason}", fatal=True)
