"""Laws of the yamux core: any cut of the input, any order of doings."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from air.base.clock import ManualClock
from air.mux.api import Priority
from air.mux.inbox import Inbox
from air.mux.schedule import WEIGHTS, Schedule
from air.mux.yamux.config import YamuxConfig
from air.mux.yamux.core import YamuxCore
from air.mux.yamux.frame import DATA, encode_header
from tests.mux_machine import MuxMachine, merged, split

KIB = 1024


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame as a peer may send it, mostly a sane one."""
    kind = draw(st.sampled_from([0, 0, 0, 1, 1, 2, 3, 9]))
    flags = draw(st.sampled_from([0, 0, 1, 1, 2, 4, 5, 8, 9, 0x8001]))
    id = draw(st.sampled_from([1, 1, 3, 5, 7, 2, 0])) if kind < 2 else draw(st.sampled_from([0, 0, 0, 0, 1]))
    if kind == DATA:
        body = draw(st.binary(max_size=60))
        return encode_header(0, kind, flags, id, len(body)) + body
    length = draw(st.sampled_from([0, 0, 1, 1000, 2**32 - 1])) if kind < 3 else draw(st.sampled_from([0, 1]))
    return encode_header(draw(st.sampled_from([0] * 30 + [1])), kind, flags, id, length)


def server() -> YamuxCore:
    core = YamuxCore(YamuxConfig(backlog_max=3, pongs_max=1000), dialer=False, now=ManualClock().now())
    core.take_output()
    return core


@settings(max_examples=400, deadline=None)
@given(st.lists(frames(), max_size=30), st.lists(st.integers(0, 5000), max_size=40))
def test_events_and_answers_do_not_depend_on_how_bytes_arrive(sent: list[bytes], cuts: list[int]) -> None:
    now, data = ManualClock().now(), b"".join(sent)
    whole, pieces = server(), server()
    expected = whole.receive(data, now)
    found = [event for piece in split(data, cuts) for event in pieces.receive(piece, now)]
    assert merged(found) == merged(expected)
    assert b"".join(pieces.take_output()) == b"".join(whole.take_output())
    assert repr(pieces.ended) == repr(whole.ended)
    assert (pieces.streams, pieces.unread_bytes, pieces.dropped_bytes) == (
        whole.streams,
        whole.unread_bytes,
        whole.dropped_bytes,
    )


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_no_input_makes_it_raise(data: bytes, cuts: list[int]) -> None:
    core, now = server(), ManualClock().now()
    for piece in split(data, cuts):
        core.receive(bytearray(piece), now)
        core.receive(memoryview(b""), now)
    core.take_output()
    core.receive_eof(now)
    assert core.ended is not None


def make(dialer: bool, clock: ManualClock) -> YamuxCore:
    config = YamuxConfig(
        window_bytes=(300 if dialer else 256) * KIB,
        window_bytes_max=1024 * KIB,
        windows_grown_bytes_max=1000 * KIB,
        frame_bytes=20_000 if dialer else 65_507,
        backlog_max=4,
        ping_seconds=1e9,
        answer_seconds=1e9,
        linger_seconds=1e9,
    )
    return YamuxCore(config, dialer=dialer, now=clock.now())


class YamuxConversation(MuxMachine):
    make = staticmethod(make)
    peer_key = staticmethod(lambda key: key)

    def teardown(self) -> None:
        super().teardown()
        for core in self.cores:
            assert isinstance(core, YamuxCore)
            grown = 0
            for stream in core._streams.values():
                flow = stream.flow
                grown += flow.grown
                if not (stream.read_closed or stream.eof_received):
                    assert flow.granted + flow.unread + flow.consumed == flow.window
            assert core._budget.left == 1000 * KIB - grown
            assert core.unread_bytes == sum(stream.flow.unread for stream in core._streams.values())
            assert core.queued_bytes == sum(stream.queued for stream in core._streams.values())


TestYamuxConversation = YamuxConversation.TestCase
TestYamuxConversation.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@given(
    st.lists(st.binary(min_size=1, max_size=3000), max_size=60), st.lists(st.integers(1, 5000), min_size=1)
)
def test_an_inbox_gives_back_what_was_put_in(chunks: list[bytes], sizes: list[int]) -> None:
    inbox, out, turn = Inbox(), [], 0
    for index, chunk in enumerate(chunks):
        inbox.put(chunk)
        if index % 3 == 2:
            out.append(inbox.take(sizes[turn % len(sizes)]))
            turn += 1
    while inbox.size:
        out.append(inbox.take(sizes[turn % len(sizes)]))
        assert 0 < len(out[-1]) <= sizes[turn % len(sizes)]
        turn += 1
    assert b"".join(out) == b"".join(chunks)


def test_a_window_of_tiny_chunks_does_not_take_many_times_its_size() -> None:
    inbox = Inbox()
    for _ in range(100_000):
        inbox.put(b"ab")
    assert len(inbox._chunks) < 30
    assert inbox.size == 200_000


class Sender:
    def __init__(self, priority: Priority) -> None:
        self.priority, self.in_line, self.sent = priority, False, 0


@given(st.lists(st.tuples(st.sampled_from(Priority), st.integers(1, 65_507)), min_size=2, max_size=12))
def test_shares_follow_the_weights_and_nobody_starves(kinds: list[tuple[Priority, int]]) -> None:
    schedule: Schedule[Sender] = Schedule()
    senders = [(Sender(priority), size) for priority, size in kinds]
    for sender, _ in senders:
        schedule.add(sender)
    sizes = {id(sender): size for sender, size in senders}
    for _ in range(4000):
        chosen = schedule.next()
        assert chosen is not None
        chosen.sent += 1
        schedule.sent(chosen.priority, sizes[id(chosen)])
        schedule.add(chosen)
    classes = {priority: [s for s, _ in senders if s.priority == priority] for priority in Priority}
    clocks = []
    for priority, members in classes.items():
        if members:
            turns = [member.sent for member in members]
            assert max(turns) - min(turns) <= 1
            clocks.append(sum(m.sent * sizes[id(m)] for m in members) / WEIGHTS[priority])
    assert max(clocks) - min(clocks) <= 65_507


def test_a_class_that_was_silent_has_no_claim_to_what_it_did_not_use() -> None:
    schedule: Schedule[Sender] = Schedule()
    bulk, talk = Sender(Priority.BULK), Sender(Priority.INTERACTIVE)
    schedule.add(bulk)
    for turn in range(1100):
        if turn == 1000:
            schedule.add(talk)
        chosen = schedule.next()
        assert chosen is not None
        chosen.sent += 1
        schedule.sent(chosen.priority, 1000)
        schedule.add(chosen)
    assert bulk.sent >= 1005
    assert talk.sent >= 90
