"""Marks and the conflict journal: who wrote what, what follows what, and which edits lost without notice."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from air.base.clock import ManualClock
from air.base.errors import Misuse, StoreError
from air.model import Cell, Lex, Link, Mark
from air.store.api import Kept
from air.store.schema import FORMAT
from air.store.sqlite import Sqlite, SqliteConfig
from air.store.writers import Writers

FAST = SqliteConfig(durable=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "air.db"


@pytest.fixture
def store(path: Path) -> Iterator[Sqlite]:
    store = Sqlite(path, FAST, writer="me", clock=ManualClock(wall=5_000))
    yield store
    store.close()


def mark(store: Sqlite, key: str = "k") -> Mark:
    return store.marks("s", [key])[key]


def cell(value: object, state: float, key: str = "k") -> Cell:
    return Cell("s", key, value, state)  # type: ignore[arg-type]


def numbers(store: Sqlite) -> list[int]:
    return [entry.id for entry in store.conflicts()]


# -- our own -------------------------------------------------------------------


def test_what_is_written_here_gets_our_dot_and_each_transaction_a_new_one(store: Sqlite) -> None:
    first = store.write([cell(1, 1), cell(1, 1, "l")])
    second = store.write([cell(2, 2), cell(1, 1, "m")])
    assert (first, second) == ({}, {})
    assert (first.dot, second.dot) == ((("me", 1),), (("me", 2),))
    assert first.marks == second.marks == {}
    assert store.marks("s", "klmn") == {"k": second.dot, "l": first.dot, "m": second.dot}


def test_a_cell_that_changes_nothing_is_reported_with_the_mark_that_stands(store: Sqlite) -> None:
    old = store.write([cell("new", 9)]).dot
    kept = store.write([cell("old", 1), cell("x", 1, "l")])
    assert kept == {0: cell("new", 9)}
    assert (kept.mark(0), kept.mark(1)) == (old, kept.dot)
    assert mark(store) == old


def test_our_write_follows_what_it_replaces(store: Sqlite) -> None:
    theirs: Mark = (("a", 7), ("b", 3))
    store.write([cell(1, 1)], marks=[theirs])
    kept = store.write([cell(2, 2), cell(2, 2, "l")])
    assert kept.marks == {0: (kept.dot[0], *theirs)}
    assert mark(store) == kept.mark(0)
    again = store.write([cell(3, 3)])
    assert mark(store) == (again.dot[0], *theirs) == again.mark(0)
    assert numbers(store) == []


def test_a_tie_that_we_win_follows_too(store: Sqlite) -> None:
    store.write([cell("a", 1)], marks=[(("a", 7),)])
    kept = store.write([cell("b", 1)])
    assert mark(store) == (*kept.dot, ("a", 7)) == kept.mark(0)


def test_an_own_write_that_comes_too_late_is_no_conflict(store: Sqlite) -> None:
    store.write([cell("theirs", 9)], marks=[(("a", 1),)])
    assert store.write([cell("ours", 5)]) == {0: cell("theirs", 9)}
    assert (mark(store), numbers(store)) == ((("a", 1),), [])


def test_without_a_name_our_writes_have_no_mark_and_others_keep_theirs(path: Path) -> None:
    store = Sqlite(path, FAST)
    store.write([cell(1, 1), cell(1, 1, "l")], marks=[(("a", 1),), (("a", 2),)])
    assert store.write([cell(2, 2)]).dot == ()
    assert store.marks("s", "kl") == {"k": (), "l": (("a", 2),)}
    store.close()


def test_a_store_without_marks_keeps_none(path: Path) -> None:
    store = Sqlite(path, SqliteConfig(durable=False, marks=False), writer="me")
    store.write([cell(1, 1)], marks=[(("a", 1),)])
    store.write([cell(1, 1, "l")])
    store.write([cell(2, 2)], marks=[(("b", 1),)])
    assert store.marks("s", "kl") == {"k": (), "l": ()}
    assert store.conflicts() == []
    store.close()


def test_sequences_are_never_used_twice_however_the_store_ends(path: Path) -> None:
    seen = 0
    for close in (True, False, False, True, False):
        store = Sqlite(path, FAST, writer="me")
        for _ in range(3):
            ((_, sequence),) = store.write([cell(1, seen + 1)]).dot
            assert sequence > seen
            seen = sequence
        if close:
            store.close()
        else:
            for name in ("air.db", "air.db-wal"):
                path.with_name(f"left-{name}").write_bytes(path.with_name(name).read_bytes())
            store.close()
            for name in ("air.db", "air.db-wal"):
                path.with_name(name).write_bytes(path.with_name(f"left-{name}").read_bytes())


def test_a_damaged_counter_goes_on_from_the_clock(path: Path) -> None:
    store = Sqlite(path, FAST, writer="me")
    store.write([cell(1, 1)])
    store.close()
    file = apsw.Connection(str(path))
    file.execute("UPDATE meta SET value = CAST('1' AS BLOB) WHERE name = 'air.sequence'")
    file.close()
    store = Sqlite(path, FAST, writer="me", clock=ManualClock(wall=1_700_000_000_000))
    assert store.write([cell(2, 2)]).dot == (("me", 1_700_000_000_000_001),)
    store.close()


def test_a_batch_that_fails_leaves_no_writer_and_no_conflict(store: Sqlite, path: Path) -> None:
    store.write([cell("one", 1)], marks=[(("a", 1),)])
    with pytest.raises(Misuse) as caught:
        store.write([cell("two", 2), cell("bad", 1, "x")], marks=[(("b", 1),), (("c", 0),)])
    assert caught.value.code == "store.bad-mark"
    assert store.conflicts() == []
    store.write([cell("two", 2), cell(1, 1, "l")], marks=[(("d", 1),), (("b", 2),)])
    assert [entry.won.mark for entry in store.conflicts()] == [(("d", 1),)]
    store.close()
    again = Sqlite(path, FAST)
    assert again.marks("s", "kl") == {"k": (("d", 1),), "l": (("b", 2),)}
    again.close()


@pytest.mark.parametrize("bad", [(("a", 2**63),), (("a", -1),), (("a", 1.5),), (("", 1),), (("x" * 300, 1),)])
def test_what_is_no_mark_is_refused_and_nothing_is_kept(store: Sqlite, bad: Mark) -> None:
    with pytest.raises(Misuse) as caught:
        store.write([cell(1, 1)], marks=[bad])
    assert caught.value.code == "store.bad-mark"
    with pytest.raises(Misuse):
        store.write([cell(1, 1)], marks=[])
    assert store.souls() == []


# -- those of others -----------------------------------------------------------


def test_of_concurrent_edits_the_loser_is_kept_in_the_journal_with_both_writers(store: Sqlite) -> None:
    ours = store.write([cell("ours", 10)]).dot
    kept = store.write([cell("theirs", 20)], marks=[(("a", 4),)])
    assert kept == {}
    assert kept.mark(0) == mark(store) == (("a", 4),)
    (entry,) = store.conflicts()
    assert (entry.id, entry.soul, entry.key, entry.at) == (1, "s", "k", 5_000)
    assert entry.lost == ("ours", 10, ours)
    assert entry.won == ("theirs", 20, (("a", 4),))
    assert store.conflict(1) == entry


def test_a_concurrent_edit_that_loses_when_it_arrives_is_kept_too(store: Sqlite) -> None:
    ours = store.write([cell("ours", 30)]).dot
    kept = store.write([cell("theirs", 20)], marks=[(("a", 4),)])
    assert kept == {0: cell("ours", 30)}
    assert kept.mark(0) == mark(store) == ours
    (entry,) = store.conflicts()
    assert entry.lost == ("theirs", 20, (("a", 4),))
    assert entry.won == ("ours", 30, ours)


@pytest.mark.parametrize("states", [(10, 20), (20, 10)])
def test_the_same_conflict_is_noted_once_however_often_either_arrives(
    store: Sqlite, states: tuple[int, int]
) -> None:
    one, other = cell("a", states[0]), cell("b", states[1])
    for _ in range(3):
        store.write([one], marks=[(("a", 1),)])
        store.write([other], marks=[(("b", 1),)])
    assert numbers(store) == [1]


def test_an_edit_that_knew_the_other_is_no_conflict_and_neither_is_one_that_is_known(store: Sqlite) -> None:
    store.write([cell("first", 1)], marks=[(("a", 1),)])
    store.write([cell("second", 2)], marks=[(("b", 1), ("a", 1))])
    store.write([cell("first", 1)], marks=[(("a", 1),)])
    store.write([cell("third", 3)], marks=[(("c", 1), ("b", 1))])
    for value, state, dots in (("first", 1, (("a", 1),)), ("second", 2, (("b", 1), ("a", 1)))):
        assert store.write([cell(value, state)], marks=[dots]) == {0: cell("third", 3)}
    assert numbers(store) == []


def test_both_sides_of_a_split_note_the_conflict_though_one_has_seen_it_first(tmp_path: Path) -> None:
    a, b, c = (Sqlite(tmp_path / f"{name}.db", FAST, writer=name) for name in "abc")
    a.write([cell("of a", 10)])
    b.write([cell("of b", 20)])
    # a learns of the conflict first; what b and c hear of it afterwards hides nothing from them.
    a.write([cell("of b", 20)], marks=[mark(b)])
    b.write([cell("of a", 10)], marks=[(("a", 1),)])
    for source in (a, b):
        c.write([cell("of b", 20)], marks=[mark(source)])
    c.write([cell("of a", 10)], marks=[(("a", 1),)])
    assert [(entry.lost.value, entry.won.value) for entry in a.conflicts()] == [("of a", "of b")]
    assert [(entry.lost.value, entry.won.value) for entry in b.conflicts()] == [("of a", "of b")]
    assert [(entry.lost.value, entry.won.value) for entry in c.conflicts()] == [("of a", "of b")]
    # Who now writes has seen both, so nothing about it is in conflict any more.
    settled = c.write([cell("settled", 30)]).mark(0)
    for store in (a, b):
        assert store.write([cell("settled", 30)], marks=[settled]) == {}
        assert numbers(store) == [1]
    for store in (a, b, c):
        store.close()


def test_equal_values_are_no_conflict_and_each_of_their_writers_is_known(store: Sqlite) -> None:
    ours = store.write([cell("same", 10)]).dot
    kept = store.write([cell("same", 10)], marks=[(("a", 1),)])
    assert kept == {0: cell("same", 10)}
    assert mark(store) == kept.mark(0) == (*ours, ("a", 1))
    store.write([cell("next", 20)], marks=[(("a", 2), ("a", 1), *ours)])
    assert numbers(store) == []


def test_an_unknown_mark_is_concurrent_to_nothing(store: Sqlite) -> None:
    store.write([cell(1, 1)], marks=[(("a", 1),)])
    assert store.write([cell(2, 2)], marks=[()]).mark(0) == ()
    assert mark(store) == ()
    store.write([cell(3, 3)], marks=[(("b", 1),)])
    store.write([cell(0, 0)], marks=[()])
    assert (mark(store), numbers(store)) == ((("b", 1),), [])


def test_one_batch_may_hold_both_sides_of_a_conflict_and_our_own(store: Sqlite) -> None:
    batch = [cell("a", 1), cell("b", 3), cell("ours", 2), cell("x", 1, "l"), cell("y", 1, "m")]
    kept = store.write(batch, marks=[(("a", 1),), (("b", 1),), None, None, (("a", 2),)])
    assert kept == {0: cell("b", 3), 2: cell("b", 3)}
    assert [kept.mark(index) for index in range(5)] == [(("b", 1),)] * 3 + [kept.dot, (("a", 2),)]
    assert store.marks("s", "klm") == {"k": (("b", 1),), "l": kept.dot, "m": (("a", 2),)}
    assert [entry.lost.value for entry in store.conflicts()] == ["a"]


def test_a_damaged_cell_gives_way_to_a_marked_one_and_its_mark_is_not_believed(path: Path) -> None:
    store = Sqlite(path, FAST, writer="me")
    store.write([cell(1, 5), cell(1, 5, "l")], marks=[(("a", 9),)] * 2)
    store.close()
    file = apsw.Connection(str(path))
    file.execute("UPDATE cell SET mark = x'0405'")
    file.close()
    store = Sqlite(path, FAST, writer="me")
    assert store.marks("s", "kl") == {}
    assert store.read("s", Lex(exact="k")).fields == {}
    assert store.write([cell(2, 1)], marks=[(("b", 1),)]) == {}
    ours = store.write([cell(2, 1, "l")])
    assert store.marks("s", "kl") == {"k": (("b", 1),), "l": ours.dot}
    assert numbers(store) == []
    store.close()


def test_writers_beyond_the_ceiling_are_unknown_and_counted(path: Path) -> None:
    store = Sqlite(path, SqliteConfig(durable=False, writers_max=3), writer="me")
    store.write([cell(1, 1)], marks=[(("a", 1), ("b", 1), ("c", 1), ("d", 1))])
    assert mark(store) == (("a", 1), ("b", 1), ("c", 1))
    store.write([cell(1, 1, "l")], marks=[(("d", 1), ("a", 1))])
    assert mark(store, "l") == ()
    assert store.writers.dropped == 2
    ours = store.write([cell(1, 1, "m")])
    assert mark(store, "m") == ours.dot == (("me", 1),)
    store.close()


# -- the journal ---------------------------------------------------------------


def fight(store: Sqlite, soul: str, key: str, size: int = 1) -> None:
    for name in ("a", "b"):
        store.write([Cell(soul, key, name * size, ord(name))], marks=[((name, 1),)])


def test_the_journal_is_read_in_pieces_by_node_and_by_field(store: Sqlite) -> None:
    for soul, key in (("x", "1"), ("y", "1"), ("x", "2"), ("x", "3")):
        fight(store, soul, key)
    assert numbers(store) == [1, 2, 3, 4]
    assert [entry.id for entry in store.conflicts(limit=2)] == [1, 2]
    assert [entry.id for entry in store.conflicts(2, limit=1)] == [3]
    assert [entry.id for entry in store.conflicts(soul="x")] == [1, 3, 4]
    assert [entry.id for entry in store.conflicts(soul="x", key="3")] == [4]
    assert store.conflict(9) is None


def test_the_oldest_entries_make_room_by_count_and_by_size(path: Path) -> None:
    store = Sqlite(path, SqliteConfig(durable=False, conflicts_max=10, conflict_bytes_max=50_000))
    for number in range(25):
        fight(store, "s", f"{number}")
    kept = numbers(store)
    assert kept == list(range(26 - len(kept), 26))
    assert 8 <= len(kept) == store.journal.count <= 10
    assert store.journal.dropped == 25 - len(kept)
    for number in range(4):
        fight(store, "long", f"{number}", 11_000)
    assert numbers(store) == [28, 29]
    store.close()
    store = Sqlite(path, SqliteConfig(durable=False, conflicts_max=10, conflict_bytes_max=50_000))
    fight(store, "huge", "k", 40_000)
    assert numbers(store) == [30]
    fight(store, "s", "next")
    assert numbers(store) == [31]
    store.close()


def test_damage_in_the_journal_and_among_writers_is_left_out_counted_and_told(path: Path) -> None:
    store = Sqlite(path, FAST, writer="me")
    fight(store, "s", "1")
    fight(store, "s", "2")
    assert store.verify().sound
    store.close()
    file = apsw.Connection(str(path))
    file.execute("UPDATE conflict SET soul = CAST('t' AS BLOB) WHERE id = 1")
    file.execute("UPDATE writer SET peer = CAST('c' AS BLOB) WHERE peer = CAST('a' AS BLOB)")
    file.close()
    store = Sqlite(path, FAST, writer="me")
    (entry,) = store.conflicts()
    assert (entry.id, entry.lost.value, entry.lost.mark, entry.won.mark) == (2, "a", (), (("b", 1),))
    assert (store.conflict(1), store.journal.damaged) == (None, 2)
    faults = store.verify().faults
    assert any("writer" in fault for fault in faults)
    assert any("journal" in fault for fault in faults)
    assert store.marks("s", "12") == {"1": (("b", 1),), "2": (("b", 1),)}
    store.close()


# -- the file ------------------------------------------------------------------

OLD = """
CREATE TABLE cell(
    soul BLOB NOT NULL, key BLOB NOT NULL, state REAL NOT NULL, value BLOB NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY(soul, key)
) WITHOUT ROWID;
CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA application_id = 0x41495201;
PRAGMA user_version = 1;
"""


def test_a_file_of_format_1_is_upgraded_when_it_is_opened(path: Path) -> None:
    from zlib import crc32

    file = apsw.Connection(str(path))
    file.execute(OLD)
    values = {"null": None, "true": True, '"text é"': "text é", "1.5": 1.5, '{"#":"n"}': Link("n")}
    for index, text in enumerate(values):
        soul, key, value = b"s", f"k{index}".encode(), text.encode()
        head = struct.pack("<dII", float(index), len(soul), len(key))
        crc = crc32(value, crc32(head, crc32(key, crc32(soul))))
        file.execute("INSERT INTO cell VALUES(?, ?, ?, ?, ?)", (soul, key, float(index), value, crc))
    file.execute("INSERT INTO meta VALUES('clock', CAST('17' AS BLOB), ?)", (crc32(b"17"),))
    file.close()
    for _ in range(2):
        store = Sqlite(path, FAST, writer="me")
        fields = store.read("s").fields
        assert list(fields.values()) == [(value, index) for index, value in enumerate(values.values())]
        assert store.get_meta("clock") == b"17"
        assert set(store.marks("s", fields).values()) == {()}
        found = store.verify()
        assert (found.cells, found.sound) == (5, True)
        store.close()
    store = Sqlite(path, FAST, writer="me")
    kept = store.write([cell("new", 9, "k0"), cell("theirs", 9, "k1")], marks=[None, (("a", 1),)])
    assert store.marks("s", ["k0", "k1", "k2"]) == {"k0": kept.dot, "k1": (("a", 1),), "k2": ()}
    assert store.conflicts() == []
    store.close()
    file = apsw.Connection(str(path))
    assert file.pragma("user_version") == FORMAT
    file.close()


def test_a_flipped_bit_in_marks_writers_or_the_journal_never_shows_as_something_else(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance, path = random.Random(seed), tmp_path / "air.db"
    store = Sqlite(path, FAST, writer="me")
    for number in range(60):
        store.write([Cell("own", f"{number}", number, 1)])
        store.write([Cell("theirs", f"{number}", number, 1)], marks=[(("peer", number + 1), ("other", 3))])
        fight(store, "fought", f"{number}")
    known = {soul: store.marks(soul, map(str, range(60))) for soul in ("own", "theirs", "fought")}
    entries = {entry.id: entry for entry in store.conflicts()}
    store.close()
    sound, missing = path.read_bytes(), 0
    copy = tmp_path / "copy.db"
    for _ in range(80):
        flipped = bytearray(sound)
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
        copy.write_bytes(flipped)
        try:
            store = Sqlite(copy, FAST, writer="me")
        except StoreError:
            continue
        lost_names = store.writers.load(store.records.execute)
        try:
            for soul, marks in known.items():
                for key, found in store.marks(soul, map(str, range(60))).items():
                    assert found == marks[key] or (lost_names and set(found) < set(marks[key]))
            for entry in store.conflicts():
                expected = entries[entry.id]
                assert (entry.lost[:2], entry.won[:2]) == (expected.lost[:2], expected.won[:2])
                missing += 1
        except StoreError:
            pass
        finally:
            store.close()
    assert missing


# -- against a model -----------------------------------------------------------

PEERS = "abc"


class Peer:
    """What a peer with perfect memory knows: every edit of one field it has met, with all it followed."""

    def __init__(self) -> None:
        self.history: dict[tuple[str, int], tuple[tuple[int, str], frozenset[tuple[str, int]]]] = {}
        self.clashes: set[tuple[tuple[str, int], tuple[str, int]]] = set()
        self.top: tuple[str, int] | None = None

    def all_that_came_before(self) -> frozenset[tuple[str, int]]:
        """What it has met, and what those had followed although it was never told here."""
        return frozenset(self.history).union(*(followed for _, followed in self.history.values()))

    def meet(
        self, dot: tuple[str, int], rank: tuple[int, str], followed: frozenset[tuple[str, int]], own: bool
    ) -> None:
        if dot in self.history:
            return
        if dot in self.all_that_came_before():
            # Something that followed it is known: it was overwritten by somebody who knew it.
            self.history[dot] = (rank, followed)
            return
        top = self.top
        self.history[dot] = (rank, followed)
        if top is None:
            self.top = dot
            return
        winner, loser = (dot, top) if rank > self.history[top][0] else (top, dot)
        if not own and dot not in self.history[top][1] and top not in followed:
            self.clashes.add((loser, winner))
        self.top = winner


@settings(max_examples=80, deadline=None, derandomize=True)
@example([(0, 0, 1), (1, 0, 1), (0, 0, 1), (2, 0, 1), (2, 2, 1), (1, 2, 1)])
@example([(0, 0, 1), (2, 0, 1), (0, 0, 1), (1, 1, 1), (1, 0, 1), (1, 2, 1)])
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(1, 6)), max_size=24))
def test_the_journal_holds_what_a_peer_with_perfect_memory_would_call_concurrent(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("peers")
    stores = [Sqlite(folder / f"{name}.db", FAST, writer=name) for name in PEERS]
    peers = [Peer() for _ in PEERS]
    edits: dict[tuple[str, int], str] = {}
    for count, (who, source, state) in enumerate(steps):
        store, peer = stores[who], peers[who]
        if source in (who, 3):
            value = f"{count}"
            kept: Kept = store.write([cell(value, state)])
            rank = (state, value)
            if not kept:
                edits[kept.dot[0]] = value
                peer.meet(kept.dot[0], rank, peer.all_that_came_before(), own=True)
            continue
        # Tell what the other holds now.
        fields = stores[source].read("s").fields
        top = peers[source].top
        if top is None:
            continue
        told, since = fields["k"]
        assert told == edits[top]
        rank, followed = peers[source].history[top]
        store.write([cell(told, since)], marks=[mark(stores[source])])
        peer.meet(top, rank, followed, own=False)
    for store, peer in zip(stores, peers, strict=True):
        noted = [(entry.lost.mark[0], entry.won.mark[0]) for entry in store.conflicts()]
        assert len(noted) == len(set(noted))
        assert set(noted) == peer.clashes
        store.close()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_mark_is_decoded_as_it_was_coded(data: st.DataObject) -> None:
    file = apsw.Connection(":memory:")
    file.execute("CREATE TABLE writer(id INTEGER PRIMARY KEY, peer BLOB NOT NULL, crc INTEGER NOT NULL)")
    writers = Writers(file.execute, 100)
    names = st.sampled_from([f"peer {number}" for number in range(40)])
    dots = st.lists(
        st.tuples(names, st.integers(1, 2**63 - 1)), max_size=8, unique_by=lambda dot: dot[0]
    ).map(tuple)
    for _ in range(data.draw(st.integers(1, 5))):
        known, seen = data.draw(dots), data.draw(dots)
        coded = writers.encode(known, seen)
        assert writers.decode(coded) == (known, seen)
        assert Writers(file.execute, 100).decode(coded) == (known, seen)
    file.close()
