"""The ceilings of a session, and what came of it. (core)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "COLUMNS_BYTES_MAX",
    "CREDIT_BATCHES",
    "CREDIT_BYTES",
    "CREDIT_CELLS",
    "FRAME_BYTES_MAX",
    "IDS_MAX",
    "LEAF_ITEMS",
    "PARTS_MAX",
    "PULL_ITEMS",
    "SPANS_MAX",
    "TALK_BYTES_MAX",
    "RepairConfig",
    "Summary",
]

KIB: Final = 1024
MIB: Final = 1024 * KIB

# What both sides must agree on. They are the protocol's, so no setting.

PARTS_MAX: Final = 16
"""Parts into which a range is split. With 16, a million cells are four levels, two in each round trip."""
LEAF_ITEMS: Final = 64
"""Cells in a range up to which the ids of all are sent instead of prints of parts."""
PULL_ITEMS: Final = 256
"""Cells in a range up to which it is compared with the ids of the other side."""
IDS_MAX: Final = PULL_ITEMS
"""Ids, or names, in one range."""
SPANS_MAX: Final = 2048
"""Ranges that have been asked about and not been answered. A range of ids counts as four."""
CREDIT_CELLS: Final = 4096
"""Cells that are under way in one direction, not yet said to be merged."""
CREDIT_BYTES: Final = 2 * MIB
"""Bytes of them, as :func:`air.sync.repair.cargo.size_of` counts; a batch alone may have more."""
CREDIT_BATCHES: Final = 64
"""Frames of them."""
TALK_BYTES_MAX: Final = 256 * KIB
"""Bytes of a frame without cells."""
COLUMNS_BYTES_MAX: Final = 1 * MIB
"""Bytes of the cells in a frame that are not texts of values."""
FRAME_BYTES_MAX: Final = 33 * MIB
"""Bytes of a frame with cells, before and after compression. A cell that does not fit into one stays."""


@dataclass(frozen=True, slots=True)
class RepairConfig:
    """Ceilings of this side. What they say of the other side must leave room for honest ones."""

    request_bytes: int = 32 * KIB
    """A frame with ranges ends when it is about this large."""
    batch_cells: int = 512
    """Cells in one frame."""
    batch_bytes: int = 128 * KIB
    """Bytes of cells at which a frame ends."""
    hop_work: int = 48
    """Prints and dozens of items looked up in one visit to the store, which takes some 20 ms then."""
    depth_max: int = 32
    """Round trips into one range: ``repair.endless``. A store of 10**12 cells needs eight."""
    passes_max: int = 5
    """Times that the whole range is compared, until nothing differs."""
    spare_cells: int = 65_536
    """The other side gets each cell of the range twice in a pass, and so many on top for what is written
    meanwhile: ``repair.greedy``. An honest one needs each once."""
    talk_floor_bytes: int = 4 * MIB
    """What the other side may say in any case, in frames without cells: ``repair.talk``."""
    talk_cell_bytes: int = 512
    """What it may say on top for each cell that is here, came or went. About 3 are needed."""
    waiting_bytes_max: int = 32 * MIB
    """Bytes that have come and have not been looked at: ``repair.overrun``."""
    idle_seconds: float = 60.0
    """How long the other side may leave this side without work: ``repair.idle``."""
    session_seconds: float = 3600.0
    """How long a session may take: ``repair.too-long``."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of a session, as seen from the side that opened it."""

    sent: int
    """Cells sent. Of a dry run: cells that the other side lacks, or has in another version."""
    received: int
    """Cells received. Of a dry run: cells that this side lacks, or has in another version."""
    rounds: int
    """Round trips that depended on each other."""
    bytes_in: int
    bytes_out: int
    seconds: float
    equal: bool
    """Both sides had the same cells in the end. False as well when cells changed all the time."""
    passes: int = 1
    """How often the range was compared."""
