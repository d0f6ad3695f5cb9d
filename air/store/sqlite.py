"""Cells on disk, in one SQLite file. (shell)

Everything a batch needs is one transaction. The merge is a conditional upsert: SQLite compares states,
and only cells that changed nothing are looked at again, for ties and for damaged records in their way.
Each record carries a checksum that is verified whenever it is read.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import apsw

from air.base.errors import Corrupt, Full, Misuse, StoreError, SyncFailed
from air.model.cell import Cell, Key, Soul
from air.model.lex import ALL, Lex
from air.model.message import SoulRange
from air.store.api import PAGE_BYTES, PAGE_FIELDS, Page
from air.store.keyfile import read_key
from air.store.lock import FileLock
from air.store.record import Record, ScanCursor, ScanPage, beats, decode_state, decode_value, encode
from air.store.records import Records, Verification
from air.store.wal import Log, count_lost, read_log

__all__ = ["FORMAT", "Sqlite", "SqliteConfig", "SqliteStats"]

MIB: Final = 1024 * 1024

_LOG: Final = logging.getLogger("air.store")

FORMAT: Final = 1
"""Version of the file's layout, kept in SQLite's ``user_version``. A file with a higher one is refused."""

APPLICATION: Final = 0x41_49_52_01
"""Marks a SQLite file as Air's (``application_id``)."""

_SCHEMA: Final = f"""
CREATE TABLE cell(
    soul BLOB NOT NULL, key BLOB NOT NULL, state REAL NOT NULL, value BLOB NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY(soul, key)
) WITHOUT ROWID;
CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
"""

_MERGE: Final = """
INSERT INTO cell VALUES(?, ?, ?, ?, ?) ON CONFLICT(soul, key) DO UPDATE
SET state = excluded.state, value = excluded.value, crc = excluded.crc
WHERE excluded.state > state
"""

_DISK_REFUSED: Final = frozenset(
    {apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_TRUNCATE}
)


@dataclass(frozen=True, slots=True)
class SqliteConfig:
    """How one file is kept."""

    durable: bool = True
    """Flush to the disk before ``write`` returns. False: a crash of the system may cost the last writes."""
    cache_bytes: int = 32 * MIB
    """SQLite's page cache."""
    page_bytes: int = 4096
    """Page size of a new file. Larger pages cost more for a lone write and gain nothing for batches."""
    checkpoint_pages: int = 1024
    """Pages in the write-ahead log at which they are moved into the file and the log begins anew. A log that
    no longer grows flushes in half the time, so it should stop growing early."""
    recheck_bytes_max: int = 1024 * MIB
    """Largest file that is checked as a whole before writing goes on after a flush that failed. Reads wait
    for that, some seconds per GiB."""
    damaged_max: int = 256
    """Damaged records remembered by name; all are counted."""
    key_file: Path | None = None
    """File whose content is the key of the whole-file cipher. None: not encrypted."""
    vfs: str | None = None
    """SQLite VFS to use, by its name. None: the system's."""


class SqliteStats(NamedTuple):
    """Sizes in bytes."""

    file_bytes: int
    wal_bytes: int
    free_bytes: int
    """Part of the file that holds nothing and will be used again."""


class Sqlite:
    """A :class:`~air.store.api.Store` in a SQLite file at ``path``, opened or created here.

    Raises StoreError ``store.locked``, ``store.format`` (made by a newer Air, or not by Air),
    ``store.key``, ``store.open``, or Corrupt.
    """

    def __init__(self, path: str | os.PathLike[str], config: SqliteConfig | None = None) -> None:
        self.path = Path(path)
        self._config = config or SqliteConfig()
        self._refused: str | None = None
        self._wal_pages = 0
        self.lost = 0
        """Transactions that had been acknowledged and that damage in the log took, seen when opening."""
        self.unfinished = 0
        """Pages of a last transaction that opening left out: cut by a crash, or damaged."""
        self._lock = FileLock(self.path.with_name(self.path.name + ".lock"))
        try:
            self._db = self._open()
            self.records = Records(self._db.execute, self._config.damaged_max)
            """Reads and checks; counts what is damaged."""
        except BaseException:
            self._lock.release()
            raise

    # -- opening and closing ---------------------------------------------------

    def _open(self) -> apsw.Connection:
        config, created = self._config, not self.path.exists()
        key = read_key(config.key_file) if config.key_file is not None else None
        try:
            db = apsw.Connection(str(self.path), vfs=config.vfs)
        except apsw.Error as error:
            raise self._error(error) from error
        try:
            if key is not None:
                db.execute(f"PRAGMA hexkey = '{key.hex()}'")
            # With the file to ourselves the index of the log lives in our memory: no shared memory file.
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._check_format(db)
            # Now the files are ours alone, and nothing has been built on them yet.
            log = self._settle()
            self._set_up(db, log)
            # Names of new files, the log's among them, are durable when their folder is. SQLite would not
            # tell if that failed.
            if created or (config.durable and (log is None or not log.bytes)):
                _sync_folder(self.path.parent)
        except (apsw.Error, OSError, StoreError) as error:
            db.close(True)
            if isinstance(error, StoreError):
                raise
            if isinstance(error, apsw.NotADBError) and key is not None:
                raise StoreError(f"the key does not open {self.path}", code="store.key") from error
            raise self._error(error) from error
        return db

    @property
    def _log_path(self) -> Path:
        return self.path.with_name(self.path.name + "-wal")

    def _settle(self) -> Log | None:
        """Write a log that somebody left behind once more, and flush it; None when there is none.

        After a flush that failed, the system may show pages of it that are on no disk. What is written
        again is flushed again, and only then may SQLite build on it.
        """
        config, file = self._config, self._log_file()
        if file is None:
            return None
        try:
            return read_log(file, config.page_bytes, apsw.SQLITE_SYNC_NORMAL if config.durable else None)
        except apsw.Error as error:
            raise self._error(error) from error
        finally:
            file.xClose()

    def _log_file(self) -> apsw.VFSFile | None:
        if self._config.vfs is None and not self._log_path.exists():
            return None
        flags = [apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_WAL, 0]
        try:
            return apsw.VFSFile(self._config.vfs or "unix", str(self._log_path), flags)
        except apsw.Error:
            # It is not there. If it only cannot be opened, SQLite will stumble over it in a moment.
            return None

    def _judge(self, log: Log, accepted: int) -> None:
        """Compare what the log promised with what SQLite took of it."""
        if log.begun <= accepted or (file := self._log_file()) is None:
            return
        try:
            self.lost, self.unfinished = count_lost(file, log, accepted)
        finally:
            file.xClose()
        if self.lost:
            kept = self._damaged_log
            _LOG.error(
                "acknowledged transactions were lost to damage in the log",
                extra={"code": "store.corrupt", "transactions": self.lost, "copy": str(kept)},
            )
            if self._config.vfs is None and not kept.exists():
                with contextlib.suppress(OSError):
                    shutil.copyfile(self._log_path, kept)

    def _check_format(self, db: apsw.Connection) -> None:
        application, version = db.pragma("application_id"), db.pragma("user_version")
        empty = db.execute("SELECT count(*) FROM sqlite_schema").get == 0
        if application != APPLICATION and not (empty and application == version == 0):
            raise StoreError(f"{self.path} is a SQLite file, but not one of Air's", code="store.format")
        if version > FORMAT:
            raise StoreError(
                f"{self.path} has format {version}; this version of Air reads up to {FORMAT}",
                code="store.format",
            )
        if empty:
            db.execute(f"PRAGMA page_size = {self._config.page_bytes}")

    def _set_up(self, db: apsw.Connection, log: Log | None) -> None:
        config = self._config
        if db.pragma("journal_mode", "WAL") != "wal":
            raise StoreError(
                f"{self.path}: this file system cannot keep a write-ahead log", code="store.open"
            )
        db.execute(f"PRAGMA synchronous = {'FULL' if config.durable else 'NORMAL'}")
        db.execute("PRAGMA cell_size_check = ON")
        accepted, _ = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if log is not None:
            self._judge(log, accepted)
        db.execute(f"PRAGMA cache_size = {-config.cache_bytes // 1024}")
        db.execute(f"PRAGMA journal_size_limit = {2 * config.checkpoint_pages * config.page_bytes}")
        db.execute("PRAGMA mmap_size = 0")
        db.execute("PRAGMA secure_delete = OFF")
        if db.pragma("user_version") == 0:
            db.execute(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT")
        # SQLite's own checkpoints hide their errors. A disk that refuses one must be noticed.
        db.wal_autocheckpoint(0)
        db.set_wal_hook(self._logged)

    def _logged(self, db: apsw.Connection, name: str, pages: int) -> int:
        self._wal_pages = pages
        return int(apsw.SQLITE_OK)

    def close(self) -> None:
        """Move the log into the file and let others have it. Closing again does nothing."""
        try:
            if self._refused is not None:
                self._keep_log()
            self._db.close()
        except apsw.Error as error:
            raise self._error(error) from error
        finally:
            self._lock.release()

    def _keep_log(self) -> None:
        """Closing shall not move a log that may be on no disk; who opens next writes it again first."""
        with contextlib.suppress(apsw.ConnectionClosedError):
            self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)

    @property
    def refusing(self) -> str | None:
        """Why nothing is written any more until :meth:`recover` succeeds; None when writing is on."""
        return None if self._refused is None else SyncFailed.code

    def recover(self) -> None:
        """Make writing possible again after SyncFailed or Full. Raises StoreError while it is not.

        After Full this is a small write. After SyncFailed: whatever may be on no disk is written again and
        flushed, the file is opened anew and takes over the log, and its structure is checked unless it is
        larger than ``recheck_bytes_max``. Reading goes on as before when the disk still refuses.
        """
        if self._refused is None:
            # Moving the log needs no room for pages that the file has already, and frees the log.
            self._checkpoint()
            self.write((), meta={"recovered": b""})
            return
        refused = self._refused
        try:
            self._settle()
            self._keep_log()
            self._db.close(True)
            if self._config.vfs is None:
                _forget_cached(self.path)
            self._db = self._open()
            self.records.execute = self._db.execute
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            found = []
            if self._db.pragma("page_count") * self._db.pragma("page_size") <= self._config.recheck_bytes_max:
                found = [text for (text,) in self._db.execute("PRAGMA quick_check(1)") if text != "ok"]
        except (apsw.Error, StoreError) as error:
            self._refused = refused
            raise error if isinstance(error, StoreError) else self._error(error) from error
        if found:
            self._refused = refused
            raise Corrupt(f"{self.path.name}: {found[0]}")
        self._refused, self._wal_pages = None, 0

    # -- writing ---------------------------------------------------------------

    def write(self, cells: Sequence[Cell], /, *, meta: Mapping[str, bytes] | None = None) -> dict[int, Cell]:
        """Merge ``cells`` as :meth:`air.store.api.Store.write` says; ``meta`` is set in the same transaction.

        Of several cells for one field in ``cells`` the winner counts as the one written.
        Also raises Misuse ``store.bad-cell``; then nothing was written.
        """
        if self._refused is not None:
            raise SyncFailed(self._refused)
        records = encode(cells)
        committing = False
        try:
            self._db.execute("BEGIN IMMEDIATE")
            kept = self._merge(cells, records)
            for name, data in (meta or {}).items():
                self._db.execute("INSERT OR REPLACE INTO meta VALUES(?, ?, ?)", (name, data, crc32(data)))
            committing = True
            self._db.execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            if isinstance(error, apsw.Error):
                raise self._error(error, committing) from error
            raise
        if self._wal_pages >= self._config.checkpoint_pages:
            self._checkpoint()
        return kept

    def _merge(self, cells: Sequence[Cell], records: list[Record]) -> dict[int, Cell]:
        best = {record[:2]: index for index, record in enumerate(records)}
        winners: Sequence[int] = range(len(records))
        if len(best) < len(records):
            best.clear()
            for index, record in enumerate(records):
                known = best.get(record[:2])
                if known is None or beats(record, records[known]):
                    best[record[:2]] = index
            winners = list(best.values())
        changed: list[int] = []
        count, note = self._db.total_changes, changed.append

        def feed() -> Iterator[Record]:
            # SQLite asks for a row when it is done with the one before, so the counts tell who won.
            for index in winners:
                note(count())
                yield records[index]

        before = count()
        self._db.executemany(_MERGE, feed())
        kept: dict[int, Cell] = {}
        if (after := count()) - before < len(winners):
            changed.append(after)
            for place, index in enumerate(winners):
                if changed[place] == changed[place + 1]:
                    stored = self._stored(cells[index], records[index])
                    if stored is not None:
                        kept[index] = stored
        if len(winners) < len(records):
            for index, record in enumerate(records):
                if (winner := best[record[:2]]) != index:
                    kept[index] = kept.get(winner, cells[winner])
        return kept

    def _stored(self, cell: Cell, record: Record) -> Cell | None:
        """What stands in the way of a cell that changed nothing.

        None: nothing does, and the cell was put in its place. So it is with a damaged record, and with
        one of the same state and a lower value.
        """
        soul, key = record[:2]
        stored = self.records.record(soul, key)
        if stored is not None and not beats(record, stored):
            return Cell(cell.soul, cell.key, decode_value(stored[3]), decode_state(stored[2]))
        self._db.execute("INSERT OR REPLACE INTO cell VALUES(?, ?, ?, ?, ?)", record)
        return None

    def _roll_back(self) -> None:
        # A failed commit may have ended the transaction already.
        if self._db.in_transaction:
            with contextlib.suppress(apsw.Error):
                self._db.execute("ROLLBACK")

    def _checkpoint(self) -> None:
        """Move the log into the file. What is in the log is durable, so a failure here loses nothing yet."""
        try:
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            # Without room in the file the log grows on, and the write that finds no room there says so.
            if not isinstance(refusal := self._error(error, committing=True), Full):
                self._refused = refusal.message

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
        try:
            return self.records.read(soul, lex, after, fields_max, bytes_max)
        except apsw.Error as error:
            raise self._error(error) from error

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
        try:
            return self.records.scan(souls, after, fields_max, bytes_max)
        except apsw.Error as error:
            raise self._error(error) from error

    def souls(self, after: Soul = "", limit: int = 1024, *, prefix: str = "") -> Sequence[Soul]:
        """Names of nodes, as :meth:`air.store.api.Store.souls` says: one look-up per node, however large."""
        try:
            return self.records.souls(after, limit, prefix)
        except apsw.Error as error:
            raise self._error(error) from error

    # -- the rest --------------------------------------------------------------

    def get_meta(self, name: str) -> bytes | None:
        """What was last set under ``name``; None when nothing was. Raises Corrupt when it is damaged."""
        query = "SELECT CAST(value AS BLOB), CAST(crc AS INTEGER) FROM meta WHERE name = ?"
        try:
            row = self._db.execute(query, (name,)).fetchone()
        except apsw.Error as error:
            raise self._error(error) from error
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
            found.faults += [text for (text,) in self._db.execute("PRAGMA quick_check(16)") if text != "ok"]
            self.records.verify(found)
            for name, data, crc in self._db.execute(
                "SELECT name, CAST(value AS BLOB), CAST(crc AS INTEGER) FROM meta"
            ):
                if crc32(data) != crc:
                    found.faults.append(f"the entry {name!r} is damaged")
        except apsw.Error as error:
            found.faults.append(str(error))
        self._tell_of_log(found)
        return found

    def _tell_of_log(self, found: Verification) -> None:
        kept = self._damaged_log
        if self.lost:
            found.faults.append(f"up to {self.lost} acknowledged transactions were lost to damage in the log")
        if self._config.vfs is None and kept.exists():
            found.faults.append(
                f"{kept} is a damaged log that was put aside; remove it when it is dealt with"
            )
        if self.unfinished:
            found.notes.append(
                f"the log ended in {self.unfinished} pages of a transaction that was not finished:"
                " cut by a crash, or damaged"
            )

    @property
    def _damaged_log(self) -> Path:
        return self.path.with_name(self.path.name + "-wal.damaged")

    def stats(self) -> SqliteStats:
        """Sizes, from the file system; cheap."""
        wal = self._log_path
        try:
            free = self._db.pragma("freelist_count") * self._db.pragma("page_size")
        except apsw.Error as error:
            raise self._error(error) from error
        return SqliteStats(self.path.stat().st_size, wal.stat().st_size if wal.exists() else 0, free)

    @property
    def damaged(self) -> int:
        """Damaged records met so far; one that is read twice counts twice."""
        return self.records.damaged

    @property
    def damaged_names(self) -> Sequence[tuple[Soul, Key]]:
        """(soul, key) of damaged records, at most ``damaged_max``, as far as they can be read."""
        return tuple(self.records.names)

    def _error(self, error: Exception, committing: bool = False) -> StoreError | Misuse:
        """Air's error for one of SQLite's. After one that leaves durability in doubt, writing is over."""
        # Peers are told this text, and where our files are is no business of theirs.
        where, extended = self.path.name, getattr(error, "extendedresult", 0)
        if isinstance(error, apsw.ConnectionClosedError | apsw.CursorClosedError):
            if self._refused is not None:
                return SyncFailed(self._refused)  # opening it anew failed, and will be tried again
            return Misuse(f"{where} is closed", code="store.closed")
        if isinstance(error, apsw.TooBigError):
            return Misuse(f"{where}: a cell is larger than SQLite can keep", code="store.bad-cell")
        if isinstance(error, apsw.FullError) or extended in _DISK_REFUSED:
            return Full(f"{where}: no room to write to ({error})")
        if extended in (apsw.SQLITE_IOERR_CORRUPTFS, apsw.SQLITE_IOERR_DATA) or isinstance(
            error, apsw.CorruptError | apsw.NotADBError
        ):
            hint = "; if it is encrypted, name its key file" if isinstance(error, apsw.NotADBError) else ""
            return Corrupt(f"{where}: {error}{hint}")
        if isinstance(error, apsw.IOError) and (
            committing or extended in (apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC)
        ):
            self._refused = (
                f"{where}: the disk failed to keep a write ({error}); open the store again to go on"
            )
            return SyncFailed(self._refused)
        if isinstance(error, OSError) and error.errno == errno.EIO:
            return SyncFailed(f"{where}: the folder cannot be made durable ({error.strerror})")
        if isinstance(error, apsw.BusyError | apsw.LockedError):
            return StoreError(f"{where} is in use by a program that is not Air", code="store.locked")
        if isinstance(error, apsw.CantOpenError | apsw.ReadOnlyError | apsw.PermissionsError | OSError):
            return StoreError(f"cannot open {where}: {error}", code="store.open")
        return StoreError(f"{where}: {type(error).__name__}: {error}")


def _forget_cached(path: Path) -> None:
    """Let the system forget what it holds of a file that nobody has open: reading then asks the disk."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Make the name of a new file durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
