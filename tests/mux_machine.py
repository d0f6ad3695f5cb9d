"""Two multiplexer cores connected back to back, driven at random, checked against what was sent."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from air.base.clock import ManualClock
from air.mux.api import Priority, ResetCode
from air.mux.events import Cut, Data, Event, MuxCore, Opened

__all__ = ["MuxMachine", "merged", "split"]


def merged(events: list[Event]) -> list[str]:
    """Events in print, neighbouring Data of one stream joined: how bytes were cut does not show."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if type(event) is Data and type(last) is Data and last.key == event.key:
            result[-1] = Data(event.key, last.data + event.data)
        else:
            result.append(event)
    return [repr(event) for event in result]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` in pieces that end at ``cuts``."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


class Half:
    """One side's end of a stream, and what it should come to know."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.ended = False
        self.received = bytearray()
        self.unread = 0
        self.heard_end = False
        self.known = False
        self.accepted = False
        self.closed = False


class Channel:
    def __init__(self, keys: tuple[int, int]) -> None:
        self.keys = keys
        self.halves = (Half(), Half())
        self.reset = False


class MuxMachine(RuleBasedStateMachine):
    """Subclasses set ``make`` and ``peer_key``."""

    make: Callable[[bool, ManualClock], MuxCore]
    peer_key: Callable[[int], int]

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.cores = (type(self).make(True, self.clock), type(self).make(False, self.clock))
        self.wires = (bytearray(), bytearray())
        self.channels: list[Channel] = []
        self.random = random.Random(7)

    # What an application does

    @precondition(lambda self: len(self.channels) < 12)
    @rule(side=st.integers(0, 1), priority=st.sampled_from(Priority))
    def open(self, side: int, priority: Priority) -> None:
        if not self.cores[side].may_open():
            return
        key = self.cores[side].open(priority, self.clock.now())
        other = type(self).peer_key(key)
        channel = Channel((key, other) if side == 0 else (other, key))
        channel.halves[side].known = channel.halves[side].accepted = True
        self.channels.append(channel)

    def pick(self, index: int, side: int) -> tuple[Channel, Half, int] | None:
        known = [channel for channel in self.channels if channel.halves[side].known and not channel.reset]
        if not known:
            return None
        channel = known[index % len(known)]
        return channel, channel.halves[side], channel.keys[side]

    @rule(
        side=st.integers(0, 1),
        index=st.integers(0, 11),
        size=st.sampled_from([1, 2, 700, 5000, 70_000, 300_000]),
    )
    def send(self, side: int, index: int, size: int) -> None:
        found = self.pick(index, side)
        if found is None or found[1].ended or not self.cores[side].room(found[2]):
            return
        data = self.random.randbytes(size)
        self.cores[side].send(found[2], data if size % 2 else memoryview(data))
        found[1].sent += data

    @rule(side=st.integers(0, 1), index=st.integers(0, 11))
    def send_eof(self, side: int, index: int) -> None:
        found = self.pick(index, side)
        if found is not None:
            self.cores[side].send_eof(found[2])
            found[1].ended = True

    @rule(side=st.integers(0, 1), index=st.integers(0, 11))
    def accept(self, side: int, index: int) -> None:
        found = self.pick(index, side)
        if found is not None and not found[1].accepted:
            self.cores[side].accept(found[2])
            found[1].accepted = True

    @rule(side=st.integers(0, 1), index=st.integers(0, 11), share=st.floats(0, 1))
    def consume(self, side: int, index: int, share: float) -> None:
        found = self.pick(index, side)
        if found is None or found[1].closed:
            return
        count = min(found[1].unread, int(found[1].unread * share) + 1)
        if count:
            self.cores[side].consume(found[2], count, self.clock.now())
            found[1].unread -= count

    @rule(side=st.integers(0, 1), index=st.integers(0, 11))
    def close(self, side: int, index: int) -> None:
        found = self.pick(index, side)
        if found is not None:
            self.cores[side].close(found[2], self.clock.now())
            found[1].ended = found[1].closed = True

    @precondition(lambda self: self.random.random() < 0.3)
    @rule(side=st.integers(0, 1), index=st.integers(0, 11))
    def reset(self, side: int, index: int) -> None:
        found = self.pick(index, side)
        if found is not None:
            self.cores[side].reset(found[2], ResetCode.NONE)
            found[0].reset = True

    # What the line does

    @rule(side=st.integers(0, 1), limit=st.sampled_from([1, 1000, 70_000, 400_000]))
    def write(self, side: int, limit: int) -> None:
        self.wires[side].extend(b"".join(self.cores[side].take_output(limit)))

    @rule(side=st.integers(0, 1), size=st.sampled_from([1, 11, 12, 13, 100, 5000, 70_000, 1_000_000]))
    def carry(self, side: int, size: int) -> None:
        """Bytes written by ``side`` reach the other."""
        if self.cores[1 - side].stalled:
            return
        data = bytes(self.wires[side][:size])
        del self.wires[side][:size]
        if data:
            self.hear(1 - side, self.cores[1 - side].receive(data, self.clock.now()))

    @rule(seconds=st.sampled_from([0.0001, 0.01, 1.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for side in (0, 1):
            assert self.cores[side].tick(self.clock.now()) == []

    def hear(self, side: int, events: list[Event]) -> None:
        for event in events:
            found = [channel for channel in self.channels if channel.keys[side] == event.key]
            assert len(found) == 1, f"{event} of a stream that nobody opened"
            channel, half = found[0], found[0].halves[side]
            if type(event) is Opened:
                assert not half.known
                half.known = True
            elif type(event) is Cut:
                assert channel.reset, f"{event} without a reset"
            elif type(event) is Data:
                assert event.data
                assert not half.heard_end, "data after the end"
                assert not half.closed or channel.reset
                half.received += event.data
                half.unread += len(event.data)
            else:
                assert not half.heard_end
                half.heard_end = True

    # What has to hold

    @invariant()
    def nobody_broke_a_rule(self) -> None:
        for core in self.cores:
            assert core.ended is None

    @invariant()
    def what_arrived_is_what_was_sent(self) -> None:
        for channel in self.channels:
            for side in (0, 1):
                received, sent = channel.halves[side].received, channel.halves[1 - side].sent
                assert len(received) <= len(sent)
                assert sent.startswith(received)

    def teardown(self) -> None:
        for _ in range(10_000):
            moved = False
            for side in (0, 1):
                for index in range(len(self.channels)):
                    self.accept(side, index)
                    self.consume(side, index, 1.0)
                moved = moved or self.cores[side].has_output or bool(self.wires[side])
                self.write(side, 400_000)
                self.carry(side, 1_000_000)
            if not moved:
                break
        self.nobody_broke_a_rule()
        self.what_arrived_is_what_was_sent()
        for channel in self.channels:
            if channel.reset:
                continue
            for side in (0, 1):
                to, back = channel.halves[side], channel.halves[1 - side]
                if not to.closed:
                    assert to.received == back.sent, "data was lost"
                    assert to.heard_end == back.ended, "an end was lost or made up"
        for core in self.cores:
            if all(h.closed or c.reset for c in self.channels for h in c.halves):
                assert core.streams == 0
            if not any(h.closed for c in self.channels for h in c.halves):
                assert core.queued_bytes == 0
                assert core.drained
