"""The limits and times of yamux. (core)"""

from __future__ import annotations

from dataclasses import dataclass

from air.base.errors import ConfigError
from air.mux.yamux.frame import CREDIT_MAX, WINDOW_BYTES

__all__ = ["KIB", "MIB", "YamuxConfig"]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class YamuxConfig:
    window_bytes: int = WINDOW_BYTES
    """Receive window of a new stream. 256 KiB are granted by the specification and cannot be less; more is
    announced when the stream is opened or accepted."""
    window_bytes_max: int = 16 * MIB
    """What a window may grow to while the application reads faster than credit travels."""
    windows_grown_bytes_max: int = 32 * MIB
    """What the windows of all streams together may have grown by."""
    unread_bytes_max: int = 64 * MIB
    """Data of all streams that has arrived and was not read; a stream whose data would exceed it is reset.
    Windows grown to their limit and 128 others fit in: beyond is a peer that fills windows on purpose."""
    frame_bytes: int = 65_507
    """Largest payload sent in a frame: with its header it fills one Noise message (65,519)."""
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
    ping_seconds: float = 30.0
    """Time between pings, which measure the round trip and keep the connection alive. One is sent at once."""
    answer_seconds: float = 10.0
    """Silence after a ping that ends the connection."""
    linger_seconds: float = 60.0
    """How long a stream that was closed here waits for its data to leave and for the peer's end."""
    resets_burst: int = 1000
    """Streams that a peer may open and reset in a row."""
    resets_per_second: float = 100.0
    """And how fast that allowance comes back."""
    pongs_max: int = 32
    """Answers to pings that wait to be written; further pings are not answered."""
    control_bytes_max: int = 64 * KIB
    """Answers and resets waiting to be written; beyond it nothing is read."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be greater than 0, not {getattr(self, name)}")
        if not WINDOW_BYTES <= self.window_bytes <= self.window_bytes_max <= CREDIT_MAX:
            raise ConfigError(f"{WINDOW_BYTES} <= window_bytes <= window_bytes_max < 2**32 does not hold")
        if self.frame_bytes > MIB:
            raise ConfigError("frame_bytes must not be above 1 MiB: rust-libp2p would end the connection")
        if self.inbound_max > self.streams_max:
            raise ConfigError("inbound_max must not be above streams_max")
