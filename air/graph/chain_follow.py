"""Following a path through links that change: cells in, what to watch and what has changed out. (core)

A path is a node and steps from it: a key leads through one field, a :class:`Lex` through all fields that it
holds. Wherever a field on the way holds a link, the path goes on in the node behind it. A *spot* is a node
that the path leads through at present, and a *trail* tells which of many fields it was come by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

from air.base.errors import LimitReached
from air.graph.api import Change
from air.model.cell import Cell, Key, Soul, State
from air.model.lex import Lex
from air.model.value import Link, Value

__all__ = ["NOTHING", "SPOTS_MAX", "Follow", "Found", "Trail", "Want"]

SPOTS_MAX: Final = 100_000
"""Nodes that one path may lead through at a time: ``limit.follow``."""

Trail: TypeAlias = tuple[Key, ...]


class Want(NamedTuple):
    """Begin or end to watch a field, or with key None a whole node."""

    begin: bool
    soul: Soul
    key: Key | None


class Found(NamedTuple):
    """What is at the end of a path: a value, or a node with its fields, and in them further nodes."""

    value: Value = None
    soul: Soul | None = None
    fields: dict[Key, Found] | None = None
    state: State = 0


NOTHING: Final = Found()
"""What is at the end of a path that leads nowhere (compare with ``is``)."""


class _Spot:
    __slots__ = ("above", "alive", "children", "fields", "index", "soul", "trail")

    def __init__(self, soul: Soul, index: int, trail: Trail, above: _Spot | None) -> None:
        self.soul, self.index, self.trail, self.above = soul, index, trail, above
        self.alive = True
        self.children: dict[Key, _Spot] = {}
        """The nodes behind fields that hold links on the way."""
        self.fields: dict[Key, tuple[Value, State]] = {}
        """Values at the end of the way; none when nobody will ask for them."""


class Follow:
    """Where a path leads now.

    ``depth`` counts the nodes at the end of the way that are looked into: 0 leaves a link that is found there
    as it is, 2 also looks into the nodes behind the links of the node that is found. ``keep`` False saves the
    memory of values when only changes are wanted.
    """

    def __init__(
        self,
        roots: Iterable[tuple[Soul, Trail]],
        steps: Sequence[Key | Lex],
        *,
        depth: int = 1,
        keep: bool = True,
        spots_max: int = SPOTS_MAX,
    ) -> None:
        self._steps, self._depth, self._keep, self._spots_max = steps, depth, keep, spots_max
        self._length = len(steps)
        self._at: dict[Soul, dict[_Spot, None]] = {}
        self._spots = 0
        self._counts: Counter[tuple[Soul, Key | None]] = Counter()
        self._wants: list[Want] = []
        self._live: dict[Trail, None] = {}
        """Trails at whose end something was seen."""
        self.dirty: dict[Trail, None] = {}
        """Trails at whose end something has changed."""
        self._roots = {trail: self._add(soul, 0, trail, None) for soul, trail in roots}
        self._root_length = len(next(iter(self._roots))) if self._roots else 0

    def take_wants(self) -> list[Want]:
        """What to watch and what no longer, in this order."""
        wants, self._wants = self._wants, []
        return wants

    def receive(self, cells: Iterable[Cell]) -> list[Change]:
        """Take values that are newer than those before them. Raises LimitReached."""
        out: list[Change] = []
        for cell in cells:
            for spot in tuple(self._at.get(cell.soul, ())):
                if spot.alive:
                    self._cell(spot, cell, out)
        return out

    def _cell(self, spot: _Spot, cell: Cell, out: list[Change]) -> None:
        _, key, value, state = cell
        if spot.index >= self._length:
            if self._keep:
                spot.fields[key] = (value, state)
                self._look_into(spot, key, value)
            self._mark(spot.trail)
            out.append(Change(*cell))
            return
        step, trail = self._steps[spot.index], spot.trail
        if isinstance(step, Lex):
            if not step.holds(key):
                return
            trail = (*trail, key)
        elif key != step:
            return
        last = spot.index == self._length - 1
        child = spot.children.get(key)
        if type(value) is Link and not (last and self._depth == 0):
            if child is not None and child.soul == value.soul:
                return
            if child is not None:
                self._drop(child)
                self._mark_below(spot, trail, gone=False)
            spot.fields.pop(key, None)
            spot.children[key] = self._add(value.soul, spot.index + 1, trail, spot)
            return
        if child is not None:
            self._drop(child)
            del spot.children[key]
        if last:
            if value is None and trail and trail not in self._live:
                # An entry that was deleted before anybody looked.
                return
            spot.fields[key] = (value, state)
            self._mark(trail)
            if value is None and trail:
                del self._live[trail]
            out.append(Change(*cell))
        elif child is not None and self._mark_below(spot, trail, gone=True):
            out.append(Change(cell.soul, key, None, state))

    def _look_into(self, spot: _Spot, key: Key, value: Value) -> None:
        """Go on into the nodes behind the links of a node at the end of the way, as deep as was asked."""
        child = spot.children.get(key)
        target = value.soul if type(value) is Link else None
        if child is not None and child.soul != target:
            self._drop(child)
            del spot.children[key]
        elif child is not None or target is None:
            return
        if target is None or spot.index + 1 - self._length >= self._depth:
            return
        above: _Spot | None = spot
        while above is not None and above.index >= self._length:
            # A circle: the link stays a link.
            if above.soul == target:
                return
            above = above.above
        spot.children[key] = self._add(target, spot.index + 1, spot.trail, spot)

    # -- spots -----------------------------------------------------------------

    def _want_of(self, spot: _Spot) -> tuple[Soul, Key | None]:
        step = self._steps[spot.index] if spot.index < self._length else None
        return spot.soul, step if isinstance(step, str) else None

    def _add(self, soul: Soul, index: int, trail: Trail, above: _Spot | None) -> _Spot:
        if self._spots >= self._spots_max:
            raise LimitReached(f"more than {self._spots_max} nodes on the way", code="limit.follow")
        self._spots += 1
        spot = _Spot(soul, index, trail, above)
        self._at.setdefault(soul, {})[spot] = None
        want = self._want_of(spot)
        self._counts[want] += 1
        # Also when it is watched already: what is there has to be shown to this spot too.
        self._wants.append(Want(True, *want))
        return spot

    def _drop(self, spot: _Spot) -> None:
        spot.alive = False
        self._spots -= 1
        spots = self._at[spot.soul]
        del spots[spot]
        if not spots:
            del self._at[spot.soul]
        want = self._want_of(spot)
        self._counts[want] -= 1
        if not self._counts[want]:
            del self._counts[want]
            self._wants.append(Want(False, *want))
        for child in spot.children.values():
            self._drop(child)

    # -- trails ----------------------------------------------------------------

    def _mark(self, trail: Trail) -> None:
        self._live[trail] = None
        self.dirty[trail] = None

    def _mark_below(self, spot: _Spot, trail: Trail, *, gone: bool) -> bool:
        """Something has changed at the end of every trail that begins like this. True when there was one.

        ``gone``: they lead nowhere now, and what was seen there will not be taken back once more.
        """
        if not any(isinstance(step, Lex) for step in self._steps[spot.index + 1 :]):
            below = [trail] if trail in self._live else []
        else:
            below = [one for one in self._live if one[: len(trail)] == trail]
        for one in below:
            if gone:
                del self._live[one]
            self.dirty[one] = None
        return bool(below)

    def take_dirty(self) -> Trail | None:
        """One trail at whose end something has changed since it was taken before."""
        for trail in self.dirty:
            del self.dirty[trail]
            return trail
        return None

    def found(self, trail: Trail = ()) -> Found:
        """What is at the end of a trail; :data:`NOTHING` when it leads nowhere."""
        spot = self._roots.get(trail[: self._root_length])
        rest = list(trail[self._root_length :])
        for index, step in enumerate(self._steps):
            if spot is None:
                return NOTHING
            key = rest.pop(0) if isinstance(step, Lex) else step
            pair = spot.fields.get(key)
            if pair is not None:
                return Found(pair[0], state=pair[1]) if index == self._length - 1 else NOTHING
            spot = spot.children.get(key)
        if spot is None or (not self._length and not spot.fields):
            return NOTHING
        return _node(spot)


def _node(spot: _Spot) -> Found:
    fields = {}
    for key, (value, state) in spot.fields.items():
        child = spot.children.get(key)
        fields[key] = Found(value, state=state) if child is None else _node(child)._replace(state=state)
    return Found(None, spot.soul, fields)
