"""How a store's file is kept, and how its thread works. (core)"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

from air.store.window import WindowConfig

__all__ = ["Durability", "SqliteConfig", "WorkerConfig"]

MIB: Final = 1024 * 1024

Durability: TypeAlias = Literal["sync", "group", "memory"]


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
    marks: bool = True
    """Keep who wrote each cell and what they had seen. False: for a store that no native link will use."""
    writers_max: int = 4096
    """Peers that marks may speak of. Marks of further ones are kept as unknown, and counted."""
    conflicts_max: int = 100_000
    """Edits in the journal of conflicts; the oldest go first."""
    conflict_bytes_max: int = 64 * MIB
    """Bytes of the journal, about; the oldest go first, and the newest stays however large it is."""
    spans_max: int = 65_536
    """Pieces of the table whose sums are known (see ``spans``), each of some hundred cells and 300 bytes of
    memory. A store that would need more has longer ones."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    durability: Durability = "group"
    """``sync``: every write its own commit. ``group``: one commit per batch. ``memory``: as ``group``, over a
    store that was opened without flushing. A write is reported after the merge in every mode: only then
    is it known what the store kept."""
    window: WindowConfig = field(default_factory=WindowConfig)
    queued_cells_max: int = 65_536
    """Cells waiting to be written at which :meth:`StoreWorker.room` waits."""
    queued_bytes_max: int = 64 * 1024 * 1024
    """Bytes of such cells at which it waits."""
    queued_reads_max: int = 16_384
    """Reads and scans waiting at which it waits."""
    batch_read_bytes_max: int = 128 * 1024
    """Bytes read in one hop; further reads go with the next one, so that writes need not wait for all."""
    recover_first_seconds: float = 1.0
    """After a full disk or a flush that failed, when it is first tried to write again."""
    recover_max_seconds: float = 60.0
    """Longest wait between two such attempts; each wait is twice the one before."""
    drain_seconds: float = 10.0
    """At the end, how long queued jobs may still be worked on."""
