"""The other decisions of the swarm: lifecycle, peer book, scores, gate, pool."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from air.base.address import Multiaddr
from air.base.clock import ManualClock, Now
from air.base.errors import ConfigError, Denied, Misuse, Violation
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.codec.envelope import seal_peer_record
from air.swarm.gate import Gate, GateConfig
from air.swarm.lifecycle import Lifecycle, Stage
from air.swarm.peerbook import PeerBook, PeerBookConfig, Source
from air.swarm.pool import Pool, PoolConfig
from air.swarm.score import ScoreConfig, Scores

ANN, BOB, CAT = (Identity(bytes([n]) * 32) for n in (1, 2, 3))
PLACE = Multiaddr("/ip4/192.0.2.1/tcp/4001")
START = Now(0.0, 0.0)
OTHER = Multiaddr("/ip4/192.0.2.2/tcp/4001")


# Lifecycle


def test_a_connection_lives_through_its_stages_in_order() -> None:
    clock = ManualClock()
    life = Lifecycle(1, str(PLACE), inbound=False, peer=ANN.peer_id)
    told = [life.to(Stage.CONNECTING, clock.now()), life.to(Stage.HANDSHAKING, clock.now())]
    told.append(life.to(Stage.AUTHENTICATED, clock.now(), peer=ANN.peer_id))
    assert life.observe(1, 10.0, clock.now()) is not None
    assert life.observe(2, 10.0, clock.now()) is None
    assert life.observe(0, 10.0, clock.now()) is None
    clock.advance(10.0)
    idle = life.observe(0, 10.0, clock.now())
    assert idle is not None
    assert idle.stage is Stage.IDLE
    end = life.end("link.reset", clock.now(), lost=True)
    assert [event.stage for event in end] == [Stage.LOST, Stage.CLOSED]
    assert end[1].reason == "link.reset"
    assert life.end("again", clock.now(), lost=True) == []
    assert all(event.connection == 1 and event.peer == ANN.peer_id for event in told)


def test_a_connection_that_comes_to_nothing_is_closed_but_not_lost() -> None:
    clock = ManualClock()
    life = Lifecycle(1, "", inbound=True)
    life.to(Stage.HANDSHAKING, clock.now())
    assert [event.stage for event in life.end("noise.handshake", clock.now(), lost=True)] == [Stage.CLOSED]
    assert Lifecycle(2, "", inbound=True).end("x", clock.now(), lost=False) == []


@given(st.lists(st.sampled_from(list(Stage)), max_size=12))
def test_no_order_of_calls_makes_a_life_that_makes_no_sense(stages: list[Stage]) -> None:
    clock = ManualClock()
    life = Lifecycle(1, "", inbound=False)
    seen: list[Stage] = []
    for stage in stages:
        try:
            seen.append(life.to(stage, clock.now()).stage)
        except Misuse:
            continue
    assert seen.count(Stage.CLOSED) <= 1
    assert Stage.DISCOVERED not in seen
    if Stage.CLOSED in seen:
        assert seen[-1] is Stage.CLOSED
    if Stage.ACTIVE in seen:
        assert seen.index(Stage.AUTHENTICATED) < seen.index(Stage.ACTIVE)


# Peer book


def test_addresses_have_a_source_and_an_end() -> None:
    clock, book = ManualClock(), PeerBook()
    assert book.add(ANN.peer_id, [PLACE], Source.HINT, clock.now())
    assert not book.add(ANN.peer_id, [OTHER], Source.IDENTIFY, clock.now())
    assert book.addresses(ANN.peer_id, clock.now()) == [OTHER, PLACE]
    clock.advance(601)
    assert book.addresses(ANN.peer_id, clock.now()) == [OTHER]
    clock.advance(3600)
    assert book.addresses(ANN.peer_id, clock.now()) == []
    book.add(ANN.peer_id, [PLACE], Source.GIVEN, clock.now())
    clock.advance(10**6)
    assert book.addresses(ANN.peer_id, clock.now()) == [PLACE]


def test_a_hint_does_not_shorten_what_the_peer_itself_said() -> None:
    clock, book = ManualClock(), PeerBook()
    book.add(ANN.peer_id, [PLACE], Source.IDENTIFY, clock.now())
    book.add(ANN.peer_id, [PLACE], Source.HINT, clock.now())
    clock.advance(700)
    assert book.addresses(ANN.peer_id, clock.now()) == [PLACE]


def test_addresses_in_use_do_not_expire() -> None:
    clock, book = ManualClock(), PeerBook()
    book.add(ANN.peer_id, [PLACE], Source.CONNECTED, clock.now())
    book.use(ANN.peer_id)
    clock.advance(10**6)
    assert book.addresses(ANN.peer_id, clock.now()) == [PLACE]
    book.unuse(ANN.peer_id, clock.now())
    assert book.addresses(ANN.peer_id, clock.now()) == [PLACE]
    clock.advance(3601)
    assert book.addresses(ANN.peer_id, clock.now()) == []


def test_an_address_of_another_peer_is_not_taken() -> None:
    clock, book = ManualClock(), PeerBook()
    book.add(ANN.peer_id, [PLACE.at(BOB.peer_id), OTHER.at(ANN.peer_id)], Source.HINT, clock.now())
    assert book.addresses(ANN.peer_id, clock.now()) == [OTHER]


def test_a_signed_record_replaces_an_older_one_and_nothing_else_does() -> None:
    clock, book = ManualClock(), PeerBook()
    book.add(ANN.peer_id, [OTHER], Source.IDENTIFY, clock.now())
    assert book.record(seal_peer_record(ANN, 5, [PLACE]), clock.now()) == ANN.peer_id
    assert book.addresses(ANN.peer_id, clock.now()) == [PLACE]
    assert book.record(seal_peer_record(ANN, 5, [OTHER]), clock.now()) is None
    assert book.record(seal_peer_record(ANN, 4, [OTHER]), clock.now()) is None
    assert book.addresses(ANN.peer_id, clock.now()) == [PLACE]
    assert book.record(seal_peer_record(ANN, 2**63 + 1, [OTHER]), clock.now()) == ANN.peer_id
    assert book.addresses(ANN.peer_id, clock.now()) == [OTHER]
    with pytest.raises(Violation) as caught:
        book.record(seal_peer_record(BOB, 9, [PLACE]), clock.now(), expected=ANN.peer_id)
    assert caught.value.code == "identify.wrong-record"


def test_the_peer_book_is_bounded_and_keeps_who_is_in_use() -> None:
    clock, book = ManualClock(), PeerBook(PeerBookConfig(peers_max=10, addresses_max=4))
    book.use(ANN.peer_id)
    for number in range(100):
        peer = Identity(number.to_bytes(32, "big")).peer_id
        book.add(
            peer,
            [Multiaddr(f"/ip4/192.0.2.{n}/tcp/1") for n in range(50)],
            Source.HINT,
            clock.now(),
        )
        assert len(book.addresses(peer, clock.now())) == 4
    assert len(book) == 10
    assert ANN.peer_id in book


# Scores and gate


def test_whoever_follows_the_peer_book_hears_what_peers_speak() -> None:
    book, heard = PeerBook(), list[tuple[str, frozenset[str]]]()
    peer = Identity.generate().peer_id
    with book.follow(lambda info: heard.append((info.peer, info.protocols))):
        book.present(peer, protocols=["/a"])
        book.present(peer, agent="nothing about protocols")
        book.present(peer, protocols=["/b"])
    book.present(peer, protocols=["/c"])
    assert heard == [(peer, frozenset({"/a"})), (peer, frozenset({"/b"}))]


def test_who_breaks_rules_is_shut_out_longer_each_time() -> None:
    clock, scores = ManualClock(), Scores(ScoreConfig(offences_max=3.0, ban_seconds=10, ban_seconds_max=35))
    assert scores.blame("ann", 1.0, clock.now()) == 0.0
    assert scores.blame("ann", 2.0, clock.now()) == 10
    assert scores.banned_seconds("ann", clock.now()) == 10
    clock.advance(10)
    assert scores.banned_seconds("ann", clock.now()) == 0
    assert scores.blame("ann", 3.0, clock.now()) == 20
    assert scores.blame("ann", 3.0, clock.now()) == 35
    assert scores.banned_seconds("bob", clock.now()) == 0


def test_praise_and_blame_fade() -> None:
    clock, scores = ManualClock(), Scores(ScoreConfig(half_life_seconds=100))
    scores.praise("ann", 8.0, clock.now())
    clock.advance(100)
    assert scores.value("ann", clock.now()) == pytest.approx(4.0)
    scores.blame("ann", 1.0, clock.now())
    assert scores.value("ann", clock.now()) == pytest.approx(2.0)
    clock.advance(1e6)
    assert scores.value("ann", clock.now()) == pytest.approx(0.0)


def test_the_memory_for_scores_is_bounded_and_forgets_bans_last() -> None:
    clock, scores = ManualClock(), Scores(ScoreConfig(peers_max=10, offences_max=1.0))
    scores.blame("bad", 1.0, clock.now())
    for number in range(100):
        scores.praise(f"peer{number}", 1.0, clock.now())
    assert len(scores) == 10
    assert scores.banned_seconds("bad", clock.now()) > 0


def test_a_newcomer_is_shut_out_although_all_who_are_remembered_are() -> None:
    clock, scores = ManualClock(), Scores(ScoreConfig(peers_max=2, offences_max=1.0))
    for peer in ("ann", "bob", "cat"):
        scores.blame(peer, 1.0, clock.now())
    assert [scores.banned_seconds(peer, clock.now()) > 0 for peer in ("ann", "bob", "cat")] == [
        False,
        True,
        True,
    ]
    assert len(scores) == 2


def gate(**settings: object) -> Gate:
    return Gate(GateConfig(**settings), ANN.peer_id, Scores())  # type: ignore[arg-type]


def code_of(call: object, *args: object, **how: object) -> str:
    with pytest.raises(Denied) as caught:
        call(*args, **how)  # type: ignore[operator]
    return caught.value.code


def test_the_gate_asks_cheap_questions_and_gives_codes() -> None:
    now = ManualClock().now()
    assert code_of(gate().may_dial, ANN.peer_id, now) == "gate.self"
    assert code_of(gate().authenticated, ANN.peer_id, PLACE, now, inbound=True) == "gate.self"
    strict = gate(peers_allowed=frozenset({BOB.peer_id}), networks_denied=("10.0.0.0/8",), dial_private=False)
    strict.may_dial(BOB.peer_id, now)
    assert code_of(strict.may_dial, CAT.peer_id, now) == "gate.peer"
    assert code_of(strict.may_accept, Multiaddr("/ip4/10.1.2.3/tcp/1")) == "gate.network"
    assert code_of(strict.may_accept, Multiaddr("/ip6/::ffff:10.1.2.3/tcp/1")) == "gate.network"
    strict.may_accept(Multiaddr("/dns4/example.com/tcp/1"))
    place = Multiaddr("/ip4/127.0.0.1/tcp/1")
    assert code_of(strict.may_dial_address, place, told=True) == "gate.reach"
    strict.may_dial_address(place, told=False)
    assert code_of(gate().may_dial_address, Multiaddr("/ip4/0.0.0.0/tcp/1"), told=False) == "gate.reach"
    picky = gate(ask=lambda peer, place, inbound: inbound)
    picky.authenticated(BOB.peer_id, PLACE, now, inbound=True)
    assert code_of(picky.authenticated, BOB.peer_id, PLACE, now, inbound=False) == "gate.asked"
    with pytest.raises(ConfigError):
        gate(networks_denied=("nonsense",))


def test_who_is_shut_out_is_neither_dialled_nor_let_in() -> None:
    clock, scores = ManualClock(), Scores(ScoreConfig(offences_max=1.0))
    door = Gate(GateConfig(), ANN.peer_id, scores)
    scores.blame(BOB.peer_id, 1.0, clock.now())
    assert code_of(door.may_dial, BOB.peer_id, clock.now()) == "gate.banned"
    assert code_of(door.authenticated, BOB.peer_id, None, clock.now(), inbound=True) == "gate.banned"


# Pool


@dataclass(eq=False)
class One:
    peer: PeerId
    number: int
    inbound: bool = False
    relayed: bool = False
    closed: bool = False
    streams: int = 0
    opened_at: Now = START
    tag: str = ""


def test_both_sides_of_a_double_connection_prefer_the_same_one() -> None:
    low, high = sorted((ANN.peer_id, BOB.peer_id))
    # Both dialled at once. Each side sees one inbound and one outbound session.
    at_low: Pool[One] = Pool(low, PoolConfig())
    at_high: Pool[One] = Pool(high, PoolConfig())
    low_dialled, high_dialled = One(high, 2, inbound=False), One(high, 1, inbound=True)
    for session in (low_dialled, high_dialled):
        at_low.add(session)
    seen_low_dialled, seen_high_dialled = One(low, 8, inbound=True), One(low, 7, inbound=False)
    for session in (seen_low_dialled, seen_high_dialled):
        at_high.add(session)
    assert at_low.best(high) is low_dialled
    assert at_high.best(low) is seen_low_dialled


def test_a_direct_session_is_preferred_and_a_spare_one_goes_when_it_was_idle() -> None:
    clock = ManualClock()
    pool: Pool[One] = Pool(ANN.peer_id, PoolConfig(spare_seconds=30))
    relayed, direct = One(BOB.peer_id, 1, relayed=True), One(BOB.peer_id, 2)
    assert pool.add(relayed)
    assert not pool.add(direct)
    assert pool.best(BOB.peer_id) is direct
    relayed.streams = 1
    assert pool.spare(clock.now()) == []
    clock.advance(100)
    assert pool.spare(clock.now()) == []
    relayed.streams = 0
    assert pool.spare(clock.now()) == []
    clock.advance(30)
    assert pool.spare(clock.now()) == [relayed]
    assert not pool.remove(relayed)
    assert pool.remove(direct)
    assert not pool.remove(direct)
    assert len(pool) == 0
    assert pool.best(BOB.peer_id) is None


def test_of_two_sessions_that_the_ends_number_differently_one_is_left() -> None:
    clock = ManualClock()
    dialler: Pool[One] = Pool(ANN.peer_id, PoolConfig(spare_seconds=30))
    listener: Pool[One] = Pool(BOB.peer_id, PoolConfig(spare_seconds=30))
    for name, there, here in (("first", 1, 2), ("second", 2, 1)):
        dialler.add(One(BOB.peer_id, there, tag=name))
        listener.add(One(ANN.peer_id, here, inbound=True, tag=name))
    for _ in range(10):
        clock.advance(10)
        closed = {one.tag for pool in (dialler, listener) for one in pool.spare(clock.now())}
        for pool in (dialler, listener):
            for one in pool:
                if one.tag in closed:
                    pool.remove(one)
    assert [one.tag for one in dialler] == [one.tag for one in listener] == ["first"]


def test_when_there_are_too_many_the_idle_and_the_worthless_go_first() -> None:
    clock = ManualClock()
    pool: Pool[One] = Pool(ANN.peer_id, PoolConfig(sessions_high=8, sessions_low=5, grace_seconds=60))
    peers = [Identity(bytes([n]) * 32).peer_id for n in range(10, 20)]
    sessions = [One(peer, n, streams=n % 2, opened_at=clock.now()) for n, peer in enumerate(peers)]
    for session in sessions:
        pool.add(session)
    assert pool.surplus(clock.now(), lambda peer: 0.0) == []
    clock.advance(60)
    pool.protect(peers[0])
    worth = {peer: float(n) for n, peer in enumerate(peers)}
    gone = pool.surplus(clock.now(), worth.__getitem__)
    assert [session.number for session in gone] == [2, 4, 6, 8, 1]
    pool.unprotect(peers[0])
    assert pool.surplus(clock.now(), worth.__getitem__)[0].number == 0


def test_sessions_that_are_saying_goodbye_do_not_cost_others_their_place() -> None:
    clock = ManualClock()
    pool: Pool[One] = Pool(ANN.peer_id, PoolConfig(sessions_high=8, sessions_low=5, grace_seconds=0))
    for n in range(10, 20):
        pool.add(One(Identity(bytes([n]) * 32).peer_id, n))
    gone = pool.surplus(clock.now(), lambda peer: 0.0)
    assert len(gone) == 5
    for session in gone:
        session.closed = True
    assert list(pool.surplus(clock.now(), lambda peer: 0.0)) == []


def test_marks_that_cross_are_no_configuration() -> None:
    with pytest.raises(ConfigError):
        PoolConfig(sessions_high=5, sessions_low=6)
