"""The store's own thread: jobs go in without waiting, results come out once per batch. (shell)

The event loop only appends jobs. Whatever has queued while the thread was busy goes there in one hop:
all writes as one transaction, so that a batch costs one flush of the disk, then the reads. A read
therefore sees every write that was queued before it (and perhaps some that came later).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, Final

import anyio
from anyio.abc import TaskStatus

from air.base.clock import Clock, SystemClock
from air.base.errors import AirError, Full, Misuse, StoreError
from air.base.metrics import Counters
from air.model.cell import Cell, Key, Soul
from air.model.lex import ALL, Lex
from air.model.mark import Mark
from air.model.message import SoulRange
from air.store.api import PAGE_BYTES, PAGE_FIELDS
from air.store.batch import (
    Ask,
    DiskStore,
    Failed,
    Job,
    Outcome,
    Read,
    Result,
    Scan,
    Token,
    Write,
    Written,
    work,
)
from air.store.config import Durability, WorkerConfig
from air.store.record import ScanCursor
from air.store.window import CommitWindow

__all__ = ["Durability", "StoreWorker", "WorkerConfig"]

_CELL_BYTES: Final = 150
"""What a queued cell takes beside the text of its value."""
_MARK_BYTES: Final = 200
"""What its mark takes."""


class StoreWorker:
    """Works on a store in a thread, in batches; owns the store and closes it when :meth:`run` ends.

    ``write``, ``read`` and ``scan`` belong to the event loop's thread and never block. They do not
    refuse either: whoever feeds the worker awaits :meth:`room` first.
    """

    def __init__(
        self,
        store: DiskStore,
        config: WorkerConfig | None = None,
        *,
        clock: Clock | None = None,
        counters: Counters | None = None,
    ) -> None:
        self._store = store
        self._config = config or WorkerConfig()
        self._clock = clock or SystemClock()
        self._window = CommitWindow(self._config.window)
        self._queue: deque[Job] = deque()
        self._cells = self._bytes = self._writes = self._reads = 0
        self._wake: anyio.Event | None = None
        self._roomy: anyio.Event | None = None
        self._ended: anyio.Event | None = None
        self._closing = self._closed = False
        self._largest = 0
        self.refusing: str | None = None
        """The code by which the store refuses writes at the moment, or None."""
        self._recover_seconds = self._config.recover_first_seconds
        self._recover_at = inf
        self.counters = counters if counters is not None else Counters()
        self._describe(self.counters)

    def _describe(self, counters: Counters) -> None:
        counters.describe("store_batches", "Batches worked on by the store's thread.")
        counters.describe("store_commits", "Transactions committed.")
        counters.describe("store_cells", "Cells in committed transactions.")
        counters.describe("store_commit_seconds", "Time spent in those transactions, flushes included.")
        counters.describe("store_reads", "Pages read.")
        counters.describe("store_failed", "Jobs that failed, by code.", "reason")
        counters.describe(
            "store_recoveries", "Attempts to write again after it was refused, by result.", "result"
        )
        counters.gauge(
            "store_refusing", "1 while the store refuses writes.", lambda: float(self.refusing is not None)
        )
        counters.gauge(
            "store_damaged_records",
            "Damaged records met since the start; one that is read twice counts twice.",
            lambda: self._store.damaged,
        )
        counters.gauge(
            "store_lost_transactions",
            "Acknowledged transactions that the last start found lost to damage in the log.",
            lambda: self._store.lost,
        )
        counters.gauge("store_batch_cells_max", "Cells of the largest batch.", lambda: self._largest)
        counters.gauge("store_backlog_cells", "Cells waiting to be written.", lambda: self._cells)
        counters.gauge("store_backlog_bytes", "Bytes of cells waiting to be written.", lambda: self._bytes)
        counters.gauge("store_backlog_reads", "Reads waiting.", lambda: self._reads)

    # -- giving it work --------------------------------------------------------

    def write(
        self,
        token: Token,
        cells: Sequence[Cell],
        /,
        *,
        meta: Mapping[str, bytes] | None = None,
        marks: Sequence[Mark | None] | None = None,
    ) -> None:
        """Merge ``cells``; answered by Written or Failed. ``meta`` is set in the same transaction.

        ``marks`` has one mark for each cell when they were written elsewhere; without, the store gives them
        this peer's own. Raises StoreError ``store.closed`` when the worker has ended.
        """
        size = (_CELL_BYTES if marks is None else _CELL_BYTES + _MARK_BYTES) * len(cells)
        for cell in cells:
            if type(cell.value) is str:
                size += len(cell.value)
        self._cells += len(cells)
        self._bytes += size
        self._writes += 1
        self._put(Write(token, cells, meta, size, marks))

    def read(
        self,
        token: Token,
        soul: Soul,
        lex: Lex = ALL,
        /,
        *,
        after: Key | None = None,
        fields_max: int = PAGE_FIELDS,
        bytes_max: int = PAGE_BYTES,
    ) -> None:
        """Read one page of a node; answered by ReadDone or Failed. Raises as :meth:`write` does."""
        self._reads += 1
        self._put(Read(token, soul, lex, after, fields_max, bytes_max))

    def scan(
        self,
        token: Token,
        souls: SoulRange,
        /,
        *,
        after: ScanCursor | None = None,
        fields_max: int = PAGE_FIELDS,
        bytes_max: int = PAGE_BYTES,
    ) -> None:
        """Read one page of many nodes; answered by ScanDone or Failed. Raises as :meth:`write` does."""
        self._reads += 1
        self._put(Scan(token, souls, after, fields_max, bytes_max))

    def ask(self, token: Token, question: Callable[[Any], Any], /) -> None:
        """Call ``question`` with the store on its thread; answered by AskDone or Failed.

        It comes in the order of reads: after every write that was queued before. All that it needs of the
        store must happen in the call, which should take milliseconds, for everything else waits meanwhile.
        An AirError that it raises comes back as Failed. Raises as :meth:`write` does.
        """
        self._reads += 1
        self._put(Ask(token, question))

    def _put(self, job: Job) -> None:
        if self._closed:
            raise StoreError("the store has been closed", code="store.closed")
        self._queue.append(job)
        if self._wake is not None:
            self._wake.set()

    @property
    def damaged(self) -> int:
        """Damaged records met since the start, or found by the last check of all."""
        return self._store.damaged

    @property
    def lost(self) -> int:
        """Acknowledged transactions that the last start found lost to damage in the log."""
        return self._store.lost

    @property
    def backlog_cells(self) -> int:
        """Cells given and not yet reported."""
        return self._cells

    @property
    def backlog_bytes(self) -> int:
        """Bytes of those cells, about."""
        return self._bytes

    @property
    def backlog_reads(self) -> int:
        """Reads and scans given and not yet reported."""
        return self._reads

    @property
    def crowded(self) -> bool:
        """True while a ceiling is reached."""
        config = self._config
        return (
            self._cells >= config.queued_cells_max
            or self._bytes >= config.queued_bytes_max
            or self._reads >= config.queued_reads_max
        )

    async def room(self) -> None:
        """Wait until no ceiling is reached, or the worker has ended."""
        while self.crowded and not self._closed:
            if self._roomy is None:
                self._roomy = anyio.Event()
            await self._roomy.wait()

    # -- working ---------------------------------------------------------------

    async def run(
        self,
        on_results: Callable[[Sequence[Result]], None],
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Work until :meth:`aclose` or cancellation, then finish what is queued and close the store.

        ``on_results`` is called in the event loop, once per batch, in the order of the jobs.
        """
        if self._ended is not None:
            raise Misuse("a store's worker runs once")
        self._ended = anyio.Event()
        # A hop borrows one of anyio's threads, whichever: SQLite does not mind who calls as long as it is
        # one at a time. A thread of our own would need each event loop's private way of being called back.
        one = anyio.CapacityLimiter(1)
        task_status.started()
        try:
            while self._queue or not self._closing:
                if not self._queue:
                    self._wake = anyio.Event()
                    with anyio.CancelScope(deadline=self._recover_at):
                        await self._wake.wait()
                    self._wake = None
                else:
                    await self._gather()
                    await self._batch(one, on_results)
                if anyio.current_time() >= self._recover_at:
                    await self._recover(one)
        finally:
            try:
                with anyio.move_on_after(self._config.drain_seconds, shield=True) as drain:
                    while self._queue and not drain.cancel_called:
                        await self._batch(one, on_results)
                self._closed = True
                self._give_up(on_results)
            finally:
                self._closed = True
                self._make_room()
                with anyio.CancelScope(shield=True):
                    try:
                        await anyio.to_thread.run_sync(self._store.close, limiter=one)
                    finally:
                        self._ended.set()

    async def aclose(self) -> None:
        """Finish and commit what is queued, close the store, and wait until that is done."""
        self._closing = True
        if self._wake is not None:
            self._wake.set()
        if self._ended is not None:
            await self._ended.wait()
        elif not self._closed:
            self._closed = True  # it never ran, so there is no thread to wait for
            self._store.close()

    async def _gather(self) -> None:
        """Let more writes come, as long as the window says. Nobody waits while somebody wants to read."""
        if self._config.durability == "sync":
            return
        while self._writes and not self._reads and not self._closing:
            seconds = self._window.wait(self._clock.now(), self._writes, self._cells)
            if seconds <= 0:
                return
            await anyio.sleep(seconds)

    async def _batch(
        self, one: anyio.CapacityLimiter, on_results: Callable[[Sequence[Result]], None]
    ) -> None:
        """One hop: what is queued now, worked on and reported. Cancelled only before or after."""
        with anyio.CancelScope(shield=True):
            jobs = list(self._queue)
            self._queue.clear()
            outcome = await anyio.to_thread.run_sync(self._work, jobs, limiter=one)
            self._queue.extendleft(reversed(outcome.left))
            self._settle(jobs, outcome)
            self._count(outcome)
            on_results(outcome.results)

    async def _recover(self, one: anyio.CapacityLimiter) -> None:
        """Try to write again. What was refused meanwhile has been answered; nothing is repeated here."""
        result = "ok"
        with anyio.CancelScope(shield=True):
            try:
                await anyio.to_thread.run_sync(self._store.recover, limiter=one)
            except AirError as error:
                result = error.code
        self.counters.add("store_recoveries", label=result)
        if result == "ok":
            self._writing()
        else:
            self.refusing = self._store.refusing or self.refusing
            self._recover_seconds = min(2 * self._recover_seconds, self._config.recover_max_seconds)
            self._recover_at = anyio.current_time() + self._recover_seconds

    def _writing(self) -> None:
        """Writing is on."""
        self.refusing, self._recover_at = None, inf
        self._recover_seconds = self._config.recover_first_seconds

    def _refused(self, code: str) -> None:
        self.refusing = code
        if self._recover_at == inf:
            self._recover_at = anyio.current_time() + self._recover_seconds

    def _work(self, jobs: Sequence[Job]) -> Outcome:
        config = self._config
        return work(
            self._store, jobs, config.batch_read_bytes_max, self._clock, apart=config.durability == "sync"
        )

    def _settle(self, jobs: Sequence[Job], outcome: Outcome) -> None:
        """Take what is done off the backlog."""
        reads = -len(outcome.left)
        for job in jobs:
            if type(job) is Write:
                self._writes -= 1
                self._cells -= len(job.cells)
                self._bytes -= job.size
            else:
                reads += 1
        self._reads -= reads
        self._make_room()

    def _count(self, outcome: Outcome) -> None:
        counters, now = self.counters, self._clock.now()
        counters.add("store_batches")
        for jobs, cells, seconds in outcome.commits:
            self._window.committed(now, jobs, seconds)
            self._largest = max(self._largest, cells)
            counters.add("store_commits")
            counters.add("store_cells", cells)
            counters.add("store_commit_seconds", seconds)
        # A flush that failed while the log was moved shows in the store before it shows in a write.
        if (code := self._store.refusing) is not None:
            self._refused(code)
        elif outcome.commits:
            self._writing()
        for result in outcome.results:
            if isinstance(result, Failed):
                counters.add("store_failed", label=result.error.code)
                if isinstance(result.error, Full):
                    self._refused(result.error.code)
            elif not isinstance(result, Written):
                counters.add("store_reads")

    def _make_room(self) -> None:
        if self._roomy is not None and (self._closed or not self.crowded):
            self._roomy.set()
            self._roomy = None

    def _give_up(self, on_results: Callable[[Sequence[Result]], None]) -> None:
        """Report what could not be done in the time there was."""
        left, error = list(self._queue), StoreError("the store was closed first", code="store.closed")
        self._queue.clear()
        if left:
            outcome = Outcome([Failed(job.token, error) for job in left])
            self._settle(left, outcome)
            on_results(outcome.results)
