"""A token bucket: a rate in the long run, and a burst after a rest. (core)"""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """Tokens that come back with time. ``level`` may be charged below zero; then whoever charged it waits."""

    __slots__ = ("_at", "_burst", "_rate", "level")

    def __init__(self, burst: float, rate: float) -> None:
        """``burst`` tokens at first and at most, ``rate`` of them a second."""
        self._burst, self._rate = burst, rate
        self.level = burst
        self._at = 0.0

    def refill(self, monotonic: float) -> None:
        self.level = min(self._burst, self.level + (monotonic - self._at) * self._rate)
        self._at = monotonic

    @property
    def wait_seconds(self) -> float:
        """Seconds until it is above zero again, as of the last ``refill``."""
        return max(0.0, -self.level / self._rate)

    def wait(self, monotonic: float) -> float:
        """Refill, and tell how long to wait."""
        self.refill(monotonic)
        return self.wait_seconds
