"""Where cells are kept: in memory, in SQLite, and the thread that works on the disk."""

from air.store.api import PAGE_BYTES, PAGE_FIELDS, Bound, Kept, Page, Position, RangeSource, Store
from air.store.batch import AskDone, Failed, ReadDone, Result, ScanDone, Written
from air.store.journal import Conflict, Version
from air.store.memory import Memory
from air.store.record import ScanCursor, ScanPage
from air.store.records import Verification
from air.store.sqlite import Sqlite, SqliteConfig
from air.store.window import CommitWindow, WindowConfig
from air.store.worker import StoreWorker, WorkerConfig

__all__ = [
    "PAGE_BYTES",
    "PAGE_FIELDS",
    "AskDone",
    "Bound",
    "CommitWindow",
    "Conflict",
    "Failed",
    "Kept",
    "Memory",
    "Page",
    "Position",
    "RangeSource",
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
    "Version",
    "WindowConfig",
    "WorkerConfig",
    "Written",
]
