"""The sending half of a connection: what its streams have queued, and whose turn it is. (core)"""

from __future__ import annotations

from typing import Generic, TypeVar

from air.mux.outgoing import Outgoing
from air.mux.schedule import Schedule
from air.transport.api import Piece

__all__ = ["Sending"]

S = TypeVar("S", bound=Outgoing)


class Sending(Generic[S]):
    """Both protocols send alike, except for what they write in front of the data."""

    __slots__ = ("_schedule", "_stream_max", "_total_max", "queued_bytes")

    def __init__(self, stream_bytes_max: int, total_bytes_max: int) -> None:
        self._schedule: Schedule[S] = Schedule()
        self._stream_max, self._total_max = stream_bytes_max, total_bytes_max
        self.queued_bytes = 0

    @property
    def waiting(self) -> bool:
        """Whether some stream stands in line."""
        return self._schedule.count > 0

    def room(self, stream: S) -> bool:
        """Whether the stream may be given more. One that has nothing queued always may: so none is shut out
        by others that make no progress, and the total exceeds its ceiling by at most one piece a stream."""
        if not stream.queued:
            return True
        return stream.queued < self._stream_max and self.queued_bytes < self._total_max

    def put(self, stream: S, data: Piece) -> None:
        if stream.eof_wanted or not data:
            return
        stream.outbox.append(data)
        stream.queued += len(data)
        self.queued_bytes += len(data)
        self.line_up(stream)

    def finish(self, stream: S) -> None:
        """The end, after what is queued."""
        stream.eof_wanted = True
        self.line_up(stream)

    def line_up(self, stream: S) -> None:
        """Put the stream in line if a turn would be of use to it."""
        if stream.sendable:
            self._schedule.add(stream)

    def next(self) -> S | None:
        """The stream whose turn it is, or None. After its turn it is handed to ``sent``."""
        while (stream := self._schedule.next()) is not None:
            if not stream.gone:
                return stream
        return None

    def take(self, stream: S, size: int, out: list[Piece]) -> None:
        """Move ``size`` bytes, at most what is queued, to ``out``."""
        self.queued_bytes -= size
        stream.take(size, out)

    def sent(self, stream: S, size: int) -> None:
        """The turn of ``stream`` put ``size`` bytes on the wire."""
        self._schedule.sent(stream.priority, size)
        self.line_up(stream)

    def drop(self, stream: S) -> None:
        """Forget what is queued: the stream is gone."""
        self.queued_bytes -= stream.queued
        stream.queued = 0
        stream.outbox.clear()

    def clear(self) -> None:
        self._schedule.clear()
        self.queued_bytes = 0
