"""Laws of the data tower: merging, stamps, forgetting, waiting."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from air.base.backoff import Backoff, BackoffConfig
from air.base.entropy import IdSource, SeededEntropy
from air.graph.mesh import Fading
from air.graph.state import Stamps, salt_of
from air.model import Cell, Link, Put, matches, unit_bytes, value_bytes, value_text
from air.model.ham import merge, wins
from air.model.value import units_from_bytes
from air.store.memory import Memory
from tests.peers import Peer

NOW = 1_700_000_000_000

texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=6)
values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not x.is_integer())
    | texts
    | st.builds(Link, texts.filter(bool))
)
cells = st.builds(
    Cell,
    st.sampled_from("ab"),
    st.sampled_from("xy"),
    values,
    st.sampled_from([NOW - 3, NOW - 2, NOW - 1.5, NOW - 1]),
)
batches = st.lists(cells, max_size=6)


@given(batches, batches, batches)
def test_merge_commutes_associates_and_repeats_harmlessly(a, b, c) -> None:
    whole = merge(a, b, c)
    for order in itertools.permutations([a, b, c]):
        assert merge(*order) == whole
    assert merge(merge(a, b).values(), c) == merge(a, merge(b, c).values()) == whole
    assert merge(a, b, c, b, a) == whole


@given(values, values)
def test_of_two_values_one_wins_or_they_are_the_same_text(a, b) -> None:
    assert not (wins(a, 1, b, 1) and wins(b, 1, a, 1))
    assert (value_text(a) == value_text(b)) == (not wins(a, 1, b, 1) and not wins(b, 1, a, 1))
    assert (value_bytes(a) > value_bytes(b)) == wins(a, 1, b, 1)


@given(texts, texts)
def test_unit_bytes_keep_text_and_order_of_utf16(a, b) -> None:
    def joined(text: str) -> str:
        return text.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")

    assert units_from_bytes(unit_bytes(a)) == joined(a)
    utf16 = [text.encode("utf-16-be", "surrogatepass") for text in (a, b)]
    assert (unit_bytes(a) < unit_bytes(b)) == (utf16[0] < utf16[1])


@given(st.lists(batches, max_size=5), st.integers(2_000, 20_000))
def test_memory_without_a_budget_is_the_merge_and_with_one_stays_in_it(many, budget) -> None:
    roomy, tight = Memory(2**30, authoritative=True), Memory(budget)
    for batch in many:
        roomy.write(batch)
        tight.write(batch)
        assert tight.bytes <= budget or len(tight) == 1
    held = {
        (soul, key): Cell(soul, key, *pair)
        for soul in roomy.souls()
        for key, pair in roomy.read(soul).fields.items()
    }
    assert held == merge(*many)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(batches, st.booleans(), st.booleans()), max_size=8))
def test_an_engine_that_forgets_and_crashes_still_ends_with_the_merge(steps) -> None:
    peer = Peer(cache_bytes=3_000)
    for number, (batch, forget, restart) in enumerate(steps):
        if 1 not in peer.engine.near:
            peer.attach(1)
        peer.say(1, Put(f"p{number}", batch))
        if forget:
            for soul in "ab":
                peer.memory.drop(soul)
        peer.settle()
        if restart:
            peer.restart()
    expected = merge(*(batch for batch, _, _ in steps))
    assert peer.stored() == {place: (cell.value, cell.state) for place, cell in expected.items()}


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=200), st.text(min_size=1))
def test_stamps_rise_whatever_the_clock_does_and_carry_the_writer(moves, peer) -> None:
    wall, stamps, seen = float(NOW), Stamps(peer), [0.0]
    for move in moves:
        wall += move * 100
        seen.append(stamps.next(wall))
        assert seen[-1] > seen[-2]
        assert int(seen[-1] * 4096) % 64 == salt_of(peer)
    again = Stamps(peer, stamps.last)
    assert again.next(NOW - 10**9) > seen[-1]


def test_a_stamp_is_in_the_past_of_a_whole_millisecond_clock() -> None:
    stamps = Stamps("somebody")
    for _ in range(60):
        assert stamps.next(NOW + 0.999) < NOW


def test_two_writers_rarely_share_a_stamp() -> None:
    salts = {salt_of(f"peer {i}") for i in range(1000)}
    assert len(salts) == 64


def test_ids_are_nine_characters_and_do_not_repeat() -> None:
    ids = IdSource(SeededEntropy(7))
    made = [ids() for _ in range(100_000)]
    assert {len(id) for id in made} == {9}
    assert len(set(made)) == len(made)
    assert all(id.isalnum() and "Y" not in id for id in made)


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 30)), max_size=60))
def test_what_fades_lives_one_to_two_periods_after_it_was_last_set(events) -> None:
    memory: Fading[int, bool] = Fading(9.0, 1000)
    now, last = 0.0, {}
    for key, wait in events:
        now += wait
        memory.set(key, True, now)
        last[key] = now
        for known, at in last.items():
            if now - at < 9.0:
                assert memory.get(known)
            if now - at >= 18.0:
                assert not memory.get(known)


def test_what_fades_is_bounded() -> None:
    memory: Fading[int, bool] = Fading(9.0, 100)
    for i in range(10_000):
        memory.set(i, True, 0.0)
    assert len(memory) <= 200
    assert memory.get(9_999)


def test_waits_grow_to_a_ceiling_are_never_short_and_differ() -> None:
    config = BackoffConfig(first_seconds=1, max_seconds=8)
    waits = [Backoff(config, SeededEntropy(seed)) for seed in range(20)]
    for ceiling in (1, 2, 4, 8, 8):
        drawn = [wait.failed() for wait in waits]
        assert all(ceiling / 2 <= wait <= ceiling for wait in drawn)
        assert len(set(drawn)) > 10
    waits[0].succeeded()
    assert waits[0].failed() <= 1


def test_an_exact_lex_matches_only_its_text() -> None:
    assert matches("a", "a")
    assert not matches("ab", "a")
