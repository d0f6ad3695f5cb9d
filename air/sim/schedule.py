"""Virtual time: a heap of what is to happen. (core)"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from air.base.clock import Now

__all__ = ["EPOCH", "Scheduler", "SimClock"]

EPOCH = 1_700_000_000_000.0
"""Unix time in ms at which every run begins."""


class Scheduler:
    """Calls things in order of time, and in the order they were asked for at equal times."""

    __slots__ = ("_count", "_heap", "events", "time")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self.time = 0.0
        """Seconds since the run began."""
        self.events = 0

    def at(self, time: float, call: Callable[..., None], *args: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (time, self._count, call, args))

    def after(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.time + seconds, self._count, call, args))

    def run(self, until: float) -> None:
        """Do everything that is due up to ``until``, and be there."""
        heap, pop = self._heap, heapq.heappop
        events = 0
        while heap and heap[0][0] <= until:
            self.time, _, call, args = pop(heap)
            call(*args)
            events += 1
        self.events += events
        self.time = until


class SimClock:
    """The clocks of one peer: ``offset`` is what its wall clock is ahead, ``drift`` its gain in a second."""

    __slots__ = ("_scheduler", "drift", "offset")

    def __init__(self, scheduler: Scheduler, offset: float = 0.0, drift: float = 0.0) -> None:
        self._scheduler = scheduler
        self.offset, self.drift = offset, drift

    @property
    def wall(self) -> float:
        """Unix time in ms, as this peer believes."""
        return EPOCH + (self._scheduler.time * (1.0 + self.drift) + self.offset) * 1000.0

    def now(self) -> Now:
        return Now(self._scheduler.time, self.wall)
