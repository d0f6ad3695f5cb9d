"""How much the peer may still send on a stream, and when to grant more. (core)"""

from __future__ import annotations

from typing import Final

__all__ = ["TURN_SECONDS", "GrowthBudget", "ReceiveFlow"]

TURN_SECONDS: Final = 0.001
"""What credit takes at least, however short the line: a ping is answered by the muxer alone, but credit waits
until the application has had its turn. Tuned to the 0.1 ms of a ping over loopback, windows stayed so small
that both sides waited for each other half of the time (4.5 instead of 10 Gbit/s)."""


class GrowthBudget:
    """Bytes by which the windows of one connection may still grow."""

    __slots__ = ("left",)

    def __init__(self, total: int) -> None:
        self.left = total

    def take(self, wanted: int) -> int:
        """As much of ``wanted`` as is left."""
        got = min(wanted, self.left)
        self.left -= got
        return got

    def give_back(self, grown: int) -> None:
        self.left += grown


class ReceiveFlow:
    """One direction of one stream, seen from the receiver.

    Every byte of ``window`` is in one of three places: ``granted`` to the peer, ``unread`` here, or
    ``consumed`` and not granted again. Credit goes out when half of the window is consumed: more often would
    double the frames of a bulk transfer, less often would let the sender run dry.
    """

    __slots__ = ("consumed", "granted", "grown", "unread", "updated", "window")

    def __init__(self, window: int, granted: int, now: float) -> None:
        self.window, self.granted = window, granted
        self.unread = self.consumed = self.grown = 0
        self.updated = now
        """When credit was last sent, in seconds of the monotonic clock."""

    def consume(self, count: int, now: float, rtt: float | None, most: int, budget: GrowthBudget) -> int:
        """The application has read ``count`` bytes; returns the credit to announce, often 0.

        A window of which half is used up within four round trips is what limits the speed, so it doubles, up
        to ``most`` (go-libp2p does the same). A slow reader never gets there: reading counts, not arrival.
        """
        self.unread -= count
        self.consumed += count
        if self.consumed * 2 < self.window:
            return 0
        credit = self.consumed
        self.consumed = 0
        if rtt is not None and self.window < most and now - self.updated < 4 * max(rtt, TURN_SECONDS):
            more = budget.take(min(self.window, most - self.window))
            self.window += more
            self.grown += more
            credit += more
        self.updated = now
        self.granted += credit
        return credit
