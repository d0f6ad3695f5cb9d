"""Checking the store of a daemon that does not run. (root)"""

from __future__ import annotations

from air.base.errors import StoreError
from air.node.config import Config
from air.store import Sqlite, SqliteConfig, Verification

__all__ = ["Verification", "check_store"]


def check_store(config: Config) -> Verification:
    """Read every record and the structure of the file, and tell what is damaged.

    Takes some seconds per million fields. What a log still holds is moved into the file first, as any
    start does it. Raises StoreError ``store.none`` when there is nothing, and what opening raises.
    """
    path = config.node.data / "air.db"
    if config.store.engine != "sqlite" or not path.exists():
        raise StoreError(f"there is no store in {config.node.data}", code="store.none")
    store = Sqlite(path, SqliteConfig(key_file=config.store.key_file))
    try:
        return store.verify()
    finally:
        store.close()
