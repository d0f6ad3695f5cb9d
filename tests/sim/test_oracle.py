"""The oracle bites: for each rule, something that breaks it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from air.model import Cell
from air.model.ham import wins
from air.model.value import Link
from air.sim.oracle import Oracle, beats
from air.sim.schedule import Scheduler

A, B = Cell("s", "k", "a", 5), Cell("s", "k", "b", 7)

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.builds(Link, st.text(st.characters(exclude_categories=["Cs"]), min_size=1)),
)


@pytest.fixture
def oracle() -> Oracle:
    oracle = Oracle(Scheduler())
    oracle.acked = [{}, {}]
    oracle.wrote(1, [A, B])
    return oracle


def rules(oracle: Oracle) -> list[str]:
    return [violated.rule for violated in oracle.violations]


@given(values, st.integers(0, 1), values, st.integers(0, 1))
def test_its_order_of_values_is_the_order_of_the_graph(
    value: object, state: int, known: object, known_state: int
) -> None:
    assert beats(value, state, (known, known_state)) == wins(value, state, known, known_state)  # type: ignore[arg-type]


def test_an_older_value_on_disk_is_seen(oracle: Oracle) -> None:
    oracle.stored(0, [A], [B], lambda soul, key: A)
    assert rules(oracle) == ["merge"]


def test_a_value_that_nobody_wrote_is_seen_on_disk_and_by_a_watcher(oracle: Oracle) -> None:
    forged = Cell("s", "k", "forged", 9)
    oracle.stored(0, [forged], [None], lambda soul, key: forged)
    oracle.saw(0, forged, None)
    assert rules(oracle) == ["invented", "invented"]


def test_a_write_from_the_future_is_seen_unless_it_is_the_peer_s_own(oracle: Oracle) -> None:
    oracle.due(0, [A], 4.9)
    oracle.due(0, [A], 5.0)
    oracle.due(1, [A], 4.9)
    assert rules(oracle) == ["early"]


def test_an_ack_of_what_is_not_on_disk_is_seen(oracle: Oracle) -> None:
    oracle.promised(0, [A], lambda soul, key: None)
    oracle.promised(0, [A], lambda soul, key: B)
    assert rules(oracle) == ["ack"]


def test_an_acknowledged_write_that_is_gone_at_the_end_is_seen(oracle: Oracle) -> None:
    oracle.promised(0, [B], lambda soul, key: B)
    oracle.kept(0, lambda soul, key: A)
    assert rules(oracle) == ["lost"]


def test_a_watcher_that_goes_back_is_seen(oracle: Oracle) -> None:
    oracle.saw(0, B, ("a", 5))
    oracle.saw(0, A, ("b", 7))
    assert rules(oracle) == ["backwards"]


def test_the_fourth_crossing_of_a_link_is_seen(oracle: Oracle) -> None:
    oracle.crossed = {}
    for _ in range(3):
        oracle.pushed(0, 1, [A])
    assert rules(oracle) == []
    oracle.pushed(0, 1, [A])
    assert rules(oracle) == ["chatter"]
