"""The native connections of a simulated peer: taking them, and dialling for ever. (core)"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from air.sim.mender import REPAIR, Mender
from air.sim.native import GRAPH, SimGraph
from air.sim.network import End
from air.sim.session import Keys, SimSession, SimStream

if TYPE_CHECKING:
    from air.sim.air_peer import AirPeer

__all__ = ["Lines"]

_LOOK_SECONDS: Final = 0.25
"""How often a dialler that needs no link looks whether it does."""


class Lines:
    """Connections, links and comparisons of one process."""

    def __init__(self, peer: AirPeer, keys: Keys) -> None:
        self._peer, self._keys, self._epoch = peer, keys, peer.epoch
        self.mender = Mender(peer)
        self.graph = SimGraph(peer, keys, self.mender.met)
        self._sessions: list[SimSession] = []
        self._carried: dict[int, SimSession] = {}
        """Dialled lines that have a link -> its connection."""

    @property
    def _alive(self) -> bool:
        return self._peer.up and self._epoch == self._peer.epoch

    def _target(self, line: int) -> Keys:
        keys = self._peer.world.keys[self._peer.plan.dials[line]]
        assert keys is not None
        return keys

    def linked(self, line: int) -> bool:
        """There is a link to the peer that this line leads to, whoever opened it."""
        carried = self._carried.get(line)
        if carried is not None and carried.open:
            return True
        return self._peer.plan.speaks_native(line) and self.graph.linked(self._target(line).name)

    def accept(self, end: End) -> SimSession:
        return self._session(end, None)

    def dial(self, line: int) -> None:
        """As ``GraphSync.dial``: over the connection there is, and not while the other side has linked."""
        if not self._alive:
            return
        peer, keys = self._peer, self._target(line)
        if self.graph.linked(keys.name):
            peer.world.scheduler.after(_LOOK_SECONDS, self.dial, line)
            return
        for session in self._sessions:
            if session.open and session.ready and session.peer == keys.identity.peer_id:
                self._begin(session, line)
                return
        peer.world.network.dial(
            peer.index,
            peer.plan.dials[line],
            partial(self._opened, line),
            partial(peer.later, peer.epoch, line),
            "native",
        )

    def _opened(self, line: int, end: End) -> None:
        if self._alive:
            self._session(end, line)
        else:
            end.close()

    def _session(self, end: End, line: int | None) -> SimSession:
        peer, dialer = self._peer, line is not None
        other = peer.world.keys[end.remote]
        assert other is not None
        expected = other.identity.peer_id
        noise = None
        if peer.plan.noise:
            noise = self._keys.core(dialer=dialer, clock=peer.clock, expected=expected if dialer else None)
        self._sessions = [session for session in self._sessions if session.open]

        def began(session: SimSession) -> None:
            if line is not None and self._alive:
                self._begin(session, line)

        def over(session: SimSession) -> None:
            if line is not None and not session.ready and self._alive:
                peer.later(self._epoch, line)

        session = SimSession(
            peer.world, peer.clock, end, expected, self._serve, began, over, dialer=dialer, noise=noise
        )
        self._sessions.append(session)
        return session

    def _serve(self, stream: SimStream, first: bytes) -> None:
        if first[:1] == GRAPH:
            self.graph.carry(stream, str(stream.peer))
        elif first[:1] == REPAIR:
            self.mender.serve(stream)
        else:
            stream.reset()
            return
        if len(first) > 1:
            stream.arrived(first[1:])

    def _begin(self, session: SimSession, line: int) -> None:
        """Open the stream of a link that this side dials."""
        stream = session.open_stream(GRAPH)
        if stream is None:
            self._peer.later(self._epoch, line)
            return
        self._carried[line] = session
        session.began = self._peer.world.scheduler.time
        self.graph.carry(stream, f"peer-{self._peer.plan.dials[line]}")

    def over(self, session: SimSession) -> None:
        """A link that this side dialled has ended."""
        for line, other in list(self._carried.items()):
            if other is session:
                del self._carried[line]
                self._peer.lost(line, session.began)
                return
