"""When a network counts as split."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from air.base.clock import ManualClock
from air.sync.partition import PartitionConfig, PartitionWatch, Turn


@dataclass
class Scene:
    """A watch, and time that passes with it."""

    watch: PartitionWatch = field(default_factory=PartitionWatch)
    clock: ManualClock = field(default_factory=lambda: ManualClock(1_700_000_000_000.0))
    turns: list[Turn] = field(default_factory=list)

    def up(self, *names: str, dialled: bool = False) -> None:
        for name in names:
            self.watch.up(name, self.clock.now(), dialled=dialled)
        self.look()

    def down(self, *names: str, goodbye: bool = False) -> None:
        for name in names:
            self.watch.down(name, self.clock.now(), goodbye=goodbye)
        self.look()

    def look(self) -> None:
        turn = self.watch.tick(self.clock.now())
        if turn is not None:
            self.turns.append(turn)

    def wait(self, seconds: float) -> None:
        end = self.clock.now().monotonic + seconds
        while (due := self.watch.deadline(self.clock.now())) is not None and due <= end:
            self.clock.advance(max(due - self.clock.now().monotonic, 0))
            self.look()
        self.clock.advance(end - self.clock.now().monotonic)
        self.look()


def test_a_peer_that_comes_back_in_time_is_no_split() -> None:
    scene = Scene()
    scene.up("a")
    scene.wait(60)
    scene.down("a")
    scene.wait(9)
    scene.up("a")
    scene.wait(60)
    assert scene.turns == []


def test_half_of_the_peers_gone_without_a_word_is_a_split_until_they_are_back() -> None:
    scene = Scene()
    scene.up("a", "b", "c", "d")
    scene.wait(60)
    scene.down("a")
    scene.wait(1)
    scene.down("b")
    scene.wait(30)
    assert scene.turns == [Turn(True, ("a", "b"), 11)]
    split = scene.watch.split
    assert split is not None
    assert (split.missing, split.expected, split.since) == (("a", "b"), 4, 1_700_000_060_000.0)
    scene.up("b")
    assert scene.turns[1:] == [Turn(False, ("a", "b"), 31)]
    assert scene.watch.split is None


def test_one_of_many_that_is_gone_is_no_split() -> None:
    scene = Scene()
    scene.up("a", "b", "c")
    scene.wait(60)
    scene.down("a")
    scene.wait(3600)
    assert scene.turns == []
    assert scene.watch.missing(scene.clock.now()) == ["a"]


def test_who_says_goodbye_is_not_missed() -> None:
    scene = Scene()
    scene.up("a", "b")
    scene.wait(60)
    scene.down("a", goodbye=True)
    scene.wait(60)
    assert scene.turns == []


def test_who_only_looked_in_is_not_missed() -> None:
    scene = Scene()
    scene.up("a")
    scene.wait(1)
    scene.down("a")
    scene.wait(60)
    assert scene.turns == []


def test_a_peer_that_we_dial_is_missed_whatever_it_said() -> None:
    scene = Scene()
    scene.up("a", dialled=True)
    scene.wait(1)
    scene.down("a", goodbye=True)
    scene.wait(60)
    assert [turn.split for turn in scene.turns] == [True]


def test_two_links_to_one_peer_count_once() -> None:
    scene = Scene()
    scene.up("a")
    scene.up("a")
    scene.wait(60)
    scene.down("a")
    scene.wait(60)
    assert scene.turns == []


def test_who_stays_away_for_a_day_is_forgotten() -> None:
    scene = Scene()
    scene.up("a")
    scene.wait(60)
    scene.down("a")
    scene.wait(86_400)
    assert [turn.split for turn in scene.turns] == [True, False]


@given(st.integers(1, 30))
def test_no_more_peers_are_remembered_than_allowed(count: int) -> None:
    scene = Scene(PartitionWatch(PartitionConfig(peers_max=10)))
    for number in range(count):
        scene.up(f"p{number}")
        scene.wait(10)
        scene.down(f"p{number}")
    scene.wait(20)
    assert len(scene.watch.missing(scene.clock.now())) <= 10
