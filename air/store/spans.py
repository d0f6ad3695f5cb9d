"""Counts and sums over neighbouring cells, so that two stores can be compared without reading them. (core)

The table of cells is cut into spans of some hundred cells. A span is *clean* while its count and its sum of
item hashes are known. A write makes the spans that it falls into dirty, which costs a look into a sorted list
and touches the disk only when a span was clean there; whoever asks for a range has what is dirty in it
summed up again, and cuts spans that have grown too long.

What is known is kept in the table ``span(soul, key, count, sum, crc)``: a row for the beginning of each span,
which ends where the next begins. A row turns dirty in the very transaction that writes the cells, so that
after a crash nothing stale is taken for clean. Rows become clean again later, in idle time, many at once.
Spans are never joined: cells do not go away.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, TypeAlias
from zlib import crc32

from air.store.api import Bound, Position
from air.store.items import MODULUS, Item, part, total
from air.store.records import Execute

__all__ = ["SPAN_CELLS", "Spans", "sums_are_sound"]

SPAN_CELLS: Final = 256
"""Cells of a new span; one is cut when it has twice as many."""
_STEP_CELLS: Final = 4096
"""Cells that are summed up at a time in a long dirty span, before what is known of it is kept."""
_CACHE_SPANS: Final = 32
"""Spans whose items are remembered: about 100 KiB each."""
_SAVE_SPANS: Final = 512
"""Spans that wait to be written to the table until :attr:`Spans.worth_saving`."""
_FIRST: Final[Position] = (b"", b"")
_DIRTY: Final = -1

Content: TypeAlias = tuple[list[Position], list[int]]
"""The items of a span: positions in order, and their hashes."""


class Spans:
    """All spans of a store, in memory. ``items`` reads items from a position on, damaged cells left out.

    ``spans_max`` bounds them: beyond it spans are not cut any more, and grow.
    """

    __slots__ = (
        "_cache",
        "_clean",
        "_execute",
        "_items",
        "_lows",
        "_max",
        "_owed",
        "_states",
        "_stored",
        "_unsaved",
        "_wipe",
    )

    def __init__(self, execute: Execute, items: Callable[[Position], Iterator[Item]], spans_max: int) -> None:
        self._items, self._max = items, max(spans_max, 1)
        self.load(execute)

    def load(self, execute: Execute) -> None:
        """Take from the table what is known. When a row is damaged, none is believed."""
        self._execute = execute
        self._lows: list[Position] = [_FIRST]
        """Where each span begins."""
        self._states: list[tuple[int, int] | None] = [None]
        """Count and sum of each span, None: dirty."""
        self._clean = 0
        self._stored: set[Position] = set()
        """Spans with a clean row in the table."""
        self._unsaved: set[Position] = set()
        """Spans that were summed up or cut since the table was written."""
        self._owed: list[Position] = []
        """Rows that must turn dirty with the next transaction."""
        self._cache: OrderedDict[Position, Content] = OrderedDict()
        rows, self._wipe = _rows(execute)
        if not rows:
            return
        self._lows = [low for low, _ in rows]
        self._states = [state for _, state in rows]
        self._stored = {low for low, state in rows if state is not None}
        self._clean = len(self._stored)
        if self._lows[0] != _FIRST:
            self._lows.insert(0, _FIRST)
            self._states.insert(0, None)

    def __len__(self) -> int:
        return len(self._lows)

    @property
    def dirty(self) -> int:
        """Spans that have changed since they were summed up."""
        return len(self._lows) - self._clean

    # -- what writes do --------------------------------------------------------

    def touch(self, places: Iterable[tuple[Any, ...]]) -> None:
        """Cells were written; ``places`` begin with soul and key."""
        if not self._clean:
            return
        lows = self._lows
        low: tuple[Any, ...] = ()
        high: tuple[Any, ...] | None = ()
        for place in places:
            # Cells of one batch are often neighbours, and the span that was just made dirty is the same.
            if low <= place and (high is None or place < high):
                continue
            index = bisect_right(lows, place) - 1
            low, high = lows[index], lows[index + 1] if index + 1 < len(lows) else None
            if self._states[index] is not None:
                self._soil(index)
                if not self._clean:
                    return

    def _soil(self, index: int) -> None:
        low = self._lows[index]
        self._states[index] = None
        self._clean -= 1
        self._cache.pop(low, None)
        if low in self._stored:
            self._stored.discard(low)
            self._owed.append(low)

    def pay(self) -> None:
        """Within the transaction that writes the cells: make rows dirty that are clean in the table."""
        if self._wipe:
            self._execute("DELETE FROM span", ())
        for low in self._owed:
            self._put(low, None)

    def paid(self) -> None:
        """That transaction is committed. Until then, and after one that was undone, it is all still owed."""
        self._wipe = False
        self._owed.clear()

    # -- summing up ------------------------------------------------------------

    def work(self, cells_max: int) -> bool:
        """Sum up some of what is dirty, reading about ``cells_max`` cells. False: nothing is dirty."""
        if not self.dirty:
            return False
        self._sum_up(self._states.index(None), max(cells_max, 2 * SPAN_CELLS))
        return True

    def _sum_up(self, index: int, cells_max: int) -> None:
        """Make a dirty span clean, or at least its beginning when it has more than ``cells_max`` cells."""
        low = self._lows[index]
        high = self._lows[index + 1] if index + 1 < len(self._lows) else None
        positions: list[Position] = []
        hashes: list[int] = []
        made: list[tuple[Position, tuple[int, int] | None]] = []
        room, rest = self._max - len(self._lows), None
        for count, (place, item) in enumerate(self._items(low)):
            if high is not None and place >= high:
                break
            if len(positions) >= 2 * SPAN_CELLS and len(made) < room:
                made.append((low, total(hashes[:SPAN_CELLS])))
                low = positions[SPAN_CELLS]
                del positions[:SPAN_CELLS], hashes[:SPAN_CELLS]
                if count >= cells_max:
                    rest = low
                    break
            positions.append(place)
            hashes.append(item)
        made.append((low, None if rest is not None else total(hashes)))
        self._lows[index : index + 1] = [start for start, _ in made]
        self._states[index : index + 1] = [state for _, state in made]
        self._clean += len(made) - (rest is not None)
        self._unsaved.update([start for start, _ in made])
        if rest is None:
            self._remember(low, (positions, hashes))

    def _settled(self, index: int) -> tuple[int, int]:
        """Count and sum of a span, which is clean afterwards. Those behind it may have moved."""
        while (state := self._states[index]) is None:
            self._sum_up(index, _STEP_CELLS)
        return state

    def _content(self, index: int) -> Content:
        """The items of a span, which is clean afterwards."""
        self._settled(index)
        low = self._lows[index]
        content = self._cache.get(low)
        if content is not None:
            self._cache.move_to_end(low)
            return content
        high = self._lows[index + 1] if index + 1 < len(self._lows) else None
        positions: list[Position] = []
        hashes: list[int] = []
        for place, item in self._items(low):
            if high is not None and place >= high:
                break
            positions.append(place)
            hashes.append(item)
        if (found := total(hashes)) != self._states[index]:
            # A cell has been damaged since the span was summed up.
            self._soil(index)
            self._states[index] = found
            self._clean += 1
            self._unsaved.add(low)
        self._remember(low, (positions, hashes))
        return positions, hashes

    def _remember(self, low: Position, content: Content) -> None:
        self._cache[low] = content
        if len(self._cache) > _CACHE_SPANS:
            self._cache.popitem(last=False)

    # -- questions -------------------------------------------------------------

    def _within(self, low: Bound, high: Bound) -> Iterator[tuple[int, bool]]:
        """The spans that a range touches, in order, and whether each is all in it; clean when they come."""
        index = 0 if low is None else bisect_right(self._lows, low) - 1
        while index < len(self._lows) and (high is None or self._lows[index] < high):
            self._settled(index)
            inside = low is None or low <= self._lows[index]
            if high is not None:
                inside = inside and index + 1 < len(self._lows) and self._lows[index + 1] <= high
            yield index, inside
            index += 1

    def fingerprint(self, low: Bound, high: Bound) -> tuple[int, int]:
        """(count, sum) of the items in a range."""
        count = added = 0
        for index, inside in self._within(low, high):
            state = self._states[index]
            if not inside or state is None:
                positions, hashes = self._content(index)
                state = total(hashes[part(positions, low, high)])
            count += state[0]
            added += state[1]
        return count, added % MODULUS

    def split(self, low: Bound, high: Bound, parts: int) -> list[Position]:
        """Rising positions that cut a range into about equal parts; large parts end where spans do."""
        pieces: list[tuple[int, Position, bool]] = []
        """How much of each span is in the range, where the span begins, and whether that is all of it."""
        whole = 0
        for index, inside in self._within(low, high):
            (count, _), start = self._settled(index), self._lows[index]
            if not inside:
                positions, _ = self._content(index)
                count = len(positions[part(positions, low, high)])
            pieces.append((count, start, inside))
            whole += count
        coarse = whole >= parts * 4 * SPAN_CELLS
        bounds: list[Position] = []
        before = place = 0
        for number in range(1, min(parts, whole)):
            aim = whole * number // min(parts, whole)
            while before + pieces[place][0] <= aim:
                before += pieces[place][0]
                place += 1
            _, start, inside = pieces[place]
            bound = (
                start if inside and (coarse or aim == before) else self._at(start, low, high, aim - before)
            )
            if bound is not None and (low is None or bound > low) and (not bounds or bound > bounds[-1]):
                bounds.append(bound)
        return bounds

    def _at(self, start: Position, low: Bound, high: Bound, number: int) -> Bound:
        """The position of a cell of the span at ``start``, counted from where the range begins in it."""
        positions, _ = self._content(bisect_left(self._lows, start))
        here = positions[part(positions, low, high)]
        # Damage may just have been found.
        return here[number] if number < len(here) else None

    def items(self, low: Bound, high: Bound, limit: int) -> list[Item]:
        """The first items of a range."""
        found: list[Item] = []
        for index, _ in self._within(low, high):
            positions, hashes = self._content(index)
            here = part(positions, low, high)
            found += zip(positions[here], hashes[here], strict=True)
            if len(found) >= limit:
                break
        return found[:limit]

    # -- the table -------------------------------------------------------------

    @property
    def unsaved(self) -> bool:
        """True when the table knows less than it could."""
        return bool(self._unsaved)

    @property
    def worth_saving(self) -> bool:
        """True when :meth:`save` has enough to do, or there is nothing more to wait for."""
        return len(self._unsaved) >= _SAVE_SPANS or (self.unsaved and not self.dirty)

    def save(self) -> None:
        """Within a transaction of its own: write to the table what is known. Then :meth:`saved`."""
        self.pay()
        for low in self._unsaved:
            self._put(low, self._states[bisect_left(self._lows, low)])

    def saved(self) -> None:
        """That transaction is committed."""
        self.paid()
        for low in self._unsaved:
            if self._states[bisect_left(self._lows, low)] is not None:
                self._stored.add(low)
        self._unsaved.clear()

    def _put(self, low: Position, state: tuple[int, int] | None) -> None:
        count, data = (_DIRTY, b"") if state is None else (state[0], state[1].to_bytes(16, "little"))
        row = (*low, count, data)
        self._execute("INSERT OR REPLACE INTO span VALUES(?, ?, ?, ?, ?)", (*row, _checksum(*row)))


def sums_are_sound(execute: Execute) -> bool:
    """True when no row of the table is damaged."""
    return not _rows(execute)[1]


def _rows(execute: Execute) -> tuple[list[tuple[Position, tuple[int, int] | None]], bool]:
    """The rows of the table in order, and whether it is to be emptied: none is used if one is damaged."""
    rows: list[tuple[Position, tuple[int, int] | None]] = []
    columns = "CAST(soul AS BLOB), CAST(key AS BLOB), CAST(count AS INTEGER), CAST(sum AS BLOB)"
    for *row, crc in execute(f"SELECT {columns}, CAST(crc AS INTEGER) FROM span", ()):
        if None in row or _checksum(*row) != crc:
            return [], True
        soul, key, count, data = row
        rows.append(((soul, key), None if count == _DIRTY else (count, int.from_bytes(data, "little"))))
    if any(one >= other for (one, _), (other, _) in pairwise(rows)):
        return [], True
    return rows, False


def _checksum(soul: bytes, key: bytes, count: int, data: bytes) -> int:
    head: Sequence[bytes] = (str((count, len(soul), len(key))).encode(), soul, key, data)
    return crc32(b"".join(head))
