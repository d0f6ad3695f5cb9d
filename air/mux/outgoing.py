"""What one stream has still to send. (core)"""

from __future__ import annotations

from collections import deque

from air.mux.api import Priority
from air.transport.api import Piece

__all__ = ["Outgoing"]


class Outgoing:
    """What stands in line to send. Both protocols build their streams on it."""

    __slots__ = ("eof_sent", "eof_wanted", "gone", "in_line", "outbox", "priority", "queued")

    def __init__(self, priority: Priority) -> None:
        self.priority = priority
        self.outbox: deque[Piece] = deque()
        self.queued = 0
        """Bytes in ``outbox``."""
        self.eof_wanted = self.eof_sent = False
        self.gone = False
        """Cut, or over in both directions. It may still stand in line."""
        self.in_line = False

    @property
    def sendable(self) -> bool:
        """Whether a turn would put something on the wire."""
        return self.queued > 0 or (self.eof_wanted and not self.eof_sent)

    def tell_state(self) -> str:
        return f"queued {self.queued}, in line {self.in_line}, end {self.eof_wanted}/{self.eof_sent}"

    def take(self, size: int, out: list[Piece]) -> None:
        """Move ``size`` bytes, at most ``queued``, from the outbox to ``out`` without copying them."""
        outbox = self.outbox
        self.queued -= size
        while size:
            head = outbox[0]
            length = len(head)
            if length <= size:
                out.append(outbox.popleft())
                size -= length
            else:
                view = memoryview(head)
                out.append(view[:size])
                outbox[0] = view[size:]
                return
