"""What a peer is worth: which session to give up first, and whom not to let in for a while. (core)"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from air.base.clock import Now

__all__ = ["ScoreConfig", "Scores"]


@dataclass(frozen=True, slots=True)
class ScoreConfig:
    half_life_seconds: float = 600.0
    """Time in which praise and blame lose half of their weight."""
    offences_max: float = 5.0
    """Weight of offences beyond which a peer is shut out."""
    ban_seconds: float = 30.0
    """How long the first time; each further time doubles it."""
    ban_seconds_max: float = 1800.0
    peers_max: int = 4096
    """Peers remembered; the one that was quiet longest is forgotten first."""


class _Record:
    __slots__ = ("at", "banned_until", "bans", "good", "offences")

    def __init__(self, at: float) -> None:
        self.at = at
        self.good = self.offences = 0.0
        self.bans = 0
        self.banned_until = 0.0


class Scores:
    """Praise and blame by peer. Both fade, bans do not count on anybody's memory but ours."""

    def __init__(self, config: ScoreConfig | None = None) -> None:
        self._config = ScoreConfig() if config is None else config
        self._peers: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._peers)

    def praise(self, peer: str, weight: float, now: Now) -> None:
        """The peer was of use: an answered ping, a stream that ended well."""
        self._at(peer, now).good += weight

    def blame(self, peer: str, weight: float, now: Now) -> float:
        """The peer broke a rule. Returns the seconds it is shut out for, 0 while it is not."""
        config, record = self._config, self._at(peer, now)
        record.offences += weight
        if record.offences < config.offences_max:
            return 0.0
        wait = min(config.ban_seconds * 2.0**record.bans, config.ban_seconds_max)
        record.bans = min(record.bans + 1, 32)
        record.offences = 0.0
        record.banned_until = now.monotonic + wait
        return wait

    def banned_seconds(self, peer: str, now: Now) -> float:
        """Seconds until the peer may come again; 0 when it may now."""
        record = self._peers.get(peer)
        return 0.0 if record is None else max(0.0, record.banned_until - now.monotonic)

    def value(self, peer: str, now: Now) -> float:
        """Praise less twice the blame, faded to ``now``; 0 for a stranger."""
        record = self._peers.get(peer)
        if record is None:
            return 0.0
        return (record.good - 2.0 * record.offences) * self._faded(record, now)

    def _at(self, peer: str, now: Now) -> _Record:
        record = self._peers.get(peer)
        if record is None:
            # Room first: the newcomer is the one that must not be forgotten.
            if len(self._peers) >= self._config.peers_max:
                self._forget(now)
            record = self._peers[peer] = _Record(now.monotonic)
            return record
        self._peers.move_to_end(peer)
        fade = self._faded(record, now)
        record.good *= fade
        record.offences *= fade
        record.at = now.monotonic
        return record

    def _forget(self, now: Now) -> None:
        # Who is shut out is remembered longer, but not beyond the ceiling: the oldest of them goes then.
        for peer, record in self._peers.items():
            if record.banned_until <= now.monotonic:
                del self._peers[peer]
                return
        self._peers.popitem(last=False)

    def _faded(self, record: _Record, now: Now) -> float:
        return float(0.5 ** (max(0.0, now.monotonic - record.at) / self._config.half_life_seconds))
