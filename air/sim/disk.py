"""A virtual disk that survives its peer, and the worker that batches for it. (core)

The worker decides as the real one does, with the same parts: the commit window, and the work on a batch
(``store/batch``). Only the thread is missing: a commit takes virtual time instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from air.base.clock import Now
from air.base.errors import Full
from air.model.cell import Cell, Key, Soul
from air.model.lex import ALL, Lex
from air.model.mark import Mark
from air.model.message import SoulRange
from air.sim.dice import Dice
from air.sim.oracle import Oracle
from air.sim.schedule import Scheduler, SimClock
from air.store.api import PAGE_BYTES, PAGE_FIELDS, Page
from air.store.batch import Ask, Job, Read, Result, Scan, Token, Write, work
from air.store.memory import Memory
from air.store.record import ScanCursor, ScanPage
from air.store.window import CommitWindow
from air.store.worker import WorkerConfig

__all__ = ["SimDisk", "SimWorker"]


class SimDisk:
    """What is durable of one peer. A batch is on it whole or not at all."""

    def __init__(self, peer: int, oracle: Oracle) -> None:
        self._peer, self._oracle = peer, oracle
        self.cells = Memory(2**50, authoritative=True)
        self.meta: dict[str, bytes] = {}
        self.full = False
        self.lag = 0.0
        """How far the clock of this disk is behind while a commit is under way."""

    def read(
        self,
        soul: Soul,
        lex: Lex = ALL,
        /,
        *,
        after: Key | None = None,
        fields_max: int = PAGE_FIELDS,
        bytes_max: int = PAGE_BYTES,
    ) -> Page:
        return self.cells.read(soul, lex, after=after, fields_max=fields_max, bytes_max=bytes_max)

    def write(
        self,
        cells: Sequence[Cell],
        /,
        *,
        meta: Mapping[str, bytes] | None = None,
        marks: Sequence[Mark | None] | None = None,
    ) -> dict[int, Cell]:
        before = self.admit(cells)
        kept = self.cells.write(cells)
        self.meta.update(meta or {})
        self._oracle.stored(self._peer, cells, before, self.get)
        return kept

    def admit(self, cells: Sequence[Cell]) -> list[Cell | None]:
        """What the fields of a write hold before it. Raises Full when there is no room."""
        self.lag = 0.0
        if self.full:
            self._oracle.turned_away.update(cells)
            raise Full("no space left", code="store.full")
        return [self.get(cell.soul, cell.key) for cell in cells]

    def get(self, soul: Soul, key: Key) -> Cell | None:
        node = self.cells.node(soul)
        pair = None if node is None else node.fields.get(key)
        return None if pair is None else Cell(soul, key, *pair)

    def node(self, soul: Soul) -> list[Cell]:
        """Everything of a node."""
        node = self.cells.node(soul)
        return [] if node is None else [Cell(soul, key, *pair) for key, pair in node.fields.items()]

    def scan(
        self,
        souls: SoulRange,
        /,
        *,
        after: ScanCursor | None = None,
        fields_max: int = PAGE_FIELDS,
        bytes_max: int = PAGE_BYTES,
    ) -> ScanPage:
        return ScanPage(self.cells.scan(souls), None)

    def souls(self, after: Soul = "", limit: int = 1024, *, prefix: str = "") -> Sequence[Soul]:
        return self.cells.souls(after, limit, prefix=prefix)

    @property
    def refusing(self) -> str | None:
        return "store.full" if self.full else None

    @property
    def damaged(self) -> int:
        return 0

    @property
    def lost(self) -> int:
        return 0

    def recover(self) -> None:
        if self.full:
            raise Full("no space left", code="store.full")

    def close(self) -> None: ...


class _DiskClock:
    """The peer's clock, as the thread of the disk sees it at the beginning of a commit and at its end."""

    def __init__(self, clock: SimClock, disk: SimDisk) -> None:
        self._clock, self._disk = clock, disk

    def now(self) -> Now:
        now = self._clock.now()
        return Now(now.monotonic - self._disk.lag, now.wall)


class SimWorker:
    """Stands where ``store/worker`` stands: jobs in without waiting, results out once per batch."""

    def __init__(
        self, disk: SimDisk, config: WorkerConfig, clock: SimClock, scheduler: Scheduler, dice: Dice
    ) -> None:
        self._disk, self._config, self._clock = disk, config, clock
        self._disk_clock = _DiskClock(clock, disk)
        self._scheduler, self._dice = scheduler, dice
        self._window = CommitWindow(config.window)
        self._queue: list[Job] = []
        self._busy = self._dead = False
        self.hop: list[Job] = []
        """Jobs that are being worked on."""
        self.backlog_cells = 0
        self.refusing: str | None = None
        self.results: Callable[[Sequence[Result]], None]
        self.due: Callable[[Sequence[Cell]], None] = lambda cells: None
        self.emptied: Callable[[], None] = lambda: None

    def write(
        self,
        token: Token,
        cells: Sequence[Cell],
        /,
        *,
        meta: Mapping[str, bytes] | None = None,
        marks: Sequence[Mark | None] | None = None,
    ) -> None:
        self.due(cells)
        self.backlog_cells += len(cells)
        self._put(Write(token, cells, meta, 0, marks))

    def read(self, token: Token, soul: Soul, lex: Lex = ALL, /, *, after: Key | None = None) -> None:
        self._put(Read(token, soul, lex, after, PAGE_FIELDS, PAGE_BYTES))

    def scan(self, token: Token, souls: SoulRange, /) -> None:
        self._put(Scan(token, souls, None, PAGE_FIELDS, PAGE_BYTES))

    def ask(self, token: Token, question: Callable[[Any], Any], /) -> None:
        self._put(Ask(token, question))

    @property
    def crowded(self) -> bool:
        return self.backlog_cells >= self._config.queued_cells_max

    def _put(self, job: Job) -> None:
        self._queue.append(job)
        if not self._busy:
            self._busy = True
            self._scheduler.after(0.0, self._turn)

    def _turn(self) -> None:
        """Gather, as the real worker does, and begin a batch."""
        if self._dead:
            return
        if not self._queue:
            self._busy = False
            return
        writes = [job for job in self._queue if isinstance(job, Write)]
        if len(writes) == len(self._queue):
            wait = self._window.wait(self._clock.now(), len(writes), sum(len(job.cells) for job in writes))
            if wait > 0:
                self._scheduler.after(wait, self._turn)
                return
        self.hop, self._queue = self._queue, []
        # A flush now and then takes very long.
        seconds = 0.0003 + self._dice.wait(0.0007) + (0.2 if self._dice.chance(0.002) else 0.0)
        seconds = seconds + 2e-6 * self.backlog_cells if writes else 0.0001
        self._scheduler.after(seconds, self._done, seconds)

    def _done(self, seconds: float) -> None:
        if self._dead:
            return
        jobs, self.hop = self.hop, []
        self._disk.lag = seconds
        outcome = work(self._disk, jobs, self._config.batch_read_bytes_max, self._disk_clock, apart=False)
        self._disk.lag = 0.0
        self._queue = outcome.left + self._queue
        for job in jobs:
            if isinstance(job, Write):
                self.backlog_cells -= len(job.cells)
        for count, _, took in outcome.commits:
            self._window.committed(self._clock.now(), count, took)
        self.results(outcome.results)
        self.emptied()
        self._scheduler.after(0.0, self._turn)

    def crash(self, *, durable: bool) -> None:
        """The process ends. ``durable``: the batch under way was just flushed, but nobody was told."""
        self._dead = True
        jobs, self.hop = self.hop, []
        if durable and jobs and not self._disk.full:
            self._disk.lag = 0.0
            writes = [job for job in jobs if isinstance(job, Write)]
            work(self._disk, writes, 0, self._disk_clock, apart=False)

    def pending(self) -> list[Cell]:
        """Cells that are queued or being written."""
        return [cell for job in (*self.hop, *self._queue) if isinstance(job, Write) for cell in job.cells]
