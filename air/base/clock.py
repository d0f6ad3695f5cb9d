"""Time as an argument: what the clock said, handed to every core. (core)"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

__all__ = ["Clock", "ManualClock", "Now", "SystemClock"]


class Now(NamedTuple):
    """One reading of both clocks.

    Waiting is measured by ``monotonic``, which never jumps. States are Unix time, so they are
    compared with ``wall``, which may jump at any moment.
    """

    monotonic: float
    """Seconds from an arbitrary start; never goes back."""
    wall: float
    """Unix time in milliseconds, with a fraction."""


class Clock(Protocol):
    """Where a root takes the time from."""

    def now(self) -> Now: ...


class SystemClock:
    """The clocks of this machine."""

    __slots__ = ()

    def now(self) -> Now:
        return Now(time.monotonic(), time.time() * 1000.0)


class ManualClock:
    """A clock that stands still until it is moved: for tests and simulation."""

    __slots__ = ("_now",)

    def __init__(self, wall: float = 1_700_000_000_000.0, monotonic: float = 0.0) -> None:
        self._now = Now(monotonic, wall)

    def now(self) -> Now:
        return self._now

    def advance(self, seconds: float) -> Now:
        """Let ``seconds`` pass on both clocks."""
        self._now = Now(self._now.monotonic + seconds, self._now.wall + seconds * 1000.0)
        return self._now

    def jump(self, seconds: float) -> Now:
        """Set the wall clock off by ``seconds`` without time passing, as an operator or NTP does."""
        self._now = Now(self._now.monotonic, self._now.wall + seconds * 1000.0)
        return self._now
