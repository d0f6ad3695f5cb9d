"""Writes from the future: held until their state is due. (core)

One heap for all of them, no timer per field, and ceilings in count and in time: a peer whose clock is
wrong delays its own writes and costs nobody else anything. (gun keeps them without bound and never
acknowledges them: gun-wire section 4.)
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from air.base.clock import Now
from air.base.errors import LimitReached, Violation

__all__ = ["Deferred", "DeferredConfig"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DeferredConfig:
    ahead_max_seconds: float = 86_400.0
    """How far ahead of our clock a state may be. Later ones are refused: ``graph.future-state``."""
    entries_max: int = 50_000
    """Writes held at once, of all links together: ``limit.deferred``."""
    bytes_max: int = 64 * 1024 * 1024
    """Their keys and values, near enough: ``limit.deferred``."""
    link_entries_max: int = 6_250
    """Writes held of one link, so that none takes all the room: ``limit.deferred``."""
    link_bytes_max: int = 8 * 1024 * 1024
    """Bytes held of one link beyond its first write, which may be as large as a value: ``limit.deferred``."""
    recheck_seconds: float = 5.0
    """The wall clock may jump, so the longest wait before looking at it again."""


@dataclass(slots=True)
class Deferred(Generic[T]):
    """A heap of things by the state they wait for."""

    config: DeferredConfig = field(default_factory=DeferredConfig)
    bytes: int = 0
    _heap: list[tuple[float, int, int, int, T]] = field(default_factory=list)
    _count: int = 0
    _owned: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Entries and bytes of each link that has any."""
    _looked: float = float("-inf")
    """What the wall clock said when it was last looked at."""
    _patience_seconds: float = 0.001

    def __len__(self) -> int:
        return len(self._heap)

    def check(self, state: float, size: int, wall: float, owner: int = 0) -> None:
        """Raise when a write for ``state`` cannot be held: too far ahead, or no room."""
        ahead, limit = (state - wall) / 1000.0, self.config.ahead_max_seconds
        if ahead > limit:
            raise Violation(
                f"state is {ahead:.0f} s ahead of this peer's clock, limit {limit:.0f}",
                code="graph.future-state",
            )
        if len(self._heap) >= self.config.entries_max or self.bytes + size > self.config.bytes_max:
            raise LimitReached("too many writes wait for their time", code="limit.deferred")
        config, (entries, held) = self.config, self._owned.get(owner, (0, 0))
        if entries and (entries >= config.link_entries_max or held + size > config.link_bytes_max):
            raise LimitReached("too many writes of this link wait for their time", code="limit.deferred")

    def push(self, state: float, item: T, size: int, owner: int = 0) -> None:
        """Hold ``item`` until the wall clock reaches ``state``. Call :meth:`check` before."""
        self._count += 1
        self.bytes += size
        entries, held = self._owned.get(owner, (0, 0))
        self._owned[owner] = (entries + 1, held + size)
        heapq.heappush(self._heap, (state, self._count, size, owner, item))

    def pop_due(self, wall: float) -> list[T]:
        """Everything that is due, in order of state."""
        # Looking at a clock that stands still again and again would be a busy loop.
        stuck = wall <= self._looked
        self._patience_seconds = min(2 * self._patience_seconds, 1.0) if stuck else 0.001
        self._looked = wall
        due = []
        while self._heap and self._heap[0][0] <= wall:
            _, _, size, owner, item = heapq.heappop(self._heap)
            self.bytes -= size
            entries, held = self._owned.pop(owner)
            if entries > 1:
                self._owned[owner] = (entries - 1, held - size)
            due.append(item)
        return due

    def deadline(self, now: Now) -> float | None:
        """When to look again, on the monotonic clock; None while nothing waits."""
        if not self._heap:
            return None
        wait = (self._heap[0][0] - now.wall) / 1000.0
        # Never at once, however the clocks disagree: a busy loop is worse than a millisecond.
        return now.monotonic + min(max(wait, self._patience_seconds), self.config.recheck_seconds)
