"""What a frame of the native wire may hold, and how much of everything a link may use. (core)"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from air import __version__
from air.base.backoff import BackoffConfig
from air.codec.zstd import ZstdConfig

__all__ = ["PROTOCOL", "VERSION", "NativeConfig", "NativeLimits", "RatesConfig"]

PROTOCOL: Final = "/air/graph/1.0.0"
VERSION: Final = 1

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class NativeLimits:
    """What one frame may hold. Lengths of names and values count Unicode characters, as on the GUN wire."""

    bytes_max: int = 65 * MIB
    """A frame, before compression; the longest value of the GUN wire fits, whatever its characters:
    ``frame.too-big``, ``native.zstd-too-big``."""
    columns_bytes_max: int = 1 * MIB
    """The part of a frame that is not the text of values. Columns grow eightfold when they are read."""
    cells_max: int = 4_096
    """Cells in one frame: ``limit.cells``."""
    soul_chars_max: int = 8_192
    """Length of a soul: ``limit.soul``."""
    key_chars_max: int = 8_192
    """Length of a key: ``limit.key``."""
    value_chars_max: int = 16 * MIB
    """Length of a text value: ``limit.value``."""
    id_chars_max: int = 128
    """Length of the id of a question, and of a peer id: ``native.bad-id``."""
    wishes_max: int = 1_024
    """Wishes in one frame: ``limit.wishes``."""
    acks_max: int = 65_536
    """Batches in one ack: ``limit.acks``."""
    error_chars_max: int = 500
    """What is kept of an error that a peer tells."""

    @property
    def wire_bytes_max(self) -> int:
        """A frame on the wire: zstd makes what it cannot compress a little longer."""
        return self.bytes_max + self.bytes_max // 64 + KIB


@dataclass(frozen=True, slots=True)
class RatesConfig:
    """How fast one peer may go, over all its links. Beyond, it is read from more slowly."""

    bytes_per_second: float = 128.0 * MIB
    bytes_burst: float = 256.0 * MIB
    puts_per_second: float = 20_000.0
    """Batches and parts of answers, of whatever size."""
    puts_burst: float = 40_000.0
    gets_per_second: float = 5_000.0
    """Questions, wishes and their withdrawals."""
    gets_burst: float = 20_000.0
    idles_per_second: float = 200.0
    """Frames that carry nothing: credits, acks, signs of life. Who sends them too fast is cut in the end:
    ``limit.idle``."""
    idles_burst: float = 20_000.0
    idle_insist_seconds: float = 1.5
    """How long such a peer is only slowed down."""


@dataclass(frozen=True, slots=True)
class NativeConfig:
    everything: bool = True
    """This side holds the whole graph and wants all of it. When both sides do, they are told everything."""
    limits: NativeLimits = field(default_factory=NativeLimits)
    rates: RatesConfig = field(default_factory=RatesConfig)
    zstd: ZstdConfig = field(default_factory=ZstdConfig)
    zip_bytes_min: int = 96
    """Batches of fewer bytes go as they are."""
    batch_bytes: int = 64 * KIB
    """Batches are filled up to about this size."""
    batch_cells: int = 2_048
    """Batches are filled up to so many cells."""
    flush_bytes: int = 256 * KIB
    """Written at a time: what is more urgent waits at most for so much."""
    bulk_cells: int = 256
    """Messages with more cells than this are bulk: live changes overtake them."""
    credit_cells: int = 32_768
    """Cells that the other side may have on their way to our disk: ``native.credit``."""
    credit_bytes: int = 4 * MIB
    """Bytes, before compression, that it may have on their way: ``native.credit``."""
    hold_seconds: float = 5.0
    """A batch that is not durable by then gives its credit back: writes that wait for their time have a
    ceiling of their own, and must not hold up all that comes after them."""
    outbox_cells_max: int = 200_000
    """Cells that may wait to be sent on a link. Beyond, a peer is repaired, and any other cut:
    ``limit.outbox``."""
    outbox_bytes_max: int = 32 * MIB
    """Bytes that may wait to be sent on a link; as for cells."""
    high_bytes: int = 1 * MIB
    """While more than this waits to be sent, further questions of the other side wait too."""
    unacked_max: int = 100_000
    """Batches of the other side that wait for our disk, or for their time: ``limit.unacked``."""
    gets_waiting_max: int = 1_000
    """Questions of a peer that wait until it has read earlier answers: ``limit.unread``."""
    hello_seconds: float = 10.0
    """How long the other side may take to say hello: ``native.no-hello``."""
    heartbeat_seconds: float = 5.0
    """A quiet link says that it lives this often, or three times before the other side gives it up."""
    silent_seconds: float = 20.0
    """A link that is silent for so long is dead: ``link.silent``."""
    reads_max: int = 64
    """Reads of one link that may wait for the disk; what comes after them waits too."""
    slice_seconds: float = 0.002
    """After so long at one link others get their turn."""
    redial: BackoffConfig = field(default_factory=lambda: BackoffConfig(first_seconds=0.25, max_seconds=2.0))
    """Waits between two attempts to reach a peer: short, so that a network that was cut heals at once."""
    links_per_peer_max: int = 4
    """Links of one peer at a time: ``limit.links``."""
    wishes_max: int = 10_000
    """Prefixes and souls that this side subscribes to on every link that it dials."""
    agent: str = f"air/{__version__}"
    """Program and version, for people."""
