"""The limits and times of yamux. (core)"""

from __future__ import annotations

from dataclasses import dataclass

from air.base.errors import ConfigError
from air.mux.limits import KIB, MIB, MuxLimits
from air.mux.yamux.frame import CREDIT_MAX, WINDOW_BYTES

__all__ = ["KIB", "MIB", "YamuxConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class YamuxConfig(MuxLimits):
    """What both protocols need, and the windows and pings of this one."""

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
    ping_seconds: float = 30.0
    """Time between pings, which measure the round trip and keep the connection alive. One is sent at once."""
    answer_seconds: float = 10.0
    """Silence after a ping that ends the connection."""
    pongs_max: int = 32
    """Answers to pings that wait to be written; further pings are not answered."""

    def __post_init__(self) -> None:
        MuxLimits.__post_init__(self)
        if not WINDOW_BYTES <= self.window_bytes <= self.window_bytes_max <= CREDIT_MAX:
            raise ConfigError(f"{WINDOW_BYTES} <= window_bytes <= window_bytes_max < 2**32 does not hold")
        if self.frame_bytes > MIB:
            raise ConfigError("frame_bytes must not be above 1 MiB: rust-libp2p would end the connection")
