"""Ranges of cells: sums that are kept up to date agree with a fresh look at every cell, whatever happens."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from air.model import Cell, unit_bytes
from air.store import spans
from air.store.api import Bound, Position, RangeSource
from air.store.items import Item, item_hash, total
from air.store.memory import Memory
from air.store.record import encode_value
from air.store.sqlite import Sqlite, SqliteConfig

FAST = SqliteConfig(durable=False)

STEPS = ("write", "write", "ask", "refresh", "close", "crash", "fail", "stale")


def fresh(source: Sqlite | Memory, low: Bound = None, high: Bound = None) -> list[Item]:
    """Every item of a range, by reading all nodes."""
    found: list[Item] = []
    for soul in source.souls(limit=10**6):
        for key, (value, state) in source.read(soul, fields_max=10**6, bytes_max=10**9).fields.items():
            place = unit_bytes(soul), unit_bytes(key)
            if (low is None or place >= low) and (high is None or place < high):
                found.append((place, item_hash(*place, float(state), encode_value(value))))
    return found


def agrees(source: Sqlite | Memory, low: Bound = None, high: Bound = None) -> bool:
    return source.fingerprint(low, high) == total([item for _, item in fresh(source, low, high)])


def field(number: int, value: object = None, state: float = 1) -> Cell:
    return Cell(f"node {number // 7:04}", f"field {number % 7}", value, state)  # type: ignore[arg-type]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans of a few cells, so that few cells make many."""
    monkeypatch.setattr(spans, "SPAN_CELLS", 4)
    monkeypatch.setattr(spans, "_STEP_CELLS", 16)
    monkeypatch.setattr(spans, "_SAVE_SPANS", 3)
    monkeypatch.setattr(spans, "_CACHE_SPANS", 2)


def bounds(data: st.DataObject) -> tuple[Bound, Bound]:
    ends = st.none() | st.tuples(
        st.sampled_from([f"node {i:04}" for i in range(12)] + ["", "z"]), st.text("f 3", max_size=2)
    )
    low, high = data.draw(ends), data.draw(ends)
    return _bound(low), _bound(high)


def _bound(end: tuple[str, str] | None) -> Bound:
    return None if end is None else (unit_bytes(end[0]), unit_bytes(end[1]))


# -- against a fresh look ------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data())
@pytest.mark.usefixtures("small")
def test_sums_are_right_after_any_writes_questions_crashes_and_reopenings(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("spans")
    path = folder / "air.db"
    store = Sqlite(path, FAST, writer="me")
    for state in range(1, data.draw(st.integers(2, 13))):
        step = data.draw(st.sampled_from(STEPS))
        if step in ("write", "fail", "stale"):
            chosen = data.draw(st.lists(st.integers(0, 80), max_size=30))
            batch = [field(number, state, 0 if step == "stale" else state) for number in chosen]
            if step == "fail":
                # It fails when nearly all of the transaction is done.
                with pytest.raises(TypeError):
                    store.write(batch, meta={"no bytes": 5})  # type: ignore[dict-item]
            elif data.draw(st.booleans()):
                store.write(batch, marks=[(("a", state),)] * len(batch))
            else:
                store.write(batch)
        elif step == "ask":
            assert agrees(store, *bounds(data))
        elif step == "refresh":
            for _ in range(data.draw(st.integers(1, 9))):
                store.refresh(8)
        else:
            left = folder / "left"
            left.mkdir(exist_ok=True)
            if step == "crash":
                for name in ("air.db", "air.db-wal"):
                    shutil.copy(folder / name, left / name)
            store.close()
            if step == "crash":
                for name in ("air.db", "air.db-wal"):
                    shutil.copy(left / name, folder / name)
            store = Sqlite(path, FAST, writer="me")
    low, high = bounds(data)
    wanted = fresh(store, low, high)
    assert store.fingerprint(low, high) == total([item for _, item in wanted])
    limit = data.draw(st.integers(0, 90))
    assert store.items(low, high, limit) == wanted[:limit]
    assert agrees(store)
    store.close()
    shutil.rmtree(folder)


@settings(max_examples=60, deadline=None)
@given(st.data())
@pytest.mark.usefixtures("small")
def test_a_split_cuts_a_range_into_parts_of_about_equal_counts(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("split")
    disk, memory = Sqlite(folder / "air.db", FAST), Memory(10**9, authoritative=True)
    batch = [field(number) for number in data.draw(st.sets(st.integers(0, 80)))]
    disk.write(batch)
    memory.write(batch)
    low, high = bounds(data)
    parts = data.draw(st.integers(1, 20))
    sources: Sequence[RangeSource] = (disk, memory)
    for source in sources:
        items = source.items(low, high, 10**6)
        cuts = source.split(low, high, parts)
        assert len(cuts) < max(parts, 1)
        assert list(cuts) == sorted(set(cuts))
        assert all((low is None or low < cut) and (high is None or cut < high) for cut in cuts)
        ends: list[Bound] = [low, *cuts, high]
        counts = [source.fingerprint(one, other)[0] for one, other in pairwise(ends)]
        assert sum(counts) == len(items)
        share = len(items) / parts
        assert max(counts, default=0) <= 2 * max(share, 1) + (8 if len(items) >= parts * 32 else 0)
    assert disk.items(low, high, 100) == memory.items(low, high, 100)
    assert disk.fingerprint(low, high) == memory.fingerprint(low, high)
    disk.close()
    shutil.rmtree(folder)


def test_cells_come_with_their_marks_in_the_order_asked_for(tmp_path: Path) -> None:
    store, memory = Sqlite(tmp_path / "air.db", FAST, writer="me"), Memory(10**6, authoritative=True)
    batch = [Cell("é", "k", "v", 1), Cell("s", "l", 1.5, 2)]
    store.write(batch, marks=[(("a", 1),), ()])
    memory.write(batch)
    places = [(b"s", b"l"), (b"none", b"k"), (unit_bytes("é"), b"k")]
    assert store.cells(places) == (batch[::-1], [(), (("a", 1),)])
    assert memory.cells(places) == (batch[::-1], [(), ()])
    store.close()


def test_the_hash_of_a_cell_is_what_it_is_documented_to_be() -> None:
    # Two stores that disagree about this would send each other everything, for ever.
    assert item_hash(b"soul", b"key", 1795434300160.5, b'"text"') == 262926356192276048910845986992916184187
    assert item_hash(b"s", b"oulkey", 1.0, b"null") != item_hash(b"so", b"ulkey", 1.0, b"null")


# -- what it costs -------------------------------------------------------------


def counted(store: Sqlite) -> list[str]:
    """What is run on the file from now on."""
    statements: list[str] = []
    store.records.execute.__self__.trace_v2(  # type: ignore[attr-defined]
        apsw.SQLITE_TRACE_STMT, lambda event: statements.append(event["sql"])
    )
    return statements


@pytest.mark.usefixtures("small")
def test_a_write_touches_the_table_only_where_a_span_was_clean_in_it(tmp_path: Path) -> None:
    store = Sqlite(tmp_path / "air.db", FAST)
    store.write([field(number, 1, 1) for number in range(80)])
    while store.refresh(100):
        pass
    statements = counted(store)
    store.write([field(2, 2, 2), field(3, 2, 2), field(70, 2, 2)])
    assert sum("span" in sql for sql in statements) == 2
    statements.clear()
    store.write([field(3, 3, 3), field(71, 3, 3)])
    assert sum("span" in sql for sql in statements) == 0
    # What is only known in memory costs nothing either.
    assert agrees(store)
    statements.clear()
    store.write([field(3, 4, 4)])
    store.write([field(3, 0, 0)])
    assert sum("span" in sql for sql in statements) == 0
    assert agrees(store)
    store.close()


@pytest.mark.usefixtures("small")
def test_what_was_summed_up_is_known_after_a_restart(tmp_path: Path) -> None:
    store = Sqlite(tmp_path / "air.db", FAST)
    store.write([field(number) for number in range(200)])
    known = store.fingerprint(None, None)
    store.close()
    store = Sqlite(tmp_path / "air.db", FAST)
    statements = counted(store)
    assert store.fingerprint(None, None) == known
    assert statements == []
    store.write([field(5, 2, 2)])
    statements.clear()
    changed = store.fingerprint(None, None)
    assert sum("FROM cell WHERE (soul, key)" in sql for sql in statements) == 1
    assert changed == total([item for _, item in fresh(store)]) != known
    store.close()


@pytest.mark.usefixtures("small")
def test_spans_are_cut_when_they_grow_and_not_beyond_their_ceiling(tmp_path: Path) -> None:
    config = SqliteConfig(durable=False, spans_max=5)
    store, chance = Sqlite(tmp_path / "air.db", config), random.Random(4)
    numbers = chance.sample(range(300), 300)
    for first in range(0, 300, 25):
        store.write([field(number) for number in numbers[first : first + 25]])
        assert agrees(store)
        assert agrees(
            store, *sorted(_bound((f"node {chance.randrange(40):04}", "")) or (b"", b"") for _ in "ab")
        )
        while store.refresh(10):
            pass
    store.close()
    file = apsw.Connection(str(tmp_path / "air.db"))
    assert file.execute("SELECT count(*), sum(count) FROM span").fetchone() == (5, 300)
    file.close()


# -- damage --------------------------------------------------------------------


def changed(path: Path, sql: str) -> None:
    file = apsw.Connection(str(path))
    file.execute(sql)
    file.close()


@pytest.mark.usefixtures("small")
def test_damaged_cells_are_left_out_as_soon_as_they_are_met_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "air.db"
    store = Sqlite(path, FAST)
    store.write([field(number) for number in range(50)])
    store.fingerprint(None, None)
    store.close()
    changed(path, "UPDATE cell SET value = CAST('9' AS BLOB) WHERE key = CAST('field 3' AS BLOB)")
    store = Sqlite(path, FAST)
    # A sum that was clean goes on saying what had been written, until somebody looks there.
    assert store.fingerprint(None, None)[0] == 50
    assert store.read("node 0002").fields.keys() == {f"field {i}" for i in (0, 1, 2, 4, 5, 6)}
    assert store.fingerprint(None, None)[0] < 50
    assert len(store.items(None, None, 100)) == 43
    assert agrees(store)
    assert store.damaged >= 7
    store.write([field(17, "again", 0)])
    assert store.fingerprint(None, None)[0] == 44
    store.close()
    store = Sqlite(path, FAST)
    assert agrees(store)
    store.close()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "change",
    ["SET count = count + 1", "SET sum = zeroblob(16)", "SET key = CAST(key || 'x' AS BLOB)", "gone"],
)
def test_damaged_sums_are_not_believed_and_made_anew(tmp_path: Path, change: str) -> None:
    path = tmp_path / "air.db"
    store = Sqlite(path, FAST)
    store.write([field(number) for number in range(50)])
    known = store.fingerprint(None, None)
    store.close()
    if change != "gone":
        changed(path, f"UPDATE span {change} WHERE soul = CAST('node 0004' AS BLOB)")
    else:
        changed(path, "DELETE FROM span WHERE soul = x''")
    store = Sqlite(path, FAST)
    assert bool(store.verify().notes) == (change != "gone")
    assert store.verify().sound
    store.write([field(30, "new", 5)])
    assert store.fingerprint(None, None)[0] == known[0]
    assert agrees(store)
    store.close()
    store = Sqlite(path, FAST)
    assert agrees(store)
    store.close()


def test_a_position_is_what_the_table_is_sorted_by(tmp_path: Path) -> None:
    store = Sqlite(tmp_path / "air.db", FAST)
    names = ["a", "\uffff", "😀", "é", "\ud800", "Z", ""]
    store.write([Cell(soul or "x", key, 1, 1) for soul in names for key in names])
    places: list[Position] = [place for place, _ in store.items(None, None, 100)]
    assert places == sorted((unit_bytes(soul or "x"), unit_bytes(key)) for soul in names for key in names)
    store.close()
