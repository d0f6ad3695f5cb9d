"""The life of a connection in eight words, and which may follow which. (core)"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from air.base.clock import Now
from air.base.errors import Misuse
from air.base.peer_id import PeerId

__all__ = ["Lifecycle", "PeerEvent", "Stage"]


class Stage(StrEnum):
    """Where a peer or a connection with it stands."""

    DISCOVERED = "discovered"
    """An address of a peer that was not known came up. There is no connection."""
    CONNECTING = "connecting"
    """An address is being dialled."""
    HANDSHAKING = "handshaking"
    """The transport is open; security and muxer are being agreed."""
    AUTHENTICATED = "authenticated"
    """The peer has proved its name, and the connection carries streams."""
    ACTIVE = "active"
    """Streams are open."""
    IDLE = "idle"
    """No stream has been open for a while."""
    LOST = "lost"
    """It was cut: by the network, by the peer without a goodbye, or for breaking a rule."""
    CLOSED = "closed"
    """The end; ``reason`` is a code."""


@dataclass(frozen=True, slots=True)
class PeerEvent:
    """One step in the life of a peer, as watchers see it."""

    stage: Stage
    at: Now
    peer: PeerId | None
    """None while it is not known who that is."""
    connection: int = 0
    """Number of the connection within this node, from 1; 0 for a peer without one."""
    address: str = ""
    """Multiaddr of the other side, as far as it is known."""
    inbound: bool = False
    """Whether the other side dialled."""
    reason: str = ""
    """The code of an error with LOST and CLOSED; ``link.closed`` when all was well."""


_NEXT: Final[dict[Stage | None, frozenset[Stage]]] = {
    None: frozenset({Stage.CONNECTING, Stage.HANDSHAKING}),
    Stage.CONNECTING: frozenset({Stage.HANDSHAKING, Stage.CLOSED}),
    Stage.HANDSHAKING: frozenset({Stage.AUTHENTICATED, Stage.CLOSED}),
    Stage.AUTHENTICATED: frozenset({Stage.ACTIVE, Stage.IDLE, Stage.LOST, Stage.CLOSED}),
    Stage.ACTIVE: frozenset({Stage.IDLE, Stage.LOST, Stage.CLOSED}),
    Stage.IDLE: frozenset({Stage.ACTIVE, Stage.LOST, Stage.CLOSED}),
    Stage.LOST: frozenset({Stage.CLOSED}),
    Stage.CLOSED: frozenset(),
}


class Lifecycle:
    """Follows one connection. Stages only come in an order that makes sense, and CLOSED comes once."""

    __slots__ = ("_address", "_idle_since", "_inbound", "_peer", "number", "stage")

    def __init__(self, number: int, address: str, *, inbound: bool, peer: PeerId | None = None) -> None:
        self.number, self._address, self._inbound, self._peer = number, address, inbound, peer
        self._idle_since: float | None = None
        self.stage: Stage | None = None

    def to(self, stage: Stage, now: Now, *, peer: PeerId | None = None, reason: str = "") -> PeerEvent:
        """Go on to ``stage``. Raises Misuse when it cannot follow."""
        if stage not in _NEXT[self.stage]:
            raise Misuse(f"{stage} does not follow {self.stage}")
        self.stage = stage
        if peer is not None:
            self._peer = peer
        return PeerEvent(stage, now, self._peer, self.number, self._address, self._inbound, reason)

    def observe(self, streams: int, idle_seconds: float, now: Now) -> PeerEvent | None:
        """Look at the number of open streams now and then; ACTIVE or IDLE when that has changed.

        Streams that come and go between two looks leave the connection as it is, so a busy connection
        does not shower watchers with events.
        """
        if streams:
            self._idle_since = None
            if self.stage in (Stage.AUTHENTICATED, Stage.IDLE):
                return self.to(Stage.ACTIVE, now)
        elif self.stage in (Stage.AUTHENTICATED, Stage.ACTIVE):
            if self._idle_since is None:
                self._idle_since = now.monotonic
            if now.monotonic - self._idle_since >= idle_seconds:
                return self.to(Stage.IDLE, now)
        return None

    def end(self, reason: str, now: Now, *, lost: bool) -> list[PeerEvent]:
        """The last events: LOST before CLOSED when it was cut. Nothing when it has ended before."""
        if self.stage is Stage.CLOSED or self.stage is None:
            return []
        events = []
        if lost and Stage.LOST in _NEXT[self.stage]:
            events.append(self.to(Stage.LOST, now, reason=reason))
        events.append(self.to(Stage.CLOSED, now, reason=reason))
        return events
