"""The limits and deadlines of a WebSocket. (core)"""

from __future__ import annotations

from dataclasses import dataclass

from air.base.errors import ConfigError

__all__ = ["KIB", "MIB", "WebSocketConfig"]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class WebSocketConfig:
    paths: frozenset[str] = frozenset({"/gun"})
    """Where an upgrade is accepted, without its query; elsewhere the answer is 400 (gun-wire 1.1)."""
    origins: frozenset[str] | None = None
    """Pages that may connect, as browsers spell their origin (``https://host``, ``null``); None means any, as
    GUN has it. Programs that are no browsers send no origin and are let in: they could send any other."""
    frame_bytes_max: int = 32 * MIB
    """Longest text message taken, all its fragments together."""
    fragments_max: int = 4096
    """Most fragments of one message. Browsers cut at 64 KiB and more; the library has no limit of its own."""
    idle_frames_max: int = 5_000
    """Frames without use within ``idle_seconds``: pings, pongs, binary messages (one more for each KiB) and
    fragments below 1 KiB. More end the connection: ``ws.idle-flood``."""
    idle_seconds: float = 10.0
    """The time in which such frames are counted."""
    handshakes_max: int = 1024
    """Connections in their handshake at a time. One more, and the oldest of them is cut:
    ``ws.handshake-crowded``. So connections that never finish theirs cannot keep others out."""
    header_bytes_max: int = 16 * KIB
    """Longest head of a request or answer."""
    handshake_seconds: float = 10.0
    """From the first byte possible to a complete request, TLS not included (which has the same again)."""
    ping_seconds: float = 30.0
    """Silence before the peer is pinged, and between further pings."""
    dead_seconds: float = 75.0
    """Silence, although pinged, after which the peer is taken for dead."""
    close_seconds: float = 3.0
    """How long a goodbye may take, and how long the end of a refused peer is awaited."""
    close_reads: int = 16
    """Reads of ``receive_bytes`` in which the peer's answer to our goodbye should come. What comes later is
    thrown away unseen, and slowly."""
    write_seconds: float = 30.0
    """How long the peer may take nothing of what is written before it is cut."""
    write_bytes: int = 256 * KIB
    """What is written in one piece; the write deadline applies to each piece."""
    pending_bytes_max: int = 64 * KIB
    """Pongs waiting behind a write; beyond it reading waits too."""
    receive_bytes: int = 64 * KIB
    """What is read at most in one piece."""
    sweep_seconds: float = 1.0
    """How often a listener looks for connections whose deadline has passed."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, int | float) and not value > 0:
                raise ConfigError(f"{name} must be greater than 0, not {value}")
        if self.dead_seconds <= self.ping_seconds:
            raise ConfigError("dead_seconds must be greater than ping_seconds, or nobody is ever pinged")
