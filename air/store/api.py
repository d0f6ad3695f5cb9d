"""What a store is, and what it tells of ranges of its cells. (core)

A store is synchronous and batched on purpose: it runs on a thread of its own, and one call handles
many cells. Its ``write`` is itself a merge, so a batch may be repeated and a store may have several
writers: an older cell never replaces a newer one, and of equal states the greater value text stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

from air.model.cell import Cell, Fields, Key, Soul
from air.model.lex import ALL, Lex
from air.model.mark import Mark

__all__ = ["PAGE_BYTES", "PAGE_FIELDS", "Bound", "Kept", "Page", "Position", "RangeSource", "Store"]

Position: TypeAlias = tuple[bytes, bytes]
"""(soul, key) in the coding of :func:`air.model.value.unit_bytes`; compares as a store sorts its cells."""
Bound: TypeAlias = Position | None
"""One end of a range of positions: the lower one inside, the upper one not. None: no end."""

PAGE_FIELDS = 1024
PAGE_BYTES = 256 * 1024


class Page(NamedTuple):
    """Some fields of one node, in code-unit order of their keys (reversed for a reverse LEX)."""

    fields: Fields
    next: Key | None
    """Ask again with ``after=next`` for the following page; None: this was the last."""


class Kept(dict[int, Cell]):
    """What a write by a store with marks returns: a mapping as :meth:`Store.write` says, and the marks."""

    __slots__ = ("dot", "marks")

    def __init__(self, dot: Mark = ()) -> None:
        self.dot: Mark = dot
        """The plain mark of this transaction's own writes; () without a name for this peer."""
        self.marks: dict[int, Mark] = {}
        """The marks that now stand in the fields of the cells, by index, where they are not ``dot``."""

    def mark(self, index: int) -> Mark:
        """The mark that now stands in the field of a cell."""
        return self.marks.get(index, self.dot)


class Store(Protocol):
    """Keeps cells, and merges what it is given. Not thread-safe: one thread at a time."""

    def read(
        self,
        soul: Soul,
        lex: Lex = ALL,
        /,
        *,
        after: Key | None = None,
        fields_max: int = PAGE_FIELDS,
        bytes_max: int = PAGE_BYTES,
    ) -> Page:
        """One page of the fields of ``soul`` that ``lex`` means; no fields when there are none.

        A page ends after ``fields_max`` fields or once ``bytes_max`` bytes of key and value are in it
        (so it holds at least one field). A LEX with a budget yields all it may in one page, whatever
        the limits; LEX rule 5 of gun-wire 2.4 holds: a prefix that is itself a stored key means only it.
        Raises StoreError. Damaged records are left out and counted.
        """
        ...

    def write(self, cells: Sequence[Cell], /) -> dict[int, Cell]:
        """Merge ``cells`` as one atomic, durable batch.

        Returns what the store holds instead for every cell that changed nothing: index into ``cells``
        -> the stored cell, which is newer, greater or equal. An empty result: every cell won.
        Raises Full, SyncFailed or StoreError; then nothing of the batch is kept.
        """
        ...

    def souls(self, after: Soul = "", limit: int = 1024, *, prefix: str = "") -> Sequence[Soul]:
        """Names of nodes in code-unit order, those greater than ``after``, at most ``limit``."""
        ...

    def close(self) -> None: ...


class RangeSource(Protocol):
    """A store as ranges of cells, for those who compare two stores. Damaged cells are in no range.

    An item is a cell as a 128-bit hash: BLAKE2b, 16 bytes, read as a little-endian number, of the state (a
    double), the lengths of soul and key (4 bytes each), soul, key, and the value's JSON text in UTF-8; all
    numbers little-endian. Marks are not part of it: two peers may know of a value in different ways.
    """

    def fingerprint(self, low: Bound, high: Bound, /) -> tuple[int, int]:
        """(cells in the range, sum of their item hashes modulo 2**128). Raises StoreError."""
        ...

    def split(self, low: Bound, high: Bound, parts: int, /) -> Sequence[Position]:
        """Rising positions inside the range, fewer than ``parts``, that cut it into about equal parts.

        All of them are above ``low``. Fewer come when there are fewer cells than parts.
        """
        ...

    def items(self, low: Bound, high: Bound, limit: int, /) -> Sequence[tuple[Position, int]]:
        """The first ``limit`` items of the range, position and hash, in order."""
        ...

    def cells(self, positions: Sequence[Position], /) -> tuple[Sequence[Cell], Sequence[Mark]]:
        """What is stored there now, in the order asked for, and one mark for each cell.

        What is not there, or damaged, is left out.
        """
        ...

    def refresh(self, cells_max: int, /) -> bool:
        """Work ahead on what has changed, reading about ``cells_max`` cells. False: there is nothing to do.

        For idle time: fingerprints are right without it, and the first one after many changes takes longer.
        """
        ...
