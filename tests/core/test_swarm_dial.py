"""The dial planner: who first, when the next, when to give up; and what it learns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from air.base.address import Multiaddr
from air.base.clock import ManualClock
from air.base.entropy import SeededEntropy
from air.swarm.dial import DialConfig, DialPlan, choose
from air.swarm.history import DialHistory, HistoryConfig
from air.swarm.rank import Reach, host_of, interleave, is_specific, reach_of
from air.swarm.rtt import PatienceConfig, RoundTrips

CONFIG = DialConfig()


def addresses(*texts: str) -> list[Multiaddr]:
    return [Multiaddr(text) for text in texts]


def plan(places: list[Multiaddr], clock: ManualClock, config: DialConfig = CONFIG) -> DialPlan:
    return DialPlan(places, DialHistory(SeededEntropy(1)), config, clock.now())


def begun(dial: DialPlan, clock: ManualClock) -> list[str]:
    return [str(attempt.address) for attempt in dial.due(clock.now())]


THREE = addresses("/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1", "/ip4/192.0.2.3/tcp/1")


def test_attempts_begin_a_quarter_of_a_second_apart_and_run_side_by_side() -> None:
    clock = ManualClock()
    dial = plan(THREE, clock)
    assert begun(dial, clock) == ["/ip4/192.0.2.1/tcp/1"]
    assert begun(dial, clock) == []
    assert dial.deadline == clock.now().monotonic + 0.25
    clock.advance(0.25)
    assert begun(dial, clock) == ["/ip4/192.0.2.2/tcp/1"]
    clock.advance(0.25)
    assert begun(dial, clock) == ["/ip4/192.0.2.3/tcp/1"]
    assert not dial.over


def test_after_a_failure_the_next_begins_at_once() -> None:
    clock = ManualClock()
    dial = plan(THREE, clock)
    begun(dial, clock)
    dial.failed(THREE[0], "refused", clock.now())
    assert begun(dial, clock) == ["/ip4/192.0.2.2/tcp/1"]
    dial.failed(THREE[1], "refused", clock.now())
    begun(dial, clock)
    dial.failed(THREE[2], "refused", clock.now())
    assert dial.over
    assert [address for address, _ in dial.failures] == [str(one) for one in THREE]


def test_a_relay_gets_its_turn_half_a_second_after_the_direct_addresses() -> None:
    clock = ManualClock()
    relay = "/ip4/192.0.2.9/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5/p2p-circuit"
    dial = plan([THREE[0], Multiaddr(relay)], clock)
    begun(dial, clock)
    clock.advance(0.25)
    assert begun(dial, clock) == []
    clock.advance(0.25)
    assert begun(dial, clock) == [relay]


def test_a_dial_ends_in_time_whatever_the_number_of_addresses() -> None:
    clock = ManualClock()
    config = DialConfig(parallel_max=2, total_seconds=3.0)
    dial = plan(addresses(*(f"/ip4/192.0.2.{n}/tcp/1" for n in range(1, 20))), clock, config)
    for _ in range(20):
        for attempt in dial.due(clock.now()):
            assert attempt.seconds <= 3.0
        clock.advance(0.25)
    assert dial.expired(clock.now())
    assert dial.due(clock.now()) == []
    assert len(dial.failures) == 17
    assert all(reason.startswith("dial.no-time") for _, reason in dial.failures)


@given(st.lists(st.sampled_from(["fail", "wait", "due"]), max_size=100), st.integers(1, 12))
def test_every_address_is_tried_once_and_never_too_many_at_a_time(steps: list[str], count: int) -> None:
    clock = ManualClock()
    config = DialConfig(parallel_max=3, total_seconds=1000.0)
    places = addresses(*(f"/ip4/192.0.2.{n}/tcp/1" for n in range(1, count + 1)))
    dial = plan(places, clock, config)
    running: list[Multiaddr] = []
    seen: list[Multiaddr] = []
    for step in [*steps, *["due", "fail", "wait"] * count]:
        if step == "wait":
            clock.advance(0.25)
        elif step == "due":
            started = [attempt.address for attempt in dial.due(clock.now())]
            running += started
            seen += started
            assert len(running) <= 3
        elif running:
            dial.failed(running.pop(0), "no", clock.now())
    assert seen == places
    assert dial.over == (not running)


def test_an_address_that_failed_rests_longer_each_time_unless_one_insists() -> None:
    clock = ManualClock()
    history = DialHistory(SeededEntropy(1))
    waits = [history.failed(THREE[0], clock.now()) for _ in range(12)]
    assert waits[0] <= 1.0
    assert waits[3] > waits[0]
    assert max(waits) <= 300.0
    good, left = choose(THREE, history, CONFIG, clock.now(), insist=False)
    assert good == THREE[1:]
    assert left[0][1].startswith("dial.resting")
    good, left = choose(THREE, history, CONFIG, clock.now(), insist=True)
    assert len(good) == 3
    assert not left
    clock.advance(301.0)
    assert len(choose(THREE, history, CONFIG, clock.now(), insist=False)[0]) == 3


def test_what_worked_last_is_tried_first() -> None:
    clock = ManualClock()
    history = DialHistory(SeededEntropy(1))
    history.succeeded(THREE[2], 0.1, clock.now())
    clock.advance(1)
    history.succeeded(THREE[1], 0.1, clock.now())
    good, _ = choose(THREE, history, CONFIG, clock.now(), insist=False)
    assert good == [THREE[1], THREE[2], THREE[0]]


def test_patience_is_learned_from_measured_round_trips() -> None:
    clock = ManualClock()
    history = DialHistory(SeededEntropy(1), HistoryConfig(patience=PatienceConfig(5.0, 1.0, 10.0)))
    assert history.patience(THREE[0]) == 5.0
    for _ in range(20):
        history.succeeded(THREE[0], 0.02, clock.now())
        history.succeeded(THREE[1], 3.0, clock.now())
    assert history.patience(THREE[0]) == 1.0
    assert 5.0 < history.patience(THREE[1]) <= 10.0


def test_a_line_that_became_slow_gets_more_patience_until_it_answers() -> None:
    clock = ManualClock()
    history = DialHistory(SeededEntropy(1), HistoryConfig(patience=PatienceConfig(5.0, 1.0, 10.0)))
    for _ in range(20):
        history.succeeded(THREE[0], 0.02, clock.now())
    waits = []
    for _ in range(5):
        history.failed(THREE[0], clock.now())
        waits.append(history.patience(THREE[0]))
    assert waits == [2.0, 4.0, 8.0, 10.0, 10.0]
    history.succeeded(THREE[0], 0.02, clock.now())
    assert history.patience(THREE[0]) == 1.0


def test_the_history_is_bounded() -> None:
    clock = ManualClock()
    history = DialHistory(SeededEntropy(1), HistoryConfig(addresses_max=10))
    for number in range(100):
        history.failed(Multiaddr(f"/ip4/192.0.2.{number}/tcp/1"), clock.now())
    assert len(history) == 10


def test_round_trips_are_smoothed_as_tcp_does_it() -> None:
    trips = RoundTrips(PatienceConfig(first_seconds=5, floor_seconds=0.0, ceiling_seconds=100))
    trips.measured(0.1)
    assert trips.seconds == 0.1
    assert abs(trips.patience() - 2 * (0.1 + 4 * 0.05)) < 1e-9
    for _ in range(100):
        trips.measured(0.2)
    assert trips.seconds is not None
    assert abs(trips.seconds - 0.2) < 1e-3
    assert trips.samples == 101


def test_near_comes_before_far_plain_before_layered_and_families_take_turns() -> None:
    order = interleave(
        addresses(
            "/ip4/192.0.2.1/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5/p2p-circuit",
            "/ip4/8.8.8.8/tcp/1/ws",
            "/ip4/8.8.8.8/tcp/1",
            "/ip4/8.8.4.4/tcp/1",
            "/ip6/2606:4700::1/tcp/1",
            "/ip4/10.0.0.1/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
        )
    )
    assert [host_of(one) for one in order] == [
        "127.0.0.1",
        "10.0.0.1",
        "2606:4700::1",
        "8.8.8.8",
        "8.8.4.4",
        "8.8.8.8",
        "192.0.2.1",
    ]


def test_places_are_told_apart() -> None:
    for text, reach in {
        "/ip4/127.0.0.1/tcp/1": Reach.LOOPBACK,
        "/ip6/::1/tcp/1": Reach.LOOPBACK,
        "/dns4/localhost/tcp/1": Reach.LOOPBACK,
        "/memory/7": Reach.LOOPBACK,
        "/ip4/192.168.1.1/tcp/1": Reach.PRIVATE,
        "/ip4/169.254.1.1/tcp/1": Reach.PRIVATE,
        "/ip6/fe80::1/tcp/1": Reach.PRIVATE,
        "/ip4/100.64.1.2/tcp/1": Reach.PRIVATE,
        "/ip4/8.8.8.8/tcp/1": Reach.PUBLIC,
        "/dns/example.com/tcp/1": Reach.PUBLIC,
        "/ip4/0.0.0.0/tcp/1": Reach.NOWHERE,
        "/ip4/224.0.0.1/tcp/1": Reach.NOWHERE,
        "/ip6/::ffff:127.0.0.1/tcp/1": Reach.LOOPBACK,
    }.items():
        assert reach_of(Multiaddr(text)) is reach, text
    assert not is_specific(Multiaddr("/ip4/127.0.0.1/tcp/0"))
    assert is_specific(Multiaddr("/ip4/127.0.0.1/tcp/1"))
