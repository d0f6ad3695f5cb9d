"""Two stores in memory that are reconciled without a network, frame by frame."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import accumulate
from struct import pack

from air.model import Cell, unit_bytes
from air.model.ham import wins
from air.model.mark import Mark
from air.store.api import Bound, Position
from air.store.record import encode_value
from air.sync.repair.config import RepairConfig
from air.sync.repair.initiator import Initiator
from air.sync.repair.responder import Responder
from air.sync.repair.side import Side

__all__ = ["Cells", "Lockstep", "item_hash", "place_of"]

SALT = bytes(range(16))


def place_of(cell: Cell) -> Position:
    return unit_bytes(cell.soul), unit_bytes(cell.key)


def item_hash(cell: Cell) -> int:
    soul, key = place_of(cell)
    text = pack("<dII", cell.state, len(soul), len(key)) + soul + key + encode_value(cell.value)
    return int.from_bytes(blake2b(text, digest_size=16).digest(), "little")


class Cells:
    """A range source over a sorted list."""

    def __init__(self, cells: Iterable[Cell] = ()) -> None:
        self.held: dict[Position, tuple[Cell, int]] = {}
        self.marks: dict[Position, Mark] = {}
        self._places: list[Position] | None = None
        self._sums: list[int] = []
        self.asked = 0
        self.dirty = 0
        """Cells that have not been summed up, as it were."""
        self.merge(list(cells))

    def merge(self, cells: Sequence[Cell], marks: Sequence[Mark] = ()) -> None:
        for index, cell in enumerate(cells):
            place = place_of(cell)
            known = self.held.get(place)
            if known is None or wins(cell.value, cell.state, known[0].value, known[0].state):
                self._places = None
                self.held[place] = (cell, item_hash(cell))
                if marks:
                    self.marks[place] = marks[index]

    @property
    def graph(self) -> dict[tuple[str, str], Cell]:
        return {(cell.soul, cell.key): cell for cell, _ in self.held.values()}

    def _range(self, low: Bound, high: Bound) -> tuple[list[Position], int, int]:
        if self._places is None:
            self._places = sorted(self.held)
            self._sums = [0, *accumulate(self.held[place][1] for place in self._places)]
        places = self._places
        start = 0 if low is None else bisect_left(places, low)
        end = len(places) if high is None else bisect_left(places, high)
        return places, start, max(start, end)

    def fingerprint(self, low: Bound, high: Bound) -> tuple[int, int]:
        self.asked += 1
        _, start, end = self._range(low, high)
        return end - start, (self._sums[end] - self._sums[start]) % 2**128

    def split(self, low: Bound, high: Bound, parts: int) -> list[Position]:
        places, start, end = self._range(low, high)
        cuts = {start + (end - start) * part // parts for part in range(1, parts)}
        return [places[cut] for cut in sorted(cuts) if cut > start]

    def items(self, low: Bound, high: Bound, limit: int) -> list[tuple[Position, int]]:
        self.asked += 1
        places, start, end = self._range(low, high)
        return [(place, self.held[place][1]) for place in places[start : min(end, start + limit)]]

    def cells(self, positions: Sequence[Position]) -> tuple[list[Cell], list[Mark]]:
        found = [place for place in positions if place in self.held]
        return [self.held[place][0] for place in found], [self.marks.get(place, ()) for place in found]

    def refresh(self, cells_max: int) -> bool:
        self.dirty = max(0, self.dirty - cells_max)
        return bool(self.dirty)


class Lockstep:
    """A session in which each side says all it can before the other hears any of it."""

    def __init__(
        self,
        here: Cells,
        there: Cells,
        low: Bound = None,
        high: Bound = None,
        *,
        dry_run: bool = False,
        config: RepairConfig | None = None,
        salt: bytes = SALT,
    ) -> None:
        self.here, self.there = here, there
        self.near = Initiator(salt, low, high, dry_run=dry_run, config=config)
        self.far = Responder(config)
        self.round_trips = 0
        self.frames: list[tuple[str, bytes]] = []
        self.sent_cells = 0

    def run(self, between: Callable[[], None] = lambda: None, stop_after: int = 10**9) -> Lockstep:
        """Until it is over, or ``stop_after`` frames; ``between`` is called after each."""
        while not self.near.done:
            out = self.turn(self.near, self.here)
            if not out:
                assert self.near.done
                break
            for data in out:
                self.frames.append(("out", data))
                self.far.receive(data)
                between()
                if len(self.frames) >= stop_after:
                    return self
            back = self.turn(self.far, self.there)
            self.round_trips += bool(back)
            for data in back:
                self.frames.append(("in", data))
                self.near.receive(data)
                between()
                if len(self.frames) >= stop_after:
                    return self
        return self

    def turn(self, side: Side, source: Cells) -> list[bytes]:
        out: list[bytes] = []
        while True:
            if (taken := side.take_received()) is not None:
                cells, marks, count = taken
                source.merge(cells, marks)
                self.sent_cells += len(cells)
                side.merged(count)
            elif side.busy:
                side.work(source)
            else:
                return out + side.take_output()

    @property
    def bytes(self) -> int:
        return sum(len(data) for _, data in self.frames)
