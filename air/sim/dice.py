"""The one source of randomness of a run, in named streams. (core)

A stream is named, so that what is drawn for one part (a clock, a fault, a connection) does not change
when another part draws more or less: a shrunk run still resembles the run it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import TypeVar

from air.base.entropy import SeededEntropy

__all__ = ["Dice"]

T = TypeVar("T")


class Dice:
    """Draws of one stream."""

    __slots__ = ("entropy", "fraction")

    def __init__(self, seed: int, *names: object) -> None:
        self.entropy = SeededEntropy("/".join(map(str, (seed, *names))))
        self.fraction = self.entropy.fraction

    def below(self, count: int) -> int:
        """A whole number in [0, count)."""
        return int(self.fraction() * count)

    def chance(self, probability: float) -> bool:
        return self.fraction() < probability

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.fraction()

    def wait(self, mean: float) -> float:
        """A wait for something that happens every ``mean`` seconds on average, at no particular time."""
        return -log(1.0 - self.fraction()) * mean

    def pick(self, things: Sequence[T]) -> T:
        return things[self.below(len(things))]

    def some(self, things: Sequence[T], count: int) -> list[T]:
        """``count`` different ones (all when there are fewer), in a drawn order."""
        left = list(things)
        return [left.pop(self.below(len(left))) for _ in range(min(count, len(left)))]
