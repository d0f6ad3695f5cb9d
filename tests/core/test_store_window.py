"""The commit window: at once when idle, together when busy, never long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from air.base.clock import ManualClock
from air.store.window import CommitWindow, WindowConfig

CONFIG = WindowConfig()


def waited(
    window: CommitWindow, clock: ManualClock, arrivals_per_second: float, jobs: int = 1
) -> tuple[float, int]:
    """Turn a window until it says commit; returns the seconds waited and the writes queued then."""
    total, queued = 0.0, float(jobs)
    while (seconds := window.wait(clock.now(), int(queued), int(queued))) > 0:
        clock.advance(seconds)
        total += seconds
        queued += seconds * arrivals_per_second
    return total, int(queued)


def busy_window(clock: ManualClock, cost: float = 0.0005, per_commit: int = 20) -> CommitWindow:
    window = CommitWindow(CONFIG)
    for _ in range(20):
        clock.advance(cost)
        window.committed(clock.now(), per_commit, cost)
    return window


def test_the_first_write_of_all_does_not_wait() -> None:
    assert CommitWindow().wait(ManualClock().now(), 1, 1) == 0


def test_a_lone_writer_never_waits() -> None:
    clock, window = ManualClock(), CommitWindow()
    for _ in range(50):
        clock.advance(0.0003)
        assert window.wait(clock.now(), 1, 1) == 0
        clock.advance(0.0002)
        window.committed(clock.now(), 1, 0.0002)


def test_under_load_a_commit_waits_for_company() -> None:
    clock = ManualClock()
    window = busy_window(clock)
    seconds, jobs = waited(window, clock, arrivals_per_second=40_000)
    assert 0.002 < seconds <= CONFIG.max_seconds
    assert jobs > 80


def test_a_wait_ends_when_nobody_comes() -> None:
    clock = ManualClock()
    window = busy_window(clock)
    seconds, _ = waited(window, clock, arrivals_per_second=0)
    assert seconds == CONFIG.look_seconds


def test_a_full_batch_does_not_wait() -> None:
    clock = ManualClock()
    assert busy_window(clock).wait(clock.now(), 1, CONFIG.cells_full) == 0


def test_after_a_pause_the_load_of_before_is_forgotten() -> None:
    clock = ManualClock()
    window = busy_window(clock)
    clock.advance(CONFIG.idle_seconds * 2)
    assert window.wait(clock.now(), 1, 1) == 0


@given(
    st.lists(st.tuples(st.floats(0, 0.1), st.integers(1, 5000), st.floats(0, 0.5)), max_size=30),
    st.floats(0, 1e6),
    st.integers(1, 4000),
)
def test_no_history_makes_a_wait_longer_than_the_longest(
    history: list[tuple[float, int, float]], rate: float, jobs: int
) -> None:
    clock, window = ManualClock(), CommitWindow(CONFIG)
    for pause, count, seconds in history:
        clock.advance(pause)
        window.committed(clock.now(), count, seconds)
    total, _ = waited(window, clock, rate, jobs)
    assert total <= CONFIG.max_seconds + 1e-9
