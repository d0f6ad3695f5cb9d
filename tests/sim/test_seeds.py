"""Many small worlds, some large ones: whatever goes wrong in them, all rules hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from air.sim.plan import TOPOLOGIES, WIRES, Options, chaotic
from air.sim.workloads import WORKLOADS
from tests.sim.seeds import FULL, check, share

_PART = 25
SMALL = share(1_000, 400)
LARGE = share(20, 6)


@pytest.mark.parametrize("first", range(1, SMALL + 1, _PART))
def test_five_peers_with_any_mixture_of_faults(first: int) -> None:
    for seed in range(first, min(first + _PART, SMALL + 1)):
        check(chaotic(5, seed))


@pytest.mark.parametrize("seed", range(1, LARGE + 1))
def test_fifty_peers_with_any_mixture_of_faults(seed: int) -> None:
    check(chaotic(50, seed))


@pytest.mark.skipif(not FULL, reason="half a minute; AIR_SIM_SEEDS=full")
def test_two_hundred_peers() -> None:
    check(chaotic(200, 1))


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
    for seed in range(1, share(20, 2) + 1):
        check(replace(options, seed=seed, topology=topology, wire=wire))
