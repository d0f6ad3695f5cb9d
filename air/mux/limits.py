"""The limits that both multiplexing protocols need. (core)"""

from __future__ import annotations

from dataclasses import dataclass

from air.base.errors import ConfigError

__all__ = ["KIB", "MIB", "MuxLimits"]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class MuxLimits:
    """What a connection may hold and for how long. Every value is greater than 0."""

    frame_bytes: int = 65_507
    """Largest payload sent in a frame: with a header it fills one Noise message (65,519)."""
    send_buffer_bytes: int = 256 * KIB
    """Data a stream takes from its application before ``send`` waits."""
    queued_bytes_max: int = 8 * MIB
    """The same for all streams together; beyond it a stream takes data only when it has none queued."""
    backlog_max: int = 256
    """Streams that one side opened and the other did not accept yet: we wait, the peer's are reset."""
    streams_max: int = 512
    """Streams open at a time, both directions. rust-libp2p allows no more."""
    inbound_max: int = 448
    """Of these, streams that the peer opened; the rest is kept for our own."""
    linger_seconds: float = 60.0
    """How long a stream that was closed here waits for its data to leave and for the peer's end."""
    resets_burst: int = 1000
    """Streams that a peer may open in a row and reset, or have reset for a fault of its own."""
    resets_per_second: float = 100.0
    """And how fast that allowance comes back."""
    control_bytes_max: int = 64 * KIB
    """Answers and resets waiting to be written; beyond it nothing is read."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be greater than 0, not {getattr(self, name)}")
        if self.inbound_max > self.streams_max:
            raise ConfigError("inbound_max must not be above streams_max")
