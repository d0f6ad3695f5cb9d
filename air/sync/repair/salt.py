"""What one pass calls ranges and cells: short names that nobody could foresee. (core)"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from air.store.api import Position

__all__ = ["NAME_BYTES", "PRINT_BYTES", "ROOT_BYTES", "SALT_BYTES", "Salt"]

SALT_BYTES: Final = 16
PRINT_BYTES: Final = 6
ROOT_BYTES: Final = 16
"""The print of the whole range decides that a session is over, so it is longer."""
NAME_BYTES: Final = 3

_MASK: Final = 2**128 - 1


class Salt:
    """Prints, ids and names under one salt.

    A print stands for the cells of a range, an id for a cell as it is, a name for a place whatever is in it.
    """

    __slots__ = ("_factor", "data")

    def __init__(self, data: bytes) -> None:
        """``data`` is SALT_BYTES random bytes."""
        self.data = data
        self._factor = int.from_bytes(data, "little") | 1

    def print(self, count: int, total: int, size: int = PRINT_BYTES) -> bytes:
        """The print of a range with ``count`` cells whose hashes have the sum ``total``."""
        text = count.to_bytes(8, "little") + total.to_bytes(16, "little")
        return blake2b(text, digest_size=size, key=self.data).digest()

    def ids(self, hashes: list[int], size: int) -> list[bytes]:
        """The ids of some items: the top bytes of the product with an odd random factor.

        Two hashes chosen without knowing the factor get the same id with a chance below 2**(1 - 8 * size)
        (multiplicative hashing, Dietzfelbinger and others 1997); it costs a tenth of a hash function.
        """
        factor, shift = self._factor, 128 - 8 * size
        return [((item * factor & _MASK) >> shift).to_bytes(size, "big") for item in hashes]

    def name(self, position: Position) -> bytes:
        """The name of a place."""
        soul, key = position
        # 0xFF is in no text, so no two places are spelled alike.
        return blake2b(soul + b"\xff" + key, digest_size=NAME_BYTES, key=self.data).digest()
