"""What the store's thread does with a batch of jobs: writes as one transaction, then reads. (shell)

Reads come last on purpose. They then see every write that was queued before them, only committed
data is ever shown, and any store will do: none has to offer a transaction with reads inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from air.base.clock import Clock
from air.base.errors import AirError, Misuse, StoreError
from air.model.cell import Cell, Key, Soul
from air.model.lex import Lex
from air.model.mark import Mark
from air.model.message import SoulRange
from air.store.api import PAGE_BYTES, PAGE_FIELDS, Kept, Page, Store
from air.store.record import ScanCursor, ScanPage

__all__ = [
    "Ask",
    "AskDone",
    "DiskStore",
    "Failed",
    "Job",
    "Outcome",
    "Read",
    "ReadDone",
    "Result",
    "Scan",
    "ScanDone",
    "Token",
    "Write",
    "Written",
    "work",
]

Token: TypeAlias = object
"""Whatever the caller wants to recognise a job's result by."""

_FIELD_BYTES: Final = 100
"""What a field that was read takes beside the text of its value."""
_READ_BYTES: Final = 512
"""What a page counts for at least, found or not: writes must not wait for thousands that find nothing."""

_ASK_BYTES: Final = 16 * 1024
"""What a question counts for."""


class DiskStore(Store, Protocol):
    """What the worker needs beyond a plain store."""

    def write(
        self,
        cells: Sequence[Cell],
        /,
        *,
        meta: Mapping[str, bytes] | None = None,
        marks: Sequence[Mark | None] | None = None,
    ) -> dict[int, Cell]:
        """As :meth:`Store.write`; ``marks`` is there only when a cell has one. With marks: a Kept."""
        ...

    def scan(
        self,
        souls: SoulRange,
        /,
        *,
        after: ScanCursor | None = None,
        fields_max: int = PAGE_FIELDS,
        bytes_max: int = PAGE_BYTES,
    ) -> ScanPage: ...

    @property
    def refusing(self) -> str | None:
        """The code of what ended writing until :meth:`recover` succeeds; None when writing is on."""
        ...

    @property
    def damaged(self) -> int:
        """Damaged records met so far."""
        ...

    @property
    def lost(self) -> int:
        """Acknowledged transactions that damage took before the store was opened."""
        ...

    def recover(self) -> None:
        """Try to make writing possible again after it was refused. Raises StoreError while it is not."""
        ...


@dataclass(slots=True)
class Written:
    """A write is durable. ``kept``: what the store holds instead, by index of cells that changed nothing."""

    token: Token
    kept: dict[int, Cell]
    cells: int = field(default=0, compare=False)
    """How many there were."""
    dot: Mark = field(default=(), compare=False)
    """The mark of cells that are not in ``others``."""
    others: Mapping[int, Mark] = field(default_factory=dict, compare=False)
    """Marks that now stand in the fields of the cells, by index."""

    def marks(self) -> list[Mark]:
        """The mark that now stands in the field of each cell; () where the store knows none."""
        others, dot = self.others, self.dot
        return [others.get(index, dot) for index in range(self.cells)]


@dataclass(slots=True)
class ReadDone:
    token: Token
    page: Page


@dataclass(slots=True)
class ScanDone:
    token: Token
    page: ScanPage


@dataclass(slots=True)
class AskDone:
    """A question was answered: what its function returned."""

    token: Token
    answer: Any


@dataclass(slots=True)
class Failed:
    """A job was not done; of a write, nothing was kept."""

    token: Token
    error: AirError


Result: TypeAlias = Written | ReadDone | ScanDone | AskDone | Failed


class Write(NamedTuple):
    """Merge these cells; set ``meta`` in the same transaction. ``size`` is in bytes, about."""

    token: Token
    cells: Sequence[Cell]
    meta: Mapping[str, bytes] | None
    size: int
    marks: Sequence[Mark | None] | None = None
    """One for each cell, None for one that is written here; None: all are."""


class Read(NamedTuple):
    """One page of a node."""

    token: Token
    soul: Soul
    lex: Lex
    after: Key | None
    fields_max: int
    bytes_max: int


class Scan(NamedTuple):
    """One page of many nodes."""

    token: Token
    souls: SoulRange
    after: ScanCursor | None
    fields_max: int
    bytes_max: int


class Ask(NamedTuple):
    """Call ``question`` with the store, between batches."""

    token: Token
    question: Callable[[Any], Any]


Job: TypeAlias = Write | Read | Scan | Ask


@dataclass(slots=True)
class Outcome:
    """What came of a batch."""

    results: list[Result]
    """In the order of the jobs."""
    left: list[Job] = field(default_factory=list)
    """Reads for which this batch had no room."""
    commits: list[tuple[int, int, float]] = field(default_factory=list)
    """(writes, cells, seconds) of each transaction."""


def work(store: DiskStore, jobs: Sequence[Job], read_bytes_max: int, clock: Clock, *, apart: bool) -> Outcome:
    """Do ``jobs``; reads stop after ``read_bytes_max`` bytes. ``apart``: each write commits alone."""
    batch = _Batch(store, clock)
    writes = [job for job in jobs if isinstance(job, Write)]
    for group in [[job] for job in writes] if apart else [writes] if writes else []:
        batch.write(group)
    left: list[Job] = []
    for job in jobs:
        if isinstance(job, Write):
            continue
        if batch.read_bytes >= read_bytes_max:
            left.append(job)
        else:
            batch.read(job)
    done = batch.done
    return Outcome([done[id(job)] for job in jobs if id(job) in done], left, batch.commits)


class _Batch:
    __slots__ = ("_clock", "_store", "commits", "done", "read_bytes")

    def __init__(self, store: DiskStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self.done: dict[int, Result] = {}
        self.commits: list[tuple[int, int, float]] = []
        self.read_bytes = 0

    def write(self, jobs: Sequence[Write]) -> None:
        """All these writes in one transaction."""
        cells: Sequence[Cell] = jobs[0].cells
        meta, marks = jobs[0].meta, jobs[0].marks
        if len(jobs) > 1:
            cells = [cell for job in jobs for cell in job.cells]
            meta = {name: data for job in jobs if job.meta for name, data in job.meta.items()}
            marks = _joined_marks(jobs)
        start = self._clock.now().monotonic
        try:
            if marks is None:
                kept = self._store.write(cells, meta=meta)
            else:
                kept = self._store.write(cells, meta=meta, marks=marks)
        except Misuse as error:
            if len(jobs) == 1:
                self.done[id(jobs[0])] = Failed(jobs[0].token, error)
                return
            # One of them cannot be stored at all; that must not cost the others.
            for job in jobs:
                self.write([job])
            return
        except StoreError as error:
            for job in jobs:
                self.done[id(job)] = Failed(job.token, error)
            return
        self.commits.append((len(jobs), len(cells), self._clock.now().monotonic - start))
        dot, marked = (kept.dot, kept.marks) if isinstance(kept, Kept) else ((), {})
        if not kept and not marked:
            for job in jobs:
                self.done[id(job)] = Written(job.token, {}, len(job.cells), dot)
            return
        first = 0
        for job in jobs:
            end = first + len(job.cells)
            own = {place - first: kept[place] for place in range(first, end) if place in kept}
            others = {place - first: marked[place] for place in range(first, end) if place in marked}
            self.done[id(job)] = Written(job.token, own, len(job.cells), dot, others)
            first = end

    def read(self, job: Read | Scan | Ask) -> None:
        """One page, or one question."""
        try:
            if type(job) is Scan:
                cells = self._store.scan(
                    job.souls, after=job.after, fields_max=job.fields_max, bytes_max=job.bytes_max
                )
                self.read_bytes += _size([cell.value for cell in cells.cells])
                self.done[id(job)] = ScanDone(job.token, cells)
            elif type(job) is Read:
                page = self._store.read(
                    job.soul, job.lex, after=job.after, fields_max=job.fields_max, bytes_max=job.bytes_max
                )
                self.read_bytes += _size([value for value, _ in page.fields.values()])
                self.done[id(job)] = ReadDone(job.token, page)
            elif type(job) is Ask:
                answer = job.question(self._store)
                # Nobody knows how much that was; so much that some of them leave others their turn.
                self.read_bytes += _ASK_BYTES
                self.done[id(job)] = AskDone(job.token, answer)
        except AirError as error:
            self.done[id(job)] = Failed(job.token, error)


def _joined_marks(jobs: Sequence[Write]) -> list[Mark | None] | None:
    """The marks of all cells; None when no job brings any."""
    if all(job.marks is None for job in jobs):
        return None
    return [mark for job in jobs for mark in (job.marks or [None] * len(job.cells))]


def _size(values: Sequence[Any]) -> int:
    """What was read, in bytes, about."""
    size = sum([len(value) for value in values if type(value) is str]) + _FIELD_BYTES * len(values)
    return max(size, _READ_BYTES)
