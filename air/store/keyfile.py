"""The file that holds the key of an encrypted store. (shell)"""

from __future__ import annotations

from pathlib import Path

from air.base.errors import StoreError

__all__ = ["read_key"]


def read_key(path: Path) -> bytes:
    """The content of a key file without the end of its line. Raises StoreError ``store.key``."""
    try:
        if path.stat().st_mode & 0o077:
            raise StoreError(f"{path} can be read by others; chmod 600 it", code="store.key")
        key = path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise StoreError(f"cannot read the key file {path}: {error.strerror}", code="store.key") from error
    if not key:
        raise StoreError(f"the key file {path} is empty", code="store.key")
    return key
