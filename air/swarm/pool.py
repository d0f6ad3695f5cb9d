"""The sessions of a node by peer, which of them new streams use, and which may go. (core)"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from air.base.clock import Now
from air.base.errors import ConfigError
from air.base.peer_id import PeerId

__all__ = ["Pool", "PoolConfig", "Pooled"]


@dataclass(frozen=True, slots=True)
class PoolConfig:
    sessions_high: int = 16_000
    """Sessions beyond which some are closed …"""
    sessions_low: int = 14_400
    """… until so many are left."""
    grace_seconds: float = 60.0
    """A younger session is not closed for that (go-libp2p: 1 min)."""
    spare_seconds: float = 30.0
    """A second session with the same peer is closed when it was idle for so long, by whoever dialled it; by
    the other side after twice the time."""
    idle_seconds: float = 10.0
    """Time without streams after which a session is called idle."""

    def __post_init__(self) -> None:
        if not 0 < self.sessions_low <= self.sessions_high:
            raise ConfigError("0 < sessions_low <= sessions_high does not hold", code="config.sessions")


class Pooled(Protocol):
    """What the pool has to know of a session."""

    @property
    def peer(self) -> PeerId: ...
    @property
    def number(self) -> int: ...
    @property
    def inbound(self) -> bool: ...
    @property
    def relayed(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    @property
    def streams(self) -> int: ...
    @property
    def opened_at(self) -> Now: ...


P = TypeVar("P", bound=Pooled)


class Pool(Generic[P]):
    """All sessions. Two with one peer are legal: both sides may have dialled at once."""

    def __init__(self, own: PeerId, config: PoolConfig) -> None:
        self._own, self._config = own, config
        self._peers: dict[PeerId, list[P]] = {}
        self._count = 0
        self._spare_since: dict[int, float] = {}
        self._protected: dict[PeerId, int] = {}

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[P]:
        for sessions in tuple(self._peers.values()):
            yield from tuple(sessions)

    def add(self, session: P) -> bool:
        """Take in a session. True when it is the first with its peer."""
        sessions = self._peers.setdefault(session.peer, [])
        sessions.append(session)
        self._count += 1
        return len(sessions) == 1

    def remove(self, session: P) -> bool:
        """Forget a session. True when it was the last with its peer."""
        sessions = self._peers.get(session.peer, [])
        if session in sessions:
            sessions.remove(session)
            self._count -= 1
            self._spare_since.pop(session.number, None)
            if not sessions:
                del self._peers[session.peer]
                return True
        return False

    def best(self, peer: PeerId) -> P | None:
        """The session for new streams: direct before relayed, then the one dialled by the peer with the
        smaller name, then the older. Both sides see the same order, so neither closes the other's choice."""
        alive = [one for one in self._peers.get(peer, ()) if not one.closed]
        return min(alive, key=self._order, default=None)

    def of(self, peer: PeerId) -> tuple[P, ...]:
        """All sessions with a peer, the best first."""
        return tuple(sorted(self._peers.get(peer, ()), key=self._order))

    def protect(self, peer: PeerId) -> None:
        """Do not close sessions with ``peer`` for want of room. Counts: undo it as often as it was done."""
        self._protected[peer] = self._protected.get(peer, 0) + 1

    def unprotect(self, peer: PeerId) -> None:
        left = self._protected.get(peer, 0) - 1
        if left > 0:
            self._protected[peer] = left
        else:
            self._protected.pop(peer, None)

    def spare(self, now: Now) -> list[P]:
        """Second sessions with a peer that were without streams for a while, to be closed now."""
        found = []
        for peer, sessions in self._peers.items():
            if len(sessions) < 2:
                continue
            best = self.best(peer)
            for one in sessions:
                if one is best or one.streams or one.closed:
                    self._spare_since.pop(one.number, None)
                    continue
                since = self._spare_since.setdefault(one.number, now.monotonic)
                # Of two that one side dialled, the ends may not agree which is the older: who dialled closes.
                patience = self._config.spare_seconds * (2.0 if one.inbound else 1.0)
                if now.monotonic - since >= patience:
                    found.append(one)
        return found

    def surplus(self, now: Now, value: Callable[[PeerId], float]) -> Sequence[P]:
        """The sessions to close when there are too many: idle before busy, then by ``value`` of the peer."""
        config = self._config
        if self._count <= config.sessions_high:
            return ()
        # A goodbye takes seconds: those that are saying it must not cost others their place.
        alive = [one for one in self if not one.closed]
        if len(alive) <= config.sessions_high:
            return ()
        old = [
            one
            for one in alive
            if one.peer not in self._protected
            and now.monotonic - one.opened_at.monotonic >= config.grace_seconds
        ]
        old.sort(key=lambda one: (bool(one.streams), value(one.peer), -one.number))
        return old[: len(alive) - config.sessions_low]

    def _order(self, session: P) -> tuple[bool, bool, int]:
        dialled_by_smaller = session.inbound == (session.peer < self._own)
        return session.relayed, not dialled_by_smaller, session.number
