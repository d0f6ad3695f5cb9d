"""One zstd frame per stream direction, flushed per message, and never trusted. (core)

Later messages are compressed by what earlier ones said. What is received may be anything: its length is
stated beside it, so it is fed to the library block by block, and never more than one block (128 KiB) is
made beyond what was stated. Source: RFC 8878, section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import zstandard

from air.base.errors import LimitReached, Violation

__all__ = ["BLOCK_BYTES_MAX", "Expander", "Squeezer", "ZstdConfig"]

BLOCK_BYTES_MAX: Final = 128 * 1024
"""What one block may hold at most (RFC 8878 3.1.1.2)."""

_RLE, _COMPRESSED = 1, 2
_HEADER_BYTES_MAX: Final = 18


@dataclass(frozen=True, slots=True)
class ZstdConfig:
    level: int = 1
    """1 to 19. Level 1 takes 0.6 MiB per direction, level 3 1.3 MiB, from the first message on."""
    window_log: int = 17
    """How far back our compressor looks: 2**17 bytes."""
    window_log_max: int = 20
    """What the other side's window may be, which is what it makes us keep: ``native.zstd-window``."""


class Squeezer:
    """Compresses the messages of one direction."""

    __slots__ = ("_config", "_context")

    def __init__(self, config: ZstdConfig) -> None:
        self._config = config
        # Made with the first message: most links of a quiet peer never need one.
        self._context: zstandard.ZstdCompressionObj | None = None

    def squeeze(self, data: bytes) -> bytes:
        """``data``, not empty, as whole blocks, which must arrive in the order they were made."""
        if self._context is None:
            params = zstandard.ZstdCompressionParameters.from_level(
                self._config.level, window_log=self._config.window_log
            )
            self._context = zstandard.ZstdCompressor(compression_params=params).compressobj()
        return self._context.compress(data) + self._context.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


class Expander:
    """Takes apart what the Squeezer of the other side made. After an error it must not be used again."""

    __slots__ = ("_config", "_context")

    def __init__(self, config: ZstdConfig) -> None:
        self._config = config
        self._context: zstandard.ZstdDecompressionObj | None = None

    def expand(self, data: bytes, size: int, limit_bytes: int) -> bytes:
        """The next message, which is said to have ``size`` bytes.

        Raises LimitReached ``native.zstd-too-big`` when that is more than ``limit_bytes``, or Violation:
        ``native.zstd-size`` when it was a lie, ``native.zstd-header`` and ``native.zstd-window`` for how the
        stream begins, ``native.zstd-cut`` for part of a block, ``native.zstd-end`` for the end of the zstd
        frame, ``native.zstd-corrupt``.
        """
        if size > limit_bytes:
            raise LimitReached(
                f"{size} bytes, the limit is {limit_bytes}", code="native.zstd-too-big", fatal=True
            )
        out: list[bytes] = []
        made = at = 0
        end = len(data)
        if self._context is None:
            at = self._begin(data)
            self._feed(data[:at])
        while at < end:
            if end - at < 3:
                raise _violation("cut", "the head of a block is not complete")
            head = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            kind, block = head >> 1 & 3, head >> 3
            stop = at + 3 + (1 if kind == _RLE else block)
            if head & 1:
                raise _violation("end", "this zstd frame lasts as long as the stream")
            if kind > _COMPRESSED or block > BLOCK_BYTES_MAX:
                raise _violation("corrupt", "no such block")
            if stop > end:
                raise _violation("cut", "a block is not complete")
            if kind != _COMPRESSED and made + block > size:
                raise _violation("size", "there is more inside than was said")
            piece = self._feed(data[at:stop])
            made += len(piece)
            if made > size:
                raise _violation("size", "there is more inside than was said")
            out.append(piece)
            at = stop
        if made != size:
            raise _violation("size", "there is less inside than was said")
        return out[0] if len(out) == 1 else b"".join(out)

    def _begin(self, data: bytes) -> int:
        """Judge the head of the zstd frame; returns its length."""
        try:
            length = zstandard.frame_header_size(data[:_HEADER_BYTES_MAX])
            head = zstandard.get_frame_parameters(data[:_HEADER_BYTES_MAX])
        except zstandard.ZstdError:
            raise _violation("header", "not the beginning of a zstd frame") from None
        if head.content_size != zstandard.CONTENTSIZE_UNKNOWN or head.dict_id or head.has_checksum:
            raise _violation("header", "a zstd frame with a size, a dictionary or a checksum")
        if head.window_size > 1 << self._config.window_log_max:
            raise _violation("window", f"a window of {head.window_size} bytes")
        self._context = zstandard.ZstdDecompressor(
            max_window_size=1 << self._config.window_log_max, format=zstandard.FORMAT_ZSTD1
        ).decompressobj()
        return length

    def _feed(self, data: bytes) -> bytes:
        assert self._context is not None
        try:
            return self._context.decompress(data)
        except zstandard.ZstdError:
            raise _violation("corrupt", "not zstd") from None


def _violation(what: str, text: str) -> Violation:
    return Violation(text, code=f"native.zstd-{what}", fatal=True)
