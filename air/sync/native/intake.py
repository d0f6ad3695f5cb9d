"""The receiving half of a link: what the other side may send, and what it is owed for it. (core)"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from air.base.clock import Now
from air.base.errors import LimitReached, Violation
from air.model.mark import Mark
from air.model.message import Id
from air.sync.native.frames import Batch, Credit, Part
from air.sync.native.limits import NativeConfig

__all__ = ["Intake"]


class Intake:
    """Batches and answers that arrive, their credit and their order."""

    __slots__ = (
        "_arrived",
        "_config",
        "_floor",
        "_grant",
        "_last",
        "_peer",
        "_pending",
        "_unpaid",
        "_window",
    )

    def __init__(self, config: NativeConfig, peer: str) -> None:
        """``peer`` is the peer id of the other side."""
        self._config, self._peer = config, peer
        # What the other side may still send, and what it will be allowed to with our next frame.
        self._window = [config.credit_cells, config.credit_bytes]
        self._grant = [0, 0]
        self._pending: dict[Id, int] = {}
        """Our id of a put -> number of the batch it came in."""
        self._unpaid: dict[int, tuple[int, int, float]] = {}
        """Batches whose credit is not given back: (cells, bytes, when it came)."""
        self._arrived = [0, 0]
        """Answers that are not on their way to the store yet: cells, bytes."""
        self._last = self._floor = 0

    def batch(self, batch: Batch, id: Id, now: Now) -> None:
        """A batch has come, and goes to the engine as the put ``id``.

        Raises Violation: ``native.batch``, ``native.credit``, ``native.dots``, and ``limit.unacked``.
        """
        if batch.number != self._last + 1:
            raise Violation("batches are counted 1, 2, 3", code="native.batch", fatal=True)
        self._last = batch.number
        self._spend(len(batch.cells), batch.size)
        if batch.marks is not None:
            self._check_dots(batch.marks)
        if batch.floor:
            if batch.floor < self._floor:
                raise Violation("a floor that goes down", code="native.dots", fatal=True)
            self._floor = batch.floor
        if len(self._pending) >= self._config.unacked_max:
            raise LimitReached("too many batches that wait", code="limit.unacked", fatal=True)
        self._pending[id] = batch.number
        self._unpaid[batch.number] = (len(batch.cells), batch.size, now.monotonic)

    def part(self, part: Part) -> None:
        """Part of an answer has come. Raises Violation ``native.credit``."""
        if part.cells:
            # Only cells cost credit: "there is nothing" is free.
            self._spend(len(part.cells), part.size)
            self._arrived[0] += len(part.cells)
            self._arrived[1] += part.size

    def _spend(self, cells: int, size: int) -> None:
        window = self._window
        if min(window) <= 0:
            raise Violation("more than there was credit for", code="native.credit", fatal=True)
        window[0] -= cells
        window[1] -= size

    def _check_dots(self, marks: Sequence[Mark]) -> None:
        peer, floor = self._peer, self._floor
        for mark in set(marks):
            if mark and mark[0][0] == peer and mark[0][1] < floor:
                raise Violation("dots that go backwards", code="native.dots", fatal=True)

    def answered(self, id: Id) -> int:
        """The engine has answered a put: the number of its batch, or 0. Its credit goes back."""
        number = self._pending.pop(id, 0)
        if number:
            self._pay(number)
        return number

    def taken(self) -> None:
        """The answers that came are on their way to the store: their credit goes back."""
        for index in (0, 1):
            self._grant[index] += self._arrived[index]
            self._arrived[index] = 0

    def _pay(self, number: int) -> None:
        cells, size, _ = self._unpaid.pop(number, (0, 0, 0.0))
        self._grant[0] += cells
        self._grant[1] += size

    @property
    def owes(self) -> bool:
        """There is credit to be given: an eighth of the window, because a frame for each batch is too many.

        Who waits for credit has used all of it, so what it lacks is never too little to be told."""
        cells, size = self._grant
        config = self._config
        return cells > 0 and (cells * 8 >= config.credit_cells or size * 8 >= config.credit_bytes)

    def take_credit(self) -> Credit | None:
        """The credit to be given with the next frame, if it is enough to be told."""
        if not self.owes:
            return None
        credit = Credit(*self._grant)
        self._window[0] += credit.cells
        self._window[1] += credit.bytes
        self._grant = [0, 0]
        return credit

    @property
    def deadline(self) -> float:
        """When :meth:`tick` has something to do, on the monotonic clock."""
        for _, _, at in self._unpaid.values():
            return at + self._config.hold_seconds
        return inf

    def tick(self, now: Now) -> None:
        """Give back the credit of batches that wait for long, perhaps for their time."""
        while self.deadline <= now.monotonic:
            self._pay(next(iter(self._unpaid)))
