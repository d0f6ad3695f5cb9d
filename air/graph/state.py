"""States: the time stamps that writers put on fields. (core)

A state is Unix time in milliseconds as a double. Around now a double of that size has 12 fraction
bits (1/4096 ms), and both generators below live in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from air.model.cell import State
from air.model.value import canonical_number

__all__ = ["GunStamps", "Stamps", "salt_of"]

_SALT_BITS: Final = 6
_COUNTER_BITS: Final = 6
_STEPS: Final = 1 << (_SALT_BITS + _COUNTER_BITS)
_SALTS: Final = 1 << _SALT_BITS


def salt_of(peer_id: str) -> int:
    """The 6 bits that tell this writer's stamps from those of others."""
    return sha256(peer_id.encode()).digest()[0] % _SALTS


class Stamps:
    """Hands out the states of Air's own writes: rising for ever, and never two alike from two writers.

    A stamp is ``whole milliseconds + (counter * 64 + salt) / 4096``. The salt comes from the peer id, so
    two Air peers that write in the same millisecond do not tie; GUN's rule still decides if they do.

    The whole part is the millisecond *before* the clock's. A stock relay judges by its whole-millisecond
    clock and may never acknowledge a stamp that is a fraction ahead of it (gun-wire F15); one
    millisecond back, our fractions are always in its past.

    Stamps rise even when the clock steps back or stands still, and across restarts when ``last`` is the
    highest stamp that the store remembers. After 64 stamps in one millisecond they run ahead of the clock.
    """

    __slots__ = ("_last", "_salt")

    def __init__(self, peer_id: str, last: State = 0) -> None:
        self._salt = salt_of(peer_id)
        self._last = int(last * _STEPS)

    @property
    def last(self) -> State:
        """The highest stamp handed out or heard of."""
        return canonical_number(self._last / _STEPS) or 0

    def next(self, wall: float) -> State:
        """A stamp for a write at ``wall`` (Unix ms), higher than every stamp before it."""
        ticks = (int(wall) - 1) * _STEPS + self._salt
        if ticks <= self._last:
            # One counter step above the last stamp, with our salt below it.
            ticks = (self._last // _SALTS + 1) * _SALTS + self._salt
        self._last = ticks
        return canonical_number(ticks / _STEPS) or 0


@dataclass(slots=True)
class GunStamps:
    """States exactly as gun.js hands them out (gun-wire section 5), for simulated and load-making peers."""

    drift: float = 0
    _last: float = float("-inf")
    _count: int = 0

    def next(self, wall: float) -> State:
        """The state for a call when the clock reads ``wall`` whole ms. Steps back when the clock does."""
        if self._last < wall:
            self._count = 0
            self._last = wall + self.drift
        else:
            self._count += 1
            self._last = wall + self._count / 999 + self.drift
        return canonical_number(self._last) or 0
