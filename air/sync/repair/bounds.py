"""Bounds of ranges in bytes: each by what it does not share with the one before. (core)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from air.base.errors import Violation
from air.base.varint import encode_varint, take_varint
from air.store.api import Bound

__all__ = ["BOUNDS_BYTES_MAX", "BOUND_BYTES_MAX", "flat", "join_bounds", "read_bounds", "unflat"]

BOUND_BYTES_MAX: Final = 64 * 1024
"""A soul and a key, each of at most 8192 characters, three bytes for each."""
BOUNDS_BYTES_MAX: Final = 1024 * 1024
"""All bounds of a frame, written out: shared parts must not become more memory than a frame may take."""

_BETWEEN: Final = b"\xff"
"""Is in no text, so it tells where the soul ends."""


def flat(bound: Bound) -> bytes:
    """A bound as one piece of bytes; nothing for no bound."""
    return b"" if bound is None else bound[0] + _BETWEEN + bound[1]


def unflat(data: bytes) -> Bound:
    """The bound that :func:`flat` wrote. Raises Violation ``repair.bad-bounds``."""
    if not data:
        return None
    soul, between, key = data.partition(_BETWEEN)
    if not between or _BETWEEN in key:
        raise Violation("a bound that is no soul and key", code="repair.bad-bounds", fatal=True)
    return soul, key


def join_bounds(bounds: Sequence[bytes]) -> bytes:
    """Flat bounds, one behind the other."""
    parts: list[bytes] = []
    last = b""
    for bound in bounds:
        shared = _shared(last, bound)
        rest = bound[shared:]
        parts += (encode_varint(shared), encode_varint(len(rest)), rest)
        last = bound
    return b"".join(parts)


def read_bounds(data: bytes, count: int) -> list[bytes]:
    """The ``count`` flat bounds in ``data``. Raises Violation ``repair.bad-bounds``."""
    bounds: list[bytes] = []
    last = b""
    at = total = 0
    while at < len(data):
        lengths = []
        for _ in range(2):
            try:
                taken = take_varint(data, at, limit=BOUND_BYTES_MAX)
            except Violation as error:
                raise _bad(str(error)) from None
            if taken is None:
                raise _bad("a bound is cut short")
            lengths.append(taken[0])
            at += taken[1]
        shared, rest = lengths
        total += shared + rest
        if shared > len(last) or at + rest > len(data) or shared + rest > BOUND_BYTES_MAX:
            raise _bad("a bound that reaches beyond what is there")
        if total > BOUNDS_BYTES_MAX or len(bounds) == count:
            raise _bad("more bounds than there may be")
        last = last[:shared] + data[at : at + rest]
        at += rest
        bounds.append(last)
    if len(bounds) != count:
        raise _bad(f"{len(bounds)} bounds instead of {count}")
    return bounds


def _shared(one: bytes, other: bytes) -> int:
    """How many bytes they begin with in common."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _bad(text: str) -> Violation:
    return Violation(text, code="repair.bad-bounds", fatal=True)
