"""A look at a large frame before it is parsed: it may be long only because the texts in it are. (core)

Columns of small numbers take eight times their bytes once they are parsed, and a million empty names fit into
two megabytes. So the frame is walked field by field, texts are skipped, and the rest must be small.
Source: the protobuf encoding, section Message Structure.
"""

from __future__ import annotations

from typing import Final

from air.base.errors import LimitReached, Violation
from air.sync.native.limits import NativeLimits

__all__ = ["check_large"]

_ZIPPED: Final = (15,)
_DATA: Final = (15, 2)
_INSIDE: Final = frozenset([(2,), (5,), _ZIPPED, (2, 2), (5, 2)])
"""Messages to look into: put and answer and their cells, zipped."""
_FREE: Final = frozenset([(2, 2, 10), (5, 2, 10), _DATA])
"""What may be long: the texts of cells, and what is compressed."""


def check_large(data: bytes, limits: NativeLimits) -> None:
    """Raises Violation ``native.bad-frame``, or LimitReached ``limit.columns``."""
    left = [limits.columns_bytes_max, 8 * limits.cells_max]
    _walk(data, 0, len(data), (), left)


def _walk(data: bytes, at: int, end: int, path: tuple[int, ...], left: list[int]) -> None:
    while at < end:
        start = at
        tag, at = _number(data, at, end)
        here = (*path, tag >> 3)
        kind = tag & 7
        if kind == 0:
            _, at = _number(data, at, end)
        elif kind == 1:
            at += 8
        elif kind == 5:
            at += 4
        elif kind == 2:
            length, at = _number(data, at, end)
            if at + length > end:
                raise _bad()
            if here in _INSIDE:
                _walk(data, at, at + length, here, left)
                start += length
            elif here in _FREE:
                start += length
            at += length
        else:
            raise _bad()
        left[0] -= at - start
        left[1] -= 1
        if at > end:
            raise _bad()
        if min(left) < 0:
            raise LimitReached("too much in a frame beside the texts", code="limit.columns", fatal=True)


def _number(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise _bad()


def _bad() -> Violation:
    return Violation("not a frame", code="native.bad-frame", fatal=True)
