"""TLS on one connection: bytes in, bytes and events out. (core)

OpenSSL does the work between two memory buffers. It is told to accept any certificate, because none would
pass the usual rules; what is in it is judged here, before anything is sent or delivered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from OpenSSL import SSL, crypto

from air.base.clock import Now
from air.base.errors import Denied, Misuse, Reset, Violation
from air.base.peer_id import PeerId
from air.base.public_key import PublicKey
from air.security.tls.certificate import judge_certificate
from air.transport.api import Piece

__all__ = ["ALPN", "Authenticated", "Ended", "TlsCore"]

ALPN: Final = "libp2p"
"""What both sides say when the muxer is to be agreed on later."""

_TAKE_BYTES: Final = 64 * 1024
_HANDSHAKE_BYTES_MAX: Final = 64 * 1024
"""Bytes of the peer before the handshake is over; more are refused. An RSA peer needs about 6000."""
_ANSWER_BYTES_MAX: Final = 1024
"""Answers to the peer's key updates that wait for the next bytes we send: about 40. OpenSSL makes one for
each of them, and an honest peer does not come to a second before 2**24 records."""


class Authenticated(NamedTuple):
    """The peer is who it says it is. Comes once, before any data."""

    peer: PeerId
    key: PublicKey
    muxer: str | None


class Ended(NamedTuple):
    """The peer has said that it sends nothing more."""


Event = Authenticated | Ended | bytes


class TlsCore:
    """One connection. An error ends it, and what comes afterwards is refused."""

    __slots__ = (
        "_answers",
        "_budget",
        "_dialer",
        "_ended",
        "_error",
        "_expected",
        "_known",
        "_out",
        "_tls",
        "deadline",
    )

    def __init__(
        self, context: SSL.Context, *, dialer: bool, now: Now, seconds: float, expected: PeerId | None = None
    ) -> None:
        """``context`` has certificate, key, ALPN and verification set. ``seconds`` limits the handshake."""
        self._tls = SSL.Connection(context, None)
        self._dialer, self._expected = dialer, expected
        self._known = self._ended = False
        self._error: Exception | None = None
        self._budget = _HANDSHAKE_BYTES_MAX
        self._out: list[bytes] = []
        self._answers = 0
        """Bytes of what waits to be sent that nobody but the peer has caused."""
        self.deadline: float | None = now.monotonic + seconds
        if dialer:
            self._tls.set_connect_state()
            self._step(now)
        else:
            self._tls.set_accept_state()

    @property
    def error(self) -> Exception | None:
        """What ended the receiving direction after the handshake."""
        return self._error if self._known else None

    def receive(self, data: bytes, now: Now, /) -> Sequence[Event]:
        """Take bytes of the peer.

        While the handshake runs, raises Violation ``tls.handshake``, ``tls.no-alpn`` and the codes of
        :func:`judge_certificate`, and Denied ``security.wrong-peer``. Later a bad record, or too many changes
        of the key, sets ``error``, ``tls.record``: the good ones before it are returned, and the next call
        raises it.
        """
        if self._error is not None:
            raise self._error
        events: list[Event] = []
        if not self._known:
            # Data may stand behind the handshake in the same bytes, and it is not what the limit is for.
            head, data = data[: self._budget], data[self._budget :]
            self._budget -= len(head)
            self._write(head)
            known = self._step(now)
            if known is None:
                if not self._budget:
                    raise self._fail(Violation("an endless handshake", code="tls.handshake", fatal=True))
                return ()
            events.append(known)
        self._write(data)
        try:
            while not self._ended:
                events.append(self._tls.recv(_TAKE_BYTES))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self._ended = True
            events.append(Ended())
        except SSL.Error as error:
            self._error = Violation(f"a bad record: {_why(error)}", code="tls.record", fatal=True)
        self._answers += self._collect()
        if self._answers > _ANSWER_BYTES_MAX and self._error is None:
            self._error = Violation("endless changes of the key", code="tls.record", fatal=True)
        return events

    def receive_eof(self, now: Now, /) -> Sequence[Event]:
        """The stream has ended. Raises Violation ``tls.handshake`` before the peer was known.

        Later it is an end like any other: implementations often leave without the goodbye of TLS, and whether
        all has arrived, the muxer knows.
        """
        if self._error is not None:
            raise self._error
        if not self._known:
            raise self._fail(
                Violation("the peer left during the handshake", code="tls.handshake", fatal=True)
            )
        return ()

    def tick(self, now: Now, /) -> Sequence[Event]:
        """Raises Violation ``tls.timeout`` when the time for the handshake is over."""
        if self.deadline is not None and now.monotonic >= self.deadline:
            raise self._fail(Violation("the handshake took too long", code="tls.timeout", fatal=True))
        return ()

    def send(self, pieces: Iterable[Piece]) -> None:
        """Encrypt. Raises Misuse before the peer is known, Reset after an error or our own end."""
        if not self._known:
            raise Misuse("the peer is not known yet", code="tls.early")
        try:
            for piece in pieces:
                if len(piece):
                    # Written record by record; the buffer behind grows as needed.
                    self._tls.sendall(piece)
        except SSL.Error:
            # A bad record or an alert of the peer ends both directions.
            raise Reset(f"nothing can be sent any more: {self._error or 'the end was said'}") from None
        self._collect()

    def send_eof(self) -> None:
        """Say that nothing more is sent; receiving goes on."""
        try:
            self._tls.shutdown()
        except SSL.Error:
            return
        self._collect()

    def take_output(self) -> list[bytes]:
        """What has to be sent."""
        out, self._out, self._answers = self._out, [], 0
        return out

    def _collect(self) -> int:
        """Take what OpenSSL has made to be sent; how many bytes."""
        size = 0
        try:
            while True:
                made = self._tls.bio_read(_TAKE_BYTES)
                self._out.append(made)
                size += len(made)
        except SSL.Error:
            return size

    def _write(self, data: bytes) -> None:
        if data:
            self._tls.bio_write(data)

    def _step(self, now: Now) -> Authenticated | None:
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            self._collect()
            return None
        except SSL.Error as error:
            raise self._fail(
                Violation(f"the handshake failed: {_why(error)}", code="tls.handshake", fatal=True)
            ) from None
        certificate = self._tls.get_peer_certificate()
        chain = self._tls.get_peer_cert_chain() or []
        # At the listener OpenSSL leaves the peer's own certificate out of the chain.
        if certificate is None or len(chain) > int(self._dialer):
            raise self._fail(Violation("not exactly one certificate", code="tls.bad-certificate", fatal=True))
        try:
            owner = judge_certificate(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate), now)
        except Violation as error:
            raise self._fail(error) from None
        if self._expected is not None and owner.peer != self._expected:
            raise self._fail(
                Denied(f"{owner.peer} answers instead of {self._expected}", code="security.wrong-peer")
            )
        chosen = self._tls.get_alpn_proto_negotiated().decode(errors="replace")
        if not chosen:
            raise self._fail(Violation("no common protocol", code="tls.no-alpn", fatal=True))
        self._collect()
        self._known, self.deadline = True, None
        return Authenticated(owner.peer, owner.key, None if chosen == ALPN else chosen)

    def _fail(self, error: Exception) -> Exception:
        self._error, self.deadline = error, None
        self._out.clear()
        return error


def _why(error: SSL.Error) -> str:
    """OpenSSL's own words: the last entries of (library, function, reason)."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else ()
    return ", ".join(str(entry[-1]) for entry in entries) or str(error) or type(error).__name__
