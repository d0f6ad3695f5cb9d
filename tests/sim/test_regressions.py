"""Seeds that failed once, each with the story of its bug in one line."""

from __future__ import annotations

import pytest

from air.sim.plan import chaotic
from tests.sim.seeds import check

FAILED: list[tuple[int, int, str]] = [
    # peers, seed, what was wrong
    (5, 90, "a write that nobody answers was never settled: the clock had gone to sleep before it was sent"),
    (5, 210, "the same in a mesh with clocks ten minutes off"),
    (5, 254, "the same on two peers at once"),
    (5, 19, "a watcher in the program was shown the raw answer of a dialled peer: older, or not due yet"),
    (5, 33, "the same through a mesh"),
    (5, 49, "the same with a liar's states of the future"),
    (5, 2, "what was written before the first connection to a dialled peer was owed to nobody"),
    (5, 71, "the same on a star, for a client with Air inside"),
    (5, 144, "the same for a bulk import"),
    (5, 372, "a write counted as taken while the dialled peer held it back, and was lost when that crashed"),
    (5, 468, "a write counted as taken after 30 s on a connection that was dead, which takes 75 s to notice"),
    (5, 778, "the same with key lookups"),
    (5, 627, "what the full disk of a dialled peer refused was never sent to it again"),
    (5, 27, "answers remembered in memory exceeded its budget until the next write"),
    (5, 54, "the same with 64 KiB"),
    (5, 86, "the same, with liars"),
    (5, 2459, "an older value was told after a newer one: memory had learnt the node in between"),
    (50, 1, "a watcher was shown a page that was read before something newer came, after the newer"),
]


@pytest.mark.parametrize(("peers", "seed", "story"), FAILED, ids=[f"{p}-{s}" for p, s, _ in FAILED])
def test_a_seed_that_failed_once(peers: int, seed: int, story: str) -> None:
    assert story
    check(chaotic(peers, seed))
