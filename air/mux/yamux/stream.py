"""What is known about one yamux stream. (core)"""

from __future__ import annotations

from air.mux.api import Priority
from air.mux.streams import StreamState
from air.mux.yamux.flow import ReceiveFlow
from air.mux.yamux.frame import DATA, FIN, WINDOW_UPDATE, encode_header

__all__ = ["Stream"]


class Stream(StreamState):
    """A stream with flow control in both directions."""

    __slots__ = ("credit", "flow")

    def __init__(self, key: int, mine: bool, priority: Priority, credit: int, flow: ReceiveFlow) -> None:
        super().__init__(key, mine, priority)
        self.credit = credit
        """What the peer lets us send."""
        self.flow = flow
        """What we let the peer send."""

    @property
    def unread(self) -> int:
        return self.flow.unread

    @property
    def sendable(self) -> bool:
        if self.queued:
            return self.credit > 0
        return self.eof_wanted and not self.eof_sent

    @property
    def sendable_bytes(self) -> int:
        return min(self.queued, self.credit)

    def data_header(self, size: int) -> bytes:
        self.credit -= size
        return encode_header(0, DATA, 0, self.key, size)

    def end_frame(self) -> bytes:
        return encode_header(0, WINDOW_UPDATE, FIN, self.key, 0)

    def tell_state(self) -> str:
        flow = self.flow
        return (
            f"{super().tell_state()}, credit {self.credit}, window {flow.window}: granted {flow.granted},"
            f" unread {flow.unread}, consumed {flow.consumed}; accepted {self.accepted},"
            f" peer's end {self.eof_received}, reading closed {self.read_closed}"
        )
