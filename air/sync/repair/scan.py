"""A look at a large frame before it is parsed: only the texts of cells may make one large. (core)

Columns of small numbers take eight times their bytes once they are parsed, and a frame may be 33 MiB long.
Source: the protobuf encoding, section Message Structure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from air.base.errors import LimitReached, Violation
from air.base.varint import take_varint
from air.sync.repair.config import COLUMNS_BYTES_MAX, TALK_BYTES_MAX

__all__ = ["check_large"]

_CELLS: Final = 12
_ZIPPED: Final = 16
_TEXTS: Final = 10
"""Of cells: the texts of values."""
_FIXED: Final = {1: 8, 5: 4}


def check_large(data: bytes) -> None:
    """Raises LimitReached ``repair.too-big``, or Violation ``repair.malformed``."""
    talk, columns, fields = TALK_BYTES_MAX, COLUMNS_BYTES_MAX, COLUMNS_BYTES_MAX // 8
    for field, start, end in _fields(data, 0, len(data)):
        fields -= 1
        if field == _CELLS:
            for inner, begin, stop in _fields(data, start, end):
                fields -= 1
                if inner != _TEXTS:
                    columns -= stop - begin
                if columns < 0 or fields < 0:
                    break
        elif field != _ZIPPED:
            talk -= end - start
        if talk < 0 or columns < 0 or fields < 0:
            raise LimitReached("too much in a frame beside texts", code="repair.too-big", fatal=True)


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Each field of a message: its number, and where what is in it begins and ends."""
    while at < end:
        tag, at = _number(data, at)
        kind = tag & 7
        start = at
        if kind == 0:
            _, at = _number(data, at)
        elif kind == 2:
            size, start = _number(data, at)
            at = start + size
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise _bad()
        if at > end:
            raise _bad()
        yield tag >> 3, start, at


def _number(data: bytes, at: int) -> tuple[int, int]:
    try:
        taken = take_varint(data, at)
    except Violation:
        raise _bad() from None
    if taken is None:
        raise _bad()
    return taken[0], at + taken[1]


def _bad() -> Violation:
    return Violation("not a frame of this protocol", code="repair.malformed", fatal=True)
