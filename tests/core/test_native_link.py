"""A native link by itself: greeting, batches and acks, credit, urgency, patience."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from air.base.clock import ManualClock
from air.base.errors import Closed, LimitReached, Violation
from air.codec.frame import encode_frame
from air.graph.mesh import Role
from air.model import ALL, Ack, Answer, Cell, Get, Lex, Link, Put, SoulRange
from air.sync.native.frames import Bye, Credit, Hello, Wish, encode_credit, encode_put
from air.sync.native.limits import NativeConfig, NativeLimits
from air.sync.native.link import Event
from tests.native_links import OURS, THEIRS, Pair, hello, link

STATE = 1_600_000_000_000


def cell(soul: str, key: str = "k", value: object = 1, state: float = STATE) -> Cell:
    return Cell(soul, key, value, state)  # type: ignore[arg-type]


# -- the greeting ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("near", "far", "roles"),
    [
        (True, True, (Role.PEER, Role.PEER)),
        (False, True, (Role.OUTBOUND, Role.INBOUND)),
        (True, False, (Role.OUTBOUND, Role.INBOUND)),
        (False, False, (Role.OUTBOUND, Role.INBOUND)),
    ],
)
def test_two_that_hold_everything_are_peers_and_others_are_not(
    near: bool, far: bool, roles: tuple[Role, Role]
) -> None:
    pair = Pair(NativeConfig(everything=near), NativeConfig(everything=far))
    assert (pair.near.role, pair.far.role) == roles
    assert pair.near.hello is not None
    assert pair.near.hello.peer == OURS


def test_a_hello_comes_first_once_and_from_whom_the_connection_is_with() -> None:
    clock = ManualClock()
    for data, code in [
        (encode_frame(encode_credit(Credit(1, 1))), "native.no-hello"),
        (hello() + hello(), "native.hello-again"),
        (hello(peer=OURS), "native.self"),
        (hello(peer="12D3KooWSomebody"), "native.wrong-peer"),
        (hello(version=2), "native.version"),
    ]:
        with pytest.raises(Violation) as caught:
            list(link(clock).receive(data, clock.now()))
        assert caught.value.code == code
        assert caught.value.fatal


def test_who_says_no_hello_is_not_waited_for_for_ever() -> None:
    clock = ManualClock()
    one = link(clock, NativeConfig(hello_seconds=3))
    one.take_output(clock.now())
    assert one.deadline == 3
    clock.advance(3)
    with pytest.raises(Violation) as caught:
        one.tick(clock.now())
    assert caught.value.code == "native.no-hello"


# -- messages -------------------------------------------------------------------


def test_a_put_arrives_with_its_marks_and_its_ack_comes_back() -> None:
    pair = Pair()
    cells = [cell("a"), cell("a", "l", "text"), cell("b", "k", Link("a"), STATE + 0.5)]
    marks = [((THEIRS, 4),), ((THEIRS, 4), ("12D3C", 9)), ()]
    pair.near.send(Put("mine", cells, marks=marks))
    pair.pump()
    [put] = pair.take(pair.far)
    assert (put.cells, put.marks) == (cells, marks)
    pair.pump()
    assert pair.take(pair.near) == []
    pair.far.send(Ack("x", put.id))
    pair.pump()
    [ack] = pair.take(pair.near)
    assert (ack.re, ack.error) == ("mine", None)


def test_a_refused_put_says_why() -> None:
    pair = Pair()
    pair.near.send(Put("mine", [cell("a"), cell("b")]))
    pair.pump()
    [put] = pair.take(pair.far)
    assert put.marks is None
    pair.far.send(Ack("x", put.id, "store.full: no space"))
    pair.pump()
    [ack] = pair.take(pair.near)
    assert (ack.re, ack.error) == ("mine", "store.full: no space")


@pytest.mark.parametrize(
    "get",
    [
        Get("text", "soul", ALL),
        Get(7, "soul", Lex(exact="k")),
        Get(-1.5, "s😀", Lex(prefix="a", start="", end="z", reverse=True, budget=100)),
        Get("\ud83d", SoulRange("chat/", 100, reverse=True)),
        Get("all", SoulRange("", 1)),
    ],
)
def test_a_question_and_its_answer_keep_the_id(get: Get) -> None:
    pair = Pair(NativeConfig(everything=False))
    pair.near.send(get)
    pair.pump()
    [asked] = pair.take(pair.far)
    assert asked == get
    assert type(asked.id) is type(get.id)
    pair.far.send(Answer("x", asked.id, [("soul", {"k": (1, STATE), "l": ("é", STATE)})]))
    pair.far.send(Answer("y", asked.id))
    pair.far.send(Ack("z", asked.id, "store.error: broken"))
    pair.pump()
    heard = {(type(one), getattr(one, "error", None)): one for one in pair.take(pair.near)}
    assert len(heard) == 2
    failed = heard[Ack, "store.error: broken"]
    assert failed.re == get.id


def test_a_long_answer_comes_in_parts() -> None:
    pair = Pair(NativeConfig(everything=False))
    fields = {str(i): (i, STATE) for i in range(5000)}
    pair.far.send(Answer("x", "q", [("soul", fields)]))
    pair.pump()
    parts = pair.take(pair.near, Answer)
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
    assert {c.key: (c.value, c.state) for part in parts for c in part.cells()} == fields


def test_wishes_arrive() -> None:
    pair = Pair(NativeConfig(everything=False))
    begin = [Wish("chat/", prefix=True), Wish("", prefix=True), Wish("a"), Wish("a", "k")]
    end = [Wish("a", "k").ended, Wish("chat/", prefix=True).ended]
    pair.near.wish(begin * 1000)
    pair.near.wish(end)
    pair.pump()
    assert pair.take(pair.far) == begin * 1000 + end


def test_the_last_words_come_last() -> None:
    pair = Pair()
    pair.near.send(Put("p", [cell("a")]))
    pair.near.say_bye("link.supplanted", "another is kept")
    pair.near.send(Put("p", [cell("b")]))
    pair.pump()
    assert pair.take(pair.far) == [Bye("link.supplanted", "another is kept")]


# -- credit ---------------------------------------------------------------------


def test_nobody_sends_more_than_the_disk_of_the_other_side_takes() -> None:
    pair = Pair(far_config=NativeConfig(credit_cells=10), near_config=NativeConfig(batch_cells=4))
    for i in range(40):
        pair.near.send(Put(str(i), [cell(str(i))]))
    pair.pump()
    puts = pair.take(pair.far, Put)
    # A batch may be begun with one cell left.
    assert [len(put.cells) for put in puts] == [4, 4, 4]
    assert not pair.near.ready
    assert pair.near.queued_cells == 28
    pair.far.send(Ack("x", puts[1].id))
    pair.pump()
    assert len(pair.take(pair.far, Put)) == 1
    while puts or pair.near.queued_cells:
        for put in puts:
            pair.far.send(Ack("x", put.id))
        pair.pump()
        puts = pair.take(pair.far, Put)
    assert pair.near.queued_cells == 0


def test_a_batch_that_waits_for_its_time_gives_its_credit_back() -> None:
    config = NativeConfig(credit_cells=1, hold_seconds=5)
    pair = Pair(NativeConfig(batch_cells=1), config)
    pair.near.send(Put("1", [cell("a"), cell("b")]))
    pair.pump()
    assert len(pair.take(pair.far, Put)) == 1
    assert pair.far.deadline == 5
    pair.far.tick(pair.clock.advance(5))
    pair.pump()
    assert len(pair.take(pair.far, Put)) == 1


def test_answers_cost_credit_until_the_store_takes_them() -> None:
    pair = Pair(NativeConfig(everything=False, credit_cells=100))
    for i in range(3):
        pair.far.send(Answer("x", i, [("soul", {str(k): (k, STATE) for k in range(100)})]))
    pair.pump()
    assert len(pair.take(pair.near, Answer)) == 1
    for _ in range(2):
        pair.near.taken()
        pair.pump()
        assert len(pair.take(pair.near, Answer)) == 1


def test_credit_that_is_overrun_ends_the_link() -> None:
    pair = Pair(far_config=NativeConfig(credit_cells=2))
    pair.near.receive(encode_frame(encode_credit(Credit(100, 100))), pair.clock.now())
    assert list(pair.near.receive(encode_frame(encode_credit(Credit(100, 100))), pair.clock.now())) == []
    pair.near.send(Put("1", [cell("a"), cell("b")]))
    data = pair.near.take_output(pair.clock.now())
    assert len(list(pair.far.receive(data, pair.clock.now()))) == 1
    pair.near.send(Put("2", [cell("c")]))
    with pytest.raises(Violation) as caught:
        list(pair.far.receive(pair.near.take_output(pair.clock.now()), pair.clock.now()))
    assert caught.value.code == "native.credit"


# -- what waits -----------------------------------------------------------------


def blocked(**config: object) -> Pair:
    """A pair whose far end gives no further credit until it acknowledges."""
    pair = Pair(NativeConfig(**config), NativeConfig(credit_cells=1))  # type: ignore[arg-type]
    pair.near.send(Put("first", [cell("first")]))
    pair.pump()
    return pair


def free(pair: Pair) -> list[Put]:
    """Everything that waited, acknowledged."""
    out: list[Put] = []
    while puts := pair.take(pair.far, Put):
        out += puts
        for put in puts:
            pair.far.send(Ack("x", put.id))
        pair.pump()
    return out[1:]


def test_a_field_that_changes_while_it_waits_is_sent_once_and_acks_all_of_its_puts() -> None:
    pair = blocked(batch_cells=1)
    pair.near.send(Put("p1", [cell("a", value=1), cell("b")]))
    pair.near.send(Put("p2", [cell("a", value=3, state=STATE + 2)]))
    pair.near.send(Put("p3", [cell("a", value=2, state=STATE + 1)]))
    assert pair.near.queued_cells == 2
    assert pair.near.coalesced == 2
    puts = free(pair)
    assert [[(c.soul, c.value) for c in put.cells] for put in puts] == [[("a", 3)], [("b", 1)]]
    assert [ack.re for ack in pair.take(pair.near, Ack)] == ["first", "p2", "p3", "p1"]


def test_live_changes_overtake_bulk_and_take_fields_out_of_it() -> None:
    pair = blocked(batch_cells=1, bulk_cells=2)
    pair.near.send(Put("bulk", [cell("a"), cell("b"), cell("c")]))
    pair.near.send(Put("live", [cell("z")]))
    pair.near.send(Put("live too", [cell("b", value=2, state=STATE + 1)]))
    order = [(c.soul, c.value) for put in free(pair) for c in put.cells]
    assert order == [("z", 1), ("b", 2), ("a", 1), ("c", 1)]
    assert [ack.re for ack in pair.take(pair.near, Ack)] == ["first", "live", "live too", "bulk"]


def test_what_is_too_much_for_a_peer_is_dropped_and_must_be_repaired() -> None:
    pair = blocked(outbox_cells_max=10)
    for i in range(11):
        pair.near.send(Put(str(i), [cell(str(i))]))
    assert pair.near.needs_repair
    assert pair.near.queued_cells == 0
    assert pair.near.queued_bytes == 0
    pair.near.send(Put("later", [cell("later")]))
    assert [put.cells for put in free(pair)] == [[cell("later")]]


def test_what_the_disk_of_a_peer_has_refused_must_be_repaired_and_what_it_never_takes_not() -> None:
    for error, repair in (("store.full: no space", True), ("graph.future-state: far ahead", False)):
        pair = Pair()
        pair.near.send(Put("p", [cell("a")]))
        pair.pump()
        [put] = pair.take(pair.far, Put)
        pair.far.send(Ack("x", put.id, error))
        pair.pump()
        assert pair.near.needs_repair is repair


def test_what_is_too_much_for_anybody_else_ends_the_link() -> None:
    pair = blocked(everything=False, outbox_bytes_max=1000)
    with pytest.raises(LimitReached) as caught:
        pair.near.send(Put("big", [cell("a", value="x" * 2000), cell("b")]))
    assert caught.value.code == "limit.outbox"


def test_a_subscriber_that_does_not_read_costs_one_cell_however_often_it_changes() -> None:
    pair = Pair(NativeConfig(everything=False, credit_cells=1))
    for i in range(5000):
        pair.far.send(Put(str(i), [cell("hot", value=i, state=STATE + i)]))
        pair.pump()
    assert pair.far.queued_cells == 1
    assert not pair.far._outlet.outbox._promised


def test_questions_wait_while_their_answers_do() -> None:
    pair = Pair(
        NativeConfig(everything=False, credit_cells=1), NativeConfig(high_bytes=1000, gets_waiting_max=2)
    )
    for i in range(3):
        pair.far.send(Answer("x", "q", [(str(i), {"k": ("x" * 600, STATE)})]))
    pair.pump()
    for i in range(2):
        pair.near.send(Get(str(i), "soul"))
    pair.pump()
    assert pair.take(pair.far) == []
    assert pair.far.take_held() == []
    pair.near.taken()
    pair.pump()
    assert [get.id for get in pair.far.take_held()] == ["0", "1"]
    pair.far.send(Answer("x", "q", [("more", {"k": ("x" * 600, STATE)})]))
    for i in range(3):
        pair.near.send(Get(str(i), "soul"))
    with pytest.raises(LimitReached) as caught:
        pair.pump()
    assert caught.value.code == "limit.unread"


def test_a_cell_that_the_other_side_has_no_room_for_does_not_hold_up_the_rest() -> None:
    far = NativeConfig(limits=NativeLimits(bytes_max=1024 * 1024))
    pair = Pair(far_config=far)
    pair.near.send(Put("p", [cell("a"), cell("big", value="x" * (1024 * 1024)), cell("z")]))
    pair.pump()
    assert [c.soul for put in pair.take(pair.far, Put) for c in put.cells] == ["a", "z"]
    assert pair.near.too_large == 1


# -- dots -----------------------------------------------------------------------


def test_own_dots_never_go_backwards_whatever_overtakes() -> None:
    pair = blocked(batch_cells=1, bulk_cells=1)
    pair.near.send(Put("5", [cell("a"), cell("b")], marks=[((THEIRS, 5),)] * 2))
    pair.near.send(Put("6", [cell("z")], marks=[((THEIRS, 6),)]))
    dots = [put.marks[0][0][1] for put in free(pair)]
    assert dots == [6, 5, 5]
    # All that was below 6 has been sent, and that was said. What comes late all the same has lost its mark.
    pair.near.send(Put("late", [cell("late")], marks=[((THEIRS, 4), ("12D3C", 1))]))
    pair.near.send(Put("7", [cell("new")], marks=[((THEIRS, 7),)]))
    pair.pump()
    [late] = pair.take(pair.far, Put)
    assert late.marks == [()]
    pair.far.send(Ack("x", late.id))
    pair.pump()
    [new] = pair.take(pair.far, Put)
    assert new.marks == [((THEIRS, 7),)]


@pytest.mark.parametrize(("floor", "dot"), [(8, 8), (9, 7)])
def test_dots_that_go_backwards_end_the_link(floor: int, dot: int) -> None:
    clock = ManualClock()
    one = link(clock)
    first = encode_put(1, [cell("a")], [((THEIRS, 9),)], 9)
    second = encode_put(2, [cell("b")], [((THEIRS, dot),)], floor)
    list(one.receive(hello() + encode_frame(first), clock.now()))
    with pytest.raises(Violation) as caught:
        list(one.receive(encode_frame(second), clock.now()))
    assert caught.value.code == "native.dots"


# -- time -----------------------------------------------------------------------


def test_a_quiet_link_says_that_it_lives_and_a_silent_one_is_dead() -> None:
    near, far = NativeConfig(heartbeat_seconds=10), NativeConfig(silent_seconds=12)
    pair = Pair(near, far)
    # The other side gives us up after 12 s: three signs of life within that.
    assert pair.near.deadline == 4
    for _ in range(10):
        pair.near.tick(pair.clock.advance(4))
        pair.far.tick(pair.clock.now())
        pair.pump()
        assert pair.take(pair.far) == []
    pair.clock.advance(13)
    with pytest.raises(Closed) as caught:
        pair.far.tick(pair.clock.now())
    assert caught.value.code == "link.silent"


def test_frames_that_carry_nothing_are_slowed_down_and_then_cut() -> None:
    pair = Pair()
    nothing = encode_frame(encode_credit(Credit(0, 0)))
    list(pair.near.receive(nothing * 30_000, pair.clock.now()))
    wait = pair.near.rates.wait(pair.clock.now())
    assert wait > 1
    list(pair.near.receive(nothing * 10_000, pair.clock.advance(wait)))
    with pytest.raises(LimitReached) as caught:
        pair.near.rates.wait(pair.clock.now())
    assert caught.value.code == "limit.idle"


def test_a_peer_that_is_too_fast_waits() -> None:
    config = NativeConfig()
    config = replace(config, rates=replace(config.rates, gets_burst=10, gets_per_second=10))
    pair = Pair(NativeConfig(everything=False), config)
    for i in range(20):
        pair.near.send(Get(str(i), "soul"))
    pair.pump()
    assert pair.far.rates.wait(pair.clock.now()) == 1
    assert pair.far.rates.wait(pair.clock.advance(1)) == 0


# -- laws -----------------------------------------------------------------------

messages = st.lists(
    st.one_of(
        st.builds(
            lambda id, cells: Put(id, cells),
            st.uuids().map(str),
            st.lists(
                st.builds(cell, st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 9)),
                min_size=1,
                max_size=5,
                unique_by=lambda c: c[:2],
            ),
        ),
        st.builds(Get, st.sampled_from("qrs"), st.sampled_from("abc")),
        st.builds(
            lambda re, value: Answer("x", re, [("s", {"k": (value, STATE)})]), st.integers(0, 3), st.text()
        ),
    ),
    max_size=12,
)


def plain(events: list[Event]) -> list[object]:
    """Events without the ids that the receiver invents, so that two receivers can be compared."""
    return [
        replace(event, id="") if isinstance(event, Put | Answer | Ack) else event
        for event in events
        if not isinstance(event, Hello)
    ]


@settings(max_examples=60)
@given(messages, st.data())
def test_events_do_not_depend_on_how_bytes_arrive(
    sent: list[Put | Get | Answer], data: st.DataObject
) -> None:
    clock = ManualClock()
    sender = link(clock, NativeConfig(everything=False), outbound=True)
    stream = [sender.take_output(clock.now())]
    list(sender.receive(link(clock).take_output(clock.now()), clock.now()))
    for message in sent:
        sender.send(message)
        stream.append(sender.take_output(clock.now()))
    whole = b"".join(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    one, other, byte = link(clock), link(clock), link(clock)
    expected = plain(list(one.receive(whole, clock.now())))
    assert plain([e for piece in pieces for e in other.receive(piece, clock.now())]) == expected
    assert (
        plain([e for at in range(len(whole)) for e in byte.receive(whole[at : at + 1], clock.now())])
        == expected
    )


@settings(max_examples=60)
@given(messages)
def test_both_ends_hold_the_same_whatever_was_coalesced(sent: list[Put | Get | Answer]) -> None:
    pair = blocked(batch_cells=2, bulk_cells=3)
    newest: dict[tuple[str, str], Cell] = {}
    ids = []
    for index, message in enumerate(sent):
        if isinstance(message, Put):
            cells = [one._replace(state=STATE + index) for one in message.cells]
            newest |= {(one.soul, one.key): one for one in cells}
            ids.append(message.id)
            pair.near.send(Put(message.id, cells))
    arrived: dict[tuple[str, str], Cell] = {}
    for put in free(pair):
        for one in put.cells:
            assert (one.soul, one.key) not in arrived
            arrived[one.soul, one.key] = one
    assert arrived == newest
    assert sorted(str(ack.re) for ack in pair.take(pair.near, Ack)) == sorted(["first", *ids])
