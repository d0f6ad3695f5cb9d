"""Whose turn it is to send: fair within a class, weighted between classes. (core)"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from air.mux.api import Priority

__all__ = ["WEIGHTS", "Schedule", "Sender"]

WEIGHTS = (64, 16, 1)
"""Shares of the line for control, interactive and bulk while all of them have something to send."""


class Sender(Protocol):
    """What stands in line."""

    priority: Priority
    in_line: bool
    """Kept by the schedule; false in the beginning."""


S = TypeVar("S", bound=Sender)


class Schedule(Generic[S]):
    """Senders with something to send, one queue per class.

    Between classes this is start-time fair queueing: every class has a clock that runs on by the bytes it
    sent divided by its weight, and the class whose clock is behind goes next. A class that had nothing to
    send joins at the current time, so it neither waits behind others nor saves up a claim to the whole line.
    Within a class senders take turns of one frame.
    """

    __slots__ = ("_clocks", "_lines", "_time", "_weights", "count")

    def __init__(self, weights: Sequence[int] = WEIGHTS) -> None:
        self._weights = tuple(weights)
        # A deque takes 760 bytes before it holds anything, and an idle connection has nothing to hold.
        self._lines: list[deque[S] | None] = [None] * len(self._weights)
        self._clocks = [0.0] * len(self._weights)
        self._time = 0.0
        self.count = 0
        """Senders in line."""

    def add(self, sender: S) -> None:
        """Put ``sender`` at the end of its class, unless it is in line already."""
        if sender.in_line:
            return
        sender.in_line = True
        line = self._lines[sender.priority]
        if line is None:
            line = self._lines[sender.priority] = deque()
        if not line and self._clocks[sender.priority] < self._time:
            self._clocks[sender.priority] = self._time
        line.append(sender)
        self.count += 1

    def next(self) -> S | None:
        """Take the sender whose turn it is out of the line; it is for the caller to add it again."""
        if not self.count:
            return None
        chosen = -1
        for index, line in enumerate(self._lines):
            # On a tie the higher class goes first.
            if line and (chosen < 0 or self._clocks[index] < self._clocks[chosen]):
                chosen = index
        self._time = self._clocks[chosen]
        self.count -= 1
        line = self._lines[chosen]
        assert line is not None
        sender = line.popleft()
        if not self.count:
            self._lines = [None] * len(self._weights)
        sender.in_line = False
        return sender

    def sent(self, priority: Priority, size: int) -> None:
        """A sender of this class used its turn for ``size`` bytes."""
        self._clocks[priority] += size / self._weights[priority]

    def clear(self) -> None:
        for index, line in enumerate(self._lines):
            for sender in line or ():
                sender.in_line = False
            self._lines[index] = None
        self.count = 0
