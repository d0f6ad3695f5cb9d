"""Links to peers that hold everything, and links that want souls by their beginning."""

from __future__ import annotations

import pytest

from air.base.errors import LimitReached
from air.graph.engine import EngineConfig
from air.graph.mesh import PREFIX_MAX, Role
from air.graph.neighbours import NeighbourConfig
from air.model import Ack, Answer, Cell, Get, Mark, Put
from tests.peers import Peer

NOW = 1_700_000_000_000
B, C = 11, 12


def cell(soul: str = "s", key: str = "k", value: object = "v", state: float = NOW - 10) -> Cell:
    return Cell(soul, key, value, state)  # type: ignore[arg-type]


def puts(peer: Peer, link: int) -> list[Put]:
    return [message for message in peer.heard(link) if isinstance(message, Put)]


def told(peer: Peer, link: int) -> list[Cell]:
    return [cell for put in puts(peer, link) for cell in put.cells]


@pytest.fixture
def peer() -> Peer:
    made = Peer()
    made.attach(1)
    made.attach(B, Role.PEER, "peer-b")
    made.attach(C, Role.PEER, "peer-c")
    return made


def test_a_peer_is_told_every_write_once_it_is_durable_and_not_before(peer: Peer) -> None:
    peer.say(1, Put("a", [cell()]))
    assert told(peer, B) == []
    peer.settle()
    assert told(peer, B) == told(peer, C) == [cell()]


def test_a_peer_hears_nothing_of_what_the_disk_refused(peer: Peer) -> None:
    peer.say(1, Put("a", [cell()]))
    peer.settle(fail="store.full: no space")
    assert told(peer, B) == []


def test_a_peer_never_hears_its_own_write_again_and_the_others_hear_it_with_its_mark(peer: Peer) -> None:
    mark: Mark = (("peer-b", 7), ("peer-x", 3))
    peer.say(B, Put("a", [cell()], marks=[mark]))
    peer.settle()
    heard = peer.heard(B)
    assert [message.re for message in heard if isinstance(message, Ack)] == ["a"]
    assert not any(isinstance(message, Put) for message in heard)
    [put] = puts(peer, C)
    assert (put.cells, put.marks) == ([cell()], [mark])


def test_a_write_that_comes_by_a_third_peer_is_not_sent_to_who_wrote_it(peer: Peer) -> None:
    peer.say(C, Put("a", [cell()], marks=[(("peer-b", 7),)]))
    peer.settle()
    assert told(peer, B) == []


def test_what_lost_is_not_passed_on_to_peers(peer: Peer) -> None:
    peer.say(1, Put("a", [cell(value="newer", state=NOW - 5)]))
    peer.settle()
    told(peer, C)
    peer.say(B, Put("b", [cell(value="older", state=NOW - 9), cell(key="other")]))
    peer.settle()
    assert told(peer, C) == [cell(key="other")]


def test_marks_stay_with_their_cells_when_a_part_waits_for_its_time(peer: Peer) -> None:
    soon = cell(key="soon", state=NOW + 1_000)
    peer.say(B, Put("a", [soon, cell()], marks=[(("peer-b", 2),), (("peer-b", 1),)]))
    peer.settle()
    [put] = puts(peer, C)
    assert (put.cells, put.marks) == ([cell()], [(("peer-b", 1),)])
    peer.advance(2)
    peer.settle()
    [put] = puts(peer, C)
    assert (put.cells, put.marks) == ([soon], [(("peer-b", 2),)])


def test_clients_hear_what_a_peer_wrote_at_once(peer: Peer) -> None:
    peer.say(1, Get("g", "s"))
    peer.settle()
    peer.heard(1)
    peer.say(B, Put("a", [cell()]))
    assert told(peer, 1) == [cell()]


def test_what_nobody_here_has_is_asked_of_peers_and_asking_does_not_subscribe_them(peer: Peer) -> None:
    peer.say(1, Get("g", "s"))
    peer.settle()
    [asked] = [message for message in peer.heard(B) if isinstance(message, Get)]
    peer.heard(1)
    peer.say(B, Answer("x", asked.id, [("s", {"k": ("v", NOW - 10)})]))
    assert [m.cells() for m in peer.heard(1) if isinstance(m, Answer)] == [[cell()]]
    peer.say(B, Get("h", "s"))
    peer.settle()
    assert peer.engine.near.links[B].wants_count == 0


def test_a_peer_that_is_gone_is_told_nothing(peer: Peer) -> None:
    peer.engine.detach(B)
    peer.say(1, Put("a", [cell()]))
    peer.settle()
    assert told(peer, B) == []
    assert told(peer, C) == [cell()]


# -- prefixes ------------------------------------------------------------------


def test_a_link_that_wants_a_prefix_hears_these_nodes_and_nothing_else(peer: Peer) -> None:
    peer.attach(2)
    peer.engine.subscribe(2, "room/")
    peer.say(1, Put("a", [cell("room/1"), cell("room"), cell("zoo"), cell("room/2")]))
    peer.settle()
    assert told(peer, 2) == [cell("room/1"), cell("room/2")]


def test_a_field_that_is_wanted_in_two_ways_is_told_once(peer: Peer) -> None:
    peer.attach(2)
    for prefix in ("", "ro", "room/"):
        peer.engine.subscribe(2, prefix)
    peer.say(2, Get("g", "room/1"))
    peer.settle()
    peer.heard(2)
    peer.say(1, Put("a", [cell("room/1")]))
    peer.settle()
    assert told(peer, 2) == [cell("room/1")]


def test_a_prefix_ends_when_it_is_given_up_and_when_the_link_ends(peer: Peer) -> None:
    for link in (2, 3):
        peer.attach(link)
        peer.engine.subscribe(link, "r")
    peer.engine.unsubscribe(2, prefix="r")
    peer.engine.detach(3)
    peer.say(1, Put("a", [cell("room")]))
    peer.settle()
    assert told(peer, 2) == told(peer, 3) == []
    assert not peer.engine.near.interest.has_prefixes


def test_a_node_and_a_field_can_be_given_up(peer: Peer) -> None:
    peer.attach(2)
    for id, soul in (("g", "s"), ("h", "t")):
        peer.say(2, Get(id, soul))
    peer.settle()
    peer.heard(2)
    peer.engine.unsubscribe(2, "s")
    peer.say(1, Put("a", [cell("s"), cell("t")]))
    peer.settle()
    assert told(peer, 2) == [cell("t")]


def test_prefixes_count_as_subscriptions_and_are_bounded_in_length() -> None:
    peer = Peer(config=EngineConfig(neighbours=NeighbourConfig(subscriptions_max=2)))
    peer.attach(1)
    peer.engine.subscribe(1, "a")
    peer.engine.subscribe(1, "a")
    peer.engine.subscribe(1, "b")
    with pytest.raises(LimitReached) as refused:
        peer.engine.subscribe(1, "c")
    assert refused.value.code == "limit.subscriptions"
    peer.engine.unsubscribe(1, prefix="a")
    with pytest.raises(LimitReached) as refused:
        peer.engine.subscribe(1, "x" * (PREFIX_MAX + 1))
    assert refused.value.code == "limit.prefixes"


# -- what dialled peers have taken ---------------------------------------------


def test_it_is_told_which_writes_a_dialled_peer_has_taken_or_refused(peer: Peer) -> None:
    peer.attach(7, Role.OUTBOUND, "up")
    peer.say(1, Put("a", [cell()]))
    peer.settle()
    [put] = puts(peer, 7)
    peer.say(7, Ack("x", put.id))
    assert [(one.peer, list(one.cells), one.error) for one in peer.settled] == [("up", [cell()], None)]


def test_it_is_told_that_a_peer_has_taken_a_write_of_this_program(peer: Peer) -> None:
    peer.attach(7, Role.LOCAL)
    peer.say(7, Put("a", [cell()]))
    peer.settle()
    [put] = puts(peer, B)
    peer.say(B, Ack("x", put.id))
    assert [(one.peer, list(one.cells), one.error) for one in peer.settled] == [("peer-b", [cell()], None)]


# -- what peers ask relays for -------------------------------------------------


def asked(peer: Peer, link: int) -> list[object]:
    return [message.soul for message in peer.heard(link) if isinstance(message, Get)]


def test_a_peer_that_asks_relays_is_told_once_what_is_wanted_here_now_and_later(peer: Peer) -> None:
    peer.say(1, Put("p", [cell("old"), cell("new")]))
    peer.say(1, Get("g", "old"))
    peer.settle()
    peer.heard(B)
    peer.take(peer.engine.tell_wishes(B))
    assert asked(peer, B) == ["old"]
    for id in ("h", "i"):
        peer.say(1, Get(id, "new"))
        peer.settle()
    assert asked(peer, B) == ["new"]
    assert asked(peer, C) == []


def test_what_only_a_peer_wants_is_not_asked_of_that_peer(peer: Peer) -> None:
    peer.engine.near.expect("up")
    peer.say(B, Get("g", "s"))
    peer.settle()
    peer.heard(B)
    peer.take(peer.engine.tell_wishes(B))
    assert asked(peer, B) == []


def test_a_relay_that_comes_later_is_asked_for_what_a_peer_wants(peer: Peer) -> None:
    peer.engine.near.expect("up")
    peer.say(B, Get("g", "s"))
    peer.settle()
    peer.attach(7, Role.OUTBOUND, "up")
    assert asked(peer, 7) == ["s"]
    peer.say(7, Put("a", [cell()]))
    peer.settle()
    assert told(peer, B) == [cell()]
