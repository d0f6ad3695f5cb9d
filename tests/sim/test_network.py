"""The virtual network: what TCP promises it keeps, and what TCP does not promise it breaks."""

from __future__ import annotations

from air.sim.dice import Dice
from air.sim.network import End, Network, NetworkConfig
from air.sim.schedule import Scheduler


class Peer:
    def __init__(self) -> None:
        self.up = True
        self.frames: list[bytes] = []
        self.ended: list[str] = []
        self.end: End | None = None
        self.writes = 0

    def accept(self, end: End) -> Peer:
        self.end = end
        return self

    def received(self, frame: bytes) -> None:
        self.frames.append(frame)

    def closed(self, reason: str) -> None:
        self.ended.append(reason)

    def writable(self) -> None:
        self.writes += 1


class Pair:
    """Two peers, the first of which has dialled the second."""

    def __init__(self, **config: float) -> None:
        self.time = Scheduler()
        self.net = Network(self.time, NetworkConfig(**config), Dice(1, "network"))  # type: ignore[arg-type]
        self.a, self.b = Peer(), Peer()
        self.net.hosts += [self.a, self.b]
        self.failed = 0
        self.dial()

    def dial(self) -> None:
        def opened(end: End) -> None:
            self.a.end = end
            end.events = self.a

        self.net.dial(0, 1, opened, self.fail)
        self.time.run(self.time.time + 1)

    def fail(self) -> None:
        self.failed += 1

    def say(self, *frames: bytes) -> None:
        assert self.a.end is not None
        self.a.end.send(frames)

    def wait(self, seconds: float) -> None:
        self.time.run(self.time.time + seconds)


BOTH = [(0, 1), (1, 0)]


def test_frames_arrive_in_order_whatever_is_lost_on_the_way() -> None:
    pair = Pair(loss=0.5)
    frames = [b"%d" % number for number in range(200)]
    for frame in frames:
        pair.say(frame)
        pair.wait(0.01)
    pair.wait(500)
    assert pair.b.frames == frames


def test_a_split_holds_frames_back_and_they_arrive_when_it_is_over() -> None:
    pair = Pair()
    pair.net.block(BOTH)
    pair.say(b"held")
    pair.wait(30)
    assert pair.b.frames == []
    pair.net.unblock(BOTH)
    pair.wait(1)
    assert pair.b.frames == [b"held"]
    assert pair.a.ended == pair.b.ended == []


def test_a_split_that_lasts_is_noticed_by_both_ends_when_their_patience_is_over() -> None:
    pair = Pair()
    pair.net.block(BOTH)
    pair.wait(74)
    assert pair.a.ended == pair.b.ended == []
    pair.wait(2)
    assert pair.a.ended == pair.b.ended == ["ws.dead"]


def test_a_split_one_way_lets_the_other_way_through() -> None:
    pair = Pair()
    pair.net.block([(1, 0)])
    pair.say(b"heard")
    pair.wait(1)
    assert pair.b.frames == [b"heard"]
    pair.wait(75)
    assert pair.a.ended == ["ws.dead"]
    assert pair.b.ended == ["net.closed"]


def test_two_splits_over_each_other_end_with_the_later_one() -> None:
    pair = Pair()
    pair.net.block(BOTH)
    pair.net.block(BOTH)
    pair.say(b"x")
    pair.net.unblock(BOTH)
    pair.wait(1)
    assert pair.b.frames == []
    pair.net.unblock(BOTH)
    pair.wait(1)
    assert pair.b.frames == [b"x"]


def test_a_cut_loses_what_was_on_its_way_and_one_end_may_learn_it_late() -> None:
    pair = Pair(delay_seconds=0.5)
    pair.wait(2)
    pair.say(b"lost")
    pair.net.cut(0, 1, late=3)
    pair.wait(2)
    assert (pair.b.frames, pair.a.ended, pair.b.ended) == ([], ["net.cut"], [])
    pair.wait(2)
    assert pair.b.ended == ["net.cut"]


def test_a_process_that_is_gone_answers_with_a_reset_and_a_dial_to_it_fails() -> None:
    pair = Pair()
    pair.b.up = False
    pair.net.vanish(1)
    pair.wait(1)
    assert pair.a.ended == ["net.closed"]
    pair.dial()
    assert pair.failed == 1


def test_a_dial_into_a_split_fails_after_its_time() -> None:
    pair = Pair(connect_seconds=10)
    pair.net.block([(1, 0)])
    pair.dial()
    pair.wait(8)
    assert pair.failed == 0
    pair.wait(2)
    assert pair.failed == 1


def test_a_writer_waits_when_too_much_is_on_its_way() -> None:
    pair = Pair(bytes_per_second=1000.0, window_bytes=500)
    pair.say(b"x" * 2000)
    assert pair.a.end is not None
    assert not pair.a.end.room
    pair.wait(1)
    assert pair.a.writes == 0
    pair.wait(2)
    assert pair.a.writes == 1
