"""Randomness as an argument, and the ids made from it. (core)"""

from __future__ import annotations

import random
from base64 import b64encode
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
_LIKE_GUN = bytes.maketrans(b"+/Y", b"Aa0")
_ID_CHARS = 9
_STOCK = 512


class IdSource:
    """Message ids as GUN makes them: 9 random characters.

    Ids must be neither sequential nor prefixes of each other, because a GUN relay also remembers
    ``id + number`` and would drop the second message as a duplicate (gun-wire 1.6).

    A generator seeded once is enough: an id only has to be unlikely to collide, it guards nothing. Every
    answer and every ack takes one, so they are cut from a long random text, 512 at a time (0.1 µs each
    instead of 0.3).
    """

    __slots__ = ("_random", "_stock")

    def __init__(self, entropy: Entropy) -> None:
        self._random = random.Random(entropy.bits(128))
        self._stock: list[str] = []

    def __call__(self) -> str:
        if not self._stock:
            noise = b64encode(self._random.randbytes(_STOCK * _ID_CHARS * 3 // 4))
            text = noise.translate(_LIKE_GUN).decode()
            self._stock = [text[i : i + _ID_CHARS] for i in range(0, _STOCK * _ID_CHARS, _ID_CHARS)]
        return self._stock.pop()
