"""``/plaintext/2.0.0``: each side says who it is, and nobody proves anything. For tests only. (shell)

Source: libp2p plaintext.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.message import DecodeError

from air.base.env import Env
from air.base.errors import AirError, Closed, Denied, Reset, Violation
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.base.public_key import PublicKey
from air.codec.frame import FrameReader, encode_frame
from air.pb import plaintext_pb2 as pb
from air.security.api import SecureConn
from air.security.handshake import handshaking
from air.transport.api import ByteStream, Piece, can_send_now

__all__ = ["Plaintext", "PlaintextConn"]

_EXCHANGE_BYTES_MAX = 4 * 1024


class Plaintext:
    """The Security ``/plaintext/2.0.0``. Whoever can reach the socket can be anybody."""

    protocol = "/plaintext/2.0.0"

    def __init__(self, timeout_seconds: float = 10.0) -> None:
        self._timeout = timeout_seconds

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
        """See :class:`air.security.api.Security`. Codes: ``plaintext.malformed``, ``plaintext.timeout``."""
        own = pb.Exchange(id=identity.peer_id.multihash, pubkey=identity.public_key.to_bytes())
        async with handshaking(conn, self._timeout, "plaintext.timeout"):
            await conn.send(encode_frame(own.SerializeToString()))
            peer, key, rest = await _read(conn)
            if expected is not None and peer != expected:
                raise Denied(f"{peer} answers instead of {expected}", code="security.wrong-peer")
        return PlaintextConn(conn, peer, key, rest)


class PlaintextConn:
    """A SecureConn that secures nothing."""

    __slots__ = ("_conn", "_rest", "key", "muxer", "peer")

    def __init__(self, conn: ByteStream, peer: PeerId, key: PublicKey, rest: bytes) -> None:
        self._conn, self.peer, self.key, self._rest = conn, peer, key, rest
        self.muxer: str | None = None

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        if not self._rest:
            return await self._conn.receive(max_bytes)
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return data

    async def send(self, data: bytes, /) -> None:
        await self._conn.send(data)

    async def send_many(self, pieces: Iterable[Piece], /) -> None:
        await self._conn.send(b"".join(pieces))

    @property
    def can_send_now(self) -> bool:
        return can_send_now(self._conn)

    def send_now(self, pieces: Iterable[Piece], /) -> None:
        self._conn.send_now([b"".join(pieces)])  # type: ignore[attr-defined]

    async def send_eof(self) -> None:
        await self._conn.send_eof()

    async def aclose(self) -> None:
        await self._conn.aclose()


async def _read(conn: ByteStream) -> tuple[PeerId, PublicKey, bytes]:
    reader = FrameReader(_EXCHANGE_BYTES_MAX, frames_max=1)
    frames: list[bytes] = []
    try:
        while not frames:
            frames = reader.receive(await conn.receive())
        found = pb.Exchange.FromString(frames[0])
        key, peer = PublicKey.from_bytes(found.pubkey), PeerId.from_bytes(found.id)
    except Reset:
        raise
    except (DecodeError, Violation) as error:
        why = error.message if isinstance(error, AirError) else "unreadable"
        raise Violation(f"not an exchange of names: {why}", code="plaintext.malformed", fatal=True) from None
    except Closed:
        raise Violation("the peer left without a name", code="plaintext.malformed", fatal=True) from None
    if not peer.matches(key):
        raise Violation("a name that is not the key's", code="plaintext.malformed", fatal=True)
    return peer, key, reader.take_rest()
