"""One process at a time: a lock file beside the data. (shell)"""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path

from air.base.errors import StoreError

__all__ = ["FileLock"]

_NOTE_BYTES = 256


class FileLock:
    """Holds ``path`` locked from construction until :meth:`release`.

    The kernel holds the lock, not the file: a file left behind by a killed process locks nothing. The
    file is never deleted, because a process that waits for it would then lock a file without a name.

    Raises StoreError ``store.locked`` when somebody else holds it, ``store.open`` when the file
    cannot be made.
    """

    __slots__ = ("_file", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot open {path}: {error.strerror}", code="store.open") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, _NOTE_BYTES, 0).decode("utf-8", "replace").strip()
            since = f"{datetime.fromtimestamp(os.fstat(self._file).st_mtime, UTC):%Y-%m-%d %H:%M:%S} UTC"
            os.close(self._file)
            raise StoreError(
                f"{path.with_suffix('')} is in use by {holder or 'another process'} since {since}",
                code="store.locked",
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"pid {os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let others have it. Calling again does nothing."""
        if self._file >= 0:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = -1
