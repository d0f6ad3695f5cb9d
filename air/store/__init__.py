"""Where cells are kept: in memory, in SQLite, and the thread that works on the disk."""

from air.store.api import PAGE_BYTES, PAGE_FIELDS, Page, Store
from air.store.batch import Failed, ReadDone, Result, ScanDone, Written
from air.store.memory import Memory
from air.store.record import ScanCursor, ScanPage
from air.store.records import Verification
from air.store.sqlite import Sqlite, SqliteConfig
from air.store.window import CommitWindow, WindowConfig
from air.store.worker import StoreWorker, WorkerConfig

__all__ = [
    "PAGE_BYTES",
    "PAGE_FIELDS",
    "CommitWindow",
    "Failed",
    "Memory",
    "Page",
    "ReadDone",
    "Result",
    "ScanCursor",
    "ScanDone",
    "ScanPage",
    "Sqlite",
    "SqliteConfig",
    "Store",
    "StoreWorker",
    "Verification",
    "WindowConfig",
    "WorkerConfig",
    "Written",
]
