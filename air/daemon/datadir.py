"""The data folder as daemon and command line share it: who runs, where, and the token. (shell)"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from air.base.errors import ConfigError, StoreError
from air.base.keys import create_secret, read_secret, replace_secret

__all__ = ["DaemonFile", "hold", "is_held", "load_or_create_token", "read_daemon_file", "write_daemon_file"]

_LOCK: Final = "daemon.lock"
_DAEMON: Final = "daemon.json"
_ATTEMPTS: Final = 6
_ATTEMPT_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class DaemonFile:
    """What a running daemon tells the command line."""

    admin: str
    pid: int


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Own the data folder, made if missing, until the block ends or the process dies.

    Raises StoreError ``store.locked`` naming the process that owns it already.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"cannot use the data folder {folder}: {error.strerror}", code="daemon.data"
        ) from None
    try:
        if not _lock(descriptor):
            pid = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            holder = f"process {pid}" if pid.isdigit() else "another process"
            raise StoreError(f"the data folder {folder} is held by {holder}", code="store.locked")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        try:
            yield
        finally:
            # The lock file stays: whoever removes it may remove the one a next daemon has locked.
            (folder / _DAEMON).unlink(missing_ok=True)
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    # Someone who only asks (is_held) owns the lock for some microseconds. A daemon holds it for longer.
    for attempt in range(_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if attempt + 1 < _ATTEMPTS:
                time.sleep(_ATTEMPT_SECONDS)
    return False


def is_held(folder: Path) -> bool:
    """True when a daemon owns the folder."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def write_daemon_file(folder: Path, daemon: DaemonFile) -> None:
    """Tell the command line where the daemon is."""
    text = json.dumps({"admin": daemon.admin, "pid": daemon.pid})
    replace_secret(folder / _DAEMON, text.encode() + b"\n")


def read_daemon_file(folder: Path) -> DaemonFile | None:
    """What the running daemon wrote, None when there is nothing. Raises ConfigError ``secret.mode``."""
    if not (folder / _DAEMON).exists():
        return None
    try:
        raw = json.loads(read_secret(folder / _DAEMON))
    except ValueError:
        return None
    if not isinstance(raw, Mapping):
        return None
    admin, pid = raw.get("admin"), raw.get("pid")
    return DaemonFile(admin, pid) if isinstance(admin, str) and isinstance(pid, int) else None


def load_or_create_token(path: Path) -> str:
    """The token of the admin interface: 32 random bytes as hex, made at the first call.

    Raises ConfigError when others can read the file, or when it holds less than 128 bits of text.
    """
    if not path.exists():
        create_secret(path, secrets.token_hex(32).encode() + b"\n")
    token = read_secret(path).strip().decode("ascii", "replace")
    if len(token) < 32 or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"{path} holds no token of 32 or more characters", code="admin.bad-token-file")
    return token
