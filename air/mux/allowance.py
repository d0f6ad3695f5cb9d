"""Something a peer may do so often in a row, and so often a second. (core)"""

from __future__ import annotations

__all__ = ["Allowance"]


class Allowance:
    """A token bucket: ``burst`` are there in the beginning, ``per_second`` come back until it is full."""

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, burst: float, per_second: float, now: float) -> None:
        self._burst, self._per_second = burst, per_second
        self._left, self._at = burst, now

    def take(self, now: float) -> bool:
        """Use one; False when none was left. ``now`` is in seconds of the monotonic clock."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second) - 1
        self._at = now
        return self._left >= 0
