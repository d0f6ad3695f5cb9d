"""What became of earlier dials: when to try an address again, and how long it may take. (core)"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from air.base.address import Multiaddr
from air.base.backoff import Backoff, BackoffConfig
from air.base.clock import Now
from air.base.entropy import Entropy
from air.swarm.rtt import PatienceConfig, RoundTrips

__all__ = ["DialHistory", "HistoryConfig"]


@dataclass(frozen=True, slots=True)
class HistoryConfig:
    backoff: BackoffConfig = field(
        default_factory=lambda: BackoffConfig(first_seconds=1.0, max_seconds=300.0)
    )
    """How long an address rests after a failure, and after the next …"""
    patience: PatienceConfig = field(default_factory=PatienceConfig)
    """Bounds of the time limit of one attempt."""
    round_trips: int = 6
    """Exchanges from the first packet to a muxer that is ready: TCP, multistream, Noise, and room for a
    WebSocket's two. What was measured is the whole, so this divides it."""
    addresses_max: int = 4096
    """Addresses remembered; the one that was not dialled longest is forgotten first."""


class _Entry:
    __slots__ = ("backoff", "ready_at", "succeeded_at", "trips")

    def __init__(self, config: HistoryConfig, entropy: Entropy) -> None:
        self.trips = RoundTrips(config.patience)
        self.backoff = Backoff(config.backoff, entropy)
        self.ready_at = 0.0
        self.succeeded_at = float("-inf")


class DialHistory:
    """Remembers addresses that were dialled."""

    def __init__(self, entropy: Entropy, config: HistoryConfig | None = None) -> None:
        self._config = HistoryConfig() if config is None else config
        self._entropy = entropy
        self._entries: OrderedDict[Multiaddr, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def failed(self, address: Multiaddr, now: Now) -> float:
        """The address did not work. Returns the seconds it rests now."""
        entry = self._at(address)
        wait = entry.backoff.failed()
        entry.trips.missed()
        entry.ready_at = now.monotonic + wait
        return wait

    def succeeded(self, address: Multiaddr, seconds: float, now: Now) -> None:
        """A connection was ready after ``seconds``."""
        entry = self._at(address)
        entry.backoff.succeeded()
        entry.ready_at = 0.0
        entry.succeeded_at = now.monotonic
        entry.trips.measured(seconds / self._config.round_trips)

    def resting_seconds(self, address: Multiaddr, now: Now) -> float:
        """Seconds until it is worth another attempt; 0 when it is now."""
        entry = self._entries.get(address)
        return 0.0 if entry is None else max(0.0, entry.ready_at - now.monotonic)

    def worked_at(self, address: Multiaddr) -> float:
        """Monotonic time of the last success; minus infinity when there was none."""
        entry = self._entries.get(address)
        return float("-inf") if entry is None else entry.succeeded_at

    def patience(self, address: Multiaddr) -> float:
        """Seconds an attempt may take, learned from earlier ones."""
        entry = self._entries.get(address)
        if entry is None:
            return self._config.patience.first_seconds
        return entry.trips.patience(self._config.round_trips)

    def _at(self, address: Multiaddr) -> _Entry:
        entry = self._entries.get(address)
        if entry is None:
            entry = self._entries[address] = _Entry(self._config, self._entropy)
            if len(self._entries) > self._config.addresses_max:
                self._entries.popitem(last=False)
        else:
            self._entries.move_to_end(address)
        return entry
