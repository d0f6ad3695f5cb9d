"""How marks are kept: writers by number, a mark as a few bytes. (core)

A mark on disk is a row of dots, each two varints: ``writer * 4 + seen * 2 + more`` and the sequence; *more*
says that another dot follows. The first dots without *seen* are the mark as ``model.mark`` knows it. Dots
with *seen* are of values that this store met and that lost here: they tell that the conflict is in the
journal already, and are told to nobody, since whoever wrote the value had not seen them.

The dot of this peer alone, which nearly every cell has, is 3 to 5 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple
from zlib import crc32

from air.base.errors import Misuse
from air.base.varint import VARINT_MAX, encode_varint
from air.model.mark import MARK_DOTS_MAX, Dot, Mark
from air.store.records import Execute

__all__ = ["PEER_BYTES_MAX", "UNKNOWN", "Known", "Writers", "own_prefix", "uncovered"]

_MEMO_MAX: Final = 4096
PEER_BYTES_MAX: Final = 256
"""Length of a writer's name."""


class Known(NamedTuple):
    """What a store knows of who wrote a cell."""

    mark: Mark
    """As peers are told."""
    seen: Mark = ()
    """The newest dots of other values that this store has met and that do not stand any more."""


UNKNOWN: Final = Known(())


class Writers:
    """The table ``writer(id, peer, crc)``, all of it in memory, and the coding of marks by it."""

    __slots__ = ("_coded", "_execute", "_fresh", "_ids", "_limit", "_memo", "_next", "_peers", "dropped")

    def __init__(self, execute: Execute, writers_max: int) -> None:
        self._execute, self._limit = execute, writers_max
        self.dropped = 0
        """Marks that were kept as unknown because there are too many writers."""
        self._fresh: list[str] = []
        self.load(execute)

    def load(self, execute: Execute) -> list[str]:
        """Read the table anew. Returns what is damaged, for an operator."""
        self._execute = execute
        self._ids: dict[str, int] = {}
        self._peers: dict[int, str] = {}
        self._next = 1
        self._memo: dict[bytes, Known] = {}
        self._coded: dict[Mark, bytes] = {}
        self._fresh.clear()
        faults: list[str] = []
        rows = "SELECT id, CAST(peer AS BLOB), CAST(crc AS INTEGER) FROM writer"
        for number, peer, crc in execute(rows, ()):
            # A number is never given out twice, whatever the row says that had it.
            self._next = max(self._next, number + 1)
            if crc != _checksum(number, peer):
                faults.append(f"the name of writer {number} is damaged")
                continue
            name = peer.decode()
            self._ids[name], self._peers[number] = number, name
        return faults

    def known(self, peer: str) -> int | None:
        """The number of a writer, if it has one."""
        return self._ids.get(peer)

    def number(self, peer: str, *, own: bool = False) -> int | None:
        """The number of a writer, given out within the running transaction when it has none.

        None when the ceiling is reached, which is not for this peer's ``own`` name. Raises Misuse
        ``store.bad-mark`` for what cannot be a name.
        """
        known = self._ids.get(peer)
        if known is not None:
            return known
        name = _name(peer)
        if len(self._ids) >= self._limit and not own:
            return None
        number = self._next
        self._execute("INSERT INTO writer VALUES(?, ?, ?)", (number, name, _checksum(number, name)))
        self._ids[peer], self._peers[number] = number, peer
        self._next += 1
        self._fresh.append(peer)
        return number

    def committed(self) -> None:
        """What was given out in the transaction stays."""
        self._fresh.clear()

    def rolled_back(self) -> None:
        """The transaction is undone, and with it the numbers given out in it."""
        for peer in self._fresh:
            del self._peers[self._ids.pop(peer)]
        if self._fresh:
            self._next -= len(self._fresh)
            self._memo.clear()
            self._coded.clear()
            self._fresh.clear()

    # -- marks as bytes --------------------------------------------------------

    def encode(self, mark: Mark, seen: Mark = ()) -> bytes:
        """A mark, and what else was seen, as bytes. Raises Misuse ``store.bad-mark``."""
        if not seen and (coded := self._coded.get(mark)) is not None:
            return coded
        dots: list[tuple[int, int]] = []
        for index, dot in enumerate(mark[:MARK_DOTS_MAX]):
            writer = self._dot(dot)
            if writer is None:
                self.dropped += 1
                if not index:
                    break
                continue
            dots.append((writer * 4, dot[1]))
        for dot in seen[:MARK_DOTS_MAX]:
            if (writer := self._dot(dot)) is not None:
                dots.append((writer * 4 + 2, dot[1]))
        last = len(dots) - 1
        coded = b"".join(
            [
                encode_varint(head + (place < last)) + encode_varint(sequence)
                for place, (head, sequence) in enumerate(dots)
            ]
        )
        if not seen:
            if len(self._coded) >= _MEMO_MAX:
                self._coded.clear()
            self._coded[mark] = coded
        return coded

    def _dot(self, dot: Dot) -> int | None:
        peer, sequence = dot
        if type(sequence) is not int or not 0 < sequence <= VARINT_MAX:
            raise Misuse(f"{sequence!r} is no sequence of a mark", code="store.bad-mark")
        return self.number(peer)

    def decode(self, coded: bytes) -> Known:
        """What :meth:`encode` coded, as far as the names of its writers are known."""
        known = self._memo.get(coded)
        if known is None:
            try:
                known = self._decoded(coded)
            except IndexError:  # it ends too early
                known = UNKNOWN
            if len(self._memo) >= _MEMO_MAX:
                self._memo.clear()
            self._memo[coded] = known
        return known

    def _decoded(self, coded: bytes) -> Known:
        mark: list[Dot] = []
        seen: list[Dot] = []
        place, whole = 0, True
        while place < len(coded):
            head, place = _varint(coded, place)
            sequence, place = _varint(coded, place)
            peer = self._peers.get(head >> 2)
            if peer is None:
                # A mark whose own dot is lost says nothing any more.
                whole = whole and (bool(mark) or bool(head & 2))
            elif head & 2:
                seen.append((peer, sequence))
            else:
                mark.append((peer, sequence))
            if not head & 1:
                break
        return Known(tuple(mark) if whole else (), tuple(seen))


def own_prefix(writer: int) -> bytes:
    """How every mark begins that is one dot of this writer and nothing else; the sequence ends it."""
    return encode_varint(writer * 4)


def uncovered(dots: Iterable[Dot], by: Mark) -> Mark:
    """Those of ``dots`` that a mark does not cover, the newest of each writer."""
    known = dict(by)
    left: dict[str, int] = {}
    for writer, sequence in dots:
        if sequence > known.get(writer, 0):
            left[writer] = max(sequence, left.get(writer, 0))
    return tuple(left.items())


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """(value, place behind it). Raises IndexError at the end of ``data``."""
    value = shift = 0
    while (byte := data[place]) > 127:
        value |= (byte & 127) << shift
        shift += 7
        place += 1
    return value | byte << shift, place + 1


def _name(peer: str) -> bytes:
    try:
        name = peer.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise Misuse(f"{peer!r} is no name of a writer", code="store.bad-mark") from error
    if not 0 < len(name) <= PEER_BYTES_MAX:
        raise Misuse(
            f"the name of a writer has {len(name)} bytes, not 1 to {PEER_BYTES_MAX}", code="store.bad-mark"
        )
    return name


def _checksum(number: int, peer: bytes) -> int:
    return crc32(peer, number & 0xFFFFFFFF)
