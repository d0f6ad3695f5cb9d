"""GUN over a WebSocket: one reader, one writer, and dialling for ever. (shell)"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from ssl import SSLContext
from typing import Any

import anyio

from air.base.backoff import Backoff, BackoffConfig
from air.base.errors import AirError, Closed, Unreachable, Violation
from air.graph.mesh import Role
from air.model.cell import Cell
from air.model.message import Message
from air.sync.gun.wire import KEEP_ALIVE, Greeting, GunCodec, GunConfig, GunLink
from air.sync.hub import Hub
from air.transport.websocket import WebSocketConfig, WebSocketConn, dial_websocket

__all__ = ["GunWire"]

log = logging.getLogger("air.gun")

_LAST_WORDS_SECONDS = 1.0
"""How long a peer that is cut may take to read why."""
_POLICY = 1008
"""WebSocket close code for a peer that broke the rules (RFC 6455 7.4.1)."""


class _GunPort:
    """One GUN connection as the hub sees it, and the event its writer sleeps on."""

    __slots__ = ("_link", "codec", "cut_by", "drained", "news", "scope", "silent")

    def __init__(self, link: GunLink, codec: GunCodec) -> None:
        self._link, self.codec = link, codec
        self.news: anyio.Event | None = None
        self.drained: anyio.Event | None = None
        self.scope = anyio.CancelScope()
        self.silent = anyio.Event()
        self.cut_by: Violation | None = None

    @property
    def peer(self) -> str:
        return self._link.peer

    @property
    def queued_bytes(self) -> int:
        return self._link.queued_bytes

    def queue(self, messages: list[Any]) -> None:
        self._link.queue(messages)

    def changed(self, cells: Sequence[Cell]) -> None: ...

    def wake(self) -> None:
        if self.news is not None:
            self.news.set()

    def refuse(self, id: object, error: Violation) -> None:
        try:
            self._link.refuse(id, error)
        except Violation as last:
            self.cut(last)
            return
        if error.fatal:
            self.cut(error)

    def cut(self, error: Violation) -> None:
        if self.cut_by is None:
            self.cut_by = error
            self.scope.cancel()


class GunWire:
    """Speaks GUN for a hub, in both roles."""

    def __init__(self, hub: Hub, config: GunConfig | None = None) -> None:
        self.config = config or GunConfig()
        self._hub = hub
        self.pid = hub.ids()
        """Our peer id on this wire: new for each start, as gun has it."""
        codecs = [GunCodec(self.config, hub.ids, hub.memory, for_relay=relay) for relay in (False, True)]
        self._for_clients, self._for_relays = codecs

    async def serve(self, conn: WebSocketConn) -> None:
        """Serve one accepted connection until it ends. Errors of the peer end it, and nothing else."""
        await self._run(conn, Role.INBOUND, conn.remote)

    async def dial(
        self,
        url: str,
        *,
        websocket: WebSocketConfig | None = None,
        tls: SSLContext | None = None,
        backoff: BackoffConfig | None = None,
    ) -> None:
        """Keep a connection to ``url`` for ever, coming back after jittered, growing waits."""
        env = self._hub.env
        waits = Backoff(backoff or BackoffConfig(), env.entropy)
        while True:
            try:
                conn = await dial_websocket(url, config=websocket, tls=tls, clock=env.clock)
            except (Unreachable, Closed) as error:
                log.info("peer unreachable", extra={"peer": url, "code": error.code, "reason": str(error)})
            else:
                opened = env.clock.now().monotonic
                await self._run(conn, Role.OUTBOUND, url)
                # A relay that takes every connection and drops it at once is not back yet.
                if env.clock.now().monotonic - opened > 5:
                    waits.succeeded()
            await anyio.sleep(waits.failed())

    async def _run(self, conn: WebSocketConn, role: Role, address: str) -> None:
        hub = self._hub
        dialer = role is Role.OUTBOUND
        link = GunLink(dialer=dialer, pid=self.pid, ids=hub.ids, config=self.config, counters=hub.counters)
        port = _GunPort(link, self._for_relays if dialer else self._for_clients)
        id = hub.open_link(role, port, address, name=address if dialer else "")
        log.info("link open", extra={"link": id, "role": role.value, "address": address})
        reason = "link.closed"
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write, conn, link, port, id)
                try:
                    with port.scope:
                        await self._read(conn, link, port, id)
                except Violation as error:
                    port.cut(error)
                # A peer that is cut hears why, if it still reads. A write that is under way is let finish,
                # because a part of a frame would hide the reason.
                port.wake()
                with anyio.move_on_after(_LAST_WORDS_SECONDS):
                    await port.silent.wait()
                tasks.cancel_scope.cancel()
        except* Closed as group:
            reason = _first(group).code
        finally:
            hub.close_link(id)
            if port.cut_by is not None:
                reason = port.cut_by.code
                hub.counters.add("air_cut_total", 1, reason)
            log.info("link closed", extra={"link": id, "code": reason, "peer": port.peer})
            if port.cut_by is not None:
                await conn.aclose(_POLICY, reason)
            elif dialer:
                # An accepted connection is closed by its listener, which knows why.
                await conn.aclose()

    async def _read(self, conn: WebSocketConn, link: GunLink, port: _GunPort, id: int) -> None:
        hub = self._hub
        high = hub.config.high_bytes
        while True:
            frames = await conn.receive()
            for frame in frames:
                batch: list[Message] = []
                try:
                    for item in link.receive(frame):
                        if type(item) is Greeting:
                            # What came before the greeting is answered before it.
                            hub.receive(id, batch)
                            batch = []
                            hub.greeted(id, item.peer)
                        else:
                            batch.append(item)  # type: ignore[arg-type]
                finally:
                    hub.receive(id, batch)
            if link.waiting:
                port.wake()
            await hub.room()
            while link.queued_bytes > high:
                # It asks faster than it reads: its questions wait in its own socket.
                port.drained = anyio.Event()
                await port.drained.wait()

    async def _write(self, conn: WebSocketConn, link: GunLink, port: _GunPort, id: int) -> None:
        quiet = None if link.dialer else self.config.keep_alive_seconds
        while True:
            if not link.waiting:
                if port.cut_by is not None:
                    port.silent.set()
                    return
                news = port.news = anyio.Event()
                with anyio.move_on_after(quiet) as patience:
                    await news.wait()
                if patience.cancelled_caught:
                    await conn.send([KEEP_ALIVE])
                continue
            await conn.send(link.take_frames())
            if port.drained is not None:
                port.drained.set()
                port.drained = None
            self._hub.drained(id)


def _first(group: BaseExceptionGroup[AirError]) -> AirError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, AirError)
    return error
