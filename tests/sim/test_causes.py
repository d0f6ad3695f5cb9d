"""The judge of marks and journals bites: for each rule, something that breaks it."""

from __future__ import annotations

import pytest

from air.model import Cell, Mark
from air.sim.causes import Causes
from air.sim.marked import MarkedDisk
from air.sim.oracle import Oracle
from air.sim.schedule import Scheduler

A, B, C = Cell("s", "k", "a", 5), Cell("s", "k", "b", 7), Cell("s", "k", "c", 9)


class Pair:
    """Two disks that hear of each other's edits when they are told to."""

    def __init__(self) -> None:
        self.oracle = Oracle(Scheduler())
        self.oracle.acked = [{}, {}]
        self.causes = Causes(self.oracle, 2, 2, trusted=True)
        self.disks = [
            MarkedDisk(index, self.oracle, f"p{index}", lambda: 0.0, self.causes.wrote, self.causes.met)
            for index in range(2)
        ]

    def write(self, disk: int, cell: Cell) -> None:
        self.oracle.wrote(disk, [cell])
        self.disks[disk].write([cell])

    def bring(self, disk: int, cell: Cell, mark: Mark | None = None) -> None:
        """Bring what the other disk holds."""
        marks = [mark if mark is not None else self.disks[1 - disk].mark(cell.soul, cell.key)]
        self.disks[disk].write([cell], marks=marks)
        self.causes.took(disk, [cell], marks)

    def rules(self) -> list[str]:
        for index, disk in enumerate(self.disks):
            self.causes.judge(index, disk)
        return [violated.rule for violated in self.oracle.violations]


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_edits_that_follow_each_other_are_no_conflict(pair: Pair) -> None:
    pair.write(0, A)
    pair.bring(1, A)
    pair.write(1, B)
    pair.bring(0, B)
    assert pair.rules() == []
    assert pair.causes.pairs == 0


def test_edits_that_did_not_know_each_other_are_in_both_journals_once(pair: Pair) -> None:
    pair.write(0, A)
    pair.write(1, B)
    old = pair.disks[0].mark("s", "k")
    pair.bring(0, B)
    pair.bring(1, A, old)
    pair.bring(1, A, old)
    assert pair.rules() == []
    assert pair.causes.pairs == 2


def test_a_conflict_that_no_journal_tells_of_is_seen(pair: Pair) -> None:
    pair.write(0, A)
    pair.write(1, B)
    pair.bring(0, B)
    pair.disks[0]._db.execute("DELETE FROM conflict")
    assert pair.rules() == ["journal"]


def test_an_entry_for_edits_that_knew_each_other_is_seen(pair: Pair) -> None:
    pair.write(0, A)
    pair.bring(1, A)
    pair.write(1, B)
    records = pair.disks[1].records
    record = records.record(b"s", b"k")
    assert record is not None
    old = pair.disks[1].writers.encode((("p0", 1),))
    pair.disks[1].journal.add(b"s", b"k", (5.0, b'"a"', old), (record[2], record[3], record[5]), 0.0)
    assert pair.rules() == ["journal"]


def test_a_value_that_comes_with_the_mark_of_another_is_seen(pair: Pair) -> None:
    pair.write(0, A)
    pair.write(0, C)
    pair.bring(1, A, (("p0", 2),))
    assert "mark" in pair.rules()


def test_a_mark_that_forgets_what_was_seen_is_seen(pair: Pair) -> None:
    pair.causes.wrote(0, A, (("p0", 1),), True)
    pair.causes.met(1, A, (("p0", 1),))
    pair.causes.wrote(1, B, (("p1", 1),), True)
    assert [violated.rule for violated in pair.oracle.violations] == ["mark"]


def test_a_mark_that_makes_up_what_was_seen_is_seen(pair: Pair) -> None:
    pair.causes.wrote(1, B, (("p1", 1), ("p0", 1)), True)
    assert [violated.rule for violated in pair.oracle.violations] == ["mark"]
