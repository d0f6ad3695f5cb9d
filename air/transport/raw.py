"""Transports as the swarm sees them: what dials and listens, and what comes of it. (core)

Structural types: a transport of another package imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from air.base.address import Multiaddr
from air.transport.api import ByteStream

__all__ = ["ConnHandler", "RawConn", "RawListener", "Transport"]


class RawConn(ByteStream, Protocol):
    """A connection that is neither secured nor multiplexed."""

    @property
    def local_address(self) -> Multiaddr | None:
        """This end, as far as it is known."""
        ...

    @property
    def remote_address(self) -> Multiaddr:
        """The other end, without a peer's name: what was dialled, or where the connection came from."""
        ...


ConnHandler = Callable[[RawConn], Awaitable[None]]
"""Serves one accepted connection; when it returns or raises, the connection is closed."""


class RawListener(Protocol):
    """Something that accepts connections."""

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        """Where it listens, with the ports that were picked; ``0.0.0.0`` stays as it is."""
        ...

    async def serve(self, handler: ConnHandler, /) -> None:
        """Accept until ``close`` or cancellation, each connection in a task of its own."""
        ...

    def close(self) -> None:
        """Accept nothing more. Open connections go on, and ``serve`` returns when the last one has ended."""
        ...


class Transport(Protocol):
    """A way of carrying bytes between machines."""

    def handles(self, address: Multiaddr, /) -> bool:
        """Whether ``dial`` and ``listen`` understand this address, with a peer at its end or without."""
        ...

    async def dial(self, address: Multiaddr, /) -> RawConn:
        """Connect. Raises Unreachable. Nothing stays open when it is cancelled."""
        ...

    def listen(self, address: Multiaddr, /) -> AbstractAsyncContextManager[RawListener]:
        """Listen inside a block. Raises ConfigError with a code such as ``tcp.cannot-listen``."""
        ...
