"""Bugs that the simulator has found, each as the smallest test that fails without its mend."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from air.base.clock import Now
from air.base.env import Env
from air.base.keys import Identity
from air.base.metrics import Counters
from air.graph.effects import Persist
from air.graph.engine import EngineConfig
from air.graph.mesh import Role
from air.graph.upstream import UpstreamConfig
from air.model import Ack, Answer, Cell, Get, Put
from air.node.config import Config, GunConfig, NativeConfig, NodeConfig, StoreConfig
from air.node.native import Native
from air.node.relay import Relay
from air.store.api import Page
from air.store.memory import Memory
from air.sync.exchange import Exchange, ExchangeConfig
from air.sync.local import Watcher
from air.sync.native.session import PeerLink
from air.sync.repair.config import Summary
from air.transport.websocket import WebSocketConfig
from tests.peers import Peer

NOW = 1_700_000_000_000


def cell(value: str, state: float, key: str = "k", soul: str = "s") -> Cell:
    return Cell(soul, key, value, state)


def told(peer: Peer, link: int) -> list[Cell]:
    return [c for m in peer.heard(link) if isinstance(m, Put) for c in m.cells]


def test_what_is_written_before_a_dialled_peer_first_answers_is_owed_to_it() -> None:
    peer = Peer()
    peer.engine.near.expect("up")
    peer.attach(1)
    peer.say(1, Put("p", [cell("early", NOW - 10)]))
    peer.settle()
    peer.attach(7, Role.OUTBOUND, "up")
    assert told(peer, 7) == [cell("early", NOW - 10)]


@pytest.mark.anyio
async def test_a_daemon_owes_what_is_written_to_a_peer_that_it_has_never_reached(tmp_path: Path) -> None:
    config = Config(
        node=NodeConfig(data=tmp_path),
        # Nobody listens on port 1, so there is no first connection.
        gun=GunConfig(port=0, peers=("ws://127.0.0.1:1/gun",)),
        store=StoreConfig(engine="memory"),
    )
    async with Relay(config) as relay:
        with anyio.fail_after(10):
            while not relay.hub.engine.near._upstreams:
                await anyio.sleep(0.001)
        await relay.hub.put({"s": {"k": "v"}})
        assert relay.hub.engine.near.owed() == 1


def test_what_the_full_disk_of_a_dialled_peer_refuses_is_still_owed_to_it() -> None:
    for error, owed in (("store.full: no space", 1), ("gun.bad-value: never", 0)):
        peer = Peer()
        peer.attach(1)
        peer.attach(7, Role.OUTBOUND, "up")
        peer.say(1, Put("p", [cell("v", NOW - 10)]))
        peer.settle()
        (message,) = [m for m in peer.heard(7) if isinstance(m, Put)]
        peer.say(7, Ack("x", message.id, error))
        assert peer.engine.near.owed() == owed
        peer.engine.detach(7)
        peer.attach(7, Role.OUTBOUND, "up")
        assert len(told(peer, 7)) == owed


def test_no_write_counts_as_taken_before_a_dead_connection_is_noticed() -> None:
    assert UpstreamConfig().settle_seconds > WebSocketConfig().dead_seconds


def test_a_write_that_was_taken_without_an_answer_is_said_once_more_on_the_next_connection() -> None:
    peer = Peer()
    peer.attach(1)
    peer.attach(7, Role.OUTBOUND, "up")
    peer.say(1, Put("p", [cell("v", NOW - 10)]))
    peer.settle()
    for said in (1, 1, 0):
        assert len(told(peer, 7)) == said
        peer.advance(UpstreamConfig().settle_seconds + 1)
        assert peer.engine.near.owed() == 0
        peer.engine.detach(7)
        peer.attach(7, Role.OUTBOUND, "up")


def test_an_answer_to_a_write_that_was_taken_without_one_settles_it_for_good() -> None:
    peer = Peer()
    peer.attach(1)
    peer.attach(7, Role.OUTBOUND, "up")
    peer.say(1, Put("p", [cell("old", NOW - 10)]))
    peer.settle()
    peer.advance(UpstreamConfig().settle_seconds + 1)
    peer.say(1, Put("q", [cell("new", NOW - 5)]))
    peer.settle()
    for message in peer.heard(7):
        if isinstance(message, Put):
            peer.say(7, Ack("x", message.id))
    peer.engine.detach(7)
    peer.attach(7, Role.OUTBOUND, "up")
    assert told(peer, 7) == []


def test_a_reader_in_this_program_is_never_given_what_lost_or_is_not_due() -> None:
    peer = Peer()
    peer.attach(9, Role.LOCAL)
    peer.attach(7, Role.OUTBOUND, "up")
    peer.disk.write([cell("mine", NOW - 5)])
    peer.say(9, Get("g", "s"))
    peer.settle()
    peer.heard(9)
    later = {"k": ("theirs", NOW - 9), "soon": ("not yet", NOW + 60_000), "new": ("news", NOW - 7)}
    peer.say(7, Answer("x", "g", [("s", later)]))
    peer.settle()
    answers = [m for m in peer.heard(9) if isinstance(m, Answer)]
    assert [sorted(a.cells()) for a in answers] == [[cell("mine", NOW - 5), cell("news", NOW - 7, "new")]]


def test_what_memory_has_overtaken_is_not_told_after_the_newer_value() -> None:
    peer = Peer()
    peer.attach(1)
    peer.attach(2)
    peer.attach(9, Role.LOCAL)
    peer.say(9, Get("g", "s"))
    (fetch,) = peer.jobs
    peer.jobs.clear()
    # Written while the page is read; memory knows nothing of the node yet, so the disk has to judge.
    peer.say(1, Put("a", [cell("older", NOW - 9)]))
    peer.take(peer.engine.fetched(fetch.ticket, Page({}, None), peer.clock.now()))
    # Now memory knows the node, and judges this one itself.
    peer.say(2, Put("b", [cell("newer", NOW - 5)]))
    peer.settle()
    assert peer.changes == [cell("newer", NOW - 5)]
    assert peer.disk.read("s").fields["k"] == ("newer", NOW - 5)


def test_a_watcher_is_not_shown_a_page_that_was_read_before_something_newer_came() -> None:
    watcher = Watcher("s", None, 100)
    watcher.changed([cell("new", NOW)])
    assert watcher.take() == [cell("new", NOW)]
    watcher.queue([Answer("x", "g", [("s", {"k": ("old", NOW - 1), "other": ("v", NOW - 1)})])])
    assert watcher.take() == [cell("v", NOW - 1, "other")]


def test_what_a_watcher_remembers_of_what_it_has_shown_is_bounded() -> None:
    watcher = Watcher("s", None, 3)
    for number in range(10):
        watcher.changed([cell("v", NOW, f"k{number}")])
        watcher.take()
    assert len(watcher._shown) == 3


def test_answers_that_are_remembered_do_not_exceed_the_budget_of_memory() -> None:
    memory = Memory(20_000)
    for number in range(20):
        node = memory.ensure(f"s{number}")
        memory.set(node, "k", "x", NOW)
        memory.remember_encoded(node, b"x" * 2_000)
        assert memory.bytes <= 20_000


def test_data_with_nothing_behind_it_makes_no_room_for_copies_of_itself() -> None:
    memory = Memory(20_000, authoritative=True)
    nodes = [memory.ensure(f"s{number}") for number in range(20)]
    for node in nodes:
        memory.set(node, "k", "x", NOW)
    for node in nodes:
        memory.remember_encoded(node, b"x" * 2_000)
        assert memory.bytes <= 20_000
    assert len(memory) == 20


def test_the_engine_is_looked_after_although_nothing_was_due_when_its_clock_went_to_sleep() -> None:
    async def naps() -> tuple[float, float]:
        exchange = Exchange(Memory(2**20), None, Env(), ExchangeConfig(EngineConfig()), Counters())
        idle = exchange.nap(Now(0.0, NOW))
        exchange.engine.near.attach(7, Role.OUTBOUND, Now(0.0, NOW), "up", [])
        exchange.engine.near._outbound[7][1].sent("p", [], 0.0)
        return idle, exchange.nap(Now(UpstreamConfig().settle_seconds - 1, NOW))

    idle, sent = anyio.run(naps)
    assert idle <= 10
    assert sent <= 1


def test_an_edit_that_lost_to_what_memory_holds_comes_to_the_store_for_its_journal() -> None:
    peer = Peer()
    peer.attach(1)
    peer.attach(7, Role.PEER, "peer-b")
    peer.say(1, Get("g", "s"))
    peer.settle()
    peer.say(1, Put("p", [cell("ours", NOW - 5)]))
    peer.settle()
    peer.heard(1)
    peer.say(7, Put("q", [cell("theirs", NOW - 9)], marks=[(("peer-b", 1),)]))
    [persist] = [job for job in peer.jobs if isinstance(job, Persist)]
    assert (persist.cells, persist.marks) == ([cell("theirs", NOW - 9)], [(("peer-b", 1),)])
    peer.settle()
    assert [m for m in peer.heard(1) if isinstance(m, Put)] == []
    assert peer.disk.read("s").fields["k"] == ("ours", NOW - 5)


@pytest.mark.anyio
async def test_what_is_dropped_after_the_first_comparison_is_compared_too_and_not_an_hour_later(
    tmp_path: Path,
) -> None:
    config = Config(node=NodeConfig(data=tmp_path), gun=GunConfig(port=0), store=StoreConfig(engine="memory"))
    compared: list[object] = []

    async def with_peer(host: object, peer: object) -> Summary:
        compared.append(peer)
        return Summary(0, 0, 1, 0, 0, 0.0, equal=True)

    async with Relay(config) as relay:
        native = Native(relay.hub, Identity.generate(), NativeConfig(listen=()), relay.hub.env, Counters())
        native.repair.with_peer = with_peer  # type: ignore[assignment]
        async with native.running():
            for outbound in (True, False):
                compared.clear()
                entry = PeerLink(Identity.generate().peer_id, None, 1, "", outbound)  # type: ignore[arg-type]
                native._met(entry)
                for dropped in range(3):
                    with anyio.fail_after(5):
                        while len(compared) < dropped + outbound:
                            await anyio.sleep(0.001)
                    entry.overflows += 1
                    native._met(entry)
                entry.ended.set()
