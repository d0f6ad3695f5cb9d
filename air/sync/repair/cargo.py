"""Cells on their way, no more of them than the other side has room for. (core)"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from air.base.errors import LimitReached, Violation
from air.model.cell import Cell
from air.model.mark import Mark
from air.model.value import Link
from air.store.api import Position, RangeSource
from air.sync.repair.config import CREDIT_BATCHES, CREDIT_BYTES, CREDIT_CELLS, FRAME_BYTES_MAX, RepairConfig

__all__ = ["Batch", "Cargo", "size_of"]

Batch = tuple[Sequence[Cell], Sequence[Mark]]
"""Cells, and a mark for each."""

_CELL_BYTES: Final = 24
_READ_CELLS_MAX: Final = 64
_FRAME_ROOM: Final = 64 * 1024
"""What a frame holds beside the one value that fills it."""


class Cargo:
    """Both directions: places whose cells are still to be sent, batches under way, batches that came."""

    __slots__ = (
        "_arrived",
        "_config",
        "_merging",
        "_on_way",
        "_places",
        "_read_cells",
        "_ready",
        "_room_bytes",
        "_room_cells",
        "received",
        "sent",
        "too_large",
    )

    def __init__(self, config: RepairConfig) -> None:
        self._config = config
        self._places: deque[Position] = deque()
        self._ready: deque[tuple[Cell, Mark, int]] = deque()
        """Read, and not sent yet."""
        self._read_cells = 8
        """Cells read at a time; follows their size."""
        self._on_way: deque[tuple[int, int]] = deque()
        """(cells, bytes) of each batch that was sent and is not merged."""
        self._room_cells, self._room_bytes = CREDIT_CELLS, CREDIT_BYTES
        self._arrived: list[tuple[Sequence[Cell], Sequence[Mark] | None]] = []
        self._merging: deque[tuple[int, int]] = deque()
        """(cells, bytes) of each batch that came and is not merged."""
        self.sent = self.received = 0
        """Cells, since the beginning."""
        self.too_large = 0
        """Cells that fit into no frame and stayed."""

    # -- sending -----------------------------------------------------------------

    def load(self, places: Sequence[Position]) -> None:
        """Send what is in these places, when there is room."""
        self._places += places

    @property
    def crowded(self) -> bool:
        """So much is to be sent that nothing should be compared before some of it has gone."""
        return len(self._places) >= CREDIT_CELLS

    @property
    def waiting(self) -> int:
        """Cells to send."""
        return len(self._places) + len(self._ready)

    @property
    def settled(self) -> bool:
        """Nothing is on its way, in either direction."""
        return not (self._places or self._ready or self._on_way or self._merging)

    @property
    def sendable(self) -> bool:
        """There is something to send and room for it."""
        if not self._has_room():
            return False
        return bool(self._places) if not self._ready else self._fits_now(self._ready[0][2])

    def _has_room(self) -> bool:
        return self._room_cells > 0 and self._room_bytes > 0 and len(self._on_way) < CREDIT_BATCHES

    def _fits_now(self, size: int) -> bool:
        return size <= self._room_bytes or not self._on_way

    def pack(self, source: RangeSource) -> Batch | None:
        """The next batch, when there is one and room for it."""
        if not self._has_room():
            return None
        cells_max = min(self._config.batch_cells, self._room_cells)
        bytes_max = min(self._config.batch_bytes, self._room_bytes)
        cells: list[Cell] = []
        marks: list[Mark] = []
        size = 0
        while len(cells) < cells_max and (self._ready or self._read(source)):
            cell, mark, more = self._ready[0]
            if size + more > bytes_max if cells else not self._fits_now(more):
                break
            self._ready.popleft()
            cells.append(cell)
            marks.append(mark)
            size += more
        if not cells:
            return None
        self._on_way.append((len(cells), size))
        self._room_cells -= len(cells)
        self._room_bytes -= size
        self.sent += len(cells)
        return cells, marks

    def _read(self, source: RangeSource) -> bool:
        """Read some more; False when there is nothing left."""
        while self._places and not self._ready:
            count = min(self._read_cells, len(self._places))
            cells, marks = source.cells([self._places.popleft() for _ in range(count)])
            total = 0
            for cell, mark in zip(cells, marks, strict=True):
                size = size_of(cell)
                total += size
                if _fits(cell):
                    self._ready.append((cell, mark, size))
                else:
                    self.too_large += 1
            if total < self._config.batch_bytes // 2:
                self._read_cells = min(2 * self._read_cells, _READ_CELLS_MAX)
            elif total > self._config.batch_bytes:
                self._read_cells = max(1, self._read_cells // 2)
        return bool(self._ready)

    def merged_there(self, batches: int) -> None:
        """The other side has merged so many more. Raises Violation ``repair.bad-ack``."""
        if batches > len(self._on_way):
            raise Violation("more was merged than was sent", code="repair.bad-ack", fatal=True)
        for _ in range(batches):
            cells, size = self._on_way.popleft()
            self._room_cells += cells
            self._room_bytes += size

    # -- receiving ---------------------------------------------------------------

    def arrive(self, cells: Sequence[Cell], marks: Sequence[Mark] | None) -> None:
        """A batch came. Raises LimitReached ``repair.overrun`` when there was no room for it."""
        self._merging.append((len(cells), sum(map(size_of, cells))))
        waiting = len(self._merging)
        if (
            waiting > CREDIT_BATCHES
            or sum(count for count, _ in self._merging) > CREDIT_CELLS
            or (waiting > 1 and sum(size for _, size in self._merging) > CREDIT_BYTES)
        ):
            raise LimitReached("more cells than there is room for", code="repair.overrun", fatal=True)
        self._arrived.append((cells, marks))
        self.received += len(cells)

    def take(self) -> tuple[list[Cell], list[Mark], int] | None:
        """What has come, as one: cells, a mark for each, and how many batches for :meth:`merged_here`."""
        if not self._arrived:
            return None
        cells: list[Cell] = []
        marks: list[Mark] = []
        count = len(self._arrived)
        for some, their in self._arrived:
            cells += some
            marks += [()] * len(some) if their is None else their
        self._arrived.clear()
        return cells, marks, count

    def merged_here(self, batches: int) -> None:
        """So many of what was taken are durable."""
        for _ in range(batches):
            self._merging.popleft()


def size_of(cell: Cell) -> int:
    """What a cell counts for, in bytes, about; both sides count alike."""
    value = cell.value
    size = _CELL_BYTES + len(cell.soul) + len(cell.key)
    if type(value) is str:
        size += len(value)
    elif type(value) is Link:
        size += len(value.soul)
    return size


def _fits(cell: Cell) -> bool:
    value = cell.value
    if type(value) is not str or 3 * len(value) < FRAME_BYTES_MAX - _FRAME_ROOM:
        return True
    return len(value.encode("utf-8", "surrogatepass")) < FRAME_BYTES_MAX - _FRAME_ROOM
