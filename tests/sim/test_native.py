"""Native links in the simulator: the daemon's own links, sessions and comparisons, in a world of trouble."""

from __future__ import annotations

from dataclasses import replace

import pytest

from air.sim.air_peer import AirPeer
from air.sim.native import SILENT_SECONDS
from air.sim.plan import Options, Plan, chaotic, draw
from air.sim.world import World, run
from tests.sim.seeds import check


def world(options: Options, **peers: bool) -> World:
    plan: Plan = draw(options)
    plan.peers = [replace(peer, **peers) for peer in plan.peers]  # type: ignore[arg-type]
    return World(plan)


def airs(made: World) -> list[AirPeer]:
    return [peer for peer in made.peers if isinstance(peer, AirPeer)]


def stores(made: World) -> list[dict[tuple[str, str], object]]:
    return [
        {
            (soul, key): pair
            for soul, node in peer.disk.cells._nodes.items()
            for key, pair in node.fields.items()
        }
        for peer in airs(made)
    ]


@pytest.mark.parametrize("noise", [False, True], ids=["plain", "noise"])
@pytest.mark.parametrize("topology", ["star", "mesh"])
def test_peers_that_hold_everything_hold_the_same_after_a_split(topology: str, noise: bool) -> None:
    options = Options(peers=5, seed=3, wire="native", topology=topology, partition=45, shape="halves")
    made = world(options, everything=True, noise=noise)
    report = run(options, made)
    assert report.ok, report.violations[:3]
    first, *others = stores(made)
    assert first
    assert all(other == first for other in others)
    # They notice silence, come back, and compare.
    assert report.converged_s is not None
    assert report.converged_s < SILENT_SECONDS + 10
    assert sum(peer.native.mender.sessions for peer in airs(made) if peer.native) > 4


def test_of_two_links_between_the_same_peers_one_is_kept() -> None:
    options = Options(peers=4, seed=1, wire="native", topology="mesh", minutes=0.3)
    plan = draw(options)
    plan.peers = [
        replace(peer, dials=tuple(set(range(4)) - {index}), native=(True,) * 3, everything=True)
        for index, peer in enumerate(plan.peers)
    ]
    made = World(plan)
    report = run(options, made)
    assert report.ok, report.violations[:3]
    assert [len(peer.native.graph.carriers) for peer in airs(made) if peer.native] == [3] * 4


def test_what_did_not_fit_in_an_outbox_is_made_good_by_a_comparison() -> None:
    options = Options(peers=4, seed=2, wire="native", workload="bulk", bandwidth=50_000, minutes=0.5)
    made = world(options, everything=True, narrow=True)
    report = run(options, made)
    overflows = sum(
        peer.native.graph._hub.counters.values.get(("air_native_overflows_total", ""), 0)
        for peer in airs(made)
        if peer.native
    )
    assert report.ok, report.violations[:3]
    assert overflows > 0
    first, *others = stores(made)
    assert all(other == first for other in others)


def test_who_lies_on_the_native_wire_harms_nobody_else() -> None:
    for seed in range(1, 4):
        check(Options(peers=4, seed=seed, wire="native", liars=3, workload="hot", minutes=0.7))


def test_conflicts_are_found_in_the_journals_of_a_split_world() -> None:
    options = Options(peers=4, seed=1, wire="native", workload="hot", partition=10, minutes=0.7)
    made = world(options, everything=True)
    report = run(options, made)
    assert report.ok, report.violations[:3]
    assert made.causes.pairs > 0


def test_a_plan_without_native_links_is_what_it_was_before_there_were_any() -> None:
    for seed in range(1, 20):
        mixed, gun = draw(chaotic(6, seed)), draw(chaotic(6, seed, wire="gun"))
        # Only an Air peer has a disk that can be full.
        splits = [[fault for fault in plan.faults if fault.kind == "split"] for plan in (mixed, gun)]
        assert [fault.ways for fault in splits[0]] == [fault.ways for fault in splits[1]]
        assert [peer.dials for peer in mixed.peers] == [peer.dials for peer in gun.peers]
        assert [peer.offset for peer in mixed.peers] == [peer.offset for peer in gun.peers]
        assert [action.at for action in mixed.actions] == [action.at for action in gun.actions]
        assert not any(any(peer.native) for peer in gun.peers)
