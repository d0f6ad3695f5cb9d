"""Air's errors for SQLite's. (core)"""

from __future__ import annotations

import errno
from typing import Final

import apsw

from air.base.errors import Corrupt, Full, Misuse, StoreError, SyncFailed

__all__ = ["leaves_doubt", "refusal"]

_DISK_REFUSED: Final = frozenset(
    {apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_TRUNCATE}
)
_FLUSH_FAILED: Final = frozenset({apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC})
_PAGE_DAMAGED: Final = frozenset({apsw.SQLITE_IOERR_CORRUPTFS, apsw.SQLITE_IOERR_DATA})


def leaves_doubt(error: Exception, committing: bool) -> bool:
    """True when nobody can say what is on the disk after this: a flush, or a commit, that failed."""
    extended = getattr(error, "extendedresult", 0)
    return (
        isinstance(error, apsw.IOError)
        and extended not in _DISK_REFUSED | _PAGE_DAMAGED
        and (committing or extended in _FLUSH_FAILED)
    )


def refusal(error: Exception, where: str) -> StoreError | Misuse:
    """What the caller of a store is told. ``where`` is the name of the file without its folder.

    Peers are told this text, and where our files are is no business of theirs.
    """
    extended = getattr(error, "extendedresult", 0)
    if isinstance(error, apsw.ConnectionClosedError | apsw.CursorClosedError):
        return Misuse(f"{where} is closed", code="store.closed")
    if isinstance(error, apsw.TooBigError):
        return Misuse(f"{where}: a cell is larger than SQLite can keep", code="store.bad-cell")
    if isinstance(error, apsw.FullError) or extended in _DISK_REFUSED:
        return Full(f"{where}: no room to write to ({error})")
    if extended in _PAGE_DAMAGED or isinstance(error, apsw.CorruptError | apsw.NotADBError):
        hint = "; if it is encrypted, name its key file" if isinstance(error, apsw.NotADBError) else ""
        return Corrupt(f"{where}: {error}{hint}")
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return SyncFailed(f"{where}: the folder cannot be made durable ({error.strerror})")
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StoreError(f"{where} is in use by a program that is not Air", code="store.locked")
    if isinstance(error, apsw.CantOpenError | apsw.ReadOnlyError | apsw.PermissionsError | OSError):
        return StoreError(f"cannot open {where}: {error}", code="store.open")
    return StoreError(f"{where}: {type(error).__name__}: {error}")
