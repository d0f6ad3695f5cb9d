"""A peer in the simulator says to recorded gun.js clients what a peer outside of it says."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest

from air.sim.air_peer import AirPeer
from air.sim.network import End
from air.sim.plan import Options, PeerPlan, Plan
from air.sim.schedule import EPOCH
from air.sim.world import World
from tests.core.test_vectors_wire import (
    WITH_RELAY,
    as_relay,
    cells_of,
    ends,
    known_before,
    messages,
    names,
)

pytestmark = pytest.mark.vectors


class Client:
    """The other end of a connection; it only listens."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def received(self, frame: bytes) -> None:
        raw = json.loads(frame)
        self.said += raw if isinstance(raw, list) else [raw]

    def closed(self, reason: str) -> None: ...

    def writable(self) -> None: ...


def simulated(session: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What the simulated peer says when it hears a recorded session."""
    world = World(Plan(Options(), [PeerPlan("air")]))
    peer = world.peers[0]
    assert isinstance(peer, AirPeer)
    peer.disk.write(known_before(session))
    peer.start()
    ears: dict[str, tuple[Client, End]] = {}
    for frame in session["frames"]:
        sender, receiver = ends(frame)
        if receiver != "R":
            continue
        if sender not in ears:
            near, far = (End(world.network, host, 1 - host, 0.001) for host in (1, 0))
            near.other, far.other = far, near
            near.events = client = Client()
            far.events = peer.accept(far)
            ears[sender] = (client, near)
        newest = max((cell.state for raw in messages(frame) for cell in cells_of(raw)), default=0.0)
        if newest > peer.clock.wall:
            peer.clock.offset = (newest - EPOCH) / 1000
        ears[sender][1].send([frame["raw"].encode("utf-8", "surrogatepass")])
        world.scheduler.run(world.scheduler.time + 0.5)
    return {sender: client.said for sender, (client, _) in ears.items()}


def plain(said: list[dict[str, Any]]) -> list[str]:
    """Messages without the ids that a peer draws for itself, in an order of their own."""
    own = ("#", "pid")
    return sorted(
        json.dumps(
            {name: 1 if name == "%" else part for name, part in raw.items() if name not in own},
            sort_keys=True,
        )
        for raw in said
    )


@pytest.mark.parametrize("session", WITH_RELAY, ids=names)
def test_recorded_clients_hear_the_same_inside_and_outside_of_the_simulator(session: dict[str, Any]) -> None:
    _, outside = as_relay(session)
    inside = simulated(session)
    assert set(inside) == set(outside)
    differing = defaultdict(list)
    for client, said in inside.items():
        if plain(said) != plain(outside[client]):
            differing[client] += [m for m in plain(said) if m not in plain(outside[client])]
            differing[client] += [m for m in plain(outside[client]) if m not in plain(said)]
    assert not differing
