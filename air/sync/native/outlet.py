"""The sending half of a link: cells within the credit that the other side gives. (core)"""

from __future__ import annotations

from collections import deque

from air.codec.frame import encode_frame
from air.codec.zstd import Squeezer
from air.model.cell import Cell
from air.model.mark import Mark
from air.model.message import Answer
from air.sync.native.frames import Hello, encode_answer, encode_put, encode_zipped
from air.sync.native.limits import NativeConfig
from air.sync.native.outbox import Outbox, Receipts, highest_own

__all__ = ["Outlet"]


class Outlet:
    """Makes frames with cells out of what waits."""

    __slots__ = (
        "_config",
        "_floor",
        "_hello",
        "_high",
        "_own",
        "_parts",
        "_parts_bytes",
        "_squeezer",
        "balance",
        "cells",
        "credits_due",
        "outbox",
        "receipts",
        "too_large",
    )

    def __init__(self, config: NativeConfig, own: str) -> None:
        """``own`` is the peer id of this side."""
        self._config, self._own = config, own
        self.outbox = Outbox(config)
        self.receipts = Receipts(2 * config.outbox_cells_max)
        self._squeezer = Squeezer(config.zstd)
        self._hello: Hello | None = None
        self.balance = [0, 0]
        """Cells and bytes that may still be sent. The last frame may take them below zero."""
        self.credits_due = 0
        """Frames that were paid for and have not been followed by a credit yet."""
        self.too_large = 0
        self.cells = 0
        """Cells sent so far."""
        """Cells that were dropped because the other side takes no frame of their size."""
        self._high = self._floor = 0
        self._parts: deque[tuple[bytes, int]] = deque()
        """What is left of an answer that takes several frames, encoded: (frame, cells)."""
        self._parts_bytes = 0

    def open(self, hello: Hello, *, receipts: bool) -> None:
        """The other side has said what it takes. ``receipts``: somebody here wants to know what arrived."""
        self._hello = hello
        self.balance = [hello.credit_cells, hello.credit_bytes]
        self.outbox = Outbox(self._config, receipts=receipts)

    @property
    def waiting_bytes(self) -> int:
        """What waits, about."""
        return self.outbox.bytes + self._parts_bytes

    @property
    def ready(self) -> bool:
        """Something can be sent now."""
        return min(self.balance) > 0 and (bool(self._parts) or self.outbox.waiting)

    def clear(self) -> None:
        """Drop what waits."""
        self.outbox.clear()
        self._parts.clear()
        self._parts_bytes = 0

    def take(self) -> bytes | None:
        """The next frame, the most urgent first; None when nothing waits or nothing may go."""
        if not self.ready:
            return None
        if not self._parts:
            answer = self.outbox.take_answer()
            if answer is not None:
                self._cut(answer)
        if self._parts:
            plain, count = self._parts.popleft()
            self._parts_bytes -= len(plain)
            return self._frame(plain, count)
        hello, config = self._hello, self._config
        assert hello is not None
        most = min(config.batch_cells, hello.cells_max)
        while (outgoing := self.outbox.take(most, config.batch_bytes)) is not None:
            marks, floor = outgoing.marks, 0
            if marks is not None:
                marks = self._without_old(marks)
                self._high = max(self._high, highest_own(marks, self._own))
                if self.outbox.idle and self._high > self._floor:
                    floor = self._high
            plain = encode_put(self.receipts.last + 1, outgoing.cells, marks, floor)
            if len(plain) > hello.bytes_max:
                self.too_large += len(outgoing.cells)
                continue
            self.receipts.sent(outgoing)
            self._floor = floor or self._floor
            return self._frame(plain, len(outgoing.cells))
        return None

    def _without_old(self, marks: list[Mark]) -> list[Mark]:
        """A dot of ours below a floor that was said would be taken for a lie: it is left out."""
        own, floor = self._own, self._floor
        if not floor or all(not mark or mark[0][0] != own or mark[0][1] >= floor for mark in marks):
            return marks
        return [() if mark and mark[0][0] == own and mark[0][1] < floor else mark for mark in marks]

    def _cut(self, answer: Answer) -> None:
        """Encode an answer, in as many frames as it takes."""
        assert self._hello is not None
        most = min(self._config.batch_cells, self._hello.cells_max)
        pieces: list[list[Cell]] = [[]]
        size = 0
        for cell in answer.cells():
            weight = len(cell.soul) + len(cell.key) + (len(cell.value) if type(cell.value) is str else 0)
            if pieces[-1] and (len(pieces[-1]) == most or size + weight > self._config.batch_bytes):
                pieces.append([])
                size = 0
            pieces[-1].append(cell)
            size += weight
        for index, piece in enumerate(pieces):
            more = answer.more or index + 1 < len(pieces)
            plain = encode_answer(answer.re, piece, more=more)
            if len(plain) > self._hello.bytes_max:
                self.too_large += len(piece)
                plain, piece = encode_answer(answer.re, (), more=more), []
            self._parts.append((plain, len(piece)))
            self._parts_bytes += len(plain)

    def _frame(self, plain: bytes, cells: int) -> bytes:
        if cells:
            self.cells += cells
            # Only cells cost credit: "there is nothing" is free.
            self.balance[0] -= cells
            self.balance[1] -= len(plain)
            self.credits_due += 1
        if len(plain) >= self._config.zip_bytes_min:
            plain = encode_zipped(len(plain), self._squeezer.squeeze(plain))
        return encode_frame(plain)
