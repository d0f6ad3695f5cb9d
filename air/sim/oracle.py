"""What must hold in every run: judged while it goes on, by rules written a second time. (core)

The oracle does not use the code it judges. It has its own order of values, its own record of who wrote
what, and it looks at disks and at what watchers were shown, never at what an engine believes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from air.model.cell import Cell, Key, Soul, State
from air.model.value import Link, Value
from air.sim.schedule import Scheduler

__all__ = ["Asked", "Oracle", "Violated", "beats"]

Place = tuple[Soul, Key]


def _text(value: Value) -> str:
    """JSON as JavaScript writes it, for the values that workloads use."""
    if isinstance(value, Link):
        return '{"#":' + json.dumps(value.soul, ensure_ascii=False) + "}"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)


def beats(value: Value, state: State, known: tuple[Value, State] | None) -> bool:
    """GUN's rule once more: the higher state, on equal states the greater text by UTF-16 unit."""
    if known is None or state != known[1]:
        return known is None or state > known[1]
    if type(value) is type(known[0]) and value == known[0]:
        return False
    return _text(value).encode("utf-16-be", "surrogatepass") > _text(known[0]).encode(
        "utf-16-be", "surrogatepass"
    )


@dataclass(frozen=True, slots=True)
class Violated:
    """Something that must never be."""

    rule: str
    text: str
    time: float
    peer: int


@dataclass(slots=True)
class Asked:
    """A question, when it came, and what was durable then."""

    at: float
    held: list[Cell]
    answered: bool = False


@dataclass(slots=True)
class Oracle:
    scheduler: Scheduler
    names: list[str] = field(default_factory=list)
    violations: list[Violated] = field(default_factory=list)
    written: dict[Cell, int] = field(default_factory=dict)
    """Every cell that anybody ever wrote, and who did."""
    acked: list[dict[Place, Cell]] = field(default_factory=list)
    """Peer -> what it has promised to keep."""
    crossed: dict[tuple[int, int, Cell], int] | None = None
    """(dialler, dialled, cell) -> how often it crossed their link; only counted in runs without faults."""
    turned_away: set[Cell] = field(default_factory=set)
    """What some full disk has refused."""
    acks: int = 0
    refused: int = 0

    def violated(self, rule: str, text: str, peer: int) -> None:
        if len(self.violations) < 50:
            self.violations.append(Violated(rule, text, self.scheduler.time, peer))

    # -- as it goes ------------------------------------------------------------

    def wrote(self, peer: int, cells: Iterable[Cell]) -> None:
        for cell in cells:
            self.written.setdefault(cell, peer)

    def stored(
        self,
        peer: int,
        cells: Sequence[Cell],
        before: Sequence[Cell | None],
        get: Callable[[Soul, Key], Cell | None],
    ) -> None:
        """A batch is on disk: it may only have made fields newer, and only by what somebody wrote."""
        best: dict[Place, Cell | None] = {}
        for cell, old in zip(cells, before, strict=True):
            place = (cell.soul, cell.key)
            known = best.setdefault(place, old)
            if beats(cell.value, cell.state, None if known is None else (known.value, known.state)):
                best[place] = cell
            if cell not in self.written:
                self.violated("invented", f"{_show(cell)} was never written by anybody", peer)
        for place, right in best.items():
            held = get(*place)
            if held != right:
                self.violated("merge", f"disk holds {_show(held)} where {_show(right)} is right", peer)

    def due(self, peer: int, cells: Iterable[Cell], wall: float) -> None:
        """Cells are on their way to a disk: none of them may be from the future of this peer."""
        for cell in cells:
            if cell.state > wall and self.written.get(cell) != peer:
                ahead = (cell.state - wall) / 1000
                self.violated("early", f"{_show(cell)} is kept {ahead:.3f} s before it is due", peer)

    def promised(self, peer: int, cells: Iterable[Cell], get: Callable[[Soul, Key], Cell | None]) -> None:
        """A peer acknowledges a write: it must be durable now, or have lost to something that is."""
        self.acks += 1
        promises = self.acked[peer]
        for cell in cells:
            held = get(cell.soul, cell.key)
            if held is None or beats(cell.value, cell.state, (held.value, held.state)):
                self.violated("ack", f"{_show(cell)} is acknowledged, on disk is {_show(held)}", peer)
            known = promises.get((cell.soul, cell.key))
            if known is None or beats(cell.value, cell.state, (known.value, known.state)):
                promises[cell.soul, cell.key] = cell

    def answers(self, asked: Asked, cells: Iterable[Cell]) -> bool:
        """True when nothing is missing in this answer that was durable when the question came.

        It is no violation yet when something is: another peer may have answered first.
        """
        asked.answered = True
        said = {(cell.soul, cell.key): cell for cell in cells}
        for held in asked.held:
            cell = said.get((held.soul, held.key))
            if cell is None or beats(held.value, held.state, (cell.value, cell.state)):
                return False
        return True

    def saw(self, peer: int, cell: Cell, known: tuple[Value, State] | None) -> None:
        """A watcher is shown ``cell`` after ``known``."""
        if cell not in self.written:
            self.violated("invented", f"a watcher is shown {_show(cell)}, written by nobody", peer)
        if known is not None and beats(known[0], known[1], (cell.value, cell.state)):
            old = Cell(cell.soul, cell.key, *known)
            self.violated("backwards", f"a watcher is shown {_show(cell)} after {_show(old)}", peer)

    def pushed(self, dialer: int, dialled: int, cells: Iterable[Cell], *, most: int = 3) -> None:
        """Cells cross a link, in whichever direction, without having been asked for.

        Once there, and perhaps once back from a peer that does not know who told it. A third time can
        happen when equal copies come by two ways within one flush of the disk; a fourth is wrong. On a native
        link a third is: what is told there is on disk, and says who wrote it.
        """
        if self.crossed is None:
            return
        for cell in cells:
            count = self.crossed[dialer, dialled, cell] = self.crossed.get((dialer, dialled, cell), 0) + 1
            if count == most + 1:
                self.violated("chatter", f"{_show(cell)} crosses one link {count} times", dialer)

    # -- at the end ------------------------------------------------------------

    def kept(self, peer: int, get: Callable[[Soul, Key], Cell | None]) -> None:
        """What was acknowledged is on disk still, or has lost to something newer."""
        for place, cell in self.acked[peer].items():
            held = get(*place)
            if held is None or beats(cell.value, cell.state, (held.value, held.state)):
                self.violated("lost", f"{_show(cell)} was acknowledged, on disk is {_show(held)}", peer)


def _show(cell: Cell | None) -> str:
    if cell is None:
        return "nothing"
    return f"{cell.soul}.{cell.key}={_text(cell.value)[:40]}@{cell.state!r}"
