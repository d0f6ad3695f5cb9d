"""How long answers of a peer take, and how long to wait for one. (core)"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PatienceConfig", "RoundTrips"]


@dataclass(frozen=True, slots=True)
class PatienceConfig:
    """Bounds of a time limit that is learned from measured round trips."""

    first_seconds: float = 5.0
    """Limit while nothing has been measured."""
    floor_seconds: float = 1.0
    """A limit never becomes shorter: the peer may be busy although the line is fast."""
    ceiling_seconds: float = 10.0
    """Nor longer."""


class RoundTrips:
    """Smoothed round trip time and its deviation, as TCP keeps them (RFC 6298, section 2)."""

    __slots__ = ("_config", "_deviation", "_stretch", "samples", "seconds")

    def __init__(self, config: PatienceConfig) -> None:
        self._config = config
        self._deviation = 0.0
        self._stretch = 1.0
        self.seconds: float | None = None
        """Smoothed round trip time; None while nothing has been measured."""
        self.samples = 0
        """How many measurements went into it."""

    def measured(self, seconds: float) -> None:
        """Take one round trip time into account."""
        self.samples += 1
        self._stretch = 1.0
        if self.seconds is None:
            self.seconds, self._deviation = seconds, seconds / 2
            return
        self._deviation += (abs(self.seconds - seconds) - self._deviation) / 4
        self.seconds += (seconds - self.seconds) / 8

    def missed(self) -> None:
        """No answer came. Until one does, each limit is twice the last (RFC 6298, 5.5): only answers are
        measured, so a line that became slower than its limit would never be found to be so."""
        self._stretch = min(self._stretch * 2.0, 64.0)

    def patience(self, round_trips: int = 1) -> float:
        """Seconds to wait for something that takes ``round_trips`` exchanges with the peer."""
        config = self._config
        if self.seconds is None:
            wait = config.first_seconds
        else:
            # Twice the retransmission time-out of TCP: one lost packet must not look like a dead peer.
            wait = 2 * round_trips * (self.seconds + 4 * self._deviation)
        return min(max(wait, config.floor_seconds) * self._stretch, config.ceiling_seconds)
