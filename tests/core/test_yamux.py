"""The rules of yamux, byte by byte: what a peer may send, what it gets, what is kept."""

from __future__ import annotations

import pytest

from air.base.clock import ManualClock
from air.base.errors import AirError, Closed, ConfigError, LimitReached, Reset, Violation
from air.mux.api import Priority, ResetCode
from air.mux.events import Cut, Data, Eof, Event, Opened
from air.mux.yamux.config import YamuxConfig
from air.mux.yamux.core import YamuxCore
from air.mux.yamux.flow import GrowthBudget, ReceiveFlow
from air.mux.yamux.frame import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW_BYTES,
    WINDOW_UPDATE,
    Header,
    decode_header,
    encode_header,
)

KIB, MIB = 1024, 1024 * 1024
WINDOW = 256 * KIB


class Side:
    """A core with its clock and what it wrote."""

    def __init__(self, config: YamuxConfig | None = None, *, dialer: bool = False) -> None:
        self.clock = ManualClock()
        self.core = YamuxCore(config or YamuxConfig(), dialer=dialer, now=self.clock.now())
        assert self.output() == [Header(0, PING, SYN, 0, 1)]

    def hear(self, *frames: bytes) -> list[Event]:
        return self.core.receive(b"".join(frames), self.clock.now())

    def output(self, limit: int = 2**30) -> list[Header]:
        """Headers of everything that it has to say; payloads are checked for their length."""
        data, found, position = b"".join(self.core.take_output(limit)), [], 0
        while position < len(data):
            found.append(decode_header(data, position))
            position += 12 + (found[-1].length if found[-1].kind == DATA else 0)
        assert position == len(data)
        return found


def frame(kind: int, flags: int, id: int, length: int, body: bytes = b"") -> bytes:
    return encode_header(0, kind, flags, id, length) + body


def data(id: int, body: bytes, flags: int = 0) -> bytes:
    return frame(DATA, flags, id, len(body), body)


OPEN = frame(WINDOW_UPDATE, SYN, 1, 0)
ALIVE = frame(PING, SYN, 0, 77)


# What ends the connection

FATAL: list[tuple[str, bytes, str]] = [
    ("version 1", b"\x01" + ALIVE[1:], "yamux.bad-version"),
    ("type 4", frame(4, 0, 0, 0), "yamux.bad-type"),
    ("type 255", frame(255, 0, 1, 0), "yamux.bad-type"),
    ("opening our own parity", frame(WINDOW_UPDATE, SYN, 2, 0), "yamux.bad-stream-id"),
    ("opening our own parity with data", data(2, b"x", SYN), "yamux.bad-stream-id"),
    ("opening stream 0", frame(WINDOW_UPDATE, SYN, 0, 0), "yamux.bad-stream-id"),
    ("data for stream 0", data(0, b"x"), "yamux.bad-stream-id"),
    ("a reset of stream 0", frame(WINDOW_UPDATE, RST, 0, 0), "yamux.bad-stream-id"),
    ("credit for stream 0", frame(WINDOW_UPDATE, 0, 0, 9), "yamux.bad-stream-id"),
    ("a ping on a stream", frame(PING, SYN, 1, 9), "yamux.bad-stream-id"),
    ("a go away on a stream", frame(GO_AWAY, 0, 1, 0), "yamux.bad-stream-id"),
    ("a ping that answers itself", frame(PING, SYN | ACK, 0, 9), "yamux.bad-ping"),
    ("a stream opened twice", OPEN + OPEN, "yamux.duplicate-syn"),
    ("a stream opened twice with data", OPEN + data(1, b"x", SYN), "yamux.duplicate-syn"),
    ("one byte too many", data(1, bytes(WINDOW), SYN) + data(1, b"x"), "yamux.window-exceeded"),
    ("a body above the window", OPEN + frame(DATA, 0, 1, WINDOW + 1), "yamux.window-exceeded"),
    ("a body of 4 GiB", OPEN + frame(DATA, 0, 1, 2**32 - 1), "yamux.window-exceeded"),
    ("a body of 4 GiB for nobody", frame(DATA, 0, 9, 2**32 - 1), "yamux.window-exceeded"),
    ("credit above 32 bits", OPEN + frame(WINDOW_UPDATE, 0, 1, 2**32 - WINDOW), "yamux.window-overflow"),
    ("opening with too much credit", frame(WINDOW_UPDATE, SYN, 1, 2**32 - 1), "yamux.window-overflow"),
    ("credit with the end", OPEN + frame(WINDOW_UPDATE, FIN, 1, 2**32 - 1), "yamux.window-overflow"),
]


@pytest.mark.parametrize(("sent", "code"), [row[1:] for row in FATAL], ids=[row[0] for row in FATAL])
def test_a_broken_rule_ends_the_connection_with_go_away_1(sent: bytes, code: str) -> None:
    side = Side()
    side.hear(sent)
    assert isinstance(side.core.ended, Violation)
    assert side.core.ended.code == code
    assert side.core.ended.fatal
    assert side.output()[-1] == Header(0, GO_AWAY, 0, 0, 1)
    assert side.core.streams == side.core.unread_bytes == 0
    assert side.hear(ALIVE) == []
    assert side.output() == []


def test_what_came_before_the_fault_is_still_told() -> None:
    side = Side()
    assert side.hear(OPEN, data(1, b"abc"), frame(9, 0, 0, 0), data(1, b"no")) == [Opened(1), Data(1, b"abc")]


def test_a_body_above_the_window_is_refused_before_it_comes() -> None:
    side = Side()
    side.hear(OPEN)
    side.hear(frame(DATA, 0, 1, 17 * MIB))
    assert side.core.ended is not None


# What is ignored

HARMLESS: list[tuple[str, bytes]] = [
    ("data for a stream that is not open", data(5, b"hello")),
    ("an end of a stream that is not open", frame(WINDOW_UPDATE, FIN, 5, 0)),
    ("credit for a stream that is not open", frame(WINDOW_UPDATE, 0, 5, 2**32 - 1)),
    ("a reset of a stream that is not open", frame(WINDOW_UPDATE, RST, 5, 0)),
    ("an acknowledgement of nothing", frame(WINDOW_UPDATE, ACK, 2, 0)),
    ("an answer to no ping", frame(PING, ACK, 0, 9)),
    ("a ping without flags", frame(PING, 0, 0, 9)),
]


@pytest.mark.parametrize("sent", [row[1] for row in HARMLESS], ids=[row[0] for row in HARMLESS])
def test_what_concerns_nobody_is_ignored(sent: bytes) -> None:
    side = Side()
    assert side.hear(sent, ALIVE) == []
    assert side.core.ended is None
    assert side.output() == [Header(0, PING, ACK, 0, 77)]


def test_unknown_flag_bits_are_ignored() -> None:
    side = Side()
    assert side.hear(frame(WINDOW_UPDATE, SYN | 0x8000, 1, 0), data(1, b"x", 0x40)) == [
        Opened(1),
        Data(1, b"x"),
    ]
    assert side.hear(frame(PING, SYN | 0x100, 0, 3)) == []
    assert side.output() == [Header(0, PING, ACK, 0, 3)]


# Opening


def test_a_stream_is_opened_and_acknowledged_with_frames_of_their_own() -> None:
    near, far = Side(dialer=True), Side()
    key = near.core.open(Priority.BULK, near.clock.now())
    assert near.output() == [Header(0, WINDOW_UPDATE, SYN, 1, 0)]
    assert far.hear(frame(WINDOW_UPDATE, SYN, key, 0)) == [Opened(1)]
    assert far.output() == []
    far.core.accept(key)
    assert far.output() == [Header(0, WINDOW_UPDATE, ACK, 1, 0)]
    assert [near.core.open(Priority.BULK, near.clock.now()) for _ in range(3)] == [3, 5, 7]
    assert far.core.open(Priority.BULK, far.clock.now()) == 2


@pytest.mark.parametrize("flags", [SYN, SYN | FIN])
@pytest.mark.parametrize("body", [b"", b"hello"])
@pytest.mark.parametrize("kind", [DATA, WINDOW_UPDATE])
def test_a_stream_may_be_opened_ended_and_filled_by_one_frame(kind: int, body: bytes, flags: int) -> None:
    side = Side()
    sent = data(1, body, flags) if kind == DATA else frame(WINDOW_UPDATE, flags, 1, len(body))
    expected: list[Event] = [Opened(1)]
    if kind == DATA and body:
        expected.append(Data(1, body))
    if flags & FIN:
        expected.append(Eof(1))
    assert side.hear(sent) == expected


def test_ids_may_come_in_any_order_and_again_when_they_are_free() -> None:
    side = Side()
    opens = [frame(WINDOW_UPDATE, SYN, id, 0) for id in (9, 7, 2**32 - 1)]
    assert side.hear(*opens) == [Opened(9), Opened(7), Opened(2**32 - 1)]
    assert side.hear(frame(WINDOW_UPDATE, RST, 9, 0), opens[0])[-1] == Opened(9)


def test_the_opener_waits_at_256_streams_that_nobody_accepted() -> None:
    side = Side(dialer=True)
    keys = [side.core.open(Priority.BULK, side.clock.now()) for _ in range(256)]
    answers = [
        frame(WINDOW_UPDATE, ACK, keys[0], 0),
        frame(WINDOW_UPDATE, RST, keys[1], 0),
        data(keys[2], b"", ACK),
        data(keys[3], b"reply", ACK | FIN),
    ]
    for answer in answers:
        assert not side.core.may_open()
        side.hear(answer)
        assert side.core.may_open()
        side.core.open(Priority.BULK, side.clock.now())
    side.hear(answers[0])
    assert not side.core.may_open()


def test_no_more_streams_are_opened_than_allowed() -> None:
    side = Side(YamuxConfig(streams_max=2, inbound_max=1), dialer=True)
    for _ in range(2):
        side.core.open(Priority.BULK, side.clock.now())
    with pytest.raises(LimitReached) as caught:
        side.core.may_open()
    assert caught.value.code == "yamux.streams"


def test_ids_are_not_used_twice_when_all_are_used_up() -> None:
    side = Side(dialer=True)
    side.core._next_id = 2**32 - 1
    assert side.core.may_open()
    side.core.open(Priority.BULK, side.clock.now())
    with pytest.raises(Closed):
        side.core.may_open()


@pytest.mark.parametrize("limit", ["backlog_max", "inbound_max", "streams_max"])
def test_the_peer_s_streams_beyond_a_ceiling_are_reset_and_the_connection_lives(limit: str) -> None:
    config = {"backlog_max": 3, "inbound_max": 3, "streams_max": 3}
    side = Side(YamuxConfig(**{"inbound_max": 3, limit: config[limit]}))
    sent = [data(id, b"hi", SYN) for id in range(1, 2001, 2)]
    events = side.hear(*sent)
    assert [event.key for event in events if type(event) is Opened] == [1, 3, 5]
    assert side.core.refused == 997
    assert side.core.streams == 3
    assert set(side.output()) == {
        Header(0, WINDOW_UPDATE, RST, id, ResetCode.RESOURCE_LIMIT) for id in range(7, 2001, 2)
    }
    assert side.core.ended is None


def test_a_thousand_opens_at_once_leave_256_waiting() -> None:
    side = Side()
    side.hear(*[frame(WINDOW_UPDATE, SYN, id, 0) for id in range(1, 2001, 2)])
    assert side.core.streams == 256


# Flow control


def test_credit_returns_when_half_of_the_window_is_read_and_not_before() -> None:
    side = Side()
    side.hear(OPEN, data(1, bytes(WINDOW)))
    side.output()
    side.core.consume(1, WINDOW // 2 - 1, side.clock.now())
    assert side.output() == []
    side.core.consume(1, 1, side.clock.now())
    assert side.output() == [Header(0, WINDOW_UPDATE, 0, 1, WINDOW // 2)]
    side.hear(data(1, bytes(WINDOW // 2)))
    side.hear(data(1, b"x"))
    assert side.core.ended is not None


def test_only_payload_uses_credit_and_it_is_split_into_frames() -> None:
    side = Side(YamuxConfig(frame_bytes=100_000), dialer=True)
    key = side.core.open(Priority.BULK, side.clock.now())
    side.output()
    side.core.send(key, bytes(600_000))
    assert [header.length for header in side.output()] == [100_000, 100_000, 62_144]
    assert side.output() == []
    assert not side.core.has_output
    assert side.core.queued_bytes == 600_000 - WINDOW
    side.hear(frame(WINDOW_UPDATE, ACK, key, 50_000))
    assert [header.length for header in side.output()] == [50_000]
    side.hear(frame(WINDOW_UPDATE, 0, key, 2**31))
    assert sum(header.length for header in side.output()) == 600_000 - WINDOW - 50_000


def test_small_writes_share_a_frame() -> None:
    side = Side(dialer=True)
    key = side.core.open(Priority.BULK, side.clock.now())
    side.output()
    for index in range(100):
        side.core.send(key, bytes([index]))
    pieces = side.core.take_output()
    assert b"".join(pieces) == data(key, bytes(range(100)))


def test_a_fast_reader_s_window_doubles_up_to_the_ceiling_and_the_budget() -> None:
    config = YamuxConfig(window_bytes_max=4 * MIB, windows_grown_bytes_max=6 * MIB)
    side = Side(config)
    side.clock.advance(0.1)
    side.hear(frame(PING, ACK, 0, 1), OPEN, frame(WINDOW_UPDATE, SYN, 3, 0))
    assert side.core.rtt_seconds == pytest.approx(0.1)
    windows: dict[int, list[int]] = {1: [WINDOW], 3: [WINDOW]}
    for key in (1, 3):
        for _ in range(8):
            window = windows[key][-1]
            side.clock.advance(0.05)
            side.hear(data(key, bytes(window // 2)))
            side.core.consume(key, window // 2, side.clock.now())
            granted = side.output()[-1].length
            windows[key].append(window + granted - window // 2)
    assert windows[1][:6] == [WINDOW, 2 * WINDOW, 4 * WINDOW, 8 * WINDOW, 16 * WINDOW, 16 * WINDOW]
    assert windows[3][-1] == WINDOW + 6 * MIB - (4 * MIB - WINDOW)
    side.hear(frame(WINDOW_UPDATE, RST, 1, 0))
    side.hear(data(3, bytes(MIB)))
    assert side.core._budget.left == 6 * MIB - side.core._streams[3].flow.grown


def test_a_slow_reader_s_window_does_not_grow() -> None:
    side = Side()
    side.clock.advance(0.1)
    side.hear(frame(PING, ACK, 0, 1), OPEN)
    for _ in range(5):
        side.hear(data(1, bytes(WINDOW // 2)))
        side.clock.advance(0.5)
        side.core.consume(1, WINDOW // 2, side.clock.now())
        assert side.output() == [Header(0, WINDOW_UPDATE, 0, 1, WINDOW // 2)]


def test_a_window_does_not_grow_without_a_measured_round_trip() -> None:
    side = Side()
    side.hear(OPEN, data(1, bytes(WINDOW)))
    side.core.consume(1, WINDOW, side.clock.now())
    assert side.output() == [Header(0, WINDOW_UPDATE, 0, 1, WINDOW)]


def test_a_larger_first_window_is_announced_with_syn_and_ack() -> None:
    side = Side(YamuxConfig(window_bytes=MIB))
    side.core.open(Priority.BULK, side.clock.now())
    assert side.output() == [Header(0, WINDOW_UPDATE, SYN, 2, MIB - WINDOW)]
    side.hear(OPEN)
    side.core.accept(1)
    assert side.output() == [Header(0, WINDOW_UPDATE, ACK, 1, MIB - WINDOW)]
    assert len(side.hear(data(1, bytes(MIB)))) == 1
    side.hear(data(1, b"x"))
    assert side.core.ended is not None


def test_a_window_above_a_mebibyte_takes_a_frame_above_a_mebibyte() -> None:
    side = Side(YamuxConfig(window_bytes=2 * MIB))
    side.core.open(Priority.BULK, side.clock.now())
    assert side.hear(data(2, bytes(2 * MIB), ACK)) == [Data(2, bytes(2 * MIB))]


def test_unread_data_of_many_streams_is_bounded_by_resetting_what_exceeds_it() -> None:
    side = Side(YamuxConfig(unread_bytes_max=MIB))
    events = side.hear(*[data(id, bytes(WINDOW), SYN) for id in range(1, 21, 2)])
    assert side.core.unread_bytes == MIB
    assert sum(len(event.data) for event in events if type(event) is Data) == MIB
    assert [event.error.code for event in events if type(event) is Cut] == ["yamux.unread"] * 6
    assert Header(0, WINDOW_UPDATE, RST, 9, ResetCode.RESOURCE_LIMIT) in side.output()
    assert side.core.ended is None


def test_queued_data_is_bounded_per_stream_and_in_all() -> None:
    side = Side(YamuxConfig(send_buffer_bytes=1000, queued_bytes_max=3000), dialer=True)
    keys = [side.core.open(Priority.BULK, side.clock.now()) for _ in range(5)]
    for key in keys[:3]:
        side.core.send(key, bytes(999))
        assert side.core.room(key)
        side.core.send(key, b"x")
        assert not side.core.room(key)
    side.core.send(keys[3], b"x")
    assert not side.core.room(keys[3])
    assert side.core.room(keys[4])
    side.output()
    assert all(side.core.room(key) for key in keys)


# Half-close and reset


def test_the_end_of_a_stream_has_a_frame_of_its_own_after_the_data() -> None:
    side = Side(dialer=True)
    key = side.core.open(Priority.BULK, side.clock.now())
    side.core.send(key, b"abc")
    side.core.send_eof(key)
    side.core.send(key, b"too late")
    assert side.output()[1:] == [Header(0, DATA, 0, 1, 3), Header(0, WINDOW_UPDATE, FIN, 1, 0)]
    assert side.core.streams == 1
    assert side.hear(data(key, b"answer", FIN)) == [Data(1, b"answer"), Eof(1)]
    side.core.consume(key, 6, side.clock.now())
    assert side.core.streams == 0


def test_the_end_waits_for_data_that_waits_for_credit() -> None:
    side = Side(dialer=True)
    key = side.core.open(Priority.BULK, side.clock.now())
    side.core.send(key, bytes(WINDOW + 1))
    side.core.send_eof(key)
    assert side.output()[-1].kind == DATA
    side.hear(frame(WINDOW_UPDATE, 0, key, 1))
    assert side.output() == [Header(0, DATA, 0, key, 1), Header(0, WINDOW_UPDATE, FIN, key, 0)]


def test_the_end_is_told_after_the_whole_body_it_came_with() -> None:
    side = Side()
    assert side.hear(OPEN, data(1, b"abcdef", FIN)[:14]) == [Opened(1), Data(1, b"ab")]
    assert side.hear(b"cdef") == [Data(1, b"cdef"), Eof(1)]


def test_data_after_the_end_resets_that_stream_only() -> None:
    side = Side()
    events = side.hear(OPEN, frame(WINDOW_UPDATE, FIN, 1, 0), data(1, b"x"), ALIVE)
    assert [type(event) for event in events] == [Opened, Eof, Cut]
    assert isinstance(events[-1], Cut)
    assert events[-1].error.code == "yamux.data-after-fin"
    assert side.output() == [
        Header(0, WINDOW_UPDATE, RST, 1, ResetCode.VIOLATION),
        Header(0, PING, ACK, 0, 77),
    ]


def test_a_second_end_and_empty_frames_change_nothing() -> None:
    side = Side()
    end = frame(WINDOW_UPDATE, FIN, 1, 0)
    assert side.hear(OPEN, data(1, b""), end, end, data(1, b"", FIN), data(1, b"")) == [Opened(1), Eof(1)]
    assert side.core.ended is None


def test_credit_still_counts_after_the_peer_s_end() -> None:
    side = Side()
    side.hear(OPEN, frame(WINDOW_UPDATE, FIN, 1, 0))
    side.core.send(1, bytes(WINDOW + 7))
    side.output()
    side.hear(frame(WINDOW_UPDATE, 0, 1, 7))
    assert side.output() == [Header(0, DATA, 0, 1, 7)]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (0, "stream.reset"),
        (0x1001, "stream.negotiation-failed"),
        (0x1002, "stream.resource-limit"),
        (5, "stream.reset"),
    ],
)
def test_a_reset_s_length_is_a_reason_and_not_credit(number: int, code: str) -> None:
    side = Side()
    (event,) = side.hear(OPEN, frame(WINDOW_UPDATE, RST, 1, number))[1:]
    assert isinstance(event, Cut)
    assert isinstance(event.error, Reset)
    assert event.error.code == code
    assert side.hear(frame(WINDOW_UPDATE, RST, 3, 2**32 - 1)) == []
    assert side.core.ended is None


@pytest.mark.parametrize("flags", [RST, RST | FIN, RST | ACK])
def test_a_reset_may_come_on_a_data_frame_whose_body_is_dropped(flags: int) -> None:
    side = Side()
    events = side.hear(OPEN, data(1, b"never mind", flags), ALIVE)
    assert [type(event) for event in events] == [Opened, Cut]
    assert side.output() == [Header(0, PING, ACK, 0, 77)]


def test_our_reset_drops_what_was_queued_and_what_is_still_coming() -> None:
    side = Side()
    side.hear(OPEN, data(1, b"0123456789")[:15])
    side.core.send(1, b"never sent")
    side.core.reset(1, ResetCode.GATED)
    assert side.hear(b"3456789", data(1, b"more"), ALIVE) == []
    assert side.output() == [Header(0, WINDOW_UPDATE, RST, 1, ResetCode.GATED), Header(0, PING, ACK, 0, 77)]
    assert side.core.dropped_bytes == 11
    assert side.core.queued_bytes == side.core.unread_bytes == side.core.streams == 0


def test_a_closed_stream_sends_its_rest_gives_no_credit_and_is_reset_when_the_peer_lingers() -> None:
    side = Side()
    side.hear(OPEN, data(1, bytes(100_000)))
    side.core.send(1, b"goodbye")
    side.core.close(1, side.clock.now())
    assert side.core.unread_bytes == 0
    assert side.hear(data(1, bytes(WINDOW - 100_000))) == []
    assert side.output() == [Header(0, DATA, 0, 1, 7), Header(0, WINDOW_UPDATE, FIN, 1, 0)]
    assert side.core.streams == 1
    assert side.core.deadline is not None
    side.hear(frame(PING, ACK, 0, 1))
    for _ in range(12):
        side.clock.advance(5)
        side.core.tick(side.clock.now())
        side.hear(frame(PING, ACK, 0, 2), frame(PING, ACK, 0, 3))
    assert side.output()[-1] == Header(0, WINDOW_UPDATE, RST, 1, ResetCode.GARBAGE_COLLECTED)
    assert side.core.streams == 0


def test_a_stream_over_in_both_directions_counts_until_it_is_read() -> None:
    side = Side()
    side.hear(OPEN, data(1, bytes(1000), FIN))
    side.core.send_eof(1)
    side.output()
    side.core.consume(1, 999, side.clock.now())
    assert (side.core.streams, side.core.unread_bytes) == (1, 1)
    side.core.consume(1, 1, side.clock.now())
    assert (side.core.streams, side.core.unread_bytes) == (0, 0)
    assert side.output() == []


def test_a_closed_stream_is_forgotten_at_the_peer_s_end() -> None:
    side = Side()
    side.hear(OPEN)
    side.core.close(1, side.clock.now())
    side.output()
    assert side.hear(data(1, b"late", FIN)) == []
    assert side.core.streams == 0


# Ping and goodbye


def test_a_ping_is_answered_once_with_its_value() -> None:
    side = Side()
    side.hear(frame(PING, SYN, 0, 0), frame(PING, SYN, 0, 2**32 - 1))
    assert side.output() == [Header(0, PING, ACK, 0, 0), Header(0, PING, ACK, 0, 2**32 - 1)]


def test_a_flood_of_pings_is_not_answered_beyond_a_ceiling() -> None:
    side = Side()
    side.hear(ALIVE * 10_000)
    assert len(side.output()) == 32
    assert side.core.pings_ignored == 10_000 - 32
    side.hear(ALIVE)
    assert len(side.output()) == 1


def test_silence_after_a_ping_ends_the_connection_and_any_byte_delays_that() -> None:
    side = Side()
    assert side.core.deadline == 10
    side.clock.advance(9)
    side.hear(OPEN[:3])
    side.clock.advance(9.5)
    side.core.tick(side.clock.now())
    assert side.core.ended is None
    side.clock.advance(0.5)
    side.core.tick(side.clock.now())
    assert side.core.ended is not None
    assert side.core.ended.code == "yamux.keepalive"
    assert side.core.deadline is None


def test_pings_go_on_after_each_answer_and_measure_the_round_trip() -> None:
    side = Side()
    side.clock.advance(0.2)
    side.hear(frame(PING, ACK, 0, 1))
    assert side.core.rtt_seconds == pytest.approx(0.2)
    assert side.core.deadline == pytest.approx(30.2)
    side.clock.advance(30)
    side.core.tick(side.clock.now())
    assert side.output() == [Header(0, PING, SYN, 0, 2)]
    side.hear(frame(PING, ACK, 0, 1))
    assert side.core.deadline == pytest.approx(40.2)


def test_after_the_peer_s_goodbye_streams_finish_and_none_begins() -> None:
    side = Side()
    side.hear(OPEN, frame(GO_AWAY, 0, 0, 0))
    assert side.core.ended is None
    with pytest.raises(Closed):
        side.core.may_open()
    side.core.send(1, b"rest")
    side.core.send_eof(1)
    assert side.output()[-2:] == [Header(0, DATA, 0, 1, 4), Header(0, WINDOW_UPDATE, FIN, 1, 0)]
    assert side.hear(frame(WINDOW_UPDATE, FIN, 1, 0), OPEN) == [Eof(1)]
    assert type(side.core.ended) is Closed


@pytest.mark.parametrize("code", [1, 2, 0x1001, 0x1007, 2**32 - 1])
def test_a_goodbye_for_a_reason_ends_the_connection_at_once(code: int) -> None:
    side = Side()
    side.hear(OPEN, frame(GO_AWAY, 0, 0, code), data(1, b"x"))
    assert type(side.core.ended) is Reset
    assert side.core.ended.code == "yamux.go-away"


def test_leaving_refuses_new_streams_and_says_why() -> None:
    side = Side()
    side.core.leave()
    assert side.hear(OPEN) == []
    assert side.output() == [Header(0, WINDOW_UPDATE, RST, 1, ResetCode.SHUTDOWN)]
    side.core.go_away(0)
    assert side.output() == [Header(0, GO_AWAY, 0, 0, 0)]
    assert type(side.core.ended) is Closed


def test_streams_opened_and_reset_without_end_are_a_flood() -> None:
    side = Side()
    for id in range(1, 2001, 2):
        side.hear(frame(WINDOW_UPDATE, SYN, id, 0), frame(WINDOW_UPDATE, RST, id, 0))
    assert side.core.ended is None
    side.hear(frame(WINDOW_UPDATE, SYN, 1, 0), frame(WINDOW_UPDATE, RST, 1, 0))
    assert isinstance(side.core.ended, LimitReached)
    assert side.core.ended.code == "yamux.resets"
    assert side.output()[-1] == Header(0, GO_AWAY, 0, 0, 0x1002)


def test_streams_opened_and_cut_for_a_fault_are_a_flood_too() -> None:
    side = Side()
    for id in range(1, 2001, 2):
        side.hear(frame(WINDOW_UPDATE, SYN | FIN, id, 0), data(id, b"x"))
    assert side.core.ended is None
    side.hear(frame(WINDOW_UPDATE, SYN | FIN, 1, 0), data(1, b"x"))
    assert isinstance(side.core.ended, LimitReached)
    assert side.core.ended.code == "yamux.resets"


def test_a_hundred_resets_a_second_are_no_flood() -> None:
    side = Side()
    for id in range(1, 6001, 2):
        side.clock.advance(0.0101)
        side.hear(frame(WINDOW_UPDATE, SYN, id, 0), frame(WINDOW_UPDATE, RST, id, 0))
    assert side.core.ended is None


def test_answers_that_nobody_takes_stop_the_reading() -> None:
    side = Side(YamuxConfig(inbound_max=1))
    side.hear(*[frame(WINDOW_UPDATE, SYN, id, 0) for id in range(1, 12_001, 2)])
    assert side.core.stalled
    side.output()
    assert not side.core.stalled


@pytest.mark.parametrize(
    ("heard", "error", "kind"),
    [
        (b"", None, Closed),
        (OPEN, None, Reset),
        (ALIVE[:5], None, Reset),
        (b"", Reset("cut"), Reset),
        (b"", Closed("end"), Closed),
        (b"", Violation("below"), Violation),
    ],
)
def test_the_end_of_the_connection_below_is_orderly_only_when_nothing_was_open(
    heard: bytes, error: AirError | None, kind: type[AirError]
) -> None:
    side = Side()
    side.hear(heard)
    side.core.receive_eof(side.clock.now(), error)
    assert type(side.core.ended) is kind


# Order


def test_control_frames_go_before_data_and_urgent_data_before_bulk() -> None:
    side = Side(YamuxConfig(frame_bytes=1000), dialer=True)
    bulk, talk = (side.core.open(p, side.clock.now()) for p in (Priority.BULK, Priority.INTERACTIVE))
    side.output()
    side.core.send(bulk, bytes(200_000))
    first = side.output(5000)
    assert {header.stream for header in first} == {bulk}
    side.core.send(talk, bytes(3000))
    side.hear(ALIVE)
    assert [(header.kind, header.stream) for header in side.output(5000)] == [
        (PING, 0),
        (DATA, talk),
        (DATA, talk),
        (DATA, talk),
        (DATA, bulk),
        (DATA, bulk),
    ]


def test_bulk_gets_its_share_beside_a_talker_that_never_stops() -> None:
    side = Side(YamuxConfig(frame_bytes=1000), dialer=True)
    bulk, talk = (side.core.open(p, side.clock.now()) for p in (Priority.BULK, Priority.INTERACTIVE))
    side.output()
    sent = {bulk: 0, talk: 0}
    side.core.send(bulk, bytes(200_000))
    for _ in range(170):
        side.core.send(talk, bytes(1000))
        for header in side.output(1000):
            sent[header.stream] += header.length
    assert sent[bulk] >= 170_000 // 17 - 1000
    assert sent[talk] >= 150_000


def test_streams_of_a_class_take_turns() -> None:
    side = Side(YamuxConfig(frame_bytes=1000), dialer=True)
    keys = [side.core.open(Priority.BULK, side.clock.now()) for _ in range(5)]
    side.output()
    for key in keys:
        side.core.send(key, bytes(10_000))
    assert [header.stream for header in side.output(14_000)][:10] == keys * 2


def test_limits_that_cannot_work_are_refused() -> None:
    for bad in (
        {"window_bytes": 1000},
        {"window_bytes_max": 1000},
        {"window_bytes_max": 2**32},
        {"frame_bytes": 2 * MIB},
        {"streams_max": 1},
        {"backlog_max": 0},
    ):
        with pytest.raises(ConfigError):
            YamuxConfig(**bad)


def test_a_window_grows_on_a_line_whose_ping_is_faster_than_any_application() -> None:
    for elapsed, grows in ((0.003, True), (0.005, False)):
        flow = ReceiveFlow(WINDOW_BYTES, WINDOW_BYTES, 0.0)
        flow.granted, flow.unread = 0, WINDOW_BYTES
        credit = flow.consume(WINDOW_BYTES, elapsed, 0.0001, 16 * WINDOW_BYTES, GrowthBudget(2**30))
        assert credit == WINDOW_BYTES * (2 if grows else 1)
