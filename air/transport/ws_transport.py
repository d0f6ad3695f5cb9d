"""WebSocket as a Transport: ``/ws``, ``/wss`` and ``/tls/ws``. (shell)"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote, unquote

import anyio

from air.base.address import Multiaddr
from air.base.clock import Clock, SystemClock
from air.base.errors import Closed, ConfigError, Reset, Unreachable
from air.base.metrics import Counters
from air.transport import tcp
from air.transport.api import ByteStream
from air.transport.http import plain, response_head
from air.transport.raw import ConnHandler, RawListener
from air.transport.resolve import Resolver
from air.transport.tcp_transport import HOSTS, connect_tcp, endpoint, socket_address, split_spelled
from air.transport.tls import client_context, secure_client, secure_server
from air.transport.websocket.binary import BinaryConfig, BinaryCore
from air.transport.websocket.config import WebSocketConfig
from air.transport.websocket.handshake import ClientHandshake, Refusal, ServerHandshake, http_date

__all__ = ["WebSocket", "WsConn"]

_FORMS = (("ws",), ("wss",), ("tls", "ws"), ("tls", "sni", "ws"))


class WsConn:
    """A ByteStream over a WebSocket. It has no half-close: ``send_eof`` says goodbye."""

    __slots__ = ("_config", "_core", "_lock", "_pieces", "_stream", "local_address", "remote_address")

    def __init__(
        self,
        stream: ByteStream,
        config: BinaryConfig,
        remote: Multiaddr,
        local: Multiaddr | None,
        early: bytes,
        *,
        client: bool,
    ) -> None:
        self._stream, self._config = stream, config
        self._core = BinaryCore(config, client=client)
        self._lock = anyio.Lock()
        self._pieces: deque[bytes] = deque()
        self.remote_address: Multiaddr = remote
        self.local_address: Multiaddr | None = local
        if early:
            # Who dials may speak right behind the handshake, in the same packet.
            self._pieces += self._core.receive(early)

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        pieces, core = self._pieces, self._core
        while not pieces:
            if core.ended is not None:
                raise core.error()
            try:
                data = await self._stream.receive(max(max_bytes, 4096))
            except Closed as error:
                if type(error) is not Closed:
                    raise
                core.receive_eof()
                raise core.error() from None
            pieces += core.receive(data)
            # A writer at work takes pongs along; waiting for it here could make two peers wait for ever.
            if core.has_output and not self._lock.locked():
                await self._answer()
        first = pieces.popleft()
        if len(first) > max_bytes:
            pieces.appendleft(first[max_bytes:])
            return first[:max_bytes]
        return first

    async def _answer(self) -> None:
        # A reader may be cancelled and a frame must not be cut in two. Nor may a peer that pings and takes no
        # answer hold the reader for ever.
        with anyio.move_on_after(self._config.answer_seconds, shield=True) as scope:
            await self._flush()
        if scope.cancelled_caught:
            self._core.abort("the peer sends pings and takes no answers", "ws.slow-reader")
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()

    async def send(self, data: bytes, /) -> None:
        self._core.send(data)
        await self._flush()

    async def send_eof(self) -> None:
        self._core.finish()
        await self._flush()

    async def aclose(self) -> None:
        self._core.close()
        try:
            with anyio.move_on_after(1.0, shield=True):
                if not self._lock.locked():
                    await self._flush()
        except Closed:
            pass
        finally:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()

    async def _flush(self) -> None:
        async with self._lock:
            while self._core.has_output:
                await self._stream.send(self._core.take_output())


class WebSocket:
    """The transport of ``…/tcp/PORT/ws`` and ``…/tcp/PORT/wss``, which is also written ``/tls/ws``."""

    def __init__(
        self,
        config: BinaryConfig | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        trust: ssl.SSLContext | None = None,
        tcp_config: tcp.TcpConfig | None = None,
        resolver: Resolver | None = None,
        clock: Clock | None = None,
        counters: Counters | None = None,
    ) -> None:
        """``tls`` is what a ``/wss`` listener shows; ``trust`` whom a dialler believes, by default the
        authorities of this machine."""
        self._config = BinaryConfig() if config is None else config
        self._tls, self._trust = tls, trust
        self._tcp = tcp_config or tcp.TcpConfig(connections_max=20_000, connections_per_host_max=20_000)
        self._resolver = Resolver() if resolver is None else resolver
        self._clock = SystemClock() if clock is None else clock
        self._counters = counters

    def __repr__(self) -> str:
        return "WebSocket()"

    def handles(self, address: Multiaddr, /) -> bool:
        names = address.names
        if len(names) < 3 or names[0] not in HOSTS or names[1] != "tcp":
            return False
        form = tuple(name for name in names[2:] if name not in ("http-path", "p2p"))
        return form in _FORMS

    async def dial(self, address: Multiaddr, /) -> WsConn:
        stream: ByteStream | None = None
        where = str(address)
        try:
            with anyio.fail_after(self._config.handshake_seconds):
                below, reached = await connect_tcp(address, self._resolver, self._config.handshake_seconds)
                stream = below
                local = socket_address(below)
                # One machine may serve many names: it is told the one that was dialled, not the IP address.
                host, port = endpoint(address)
                name = address.get("sni") or host
                secure = "tls" in reached.names or "wss" in reached.names
                if secure:
                    trust = client_context() if self._trust is None else self._trust
                    seconds = self._config.handshake_seconds
                    stream = await secure_client(below, trust, name, timeout=seconds)
                early = await self._ask(stream, _url(name, port, address, secure))
        except BaseException as error:
            if stream is not None:
                with anyio.CancelScope(shield=True):
                    await stream.aclose()
            if isinstance(error, TimeoutError):
                raise Unreachable(f"{where} did not answer", [(where, "ws.handshake-slow")]) from None
            if isinstance(error, Closed):
                raise Unreachable(f"{where} refused", [(where, f"{error.code}: {error}")]) from error
            raise
        return WsConn(stream, self._config, reached, local, early, client=True)

    async def _ask(self, stream: ByteStream, url: str) -> bytes:
        """Have the connection upgraded; returns what came behind the answer."""
        shake = ClientHandshake(url, WebSocketConfig(header_bytes_max=self._config.header_bytes_max))
        await stream.send(b"".join(shake.output))
        while True:
            done = shake.receive(await stream.receive())
            if isinstance(done, Refusal):
                raise Reset(done.reason, code=done.code)
            if done:
                return shake.rest

    @asynccontextmanager
    async def listen(self, address: Multiaddr, /) -> AsyncIterator[RawListener]:
        secure = "tls" in address.names or "wss" in address.names
        if secure and self._tls is None:
            raise ConfigError(f"{address} needs a certificate", code="ws.no-certificate")
        host, port = endpoint(address)
        suffix = "".join(f"/{n}/{v}" if v else f"/{n}" for n, v in address.parts[2:] if n != "p2p")
        paths = [_path(part.value) for part in address.parts if part.name == "http-path"]
        config = WebSocketConfig(
            paths=frozenset(paths or ("/",)),
            header_bytes_max=self._config.header_bytes_max,
            handshake_seconds=self._config.handshake_seconds,
        )
        async with tcp.TcpListener.bind(host, port, config=self._tcp, counters=self._counters) as below:
            yield _WsRawListener(self, below, suffix, self._tls if secure else None, config)

    async def accept(
        self, stream: tcp.TcpStream, suffix: str, tls: ssl.SSLContext | None, config: WebSocketConfig
    ) -> WsConn:
        """For the listener: make a WebSocket of an accepted stream. Raises Closed when it becomes none."""
        try:
            with anyio.fail_after(self._config.handshake_seconds):
                local, remote = socket_address(stream), split_spelled(stream.remote)
                if tls is not None:
                    stream = await secure_server(stream, tls, timeout=self._config.handshake_seconds)
                shake = ServerHandshake(config)
                asked = None
                while asked is None:
                    asked = shake.receive(await stream.receive(), self._clock.now())
                if isinstance(asked, Refusal):
                    await self._refuse(stream, asked)
                elif not asked.upgrade:
                    head = response_head(
                        plain(426, headers={"Upgrade": "websocket"}),
                        http_date(self._clock.now()),
                        chunked=False,
                    )
                    await self._refuse(stream, Refusal("ws.no-upgrade", "a plain request", head))
                answer = shake.accept(self._clock.now())
                if isinstance(answer, Refusal):
                    await self._refuse(stream, answer)
                    raise AssertionError
                await stream.send(answer)
        except TimeoutError:
            raise Reset("the WebSocket handshake took too long", code="ws.handshake-slow") from None
        here = None if local is None else local / suffix
        return WsConn(stream, self._config, remote / suffix, here, shake.rest, client=False)

    async def _refuse(self, stream: ByteStream, refusal: Refusal) -> None:
        if refusal.output:
            await stream.send(refusal.output)
            await stream.send_eof()
        raise Reset(refusal.reason, code=refusal.code)


class _WsRawListener:
    def __init__(
        self,
        transport: WebSocket,
        below: tcp.TcpListener,
        suffix: str,
        tls: ssl.SSLContext | None,
        config: WebSocketConfig,
    ) -> None:
        self._transport, self._below, self._suffix = transport, below, suffix
        self._tls, self._config = tls, config

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        return tuple(
            split_spelled(tcp.spell_address(address)) / self._suffix for address in self._below.addresses
        )

    async def serve(self, handler: ConnHandler, /) -> None:
        async def one(stream: tcp.TcpStream) -> None:
            conn = await self._transport.accept(stream, self._suffix, self._tls, self._config)
            try:
                await handler(conn)
            finally:
                await conn.aclose()

        await self._below.serve(one)

    def close(self) -> None:
        self._below.close()


def _url(host: str, port: int, address: Multiaddr, secure: bool) -> str:
    path = _path(address.get("http-path") or "")
    return f"{'wss' if secure else 'ws'}://{tcp.spell_address((host, port))}{path}"


def _path(value: str) -> str:
    """The path in an address as both sides of a request spell it."""
    return "/" + quote(unquote(value).lstrip("/"))
