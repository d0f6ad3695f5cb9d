"""The same seed is the same run: in another process, and with another seed for Python's hashes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from air.sim.plan import WIRES, Options, chaotic, draw
from air.sim.world import World, run
from tests.sim.seeds import share


def traces(hash_seed: str, runs: int) -> list[tuple[str, int, int]]:
    options = f"--json --chaos --peers 5 --seed 501 --runs {runs}"
    done = subprocess.run(
        [sys.executable, "-m", "air", "sim", *options.split()],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        check=True,
        timeout=600,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [(line["trace"], line["events"], line["bytes"]) for line in lines]


def test_a_seed_has_the_same_trace_in_every_process() -> None:
    runs = share(50)
    first = traces("1", runs)
    assert len({trace for trace, _, _ in first}) == runs
    assert traces("2", runs) == first


def test_most_of_the_runs_that_are_replayed_have_native_links() -> None:
    plans = [draw(chaotic(5, seed)) for seed in range(501, 501 + share(50))]
    assert sum(World(plan).native for plan in plans) > len(plans) / 2


def test_a_seed_with_encrypted_links_has_the_same_trace_twice() -> None:
    seeds = (
        seed for seed in range(1, 100) if any(p.noise and any(p.native) for p in draw(chaotic(5, seed)).peers)
    )
    options = chaotic(5, next(seeds))
    assert run(options).trace == run(options).trace


@pytest.mark.parametrize("wire", WIRES)
def test_a_seed_has_the_same_trace_twice_in_one_process(wire: str) -> None:
    options = chaotic(6, 77, wire=wire)
    assert run(options).trace == run(options).trace


def test_a_fault_that_is_left_out_leaves_the_others_as_they_are() -> None:
    options = Options(peers=6, seed=3, crash=0.2, partition=5, loss=0.1)
    faults = draw(options).faults
    some = draw(Options(peers=6, seed=3, crash=0.2, partition=5, loss=0.1, only_faults=(0, 2))).faults
    assert some == [faults[0], faults[2]]


def test_looking_at_a_run_does_not_change_it() -> None:
    options = chaotic(5, 12)
    world = World(draw(options))
    seen: list[bytes] = []
    world.network.watch = lambda *what: seen.append(what[-1])
    assert run(options, world).trace == run(options).trace
    assert seen
