"""When to ping, what the answer tells, and when to take a peer for lost. (core)"""

from __future__ import annotations

from air.mux.yamux.frame import CREDIT_MAX

__all__ = ["KeepAlive"]


class KeepAlive:
    """One ping at a time: the first at once, the next ``ping_seconds`` after an answer.

    Times are seconds of the monotonic clock.
    """

    __slots__ = ("_answer_seconds", "_due", "_heard", "_ping_seconds", "_pinged", "_value", "rtt_seconds")

    def __init__(self, ping_seconds: float, answer_seconds: float, now: float) -> None:
        self._ping_seconds, self._answer_seconds = ping_seconds, answer_seconds
        self._heard = self._due = now
        self._pinged: float | None = None
        self._value = 0
        self.rtt_seconds: float | None = None
        """Round trip time, smoothed."""

    @property
    def deadline(self) -> float:
        if self._pinged is None:
            return self._due
        # A slow line may hold an answer behind other data; that data is as good a sign of life.
        return max(self._pinged, self._heard) + self._answer_seconds

    def heard(self, now: float) -> None:
        self._heard = now

    def ping(self, now: float) -> int | None:
        """The value to send, when it is time."""
        if self._pinged is not None or now < self._due:
            return None
        self._value = (self._value + 1) & CREDIT_MAX
        self._pinged = now
        return self._value

    def lost(self, now: float) -> bool:
        return self._pinged is not None and now >= self.deadline

    def answered(self, value: int, now: float) -> None:
        """The peer sent an answer; one that was not asked for means nothing."""
        if self._pinged is None or value != self._value:
            return
        sample, known = now - self._pinged, self.rtt_seconds
        self.rtt_seconds = sample if known is None else known + (sample - known) / 4
        self._pinged = None
        self._due = now + self._ping_seconds
