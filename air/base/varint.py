"""Unsigned varints: the length prefixes and codes of libp2p. (core)

Seven bits to a byte, the least significant group first, the top bit on every byte but the last. Values are
below 2**63, so nine bytes are the most, and each value has exactly one spelling. Protobuf's own integers
are not under these rules.

Source: multiformats unsigned-varint.
"""

from __future__ import annotations

from typing import Final

from air.base.errors import Misuse, Violation

__all__ = ["VARINT_BYTES_MAX", "VARINT_MAX", "decode_varint", "encode_varint", "take_varint"]

VARINT_MAX: Final = 2**63 - 1
VARINT_BYTES_MAX: Final = 9

_SHORT: Final = tuple(bytes((value,)) for value in range(128))


def encode_varint(value: int) -> bytes:
    """``value`` as 1 to 9 bytes. Raises Misuse outside of 0 to VARINT_MAX."""
    if 0 <= value < 128:
        return _SHORT[value]
    if not 0 < value <= VARINT_MAX:
        raise Misuse(f"{value} does not fit into an unsigned varint", code="varint.range")
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def take_varint(
    data: bytes | bytearray | memoryview, start: int = 0, *, limit: int = VARINT_MAX
) -> tuple[int, int] | None:
    """Read one varint from ``data[start:]``: (value, bytes used), or None when it is not complete yet.

    Raises Violation ``varint.padded`` for a spelling longer than needed, ``varint.too-long`` beyond nine
    bytes, and ``varint.too-large`` as soon as the bytes seen say that the value is above ``limit``: an
    announced length is refused before its last byte has come.
    """
    value = shift = 0
    for index in range(start, len(data)):
        byte = data[index]
        if byte < 128:
            if not byte and shift:
                raise Violation("a varint with needless zeros", code="varint.padded")
            value |= byte << shift
            if value > limit:
                raise Violation(f"{value} is above the limit of {limit}", code="varint.too-large")
            return value, index - start + 1
        value |= (byte & 127) << shift
        shift += 7
        if shift == 7 * VARINT_BYTES_MAX:
            raise Violation("a varint longer than nine bytes", code="varint.too-long")
        # One more byte is due, and as the last one is never zero it adds at least 1 << shift.
        if value + (1 << shift) > limit:
            raise Violation(f"a varint above the limit of {limit}", code="varint.too-large")
    return None


def decode_varint(data: bytes | bytearray | memoryview) -> int:
    """The value of ``data``, all of which is one varint.

    Raises Violation: as :func:`take_varint` does, ``varint.truncated``, or ``varint.trailing``.
    """
    taken = take_varint(data)
    if taken is None:
        raise Violation("a varint without its end", code="varint.truncated")
    if taken[1] != len(data):
        raise Violation("bytes after a varint", code="varint.trailing")
    return taken[0]
