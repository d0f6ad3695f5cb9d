"""Bugs that were planted and that nothing else had caught (tests/planted)."""

from __future__ import annotations

from air.base.env import Env
from air.base.errors import Violation
from air.base.metrics import Counters
from air.graph.defer import DeferredConfig
from air.graph.mesh import Role
from air.graph.reads import Read
from air.graph.upstream import UpstreamConfig
from air.model import Ack, Answer, Cell, Get, Lex, Put
from air.store.api import Page
from air.store.memory import Memory, select
from air.sync.exchange import Exchange, ExchangeConfig
from air.sync.gun.limits import GunLimits
from air.sync.gun.reader import read_message
from air.sync.repair.initiator import Initiator
from air.sync.repair.messages import FrameCodec
from air.sync.repair.responder import Responder
from tests.peers import Peer

NOW = 1_700_000_000_000
KEY = Lex(exact="k")


def cell(value: str, state: float, key: str = "k") -> Cell:
    return Cell("s", key, value, state)


def answered(peer: Peer, link: int) -> list[list[Cell]]:
    return [m.cells() for m in peer.heard(link) if isinstance(m, Answer)]


def test_memory_learns_from_the_disk_what_beat_a_write() -> None:
    peer = Peer()
    peer.attach(1)
    peer.disk.write([cell("newer", NOW - 1), cell("v", NOW - 9, "other")])
    # Memory now holds a part of the node, and not the field that is written.
    peer.say(1, Get("g", "s", Lex(exact="other")))
    peer.settle()
    peer.say(1, Put("p", [cell("older", NOW - 5)]))
    peer.settle()
    peer.heard(1)
    peer.say(1, Get("h", "s", KEY))
    peer.settle()
    assert answered(peer, 1) == [[cell("newer", NOW - 1)]]


def test_a_field_that_memory_does_not_hold_is_judged_by_the_disk_although_the_node_is_there() -> None:
    peer = Peer()
    peer.attach(1)
    peer.attach(2)
    peer.disk.write([cell("newer", NOW - 1), cell("v", NOW - 9, "other")])
    peer.say(1, Get("g", "s", Lex(exact="other")))
    peer.say(2, Get("h", "s", Lex(budget=1)))
    peer.settle()
    peer.heard(1)
    peer.heard(2)
    peer.say(1, Put("p", [cell("older", NOW - 5)]))
    peer.settle()
    assert not [m for m in peer.heard(2) if isinstance(m, Put)]
    peer.say(1, Get("i", "s", KEY))
    peer.settle()
    assert answered(peer, 1) == [[cell("newer", NOW - 1)]]


def test_a_page_that_was_read_before_a_write_does_not_hide_it_in_memory() -> None:
    peer = Peer()
    peer.attach(1)
    peer.disk.write([cell("old", NOW - 9), cell("v", NOW - 9, "other")])
    peer.say(1, Get("g", "s", KEY))
    peer.settle()
    peer.say(1, Get("h", "s"))
    page = peer.disk.read("s")
    old = Page(dict(page.fields), None)
    fetch = peer.jobs.pop()
    peer.say(1, Put("p", [cell("new", NOW - 1)]))
    peer.heard(1)
    peer.take(peer.engine.fetched(fetch.ticket, old, peer.clock.now()))
    peer.say(1, Get("i", "s", KEY))
    whole, one = answered(peer, 1)
    assert cell("new", NOW - 1) in whole
    assert one == [cell("new", NOW - 1)]


def test_an_ack_for_an_older_value_does_not_settle_the_newer_one() -> None:
    peer = Peer()
    peer.attach(1)
    peer.attach(7, Role.OUTBOUND, "up")
    for id, state in (("p", NOW - 9), ("q", NOW - 1)):
        peer.say(1, Put(id, [cell(id, state)]))
    peer.settle()
    first, second = (m for m in peer.heard(7) if isinstance(m, Put))
    peer.say(7, Ack("x", first.id))
    assert peer.engine.near.owed() == 1
    peer.say(7, Ack("y", second.id))
    assert peer.engine.near.owed() == 0


def test_large_debts_are_paid_in_full_in_as_many_messages_as_it_takes() -> None:
    peer = Peer()
    peer.attach(1)
    peer.attach(7, Role.OUTBOUND, "up")
    peer.engine.detach(7)
    cells = [cell("v", NOW - 5, f"k{number:04}") for number in range(2 * UpstreamConfig().put_cells_max + 1)]
    peer.say(1, Put("p", cells))
    peer.settle()
    peer.heard(7)
    peer.attach(7, Role.OUTBOUND, "up")
    puts = [m for m in peer.heard(7) if isinstance(m, Put)]
    assert [c for put in puts for c in put.cells] == cells
    assert len(puts) == 3


def test_the_clock_is_looked_at_again_although_a_write_is_not_due_for_long() -> None:
    peer = Peer()
    peer.attach(1)
    peer.say(1, Put("p", [cell("later", NOW + 3_600_000)]))
    now = peer.clock.now()
    deadline = peer.engine.deadline(now)
    assert deadline is not None
    assert deadline - now.monotonic <= DeferredConfig().recheck_seconds
    peer.clock.jump(3_601)
    peer.advance(DeferredConfig().recheck_seconds + 0.1)
    peer.settle()
    assert peer.disk.read("s").fields["k"] == ("later", NOW + 3_600_000)


def test_pages_of_a_reverse_question_go_on_downwards() -> None:
    fields = {f"k{number}": (number, NOW) for number in range(7)}
    lex, after, seen = Lex(reverse=True), None, []
    while True:
        page = select(fields, lex, after, fields_max=3)
        seen += list(page.fields)
        after = page.next
        if after is None:
            break
    assert seen == [f"k{number}" for number in reversed(range(7))]


def test_a_writer_that_watches_does_not_hear_its_own_write() -> None:
    peer = Peer()
    peer.attach(1)
    peer.attach(2)
    for link in (1, 2):
        peer.say(link, Get(f"g{link}", "s"))
    peer.settle()
    peer.heard(1)
    peer.say(1, Put("p", [cell("mine", NOW - 5)]))
    peer.settle()
    assert not [m for m in peer.heard(1) if isinstance(m, Put)]
    assert [m for m in peer.heard(2) if isinstance(m, Put)]


def test_an_answer_of_which_parts_follow_says_so() -> None:
    graph = {"s": {"_": {"#": "s", ">": {"k": 1}}, "k": "v"}}
    for extra, more in (({"%": 1}, True), ({"%": "next"}, True), ({}, False)):
        message = read_message({"#": "a", "@": "b", "put": graph, **extra}, GunLimits())
        assert isinstance(message, Answer)
        assert message.more is more


class Slow:
    """A port whose peer does not read."""

    peer = ""

    def __init__(self) -> None:
        self.codec = self
        self.queued_bytes = 0
        self.messages: list[Answer] = []
        self.cut_by: Violation | None = None

    def encode(self, message: Answer, targets: object = ()) -> list[Answer]:
        return [message]

    def queue(self, messages: list[Answer]) -> None:
        self.messages += messages
        self.queued_bytes += 1_000_000 * len(messages)

    def cut(self, error: Violation) -> None:
        self.cut_by = error

    def wake(self) -> None: ...


def exchange(port: Slow, queued_bytes_max: int) -> tuple[Exchange, int]:
    config = ExchangeConfig(high_bytes=500_000, queued_bytes_max=queued_bytes_max)
    memory = Memory(2**30, authoritative=True)
    made = Exchange(memory, None, Env(), config, Counters())
    memory.merge([cell("v", 1, f"k{number:05}") for number in range(3_000)])
    link = made.open_link(Role.INBOUND, port, "")  # type: ignore[arg-type]
    return made, link


def test_a_peer_that_lets_too_much_pile_up_is_cut() -> None:
    port = Slow()
    made, link = exchange(port, 3_500_000)
    for number in range(3):
        made.receive(link, [Put(f"p{number}", [cell("v", NOW, "other")])])
        assert port.cut_by is None
    made.receive(link, [Put("last", [])])
    assert port.cut_by is not None
    assert port.cut_by.code == "limit.outbox"


def test_pages_that_waited_for_a_slow_reader_come_when_it_has_read() -> None:
    port = Slow()
    made, link = exchange(port, 2**40)
    port.queued_bytes = 600_000
    made.carry_out([made.engine.reads.ask(1_000, Read(link, Get("g", "s")))])
    assert port.messages == []
    for _ in range(3):
        port.queued_bytes = 0
        made.drained(link)
    assert [len(answer.cells()) for answer in port.messages] == [1024, 1024, 952]
    assert [answer.more for answer in port.messages] == [True, True, False]


def test_each_pass_of_a_comparison_has_a_salt_of_its_own() -> None:
    # What passes for equal by chance in one pass must not do so in the next.
    here, there = Memory(2**30, authoritative=True), Memory(2**30, authoritative=True)
    there.merge([cell("v", NOW, f"k{number}") for number in range(5)])
    asking, asked, codec = Initiator(b"\x07" * 16), Responder(), FrameCodec()
    salts: list[bytes] = []
    for _ in range(100):
        for side, other, store in ((asking, asked, here), (asked, asking, there)):
            while side.busy:
                side.work(store)
            while (taken := side.take_received()) is not None:
                store.merge(taken[0])
                side.merged(taken[2])
            for frame in side.take_output():
                other.receive(frame)
                if side is asking and (opening := codec.decode(frame).opening) is not None:
                    salts.append(opening.salt)
    assert asking.equal
    assert asking.passes > 1
    assert len(set(salts)) == len(salts) == asking.passes


def test_a_pass_of_a_comparison_does_not_end_while_cells_are_on_their_way_to_the_disk() -> None:
    here, there = Memory(2**30, authoritative=True), Memory(2**30, authoritative=True)
    there.merge([cell("v", NOW, f"k{number}") for number in range(5)])
    asking, asked = Initiator(b"\x07" * 16), Responder()
    taken = 0
    for _ in range(20):
        for side, other, store in ((asking, asked, here), (asked, asking, there)):
            for _ in range(20):
                if side.busy:
                    side.work(store)
            for frame in side.take_output():
                other.receive(frame)
        received = asking.take_received()
        taken += 0 if received is None else len(received[0])
    assert taken == 5
    assert asking.passes == 1
    assert not asking.done
