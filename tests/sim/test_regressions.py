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
    check(chaotic(peers, seed, wire="gun"))


FAILED_NATIVE: list[tuple[int, int, str, str]] = [
    # peers, seed, wire, what was wrong
    (
        5,
        30,
        "mixed",
        "an edit that lost against what memory held never came to the disk, so no journal told of it",
    ),
    (5, 39, "mixed", "the same on a star"),
    (5, 66, "native", "the same in a mesh of native links only"),
    (5, 68, "native", "the same with clocks ten minutes off"),
    (
        5,
        3139,
        "mixed",
        "what was dropped for a peer after the first comparison was not compared before an hour was over",
    ),
    (5, 3175, "mixed", "the same in a mesh"),
    (5, 3229, "mixed", "the same on a star"),
    (
        5,
        4325,
        "mixed",
        "each pass of a comparison held what is not due once more, until there was no room for the rest",
    ),
    (5, 978, "mixed", "the judge took several edits of one field in one batch for one: they share a dot"),
    (5, 983, "mixed", "the same with liars"),
]


@pytest.mark.parametrize(
    ("peers", "seed", "wire", "story"), FAILED_NATIVE, ids=[f"{p}-{s}-{w}" for p, s, w, _ in FAILED_NATIVE]
)
def test_a_seed_with_native_links_that_failed_once(peers: int, seed: int, wire: str, story: str) -> None:
    assert story
    check(chaotic(peers, seed, wire=wire))
