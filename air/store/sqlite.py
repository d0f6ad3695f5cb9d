"""Cells on disk, in one SQLite file. (shell)

Everything a batch needs is one transaction: the cells, their marks, what the journal notes of conflicts,
which spans have changed, and entries of the caller's. Each record carries a checksum that is verified
whenever it is read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final
from zlib import crc32

from air.base.clock import Clock, SystemClock
from air.base.errors import AirError, Corrupt, Misuse, StoreError, SyncFailed
from air.base.varint import encode_varint
from air.model.cell import Cell, Key, Soul
from air.model.lex import ALL, Lex
from air.model.mark import Mark
from air.model.message import SoulRange
from air.store.api import PAGE_BYTES, PAGE_FIELDS, Bound, Kept, Page, Position
from air.store.config import SqliteConfig
from air.store.file import SqliteFile, SqliteStats
from air.store.journal import Conflict, Journal
from air.store.merge import Merge
from air.store.record import ScanCursor, ScanPage, decode, encode
from air.store.records import Execute, Records, Verification
from air.store.schema import FORMAT
from air.store.spans import Spans, sums_are_sound
from air.store.writers import Writers, own_prefix

__all__ = ["FORMAT", "Sqlite", "SqliteConfig", "SqliteStats"]

_SEQUENCE: Final = "air.sequence"
"""Entry that holds the highest sequence that may have been used."""
_RESERVE: Final = 1024
"""Sequences that are reserved at a time: an entry on disk per batch would cost a page of the log."""
_STRUCTURE_BYTES_MAX: Final = 16 * 1024 * 1024
"""A file whose structure is checked while others wait: about 0.1 s."""
_PUT_META: Final = "INSERT OR REPLACE INTO meta VALUES(?, ?, ?)"


class Sqlite:
    """A :class:`~air.store.api.Store` in a SQLite file at ``path``, opened or created here.

    ``writer`` is this peer's name in marks: a cell that is written without a mark gets the dot (writer,
    sequence), the sequence rising from transaction to transaction and never used twice, whatever happens to
    the process. Without it, such cells have no mark.

    Raises StoreError ``store.locked``, ``store.format`` (made by a newer Air, or not by Air),
    ``store.key``, ``store.open``, or Corrupt.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: SqliteConfig | None = None,
        *,
        writer: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.path = Path(path)
        self._config = config = config or SqliteConfig()
        self._writer = writer if config.marks else None
        self._clock = clock or SystemClock()
        self._file = SqliteFile(self.path, config)
        try:
            with self._file.errors:
                execute = self._file.db.execute
                self.records = Records(execute, config.damaged_max)
                """Reads and checks; counts what is damaged."""
                self.writers = Writers(execute, config.writers_max)
                """The peers that marks speak of."""
                self.journal = Journal(execute, self.writers, config.conflicts_max, config.conflict_bytes_max)
                """Edits that lost; see :meth:`conflicts`."""
                self._spans = Spans(execute, self.records.items, config.spans_max)
                self.records.on_damage = lambda place: self._spans.touch([place])
                self._load()
        except BaseException:
            self._file.close()
            raise

    def _load(self) -> None:
        """Take from the file what is kept in memory of it; also after it was opened anew."""
        db = self._file.db
        self.records.execute = db.execute
        self.writers.load(db.execute)
        self.journal.load(db.execute)
        self._spans.load(db.execute)
        self._name(None if self._writer is None else self.writers.known(self._writer))
        try:
            entry = self.get_meta(_SEQUENCE)
            self._sequence = self._reserved = int(entry or b"0")
        except Corrupt:
            # No sequence may be used twice. A batch takes longer than a microsecond, so the clock is ahead
            # of every sequence there was.
            self._sequence = self._reserved = int(1000 * self._clock.now().wall)

    def _name(self, own: int | None) -> None:
        """This peer's number as a writer is ``own``."""
        self._own, self._prefix = own, b"" if own is None else own_prefix(own)
        self._merge = Merge(self._file.db, self.records, self.writers, self.journal, own)

    # -- closing and recovering ------------------------------------------------

    def close(self) -> None:
        """Move the log into the file and let others have it. Closing again does nothing."""
        if self._spans.unsaved and self._file.writable:
            # Whoever opens it next need not sum it all up again; it is no loss if that fails.
            with contextlib.suppress(StoreError):
                self._save_spans()
        self._file.close()

    @property
    def refusing(self) -> str | None:
        """Why nothing is written any more until :meth:`recover` succeeds; None when writing is on."""
        return None if self._file.refused is None else SyncFailed.code

    @property
    def lost(self) -> int:
        """Transactions that had been acknowledged and that damage in the log took, seen when opening."""
        return self._file.lost

    @property
    def unfinished(self) -> int:
        """Pages of a last transaction that opening left out: cut by a crash, or damaged."""
        return self._file.unfinished

    def recover(self) -> None:
        """Make writing possible again after SyncFailed or Full. Raises StoreError while it is not.

        After Full this is a small write. After SyncFailed: whatever may be on no disk is written again and
        flushed, the file is opened anew and takes over the log, and its structure is checked unless it is
        larger than ``recheck_bytes_max``. Reading goes on as before when the disk still refuses.
        """
        if self._file.refused is None:
            # Moving the log needs no room for pages that the file has already, and frees the log.
            self._file.checkpoint()
            self.write((), meta={"recovered": b""})
            return
        try:
            self._file.reopen()
        finally:
            # When the file is open anew, what was known of it may not hold; nor may the connection.
            self.records.execute = self._file.db.execute
        with self._file.errors:
            self._load()

    # -- writing ---------------------------------------------------------------

    def write(
        self,
        cells: Sequence[Cell],
        /,
        *,
        meta: Mapping[str, bytes] | None = None,
        marks: Sequence[Mark | None] | None = None,
    ) -> Kept:
        """Merge ``cells`` as :meth:`air.store.api.Store.write` says; ``meta`` is set in the same transaction.

        ``marks`` has one mark for each cell, or None for one that is written here; without ``marks`` all
        are. What is written here follows what stood before. A cell with a mark that meets one it is
        concurrent to makes an entry in the journal, in the same transaction, whichever of them wins.

        Of several cells for one field in ``cells`` the winner counts as the one written. Also raises Misuse
        ``store.bad-cell`` or ``store.bad-mark``; then nothing was written.
        """
        file = self._file
        if file.refused is not None:
            raise SyncFailed(file.refused)
        if marks is not None:
            if len(marks) != len(cells):
                raise Misuse(f"{len(marks)} marks for {len(cells)} cells", code="store.bad-mark")
            if not self._config.marks:
                marks = None
        dot: Mark = ()
        coded = b""
        if self._writer is not None and cells and (marks is None or None in marks):
            if self._own is None:
                self._enlist(self._writer)
            self._sequence += 1
            dot = ((self._writer, self._sequence),)
            coded = self._prefix + encode_varint(self._sequence)
        records = encode(cells, coded)
        reserved, execute = self._reserved, file.db.execute
        try:
            with file.transaction:
                kept = self._merge.run(cells, records, marks, dot, self._wall)
                if kept:
                    self._spans.touch([row for index, row in enumerate(records) if index not in kept])
                else:
                    self._spans.touch(records)
                self._spans.pay()
                if self._sequence > reserved:
                    reserved = self._sequence + _RESERVE
                    data = str(reserved).encode()
                    execute(_PUT_META, (_SEQUENCE, data, crc32(data)))
                for name, data in (meta or {}).items():
                    execute(_PUT_META, (name, data, crc32(data)))
        except BaseException:
            self.writers.rolled_back()
            self.journal.load(execute)
            raise
        self._reserved = reserved
        self.writers.committed()
        self._spans.paid()
        return kept

    def _wall(self) -> float:
        return self._clock.now().wall

    def _enlist(self, writer: str) -> None:
        """Give this peer a number as a writer, once in the life of a file."""
        try:
            with self._file.transaction:
                self.writers.number(writer, own=True)
        except BaseException:
            self.writers.rolled_back()
            raise
        self.writers.committed()
        self._name(self.writers.known(writer))

    # -- reading ---------------------------------------------------------------

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
        """One page of a node, as :meth:`air.store.api.Store.read` says."""
        with self._file.errors:
            return self.records.read(soul, lex, after, fields_max, bytes_max)

    def scan(
        self,
        souls: SoulRange,
        /,
        *,
        after: ScanCursor | None = None,
        fields_max: int = PAGE_FIELDS,
        bytes_max: int = PAGE_BYTES,
    ) -> ScanPage:
        """One page of all cells of the nodes in ``souls``, until its budget is used.

        Whole nodes come one after the other; the last may be cut by the budget, as gun does it.
        Source: gun-wire 2.4. Raises StoreError.
        """
        with self._file.errors:
            return self.records.scan(souls, after, fields_max, bytes_max)

    def souls(self, after: Soul = "", limit: int = 1024, *, prefix: str = "") -> Sequence[Soul]:
        """Names of nodes, as :meth:`air.store.api.Store.souls` says: one look-up per node, however large."""
        with self._file.errors:
            return self.records.souls(after, limit, prefix)

    def marks(self, soul: Soul, keys: Iterable[Key]) -> dict[Key, Mark]:
        """Who wrote these fields of a node, those that are there and not damaged. Raises StoreError."""
        with self._file.errors:
            return {
                key: self.writers.decode(coded).mark
                for key in keys
                if (coded := self.records.mark(soul, key)) is not None
            }

    def conflicts(
        self, after_id: int = 0, limit: int = 256, *, soul: Soul | None = None, key: Key | None = None
    ) -> list[Conflict]:
        """Entries of the journal in the order of their ids, those above ``after_id``, at most ``limit``.

        ``soul`` and ``key`` choose those of one node, or of one field. Raises StoreError. Damaged entries are
        left out and counted.
        """
        with self._file.errors:
            return self.journal.read(after_id, limit, soul, key)

    def conflict(self, number: int) -> Conflict | None:
        """One entry of the journal; None when there is none (any more), or when it is damaged."""
        with self._file.errors:
            return self.journal.get(number)

    # -- ranges of cells -------------------------------------------------------

    def fingerprint(self, low: Bound, high: Bound, /) -> tuple[int, int]:
        """(count, sum) as :meth:`air.store.api.RangeSource.fingerprint` says.

        Takes a millisecond per million cells when all of them are summed up, and some seconds when none is:
        :meth:`refresh` until it returns False spares others that wait.
        """
        with self._file.errors:
            return self._spans.fingerprint(low, high)

    def split(self, low: Bound, high: Bound, parts: int, /) -> Sequence[Position]:
        """Positions that cut a range, as :meth:`air.store.api.RangeSource.split` says."""
        with self._file.errors:
            return self._spans.split(low, high, parts)

    def items(self, low: Bound, high: Bound, limit: int, /) -> Sequence[tuple[Position, int]]:
        """The first items of a range, as :meth:`air.store.api.RangeSource.items` says."""
        with self._file.errors:
            return self._spans.items(low, high, limit)

    def cells(self, positions: Sequence[Position], /) -> tuple[Sequence[Cell], Sequence[Mark]]:
        """What is stored in some places, as :meth:`air.store.api.RangeSource.cells` says."""
        cells: list[Cell] = []
        marks: list[Mark] = []
        with self._file.errors:
            for soul, key in positions:
                if (record := self.records.record(soul, key)) is not None:
                    cells.append(decode(record))
                    marks.append(self.writers.decode(record[5]).mark)
        return cells, marks

    def refresh(self, cells_max: int = 4096, /) -> bool:
        """Sum up ahead, as :meth:`air.store.api.RangeSource.refresh` says, and write down what is known.

        4,096 cells take about 20 ms. False: all is summed up and written down.
        """
        spans = self._spans
        with self._file.errors:
            spans.work(cells_max)
        if spans.worth_saving and self._file.writable:
            # A disk that refuses this refuses writes too, and there it is told. What was summed up is known.
            with contextlib.suppress(StoreError):
                self._save_spans()
        return bool(spans.dirty)

    def _save_spans(self) -> None:
        with self._file.transaction:
            self._spans.save()
        self._spans.saved()

    # -- the rest --------------------------------------------------------------

    def get_meta(self, name: str) -> bytes | None:
        """What was last set under ``name``; None when nothing was. Raises Corrupt when it is damaged."""
        query = "SELECT CAST(value AS BLOB), CAST(crc AS INTEGER) FROM meta WHERE name = ?"
        with self._file.errors:
            row = self._file.db.execute(query, (name,)).fetchone()
        if row is not None and crc32(row[0]) != row[1]:
            raise Corrupt(f"{self.path}: the entry {name!r} is damaged")
        return None if row is None else bytes(row[0])

    def set_meta(self, name: str, data: bytes) -> None:
        """Set one entry in a transaction of its own; see also ``write``."""
        self.write((), meta={name: data})

    def verify(self) -> Verification:
        """Read everything and check it, records and structure. Takes some seconds per million cells."""
        found = Verification()
        try:
            with self._file.errors:
                self._verify(found, self._file.db.execute)
        except AirError as error:
            found.faults.append(str(error))
        found.faults += self._file.faults()
        found.notes += self._file.notes()
        return found

    def verify_part(self, found: Verification, after: Position | None, count: int) -> Position | None:
        """:meth:`verify` in pieces, between which the store is used: ``count`` records beyond ``after``.

        Returns where the next piece begins; None: that was the last one, and :attr:`damaged` is now what was
        found. The structure of a large file is left to :meth:`verify`: that is one piece. Raises StoreError.
        """
        with self._file.errors:
            execute, records = self._file.db.execute, self.records
            after = records.verify_part(found, after, count)
            if after is not None:
                return after
            if self.stats().file_bytes <= _STRUCTURE_BYTES_MAX:
                self._verify_structure(found, execute)
            else:
                found.notes.append(
                    "the structure of a file of this size is only checked while no daemon runs"
                )
            self._verify_entries(found, execute)
        found.faults += self._file.faults()
        found.notes += self._file.notes()
        records.damaged, records.names = found.damaged, dict.fromkeys(found.names)
        return None

    def _verify(self, found: Verification, execute: Execute) -> None:
        self._verify_structure(found, execute)
        self.records.verify(found)
        self._verify_entries(found, execute)
        found.faults += self.writers.load(execute)
        if not sums_are_sound(execute):
            found.notes.append("sums over ranges of cells are damaged; they are made anew from the cells")

    def _verify_structure(self, found: Verification, execute: Execute) -> None:
        found.faults += [text for (text,) in execute("PRAGMA quick_check(16)", ()) if text != "ok"]

    def _verify_entries(self, found: Verification, execute: Execute) -> None:
        entries = "SELECT name, CAST(value AS BLOB), CAST(crc AS INTEGER) FROM meta"
        for name, data, crc in execute(entries, ()):
            if crc32(data) != crc:
                found.faults.append(f"the entry {name!r} is damaged")
        if damaged := self.journal.verify():
            found.faults.append(f"{damaged} entries of the journal of conflicts are damaged")

    def stats(self) -> SqliteStats:
        """Sizes, from the file system; cheap."""
        return self._file.stats()

    @property
    def damaged(self) -> int:
        """Damaged records met so far; one that is read twice counts twice."""
        return self.records.damaged

    @property
    def damaged_names(self) -> Sequence[tuple[Soul, Key]]:
        """(soul, key) of damaged records, at most ``damaged_max``, as far as they can be read."""
        return tuple(self.records.names)
