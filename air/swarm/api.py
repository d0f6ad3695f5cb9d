"""What a node is extended with, and what an extension may ask of the node. (core)"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from air.base.address import Multiaddr
from air.base.env import Env
from air.base.keys import Identity
from air.base.metrics import Counters
from air.base.peer_id import PeerId

if TYPE_CHECKING:
    from air.swarm.events import EventWatch
    from air.swarm.peerbook import PeerBook, Source
    from air.swarm.score import Scores
    from air.swarm.session import Session
    from air.swarm.stream import Stream

__all__ = ["Host", "Service", "SessionHook", "StreamHandler"]

StreamHandler = Callable[["Stream"], Awaitable[None]]
"""Serves one inbound stream. When it returns the stream is closed, when it raises it is reset: with a code
that says "violation" after Violation, "resource limit" after LimitReached."""

SessionHook = Callable[["Session"], Awaitable[None]]
"""Runs in a task of a session from its beginning; cancelled with its end."""


class Host(Protocol):
    """A running node, as its services see it."""

    @property
    def identity(self) -> Identity: ...

    @property
    def peer(self) -> PeerId:
        """This peer's name."""
        ...

    @property
    def env(self) -> Env: ...

    @property
    def counters(self) -> Counters: ...

    @property
    def peerbook(self) -> PeerBook: ...

    @property
    def scores(self) -> Scores: ...

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        """Where others may dial this peer, without its name: what is announced."""
        ...

    @property
    def protocols(self) -> tuple[str, ...]:
        """Protocols with a handler, sorted."""
        ...

    @property
    def sessions(self) -> tuple[Session, ...]:
        """All sessions, the oldest first."""
        ...

    def session(self, peer: PeerId) -> Session | None:
        """The session that new streams to ``peer`` use; None when there is none."""
        ...

    async def dial(self, target: PeerId | Multiaddr | str, addresses: Iterable[Multiaddr] = ()) -> Session:
        """A session with a peer: the one there is, or a new one.

        ``target`` is a peer, dialled at ``addresses`` and those in the peer book, or an address. Raises
        Unreachable with every attempt and its reason, a limit of this node among them; Denied; Closed when
        the node does not run, or ends; and Violation for a text that is neither.
        """
        ...

    async def open_stream(self, peer: PeerId, protocols: str | Sequence[str]) -> Stream:
        """A new stream to ``peer``, dialled if need be. Raises as ``dial`` and ``Session.open_stream``."""
        ...

    def discovered(self, peer: PeerId, addresses: Iterable[Multiaddr], source: Source) -> None:
        """Addresses of a peer came up: remember them, and tell watchers of events when the peer is new."""
        ...

    def events(self) -> EventWatch:
        """What happens to peers from now on."""
        ...

    def handle(self, protocol: str, handler: StreamHandler, /) -> AbstractContextManager[Any]:
        """Serve a protocol inside a ``with`` block."""
        ...

    def attend(self, hook: SessionHook, /) -> AbstractContextManager[Any]:
        """Run ``hook`` for every session that begins inside a ``with`` block."""
        ...


class Service(Protocol):
    """Something that runs on a node for as long as the node does."""

    @property
    def handlers(self) -> Mapping[str, StreamHandler]:
        """Protocol -> who serves it. May be empty."""
        ...

    async def run(self, host: Host, *, task_status: Any) -> None:
        """Work until cancelled. Calls ``task_status.started()`` when ready, and may return after that."""
        ...
