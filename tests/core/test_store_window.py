"""The commit window: at once when idle, together when it pays, never long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from air.base.clock import ManualClock
from air.store.window import CommitWindow, WindowConfig

CONFIG = WindowConfig()
COST = 0.0002


class Load:
    """A worker on a disk whose commits take ``COST``, with virtual time."""

    def __init__(self, config: WindowConfig = CONFIG) -> None:
        self.clock, self.window = ManualClock(), CommitWindow(config)
        self.waits: list[float] = []
        self.sizes: list[int] = []

    def commit(self, jobs: int, arriving: float = 0.0) -> None:
        """One commit of ``jobs`` and of those that arrive, so many a second, during the wait before it."""
        waited, queued = 0.0, float(jobs)
        while (seconds := self.window.wait(self.clock.now(), int(queued), int(queued))) > 0:
            self.clock.advance(seconds)
            waited += seconds
            queued += seconds * arriving
        self.clock.advance(COST)
        self.window.committed(self.clock.now(), int(queued), COST)
        self.waits.append(waited)
        self.sizes.append(int(queued))

    def stream(self, per_second: float, seconds: float) -> None:
        """Independent writes at an even rate."""
        end, owed = self.clock.now().monotonic + seconds, 1.0
        while self.clock.now().monotonic < end:
            while owed < 1:
                self.clock.advance((1 - owed) / per_second)
                owed = 1.0
            before = self.clock.now().monotonic
            self.commit(int(owed), per_second)
            owed += (self.clock.now().monotonic - before) * per_second - self.sizes[-1]


def test_the_first_write_of_all_does_not_wait() -> None:
    load = Load()
    load.commit(1)
    assert load.waits == [0]


@pytest.mark.parametrize("pause", [0.0, COST, 0.01, 1.0])
def test_a_lone_writer_never_waits(pause: float) -> None:
    load = Load()
    for _ in range(500):
        load.commit(1)
        load.clock.advance(pause)
    assert not any(load.waits)


def test_writers_who_wait_for_their_answers_hardly_ever_wait_for_each_other() -> None:
    load = Load()
    for _ in range(2000):
        load.commit(8)
    assert sum(wait > 0 for wait in load.waits) <= 2000 / CONFIG.retry_commits + 10


def test_a_slow_stream_does_not_wait() -> None:
    load = Load()
    load.stream(500, 2.0)
    assert not any(load.waits)


def test_a_dense_stream_shares_commits() -> None:
    load = Load()
    load.stream(20_000, 1.0)
    settled = load.sizes[len(load.sizes) // 2 :]
    assert sum(settled) / len(settled) > CONFIG.jobs_enough / 2
    assert max(load.waits) <= CONFIG.patience * COST * 1.001


def test_commits_that_are_large_by_themselves_do_not_wait() -> None:
    load = Load()
    for _ in range(200):
        load.commit(100, 1e6)
    assert sum(wait > 0 for wait in load.waits) <= 5


def test_a_full_batch_does_not_wait() -> None:
    load = Load()
    for _ in range(50):
        load.commit(CONFIG.cells_full, 1e6)
    assert not any(load.waits)


def test_after_a_pause_the_load_of_before_is_forgotten() -> None:
    load = Load()
    load.stream(20_000, 0.2)
    load.clock.advance(CONFIG.idle_seconds * 2)
    load.commit(2)
    assert load.waits[-1] == 0


def test_a_window_of_zero_never_waits() -> None:
    load = Load(WindowConfig(max_seconds=0))
    load.stream(20_000, 0.2)
    assert not any(load.waits)


@given(
    st.lists(st.tuples(st.floats(0, 0.1), st.integers(1, 5000), st.floats(0, 0.5)), max_size=30),
    st.floats(0, 1e6),
    st.integers(1, 4000),
)
def test_no_history_makes_a_wait_longer_than_the_longest(
    history: list[tuple[float, int, float]], rate: float, jobs: int
) -> None:
    load = Load()
    for pause, count, seconds in history:
        load.clock.advance(pause)
        load.window.wait(load.clock.now(), count, count)
        load.window.committed(load.clock.now(), count, seconds)
    load.commit(jobs, rate)
    assert load.waits[-1] <= CONFIG.max_seconds
