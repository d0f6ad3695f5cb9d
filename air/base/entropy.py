"""Randomness as an argument, and the ids made from it. (core)"""

from __future__ import annotations

import random
from typing import Protocol

__all__ = ["Entropy", "IdSource", "SeededEntropy", "SystemEntropy"]


class Entropy(Protocol):
    """Where a root takes randomness from."""

    def bits(self, count: int, /) -> int: ...
    def fraction(self) -> float: ...


class SystemEntropy:
    """The operating system's randomness, for ids and jitter."""

    __slots__ = ("_source",)

    def __init__(self) -> None:
        self._source = random.SystemRandom()

    def bits(self, count: int, /) -> int:
        """A number below 2**count."""
        return self._source.getrandbits(count)

    def fraction(self) -> float:
        """A number in [0, 1)."""
        return self._source.random()


class SeededEntropy:
    """The same randomness for the same seed: for tests and simulation."""

    __slots__ = ("_source",)

    def __init__(self, seed: int | str) -> None:
        self._source = random.Random(seed)

    def bits(self, count: int, /) -> int:
        return self._source.getrandbits(count)

    def fraction(self) -> float:
        return self._source.random()


# GUN's own alphabet lacks a capital Y; we keep to it so that our ids look like anybody's.
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXZabcdefghijklmnopqrstuvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]


class IdSource:
    """Message ids as GUN makes them: 9 random characters.

    Ids must be neither sequential nor prefixes of each other, because a GUN relay also remembers
    ``id + number`` and would drop the second message as a duplicate (gun-wire 1.6).

    A generator seeded once is enough: an id only has to be unlikely to collide, it guards nothing.
    """

    __slots__ = ("_random",)

    def __init__(self, entropy: Entropy) -> None:
        self._random = random.Random(entropy.bits(128))

    def __call__(self) -> str:
        # Four pairs and one single: 61**9 ids, a table look-up per pair instead of a division per character.
        draw, pairs = self._random.getrandbits(54), _PAIRS
        a, rest = draw % 3721, draw // 3721
        b, rest = rest % 3721, rest // 3721
        c, rest = rest % 3721, rest // 3721
        return pairs[a] + pairs[b] + pairs[c] + pairs[rest % 3721] + _ALPHABET[rest // 3721 % 61]
