"""The conflict journal: edits that lost against others which nobody knew of when they were made. (core)

An entry is written in the transaction that decided it. The journal is bounded: the oldest entries go first.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, TypeAlias
from zlib import crc32

from air.model.cell import Key, Soul, State
from air.model.mark import Mark
from air.model.value import Value, unit_bytes, units_from_bytes
from air.store.record import decode_state, decode_value
from air.store.records import Execute
from air.store.writers import Writers

__all__ = ["Conflict", "Journal", "Side", "Version"]

_HEAD: Final = struct.Struct("<dddIIII")
"""Wall time, state of the loser and of the winner, lengths of both values and both marks."""
_ROW: Final = "id, CAST(soul AS BLOB), CAST(key AS BLOB), CAST(record AS BLOB), CAST(crc AS INTEGER)"
_ENTRY_BYTES: Final = 32
"""What an entry takes beside names and content."""
_FALL: Final = 64
"""Entries that go at a time once the journal is full, so that not every addition has to make room."""

Side: TypeAlias = tuple[float, bytes, bytes]
"""State, value and mark of one of the two, as they are stored."""


class Version(NamedTuple):
    """A value that a field had, or would have had."""

    value: Value
    state: State
    mark: Mark


class Conflict(NamedTuple):
    """Two edits of one field, neither made in knowledge of the other."""

    id: int
    """Rises by one from entry to entry."""
    soul: Soul
    key: Key
    lost: Version
    won: Version
    at: float
    """When this store noticed: Unix time in ms."""


class Journal:
    """The table ``conflict(id, soul, key, record, crc)``."""

    __slots__ = ("_bytes", "_bytes_max", "_count_max", "_execute", "_last", "_writers", "damaged", "dropped")

    def __init__(self, execute: Execute, writers: Writers, count_max: int, bytes_max: int) -> None:
        self._writers, self._count_max, self._bytes_max = writers, max(count_max, 1), bytes_max
        self.dropped = 0
        """Entries that made room for newer ones since this program opened the store."""
        self.damaged = 0
        self.load(execute)

    def load(self, execute: Execute) -> None:
        """Forget what is known of the table; also after a transaction was undone."""
        self._execute = execute
        self._last: int | None = None
        self._bytes = 0

    def _ends(self) -> tuple[int, int]:
        """First and last id that are in use; (1, 0) when there are none."""
        # Asked for apart, each is one look-up; together they are a walk through all of it.
        ends = "SELECT (SELECT min(id) FROM conflict), (SELECT max(id) FROM conflict)"
        first, last = self._execute(ends, ()).fetchone()
        return (1, 0) if first is None else (first, last)

    def add(self, soul: bytes, key: bytes, lost: Side, won: Side, at: float) -> None:
        """Note within the running transaction that ``lost`` gave way to ``won``."""
        if self._last is None:
            query = f"SELECT max(id), sum(length(soul) + length(key) + length(record) + {_ENTRY_BYTES})"
            last, size = self._execute(f"{query} FROM conflict", ()).fetchone()
            self._last, self._bytes = last or 0, size or 0
        head = _HEAD.pack(at, lost[0], won[0], len(lost[1]), len(won[1]), len(lost[2]), len(won[2]))
        record = b"".join((head, lost[1], won[1], lost[2], won[2]))
        self._last += 1
        values = (self._last, soul, key, record)
        self._execute("INSERT INTO conflict VALUES(?, ?, ?, ?, ?)", (*values, _checksum(*values)))
        self._bytes += len(soul) + len(key) + len(record) + _ENTRY_BYTES
        first, last = self._ends()
        if last - first + 1 > self._count_max or self._bytes > self._bytes_max:
            self._make_room(first, last)

    def _make_room(self, first: int, last: int) -> None:
        fall = min(_FALL, max(self._count_max // 8, 1))
        while first < last and (last - first + 1 > self._count_max or self._bytes > self._bytes_max):
            # One more than needed each time, and never the newest.
            end = min(first + fall, last)
            size = f"SELECT count(*), sum(length(soul) + length(key) + length(record) + {_ENTRY_BYTES})"
            count, freed = self._execute(f"{size} FROM conflict WHERE id < ?", (end,)).fetchone()
            self._execute("DELETE FROM conflict WHERE id < ?", (end,))
            self.dropped += count
            self._bytes -= freed or 0
            first = end

    @property
    def count(self) -> int:
        """Entries there are."""
        first, last = self._ends()
        return last - first + 1

    def read(self, after_id: int, limit: int, soul: Soul | None, key: Key | None) -> list[Conflict]:
        """Entries in the order of their ids, of one node or one field if asked for."""
        where, bounds = "id > ?", [after_id]
        values: list[int | bytes] = [*bounds]
        if soul is not None:
            where += " AND soul = ?"
            values.append(unit_bytes(soul))
        if key is not None:
            where += " AND key = ?"
            values.append(unit_bytes(key))
        found: list[Conflict] = []
        rows = self._execute(f"SELECT {_ROW} FROM conflict WHERE {where} ORDER BY id", tuple(values))
        for row in rows:
            if len(found) >= limit:
                break
            if (entry := self._entry(*row)) is not None:
                found.append(entry)
        return found

    def get(self, number: int) -> Conflict | None:
        """One entry; None when it is not there or damaged."""
        row = self._execute(f"SELECT {_ROW} FROM conflict WHERE id = ?", (number,)).fetchone()
        return None if row is None else self._entry(*row)

    def verify(self) -> int:
        """Check every entry. Returns how many are damaged."""
        return sum(
            1
            for number, soul, key, record, crc in self._execute(f"SELECT {_ROW} FROM conflict", ())
            if _checksum(number, soul, key, record) != crc
        )

    def _entry(self, number: int, soul: bytes, key: bytes, record: bytes, crc: int) -> Conflict | None:
        if _checksum(number, soul, key, record) != crc:
            self.damaged += 1
            return None
        at, lost_state, won_state, *lengths = _HEAD.unpack_from(record)
        parts, place = [], _HEAD.size
        for length in lengths:
            parts.append(record[place : place + length])
            place += length
        lost, won, lost_mark, won_mark = parts
        return Conflict(
            number,
            units_from_bytes(soul),
            units_from_bytes(key),
            Version(decode_value(lost), decode_state(lost_state), self._writers.decode(lost_mark).mark),
            Version(decode_value(won), decode_state(won_state), self._writers.decode(won_mark).mark),
            at,
        )


def _checksum(number: int, soul: bytes | None, key: bytes | None, record: bytes | None) -> int:
    """Takes whatever a damaged row may hold, and then differs from what is stored with it."""
    if soul is None or key is None or record is None:
        return -1
    head = struct.pack("<qII", number, len(soul), len(key))
    return crc32(record, crc32(head, crc32(key, crc32(soul))))
