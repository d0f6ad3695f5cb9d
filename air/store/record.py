"""How a disk keeps a cell: names that sort as GUN sorts, and a checksum over all of it. (core)

Souls and keys are CESU-8 (see ``air.model.value``), so a table in byte order is in GUN's order. Values
are canonical JSON in UTF-8, which costs nothing to make and to read however long the text is; the rare
tie of two values is decided by :func:`greater`. The checksum covers soul, key, state, value and mark
together: a record whose parts do not belong together is as damaged as one with a flipped bit.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from math import isfinite
from typing import Final, NamedTuple, TypeAlias
from zlib import crc32

import orjson

from air.base.errors import Misuse
from air.model.cell import Cell, Key, Soul, State
from air.model.value import Link, Value, canonical_number, unit_bytes, units_from_bytes, value_text

__all__ = [
    "Record",
    "ScanCursor",
    "ScanPage",
    "beats",
    "checksum",
    "decode",
    "decode_state",
    "decode_value",
    "encode",
    "encode_value",
    "greater",
    "intact",
    "marked",
]

Record: TypeAlias = tuple[bytes, bytes, float, bytes, int, bytes]
"""soul, key, state, value, checksum, mark as ``writers`` codes it."""

# The lengths are part of the checksum: else a byte could move from the soul to the key unseen.
_HEAD: Final = struct.Struct("<dII").pack

_WORDS: Final[dict[bytes, Value]] = {b"null": None, b"true": True, b"false": False}


class ScanCursor(NamedTuple):
    """Where a scan over many nodes goes on: after this cell, with this much of the budget used."""

    soul: Soul
    key: Key
    spent: int


class ScanPage(NamedTuple):
    """Some cells of many nodes, by soul and then by key in code-unit order."""

    cells: Sequence[Cell]
    next: ScanCursor | None
    """Ask again with ``after=next`` for the following page; None: this was the last."""


def checksum(soul: bytes, key: bytes, state: float, value: bytes, mark: bytes = b"") -> int:
    """CRC-32 over a record, and another over its mark, in one number.

    They are joined by exclusive or, so that the mark can be changed without reading the value, and a
    record without one has the checksum that it had before there were marks.
    """
    head = _HEAD(state, len(soul), len(key))
    return crc32(value, crc32(head, crc32(key, crc32(soul)))) ^ crc32(mark)


def intact(soul: object, key: object, state: object, value: object, crc: object, mark: object) -> bool:
    """True when a record is what was written. Takes whatever a damaged file may yield."""
    try:
        return checksum(soul, key, state, value, mark) == crc  # type: ignore[arg-type]
    except (TypeError, struct.error):
        return False


def marked(record: Record, mark: bytes) -> Record:
    """The same record with another mark."""
    soul, key, state, value, crc, known = record
    return soul, key, state, value, crc ^ crc32(known) ^ crc32(mark), mark


def encode(cells: Sequence[Cell], mark: bytes = b"") -> list[Record]:
    """The records of ``cells``, in their order, all with one mark.

    Raises Misuse ``store.bad-cell`` for a state or number that is not finite, or no value at all.
    """
    records: list[Record] = []
    add, head = records.append, _HEAD
    last: object = records  # no soul yet
    soul_unit, seed, mark_crc = b"", 0, crc32(mark)
    for soul, key, value, state in cells:
        try:
            if soul is not last:
                # Cells of one node come together, so most souls are the very object that came before.
                last, soul_unit = soul, unit_bytes(soul)
                seed = crc32(soul_unit)
            unit, data = unit_bytes(key), encode_value(value)
            stamp = state + 0.0  # a double, and minus zero becomes zero
            if stamp - stamp != 0:
                raise ValueError(f"state {state}")
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise Misuse(f"{soul!r} {key!r} cannot be stored: {error}", code="store.bad-cell") from error
        crc = crc32(data, crc32(head(stamp, len(soul_unit), len(unit)), crc32(unit, seed)))
        add((soul_unit, unit, stamp, data, crc ^ mark_crc, mark))
    return records


def decode(record: Record) -> Cell:
    """The cell of an intact record."""
    soul, key, state, value, _, _ = record
    return Cell(units_from_bytes(soul), units_from_bytes(key), decode_value(value), decode_state(state))


def encode_value(value: Value) -> bytes:
    """Canonical JSON as UTF-8. Raises ValueError for infinities and NaN."""
    if type(value) is str:
        if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
            return f'"{value}"'.encode()
        try:
            # orjson hands out its whole work buffer. Kept for a batch, those buffers cost 1.5 µs each in
            # page faults; a copy lets the allocator use one of them again and again.
            return bytes(memoryview(orjson.dumps(value)))
        except orjson.JSONEncodeError:
            pass  # lone surrogates, which JavaScript writes as escapes
    elif type(value) is float and not isfinite(value):
        raise ValueError(f"value {value}")
    return value_text(value).encode()


def decode_value(data: bytes) -> Value:
    """The value that was stored as ``data``. Raises ValueError or KeyError for what is no value."""
    try:
        raw = orjson.loads(data)
    except orjson.JSONDecodeError:
        raw = json.loads(data)  # keeps escapes of lone surrogates, which orjson refuses
    kind = type(raw)
    if kind is str:
        return raw  # type: ignore[no-any-return]
    if kind is int or kind is float:
        return canonical_number(raw)
    if kind is dict:
        return Link(raw["#"])
    return _WORDS[data]


def greater(data: bytes, known: bytes) -> bool:
    """True when one stored value beats another of the same state: by UTF-16 units of their texts."""
    if data.isascii() or known.isascii():
        return data > known  # the orders differ only between characters above U+DFFF
    return unit_bytes(data.decode()) > unit_bytes(known.decode())


def beats(record: Record, known: Record) -> bool:
    """True when ``record`` replaces ``known``: the higher state, on equal states the greater text."""
    if record[2] != known[2]:
        return record[2] > known[2]
    return record[3] != known[3] and greater(record[3], known[3])


def decode_state(state: float) -> State:
    """A state in its one Python spelling."""
    number = canonical_number(state)
    return state if number is None else number
