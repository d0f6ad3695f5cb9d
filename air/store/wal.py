"""SQLite's write-ahead log as a file: what it promises, and writing it anew before it is relied on. (core)

Two faults of a disk show here and nowhere else. SQLite takes a log up to its first wrong checksum and is
silent about the rest, as it must after a crash; a flipped bit looks the same, and costs whatever was
acknowledged after it. And when a disk has refused to flush, the system may show pages that are on no
disk and never will be: a log that is continued behind them breaks at the next power cut.
Source: sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass, field
from typing import Final, Protocol

__all__ = ["Log", "LogFile", "count_lost", "read_log"]

_HEADER_BYTES: Final = 32
_FRAME_HEAD_BYTES: Final = 24
_WRITE_BYTES_MAX: Final = 128 * 1024 - 1
"""SQLite's Unix files write no more in one call."""
_MAGIC: Final = 0x377F0682
"""The lowest bit tells the byte order of checksums."""


class LogFile(Protocol):
    """As SQLite's file systems offer it."""

    def xFileSize(self) -> int: ...
    def xRead(self, amount: int, offset: int, /) -> bytes: ...
    def xWrite(self, data: bytes, offset: int, /) -> None: ...
    def xSync(self, flags: int, /) -> None: ...


@dataclass(slots=True)
class Log:
    """What the frames of a log say of themselves, whatever their checksums say."""

    page_bytes: int
    bytes: int
    """Length of the file."""
    order: str = "<" if sys.byteorder == "little" else ">"
    """Of the words in checksums, for ``struct``."""
    begun: int = 0
    """Frames up to the last that belongs to this log."""
    commits: list[int] = field(default_factory=list)
    """Frames up to and including each that ends a transaction."""


def count_lost(file: LogFile, log: Log, accepted: int) -> tuple[int, int]:
    """What became of the frames behind the ``accepted`` that SQLite took, when the log is as it was then.

    Returns how many transactions were lost, all of them acknowledged but perhaps the last, and how many
    frames at the end nobody can tell about. A transaction is begun after the one before it was flushed. So
    one that is sound in itself and followed by anything was durable once, and what was before it too; the
    last may have been cut by a crash as well as damaged.
    """
    left = [end for end in log.commits if end > accepted]
    flushed = [end for end in left if end < log.begun and _sound(file, log, end)]
    if flushed:
        return len(left), log.begun - flushed[-1]
    return 0, max(log.begun - accepted, 0)


def _sound(file: LogFile, log: Log, number: int) -> bool:
    """True when a frame has the checksum that it should have after the frame before it.

    A crash may have torn its head, and left it half of a frame that ended a transaction long ago.
    """
    frame_bytes = _FRAME_HEAD_BYTES + log.page_bytes
    start = _HEADER_BYTES + (number - 1) * frame_bytes
    before = file.xRead(8, start - frame_bytes + 16 if number > 1 else _HEADER_BYTES - 8)
    frame = file.xRead(frame_bytes, start)
    one, two = struct.unpack(">2I", before)
    one, two = _checksum(frame[:8] + frame[_FRAME_HEAD_BYTES:], log.order, one, two)
    return (one, two) == struct.unpack_from(">2I", frame, 16)


def _checksum(data: bytes, order: str, one: int = 0, two: int = 0) -> tuple[int, int]:
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two


def read_log(file: LogFile, page_bytes: int, flush: int | None = None) -> Log:
    """Read a log that is not in use. With ``flush`` (SQLite's flag) write what is there again, and flush it.

    ``page_bytes`` is the size of a page if the header of the log cannot be read.
    """
    size = file.xFileSize()
    header = file.xRead(_HEADER_BYTES, 0) if size >= _HEADER_BYTES else b""
    log = Log(page_bytes, size)
    salts = _salts(header)
    if salts is not None:
        magic, _, log.page_bytes = struct.unpack_from(">3I", header)
        log.order = _order(magic)
    frame_bytes = _FRAME_HEAD_BYTES + log.page_bytes
    if flush is not None and header:
        file.xWrite(header, 0)
    count, step = 0, _WRITE_BYTES_MAX // frame_bytes * frame_bytes
    for start in range(_HEADER_BYTES, size, step):
        data = file.xRead(min(step, size - start), start)
        for place in range(0, len(data) - frame_bytes + 1, frame_bytes):
            count += 1
            _, pages, *own = struct.unpack_from(">4I", data, place)
            if salts is None:
                # A header that is no header was damaged: it had been flushed before any frame was written.
                salts = (own[0], own[1])
            if (own[0], own[1]) == salts:
                log.begun = count
                if pages:
                    log.commits.append(count)
        if flush is not None:
            file.xWrite(data, start)
    if flush is not None and size:
        file.xSync(flush)
    return log


def _order(magic: int) -> str:
    return ">" if magic & 1 else "<"


def _salts(header: bytes) -> tuple[int, int] | None:
    """The salts of a sound header; None for anything else."""
    if len(header) < _HEADER_BYTES:
        return None
    magic, _, page_bytes, _, salt1, salt2, sum1, sum2 = struct.unpack(">8I", header)
    order = _order(magic)
    if (
        magic & ~1 != _MAGIC
        or _checksum(header[:24], order) != (sum1, sum2)
        or not 512 <= page_bytes <= 65536
    ):
        return None
    return salt1, salt2
