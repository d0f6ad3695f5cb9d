"""WebSockets in and out: the listener and the dialler. (shell)"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio

from air.base.clock import Clock, SystemClock
from air.base.errors import Closed, Unreachable
from air.base.metrics import Counters
from air.transport import tcp
from air.transport.http import HttpResponse, Request, plain
from air.transport.tls import client_context, secure_client, secure_server
from air.transport.websocket.config import WebSocketConfig
from air.transport.websocket.conn import WebSocketConn
from air.transport.websocket.core import WebSocketCore
from air.transport.websocket.handshake import parse_url

__all__ = ["ConnHandler", "HttpHandler", "WebSocketListener", "dial_websocket"]

_LOG = logging.getLogger("air.transport.websocket")

ConnHandler = Callable[[WebSocketConn], Awaitable[None]]
"""Serves one WebSocket; when it returns the connection is closed with 1000, when it raises with 1011."""

HttpHandler = Callable[[Request], Awaitable[HttpResponse]]
"""Answers a request that asks for no upgrade."""


class WebSocketListener:
    """Accepts WebSockets at the configured paths and answers plain requests at all others.

    ``counters`` receives ``ws_accepted``, ``ws_http_answered`` and ``ws_refused`` by code, besides those of
    the TCP listener below.
    """

    def __init__(
        self,
        below: tcp.TcpListener,
        config: WebSocketConfig,
        tls: ssl.SSLContext | None,
        clock: Clock,
    ) -> None:
        self._below, self._config, self._tls, self._clock = below, config, tls, clock
        self._conns: set[WebSocketConn] = set()
        self._opening: dict[int, anyio.CancelScope] = {}
        """Connections in their handshake, the oldest first."""
        self.counters = below.counters
        self.counters.describe("ws_accepted", "WebSockets opened.")
        self.counters.describe("ws_http_answered", "Plain HTTP requests answered.")
        self.counters.describe("ws_refused", "Connections that came to nothing or were cut, by code.", "code")

    @classmethod
    @asynccontextmanager
    async def bind(
        cls,
        host: str,
        port: int,
        *,
        config: WebSocketConfig | None = None,
        tcp_config: tcp.TcpConfig | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Clock | None = None,
        counters: Counters | None = None,
    ) -> AsyncIterator[WebSocketListener]:
        """Listen; connections wait until ``serve``. Raises ConfigError with code ``tcp.cannot-listen``."""
        async with tcp.TcpListener.bind(host, port, config=tcp_config, counters=counters) as below:
            yield cls(below, config or WebSocketConfig(), tls, clock or SystemClock())

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """(host, port) of every listening socket."""
        return self._below.addresses

    @property
    def urls(self) -> tuple[str, ...]:
        """Where a client connects: every address with the first path."""
        scheme, path = ("ws" if self._tls is None else "wss"), min(self._config.paths, default="/")
        return tuple(f"{scheme}://{tcp.spell_address(address)}{path}" for address in self.addresses)

    @property
    def open(self) -> int:
        """Connections open now, whatever they are about to become."""
        return self._below.open

    def close(self) -> None:
        """Accept nothing more. Open connections go on, and ``serve`` returns when the last one has ended."""
        self._below.close()

    async def serve(self, handler: ConnHandler, *, http: HttpHandler | None = None) -> None:
        """Accept until ``close`` or cancellation. On cancellation peers are told 1001, going away."""

        async with anyio.create_task_group() as tasks:

            def attend(conn: WebSocketConn) -> None:
                # A task, because a ping is a write and a write may have to wait.
                tasks.start_soon(self._tend, conn)

            async def one(stream: tcp.TcpStream) -> None:
                await self._serve_one(stream, attend, handler, self._answer if http is None else http)

            tasks.start_soon(self._sweep, attend)
            await self._below.serve(one)
            tasks.cancel_scope.cancel()

    async def _serve_one(
        self,
        stream: tcp.TcpStream,
        attend: Callable[[WebSocketConn], None],
        handler: ConnHandler,
        http: HttpHandler,
    ) -> None:
        core: WebSocketCore | None = None
        request: Request | None = None
        farewell = 1001
        try:
            with self._door():
                try:
                    if self._tls is not None:
                        stream = await secure_server(
                            stream, self._tls, timeout=self._config.handshake_seconds
                        )
                except Closed as error:
                    self.counters.add("ws_refused", label=error.code)
                    return
                core = WebSocketCore(self._config, self._clock.now())
                conn = WebSocketConn(stream, core, self._config, self._clock, stream.remote, attend=attend)
                self._conns.add(conn)
                request = await conn.handshake()
            if request is None:
                self._crowded_out(core)
                return
            await self._serve_conn(conn, request, handler, http)
            farewell = 1000
        except Exception as error:
            if not tcp.is_farewell(error):
                farewell = 1011
                raise
            farewell = 1000
        finally:
            if core is not None:
                try:
                    if core.ended is not None and core.ended.code != "link.closed":
                        self.counters.add("ws_refused", label=core.ended.code)
                    await conn.aclose(farewell)
                finally:
                    self._conns.discard(conn)

    def _crowded_out(self, core: WebSocketCore | None) -> None:
        if core is None:  # still at its TLS
            self.counters.add("ws_refused", label="ws.handshake-crowded")
        else:
            # No goodbye: the place is needed now.
            core.abort("ws.handshake-crowded", "too many handshakes at a time")

    @contextmanager
    def _door(self) -> Iterator[None]:
        """A place for a handshake. Who comes to a full house takes the place of whoever has stood there
        longest: an honest peer needs milliseconds, and gets in past any number that never finish."""
        if len(self._opening) >= self._config.handshakes_max:
            self._opening.pop(next(iter(self._opening))).cancel()
        with anyio.CancelScope() as scope:
            self._opening[id(scope)] = scope
            try:
                yield
            finally:
                self._opening.pop(id(scope), None)

    async def _serve_conn(
        self, conn: WebSocketConn, request: Request, handler: ConnHandler, http: HttpHandler
    ) -> None:
        if not request.upgrade:
            self.counters.add("ws_http_answered")
            try:
                response = await http(request)
            except Exception:
                await conn.respond(request, plain(500))
                raise
            await conn.respond(request, response)
            return
        await conn.accept()
        self.counters.add("ws_accepted")
        await handler(conn)

    async def _answer(self, request: Request) -> HttpResponse:
        if request.route in self._config.paths:
            return plain(426, headers={"Upgrade": "websocket"})
        return plain(404)

    async def _sweep(self, attend: Callable[[WebSocketConn], None]) -> None:
        """Look after the deadlines of all connections: one task instead of a timer for each."""
        while True:
            await anyio.sleep(self._config.sweep_seconds)
            now = self._clock.now()
            for conn in self._conns:
                if conn.overdue(now):
                    attend(conn)

    async def _tend(self, conn: WebSocketConn) -> None:
        try:
            await conn.tend()
        except Exception:
            # Supervision: no fault of one connection may end the sweep, and with it the listener.
            self.counters.add("ws_refused", label="ws.tend-failed")
            _LOG.exception("ws.tend-failed: %s", conn.remote)


async def dial_websocket(
    url: str,
    *,
    config: WebSocketConfig | None = None,
    tls: ssl.SSLContext | None = None,
    clock: Clock | None = None,
    timeout: float = 10.0,
) -> WebSocketConn:
    """Connect within ``timeout`` seconds to ``ws://`` or ``wss://``; ``http`` and ``https`` mean the same.

    ``tls`` says whom to trust; without it the authorities of this machine. The caller closes what it gets.
    Raises Unreachable with (address, reason) per attempt, ConfigError when ``url`` is no such address.
    """
    config, clock = config or WebSocketConfig(), clock or SystemClock()
    where = parse_url(url)
    core = WebSocketCore(config, clock.now(), url=url)
    stream: tcp.TcpStream | None = None
    try:
        with anyio.fail_after(timeout):
            stream = await tcp.dial(where.host, where.port, timeout=timeout)
            if where.secure:
                context = client_context() if tls is None else tls
                stream = await secure_client(stream, context, where.host, timeout=timeout)
            conn = WebSocketConn(stream, core, config, clock, url, attend=None)
            conn.path = where.resource_name
            await conn.handshake()
    except BaseException as error:
        if stream is not None:
            with anyio.CancelScope(shield=True):
                await stream.aclose()
        if isinstance(error, TimeoutError):
            attempts = [(url, f"no connection within {timeout} seconds")]
            raise Unreachable(f"{url} did not answer", attempts) from None
        if isinstance(error, Closed):
            raise Unreachable(f"{url} refused: {error.code}", [(url, f"{error.code}: {error}")]) from error
        raise
    return conn
