"""Reading records from a table in order: pages, scans, names of nodes. Nothing damaged comes out. (core)

The table is reached through one function that runs SQL and yields rows, so this module knows the
schema and nothing of the library underneath.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from sys import maxsize
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from air.base.errors import Corrupt
from air.model.cell import Cell, Key, Soul, State
from air.model.lex import Lex, cost
from air.model.message import SoulRange
from air.model.value import Value, unit_bytes, units_from_bytes
from air.store.api import Page, Position
from air.store.items import Item, item_hash
from air.store.record import Record, ScanCursor, ScanPage, decode_state, decode_value, intact

__all__ = ["Execute", "Records", "Rows", "Verification"]


class Rows(Protocol):
    """The rows of a query, produced as they are asked for. Its last reference ends the query.

    Do not close it: ``Cursor.close`` of apsw 3.54 keeps a reference for ever, and so the cursor's memory.
    """

    def __iter__(self) -> Iterator[Any]: ...
    def fetchone(self) -> Any: ...


Execute: TypeAlias = Callable[[str, tuple[Any, ...]], Rows]
"""Runs SQL with values for its question marks."""

# A flipped bit can turn a column's type into text that is no text. The casts keep SQLite from
# decoding it, so that the checksum gets to judge it.
_ROW: Final = "CAST(state AS REAL), CAST(value AS BLOB), CAST(crc AS INTEGER), CAST(mark AS BLOB)"
_SOUL_ROW: Final = f"CAST(soul AS BLOB), CAST(key AS BLOB), {_ROW}"
_FORWARD: Final = "ORDER BY soul, key"
_BACKWARD: Final = "ORDER BY soul DESC, key DESC"
_ASTRAY_MAX: Final = 100_000
"""Records outside of what was asked for that a read passes over because of a damaged one, at most."""
_FIELD: Final = f"SELECT {_ROW} FROM cell WHERE soul = ? AND key = ?"


@dataclass(slots=True)
class Verification:
    """What a check of a whole store found."""

    cells: int = 0
    """Records that are what was written."""
    damaged: int = 0
    names: list[tuple[Soul, Key]] = field(default_factory=list)
    """(soul, key) of the first damaged records, as far as they can be read."""
    faults: list[str] = field(default_factory=list)
    """What is wrong with the structure of the file, and what was lost before this check."""
    notes: list[str] = field(default_factory=list)
    """What an operator should know and need not mend."""

    @property
    def sound(self) -> bool:
        """Nothing is damaged and nothing was lost."""
        return not self.damaged and not self.faults


class Records:
    """The reading half of a store over the table ``cell(soul, key, state, value, crc, mark)``."""

    __slots__ = ("_names_max", "damaged", "execute", "names", "on_damage")

    def __init__(self, execute: Execute, names_max: int) -> None:
        self.execute, self._names_max = execute, names_max
        self.damaged = 0
        self.names: dict[tuple[Soul, Key], None] = {}
        self.on_damage: Callable[[Position], None] = lambda place: None
        """Told where a damaged record stands that was met by a read."""

    def field(self, soul: bytes, key: bytes) -> tuple[Value, State] | None:
        """One field; None when it is not there or damaged."""
        row = self.execute(_FIELD, (soul, key)).fetchone()
        if row is not None and intact(soul, key, *row):
            return self._take(soul, key, row)
        # It is not there or damaged; or a damaged name nearby has led the search astray.
        for _, *hidden in self._rows(soul, _Range(key, True, key, True), reverse=False):
            if (taken := self._take(soul, key, hidden)) is not None:
                return taken
        return None

    def record(self, soul: bytes, key: bytes) -> Record | None:
        """One field as it is stored; None when it is not there or damaged."""
        row = self.execute(_FIELD, (soul, key)).fetchone()
        if row is None or self._take(soul, key, row) is None:
            return None
        return (soul, key, *row)

    def mark(self, soul: Soul, key: Key) -> bytes | None:
        """The mark of one field as it is stored; None when it is not there or damaged."""
        record = self.record(unit_bytes(soul), unit_bytes(key))
        return None if record is None else record[5]

    def read(self, soul: Soul, lex: Lex, after: Key | None, fields_max: int, bytes_max: int) -> Page:
        """See :meth:`air.store.api.Store.read`."""
        unit = unit_bytes(soul)
        only = lex.exact if lex.exact is not None else lex.prefix
        if only or lex.exact is not None:
            # Rule 5 of gun-wire 2.4: a prefix that is itself a key means only that key, if in bounds.
            stored = self.field(unit, unit_bytes(only))
            if stored is not None and (lex.exact is not None or lex.holds(only)):
                return Page({only: stored}, None)
            if stored is not None or lex.exact is not None:
                return Page({}, None)
        # No LIMIT: rows come one by one, and a damaged one must not use up the page.
        rows = self._rows(unit, _range(lex, None if after is None else unit_bytes(after)), lex.reverse)
        fields: dict[Key, tuple[Value, State]] = {}
        budget, spent, last = lex.budget, 0, b""
        with contextlib.closing(rows):
            for key, *row in rows:
                taken = self._take(unit, key, row)
                if taken is None:
                    continue
                fields[units_from_bytes(key)] = taken
                if budget is not None:
                    spent += cost(taken[0])
                    if spent >= budget:
                        return Page(fields, None)
                    continue
                last = key
                spent += len(key) + len(row[1])
                if len(fields) >= fields_max or spent >= bytes_max:
                    break
            else:
                return Page(fields, None)
        beyond = _range(lex, last)
        where, bounds = beyond.condition(unit)
        (more,) = self.execute(f"SELECT EXISTS(SELECT 1 FROM cell WHERE {where})", bounds).fetchone()
        if not more:
            rows = self._rows(unit, beyond, lex.reverse)
            with contextlib.closing(rows):
                more = any(True for _ in rows)
        return Page(fields, units_from_bytes(last) if more else None)

    def _rows(self, soul: bytes, within: _Range, reverse: bool) -> Generator[tuple[Any, ...]]:
        """The rows of a node with keys in a range, in order: key, state, value, checksum, mark.

        A damaged name sorts somewhere else than it stands. Taken at its word, it would end a walk early or
        let it begin late, and hide sound records behind it. So a walk begins only next to a sound record,
        and ends only at a sound one beyond the range. Raises Corrupt when that is too far away.
        """
        ahead, behind, bounds = within.ways(soul, reverse)
        row = self.execute(f"SELECT {_SOUL_ROW} FROM cell WHERE {behind} LIMIT 1", bounds).fetchone()
        if row is not None and not intact(*row):
            # What is hidden stands between where the damaged name says it is and where it is.
            ahead, bounds = _start_beside(row[0] or b"", row[1] or b"", reverse)
        query = f"SELECT {_SOUL_ROW} FROM cell WHERE {ahead}"
        yield from self._inside(soul, within, self.execute(query, bounds), -1 if reverse else 1)

    def _inside(self, soul: bytes, within: _Range, rows: Rows, way: int) -> Iterator[tuple[Any, ...]]:
        """Those of ``rows`` that are in the range; they are in order (``way`` 1) or in reverse (-1)."""
        strayed = 0
        try:
            for found, key, *row in rows:
                if found == soul and type(key) is bytes and (side := within.side(key)) == 0:
                    yield (key, *row)
                    continue
                if not intact(found, key, *row):
                    self._damage(found, key)
                elif (side if found == soul else 1 if found > soul else -1) == way:
                    return
                strayed += 1
                if strayed > _ASTRAY_MAX:
                    raise Corrupt("damage has led a search too far astray")
        finally:
            del rows  # ends the query, see Rows

    def scan(self, souls: SoulRange, after: ScanCursor | None, fields_max: int, bytes_max: int) -> ScanPage:
        """All cells of the nodes that start with a prefix, until a budget or a ceiling is reached."""
        prefix, spent, size = unit_bytes(souls.prefix), 0, 0
        place = None
        if after is not None:
            spent, place = after.spent, (unit_bytes(after.soul), unit_bytes(after.key))
        cells: list[Cell] = []
        for soul, key, *row in self._walk(prefix, place, souls.reverse):
            if spent >= souls.budget:
                break
            taken = self._take(soul, key, row)
            if taken is None:
                continue
            if not soul.startswith(prefix):
                break
            if len(cells) >= fields_max or size >= bytes_max:
                return ScanPage(cells, ScanCursor(cells[-1].soul, cells[-1].key, spent))
            cells.append(Cell(units_from_bytes(soul), units_from_bytes(key), *taken))
            spent += cost(taken[0])
            size += len(soul) + len(key) + len(row[1])
        return ScanPage(cells, None)

    def souls(self, after: Soul, limit: int, prefix: str) -> Sequence[Soul]:
        """See :meth:`air.store.api.Store.souls`: one look-up per node, however large it is."""
        start, mark = unit_bytes(prefix), unit_bytes(after)
        where: str = "soul > ?"
        bounds: tuple[bytes, ...] = (mark,)
        if mark < start:
            where, bounds = "soul >= ?", (start,)
        names: list[Soul] = []
        while len(names) < limit:
            query = f"SELECT {_SOUL_ROW} FROM cell WHERE {where} ORDER BY soul, key LIMIT 1"
            row = self.execute(query, bounds).fetchone()
            if row is None:
                break
            soul, key = row[:2]
            if not intact(*row):
                # The name of a node must not rest on a damaged record; the next one may be sound.
                self._damage(soul, key)
                where, bounds = "(soul, key) > (?, ?)", (soul, key)
                continue
            if not soul.startswith(start):
                break
            names.append(units_from_bytes(soul))
            where, bounds = "soul > ?", (soul,)
        return names

    def items(self, low: Position) -> Iterator[Item]:
        """The items of all records from a position on."""
        query = f"SELECT {_SOUL_ROW} FROM cell WHERE (soul, key) >= (?, ?) {_FORWARD}"
        for row in self.execute(query, low):
            if intact(*row):
                soul, key, state, value, _, _ = row
                yield (soul, key), item_hash(soul, key, state, value)
            else:
                self._count(row[0], row[1])

    def verify(self, found: Verification) -> None:
        """Check every record and that they are in order; the result goes into ``found``."""
        self.verify_part(found, None, maxsize)

    def verify_part(self, found: Verification, after: Position | None, count: int) -> Position | None:
        """Check ``count`` records beyond ``after``, or a few more. Returns where to go on, or None."""
        last, left = after, count
        for row in self._walk(b"", after):
            left -= 1
            if intact(*row) and (last is None or row[:2] > last):
                found.cells, last = found.cells + 1, (row[0], row[1])
                if left <= 0:
                    return last  # only a sound name tells where it stands
                continue
            found.damaged += 1
            if len(found.names) < self._names_max:
                found.names.append((_readable(row[0]), _readable(row[1])))
        return None

    def _walk(
        self, low: bytes, after: tuple[bytes, bytes] | None, reverse: bool = False
    ) -> Iterator[tuple[Any, ...]]:
        """Rows in order from the first soul that is at least ``low``, or those beyond ``after``.

        Backwards: from the last soul that starts with ``low``. The caller stops where its souls end.
        """
        where: str = "soul >= ?"
        bounds: tuple[bytes, ...] = (low,)
        if after is not None:
            where, bounds = f"(soul, key) {'<' if reverse else '>'} (?, ?)", after
        elif reverse:
            high = Lex(prefix=units_from_bytes(low)).bounds()[1]
            where, bounds = ("soul < ?", (high,)) if high is not None else ("soul >= ?", (b"",))
        order = "soul DESC, key DESC" if reverse else "soul, key"
        query = f"SELECT {_SOUL_ROW} FROM cell WHERE {where} ORDER BY {order}"
        for row in self.execute(query, bounds):  # noqa: UP028 - "yield from" would close it, see Rows
            yield row

    def _take(self, soul: bytes, key: bytes, row: Sequence[Any]) -> tuple[Value, State] | None:
        """Value and state of an intact record; a damaged one is counted and gives None."""
        state, value, crc, mark = row
        if intact(soul, key, state, value, crc, mark):
            with contextlib.suppress(ValueError, KeyError):
                return decode_value(value), decode_state(state)
        self._damage(soul, key)
        return None

    def _damage(self, soul: object, key: object) -> None:
        self._count(soul, key)
        if isinstance(soul, bytes) and isinstance(key, bytes):
            self.on_damage((soul, key))

    def _count(self, soul: object, key: object) -> None:
        self.damaged += 1
        if len(self.names) < self._names_max:
            self.names[_readable(soul), _readable(key)] = None


class _Range(NamedTuple):
    """Some keys of a node, next to each other."""

    low: bytes
    low_in: bool
    high: bytes | None
    """None: no upper end."""
    high_in: bool

    def side(self, key: bytes) -> int:
        """-1 below the range, 0 in it, 1 above it."""
        if key < self.low or (key == self.low and not self.low_in):
            return -1
        return 0 if self.high is None or key < self.high or (self.high_in and key == self.high) else 1

    def condition(self, soul: bytes) -> tuple[str, tuple[bytes, ...]]:
        """SQL that is true for the keys, and its values."""
        where = f"soul = ? AND key {'>=' if self.low_in else '>'} ?"
        if self.high is None:
            return where, (soul, self.low)
        return f"{where} AND key {'<=' if self.high_in else '<'} ?", (soul, self.low, self.high)

    def ways(self, soul: bytes, reverse: bool) -> tuple[str, str, tuple[bytes, ...]]:
        """SQL to walk from the first key on, SQL to walk the other way from there, and the values of both."""
        forward, backward = _FORWARD, _BACKWARD
        if not reverse:
            on, back = (">=", "<") if self.low_in else (">", "<=")
            bounds: tuple[bytes, ...] = (soul, self.low)
            return f"(soul, key) {on} (?, ?) {forward}", f"(soul, key) {back} (?, ?) {backward}", bounds
        if self.high is None:
            return f"soul <= ? {backward}", f"soul > ? {forward}", (soul,)
        on, back = ("<=", ">") if self.high_in else ("<", ">=")
        return (
            f"(soul, key) {on} (?, ?) {backward}",
            f"(soul, key) {back} (?, ?) {forward}",
            (soul, self.high),
        )


def _start_beside(soul: bytes, key: bytes, reverse: bool) -> tuple[str, tuple[bytes, ...]]:
    """SQL to walk from just before a name, in the direction of the walk, and its values."""
    if reverse:
        return f"(soul, key) <= (?, ?) {_BACKWARD}", (soul, key + b"\0")
    if key:
        return f"(soul, key) >= (?, ?) {_FORWARD}", (soul, key[:-1])
    return f"soul >= ? {_FORWARD}", (soul[:-1],)


def _range(lex: Lex, after: bytes | None) -> _Range:
    """The keys of a LEX beyond ``after``."""
    low, high, included = lex.bounds()
    low_in = True
    if after is not None and lex.reverse and (high is None or after <= high):
        high, included = after, False
    elif after is not None and not lex.reverse and after >= low:
        low, low_in = after, False
    return _Range(low, low_in, high, included)


def _readable(data: object) -> str:
    """What can be read of a damaged name."""
    return data.decode("utf-8", "replace") if isinstance(data, bytes) else repr(data)
