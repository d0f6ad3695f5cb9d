"""TLS around a TCP stream: contexts from files, handshakes with a deadline. (shell)"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ByteStream as AnyioStream
from anyio.streams.tls import TLSStream

from air.base.errors import Closed, ConfigError, Reset
from air.transport.tcp import TcpStream

__all__ = ["client_context", "secure_client", "secure_server", "server_context"]


def server_context(certificate: Path, key: Path, *, client_ca: Path | None = None) -> ssl.SSLContext:
    """What a server shows: a certificate chain and its key, both PEM.

    With ``client_ca`` only clients with a certificate from it are let in.
    Raises ConfigError with code ``tls.bad-files``.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"no usable certificate in {certificate} with {key}: {error}", code="tls.bad-files"
        ) from error
    return _common(context)


def client_context(
    *, ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """What a client trusts: the authorities of this machine, or those in ``ca`` alone.

    Raises ConfigError with code ``tls.bad-files``.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"no usable certificate in {ca or certificate}: {error}", code="tls.bad-files"
        ) from error
    return _common(context)


async def secure_server(stream: TcpStream, context: ssl.SSLContext, *, timeout: float) -> TcpStream:
    """Answer a TLS handshake. Raises Reset with code ``tls.handshake`` or ``tls.handshake-slow``, Closed with
    the former when the peer left."""
    return await _secure(stream, context, None, timeout)


async def secure_client(
    stream: TcpStream, context: ssl.SSLContext, hostname: str, *, timeout: float
) -> TcpStream:
    """Begin a TLS handshake with ``hostname``. Raises as ``secure_server`` does."""
    return await _secure(stream, context, hostname, timeout)


class _Turns(AnyioStream):
    """The stream below TLS. The reader writes too, when the peer asks for new keys, and perhaps while the
    writer is at work: each piece gets its turn, in the order in which TLS made them."""

    def __init__(self, below: AnyioStream) -> None:
        self._below = below
        self._lock = anyio.Lock(fast_acquire=True)
        self._due: list[bytes] = []

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._below.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        # A reader that is cancelled while it waits leaves its piece to whoever is next.
        self._due.append(item)
        async with self._lock:
            while self._due:
                due, self._due = self._due, []
                await self._below.send(due[0] if len(due) == 1 else b"".join(due))

    async def send_eof(self) -> None:
        await self._below.send_eof()

    async def aclose(self) -> None:
        await self._below.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._below.extra_attributes


class _TlsStream(TcpStream):
    """The same over TLS, where a side that ends ends both."""

    __slots__ = ()

    async def send_eof(self) -> None:
        return


async def _secure(
    stream: TcpStream, context: ssl.SSLContext, hostname: str | None, timeout: float
) -> TcpStream:
    try:
        with anyio.fail_after(timeout):
            # WebSocket and HTTP say themselves where they end, and half the world never sends the closing
            # alert; waiting for one would only make every close slow.
            inner = await TLSStream.wrap(
                _Turns(stream.inner),
                server_side=hostname is None,
                hostname=hostname,
                ssl_context=context,
                standard_compatible=False,
            )
    except TimeoutError:
        raise Reset(f"no TLS handshake within {timeout} seconds", code="tls.handshake-slow") from None
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        raise Closed("the peer left during the TLS handshake", code="tls.handshake") from None
    except (OSError, ValueError) as error:
        raise Reset(f"the TLS handshake failed: {error}", code="tls.handshake") from error
    return _TlsStream(inner, stream.remote)


def _common(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # WebSocket needs HTTP/1.1; a client that may choose HTTP/2 would otherwise do so.
    context.set_alpn_protocols(["http/1.1"])
    return context
