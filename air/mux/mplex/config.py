"""The limits and times of mplex. (core)"""

from __future__ import annotations

from dataclasses import dataclass

from air.base.errors import ConfigError
from air.mux.limits import KIB, MIB, MuxLimits

__all__ = ["KIB", "MIB", "MplexConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MplexConfig(MuxLimits):
    """What both protocols need, and what takes the place of flow control in this one."""

    message_bytes_max: int = MIB
    """Largest message taken; the specification allows no more."""
    unread_bytes_max: int = MIB
    """Data of one stream that has arrived and was not read. Beyond it nothing is read from the connection,
    which is all the back-pressure that this protocol has."""
    unread_total_bytes_max: int = 16 * MIB
    """The same for all streams together."""
    stall_seconds: float = 5.0
    """How long one stream may hold up the others in this way; then it is reset."""
    opens_max: int = 5
    """Streams opened within ``opens_seconds``; the next waits. At the sixth in one second js-libp2p ends the
    connection, unless it was told to take more."""
    opens_seconds: float = 1.1

    def __post_init__(self) -> None:
        MuxLimits.__post_init__(self)
        if self.message_bytes_max > MIB or self.frame_bytes > MIB:
            raise ConfigError("mplex messages have at most 1 MiB")
