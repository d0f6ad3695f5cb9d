"""Merging a batch into the table of cells, with what marks tell. (core)

The merge of this peer's own writes is one conditional upsert, and SQLite compares the states: only cells that
changed nothing are looked at again, for ties and for damaged records in their way. Cells that were written
elsewhere bring marks of their own, and each that meets an older value of its field is judged here: two edits
made without knowledge of each other are a conflict, and the loser goes to the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from air.model.cell import Cell
from air.model.mark import Mark, concurrent, covers, follow, joined
from air.store.api import Kept
from air.store.journal import Journal
from air.store.record import Record, beats, decode_state, decode_value, marked
from air.store.records import Records, Rows
from air.store.writers import Writers, own_prefix, uncovered

__all__ = ["Database", "Merge"]

_FIELDS: Final = "INSERT INTO cell(soul, key, state, value, crc, mark) VALUES(?, ?, ?, ?, ?, ?)"
_REPLACE: Final = _FIELDS.replace("INSERT", "INSERT OR REPLACE")
_IF_NEW: Final = f"{_FIELDS} ON CONFLICT(soul, key) DO NOTHING"
_PLAIN: Final = f"""
{_FIELDS} ON CONFLICT(soul, key) DO UPDATE
SET state = excluded.state, value = excluded.value, crc = excluded.crc, mark = excluded.mark
WHERE excluded.state > state
"""


class Database(Protocol):
    """What a merge needs of a connection."""

    def execute(self, sql: str, values: tuple[Any, ...], /) -> Rows: ...
    def executemany(self, sql: str, rows: Iterable[tuple[Any, ...]], /) -> object: ...
    def total_changes(self) -> int: ...


class Merge:
    """Merges batches within the caller's transaction. ``own`` is the number of this peer as a writer.

    Without ``own`` this peer's writes have no mark, and one that replaces a value forgets who wrote that.
    """

    def __init__(
        self, db: Database, records: Records, writers: Writers, journal: Journal, own: int | None
    ) -> None:
        self._db, self._records, self._writers, self._journal = db, records, writers, journal
        self._sql = _PLAIN if own is None else _PLAIN + _over_plain(own)
        self._dot: Mark = ()
        self._kept = Kept()
        self._wall: Callable[[], float] = float

    def run(
        self,
        cells: Sequence[Cell],
        records: list[Record],
        marks: Sequence[Mark | None] | None,
        dot: Mark,
        wall: Callable[[], float],
    ) -> Kept:
        """Merge ``records``, which encode ``cells`` with the mark ``dot``; ``marks`` None: they are all ours.

        ``wall`` tells the Unix time in ms, for the journal.
        """
        kept = self._kept = Kept(dot)
        self._dot, self._wall = dot, wall
        best = {record[:2]: index for index, record in enumerate(records)}
        everything: Sequence[int] = range(len(records))
        if marks is None:
            winners = everything if len(best) == len(records) else _best(best, records)
            self._write_own(winners, cells, records)
        elif len(best) == len(records):
            self._write_marked(everything, cells, records, marks)
        else:
            # Of several cells for one field each meets the one before, so that none of them is lost unseen.
            for turn in _turns(records):
                self._write_marked(turn, cells, records, marks)
            _best(best, records)
        if len(best) < len(records):
            for index, record in enumerate(records):
                if (winner := best[record[:2]]) != index:
                    kept[index] = kept.get(winner, cells[winner])
                    if winner in kept.marks:
                        kept.marks[index] = kept.marks[winner]
                    else:
                        kept.marks.pop(index, None)
        return kept

    # -- our own ---------------------------------------------------------------

    def _write_own(self, winners: Sequence[int], cells: Sequence[Cell], records: list[Record]) -> None:
        for index in self._passed(self._sql, winners, (records[index] for index in winners)):
            self._settle(index, cells[index], records[index])

    def _passed(self, sql: str, places: Sequence[int], rows: Iterable[Record]) -> Sequence[int]:
        """Run ``sql`` with each row. Returns those of ``places``, one for each row, that changed nothing."""
        count, changed = self._db.total_changes, list[int]()
        note, before = changed.append, count()

        def feed() -> Iterator[Record]:
            # SQLite asks for a row when it is done with the one before, so the counts tell who won.
            for row in rows:
                note(count())
                yield row

        self._db.executemany(sql, feed())
        if (after := count()) - before == len(places):
            return ()
        changed.append(after)
        return [place for at, place in enumerate(places) if changed[at] == changed[at + 1]]

    def _settle(self, index: int, cell: Cell, record: Record) -> None:
        """Find what stands in the way of a cell of ours that changed nothing.

        Nothing may: a damaged record gives way, one of the same state and a lower value, and an older one
        that others have had a part in.
        """
        stored = self._records.record(*record[:2])
        if stored is not None and not beats(record, stored):
            self._stays(index, cell, stored)
            return
        if stored is not None and self._dot and stored[5]:
            # Who writes here has seen what stands, and the journal is at hand.
            known = self._writers.decode(stored[5])
            mark = follow(self._dot[0], joined(known.mark, known.seen) or known.seen)
            record = marked(record, self._writers.encode(mark))
            self._kept.marks[index] = mark
        self._db.execute(_REPLACE, record)

    def _stays(self, index: int, cell: Cell, stored: Record) -> None:
        self._kept[index] = Cell(cell.soul, cell.key, decode_value(stored[3]), decode_state(stored[2]))
        self._kept.marks[index] = self._writers.decode(stored[5]).mark

    # -- those of others -------------------------------------------------------

    def _write_marked(
        self,
        turn: Sequence[int],
        cells: Sequence[Cell],
        records: list[Record],
        marks: Sequence[Mark | None],
    ) -> None:
        """Merge some cells, each for another field; those without a mark are ours."""
        own = [index for index in turn if marks[index] is None]
        if own:
            self._write_own(own, cells, records)
        theirs: list[int] = []
        rows: list[Record] = []
        for index in turn:
            mark = marks[index]
            if mark is not None:
                theirs.append(index)
                rows.append(marked(records[index], self._writers.encode(mark)))
                self._kept.marks[index] = mark
        for place in self._passed(_IF_NEW, range(len(rows)), rows):
            index = theirs[place]
            self._judge(index, cells[index], rows[place], marks[index] or ())

    def _judge(self, index: int, cell: Cell, record: Record, mark: Mark) -> None:
        """Merge a cell with a mark into a field that has a value."""
        stored = self._records.record(*record[:2])
        if stored is None:
            self._db.execute(_REPLACE, record)  # it was damaged
            return
        known = self._writers.decode(stored[5])
        if record[2:4] == stored[2:4]:
            self._stays(index, cell, stored)
            # One edit that came in by two doors has two dots, and both are its own.
            both = joined(known.mark, mark) or mark
            if both != known.mark:
                self._remark(stored, both, known.seen)
                self._kept.marks[index] = both
            return
        clash = concurrent(mark, known.mark) and not covers(known.seen, mark[0])
        if beats(record, stored):
            seen = uncovered((*known.mark, *known.seen), mark)
            if seen:
                record = marked(record, self._writers.encode(mark, seen))
            self._db.execute(_REPLACE, record)
            if clash:
                self._note(stored, record)
            return
        self._stays(index, cell, stored)
        if clash:
            self._remark(stored, known.mark, uncovered((*mark, *known.seen), known.mark))
            self._note(record, stored)

    def _remark(self, stored: Record, mark: Mark, seen: Mark) -> None:
        self._db.execute(_REPLACE, marked(stored, self._writers.encode(mark, seen)))

    def _note(self, lost: Record, won: Record) -> None:
        (soul, key, lost_state, lost_value, _, lost_mark) = lost
        side = (won[2], won[3], won[5])
        self._journal.add(soul, key, (lost_state, lost_value, lost_mark), side, self._wall())


def _best(best: dict[tuple[bytes, bytes], int], records: list[Record]) -> list[int]:
    """The indices of the cells that win their fields within a batch; ``best`` becomes the map to them."""
    best.clear()
    for index, record in enumerate(records):
        known = best.get(record[:2])
        if known is None or beats(record, records[known]):
            best[record[:2]] = index
    return list(best.values())


def _turns(records: list[Record]) -> list[list[int]]:
    """A batch in parts, none of which has two cells for one field."""
    turns: list[list[int]] = []
    met: dict[tuple[bytes, bytes], int] = {}
    for index, record in enumerate(records):
        turn = met[record[:2]] = met.get(record[:2], -1) + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(index)
    return turns


def _over_plain(own: int) -> str:
    """SQL for: the mark of what stands is none, or one dot of our own, so that our plain mark follows it.

    All such marks stand together in the order of bytes, between those of writers with lower numbers and
    those of others. What another had a part in is looked at one by one.
    """
    prefix = own_prefix(own)
    end = prefix[:-1] + bytes([prefix[-1] + 1])
    # No mark begins with less than the prefix of writer 1, who is us as a rule.
    alone = f"mark < x'{end.hex()}'"
    return f"AND {alone}" if own == 1 else f"AND ({alone} AND mark >= x'{prefix.hex()}' OR mark = x'')"
