"""GUN messages by the thousand, ready to send: ids, puts, gets, and their packing into frames. (core)

Ids are nine random characters because a relay may drop ids that extend one another, frames stay under
9,000 characters of array as gun's own clients keep them, and states lie a few milliseconds back so that no
relay holds a put for a stamp ahead of its own clock.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from bench.framing import encode_frame, split

__all__ = [
    "ACK_IDS",
    "FIELD",
    "Plan",
    "get_plan",
    "messages_in",
    "new_mark",
    "put_plan",
    "random_ids",
    "value_finder",
    "value_of",
]

ALPHABET = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXZabcdefghijklmnopqrstuvwxyz"
"""The characters of gun's own ids: there is no capital Y."""
ID_CHARS = 9
PACK_CHARS = 9_000
"""An array closes before it passes this many characters, as gun's clients do it."""
STATE_BACK_MS = 5
INDEX_DIGITS = 7
FIELD = b"text"
"""The one field of a node that a plain put writes."""

ACK_IDS = re.compile(rb'"@":"([^"\\]{1,64})"')
"""Finds which messages a read answers. ``"ok":{"@":2}`` of a forwarded put has a number there: no match."""

_TABLE = bytes(ALPHABET[byte % len(ALPHABET)] for byte in range(256))


def random_ids(count: int, chars: int = ID_CHARS) -> list[bytes]:
    """``count`` texts of ``chars`` random characters; the slight bias of a modulus does no harm here."""
    text = os.urandom(count * chars).translate(_TABLE)
    return [text[start : start + chars] for start in range(0, count * chars, chars)]


def new_mark() -> bytes:
    """A text that no other run has, to find this run's values by."""
    return b"m" + random_ids(1, 7)[0]


def value_finder(mark: bytes) -> re.Pattern[bytes]:
    """Finds the index digits behind each value of a run."""
    return re.compile(b'"' + mark + b"([0-9]{%d})" % INDEX_DIGITS)


@dataclass(slots=True)
class Plan:
    """Everything one connection will send: frames of ``per_frame`` messages each, ids in order."""

    frames: list[bytes]
    ids: list[bytes]
    per_frame: int
    souls: list[bytes]
    """Soul written or asked by each message."""
    keys: list[bytes]
    """Field written or asked by each message."""
    indices: Sequence[int]
    """Index in the value of each message."""


def value_of(mark: bytes, index: int) -> bytes:
    """The text that the message of this index writes: 24 characters."""
    return b"%b%0*d value...." % (mark, INDEX_DIGITS, index)


def _pack(messages: Sequence[bytes], batch: bool) -> tuple[list[bytes], int]:
    masks = os.urandom(4 * len(messages))
    if not batch or not messages:
        return [encode_frame(one, masks[4 * at : 4 * at + 4]) for at, one in enumerate(messages)], 1
    # All messages of a plan have one length, so every frame but the last holds the same number.
    per_frame = max(1, (PACK_CHARS - 2) // (len(messages[0]) + 1))
    frames = [
        encode_frame(b"[" + b",".join(messages[at : at + per_frame]) + b"]", masks[4 * at : 4 * at + 4])
        for at in range(0, len(messages), per_frame)
    ]
    return frames, per_frame


def put_plan(
    count: int, *, mark: bytes, first: int, wall_ms: float, batch: bool, soul: bytes | None = None
) -> Plan:
    """``count`` one-field puts: each to a new soul, or each a new field of ``soul`` as in a chat.

    ``first`` is the index of the first value; ``wall_ms`` is the wall clock in Unix milliseconds.
    """
    ids = random_ids(count)
    fresh = random_ids(count, 14)
    state = b"%d" % int(wall_ms - STATE_BACK_MS)
    indices = range(first, first + count)
    if soul is None:
        souls = [b"bench/" + one for one in fresh]
        keys = [FIELD] * count
        messages = [
            b'{"#":"%b","put":{"%b":{"_":{"#":"%b",">":{"text":%b}},"text":"%b"}}}'
            % (one, name, name, state, value_of(mark, index))
            for one, name, index in zip(ids, souls, indices, strict=True)
        ]
    else:
        souls, keys = [soul] * count, fresh
        messages = [
            b'{"#":"%b","put":{"%b":{"_":{"#":"%b",">":{"%b":%b}},"%b":"%b"}}}'
            % (one, soul, soul, key, state, key, value_of(mark, index))
            for one, key, index in zip(ids, fresh, indices, strict=True)
        ]
    frames, per_frame = _pack(messages, batch)
    return Plan(frames, ids, per_frame, souls, keys, indices)


def get_plan(souls: Sequence[bytes], indices: Sequence[int], *, batch: bool) -> Plan:
    """One get of a whole node for each of ``souls``; ``indices`` say which value each one holds."""
    ids = random_ids(len(souls))
    messages = [b'{"#":"%b","get":{"#":"%b"}}' % pair for pair in zip(ids, souls, strict=True)]
    frames, per_frame = _pack(messages, batch)
    return Plan(frames, ids, per_frame, list(souls), [FIELD] * len(ids), list(indices))


def messages_in(data: bytes) -> list[dict[str, Any]]:
    """Every message in whole text frames; frames that are not JSON are passed over."""
    found: list[dict[str, Any]] = []
    for _, _, payload in split(data):
        try:
            value = orjson.loads(payload)
        except orjson.JSONDecodeError:
            continue
        found += [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]
    return found
