"""A virtual disk that knows who wrote what: the store's own tables and rules, in memory. (core)

The merge with its marks, the journal of conflicts and the sums over ranges are those of ``air/store``. Only
the file is missing, and with it what ``store/sqlite`` does about files.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from air.base.varint import encode_varint
from air.model.cell import Cell, Key, Soul
from air.model.mark import Mark
from air.sim.disk import SimDisk
from air.sim.oracle import Oracle, beats
from air.store.api import Bound, Position
from air.store.config import SqliteConfig
from air.store.journal import Conflict, Journal
from air.store.merge import Merge
from air.store.record import decode, encode
from air.store.records import Records, Rows
from air.store.schema import upgrade
from air.store.spans import Spans
from air.store.writers import Writers, own_prefix

__all__ = ["MarkedDisk", "Ranges"]


class _Database:
    """A SQLite database as the merge wants it."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._db.executescript(upgrade(0))

    def execute(self, sql: str, values: tuple[Any, ...] = (), /) -> Rows:
        return self._db.execute(sql, values)

    def executemany(self, sql: str, rows: Any, /) -> object:
        return self._db.executemany(sql, rows)

    def total_changes(self) -> int:
        return self._db.total_changes


class MarkedDisk(SimDisk):
    """What is durable of one peer, with marks. ``name`` is the peer's in them."""

    def __init__(
        self,
        peer: int,
        oracle: Oracle,
        name: str,
        wall: Callable[[], float],
        wrote: Callable[[int, Cell, Mark, bool], None],
        met: Callable[[int, Cell, Mark], None],
    ) -> None:
        """``wrote`` hears of every cell that was written here and won, with its mark, and whether it stands;
        ``met`` of those written elsewhere."""
        super().__init__(peer, oracle)
        config = SqliteConfig()
        self._db = _Database()
        self._name, self._wall = name, wall
        self._wrote, self._met = wrote, met
        execute = self._db.execute
        self.records = Records(execute, config.damaged_max)
        self.writers = Writers(execute, config.writers_max)
        self.journal = Journal(execute, self.writers, config.conflicts_max, config.conflict_bytes_max)
        self.spans = Spans(execute, self.records.items, config.spans_max)
        own = self.writers.number(name, own=True)
        assert own is not None
        self._prefix = own_prefix(own)
        self._merge = Merge(self._db, self.records, self.writers, self.journal, own)
        self._sequence = 0
        self.ranges = Ranges(self)

    def write(
        self,
        cells: Sequence[Cell],
        /,
        *,
        meta: Mapping[str, bytes] | None = None,
        marks: Sequence[Mark | None] | None = None,
    ) -> dict[int, Cell]:
        before = self.admit(cells)
        dot: Mark = ()
        coded = b""
        if cells and (marks is None or None in marks):
            self._sequence += 1
            dot = ((self._name, self._sequence),)
            coded = self._prefix + encode_varint(self._sequence)
        records = encode(cells, coded)
        kept = self._merge.run(cells, records, marks, dot, self._wall)
        self.spans.touch([row for index, row in enumerate(records) if index not in kept])
        self.spans.pay()
        self.spans.paid()
        self.writers.committed()
        self.meta.update(meta or {})
        best = {(cell.soul, cell.key): held for cell, held in zip(cells, before, strict=True)}
        for index, cell in enumerate(cells):
            # What the tables hold, not what the merge believes.
            stored = self.records.record(*records[index][:2])
            if stored is not None:
                held = decode(stored)
                self.cells.set(self.cells.ensure(cell.soul), cell.key, held.value, held.state)
            mark = None if marks is None else marks[index]
            known = best[cell.soul, cell.key]
            newer = beats(cell.value, cell.state, None if known is None else (known.value, known.state))
            if newer:
                best[cell.soul, cell.key] = cell
            if mark is not None:
                self._met(self._peer, cell, mark)
            elif newer:
                # Also one that lost to what came with it in the same batch, which nobody had known.
                self._wrote(self._peer, cell, dot if index in kept else kept.mark(index), index not in kept)
        self._oracle.stored(self._peer, cells, before, self.get)
        return kept

    def mark(self, soul: Soul, key: Key) -> Mark:
        """Who wrote what a field holds; () when it is not known."""
        coded = self.records.mark(soul, key)
        return () if coded is None else self.writers.decode(coded).mark

    def conflicts(self) -> list[Conflict]:
        """The journal."""
        return self.journal.read(0, 1_000_000, None, None)

    # -- as ranges of cells --------------------------------------------------------

    def fingerprint(self, low: Bound, high: Bound, /) -> tuple[int, int]:
        return self.spans.fingerprint(low, high)

    def split(self, low: Bound, high: Bound, parts: int, /) -> Sequence[Position]:
        return self.spans.split(low, high, parts)

    def items(self, low: Bound, high: Bound, limit: int, /) -> Sequence[tuple[Position, int]]:
        return self.spans.items(low, high, limit)

    def range_cells(self, positions: Sequence[Position], /) -> tuple[Sequence[Cell], Sequence[Mark]]:
        cells: list[Cell] = []
        marks: list[Mark] = []
        for soul, key in positions:
            if (record := self.records.record(soul, key)) is not None:
                cells.append(decode(record))
                marks.append(self.writers.decode(record[5]).mark)
        return cells, marks

    def refresh(self, cells_max: int, /) -> bool:
        self.spans.work(cells_max)
        return bool(self.spans.dirty)


class Ranges:
    """The ranges of a disk: there ``cells`` is a question, and not the table of what it holds."""

    def __init__(self, disk: MarkedDisk) -> None:
        self.fingerprint, self.split, self.items = disk.fingerprint, disk.split, disk.items
        self.cells, self.refresh = disk.range_cells, disk.refresh
