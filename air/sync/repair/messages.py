"""Frames of a repair session, in bytes and back. (core)"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from air.base.errors import LimitReached, Violation
from air.codec.zstd import Expander, Squeezer, ZstdConfig
from air.model.cell import Cell, State
from air.model.mark import Mark
from air.model.value import canonical_number
from air.pb import graph_pb2, repair_pb2
from air.store.api import Bound
from air.sync.native.columns import fill, read_columns
from air.sync.native.limits import NativeLimits
from air.sync.repair.bounds import flat, join_bounds, read_bounds, unflat
from air.sync.repair.config import FRAME_BYTES_MAX, IDS_MAX, SPANS_MAX, TALK_BYTES_MAX
from air.sync.repair.salt import NAME_BYTES, PRINT_BYTES, ROOT_BYTES, SALT_BYTES
from air.sync.repair.scan import check_large
from air.sync.repair.spans import Give, Ids, Print, Span, Take, rises

__all__ = ["Frame", "FrameCodec", "Opening"]

ID_BYTES_MAX: Final = 16
_ZIP_BYTES_MIN: Final = 128
_SKIP, _PRINT, _IDS, _TAKE, _GIVE = range(5)
_TURN: Final = 2**64
_REFUSAL: Final = re.compile(r"[a-z]{1,20}\.[a-z-]{1,40}")


class Opening(NamedTuple):
    """Begins a pass over the range from ``low`` to ``high``."""

    salt: bytes
    low: Bound
    high: Bound
    dry_run: bool


@dataclass(slots=True)
class Frame:
    """One message. What is not mentioned is as if it were not there."""

    number: int = 0
    last: bool = False
    opening: Opening | None = None
    spans: Sequence[Span] = ()
    """Rising, apart from each other."""
    id_bytes: int = 0
    cells: Sequence[Cell] = ()
    marks: Sequence[Mark] | None = None
    merged: int = 0
    refusal: str = ""
    size: int = 0
    """Bytes of a frame that was received, before compression."""


class FrameCodec:
    """Both directions of one stream: compression remembers what was said before."""

    __slots__ = ("_expander", "_limits", "_squeezer", "high", "low")

    def __init__(self, limits: NativeLimits | None = None, zstd: ZstdConfig | None = None) -> None:
        zstd = zstd or ZstdConfig()
        self._limits = limits or NativeLimits()
        self._squeezer, self._expander = Squeezer(zstd), Expander(zstd)
        self.low: Bound = None
        """The range of the session, whose ends need not be spelled out."""
        self.high: Bound = None

    # -- writing -----------------------------------------------------------------

    def encode(self, frame: Frame) -> bytes:
        """The bytes of ``frame``, to be sent in the order they were made."""
        out = repair_pb2.Frame(number=frame.number, last=frame.last, merged=frame.merged)
        opening = frame.opening
        if opening is not None:
            self.low, self.high = opening.low, opening.high
            out.opening.salt = opening.salt
            out.opening.low, out.opening.high = flat(opening.low), flat(opening.high)
            out.opening.dry_run = opening.dry_run
        out.id_bytes = frame.id_bytes
        if frame.spans:
            self._fill(out, frame.spans)
        if frame.cells:
            columns = graph_pb2.Cells()
            fill(columns, frame.cells, frame.marks)
            out.cells = columns.SerializeToString()
        out.refusal = frame.refusal.encode()
        data = out.SerializeToString()
        if len(data) < _ZIP_BYTES_MIN:
            return data
        zipped = self._squeezer.squeeze(data)
        return repair_pb2.Frame(zipped_bytes=len(data), zipped=zipped).SerializeToString()

    def _fill(self, out: repair_pb2.Frame, spans: Sequence[Span]) -> None:
        cursor = spans[0].low
        bounds = [b"" if cursor == self.low else flat(cursor)]
        kinds = bytearray()
        prints: list[bytes] = []
        ids: list[bytes] = []
        names: list[bytes] = []
        states: list[State] = []
        counts: list[int] = []
        for span in spans:
            if span.low != cursor:
                kinds.append(_SKIP)
                bounds.append(flat(span.low))
            cursor = span.high
            bounds.append(b"" if cursor == self.high else flat(cursor))
            if isinstance(span, Print):
                kinds.append(_PRINT)
                counts.append(span.cells)
                prints.append(span.print)
            elif isinstance(span, Ids):
                kinds.append(_IDS)
                counts.append(len(span.ids))
                ids += span.ids
            elif isinstance(span, Take):
                kinds.append(_TAKE)
                counts += (len(span.ids), len(span.offers))
                ids += span.ids
                names += [name for name, _ in span.offers]
                states += [state for _, state in span.offers]
            else:
                kinds.append(_GIVE)
                counts.append(len(span.names))
                names += span.names
        out.bounds, out.kinds = join_bounds(bounds), bytes(kinds)
        out.counts.extend(counts)
        out.prints, out.ids, out.names = b"".join(prints), b"".join(ids), b"".join(names)
        bits = struct.unpack(f"<{len(states)}q", struct.pack(f"<{len(states)}d", *states))
        # The difference may be larger than a number of 64 bits, so it is taken modulo 2**64.
        out.states.extend([_wrapped(b - a) for a, b in zip((0, *bits), bits, strict=False)])

    # -- reading -----------------------------------------------------------------

    def decode(self, data: bytes) -> Frame:
        """The frame in ``data``, all of it checked. Frames must come in the order they were made.

        Raises Violation ``repair.malformed``, ``repair.bad-bounds``, ``repair.too-many-items``,
        ``repair.too-many-ranges``, ``repair.too-big``, and for cells and compression what the native wire
        raises, ``native.…`` and ``limit.…``.
        """
        raw = _parse(data)
        size = len(data)
        if raw.zipped:
            size = raw.zipped_bytes
            raw = _parse(self._expander.expand(raw.zipped, size, FRAME_BYTES_MAX))
            if raw.zipped:
                raise _bad("compressed twice")
        if size - len(raw.cells) > TALK_BYTES_MAX:
            raise LimitReached(f"a frame of {size} bytes", code="repair.too-big", fatal=True)
        frame = Frame(raw.number, raw.last, merged=raw.merged, id_bytes=raw.id_bytes, size=size)
        if raw.HasField("opening"):
            frame.opening = self._opening(raw.opening)
            self.low, self.high = frame.opening.low, frame.opening.high
        if raw.id_bytes > ID_BYTES_MAX:
            raise _bad(f"ids of {raw.id_bytes} bytes")
        if raw.kinds:
            frame.spans = self._spans(raw)
        elif raw.bounds or raw.counts or raw.prints or raw.ids or raw.names or raw.states:
            raise _bad("columns without ranges")
        if raw.cells:
            columns = graph_pb2.Cells()
            try:
                columns.ParseFromString(raw.cells)
            except DecodeError:
                raise _bad("cells that cannot be read") from None
            frame.cells, frame.marks = read_columns(columns, self._limits)
        if raw.refusal:
            frame.refusal = _refusal(raw.refusal)
        return frame

    def _opening(self, raw: repair_pb2.Opening) -> Opening:
        low, high = unflat(raw.low), unflat(raw.high)
        if len(raw.salt) != SALT_BYTES:
            raise _bad(f"a salt of {len(raw.salt)} bytes")
        if not rises(low, high):
            raise Violation("a range that ends before it begins", code="repair.bad-bounds", fatal=True)
        return Opening(raw.salt, low, high, raw.dry_run)

    def _spans(self, raw: repair_pb2.Frame) -> list[Span]:
        kinds = raw.kinds
        if len(kinds) > 2 * SPANS_MAX:
            raise LimitReached(f"{len(kinds)} ranges", code="repair.too-many-ranges", fatal=True)
        flats = read_bounds(raw.bounds, len(kinds) + 1)
        first, *rest = flats
        low: Bound = self.low if not first else unflat(first)
        columns = _Columns(raw)
        spans: list[Span] = []
        if low != self.low and not (rises(self.low, low) and rises(low, self.high)):
            raise Violation("a range outside of the session's", code="repair.bad-bounds", fatal=True)
        ended = False
        for kind, bound in zip(kinds, rest, strict=True):
            high = self.high if not bound else unflat(bound)
            if ended or not rises(low, high) or (bound and not rises(high, self.high)):
                raise Violation("bounds that do not rise", code="repair.bad-bounds", fatal=True)
            ended = not bound
            if kind == _PRINT:
                spans.append(Print(low, high, columns.count(), columns.print()))
            elif kind == _IDS:
                spans.append(Ids(low, high, columns.ids(columns.items())))
            elif kind == _TAKE:
                ids, offers = columns.items(), columns.items()
                spans.append(Take(low, high, columns.ids(ids), columns.offers(offers)))
            elif kind == _GIVE:
                spans.append(Give(low, high, columns.names(columns.items())))
            elif kind != _SKIP:
                raise _bad(f"a range of kind {kind}")
            low = high
        columns.finish()
        return spans


class _Columns:
    """Takes from each column what belongs to the next range."""

    __slots__ = ("_at", "_counts", "_id_bytes", "_ids", "_names", "_print_bytes", "_prints", "_states")

    def __init__(self, raw: repair_pb2.Frame) -> None:
        self._counts = iter(raw.counts)
        size = raw.id_bytes
        if raw.ids and (not size or len(raw.ids) % size):
            raise _bad("ids of no length")
        self._id_bytes, self._ids = size, raw.ids
        self._names, self._prints = raw.names, raw.prints
        self._states = _states(raw.states)
        prints = raw.kinds.count(_PRINT)
        self._print_bytes = len(raw.prints) // prints if prints else PRINT_BYTES
        if (
            self._print_bytes not in (PRINT_BYTES, ROOT_BYTES)
            or len(raw.prints) != prints * self._print_bytes
        ):
            raise _bad("prints of no length")
        self._at = [0, 0, 0, 0]
        """How far ids, names, prints and states have been taken."""

    def count(self) -> int:
        count = next(self._counts, None)
        if count is None:
            raise _bad("a range without its count")
        return count

    def items(self) -> int:
        count = self.count()
        if count > IDS_MAX:
            raise LimitReached(f"{count} items in one range", code="repair.too-many-items", fatal=True)
        return count

    def _take(self, column: int, data: bytes, size: int, count: int) -> list[bytes]:
        start = self._at[column]
        stop = self._at[column] = start + size * count
        if stop > len(data):
            raise _bad("a column that is too short")
        return [data[at : at + size] for at in range(start, stop, size)] if count else []

    def ids(self, count: int) -> list[bytes]:
        if count and not self._id_bytes:
            raise _bad("ids of no length")
        return self._take(0, self._ids, self._id_bytes, count)

    def names(self, count: int) -> list[bytes]:
        return self._take(1, self._names, NAME_BYTES, count)

    def print(self) -> bytes:
        return self._take(2, self._prints, self._print_bytes, 1)[0]

    def offers(self, count: int) -> list[tuple[bytes, State]]:
        names, start = self.names(count), self._at[3]
        states = self._states[start : start + count]
        self._at[3] += count
        if len(states) != count:
            raise _bad("a column that is too short")
        return list(zip(names, states, strict=True))

    def finish(self) -> None:
        """Raise Violation when something is left."""
        whole = [len(self._ids), len(self._names), len(self._prints), len(self._states)]
        if next(self._counts, None) is not None or self._at != whole:
            raise _bad("a column that is too long")


def _states(raw: Sequence[int]) -> list[State]:
    bits = [_wrapped(number) for number in accumulate(raw)]
    states = [
        canonical_number(number)
        for number in struct.unpack(f"<{len(bits)}d", struct.pack(f"<{len(bits)}q", *bits))
    ]
    if None in states:
        raise _bad("a state is a finite number")
    return states  # type: ignore[return-value]


def _wrapped(number: int) -> int:
    return (number + _TURN // 2) % _TURN - _TURN // 2


def _parse(data: bytes) -> repair_pb2.Frame:
    if len(data) > TALK_BYTES_MAX:
        check_large(data)
    raw = repair_pb2.Frame()
    try:
        raw.ParseFromString(data)
    except DecodeError:
        raise _bad("not a frame of this protocol") from None
    return raw


def _refusal(data: bytes) -> str:
    """A code that is safe to log, whatever the other side wrote."""
    text = data[:64].decode("ascii", "replace")
    return text if _REFUSAL.fullmatch(text) else "repair.refused"


def _bad(text: str) -> Violation:
    return Violation(text, code="repair.malformed", fatal=True)
