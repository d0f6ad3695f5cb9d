"""The ``##`` of GUN: a 32-bit hash of the JSON text of a graph. (core)

Source: gun-wire 1.8. A Node relay sorts all keys as text; a browser enumerates integer-like keys first,
in numeric order. Whoever compares hashes must try both.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import mul

from air.model.value import Link, number_text, text_json, unit_bytes

__all__ = ["graph_hash", "integer_like", "sorted_json", "text_hash"]

_BLOCK = 1024
_POWERS = [pow(31, _BLOCK - 1 - i, 2**32) for i in range(_BLOCK)]


def text_hash(text: str, seed: int = 0) -> int:
    """Hash of a text: h = h * 31 + unit for each UTF-16 unit, as a signed 32-bit number."""
    if text.isascii():
        units: Iterable[int] = text.encode()
        count = len(text)
    else:
        pairs = text.encode("utf-16-le", "surrogatepass")
        units = memoryview(pairs).cast("H").tolist()
        count = len(pairs) // 2
    value = seed & 0xFFFFFFFF
    listed = units if isinstance(units, list | bytes) else list(units)
    for start in range(0, count, _BLOCK):
        block = listed[start : start + _BLOCK]
        size = len(block)
        # One weighted sum a block instead of one step a unit: six times faster in CPython.
        value = (value * pow(31, size, 2**32) + sum(map(mul, block, _POWERS[_BLOCK - size :]))) & 0xFFFFFFFF
    return value - 2**32 if value >= 2**31 else value


def integer_like(key: str) -> bool:
    """True for keys that a JavaScript engine enumerates first: array indexes."""
    return key.isdigit() and key.isascii() and (key == "0" or key[0] != "0") and int(key) < 2**32 - 1


def sorted_json(raw: object, *, native: bool = False) -> str:
    """JSON text of parsed JSON with sorted keys at every level, numbers and escapes as JavaScript's.

    ``native``: keys in the order a browser enumerates them after sorting.
    """
    if isinstance(raw, dict):
        keys = sorted(raw, key=unit_bytes)
        if native:
            keys = sorted(filter(integer_like, keys), key=int) + [k for k in keys if not integer_like(k)]
        return "{" + ",".join(f"{text_json(k)}:{sorted_json(raw[k], native=native)}" for k in keys) + "}"
    if isinstance(raw, list | tuple):
        return "[" + ",".join(sorted_json(item, native=native) for item in raw) + "]"
    if isinstance(raw, str):
        return text_json(raw)
    if raw is None or isinstance(raw, bool):
        return {None: "null", True: "true", False: "false"}[raw]
    if isinstance(raw, Link):
        return sorted_json({"#": raw.soul}, native=native)
    assert isinstance(raw, int | float)
    return number_text(raw)


def graph_hash(graph: object, *, native: bool = False) -> int:
    """The ``##`` of an answer that carries ``graph`` as its ``put``."""
    return text_hash(sorted_json(graph, native=native))
