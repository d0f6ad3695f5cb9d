"""The SQLite file of a store: opened with care, flushed with suspicion, and closed. (shell)

A log that somebody left behind is written again before anything is built on it, and after a flush that
failed the file is closed to writing until it has been opened anew (docs/durability.md says why).
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path
from typing import Final, NamedTuple

import apsw

from air.base.errors import Corrupt, Full, Misuse, StoreError, SyncFailed
from air.store.config import SqliteConfig
from air.store.keyfile import read_key
from air.store.lock import FileLock
from air.store.refusal import leaves_doubt, refusal
from air.store.schema import APPLICATION, FORMAT, upgrade
from air.store.wal import Log, count_lost, read_log

__all__ = ["SqliteFile", "SqliteStats"]

_LOG: Final = logging.getLogger("air.store")


class SqliteStats(NamedTuple):
    """Sizes in bytes."""

    file_bytes: int
    wal_bytes: int
    free_bytes: int
    """Part of the file that holds nothing and will be used again."""


class SqliteFile:
    """The file at ``path`` and its log, opened or created here, locked against other processes.

    Raises StoreError ``store.locked``, ``store.format`` (made by a newer Air, or not by Air),
    ``store.key``, ``store.open``, or Corrupt.
    """

    def __init__(self, path: Path, config: SqliteConfig) -> None:
        self.path = path
        self._config = config
        self.refused: str | None = None
        """Why nothing is written any more until :meth:`reopen` succeeds; None when writing is on."""
        self._wal_pages = 0
        self._closed = False
        self.lost = 0
        """Transactions that had been acknowledged and that damage in the log took, seen when opening."""
        self.unfinished = 0
        """Pages of a last transaction that opening left out: cut by a crash, or damaged."""
        self.errors = _Errors(self)
        """A block in which SQLite's errors become Air's."""
        self.transaction = _Transaction(self)
        """A block that is one transaction: committed at its end, undone by an error; these become Air's."""
        self._lock = FileLock(path.with_name(path.name + ".lock"))
        try:
            self.db = self._open()
        except BaseException:
            self._lock.release()
            raise

    # -- opening ---------------------------------------------------------------

    def _open(self) -> apsw.Connection:
        config, created = self._config, not self.path.exists()
        key = read_key(config.key_file) if config.key_file is not None else None
        try:
            db = apsw.Connection(str(self.path), vfs=config.vfs)
        except apsw.Error as error:
            raise self.error(error) from error
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
            raise self.error(error) from error
        return db

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
            raise self.error(error) from error
        finally:
            file.xClose()

    def _log_file(self) -> apsw.VFSFile | None:
        if self._config.vfs is None and not self.log_path.exists():
            return None
        flags = [apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_WAL, 0]
        try:
            return apsw.VFSFile(self._config.vfs or "unix", str(self.log_path), flags)
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
            kept = self.damaged_log
            _LOG.error(
                "acknowledged transactions were lost to damage in the log",
                extra={"code": "store.corrupt", "transactions": self.lost, "copy": str(kept)},
            )
            if self._config.vfs is None and not kept.exists():
                with contextlib.suppress(OSError):
                    shutil.copyfile(self.log_path, kept)

    def _check_format(self, db: apsw.Connection) -> None:
        application, version = db.pragma("application_id"), db.pragma("user_version")
        empty = db.execute("SELECT count(*) FROM sqlite_schema").get == 0
        if application != APPLICATION and not (empty and application == version == 0):
            raise StoreError(f"{self.path} is a SQLite file, but not one of Air's", code="store.format")
        if not 0 <= version <= FORMAT:
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
        # The log may have brought the last upgrade, so the version is asked for again.
        if steps := upgrade(db.pragma("user_version")):
            db.execute(steps)
        # SQLite's own checkpoints hide their errors. A disk that refuses one must be noticed.
        db.wal_autocheckpoint(0)
        db.set_wal_hook(self._logged)

    def _logged(self, db: apsw.Connection, name: str, pages: int) -> int:
        self._wal_pages = pages
        return int(apsw.SQLITE_OK)

    # -- closing and opening again ---------------------------------------------

    def close(self) -> None:
        """Move the log into the file and let others have it. Closing again does nothing."""
        self._closed = True
        try:
            if self.refused is not None:
                self._keep_log()
            self.db.close()
        except apsw.Error as error:
            raise self.error(error) from error
        finally:
            self._lock.release()

    def _keep_log(self) -> None:
        """Closing shall not move a log that may be on no disk; who opens next writes it again first."""
        with contextlib.suppress(apsw.ConnectionClosedError):
            self.db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)

    def reopen(self) -> None:
        """Open the file anew after SyncFailed. Raises StoreError when the disk still refuses.

        Whatever may be on no disk is written again and flushed first; then the file takes over the log, and
        its structure is checked unless it is larger than ``recheck_bytes_max``.
        """
        refused = self.refused
        try:
            self._settle()
            self._keep_log()
            self.db.close(True)
            if self._config.vfs is None:
                _forget_cached(self.path)
            self.db = self._open()
            self.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            found = []
            if self.db.pragma("page_count") * self.db.pragma("page_size") <= self._config.recheck_bytes_max:
                found = [text for (text,) in self.db.execute("PRAGMA quick_check(1)") if text != "ok"]
        except (apsw.Error, StoreError) as error:
            self.refused = refused
            raise error if isinstance(error, StoreError) else self.error(error) from error
        if found:
            self.refused = refused
            raise Corrupt(f"{self.path.name}: {found[0]}")
        self.refused, self._wal_pages = None, 0

    # -- transactions ----------------------------------------------------------

    @property
    def writable(self) -> bool:
        """True while the file is open and no flush has failed."""
        return not self._closed and self.refused is None

    def _committed(self) -> None:
        """Move the log into the file when it is long enough."""
        if self._wal_pages >= self._config.checkpoint_pages:
            self.checkpoint()

    def commit(self) -> None:
        """Make the transaction durable. Raises StoreError; it is not kept then, or nobody can say."""
        try:
            self.db.execute("COMMIT")
        except apsw.Error as error:
            self.roll_back()
            raise self.error(error, committing=True) from error
        self._committed()

    def roll_back(self) -> None:
        # A failed commit may have ended the transaction already.
        if self.db.in_transaction:
            with contextlib.suppress(apsw.Error):
                self.db.execute("ROLLBACK")

    def checkpoint(self) -> None:
        """Move the log into the file. What is in the log is durable, so a failure here loses nothing yet."""
        try:
            self.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            # Without room in the file the log grows on, and the write that finds no room there says so.
            if not isinstance(refused := self.error(error, committing=True), Full):
                self.refused = refused.message

    def error(self, error: Exception, committing: bool = False) -> StoreError | Misuse:
        """Air's error for one of SQLite's. After one that leaves durability in doubt, writing is over."""
        where = self.path.name
        if self.refused is not None and isinstance(
            error, apsw.ConnectionClosedError | apsw.CursorClosedError
        ):
            return SyncFailed(self.refused)  # opening it anew failed, and will be tried again
        if leaves_doubt(error, committing):
            self.refused = (
                f"{where}: the disk failed to keep a write ({error}); open the store again to go on"
            )
            return SyncFailed(self.refused)
        return refusal(error, where)

    # -- about it --------------------------------------------------------------

    @property
    def log_path(self) -> Path:
        return self.path.with_name(self.path.name + "-wal")

    @property
    def damaged_log(self) -> Path:
        """Where a log goes in which acknowledged transactions were lost."""
        return self.path.with_name(self.path.name + "-wal.damaged")

    def faults(self) -> list[str]:
        """What was lost before this opening, for an operator."""
        found, kept = [], self.damaged_log
        if self.lost:
            found.append(f"up to {self.lost} acknowledged transactions were lost to damage in the log")
        if self._config.vfs is None and kept.exists():
            found.append(f"{kept} is a damaged log that was put aside; remove it when it is dealt with")
        return found

    def notes(self) -> list[str]:
        """What an operator should know of this opening and need not mend."""
        if not self.unfinished:
            return []
        return [
            f"the log ended in {self.unfinished} pages of a transaction that was not finished:"
            " cut by a crash, or damaged"
        ]

    def stats(self) -> SqliteStats:
        """Sizes, from the file system; cheap."""
        wal = self.log_path
        try:
            free = self.db.pragma("freelist_count") * self.db.pragma("page_size")
        except apsw.Error as error:
            raise self.error(error) from error
        return SqliteStats(self.path.stat().st_size, wal.stat().st_size if wal.exists() else 0, free)


class _Errors:
    __slots__ = ("_file",)

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, apsw.Error):
            raise self._file.error(error) from error


class _Transaction(_Errors):
    __slots__ = ()

    def __enter__(self) -> None:
        try:
            self._file.db.execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            raise self._file.error(error) from error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._file.commit()
            return
        self._file.roll_back()
        super().__exit__(kind, error, trace)


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
