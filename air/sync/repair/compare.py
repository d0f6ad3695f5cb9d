"""What one side answers to what the other says about a range: a function of that and of the store. (core)

Nothing is remembered from one question to the next, so stores may change and sessions break at any point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from air.model.cell import Cell
from air.model.mark import Mark
from air.model.value import unit_bytes
from air.store.api import Bound, Position, RangeSource
from air.sync.repair.config import LEAF_ITEMS, PARTS_MAX, PULL_ITEMS
from air.sync.repair.salt import Salt
from air.sync.repair.spans import Give, Ids, Print, Span, Take

__all__ = ["Comparison", "read_cells"]

PART_ITEMS: Final = 48
"""Cells aimed at in the smallest parts, so that most of them stay below LEAF_ITEMS on the other side too."""
ITEMS_MAX: Final = 4 * PULL_ITEMS
"""Cells looked at in a range that was small when it was compared and may have grown since."""
READ_CELLS: Final = 32
"""Cells read at a time only to learn their states: each may be as large as a value may be."""


@dataclass(slots=True)
class Comparison:
    """Answers, and what follows from them."""

    source: RangeSource
    salt: Salt
    id_bytes: int
    """Bytes of the ids in what the other side says."""
    own_id_bytes: int
    """Bytes of the ids that this side lists."""
    dry_run: bool
    leading: bool
    """This side opened the session, and so does the counting of a dry run."""
    spans: list[Span] = field(default_factory=list)
    """What to say next, rising as long as what was said was rising."""
    send: list[Position] = field(default_factory=list)
    """Places whose cells the other side needs."""
    lacking: int = 0
    """Cells that this side lacks, of a dry run."""
    ahead: int = 0
    """Cells that the other side lacks, of a dry run."""
    work: int = 0
    """Look-ups in the store so far, about."""

    def answer(self, span: Span) -> None:
        """Take in what the other side says about one range."""
        if isinstance(span, Print):
            self._print(span)
        elif isinstance(span, Ids):
            self._ids(span)
        elif isinstance(span, Take):
            self._take(span)
        else:
            self._give(span)

    def _print(self, span: Print) -> None:
        low, high = span.low, span.high
        count, total = self.source.fingerprint(low, high)
        self.work += 1
        if self.salt.print(count, total, len(span.print)) == span.print:
            return
        if count <= LEAF_ITEMS:
            items = self._items(low, high, LEAF_ITEMS)
            self.spans.append(Ids(low, high, self._short(items, self.own_id_bytes)))
        else:
            self.divide(low, high, count)

    def divide(self, low: Bound, high: Bound, count: int) -> None:
        """Say the prints of the parts of a range with ``count`` cells."""
        parts = min(PARTS_MAX, ceil(count / PART_ITEMS))
        bounds: list[Bound] = [low, *self.source.split(low, high, parts)]
        for start, end in zip(bounds, [*bounds[1:], high], strict=True):
            number, total = self.source.fingerprint(start, end)
            if number:
                self.spans.append(Print(start, end, number, self.salt.print(number, total)))
            else:
                self.spans.append(Ids(start, end, ()))
        self.work += len(bounds)

    def _ids(self, span: Ids) -> None:
        low, high = span.low, span.high
        items = self._items(low, high, PULL_ITEMS + 1)
        if len(items) > PULL_ITEMS:
            self.divide(low, high, self.source.fingerprint(low, high)[0])
            return
        own = self._short(items, self.id_bytes)
        theirs, ours = set(span.ids), set(own)
        lacking = [id for id in span.ids if id not in ours]
        ahead = [place for (place, _), id in zip(items, own, strict=True) if id not in theirs]
        if self.dry_run:
            self._count(span, lacking, ahead, own)
        elif lacking:
            self.spans.append(Take(low, high, lacking, self._offers(ahead)))
        else:
            self.send += ahead

    def _count(
        self, span: Ids, lacking: Sequence[bytes], ahead: Sequence[Position], own: Sequence[bytes]
    ) -> None:
        if self.leading:
            self.lacking += len(lacking)
            self.ahead += len(ahead)
        elif lacking or ahead:
            self.spans.append(Ids(span.low, span.high, own))

    def _offers(self, places: Sequence[Position]) -> list[tuple[bytes, int | float]]:
        # The other side may have the same field in another version: then only the newer one should travel.
        # Cells are in the order of their places, but one may have gone meanwhile, so names come from them.
        self.work += len(places) // 4
        return [
            (self.salt.name(_place(cell)), cell.state)
            for cells, _ in read_cells(self.source, places)
            for cell in cells
        ]

    def _take(self, span: Take) -> None:
        if self.dry_run:
            return
        items = self._items(span.low, span.high, ITEMS_MAX)
        wanted = set(span.ids)
        asked = [
            place
            for (place, _), id in zip(items, self._short(items, self.id_bytes), strict=True)
            if id in wanted
        ]
        if not span.offers:
            self.send += asked
            return
        offered = dict(span.offers)
        self.work += len(items) // 12
        rivals = {name: place for place, _ in items if (name := self.salt.name(place)) in offered}
        states = {
            _place(cell): cell.state
            for cells, _ in read_cells(self.source, list(rivals.values()))
            for cell in cells
        }
        give, keep = [], set()
        for name, state in span.offers:
            place = rivals.get(name)
            here = None if place is None else states.get(place)
            if here is None or here <= state:
                give.append(name)
            if place is not None and here is not None:
                if here >= state:
                    # Of two values with one state the greater wins, which a merge can tell: both go.
                    self.send.append(place)
                keep.add(place)
        self.send += [place for place in asked if place not in keep]
        if give:
            self.spans.append(Give(span.low, span.high, give))

    def _give(self, span: Give) -> None:
        if self.dry_run:
            return
        names = set(span.names)
        items = self._items(span.low, span.high, ITEMS_MAX)
        self.send += [place for place, _ in items if self.salt.name(place) in names]

    def _items(self, low: Bound, high: Bound, limit: int) -> Sequence[tuple[Position, int]]:
        items = self.source.items(low, high, limit)
        self.work += 1 + len(items) // 12
        return items

    def _short(self, items: Sequence[tuple[Position, int]], size: int) -> list[bytes]:
        return self.salt.ids([item for _, item in items], size)


def read_cells(
    source: RangeSource, places: Sequence[Position]
) -> Iterator[tuple[Sequence[Cell], Sequence[Mark]]]:
    """The cells in ``places``, some at a time."""
    for start in range(0, len(places), READ_CELLS):
        yield source.cells(places[start : start + READ_CELLS])


def _place(cell: Cell) -> Position:
    return unit_bytes(cell.soul), unit_bytes(cell.key)
