"""What both sides of a session do: frames, cells, ceilings. (core)"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from air.base.errors import Denied, LimitReached, Violation
from air.base.varint import encode_varint
from air.model.cell import Cell
from air.model.mark import Mark
from air.store.api import RangeSource
from air.sync.repair.cargo import Cargo
from air.sync.repair.config import RepairConfig
from air.sync.repair.messages import Frame, FrameCodec
from air.sync.repair.spans import Ids, Print, Span, Take

__all__ = ["WEIGHT_MAX", "Side", "bytes_of", "weight_of"]

FRAME_BYTES: Final = 16
"""What a frame counts for beside its bytes: also empty ones are work."""
WEIGHT_MAX: Final = 4
"""What a range of ids counts for among those that are asked about: the answer to it may be longest."""


REFRESH_CELLS: Final = 4096
"""Cells that the store sums up at a time before a pass."""
REFRESHES_MAX: Final = 1024
"""Times that it does so: in a store that is written to all the time there is always something left."""
ALIVE_REFRESHES: Final = 128
"""Times after which the other side is told that this one is at work: some seconds."""


class Side(ABC):
    """What both sides do: frames, cells and ceilings.

    Frames go in by :meth:`receive`; :meth:`work` looks into the store, on whichever thread that lives;
    :meth:`take_output` is what to send, :meth:`take_received` what to merge. Not thread-safe.
    """

    def __init__(self, config: RepairConfig | None = None) -> None:
        self.config = config or RepairConfig()
        self.cargo = Cargo(self.config)
        self._codec = FrameCodec()
        self._output: list[bytes] = []
        self._talk = 0
        self._here = 0
        """Cells of the range in this store, when the last pass began."""
        self._refreshes = 0
        self.passes = 0
        """Times that the range has been compared, this one included."""
        self.bytes_in = self.bytes_out = 0
        self.dry_run = False

    def receive(self, data: bytes) -> None:
        """Take one frame. Raises Violation when the other side breaks the rules, Denied when it refuses."""
        self.bytes_in += _framed(data)
        frame = self._codec.decode(data)
        if frame.refusal:
            raise Denied(f"the other side ended the session: {frame.refusal}", code=frame.refusal)
        if frame.merged:
            self.cargo.merged_there(frame.merged)
        if frame.cells:
            if self.dry_run:
                raise Violation("cells in a dry run", code="repair.unasked", fatal=True)
            self.cargo.arrive(frame.cells, frame.marks)
        else:
            self._talk += frame.size + FRAME_BYTES
            cells = self._here + self.cargo.received + self.cargo.sent
            if self._talk > self.config.talk_floor_bytes + self.config.talk_cell_bytes * cells:
                raise LimitReached("much talk about few cells", code="repair.talk", fatal=True)
        self._take(frame)

    @abstractmethod
    def _take(self, frame: Frame) -> None:
        """What a frame without cells, or beside them, says."""

    def take_output(self) -> list[bytes]:
        """Frames to send, without their lengths, in this order."""
        output, self._output = self._output, []
        return output

    def take_received(self) -> tuple[Sequence[Cell], Sequence[Mark], int] | None:
        """Cells to merge, a mark for each, and the number for :meth:`merged` when they are durable."""
        return self.cargo.take()

    def merged(self, batches: int) -> None:
        """What was taken is durable, and the other side may send more."""
        self.cargo.merged_here(batches)
        self._say(Frame(merged=batches))

    def refuse(self, code: str) -> None:
        """Tell the other side why the session ends."""
        self._say(Frame(refusal=code))

    def _say(self, frame: Frame) -> None:
        data = self._codec.encode(frame)
        self.bytes_out += _framed(data)
        self._output.append(data)

    def _summed_up(self, source: RangeSource) -> bool:
        """Have the store sum up what has changed, a little at a time. True when that is done."""
        if self._refreshes < REFRESHES_MAX and source.refresh(REFRESH_CELLS):
            self._refreshes += 1
            if self.bytes_in and not self._refreshes % ALIVE_REFRESHES:
                self._say(Frame())
            return False
        self._refreshes = 0
        return True

    def _ship(self, source: RangeSource, least: int) -> None:
        """Send a batch when there are ``least`` cells and room for it; one in each visit to the store."""
        batch = self.cargo.pack(source) if self.cargo.waiting >= least else None
        if batch is None:
            return
        self._say(Frame(cells=batch[0], marks=batch[1]))
        once = self._here + self.cargo.received
        if self.cargo.sent > 2 * self.passes * once + self.config.spare_cells:
            raise LimitReached("the same cells again and again", code="repair.greedy", fatal=True)


def _framed(data: bytes) -> int:
    return len(data) + len(encode_varint(len(data)))


def weight_of(span: Span) -> int:
    """What a range counts for among those that are asked about."""
    return WEIGHT_MAX if isinstance(span, Ids) else 1


def bytes_of(span: Span, id_bytes: int) -> int:
    """What a range takes in a frame, about, with its bound written out."""
    size = 16 if span.high is None else 16 + len(span.high[0]) + len(span.high[1])
    if isinstance(span, Ids):
        return size + id_bytes * len(span.ids)
    if isinstance(span, Take):
        return size + id_bytes * len(span.ids) + 12 * len(span.offers)
    return size if isinstance(span, Print) else size + 4 * len(span.names)
