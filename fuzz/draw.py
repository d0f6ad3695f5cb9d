"""Bytes as a source of choices, so that a fuzzer that changes bytes changes structures. (core)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

__all__ = ["Draw"]

T = TypeVar("T")

_NUMBERS = (
    0,
    1,
    -1,
    5,
    1.5,
    -0.0,
    1e-7,
    1e15,
    1e16,
    1e21,
    1e300,
    5e-324,
    2**53,
    2**53 + 1,
    2**63,
    2**64,
    2**64 + 1,
    10**30,
    10**400,
    1_700_000_000_000,
    1_700_000_000_000.5,
)
_TEXTS = (
    "",
    "s",
    "k",
    "#",
    ">",
    "<",
    "=",
    "*",
    "-",
    ".",
    "_",
    "%",
    "__proto__",
    "constructor",
    "length",
    "toString",
    "\ud800",
    "\udc00a",
    "\U0001f600",
    "\uffff",
    "\uff00b",
    "é",
    "\0",
    "a/b",
    "x" * 130,
    "y" * 8_200,
)


class Draw:
    """Takes choices from the front of ``data``; when it is used up, every choice is the first one."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return max(0, len(self._data) - self._at)

    def byte(self) -> int:
        at = self._at
        self._at = at + 1
        return self._data[at] if at < len(self._data) else 0

    def below(self, count: int) -> int:
        """0 … count - 1, for counts up to 65,536."""
        return (self.byte() if count <= 256 else self.byte() << 8 | self.byte()) % count

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def take(self, count: int) -> bytes:
        at, self._at = self._at, self._at + count
        return self._data[at : at + count]

    def rest(self) -> bytes:
        return self.take(self.left)

    def text(self) -> str:
        kind = self.below(3)
        if kind == 0:
            return self.pick(_TEXTS)
        if kind == 1:
            return self.take(self.below(12)).decode("utf-8", "replace")
        return self.take(2 * min(self.below(6), self.left // 2)).decode("utf-16-le", "surrogatepass")

    def number(self) -> int | float:
        kind = self.below(3)
        if kind == 0:
            return self.pick(_NUMBERS)
        whole = int.from_bytes(self.take(self.below(9)), "big", signed=True)
        return whole if kind == 1 else whole / 1000

    def json(self, depth: int = 3) -> Any:
        """A tree of anything JSON may hold, names that mean something to GUN among its keys."""
        kind = self.below(9 if depth else 6)
        if kind == 0:
            return self.text()
        if kind == 1:
            return self.number()
        if kind < 6:
            return (None, True, False, "s")[kind - 2]
        if kind == 6:
            return [self.json(depth - 1) for _ in range(self.below(4))]
        if kind == 7:
            return {self.text(): self.json(depth - 1) for _ in range(self.below(4))}
        nested: Any = self.json(0)
        for _ in range(self.below(600)):
            nested = [nested]
        return nested
