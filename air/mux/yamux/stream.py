"""What is known about one yamux stream. (core)"""

from __future__ import annotations

from air.mux.api import Priority
from air.mux.outgoing import Outgoing
from air.mux.yamux.flow import ReceiveFlow

__all__ = ["Stream"]


class Stream(Outgoing):
    """A stream that is in use in at least one direction."""

    __slots__ = ("acked", "credit", "eof_received", "flow", "id", "mine", "read_closed")

    def __init__(self, id: int, mine: bool, priority: Priority, credit: int, flow: ReceiveFlow) -> None:
        super().__init__(priority)
        self.id, self.mine = id, mine
        self.credit = credit
        """What the peer lets us send."""
        self.flow = flow
        """What we let the peer send."""
        self.acked = False
        """Accepted by the side that did not open it."""
        self.eof_received = False
        self.read_closed = False
        """Nobody will read: what arrives is dropped, and no credit is given for it."""

    @property
    def sendable(self) -> bool:
        if self.queued:
            return self.credit > 0
        return self.eof_wanted and not self.eof_sent
