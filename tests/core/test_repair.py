"""Two stores find what differs between them and exchange only that; no network, no clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from air.base.errors import Violation
from air.codec.zstd import Squeezer, ZstdConfig
from air.model import Cell, Link, unit_bytes
from air.model.ham import merge
from air.pb.graph_pb2 import Cells as Columns
from air.sync.native.columns import fill
from air.sync.repair.bounds import flat, join_bounds, read_bounds, unflat
from air.sync.repair.config import IDS_MAX, RepairConfig
from air.sync.repair.messages import Frame, FrameCodec, Opening
from air.sync.repair.salt import PRINT_BYTES, Salt
from air.sync.repair.spans import Give, Ids, Print, Take
from tests.repair_peers import Cells, Lockstep, place_of

NOW = 1_700_000_000_000

names = st.text(st.characters(codec=None, exclude_categories=()), min_size=1, max_size=3).filter(
    lambda name: name != "_"
)
values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not x.is_integer())
    | st.text(max_size=5)
    | st.builds(Link, names)
)
states = st.sampled_from([NOW - 3, NOW - 2, NOW - 1.5, NOW - 1, 0, -1.5, 1e300])
few = st.lists(st.builds(Cell, names, names, values, states), max_size=12)
seeds = st.integers(0, 2**32)


def text(rng: random.Random) -> str:
    return f"{rng.getrandbits(64):016x}"


def many(count: int, seed: int = 0) -> list[Cell]:
    rng = random.Random(seed)
    return [
        Cell(
            f"user/{i // 2:07d}",
            ("bio", "name")[i % 2],
            f"{rng.getrandbits(64):016x}",
            NOW - rng.random() * 1e8,
        )
        for i in range(count)
    ]


def renewed(cell: Cell, rng: random.Random) -> Cell:
    return cell._replace(value=text(rng), state=cell.state + 1 + rng.random() * 1e7)


def size_of_difference(cells: list[Cell]) -> tuple[int, int]:
    """Bytes of the columns of the native wire, as they are and compressed."""
    plain = zipped = 0
    squeezer = Squeezer(ZstdConfig())
    cells = sorted(cells, key=place_of)
    for start in range(0, len(cells), 512):
        columns = Columns()
        some = cells[start : start + 512]
        fill(columns, some, [()] * len(some))
        data = columns.SerializeToString()
        plain += len(data)
        zipped += len(squeezer.squeeze(data))
    return plain, zipped


# What it comes to


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Cell], list[Cell]]:
    """Two sets of cells that have much in common, some fields in different versions."""
    common = draw(few)
    size = draw(st.sampled_from([0, 0, 100, 700]))
    rng = random.Random(draw(seeds))
    base = many(size, seed=1)
    one, other = list(base), list(base)
    for cell in rng.sample(base, min(size, draw(st.sampled_from([0, 1, 5, 300])))):
        side = rng.choice([one, other])
        if rng.random() < 0.5:
            side.remove(cell)
        else:
            side.append(renewed(cell, rng))
            if rng.random() < 0.5:
                (other if side is one else one).append(renewed(cell, rng))
    return one + common + draw(few), other + common + draw(few)


@settings(max_examples=150, deadline=None)
@given(graphs(), st.booleans())
def test_after_a_session_both_hold_the_merge_of_both(sets, swapped) -> None:
    one, other = reversed(sets) if swapped else sets
    here, there = Cells(one), Cells(other)
    session = Lockstep(here, there).run()
    assert here.graph == there.graph == merge(one, other)
    assert session.near.equal
    assert session.near.cargo.settled
    assert session.far.cargo.settled


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(1, 12))
def test_a_session_that_broke_anywhere_is_made_good_by_the_next(sets, frames) -> None:
    here, there = Cells(sets[0]), Cells(sets[1])
    Lockstep(here, there).run(stop_after=frames)
    assert merge(here.graph.values(), there.graph.values()) == merge(*sets)
    Lockstep(there, here, salt=bytes(16)).run()
    assert here.graph == there.graph == merge(*sets)


@settings(max_examples=60, deadline=None)
@given(graphs(), seeds)
def test_what_both_sides_write_meanwhile_is_neither_lost_nor_in_the_way(sets, seed) -> None:
    here, there = Cells(sets[0]), Cells(sets[1])
    rng = random.Random(seed)
    written = []

    def write() -> None:
        side = rng.choice([here, there])
        for _ in range(rng.randrange(4)):
            if side.held and rng.random() < 0.7:
                cell = renewed(rng.choice(list(side.graph.values())), rng)
            else:
                cell = Cell(f"new/{rng.randrange(30)}", "x", rng.random(), NOW + rng.randrange(1000))
            side.merge([cell])
            written.append(cell)

    Lockstep(here, there).run(between=write)
    Lockstep(here, there).run()
    assert here.graph == there.graph == merge(*sets, written)


@settings(max_examples=40, deadline=None)
@given(graphs(), names, names)
def test_only_the_asked_range_is_touched(sets, low, high) -> None:
    bounds = sorted([(unit_bytes(low), b""), (unit_bytes(high), b"")])
    if bounds[0] == bounds[1]:
        return
    here, there = Cells(sets[0]), Cells(sets[1])
    Lockstep(here, there, *bounds).run()

    def inside(cell: Cell) -> bool:
        return bounds[0] <= place_of(cell) < bounds[1]

    whole = merge(*sets)
    for side, before in zip((here, there), sets, strict=True):
        start = merge(before)
        assert side.graph == {**start, **{at: cell for at, cell in whole.items() if inside(cell)}}


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_a_dry_run_counts_what_a_session_would_exchange_and_moves_nothing(sets) -> None:
    here, there = Cells(sets[0]), Cells(sets[1])
    summary = Lockstep(here, there, dry_run=True).run().near.summary(0.0)
    assert here.graph == merge(sets[0])
    assert there.graph == merge(sets[1])
    theirs, ours = set(there.graph.values()), set(here.graph.values())
    assert (summary.received, summary.sent) == (len(theirs - ours), len(ours - theirs))
    assert summary.equal == (ours == theirs)


def test_marks_travel_with_their_cells() -> None:
    cell = Cell("a", "b", 1, NOW)
    here, there = Cells(many(100)), Cells(many(100))
    there.merge([cell], [(("writer", 7), ("other", 3))])
    Lockstep(here, there).run()
    assert here.marks[place_of(cell)] == (("writer", 7), ("other", 3))


# What it costs


def test_equal_peers_know_after_one_round_trip() -> None:
    session = Lockstep(Cells(many(5000)), Cells(many(5000))).run()
    assert session.round_trips == session.near.rounds == 1
    assert session.bytes <= 200
    assert session.near.summary(1.0).equal


def test_ten_differences_cost_a_few_round_trips_and_some_kilobytes() -> None:
    base = many(60_000)
    rng = random.Random(3)
    here, there = Cells(base), Cells(base)
    changed = [renewed(cell, rng) for cell in rng.sample(base, 10)]
    for index, cell in enumerate(changed):
        (here if index % 2 else there).merge([cell])
    session = Lockstep(here, there).run()
    assert session.near.equal
    assert session.round_trips <= 8
    assert session.bytes <= 16 * 1024
    assert session.sent_cells == 10


@pytest.mark.parametrize("kind", ["missing", "newer here", "newer there", "both"])
def test_many_differences_cost_less_than_three_times_what_they_are(kind) -> None:
    base = many(30_000)
    rng = random.Random(4)
    here, there = Cells(base), Cells(base)
    picked = rng.sample(base, 3_000)
    difference = []
    for cell in picked:
        if kind == "missing":
            del rng.choice([here, there]).held[place_of(cell)]
            difference.append(cell)
            continue
        new = renewed(cell, rng)
        (there if kind == "newer there" else here).merge([new])
        if kind == "both":
            other = renewed(cell, rng)
            there.merge([other])
            new = max(new, other, key=lambda cell: cell.state)
        difference.append(new)
    here.merge([])
    there.merge([])
    session = Lockstep(here, there).run()
    plain, _ = size_of_difference(difference)
    assert session.near.equal
    assert session.bytes <= 2 * plain
    # Of two versions of a field only the newer one travels, but for a few that passed for others by chance.
    assert len(picked) <= session.sent_cells <= 1.01 * len(picked)


def test_an_empty_side_gets_everything_without_being_told_what_it_lacks() -> None:
    base = many(12_000)
    _, zipped = size_of_difference(base)
    for here, there in ((Cells(), Cells(base)), (Cells(base), Cells())):
        session = Lockstep(here, there).run()
        assert session.near.equal
        assert here.graph == there.graph
        assert session.bytes <= 1.3 * zipped


def test_one_node_with_many_fields_is_no_different_from_many_nodes() -> None:
    base = [Cell("one", f"{i:05d}", i, NOW) for i in range(5_000)]
    here, there = Cells(base), Cells([*base[:1234], *base[1235:], Cell("one", "new", 1, NOW)])
    session = Lockstep(here, there).run()
    assert here.graph == there.graph
    assert session.sent_cells == 2
    assert session.bytes <= 4096


def test_work_is_done_in_short_visits_to_the_store() -> None:
    config = RepairConfig(hop_work=20)
    rng = random.Random(5)
    base = many(20_000)
    here, there = Cells(base), Cells(base)
    there.merge([renewed(cell, rng) for cell in rng.sample(base, 500)])
    session = Lockstep(here, there, config=config)
    visits = []
    for side in (session.near, session.far):
        work = side.work

        def counted(source: Cells, work: Callable[[Cells], None] = work) -> None:
            before = source.asked
            work(source)
            visits.append(source.asked - before)

        side.work = counted  # type: ignore[method-assign]
    session.run()
    assert here.graph == there.graph
    assert max(visits) <= 60


def test_a_store_that_has_much_to_sum_up_first_says_that_it_is_at_work() -> None:
    here, there = Cells(many(100)), Cells(many(99))
    here.dirty = there.dirty = 2_000_000
    session = Lockstep(here, there).run()
    assert here.graph == there.graph
    assert here.dirty == there.dirty == 0
    empty = [way for way, data in session.frames if not data]
    assert empty
    # Before the session is open there is nobody to tell.
    assert session.frames[0][1]


def test_a_store_that_is_never_done_summing_up_does_not_keep_anybody_waiting() -> None:
    here, there = Cells(many(100)), Cells(many(99))
    here.dirty = there.dirty = 10**12
    Lockstep(here, there).run()
    assert here.graph == there.graph


# Names that nobody could foresee


def test_another_salt_gives_other_prints_ids_and_names() -> None:
    one, other = Salt(bytes(16)), Salt(bytes(15) + b"\x01")
    place = (b"soul", b"key")
    assert one.print(3, 5) != other.print(3, 5)
    assert one.ids([2**127 + 12345], 4) != other.ids([2**127 + 12345], 4)
    assert one.name(place) != other.name(place)
    assert one.name((b"a", b"bc")) != one.name((b"ab", b"c"))


def test_cells_that_pass_for_each_other_by_chance_are_found_in_the_next_pass(monkeypatch) -> None:
    monkeypatch.setattr("air.sync.repair.initiator.ID_BYTES", 1)
    base = many(3_000)
    rng = random.Random(6)
    here, there = Cells(base), Cells(base)
    there.merge([renewed(cell, rng) for cell in rng.sample(base, 1_500)])
    session = Lockstep(here, there).run()
    assert session.near.passes > 2
    assert here.graph == there.graph


# Bytes


positions = st.tuples(names.map(unit_bytes), st.just(b"") | names.map(unit_bytes))


@given(st.lists(st.none() | positions, max_size=8))
def test_bounds_survive_being_written(bounds) -> None:
    flats = [flat(bound) for bound in bounds]
    assert read_bounds(join_bounds(flats), len(flats)) == flats
    assert [unflat(data) for data in flats] == bounds


@st.composite
def spans(draw: st.DrawFn) -> list[Print | Ids | Take | Give]:
    bounds = sorted(draw(st.sets(positions, min_size=2, max_size=8)))
    out: list[Print | Ids | Take | Give] = []
    ids = st.lists(st.binary(min_size=3, max_size=3), max_size=4)
    for low, high in pairwise(bounds):
        kind = draw(st.integers(0, 4))
        if kind == 1:
            out.append(Print(low, high, draw(st.integers(0, 2**40)), draw(st.binary(min_size=6, max_size=6))))
        elif kind == 2:
            out.append(Ids(low, high, draw(ids)))
        elif kind == 3:
            out.append(Take(low, high, draw(ids), [(name, draw(states)) for name in draw(ids)]))
        elif kind == 4:
            out.append(Give(low, high, draw(ids)))
    return out


@given(spans(), st.booleans())
def test_ranges_survive_being_written(said, opened) -> None:
    opening = Opening(bytes(16), None, None, True) if opened else None
    data = FrameCodec().encode(Frame(7, True, opening, said, 3, merged=2))
    frame = FrameCodec().decode(data)
    assert (frame.number, frame.last, frame.opening, frame.merged) == (7, True, opening, 2)
    assert list(frame.spans) == said


@given(spans(), st.data())
def test_damaged_frames_are_refused_or_read_but_break_nothing(said, data) -> None:
    raw = bytearray(FrameCodec().encode(Frame(7, True, None, said, 3)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    try:
        FrameCodec().decode(bytes(raw))
    except Violation as error:
        assert error.code.split(".")[0] in ("repair", "native", "limit", "varint")


def test_prints_are_as_long_as_the_page_says() -> None:
    assert len(Salt(bytes(16)).print(1, 1)) == PRINT_BYTES == 6
    assert IDS_MAX == 256
