"""Who had seen what when writing: judged by plain sets, and held against marks and journals. (core)

An edit is a value by the peer that took it first: its *door*. What a door's disk had met of a field when it
took an edit is the past of that edit. Marks say the same in a few bytes and journals follow from it; the sets
here forget nothing and are never shortened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from air.model.cell import Cell, Key, Soul
from air.model.mark import MARK_DOTS_MAX, Dot, Mark
from air.sim.marked import MarkedDisk
from air.sim.oracle import Oracle

__all__ = ["Causes"]

Place: TypeAlias = tuple[Soul, Key]
_NOTHING: Final[frozenset[Dot]] = frozenset()


@dataclass(frozen=True, slots=True)
class _Edit:
    """A value by its door, and what that had met of the field before."""

    cell: Cell
    past: frozenset[Dot]


class Causes:
    """The true causes of a run. ``doors`` are the peers that can be a door of an edit."""

    def __init__(self, oracle: Oracle, peers: int, doors: int, *, trusted: bool) -> None:
        """``trusted``: nobody lies about marks, so that all of them must be right."""
        self._oracle = oracle
        self._exact = trusted and doors <= MARK_DOTS_MAX
        self._edits: dict[tuple[Place, Dot], _Edit] = {}
        self._shared: set[tuple[Place, Dot]] = set()
        """Dots of several edits of one field in one batch: a batch has one sequence."""
        self._dots: dict[Cell, set[Dot]] = {}
        self._met: list[dict[Place, set[Dot]]] = [{} for _ in range(peers)]
        self._took: list[dict[tuple[Place, Dot], Cell]] = [{} for _ in range(peers)]
        self.pairs = 0
        """Conflicts that were found in journals."""

    # -- as it goes ------------------------------------------------------------------

    def wrote(self, peer: int, cell: Cell, mark: Mark, stands: bool) -> None:
        """A disk has taken an edit that came without a mark, and given it one: all of it when it ``stands``,
        else only its own dot."""
        place = (cell.soul, cell.key)
        met = self._met[peer].setdefault(place, set())
        if not mark:
            self._oracle.violated("mark", f"{place} was written without a mark", peer)
            return
        if self._exact and stands:
            known = dict(mark)
            missing = [dot for dot in met if known.get(dot[0], 0) < dot[1]]
            invented = [dot for dot in mark[1:] if dot not in met]
            if missing or invented:
                text = f"{place}: the mark of an edit lacks {missing} and makes up {invented}"
                self._oracle.violated("mark", text, peer)
        if (place, mark[0]) in self._edits:
            self._shared.add((place, mark[0]))
        self._edits[place, mark[0]] = _Edit(cell, frozenset(met))
        self._dots.setdefault(cell, set()).add(mark[0])
        met.add(mark[0])
        self._took[peer][place, mark[0]] = cell

    def met(self, peer: int, cell: Cell, mark: Mark) -> None:
        """A disk has been given an edit that was taken elsewhere."""
        place = (cell.soul, cell.key)
        met = self._met[peer].setdefault(place, set())
        for dot in mark:
            edit = self._edits.get((place, dot))
            if edit is not None:
                met |= edit.past
                met.add(dot)
        if not mark or not self._exact:
            return
        edit = self._edits.get((place, mark[0]))
        if edit is None or edit.cell != cell:
            self._oracle.violated("mark", f"{cell} comes with the mark of {edit and edit.cell}", peer)

    def took(self, peer: int, cells: Sequence[Cell], marks: Sequence[Mark] | None) -> None:
        """A peer has promised to keep edits that were taken elsewhere."""
        for cell, mark in zip(cells, marks or (), strict=False):
            if mark:
                self._took[peer][(cell.soul, cell.key), mark[0]] = cell

    # -- at the end --------------------------------------------------------------------

    def judge(self, peer: int, disk: MarkedDisk) -> None:
        """The journal has each edit that lost against one that did not know it, and no other."""
        if not self._exact:
            return
        gone: dict[Place, set[Dot]] = {}
        for entry in disk.conflicts():
            self.pairs += 1
            place = (entry.soul, entry.key)
            if not entry.lost.mark or not entry.won.mark:
                self._oracle.violated("journal", f"an entry without marks for {place}", peer)
                continue
            lost, won = entry.lost.mark[0], entry.won.mark[0]
            a, b = self._edits.get((place, lost)), self._edits.get((place, won))
            if a is None or b is None:
                self._oracle.violated("journal", f"{place}: {lost} against {won}, edits of nobody", peer)
                continue
            gone.setdefault(place, set()).update((lost, *a.past))
            if {(place, lost), (place, won)} & self._shared:
                continue
            if (a.cell.value, a.cell.state) != (entry.lost.value, entry.lost.state):
                self._oracle.violated("journal", f"{entry.lost} is not what {lost} wrote", peer)
            if self._one_door(a.cell, b.cell) and (lost in b.past or won in a.past or lost == won):
                self._oracle.violated("journal", f"{place}: {lost} and {won} are no conflict", peer)
        for (place, dot), cell in self._took[peer].items():
            mark, held = disk.mark(*place), disk.get(*place)
            edit = self._edits.get((place, mark[0])) if mark else None
            if edit is None or held is None or held == cell or not self._one_door(cell, held):
                continue
            covered = set(mark) | gone.get(place, set())
            for own in mark:
                known = self._edits.get((place, own))
                covered |= _NOTHING if known is None else known.past
            if dot not in covered:
                text = f"{cell} by {dot} gave way to {held}, which did not know it, and no journal tells"
                self._oracle.violated("journal", text, peer)

    def _one_door(self, *cells: Cell) -> bool:
        """An edit that came in by two doors has two names, and may be in conflict by one of them."""
        return all(len(self._dots.get(cell, ())) <= 1 for cell in cells)
