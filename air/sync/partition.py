"""Noticing that the network has come apart: which peers are away, and whether they are too many. (core)

One peer that is gone may have crashed. When half of those that should be there are gone, and none of them
said goodbye, the network between us is the likelier cause. Nothing changes for users then: reads and writes
go on, and what both sides wrote is merged on contact. An operator should know, because until then the two
sides show different data.
"""

from __future__ import annotations

from dataclasses import dataclass

from air.base.clock import Now

__all__ = ["PartitionConfig", "PartitionWatch", "Split", "Turn"]


@dataclass(frozen=True, slots=True)
class PartitionConfig:
    settle_seconds: float = 5.0
    """A peer that was linked for at least so long is expected to stay or to say goodbye."""
    grace_seconds: float = 10.0
    """How long an expected peer may be away before it is missing. Longer than a restart."""
    forget_seconds: float = 86_400.0
    """A peer that we do not dial is no longer expected after so long."""
    peers_max: int = 10_000
    """Peers remembered; beyond, the one that is away for longest is forgotten."""


@dataclass(frozen=True, slots=True)
class Split:
    """Too many peers are missing."""

    since: float
    """Unix ms of when the first of them was last linked."""
    missing: tuple[str, ...]
    """Their names, those away for longest first."""
    expected: int


@dataclass(frozen=True, slots=True)
class Turn:
    """The network has come apart, or together again."""

    split: bool
    missing: tuple[str, ...]
    """Who is missing; after healing: who was."""
    seconds: float
    """How long ago it came apart."""


@dataclass(slots=True)
class _Peer:
    links: int = 0
    up_at: float = 0.0
    away_at: float | None = None
    away_wall: float = 0.0
    dialled: bool = False


class PartitionWatch:
    """Keeps the list of peers that should be there."""

    def __init__(self, config: PartitionConfig | None = None) -> None:
        self.config = config or PartitionConfig()
        self._peers: dict[str, _Peer] = {}
        self._split_at: float | None = None
        self._split: Split | None = None
        self.splits = 0
        """Times that the network came apart."""

    @property
    def split(self) -> Split | None:
        """The split that lasts, as of the last tick."""
        return self._split

    def missing(self, now: Now) -> list[str]:
        """Names of the expected peers that are away for too long, the longest first."""
        late = self._late(now)
        away = [
            (peer.away_at, name)
            for name, peer in self._peers.items()
            if peer.away_at is not None and peer.away_at <= late
        ]
        return [name for _, name in sorted(away)]

    def up(self, name: str, now: Now, *, dialled: bool) -> None:
        """A link to a peer is open. ``dialled``: this program keeps the link up by itself."""
        peer = self._peers.setdefault(name, _Peer())
        peer.dialled = peer.dialled or dialled
        peer.links += 1
        if peer.links == 1:
            peer.away_at, peer.up_at = None, now.monotonic
        while len(self._peers) > self.config.peers_max:
            oldest = min(self._peers, key=lambda one: self._peers[one].away_at or now.monotonic)
            del self._peers[oldest]

    def down(self, name: str, now: Now, *, goodbye: bool = False) -> None:
        """A link to a peer has ended; ``goodbye``: it said that it would leave."""
        peer = self._peers.get(name)
        if peer is None:
            return
        peer.links -= 1
        if peer.links > 0:
            return
        brief = now.monotonic - peer.up_at < self.config.settle_seconds and peer.away_wall == 0
        if not peer.dialled and (goodbye or brief):
            del self._peers[name]
            return
        peer.away_at, peer.away_wall = now.monotonic, now.wall

    def tick(self, now: Now) -> Turn | None:
        """Look at who is missing; to be called at or after :meth:`deadline`, and after links come or go."""
        forget = now.monotonic - self.config.forget_seconds
        for name in [
            name
            for name, peer in self._peers.items()
            if not peer.dialled and peer.away_at is not None and peer.away_at <= forget
        ]:
            del self._peers[name]
        missing = self.missing(now)
        if missing and 2 * len(missing) >= len(self._peers):
            first = self._peers[missing[0]]
            began = self._split_at is None
            if self._split_at is None:
                self._split_at = first.away_at or now.monotonic
                self.splits += 1
            since = self._split.since if self._split is not None else first.away_wall
            self._split = Split(since, tuple(missing), len(self._peers))
            return Turn(True, tuple(missing), now.monotonic - self._split_at) if began else None
        if self._split is None or self._split_at is None:
            return None
        turn = Turn(False, self._split.missing, now.monotonic - self._split_at)
        self._split = self._split_at = None
        return turn

    def _late(self, now: Now) -> float:
        """Who has been away since then is missing. A millisecond early: times are added up with errors."""
        return now.monotonic - self.config.grace_seconds + 0.001

    def deadline(self, now: Now) -> float | None:
        """When :meth:`tick` may have news, on the monotonic clock."""
        late = self._late(now)
        due = [
            peer.away_at + self.config.grace_seconds
            for peer in self._peers.values()
            if peer.away_at is not None and peer.away_at > late
        ]
        return min(due, default=None)
