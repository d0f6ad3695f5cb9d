"""The rules of mplex, byte by byte, and its laws."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from air.base.clock import ManualClock
from air.base.errors import Closed, ConfigError, LimitReached, Reset, Violation
from air.mux.api import Priority, ResetCode
from air.mux.events import Cut, Data, Eof, Event, Opened
from air.mux.mplex.config import MplexConfig
from air.mux.mplex.core import MplexCore
from air.mux.mplex.frame import Flag, encode_header
from tests.mux_machine import MuxMachine, merged, split

MIB = 1024 * 1024


class Side:
    def __init__(self, config: MplexConfig | None = None) -> None:
        self.clock = ManualClock()
        self.core = MplexCore(config or MplexConfig(), now=self.clock.now())

    def hear(self, *frames: bytes) -> list[Event]:
        return self.core.receive(b"".join(frames), self.clock.now())

    def output(self) -> bytes:
        return b"".join(self.core.take_output(2**30))


def frame(id: int, flag: Flag, body: bytes = b"") -> bytes:
    return encode_header(id, flag, len(body)) + body


OPEN = frame(0, Flag.NEW, b"i0")

FATAL = [
    ("flag 7", b"\x07\x00", "mplex.bad-flag"),
    ("a message above 1 MiB", encode_header(0, Flag.MESSAGE_INITIATOR, MIB + 1), "mplex.too-big"),
    ("a length whose first bytes say that it is above 1 MiB", b"\x02\xff\xff\xff", "mplex.too-big"),
    ("a length that never ends", b"\x02" + b"\x80" * 12, "mplex.too-big"),
    ("an id that never ends", b"\xff" * 12, "mplex.bad-header"),
    ("a padded id", b"\x82\x00\x00", "mplex.bad-header"),
    ("a padded length", b"\x02\x81\x00", "mplex.bad-header"),
    ("a stream opened twice", OPEN + OPEN, "mplex.duplicate-stream"),
]


@pytest.mark.parametrize(("sent", "code"), [row[1:] for row in FATAL], ids=[row[0] for row in FATAL])
def test_a_broken_rule_ends_the_connection(sent: bytes, code: str) -> None:
    side = Side()
    side.hear(sent)
    assert isinstance(side.core.ended, Violation)
    assert side.core.ended.code == code
    assert side.hear(OPEN) == []


def test_a_conversation_looks_as_the_specification_writes_it() -> None:
    near, far = Side(), Side()
    key = near.core.open(Priority.BULK, near.clock.now())
    near.core.send(key, b"hello")
    sent = near.output()
    assert sent == bytes.fromhex("000130" + "020568656c6c6f")
    assert far.hear(sent) == [Opened(0), Data(0, b"hello")]
    far.core.send(0, b"hi")
    answer = far.output()
    assert answer == bytes.fromhex("01026869")
    assert near.hear(answer) == [Data(key, b"hi")]
    near.core.send_eof(key)
    assert near.output() == bytes.fromhex("0400")
    near.core.reset(key, ResetCode.GATED)
    assert near.output() == bytes.fromhex("0600")
    far.core.send_eof(0)
    far.core.reset(0, ResetCode.NONE)
    assert far.output() == bytes.fromhex("0500")


def test_both_sides_number_from_zero_without_mixing_up() -> None:
    side = Side()
    mine = side.core.open(Priority.BULK, side.clock.now())
    events = side.hear(
        OPEN, frame(0, Flag.MESSAGE_INITIATOR, b"theirs"), frame(0, Flag.MESSAGE_RECEIVER, b"mine")
    )
    assert events == [Opened(0), Data(0, b"theirs"), Data(mine, b"mine")]
    assert mine != 0


@pytest.mark.parametrize("flag", [flag for flag in Flag if flag != Flag.NEW])
def test_frames_for_streams_that_are_not_open_are_ignored(flag: Flag) -> None:
    side = Side()
    assert side.hear(frame(9, flag, b"whatever"), OPEN) == [Opened(0)]
    assert side.core.ended is None


def test_a_close_is_half_a_close_and_data_after_it_resets_the_stream() -> None:
    side = Side()
    events = side.hear(OPEN, frame(0, Flag.CLOSE_INITIATOR), frame(0, Flag.CLOSE_INITIATOR))
    assert events == [Opened(0), Eof(0)]
    side.core.send(0, b"answer")
    assert side.output() == frame(0, Flag.MESSAGE_RECEIVER, b"answer")
    (cut,) = side.hear(frame(0, Flag.MESSAGE_INITIATOR, b"x"))
    assert isinstance(cut, Cut)
    assert cut.error.code == "mplex.data-after-close"
    assert side.output() == frame(0, Flag.RESET_RECEIVER)
    assert side.core.ended is None


def test_streams_beyond_a_ceiling_are_reset() -> None:
    side = Side(MplexConfig(backlog_max=2))
    events = side.hear(*[frame(id, Flag.NEW, b"x" * id) for id in range(5)])
    assert events == [Opened(0), Opened(2)]
    assert side.output() == b"".join(frame(id, Flag.RESET_RECEIVER) for id in (2, 3, 4))
    assert side.core.refused == 3


def test_our_own_streams_have_a_ceiling() -> None:
    side = Side(MplexConfig(streams_max=1, inbound_max=1))
    side.core.open(Priority.BULK, side.clock.now())
    with pytest.raises(LimitReached):
        side.core.may_open()


def test_an_unread_stream_stops_the_reading_and_is_reset_after_a_while() -> None:
    side = Side(MplexConfig(unread_bytes_max=1000, stall_seconds=5))
    side.hear(OPEN, frame(1, Flag.NEW), frame(0, Flag.MESSAGE_INITIATOR, bytes(1001)))
    assert side.core.stalled
    assert side.core.deadline == 5
    side.clock.advance(4.9)
    assert side.core.tick(side.clock.now()) == []
    side.clock.advance(0.1)
    (cut,) = side.core.tick(side.clock.now())
    assert isinstance(cut, Cut)
    assert cut.error.code == "mplex.stalled"
    assert side.output() == frame(0, Flag.RESET_RECEIVER)
    assert not side.core.stalled
    assert side.core.streams == 1


def test_reading_goes_on_when_half_of_it_is_consumed() -> None:
    side = Side(MplexConfig(unread_bytes_max=1000))
    side.hear(OPEN, frame(0, Flag.MESSAGE_INITIATOR, bytes(1500)))
    side.core.consume(0, 999, side.clock.now())
    assert side.core.stalled
    side.core.consume(0, 1, side.clock.now())
    assert not side.core.stalled
    assert side.core.deadline is None


def test_unread_data_of_all_streams_is_bounded_too() -> None:
    side = Side(MplexConfig(unread_total_bytes_max=2000))
    for id in range(3):
        side.hear(frame(id, Flag.NEW), frame(id, Flag.MESSAGE_INITIATOR, bytes(800)))
    assert side.core.stalled
    side.core.consume(0, 800, side.clock.now())
    assert side.core.stalled
    side.core.close(2, side.clock.now())
    assert not side.core.stalled


def test_a_stream_that_another_one_crowded_out_is_not_reset_with_it() -> None:
    side = Side(MplexConfig(unread_bytes_max=1000, unread_total_bytes_max=1800, stall_seconds=5))
    for id, size in ((0, 1500), (1, 400)):
        side.hear(frame(id, Flag.NEW), frame(id, Flag.MESSAGE_INITIATOR, bytes(size)))
    side.clock.advance(5)
    assert [event.key for event in side.core.tick(side.clock.now())] == [0]
    assert not side.core.stalled
    assert side.core.streams == 1


def test_streams_opened_and_reset_without_end_are_a_flood() -> None:
    side = Side()
    for id in range(1001):
        side.hear(frame(id, Flag.NEW), frame(id, Flag.RESET_INITIATOR))
    assert isinstance(side.core.ended, LimitReached)
    assert side.core.ended.code == "mplex.resets"


def test_streams_opened_and_cut_for_a_fault_are_a_flood_too() -> None:
    side = Side()
    for id in range(1001):
        assert side.core.ended is None
        side.hear(
            frame(id, Flag.NEW), frame(id, Flag.CLOSE_INITIATOR), frame(id, Flag.MESSAGE_INITIATOR, b"x")
        )
    assert isinstance(side.core.ended, LimitReached)
    assert side.core.ended.code == "mplex.resets"


def test_resets_that_nobody_takes_stop_the_reading() -> None:
    side = Side(MplexConfig(inbound_max=1))
    side.hear(*[frame(id, Flag.NEW) for id in range(40_000)])
    assert side.core.stalled
    side.output()
    assert not side.core.stalled


def test_the_end_is_orderly_only_when_nothing_was_open() -> None:
    side, busy = Side(), Side()
    side.core.receive_eof(side.clock.now())
    assert type(side.core.ended) is Closed
    busy.hear(OPEN)
    busy.core.receive_eof(busy.clock.now())
    assert type(busy.core.ended) is Reset


def test_limits_that_cannot_work_are_refused() -> None:
    for bad in (
        {"frame_bytes": 2 * MIB},
        {"message_bytes_max": 2 * MIB},
        {"streams_max": 1},
        {"backlog_max": 0},
    ):
        with pytest.raises(ConfigError):
            MplexConfig(**bad)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    header = encode_header(
        draw(st.sampled_from([0, 0, 1, 300])), draw(st.sampled_from([0, 1, 2, 2, 3, 4, 5, 6])), 0
    )
    body = draw(st.binary(max_size=200))
    return header[:-1] + encode_header(0, 0, len(body))[1:] + body


@settings(max_examples=300, deadline=None)
@given(st.lists(frames(), max_size=30), st.lists(st.integers(0, 5000), max_size=40), st.binary(max_size=5))
def test_events_and_answers_do_not_depend_on_how_bytes_arrive(
    sent: list[bytes], cuts: list[int], end: bytes
) -> None:
    data = b"".join(sent) + end
    config = MplexConfig(backlog_max=3)
    whole, pieces = Side(config), Side(config)
    expected = whole.hear(data)
    found = [event for piece in split(data, cuts) for event in pieces.hear(piece)]
    assert merged(found) == merged(expected)
    assert pieces.output() == whole.output()
    assert repr(pieces.core.ended) == repr(whole.core.ended)


def test_streams_are_opened_no_faster_than_js_libp2p_allows() -> None:
    side = Side()
    opened: list[float] = []
    for _ in range(400):
        while side.core.may_open():
            side.core.open(Priority.INTERACTIVE, side.clock.now())
            opened.append(side.clock.now().monotonic)
        assert side.core.deadline is not None
        side.clock.advance(0.01)
        side.core.tick(side.clock.now())
    assert len(opened) == 4 * 5
    for first, sixth in zip(opened, opened[5:], strict=False):
        assert sixth - first > 1.0, "six streams within a second: js-libp2p hangs up"


def make(dialer: bool, clock: ManualClock) -> MplexCore:
    config = MplexConfig(
        linger_seconds=1e9,
        stall_seconds=1e9,
        opens_max=10_000,
        frame_bytes=20_000 if dialer else 65_507,
    )
    return MplexCore(config, now=clock.now())


class MplexConversation(MuxMachine):
    make = staticmethod(make)
    peer_key = staticmethod(lambda key: key ^ 1)


TestMplexConversation = MplexConversation.TestCase
TestMplexConversation.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
