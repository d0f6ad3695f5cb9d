"""What a multiplexer's core tells its shell, and what the shell may ask of a core. (core)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from air.base.clock import Now
from air.base.errors import AirError
from air.mux.api import Priority, ResetCode
from air.transport.api import Piece

__all__ = ["Cut", "Data", "Eof", "Event", "MuxCore", "Opened"]


@dataclass(slots=True)
class Opened:
    """The peer opened a stream; it waits to be accepted."""

    key: int


@dataclass(slots=True)
class Data:
    """Bytes of a stream, at least one. A frame that arrives in parts gives an event for each part."""

    key: int
    data: bytes


@dataclass(slots=True)
class Eof:
    """The peer sends nothing more on this stream."""

    key: int


@dataclass(slots=True)
class Cut:
    """The stream was reset, by the peer or by a rule of ours. It is gone."""

    key: int
    error: AirError


Event: TypeAlias = Opened | Data | Eof | Cut


class MuxCore(Protocol):
    """A multiplexing protocol without its connection. ``key`` names a stream.

    Calls about a stream that is gone do nothing: its end may always be under way in an event.
    """

    ended: AirError | None
    """How it ended. Any call may set it, and none has an effect afterwards except ``take_output``: what is
    left there should still be written."""

    @property
    def rtt_seconds(self) -> float | None: ...

    @property
    def deadline(self) -> float | None:
        """When ``tick`` is due, on the monotonic clock."""
        ...

    @property
    def queued_bytes(self) -> int:
        """Data of all streams that waits to be sent."""
        ...

    @property
    def streams(self) -> int: ...

    @property
    def has_output(self) -> bool: ...

    @property
    def drained(self) -> bool:
        """Whether everything that streams were asked to send has been taken."""
        ...

    @property
    def stalled(self) -> bool:
        """Whether nothing more should be read until output was taken or data consumed."""
        ...

    def receive(self, data: bytes, now: Now, /) -> list[Event]: ...
    def receive_eof(self, now: Now, /, error: AirError | None = None) -> list[Event]: ...
    def tick(self, now: Now, /) -> list[Event]: ...

    def take_output(self, limit_bytes: int = ..., /) -> Sequence[Piece]:
        """About ``limit_bytes`` of what is to be written next, most urgent first; empty for nothing."""
        ...

    def may_open(self) -> bool:
        """Whether ``open`` would succeed now. Raises Closed or LimitReached when waiting is of no use."""
        ...

    def open(self, priority: Priority, now: Now, /) -> int: ...
    def accept(self, key: int, /) -> None: ...
    def room(self, key: int, /) -> bool:
        """Whether the stream may be given more data to send."""
        ...

    def send(self, key: int, data: Piece, /) -> None: ...
    def send_eof(self, key: int, /) -> None: ...
    def consume(self, key: int, count: int, now: Now, /) -> None:
        """The application has taken ``count`` bytes of what Data events brought."""
        ...

    def close(self, key: int, now: Now, /) -> None:
        """Send what is queued, then the end; whatever still arrives is dropped."""
        ...

    def reset(self, key: int, code: ResetCode, /) -> None: ...
    def prioritise(self, key: int, priority: Priority, /) -> None: ...

    def tell_state(self) -> Mapping[int, str]:
        """Stream by stream what is queued, granted and unread."""
        ...

    def leave(self) -> None:
        """Refuse new streams from now on, in both directions."""
        ...

    def go_away(self, code: int, /) -> None:
        """Say goodbye and end."""
        ...
