"""What everything above the security floor may expect of a secured connection. (core)"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from air.base.env import Env
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.base.public_key import PublicKey
from air.transport.api import ByteStream, Piece

__all__ = ["SecureConn", "Security"]


class SecureConn(ByteStream, Protocol):
    """A ByteStream to a peer that has proven who it is."""

    @property
    def peer(self) -> PeerId:
        """Who is on the other side."""
        ...

    @property
    def key(self) -> PublicKey:
        """The public key that proves it."""
        ...

    @property
    def muxer(self) -> str | None:
        """The muxer chosen along with the handshake; None: agree on one with multistream."""
        ...

    async def send_many(self, pieces: Iterable[Piece], /) -> None:
        """Send all pieces, one behind the other, as one write. Large ones are not copied together first."""
        ...


class Security(Protocol):
    """A way to secure a connection, complete with its limits.

    It may also have ``prepare(identity, muxers, env)``, without a result: a node calls that once when it is
    put together, with what ``secure`` will be given, so that the first connection need not wait for it.
    """

    @property
    def protocol(self) -> str:
        """What multistream-select calls it, such as ``/noise``."""
        ...

    async def secure(
        self,
        conn: ByteStream,
        /,
        *,
        identity: Identity,
        dialer: bool,
        expected: PeerId | None = None,
        muxers: Sequence[str] = (),
        env: Env,
    ) -> SecureConn:
        """Prove who we are and have the peer do the same.

        ``dialer`` is true on the side that opened the connection. ``expected`` is the only peer accepted.
        ``muxers``, best first, may be offered along with the handshake.

        A dialer's last message may still wait in the result: it leaves with the first ``send`` or before the
        first ``receive``, so that it shares a packet with what follows.

        Raises Violation when the peer's proof is wrong or late, Denied ``security.wrong-peer`` when another
        peer answers, Closed or Reset when the connection ended. ``conn`` is then closed: nothing is said,
        because there is nobody yet to say it to.
        """
        ...
