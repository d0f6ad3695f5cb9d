"""TLS as a Security. (shell)"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto

from air.base.env import Env
from air.base.errors import Closed, Reset
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.base.public_key import PublicKey
from air.security.api import SecureConn
from air.security.handshake import handshaking
from air.security.tls.certificate import make_certificate
from air.security.tls.core import ALPN, Authenticated, Ended, Event, TlsCore
from air.transport.api import ByteStream, Piece

__all__ = ["Tls", "TlsConfig", "TlsConn"]

_READ_BYTES = 256 * 1024
_WRITE_BYTES = 64 * 1024
"""Encrypted before it is handed to the transport."""


@dataclass(frozen=True, slots=True)
class TlsConfig:
    timeout_seconds: float = 10.0
    """From the first byte we send or wait for until both sides are known."""


class Tls:
    """The Security ``/tls/1.0.0``. One object serves all connections of a node, with one certificate."""

    protocol = "/tls/1.0.0"

    def __init__(self, config: TlsConfig | None = None) -> None:
        self.config = config or TlsConfig()
        self._bound: tuple[Identity, ec.EllipticCurvePrivateKey, bytes] | None = None
        self._contexts: dict[tuple[str, ...], SSL.Context] = {}

    def prepare(self, identity: Identity, muxers: Sequence[str], env: Env) -> None:
        """Make the certificate now rather than during the first handshake."""
        self._context(identity, tuple(muxers), env)

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
        """See :class:`air.security.api.Security`."""
        core = TlsCore(
            self._context(identity, tuple(muxers), env),
            dialer=dialer,
            now=env.clock.now(),
            seconds=self.config.timeout_seconds,
            expected=expected,
        )
        async with handshaking(conn, self.config.timeout_seconds, "tls.timeout"):
            return await _handshake(conn, core, env)

    def _context(self, identity: Identity, muxers: tuple[str, ...], env: Env) -> SSL.Context:
        """What OpenSSL needs to know, made once per identity and list of muxers."""
        if self._bound is None or self._bound[0] is not identity:
            key = ec.generate_private_key(ec.SECP256R1())
            serial = env.entropy.bits(63) | 1
            self._bound = (identity, key, make_certificate(identity, key, serial, env.clock.now()))
            self._contexts.clear()
        found = self._contexts.get(muxers)
        if found is None:
            # A node offers one list of muxers, so the map does not grow.
            found = self._contexts[muxers] = _context(self._bound[1], self._bound[2], muxers)
        return found


class TlsConn:
    """A SecureConn. One task may receive while another sends."""

    __slots__ = ("_conn", "_core", "_env", "_over", "_waiting", "key", "muxer", "peer")

    peer: PeerId
    key: PublicKey
    muxer: str | None

    def __init__(self, conn: ByteStream, core: TlsCore, env: Env, events: Iterable[Event]) -> None:
        self._conn, self._core, self._env = conn, core, env
        who, *rest = events
        assert isinstance(who, Authenticated)
        self.peer, self.key, self.muxer = who
        self._over = False
        self._waiting: deque[bytes] = deque()
        """Decrypted and not yet delivered."""
        self._take(rest)

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        while not self._waiting:
            if self._over:
                raise Closed("the peer ended the stream")
            if self._core.error is not None:
                raise self._core.error
            try:
                data = await self._conn.receive(_READ_BYTES)
            except Closed as error:
                if type(error) is Closed:
                    self._core.receive_eof(self._env.clock.now())
                raise
            self._take(self._core.receive(data, self._env.clock.now()))
        first = self._waiting.popleft()
        if len(first) > max_bytes:
            self._waiting.appendleft(first[max_bytes:])
            return first[:max_bytes]
        parts, size = [first], len(first)
        while self._waiting and size + len(self._waiting[0]) <= max_bytes:
            parts.append(self._waiting.popleft())
            size += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def send(self, data: bytes, /) -> None:
        view = memoryview(data)
        for start in range(0, len(data), _WRITE_BYTES):
            self._core.send((view[start : start + _WRITE_BYTES],))
            await self._flush()

    async def send_many(self, pieces: Iterable[Piece], /) -> None:
        # Small pieces share a record; OpenSSL copies everything in any case.
        await self.send(b"".join(pieces))

    async def send_eof(self) -> None:
        self._core.send_eof()
        await self._flush()
        # js- and py-libp2p take no notice of TLS's own goodbye and would stay until we give up on them.
        await self._conn.send_eof()

    async def aclose(self) -> None:
        await self._conn.aclose()

    async def _flush(self) -> None:
        output = self._core.take_output()
        if output:
            await self._conn.send(output[0] if len(output) == 1 else b"".join(output))

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, bytes):
                self._waiting.append(event)
            elif isinstance(event, Ended):
                self._over = True


async def _handshake(conn: ByteStream, core: TlsCore, env: Env) -> TlsConn:
    events: Sequence[Event] = ()
    while True:
        output = core.take_output()
        if output:
            await conn.send(b"".join(output))
        if events:
            return TlsConn(conn, core, env, events)
        try:
            data = await conn.receive()
        except Reset:
            raise
        except Closed:
            core.receive_eof(env.clock.now())
            raise
        events = core.receive(data, env.clock.now())


def _may_go_on(conn: SSL.Connection, certificate: crypto.X509, error: int, depth: int, good: int) -> bool:
    """OpenSSL finds fault with any certificate. Both sides show one; whether it is good, the core decides.

    A chain behind it ends here: to check the signatures in 55 KB of chosen certificates takes OpenSSL 0.3 s.
    """
    return depth == 0


def _context(key: ec.EllipticCurvePrivateKey, certificate: bytes, muxers: tuple[str, ...]) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    # A resumed session would come without a certificate.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    context.use_certificate(x509.load_der_x509_certificate(certificate))
    context.use_privatekey(key)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _may_go_on)
    ours = [name.encode() for name in (*muxers, ALPN)]
    context.set_alpn_protos(ours)
    # As go-libp2p does: the first of the dialer's list that the listener has.
    context.set_alpn_select_callback(lambda _, theirs: next((name for name in theirs if name in ours), b""))
    return context
