"""Cells as 128-bit hashes, by which two stores find out where they differ. (core)"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, TypeAlias

from air.store.api import Bound, Position

__all__ = ["MODULUS", "Item", "cut", "item_hash", "part", "total"]

MODULUS: Final = 2**128

Item: TypeAlias = tuple[Position, int]

_HEAD: Final = struct.Struct("<dII").pack


def item_hash(soul: bytes, key: bytes, state: float, value: bytes) -> int:
    """The hash of a cell as :class:`air.store.api.RangeSource` defines it; ``value`` as it is stored."""
    data = b"".join((_HEAD(state, len(soul), len(key)), soul, key, value))
    return int.from_bytes(blake2b(data, digest_size=16).digest(), "little")


def total(hashes: Sequence[int]) -> tuple[int, int]:
    """(count, sum modulo 2**128) of some items."""
    return len(hashes), sum(hashes) % MODULUS


def part(positions: Sequence[Position], low: Bound, high: Bound) -> slice:
    """Which of some positions in order are in a range."""
    first = 0 if low is None else bisect_left(positions, low)
    last = len(positions) if high is None else bisect_left(positions, high)
    return slice(first, max(first, last))


def cut(positions: Sequence[Position], low: Bound, parts: int) -> list[Position]:
    """Positions among those of a range that cut it into equal parts; all are above ``low``."""
    parts = min(parts, len(positions))
    bounds = [positions[len(positions) * number // parts] for number in range(1, parts)]
    return [bound for bound in bounds if low is None or bound > low]
