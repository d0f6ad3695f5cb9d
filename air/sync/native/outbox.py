"""What waits to be sent on a link: cells by field, the newest only, live changes before bulk. (core)

A field that changes again while it waits is sent once, with its newest value. A put counts as delivered when
each of its cells has been acknowledged, or one that has replaced it. Who has to know that is optional: a peer
that reads slowly may let one field change for hours, and each of those puts would have to be remembered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from air.model.cell import Cell, Key, Soul
from air.model.ham import wins
from air.model.mark import Mark
from air.model.message import Answer, Id, Put
from air.store.memory import size_of
from air.sync.native.limits import NativeConfig

__all__ = ["Outbox", "Outgoing", "Receipts", "highest_own"]

_CELL_BYTES: Final = 24
"""What a cell takes on the wire beside its texts, about."""


class _Promise:
    """A put of which ``left`` cells are not settled yet."""

    __slots__ = ("id", "left")

    def __init__(self, id: Id, left: int) -> None:
        self.id, self.left = id, left


class _Entry:
    """A field that waits, and the puts that wait with it."""

    __slots__ = ("cell", "mark", "promises", "size")

    def __init__(self, cell: Cell, mark: Mark | None, size: int) -> None:
        self.cell, self.mark, self.size = cell, mark, size
        self.promises: list[_Promise] = []


@dataclass(slots=True)
class Outgoing:
    """Cells that go out as one batch."""

    cells: list[Cell]
    marks: list[Mark] | None
    promises: list[_Promise]
    """One for each cell of each put that this batch settles."""


def _cost(cell: Cell) -> int:
    """Bytes of a cell on the wire before compression, near enough for a budget."""
    return _CELL_BYTES + len(cell.soul) + len(cell.key) + size_of(cell.value)


class Receipts:
    """Which puts are answered once a batch is. The oldest are forgotten beyond ``promises_max``."""

    __slots__ = ("_count", "_open", "_promises_max", "last")

    def __init__(self, promises_max: int) -> None:
        self._open: dict[int, list[_Promise]] = {}
        self._count, self._promises_max = 0, promises_max
        self.last = 0
        """Number of the newest batch."""

    def __len__(self) -> int:
        return len(self._open)

    def sent(self, outgoing: Outgoing) -> int:
        """These go out as the batch with the number that is returned."""
        self.last += 1
        self._open[self.last] = outgoing.promises
        self._count += len(outgoing.promises) + 1
        while self._count > self._promises_max:
            oldest = next(iter(self._open))
            self._count -= len(self._open.pop(oldest)) + 1
        return self.last

    def acknowledged(self, number: int, *, taken: bool) -> list[Id] | None:
        """The puts that this settles, or when it was not ``taken`` that it fails; None: it was answered."""
        promises = self._open.pop(number, None)
        if promises is None:
            return None
        self._count -= len(promises) + 1
        done: list[Id] = []
        for promise in promises:
            if promise.left > 0:
                promise.left = promise.left - 1 if taken else 0
                if promise.left == 0:
                    done.append(promise.id)
        return done


class Outbox:
    """Cells and answers on their way out of one link."""

    __slots__ = ("_answers", "_bulk", "_config", "_live", "_promised", "_receipts", "bytes", "coalesced")

    def __init__(self, config: NativeConfig, *, receipts: bool = True) -> None:
        """``receipts``: somebody wants to know when the other side has a put."""
        self._config, self._receipts = config, receipts
        self._promised = 0
        self._live: dict[tuple[Soul, Key], _Entry] = {}
        self._bulk: dict[tuple[Soul, Key], _Entry] = {}
        self._answers: deque[tuple[Answer, int]] = deque()
        self.bytes = 0
        """What all of it takes on the wire, about."""
        self.coalesced = 0
        """Cells that were never sent, because a newer one of their field was."""

    def __len__(self) -> int:
        return len(self._live) + len(self._bulk)

    @property
    def waiting(self) -> bool:
        return bool(self._live or self._bulk or self._answers)

    @property
    def full(self) -> bool:
        """More waits than the ceilings allow. A single thing may be as large as it likes."""
        cells, config = len(self), self._config
        several = cells + len(self._answers) > 1
        return cells > config.outbox_cells_max or (several and self.bytes > config.outbox_bytes_max)

    @property
    def idle(self) -> bool:
        """No cell of a put waits."""
        return not self._live and not self._bulk

    def put(self, put: Put) -> None:
        """Let the cells of a put wait, and forget older ones of their fields."""
        cells, marks = put.cells, put.marks
        promise = _Promise(put.id, len(cells))
        room = self._config.outbox_cells_max - self._promised if self._receipts else 0
        live, bulk = self._live, self._bulk
        urgent = len(cells) <= self._config.bulk_cells
        for index, cell in enumerate(cells):
            place = (cell.soul, cell.key)
            mark = None if marks is None else marks[index]
            entry = live.get(place)
            if entry is None:
                entry = bulk.pop(place, None) if urgent else bulk.get(place)
                if entry is None:
                    size = _cost(cell)
                    self.bytes += size
                    entry = (live if urgent else bulk)[place] = _Entry(cell, mark, size)
                elif urgent:
                    live[place] = entry
            if index < room:
                entry.promises.append(promise)
                self._promised += 1
            known = entry.cell
            if known is cell:
                continue
            self.coalesced += 1
            if wins(cell.value, cell.state, known.value, known.state):
                size = _cost(cell)
                self.bytes += size - entry.size
                entry.cell, entry.mark, entry.size = cell, mark, size

    def answer(self, answer: Answer) -> None:
        """Let an answer wait."""
        size = sum(
            _CELL_BYTES + len(soul) + len(key) + size_of(pair[0])
            for soul, fields in answer.nodes
            for key, pair in fields.items()
        )
        self._answers.append((answer, size))
        self.bytes += size + _CELL_BYTES

    def take_answer(self) -> Answer | None:
        """The next answer that waits; a part that others follow comes after the live cells."""
        if not self._answers or (self._live and self._answers[0][0].more):
            return None
        answer, size = self._answers.popleft()
        self.bytes -= size + _CELL_BYTES
        return answer

    def take(self, cells_max: int, bytes_max: int) -> Outgoing | None:
        """The next batch: at least one cell, within both limits unless that cell is larger by itself."""
        queue = self._live or self._bulk
        if not queue:
            return None
        cells: list[Cell] = []
        marks: list[Mark] = []
        promises: list[_Promise] = []
        marked: bool | None = None
        size = 0
        taken = []
        for place, entry in queue.items():
            if cells and (len(cells) == cells_max or size + entry.size > bytes_max):
                break
            mark = entry.mark
            if marked is None:
                marked = mark is not None
            elif marked != (mark is not None):
                # "No mark" and "an unknown mark" are not the same, and a batch has either.
                break
            cells.append(entry.cell)
            if mark is not None:
                marks.append(mark)
            promises += entry.promises
            size += entry.size
            taken.append(place)
        for place in taken:
            del queue[place]
        self.bytes -= size
        self._promised -= len(promises)
        return Outgoing(cells, marks if marked else None, promises)

    def clear(self) -> None:
        """Forget everything that waits; the puts are never answered."""
        self._live, self._bulk = {}, {}
        self._answers.clear()
        self.bytes = self._promised = 0


def highest_own(marks: Sequence[Mark], own: str) -> int:
    """The highest sequence of ``own`` among the dots of some values; 0 without any."""
    return max((mark[0][1] for mark in marks if mark and mark[0][0] == own), default=0)
