"""Checking a store, of a daemon that runs or of one that does not. (root)"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

import anyio

from air.base.errors import StoreError
from air.node.config import Config
from air.store import Sqlite, SqliteConfig, Verification
from air.store.api import Position

__all__ = ["Verification", "check_running", "check_store"]

_RECORDS: Final = 500
"""Records checked at a time: some milliseconds, in which reads and writes wait."""
_REST: Final = 2
"""The store belongs to the others for so many times as long as a piece took."""
_REST_MAX_SECONDS: Final = 0.1


class _Asked(Protocol):
    async def ask(self, question: Callable[[Any], Any], /) -> Any: ...


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


async def check_running(hub: _Asked) -> Verification:
    """Check the store of a hub in pieces, between which it is used. Raises AirError."""
    found = Verification()
    after: Position | None = None
    while True:
        began = anyio.current_time()
        after = await hub.ask(partial(_piece, found=found, after=after))
        if after is None:
            return found
        await anyio.sleep(min(_REST * (anyio.current_time() - began), _REST_MAX_SECONDS))


def _piece(store: Any, *, found: Verification, after: Position | None) -> Any:
    return store.verify_part(found, after, _RECORDS)
