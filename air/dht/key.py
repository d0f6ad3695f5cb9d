"""The keyspace: 256 bits, in which peers and what they hold have a place. (core)

A place is the SHA-256 of the bytes of a name (a peer id's multihash, a record's key, a provider key's
multihash), read as a big-endian integer; the distance of two is their XOR. Source: libp2p kad-dht.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

__all__ = ["KEY_BITS", "place", "preimage", "shared_bits"]

KEY_BITS: Final = 256


def place(name: bytes) -> int:
    """Where ``name`` lies."""
    return int.from_bytes(hashlib.sha256(name).digest(), "big")


def shared_bits(a: int, b: int) -> int:
    """Leading bits that two places have in common: 256 for the same place."""
    return KEY_BITS - (a ^ b).bit_length()


def preimage(own: int, bits: int, draw: Callable[[], bytes]) -> bytes:
    """A name whose place shares exactly ``bits`` leading bits with ``own``, from as many draws as it takes.

    It takes ``2 ** (bits + 1)`` of them, about: 8,000 for 12 bits, some 6 ms.
    """
    while True:
        name = draw()
        if shared_bits(place(name), own) == bits:
            return name
