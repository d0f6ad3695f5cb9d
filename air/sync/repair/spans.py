"""What one side says about a range. (core)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from air.model.cell import State
from air.store.api import Bound

__all__ = ["Give", "Ids", "Print", "Span", "Take", "before", "rises"]


class Print(NamedTuple):
    """So many cells, and the print of them all."""

    low: Bound
    high: Bound
    cells: int
    print: bytes


class Ids(NamedTuple):
    """The ids of all cells."""

    low: Bound
    high: Bound
    ids: Sequence[bytes]


class Take(NamedTuple):
    """Send me the cells with these ids. I have others, unless yours are newer: names and states."""

    low: Bound
    high: Bound
    ids: Sequence[bytes]
    offers: Sequence[tuple[bytes, State]]


class Give(NamedTuple):
    """Send me what you offered in these places."""

    low: Bound
    high: Bound
    names: Sequence[bytes]


Span: TypeAlias = Print | Ids | Take | Give


def before(high: Bound, low: Bound) -> bool:
    """True when a range that ends at ``high`` ends before or where one begins at ``low``."""
    return high is not None and low is not None and high <= low


def rises(low: Bound, high: Bound) -> bool:
    """True when a range has its ends in order."""
    return low is None or high is None or low < high
