"""The engine: what is merged, told, asked, held back and acknowledged."""

from __future__ import annotations

import pytest

from air.base.errors import LimitReached, Violation
from air.graph.defer import DeferredConfig
from air.graph.engine import EngineConfig
from air.graph.mesh import Role
from air.graph.neighbours import NeighbourConfig
from air.graph.upstream import UpstreamConfig
from air.model import ALL, Ack, Answer, Cell, Ephemeral, Get, Lex, Put, SoulRange
from tests.peers import Peer

NOW = 1_700_000_000_000


def put(id: str, *cells: Cell) -> Put:
    return Put(id, list(cells))


def cell(soul: str = "s", key: str = "k", value: object = "v", state: float = NOW - 10) -> Cell:
    return Cell(soul, key, value, state)  # type: ignore[arg-type]


def acks(peer: Peer, link: int) -> list[tuple[object, str | None]]:
    return [(m.re, m.error) for m in peer.heard(link) if isinstance(m, Ack)]


def told(peer: Peer, link: int) -> list[Cell]:
    return [c for m in peer.heard(link) if isinstance(m, Put) for c in m.cells]


def answered(peer: Peer, link: int) -> list[list[Cell]]:
    return [m.cells() for m in peer.heard(link) if isinstance(m, Answer)]


@pytest.fixture
def peer() -> Peer:
    made = Peer()
    for link in (1, 2, 3):
        made.attach(link)
    return made


# -- acknowledging -------------------------------------------------------------


def test_a_put_is_acknowledged_after_the_disk_and_not_before(peer: Peer) -> None:
    peer.say(1, put("a", cell()))
    assert acks(peer, 1) == []
    peer.settle()
    assert acks(peer, 1) == [("a", None)]


def test_a_stale_an_equal_and_a_repeated_put_are_acknowledged_too(peer: Peer) -> None:
    peer.say(1, put("a", cell(state=NOW - 5)))
    peer.settle()
    peer.heard(1)
    for id, state in (("b", NOW - 9), ("c", NOW - 5), ("a", NOW - 5)):
        peer.say(1, put(id, cell(state=state)))
        peer.settle()
        assert acks(peer, 1) == [(id, None)]


def test_a_put_that_the_disk_refuses_is_answered_with_the_reason_and_forgotten(peer: Peer) -> None:
    peer.say(1, Get("g", "s"))
    peer.settle()
    peer.heard(1)
    peer.say(1, put("a", cell()))
    peer.settle(fail="store.full: no space")
    assert acks(peer, 1) == [("a", "store.full: no space")]
    peer.say(2, Get("h", "s"))
    peer.settle()
    assert answered(peer, 2)[-1] == []
    # The same message again, once there is space: not taken for a duplicate.
    peer.say(1, put("a", cell()))
    peer.settle()
    assert acks(peer, 1) == [("a", None)]
    assert peer.stored()


def test_a_put_of_nothing_is_acknowledged(peer: Peer) -> None:
    peer.say(1, put("a"))
    peer.settle()
    assert acks(peer, 1) == [("a", None)]


# -- merging -------------------------------------------------------------------


def test_an_old_write_after_a_restart_does_not_win(peer: Peer) -> None:
    peer.say(1, put("a", cell(value="new", state=NOW - 1)))
    peer.settle()
    peer.restart()
    peer.attach(1)
    peer.attach(2)
    peer.say(2, Get("g", "s", Lex(exact="k")))
    peer.settle()
    peer.heard(2)
    peer.memory.drop("s")
    peer.say(1, put("b", cell(value="old", state=NOW - 2)))
    peer.settle()
    assert acks(peer, 1) == [("b", None)]
    assert told(peer, 2) == []
    peer.say(2, Get("h", "s"))
    peer.settle()
    assert answered(peer, 2) == [[cell(value="new", state=NOW - 1)]]


def test_equal_states_are_decided_by_text_on_disk_as_in_memory(peer: Peer) -> None:
    for forget in (True, False):
        for first, second in (("a", "b"), ("b", "a")):
            soul = f"{forget}{first}"
            peer.say(1, put(f"1{soul}", cell(soul, value=first)))
            peer.settle()
            if forget:
                peer.memory.drop(soul)
            peer.say(2, put(f"2{soul}", cell(soul, value=second)))
            peer.settle()
            assert peer.disk.read(soul).fields["k"][0] == "b"


def test_what_memory_forgets_while_it_is_written_is_still_read_right(peer: Peer) -> None:
    peer.say(1, Get("g", "s"))
    peer.settle()
    peer.say(1, put("a", cell()))
    peer.memory.drop("s")
    peer.say(2, Get("h", "s"))
    peer.settle()
    assert answered(peer, 2) == [[cell()]]
    peer.say(3, Get("i", "s"))
    peer.settle()
    assert answered(peer, 3) == [[cell()]]


# -- telling others ------------------------------------------------------------


def test_who_asked_for_a_node_or_a_field_is_told_and_nobody_else(peer: Peer) -> None:
    peer.say(1, Get("g1", "s"))
    peer.say(2, Get("g2", "s", Lex(exact="other")))
    peer.settle()
    for link in (1, 2, 3):
        peer.heard(link)
    peer.say(3, put("p", cell()))
    peer.settle()
    assert told(peer, 1) == [cell()]
    assert told(peer, 2) == []
    assert told(peer, 3) == []


def test_a_known_field_is_told_at_once_and_an_unknown_one_after_the_disk_has_judged(peer: Peer) -> None:
    peer.say(1, Get("g1", "s"))
    peer.settle()
    peer.heard(1)
    peer.say(3, put("p", cell()))
    assert told(peer, 1) == [cell()]
    peer.memory.drop("s")
    peer.say(3, put("q", cell(state=NOW - 1)))
    assert told(peer, 1) == []
    peer.settle()
    assert told(peer, 1) == [cell(state=NOW - 1)]


def test_a_message_goes_on_whole_under_its_own_id_and_in_part_under_another(peer: Peer) -> None:
    peer.say(1, Get("g1", "a"))
    peer.say(1, Get("g2", "b"))
    peer.say(2, Get("g3", "a"))
    peer.settle()
    peer.heard(1)
    peer.heard(2)
    message = put("p", cell("a"), cell("b"))
    message.extra = {"zzz": "kept"}
    peer.say(3, message)
    (whole,) = peer.heard(1)
    (part,) = peer.heard(2)
    assert isinstance(whole, Put)
    assert isinstance(part, Put)
    assert (whole.id, list(whole.cells), whole.extra) == ("p", [cell("a"), cell("b")], {"zzz": "kept"})
    assert part.id != "p"
    assert list(part.cells) == [cell("a")]


def test_a_peer_named_as_having_the_message_is_not_told_again(peer: Peer) -> None:
    peer.say(1, Get("g1", "s"))
    peer.take(peer.engine.greeted(1, "pid-one", peer.clock.now()))
    peer.settle()
    peer.heard(1)
    peer.say(3, Put("p", [cell()], seen_by=("pid-one",)))
    peer.settle()
    assert told(peer, 1) == []


def test_a_link_that_is_gone_is_told_nothing(peer: Peer) -> None:
    peer.say(1, Get("g1", "s"))
    peer.settle()
    peer.engine.detach(1)
    peer.heard(1)
    peer.say(3, put("p", cell()))
    peer.settle()
    assert peer.heard(1) == []


def test_a_repeated_message_is_not_told_again(peer: Peer) -> None:
    peer.say(1, Get("g1", "s"))
    peer.settle()
    peer.heard(1)
    for link in (2, 3, 2):
        peer.say(link, put("p", cell()))
    peer.settle()
    assert told(peer, 1) == [cell()]


def test_a_watcher_in_this_program_is_notified(peer: Peer) -> None:
    peer.attach(9, Role.LOCAL)
    peer.say(9, Get("g", "s", Lex(exact="k")))
    peer.settle()
    peer.say(1, put("p", cell(), cell(key="other")))
    peer.settle()
    assert peer.changes == [cell()]


# -- reading -------------------------------------------------------------------


def test_something_missing_is_answered_at_once(peer: Peer) -> None:
    peer.say(1, Get("g", "nowhere"))
    peer.settle()
    assert answered(peer, 1) == [[]]
    peer.say(1, Get("h", "nowhere"))
    assert answered(peer, 1) == [[]]


def test_a_question_that_comes_again_is_answered_again_and_not_passed_on_again(peer: Peer) -> None:
    peer.attach(7, Role.OUTBOUND, "up")
    lex = Lex(prefix="a", budget=9)  # a question that a dialled peer is asked each time
    for link in (1, 1, 2):
        peer.say(link, Get("g", "s", lex))
        peer.settle()
        assert answered(peer, link) == [[]]
    assert len([m for m in peer.heard(7) if isinstance(m, Get)]) == 1
    peer.say(1, Get("h", "s", lex))
    peer.settle()
    assert len([m for m in peer.heard(7) if isinstance(m, Get)]) == 1


def test_a_large_node_comes_in_pages_and_is_not_kept_whole(peer: Peer) -> None:
    keys = [f"k{i:05}" for i in range(5000)]
    peer.disk.write([cell("big", key) for key in keys])
    peer.say(1, Get("g", "big"))
    peer.settle()
    answers = [m for m in peer.heard(1) if isinstance(m, Answer)]
    assert len(answers) > 3
    assert [a.more for a in answers] == [True] * (len(answers) - 1) + [False]
    assert [c.key for a in answers for c in a.cells()] == keys
    assert peer.memory.node("big") is None


def test_a_range_and_a_prefix_are_the_same_from_memory_and_from_disk(peer: Peer) -> None:
    peer.disk.write([cell("log", f"2024/{month:02}") for month in range(1, 13)])
    lexes = [Lex(prefix="2024/", budget=5), Lex(start="2024/03", end="2024/05", budget=100), ALL]
    for id, lex in enumerate(lexes):
        cold = Peer()
        cold.disk = peer.disk
        cold.attach(1)
        cold.say(1, Get("c", "log", lex))
        cold.settle()
        warm = Peer()
        warm.disk = peer.disk
        warm.attach(1)
        warm.say(1, Get("w", "log"))
        warm.settle()
        warm.heard(1)
        warm.say(1, Get(f"x{id}", "log", lex))
        assert answered(cold, 1) == answered(warm, 1)


def test_a_soul_prefix_reads_many_nodes_and_subscribes_to_none(peer: Peer) -> None:
    peer.disk.write([cell("room/a"), cell("room/b"), cell("root")])
    peer.say(1, Get("g", SoulRange("room/", 1000)))
    peer.settle()
    assert answered(peer, 1) == [[cell("room/a"), cell("room/b")]]
    assert len(peer.engine.near.interest) == 0


def test_an_unreadable_disk_is_an_error_and_not_an_empty_answer(peer: Peer) -> None:
    peer.say(1, Get("g", "s"))
    (job,) = peer.jobs
    peer.jobs.clear()
    peer.take(peer.engine.aborted(job.ticket, "store.corrupt: bad page", peer.clock.now()))
    assert acks(peer, 1) == [("g", "store.corrupt: bad page")]


def test_more_subscriptions_than_allowed_are_refused_by_name() -> None:
    peer = Peer(config=EngineConfig(neighbours=NeighbourConfig(subscriptions_max=2)))
    peer.attach(1)
    peer.say(1, Get("a", "one"))
    peer.say(1, Get("b", "two"))
    with pytest.raises(LimitReached) as refused:
        peer.say(1, Get("c", "three"))
    assert refused.value.code == "limit.subscriptions"
    peer.say(1, Get("d", "two"))


def test_memory_stays_within_its_budget_and_nothing_is_lost() -> None:
    peer = Peer(cache_bytes=64 * 1024)
    peer.attach(1)
    for i in range(2000):
        peer.say(1, put(f"p{i}", cell(f"soul{i}", value="x" * 50)))
        peer.settle()
        assert peer.memory.bytes <= 64 * 1024
    peer.heard(1)
    peer.say(1, Get("g", "soul3"))
    peer.settle()
    assert answered(peer, 1) == [[cell("soul3", value="x" * 50)]]


# -- the future ----------------------------------------------------------------


def test_a_write_from_the_future_is_seen_and_acknowledged_when_it_is_due(peer: Peer) -> None:
    peer.say(1, Get("g", "s"))
    peer.settle()
    peer.heard(1)
    peer.say(2, put("p", cell(state=NOW + 2000)))
    peer.settle()
    peer.advance(1.9)
    peer.settle()
    assert (told(peer, 1), acks(peer, 2), peer.stored()) == ([], [], {})
    peer.advance(0.2)
    peer.settle()
    assert told(peer, 1) == [cell(state=NOW + 2000)]
    assert acks(peer, 2) == [("p", None)]


def test_a_put_with_present_and_future_fields_is_acknowledged_once_when_all_are_durable(peer: Peer) -> None:
    peer.say(2, put("p", cell(key="now"), cell(key="a", state=NOW + 5), cell(key="b", state=NOW + 500)))
    peer.settle()
    assert set(peer.stored()) == {("s", "now")}
    assert acks(peer, 2) == []
    peer.advance(1)
    peer.settle()
    assert acks(peer, 2) == [("p", None)]
    assert set(peer.stored()) == {("s", "now"), ("s", "a"), ("s", "b")}


def test_a_deferred_write_loses_against_a_newer_one_that_came_meanwhile(peer: Peer) -> None:
    peer.say(2, put("p", cell(value="early", state=NOW + 50)))
    peer.say(3, put("q", cell(value="late", state=NOW + 100)))
    peer.advance(1)
    peer.settle()
    assert peer.disk.read("s").fields["k"] == ("late", NOW + 100)
    assert acks(peer, 2) == [("p", None)]


def test_a_state_too_far_ahead_is_refused_and_nothing_of_the_message_is_kept(peer: Peer) -> None:
    with pytest.raises(Violation) as refused:
        peer.say(1, put("p", cell(key="now"), cell(key="far", state=NOW + 2 * 86_400_000)))
    assert refused.value.code == "graph.future-state"
    peer.settle()
    assert peer.stored() == {}


def test_writes_waiting_for_their_time_are_bounded_and_repeats_are_not_held_twice() -> None:
    peer = Peer(config=EngineConfig(deferred=DeferredConfig(entries_max=3)))
    peer.attach(1)
    for _ in range(10):
        peer.say(1, put("same", cell(state=NOW + 100)))
    assert len(peer.engine.deferred) == 1
    peer.say(1, put("b", cell(key="b", state=NOW + 100)))
    peer.say(1, put("c", cell(key="c", state=NOW + 100)))
    with pytest.raises(LimitReached) as refused:
        peer.say(1, put("d", cell(key="d", state=NOW + 100)))
    assert refused.value.code == "limit.deferred"


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_jumps_loses_nothing_that_waits(peer: Peer, jump: float) -> None:
    peer.say(1, put("p", cell(state=NOW + 1000)))
    peer.clock.jump(jump)
    peer.advance(10 if jump > 0 else 3700)
    peer.settle()
    assert acks(peer, 1) == [("p", None)]


# -- peers that we dial --------------------------------------------------------


def test_a_dialled_peer_is_told_every_write_and_asked_once_for_each_node(peer: Peer) -> None:
    peer.attach(7, Role.OUTBOUND, "up")
    peer.say(1, put("p", cell()))
    peer.settle()
    assert told(peer, 7) == [cell()]
    for id in ("a", "b"):
        peer.say(1, Get(id, "node"))
        peer.settle()
    assert [m.soul for m in peer.heard(7) if isinstance(m, Get)] == ["node"]


def test_an_answer_of_a_dialled_peer_reaches_the_asker_and_the_disk(peer: Peer) -> None:
    peer.attach(7, Role.OUTBOUND, "up")
    peer.say(1, Get("q", "node"))
    peer.settle()
    assert answered(peer, 1) == [[]]
    peer.say(7, Answer("x", "q", [("node", {"k": ("v", NOW - 10)})]))
    peer.settle()
    assert [cell("node")] in answered(peer, 1)
    assert ("node", "k") in peer.stored()
    # Not told back to whom it came from, and the same answer from a second peer counts for nothing.
    assert told(peer, 7) == []
    peer.attach(8, Role.OUTBOUND, "up2")
    peer.heard(8)
    peer.say(8, Answer("y", "q", [("node", {"k": ("v", NOW - 10)})]))
    assert answered(peer, 1) == []


def test_an_answer_goes_on_with_what_is_known_to_be_newer(peer: Peer) -> None:
    """Also where only the text decides: gun.js takes any answer whose state is as new as its own (`miss`)."""
    peer.attach(7, Role.OUTBOUND, "up")
    peer.say(1, Get("q", "node"))
    peer.settle()
    peer.say(1, put("p", cell("node", "tie", "near", NOW - 10), cell("node", "late", "near", NOW - 5)))
    peer.settle()
    peer.heard(1)
    pairs = {"tie": ("far", NOW - 10), "late": ("far", NOW - 10), "other": ("far", NOW - 10)}
    peer.say(7, Answer("x", "q", [("node", pairs)]))
    peer.settle()
    assert sorted(answered(peer, 1)[0]) == [
        cell("node", "late", "near", NOW - 5),
        cell("node", "other", "far", NOW - 10),
        cell("node", "tie", "near", NOW - 10),
    ]


def test_every_read_is_counted_while_it_waits_also_one_for_a_reader_in_this_program(peer: Peer) -> None:
    peer.attach(7, Role.OUTBOUND, "up")
    peer.attach(9, Role.LOCAL)
    peer.say(9, Get("q", "node"))
    assert peer.engine.reading(9) == 1
    peer.settle()
    assert peer.engine.reading(9) == 0
    peer.say(7, Answer("x", "q", [("node", {"k": ("v", NOW - 10)})]))
    assert peer.engine.reading(9) == 1
    peer.settle()
    assert peer.engine.reading(9) == 0
    assert [cell("node")] in answered(peer, 9)


def test_what_was_written_while_a_dialled_peer_was_away_is_sent_until_it_acknowledges(peer: Peer) -> None:
    peer.attach(7, Role.OUTBOUND, "up")
    peer.engine.detach(7)
    peer.say(1, put("p", cell(value="offline")))
    peer.settle()
    for _ in range(2):
        peer.attach(7, Role.OUTBOUND, "up")
        (message,) = [m for m in peer.heard(7) if isinstance(m, Put)]
        assert list(message.cells) == [cell(value="offline")]
        peer.engine.detach(7)
    peer.attach(7, Role.OUTBOUND, "up")
    (message,) = [m for m in peer.heard(7) if isinstance(m, Put)]
    peer.say(7, Ack("x", message.id))
    peer.engine.detach(7)
    peer.attach(7, Role.OUTBOUND, "up")
    assert [m for m in peer.heard(7) if isinstance(m, Put)] == []


def test_what_is_written_before_a_peer_is_reached_for_the_first_time_is_owed_to_it(peer: Peer) -> None:
    peer.engine.near.expect("up")
    peer.say(1, put("p", cell(value="early")))
    peer.settle()
    peer.attach(7, Role.OUTBOUND, "up")
    assert told(peer, 7) == [cell(value="early")]


def test_a_newer_value_takes_the_place_of_the_one_that_is_owed(peer: Peer) -> None:
    peer.attach(7, Role.OUTBOUND, "up")
    peer.engine.detach(7)
    for state in (NOW - 5, NOW - 4, NOW - 3):
        peer.say(1, put(f"p{state}", cell(state=state)))
    peer.settle()
    peer.heard(7)
    peer.attach(7, Role.OUTBOUND, "up")
    assert told(peer, 7) == [cell(state=NOW - 3)]


def test_debts_are_bounded_and_what_is_dropped_is_counted() -> None:
    peer = Peer(config=EngineConfig(neighbours=NeighbourConfig(upstream=UpstreamConfig(owed_max=2))))
    peer.attach(1)
    peer.attach(7, Role.OUTBOUND, "up")
    peer.engine.detach(7)
    for i in range(5):
        peer.say(1, put(f"p{i}", cell(key=f"k{i}")))
    peer.settle()
    assert peer.engine.near.owed() == 2
    peer.heard(7)
    peer.attach(7, Role.OUTBOUND, "up")
    assert [c.key for c in told(peer, 7)] == ["k3", "k4"]


def test_a_write_that_a_living_peer_never_answers_counts_as_taken_after_a_while(peer: Peer) -> None:
    peer.attach(7, Role.OUTBOUND, "up")
    peer.say(1, put("p", cell()))
    peer.settle()
    assert peer.engine.near.owed() == 1
    peer.advance(UpstreamConfig().settle_seconds + 1)
    assert peer.engine.near.owed() == 0


def test_what_a_dialled_peer_tells_is_not_owed_to_it_and_goes_on_to_the_others(peer: Peer) -> None:
    peer.attach(7, Role.OUTBOUND, "one")
    peer.attach(8, Role.OUTBOUND, "two")
    peer.say(7, put("p", cell()))
    peer.settle()
    assert told(peer, 7) == []
    assert told(peer, 8) == [cell()]
    assert acks(peer, 7) == []  # heard above; the ack itself was sent
    peer.engine.detach(7)
    peer.attach(7, Role.OUTBOUND, "one")
    assert told(peer, 7) == []


def test_a_dialled_peer_that_comes_back_is_asked_for_everything_anybody_wants(peer: Peer) -> None:
    peer.say(1, Get("a", "one"))
    peer.say(2, Get("b", "two"))
    peer.settle()
    peer.attach(7, Role.OUTBOUND, "up")
    assert {m.soul for m in peer.heard(7) if isinstance(m, Get)} == {"one", "two"}


# -- clients that come back ----------------------------------------------------


def test_a_client_is_asked_for_what_it_asks(peer: Peer) -> None:
    peer.say(1, Get("g", "s"))
    peer.settle()
    (question,) = [m for m in peer.heard(1) if isinstance(m, Get)]
    peer.say(1, Answer("x", question.id, [("s", {"k": ("written offline", NOW - 10)})]))
    peer.settle()
    assert ("s", "k") in peer.stored()


def test_a_new_connection_is_asked_for_what_others_want(peer: Peer) -> None:
    peer.say(1, Get("g", "wanted"))
    peer.settle()
    peer.attach(4)
    peer.take(peer.engine.greeted(4, "pid", peer.clock.now()))
    assert [m.soul for m in peer.heard(4) if isinstance(m, Get)] == ["wanted"]


def test_connected_clients_are_asked_for_what_we_do_not_have(peer: Peer) -> None:
    peer.advance(60)
    peer.say(1, Get("g", "s"))
    peer.settle()
    assert [m.id for m in peer.heard(2) if isinstance(m, Get)] == ["g"]
    peer.say(2, Answer("x", "g", [("s", {"k": ("v", NOW - 10)})]))
    assert [cell()] in answered(peer, 1)


def test_what_we_ask_of_our_own_accord_is_bounded_in_rate() -> None:
    peer = Peer(config=EngineConfig(neighbours=NeighbourConfig(asks_per_second=5)))
    peer.attach(1)
    peer.attach(2)
    peer.advance(60)
    asked = 0
    for _ in range(2):
        for i in range(50):
            peer.say(1, Get(f"g{i}", f"nowhere{i}"))
            peer.settle()
        asked += len([m for link in (1, 2) for m in peer.heard(link) if isinstance(m, Get)])
        peer.advance(1)
    assert asked == 5
    peer.say(1, Get("later", "nowhere"))
    peer.settle()
    assert [m for m in peer.heard(1) if isinstance(m, Get)]


def test_a_large_write_goes_to_a_dialled_peer_in_pieces_and_is_settled_piece_by_piece(peer: Peer) -> None:
    peer.attach(7, Role.OUTBOUND, "up")
    cells = [cell(key=f"k{i:04}") for i in range(1000)]
    peer.say(1, put("p", *cells))
    peer.settle()
    pieces = [m for m in peer.heard(7) if isinstance(m, Put)]
    assert [c for piece in pieces for c in piece.cells] == cells
    assert max(len(piece.cells) for piece in pieces) <= 200
    assert len({piece.id for piece in pieces}) == len(pieces)
    for left, piece in enumerate(reversed(pieces)):
        assert peer.engine.near.owed() == 1000 - 200 * left
        peer.say(7, Ack("x", piece.id))
    assert peer.engine.near.owed() == 0


def test_a_client_that_came_before_anybody_wanted_its_node_is_asked_when_somebody_does() -> None:
    peer = Peer()
    peer.disk.write([cell(value="before", state=NOW - 100)])
    peer.attach(1)  # wrote while it was away, and watches nothing
    peer.take(peer.engine.greeted(1, "writer", peer.clock.now()))
    assert peer.heard(1) == []
    peer.attach(2)
    peer.say(2, Get("g", "s", Lex(exact="k")))
    peer.settle()
    (question,) = [m for m in peer.heard(1) if isinstance(m, Get)]
    peer.say(1, Answer("x", question.id, [("s", {"k": ("offline", NOW - 10)})]))
    peer.settle()
    assert told(peer, 2) == [cell(value="offline")]
    # Asked once, and no more of our own accord when it has been there for long.
    peer.attach(3)
    peer.say(3, Get("h", "s"))
    peer.advance(60)
    peer.say(3, Get("i", "other"))
    peer.settle()
    assert [m for m in peer.heard(1) if isinstance(m, Get)] == [Get("i", "other")]


# -- what nobody keeps ---------------------------------------------------------


def test_a_message_of_unknown_fields_goes_to_every_other_peer_once(peer: Peer) -> None:
    peer.attach(7, Role.OUTBOUND, "up")
    peer.attach(9, Role.LOCAL)
    for link in (1, 2, 1):
        peer.say(link, Ephemeral("e", {"yo": "hi"}))
    assert peer.heard(1) == []
    assert peer.heard(2) == peer.heard(3) == peer.heard(7) == [Ephemeral("e", {"yo": "hi"})]
    assert peer.heard(9) == []


def test_messages_to_all_are_bounded_in_rate_for_each_link() -> None:
    peer = Peer(config=EngineConfig(neighbours=NeighbourConfig(ephemeral_per_second=3)))
    peer.attach(1)
    peer.attach(2)
    for i in range(3):
        peer.say(1, Ephemeral(f"e{i}", {"yo": i}))
    with pytest.raises(LimitReached) as refused:
        peer.say(1, Ephemeral("e4", {"yo": 4}))
    assert refused.value.code == "limit.ephemeral"
    peer.say(2, Ephemeral("f", {"yo": 5}))
    peer.advance(1)
    peer.say(1, Ephemeral("e4", {"yo": 4}))
    assert len(peer.heard(2)) == 4
