"""Many small worlds, some large ones: whatever goes wrong in them, all rules hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import TypeAlias

import pytest

from air.sim.plan import TOPOLOGIES, WIRES, Options
from air.sim.workloads import WORKLOADS
from tests.sim.seeds import check, check_all, share

Runs: TypeAlias = Mapping[tuple[int, int], Future[None]]

_PART = 25
SMALL = share(1_000)
LARGE = share(20)
HUGE = share(1)


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    """All of the many seeds, begun at once on all cores, the longest first; by peers and first seed."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        parts = [(200, seed, seed) for seed in range(1, HUGE + 1)]
        parts += [(50, seed, seed) for seed in range(1, LARGE + 1)]
        parts += [(5, seed, min(seed + _PART - 1, SMALL)) for seed in range(1, SMALL + 1, _PART)]
        yield {(peers, first): pool.submit(check_all, peers, first, last) for peers, first, last in parts}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("first", range(1, SMALL + 1, _PART))
def test_five_peers_with_any_mixture_of_faults(runs: Runs, first: int) -> None:
    runs[5, first].result()


@pytest.mark.parametrize("seed", range(1, LARGE + 1))
def test_fifty_peers_with_any_mixture_of_faults(runs: Runs, seed: int) -> None:
    runs[50, seed].result()


@pytest.mark.parametrize("seed", range(1, HUGE + 1))
def test_two_hundred_peers(runs: Runs, seed: int) -> None:
    runs[200, seed].result()


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("workload", sorted(WORKLOADS))
def test_without_faults_nothing_is_said_again_and_again_and_all_agree_at_once(
    workload: str, topology: str, wire: str
) -> None:
    report = check(Options(peers=6, seed=4, workload=workload, topology=topology, minutes=0.4, wire=wire))
    assert report.converged_s is not None
    # Whoever is offline by plan is a fault of the workload's own.
    if workload not in ("churn", "offline"):
        assert report.converged_s <= 15


@pytest.mark.parametrize(
    "options",
    [
        Options(peers=5, partition=8, minutes=0.5),
        Options(peers=5, loss=0.3, minutes=0.5),
        Options(peers=5, skew=600, minutes=0.5),
        Options(peers=5, crash=0.3, minutes=0.5),
        Options(peers=5, full=0.3, minutes=0.5),
        Options(peers=5, liars=2, minutes=0.5),
        Options(peers=5, tight=True, minutes=0.5, workload="wide"),
    ],
    ids=["partition", "loss", "skew", "crash", "full", "liars", "tight"],
)
@pytest.mark.parametrize("wire", ["gun", "native"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_each_fault_by_itself(options: Options, topology: str, wire: str) -> None:
    for seed in range(1, share(2) + 1):
        check(replace(options, seed=seed, topology=topology, wire=wire))
