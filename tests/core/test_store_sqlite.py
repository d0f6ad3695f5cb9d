"""The durable store: its merge against a plain model, its pages, and what it refuses."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from air.base.errors import Corrupt, Misuse, StoreError
from air.model import ALL, Cell, Lex, Link, SoulRange, Value, unit_bytes, value_bytes
from air.model.ham import merge
from air.store.api import Page
from air.store.memory import select
from air.store.record import ScanCursor
from air.store.sqlite import FORMAT, Sqlite, SqliteConfig

FAST = SqliteConfig(durable=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "air.db"


@pytest.fixture
def store(path: Path) -> Iterator[Sqlite]:
    store = Sqlite(path, FAST)
    yield store
    store.close()


def joined(text: str) -> str:
    """Text as JavaScript keeps it: surrogates that stand together are one character."""
    return text.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")


# Few names, so that cells meet; and all the kinds of characters that order or coding could get wrong.
letters = st.sampled_from(
    ["a", "b", "Z", "0", "/", "é", "漢", "ﬁ", "😀", "\ud83d", "\ude00", "\x00", '"', "\\", "\uffff"]
)
names = st.text(letters, min_size=1, max_size=3).map(joined)
numbers = st.one_of(
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False).map(
        lambda x: int(x) if x.is_integer() and abs(x) <= 2**53 else x
    ),
)
values: st.SearchStrategy[Value] = st.one_of(
    st.none(), st.booleans(), numbers, st.text(letters, max_size=6).map(joined), names.map(Link)
)
states = st.sampled_from([0, -5, 1, 1.5, 1795434300160, 1795434300160.001, 5e-324, 1.7e308])
cells = st.lists(st.builds(Cell, names, names, values, states), max_size=12)


def everything(store: Sqlite) -> dict[tuple[str, str], tuple[bytes, float]]:
    found: dict[tuple[str, str], tuple[bytes, float]] = {}
    for soul in store.souls():
        for key, (value, state) in whole(store, soul).items():
            found[soul, key] = (value_bytes(value), state)
    return found


def expected(*batches: list[Cell]) -> dict[tuple[str, str], tuple[bytes, float]]:
    return {name: (value_bytes(cell.value), cell.state) for name, cell in merge(*batches).items()}


def whole(store: Sqlite, soul: str, lex: Lex = ALL, fields_max: int = 1024, bytes_max: int = 1 << 20) -> dict:
    fields, after = {}, None
    while True:
        page = store.read(soul, lex, after=after, fields_max=fields_max, bytes_max=bytes_max)
        assert len(page.fields) <= fields_max or lex.budget is not None
        assert not fields.keys() & page.fields.keys()
        fields.update(page.fields)
        after = page.next
        if after is None:
            return fields


class Fresh:
    """A new store in a folder of its own, for one example of a property."""

    def __enter__(self) -> Sqlite:
        self._folder = tempfile.TemporaryDirectory()
        self._store = Sqlite(Path(self._folder.name) / "air.db", FAST)
        return self._store

    def __exit__(self, *_: object) -> None:
        self._store.close()
        self._folder.cleanup()


# -- merging -------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(cells, cells, cells)
def test_what_is_stored_is_the_merge_in_any_order_and_however_often(
    a: list[Cell], b: list[Cell], c: list[Cell]
) -> None:
    with Fresh() as one, Fresh() as other:
        for batch in (a, b, c):
            one.write(batch)
        for batch in (c, a + b, c, a):
            other.write(batch)
        assert everything(one) == everything(other) == expected(a, b, c)


@settings(max_examples=60, deadline=None)
@given(cells, cells)
def test_a_write_tells_what_is_kept_instead_of_each_cell_that_changed_nothing(
    a: list[Cell], b: list[Cell]
) -> None:
    with Fresh() as store:
        store.write(a)
        before, kept = everything(store), store.write(b)
        after = everything(store)
        winners = set()
        for index, cell in enumerate(b):
            name, wanted = (cell.soul, cell.key), (value_bytes(cell.value), cell.state)
            if index in kept:
                held = kept[index]
                assert (held.soul, held.key) == name
                assert (value_bytes(held.value), held.state) == after[name]
            else:
                assert after[name] == wanted != before.get(name)
                winners.add(name)
        changed = {name for name in after if after[name] != before.get(name)}
        assert winners == changed
        assert len(b) - len(kept) == len(changed)


@settings(max_examples=100, deadline=None)
@given(values, states)
def test_a_value_and_its_state_come_back_as_they_were(value: Value, state: float) -> None:
    with Fresh() as store:
        store.write([Cell("s", "k", value, state)])
        ((known, since),) = store.read("s").fields.values()
        assert (type(known), known) == (type(value), value)
        assert (type(since), since) == (type(state), state)


def test_numbers_are_stored_in_their_one_spelling(store: Sqlite) -> None:
    store.write([Cell("s", "a", 2.0, 5.0), Cell("s", "b", -0.0, -0.0), Cell("s", "c", 1e21, 1.5)])
    fields = store.read("s").fields
    assert [(type(v), v, type(s), s) for v, s in fields.values()] == [
        (int, 2, int, 5),
        (int, 0, int, 0),
        (float, 1e21, float, 1.5),
    ]


@pytest.mark.parametrize("text", ["plain text ", 'quote " and \\ ', "漢字", "😀", "é\ud800"])
def test_a_text_of_five_megabytes_is_kept(store: Sqlite, path: Path, text: str) -> None:
    long = text * (5_000_000 // len(text.encode("utf-8", "surrogatepass")))
    assert store.write([Cell("s", "long", long, 1)]) == {}
    assert store.write([Cell("s", "long", long, 1)]) == {0: Cell("s", "long", long, 1)}
    store.close()
    again = Sqlite(path, FAST)
    assert again.read("s").fields["long"][0] == long
    again.close()


@pytest.mark.parametrize(
    ("lower", "greater"),
    [("😀", "ﬁ"), ("ﬁ", "ﬁa"), ("a b", "a"), (10, 9), (True, Link("a")), (False, None), ("\ud800", "漢")],
)
def test_a_tie_goes_to_the_text_that_javascript_calls_greater(
    store: Sqlite, lower: Value, greater: Value
) -> None:
    low, high = Cell("s", "k", lower, 1), Cell("s", "k", greater, 1)
    assert store.write([low]) == {}
    assert store.write([high]) == {}
    assert store.write([low]) == {0: high}
    assert store.write([low._replace(key="both"), high._replace(key="both")]) == {
        0: high._replace(key="both")
    }
    assert [value for value, _ in store.read("s").fields.values()] == [greater, greater]


def test_the_same_batch_again_changes_nothing_and_says_so(store: Sqlite) -> None:
    batch = [Cell("s", f"k{i}", i, 1) for i in range(50)]
    assert store.write(batch) == {}
    assert store.write(batch) == dict(enumerate(batch))


def test_of_two_cells_for_one_field_in_a_batch_the_loser_is_reported_with_the_winner(store: Sqlite) -> None:
    old, new = Cell("s", "k", "old", 1), Cell("s", "k", "new", 2)
    assert store.write([old, new, old]) == {0: new, 2: new}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 10**400, "5", None])
def test_a_state_that_is_no_double_is_refused_and_nothing_is_kept(store: Sqlite, bad: Any) -> None:
    with pytest.raises(Misuse) as caught:
        store.write([Cell("s", "good", 1, 1), Cell("s", "bad", 1, bad)])
    assert caught.value.code == "store.bad-cell"
    assert store.souls() == []


@pytest.mark.parametrize("bad", [float("nan"), float("-inf"), [], {"#": "s"}, b"bytes", 10**400])
def test_what_is_no_value_is_refused_and_nothing_is_kept(store: Sqlite, bad: Any) -> None:
    with pytest.raises(Misuse) as caught:
        store.write([Cell("s", "good", 1, 1), Cell("s", "bad", bad, 1)])
    assert caught.value.code == "store.bad-cell"
    assert store.souls() == []


# -- reading -------------------------------------------------------------------

lexes = st.builds(
    Lex,
    prefix=st.one_of(st.just(""), names),
    start=st.none() | names,
    end=st.none() | names,
    reverse=st.booleans(),
    budget=st.none() | st.integers(1, 30),
)
nodes = st.dictionaries(names, st.tuples(values, states), max_size=12)


@settings(max_examples=150, deadline=None)
@given(nodes, lexes, st.integers(1, 4))
def test_pages_hold_what_a_node_in_memory_would_give(fields: dict, lex: Lex, fields_max: int) -> None:
    with Fresh() as store:
        store.write([Cell("s", key, value, state) for key, (value, state) in fields.items()])
        store.write([Cell(soul, "x", 1, 1) for soul in ("r", "s\x00", "s0")])
        found = whole(store, "s", lex, fields_max)
        wanted: dict = {}
        page = select(fields, lex)
        wanted.update(page.fields)
        assert list(found.items()) == list(wanted.items())


def test_a_page_ends_after_so_many_fields_or_bytes_but_holds_one(store: Sqlite) -> None:
    store.write([Cell("s", f"k{i}", "x" * 100, 1) for i in range(9)])
    assert len(store.read("s", fields_max=4).fields) == 4
    assert len(store.read("s", bytes_max=250).fields) == 3
    assert store.read("s", bytes_max=1) == Page({"k0": ("x" * 100, 1)}, "k0")
    assert store.read("s", after="k7") == Page({"k8": ("x" * 100, 1)}, None)
    assert list(store.read("s", Lex(reverse=True), after="k2").fields) == ["k1", "k0"]


def test_a_cursor_outside_the_range_changes_nothing(store: Sqlite) -> None:
    store.write([Cell("s", key, 1, 1) for key in "abcdef"])
    assert list(store.read("s", Lex(start="c", end="d"), after="a").fields) == ["c", "d"]
    assert list(store.read("s", Lex(start="c", end="d", reverse=True), after="f").fields) == ["d", "c"]


def test_a_large_node_is_read_in_pages_as_fast_at_its_end_as_at_its_start(store: Sqlite) -> None:
    count, batch = 200_000, 10_000
    for first in range(0, count, batch):
        store.write(
            [Cell("big", f"{i:08}", f"message {i}", 1795434300160 + i) for i in range(first, first + batch)]
        )
    assert len(whole(store, "big")) == count
    for lex in (ALL, Lex(reverse=True), Lex(prefix="00")):
        for place in (0, count // 2, count - 2000):
            times = []
            for _ in range(5):
                start = time.perf_counter()
                page = store.read("big", lex, after=f"{place:08}")
                times.append(time.perf_counter() - start)
            assert len(page.fields) == (0 if lex.reverse and not place else 1024)
            assert min(times) < 0.020


@settings(max_examples=60, deadline=None)
@given(cells, st.one_of(st.just(""), names), st.booleans(), st.integers(1, 40), st.integers(1, 3))
def test_a_scan_gives_all_nodes_with_a_prefix_until_its_budget(
    batch: list[Cell], prefix: str, reverse: bool, budget: int, fields_max: int
) -> None:
    with Fresh() as store:
        store.write(batch)
        low = unit_bytes(prefix)
        order = sorted(
            (cell for cell in merge(batch).values() if unit_bytes(cell.soul).startswith(low)),
            key=lambda cell: (unit_bytes(cell.soul), unit_bytes(cell.key)),
            reverse=reverse,
        )
        wanted, spent = [], 0
        for cell in order:
            if spent >= budget:
                break
            wanted.append((cell.soul, cell.key, value_bytes(cell.value)))
            is_text = isinstance(cell.value, str) and cell.value
            spent += len(cell.value.encode("utf-16-be", "surrogatepass")) // 2 if is_text else 9
        found: list[Cell] = []
        cursor: ScanCursor | None = None
        while True:
            page = store.scan(SoulRange(prefix, budget, reverse), after=cursor, fields_max=fields_max)
            found += page.cells
            cursor = page.next
            if cursor is None:
                break
        assert [(cell.soul, cell.key, value_bytes(cell.value)) for cell in found] == wanted


@settings(max_examples=60, deadline=None)
@given(cells, st.one_of(st.just(""), names), st.one_of(st.just(""), names), st.integers(1, 5))
def test_names_of_nodes_come_in_order_and_in_pieces(
    batch: list[Cell], prefix: str, after: str, limit: int
) -> None:
    with Fresh() as store:
        store.write(batch)
        wanted = sorted(
            {
                s
                for s, _ in merge(batch)
                if unit_bytes(s) > unit_bytes(after) and unit_bytes(s).startswith(unit_bytes(prefix))
            },
            key=unit_bytes,
        )
        found: list[str] = []
        while piece := store.souls(found[-1] if found else after, limit, prefix=prefix):
            assert len(piece) <= limit
            found += piece
        assert found == wanted


# -- damage --------------------------------------------------------------------


def damage(path: Path, change: str) -> None:
    with_file = apsw.Connection(str(path))
    with_file.execute(f"UPDATE cell SET {change} WHERE key = CAST('k' AS BLOB)")
    with_file.close()


@pytest.mark.parametrize(
    "change",
    [
        "value = CAST('9' AS BLOB)",
        "state = 7",
        "crc = crc + 1",
        "value = 'text'",
        "state = 'x'",
        "key = CAST('K' AS BLOB)",
    ],
)
def test_a_damaged_record_is_left_out_and_counted_and_replaced_by_any_write(path: Path, change: str) -> None:
    store = Sqlite(path, FAST)
    store.write([Cell("s", "k", 1, 5), Cell("s", "m", 2, 5)])
    store.close()
    damage(path, change)
    store = Sqlite(path, FAST)
    assert store.read("s").fields == {"m": (2, 5)}
    assert store.read("s", Lex(exact="k")).fields == {}
    assert store.damaged >= 1
    assert [soul for soul, _ in store.damaged_names] == ["s"]
    assert store.souls() == ["s"]
    assert [cell.key for cell in store.scan(SoulRange("", 1000)).cells] == ["m"]
    found = store.verify()
    assert (found.cells, found.damaged, found.names) == (1, 1, list(store.damaged_names))
    older = Cell("s", "k", "again", 1)
    assert store.write([older]) == {}
    assert store.read("s", Lex(exact="k")).fields == {"k": ("again", 1)}
    store.close()


def test_a_damaged_record_that_claims_to_be_newest_does_not_stand_in_the_way(path: Path) -> None:
    store = Sqlite(path, FAST)
    store.write([Cell("s", "k", 1, 5)])
    store.close()
    damage(path, "state = 1e300")
    store = Sqlite(path, FAST)
    assert store.write([Cell("s", "k", "a", 2), Cell("s", "k", "b", 1)]) == {1: Cell("s", "k", "a", 2)}
    assert store.read("s").fields == {"k": ("a", 2)}
    store.close()


def test_a_node_of_which_all_is_damaged_has_no_name(path: Path) -> None:
    store = Sqlite(path, FAST)
    store.write([Cell("s", "k", 1, 5), Cell("t", "m", 1, 5)])
    store.close()
    damage(path, "crc = 0")
    store = Sqlite(path, FAST)
    assert store.souls() == ["t"]
    assert store.read("s") == Page({}, None)
    store.close()


# -- the file ------------------------------------------------------------------


def code_of_opening(path: Path, config: SqliteConfig = FAST) -> tuple[str, str]:
    with pytest.raises(StoreError) as caught:
        Sqlite(path, config)
    return caught.value.code, caught.value.message


def test_entries_are_set_with_a_batch_and_found_again(store: Sqlite, path: Path) -> None:
    assert store.get_meta("clock") is None
    store.write([Cell("s", "k", 1, 1)], meta={"clock": b"17"})
    store.set_meta("other", b"\x00\xff")
    store.close()
    again = Sqlite(path, FAST)
    assert (again.get_meta("clock"), again.get_meta("other")) == (b"17", b"\x00\xff")
    again.close()


def test_a_second_opener_is_told_who_holds_the_store(store: Sqlite, path: Path) -> None:
    code, message = code_of_opening(path)
    assert code == "store.locked"
    assert f"pid {os.getpid()}" in message
    assert "air.db" in message


def test_a_lock_file_that_was_left_behind_locks_nothing(path: Path) -> None:
    path.with_name("air.db.lock").write_text("pid 1\n")
    Sqlite(path, FAST).close()


def test_a_store_can_be_opened_again_after_it_was_closed_or_could_not_be_opened(path: Path) -> None:
    path.write_bytes(b"this is no database, only text that is long enough to be looked at" * 100)
    for _ in range(2):
        with pytest.raises(Corrupt):
            Sqlite(path, FAST)
    path.unlink()
    for _ in range(2):
        Sqlite(path, FAST).close()


def test_a_closed_store_says_so(path: Path) -> None:
    store = Sqlite(path, FAST)
    store.close()
    store.close()
    with pytest.raises(Misuse) as caught:
        store.read("s")
    assert caught.value.code == "store.closed"


def test_a_newer_format_is_refused_and_left_alone(path: Path) -> None:
    Sqlite(path, FAST).close()
    file = apsw.Connection(str(path))
    file.execute(f"PRAGMA user_version = {FORMAT + 41}")
    file.close()
    before = path.read_bytes()
    code, message = code_of_opening(path)
    assert code == "store.format"
    assert str(FORMAT + 41) in message
    assert f"up to {FORMAT}" in message
    assert path.read_bytes() == before


def test_somebody_elses_database_is_refused(path: Path) -> None:
    file = apsw.Connection(str(path))
    file.execute("CREATE TABLE cell(x)")
    file.close()
    assert code_of_opening(path)[0] == "store.format"


def test_a_database_in_use_by_another_program_is_refused(path: Path) -> None:
    Sqlite(path, FAST).close()
    file = apsw.Connection(str(path))
    file.pragma("locking_mode", "EXCLUSIVE")
    file.execute("BEGIN IMMEDIATE")
    assert code_of_opening(path)[0] == "store.locked"
    file.close()


def test_a_folder_that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    assert code_of_opening(tmp_path / "none" / "air.db")[0] == "store.open"


def test_with_a_key_the_file_says_nothing_and_opens_with_that_key_only(path: Path, tmp_path: Path) -> None:
    right, wrong = (
        key_file(tmp_path / "right.key", "correct horse"),
        key_file(tmp_path / "wrong.key", "battery"),
    )
    store = Sqlite(path, SqliteConfig(durable=False, key_file=right))
    store.write([Cell("secret soul", f"key {i}", "secret value", 1) for i in range(100)])
    log = path.with_name("air.db-wal").read_bytes()
    store.close()
    for content in (path.read_bytes(), log):
        assert len(content) > 4096
        assert b"secret" not in content
        assert b"SQLite format" not in content
    assert code_of_opening(path, SqliteConfig(key_file=wrong))[0] == "store.key"
    assert code_of_opening(path)[0] == "store.corrupt"
    store = Sqlite(path, SqliteConfig(key_file=right))
    assert len(store.read("secret soul").fields) == 100
    store.close()


def test_a_key_for_a_file_that_has_none_is_refused(path: Path, tmp_path: Path) -> None:
    store = Sqlite(path, FAST)
    store.write([Cell("s", "k", 1, 1)])
    store.close()
    assert code_of_opening(path, SqliteConfig(key_file=key_file(tmp_path / "a.key", "x")))[0] == "store.key"
    Sqlite(path, FAST).close()


def test_a_key_file_that_is_open_to_others_missing_or_empty_is_refused(path: Path, tmp_path: Path) -> None:
    opened = key_file(tmp_path / "open.key", "x")
    opened.chmod(0o644)
    for bad in (opened, tmp_path / "none.key", key_file(tmp_path / "empty.key", "\n")):
        assert code_of_opening(path, SqliteConfig(key_file=bad))[0] == "store.key"


def key_file(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_sizes_are_known(store: Sqlite) -> None:
    store.write([Cell("s", f"k{i}", "x" * 100, 1) for i in range(1000)])
    stats = store.stats()
    assert stats.file_bytes + stats.wal_bytes > 100_000


def test_the_log_is_moved_into_the_file_and_stops_growing(path: Path) -> None:
    store = Sqlite(path, SqliteConfig(durable=False, checkpoint_pages=20))
    for batch in range(200):
        store.write([Cell("s", f"{batch}/{i}", "x" * 100, 1) for i in range(20)])
    stats = store.stats()
    assert stats.file_bytes > 400_000
    assert stats.wal_bytes < 400_000
    store.close()
    assert not path.with_name("air.db-wal").exists()
