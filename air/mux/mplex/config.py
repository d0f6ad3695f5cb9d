"""The limits and times of mplex. (core)"""

from __future__ import annotations

from dataclasses import dataclass

from air.base.errors import ConfigError

__all__ = ["KIB", "MIB", "MplexConfig"]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class MplexConfig:
    message_bytes_max: int = MIB
    """Largest message taken; the specification allows no more."""
    frame_bytes: int = 65_507
    """Largest message sent, so that streams take turns."""
    unread_bytes_max: int = MIB
    """Data of one stream that has arrived and was not read. Beyond it nothing is read from the connection,
    which is all the back-pressure that this protocol has."""
    unread_total_bytes_max: int = 16 * MIB
    """The same for all streams together."""
    stall_seconds: float = 5.0
    """How long one stream may hold up the others in this way; then it is reset."""
    send_buffer_bytes: int = 256 * KIB
    """Data a stream takes from its application before ``send`` waits."""
    queued_bytes_max: int = 8 * MIB
    """The same for all streams together; beyond it a stream takes data only when it has none queued."""
    backlog_max: int = 256
    """Streams of the peer's that wait to be accepted; more are reset."""
    streams_max: int = 512
    """Streams open at a time, both directions."""
    inbound_max: int = 448
    """Of these, streams that the peer opened."""
    linger_seconds: float = 60.0
    """How long a stream that was closed here waits for its data to leave and for the peer's end."""
    resets_burst: int = 1000
    """Streams that a peer may open and reset in a row."""
    resets_per_second: float = 100.0
    """And how fast that allowance comes back."""
    control_bytes_max: int = 64 * KIB
    """Resets waiting to be written; beyond it nothing is read."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be greater than 0, not {getattr(self, name)}")
        if self.message_bytes_max > MIB or self.frame_bytes > MIB:
            raise ConfigError("mplex messages have at most 1 MiB")
        if self.inbound_max > self.streams_max:
            raise ConfigError("inbound_max must not be above streams_max")
