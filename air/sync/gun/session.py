"""GUN over a WebSocket: one reader, one writer, and dialling for ever. (shell)"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from ssl import SSLContext
from typing import Any

import anyio

from air.base.backoff import Backoff, BackoffConfig
from air.base.errors import Closed, LimitReached, Unreachable, Violation
from air.base.groups import first
from air.graph.mesh import Role
from air.model.cell import Cell
from air.model.message import Get, Message, SoulRange
from air.sync.gun.wire import KEEP_ALIVE, Greeting, GunCodec, GunConfig, GunLink
from air.sync.hub import Hub
from air.transport.websocket import WebSocketConfig, WebSocketConn, dial_websocket

__all__ = ["GunWire"]

log = logging.getLogger("air.gun")

_LAST_WORDS_SECONDS = 1.0
"""How long a peer that is cut may take to read why."""
_LOOK_SECONDS = 0.05
"""How long to look whether a peer that does not read goes on asking."""
_READS_SECONDS = 0.002
"""Between two looks whether the disk has answered."""
_POLICY = 1008
"""WebSocket close code for a peer that broke the rules (RFC 6455 7.4.1)."""


class _GunPort:
    """One GUN connection as the hub sees it, and the event its writer sleeps on."""

    __slots__ = ("_link", "codec", "cut_by", "drained", "news", "over", "scope")

    def __init__(self, link: GunLink, codec: GunCodec) -> None:
        self._link, self.codec = link, codec
        self.news: anyio.Event | None = None
        self.drained: anyio.Event | None = None
        self.scope = anyio.CancelScope()
        self.cut_by: Violation | None = None
        self.over = False
        """The connection has ended by itself; a write that is under way may still carry its last word."""

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
        # Its traceback would lead back here, and what a cycle holds stays until the collector comes: the last
        # frames of whoever had to be cut, and all that he had not read.
        error.__traceback__ = error.__context__ = None
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
        self._hub.engine.near.expect(url)
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
                except Closed as error:
                    reason, port.over = error.code, True
                # A peer that is cut hears why, if it still reads. A write that is under way is let finish,
                # because a part of a frame would hide the reason.
                port.wake()
                deaf = port.cut_by is not None and port.cut_by.code == "limit.unread"
                patience = 0 if deaf else _LAST_WORDS_SECONDS
                tasks.cancel_scope.deadline = anyio.current_time() + patience
        except* Closed as group:
            reason = first(group).code
        finally:
            hub.close_link(id)
            link.forget()
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
        hub, clock, guard = self._hub, self._hub.env.clock, self.config.guard
        early: list[bytes] = []
        while True:
            frames, early = early or await conn.receive(), []
            link.guard.listened()
            messages = link.receive_all(frames)
            began = clock.now().monotonic
            while self._take(link, id, messages):
                # One connection may send more in a frame than is fair to work off in one go.
                if link.queued_bytes > hub.config.high_bytes:
                    early += await self._catch_up(conn, link, port)
                elif (
                    clock.now().monotonic - began < guard.slice_seconds
                    and not link.guard.scanned
                    and not self._crowded(link, id)
                ):
                    continue
                else:
                    await self._pause(link, port, id)
                began = clock.now().monotonic
            await self._pause(link, port, id)
            if link.queued_bytes > hub.config.high_bytes:
                early += await self._catch_up(conn, link, port)

    def _take(self, link: GunLink, id: int, messages: Iterator[Message | Greeting]) -> bool:
        """Work off some messages; False when there are no more."""
        hub, count = self._hub, self.config.guard.slice_messages
        if link.guard.reads_lately:
            count = min(count, link.guard.reads_max(hub.engine.writing > 0))
        batch: list[Message] = []
        try:
            for item in messages:
                if type(item) is Greeting:
                    # What came before the greeting is answered before it.
                    self._receive(link, id, batch)
                    batch = []
                    hub.greeted(id, item.peer)
                    continue
                batch.append(item)  # type: ignore[arg-type]
                if len(batch) == count or (type(item) is Get and type(item.soul) is SoulRange):
                    return True
            return False
        finally:
            if batch:
                self._receive(link, id, batch)

    def _receive(self, link: GunLink, id: int, batch: list[Message]) -> None:
        engine, guard = self._hub.engine, link.guard
        duplicates, waiting = engine.duplicates, engine.reading(id)
        self._hub.receive(id, batch)
        if engine.duplicates != duplicates:
            guard.repeated(message.id for message in batch)
        reads = max(0, engine.reading(id) - waiting)
        scans = sum(type(one) is Get and type(one.soul) is SoulRange for one in batch) if reads else 0
        guard.read(reads, scans)

    async def _pause(self, link: GunLink, port: _GunPort, id: int) -> None:
        """Let the store and other connections catch up, and slow down a peer that wastes our time."""
        hub = self._hub
        wait = link.pace(hub.env.clock.now())
        if link.waiting:
            port.wake()
        if link.guard.scanned:
            wait = max(wait, await self._scanned(link, id))
        await anyio.sleep(wait)
        # Reads that were put off until the peer has read what it was sent are not the disk's.
        while (  # noqa: ASYNC110 - nobody reports single reads
            self._crowded(link, id) and link.queued_bytes <= hub.config.high_bytes
        ):
            await anyio.sleep(_READS_SECONDS)
        await hub.room()

    def _crowded(self, link: GunLink, id: int) -> bool:
        """As many reads of a link wait for the disk as may."""
        engine = self._hub.engine
        return engine.reading(id) >= link.guard.reads_max(engine.writing > 0)

    async def _scanned(self, link: GunLink, id: int) -> float:
        """Let a question for all souls of a prefix be answered. Returns how long its asker rests then."""
        hub = self._hub
        link.guard.scanned, others, began = False, hub.messages, hub.env.clock.now().monotonic
        while (  # noqa: ASYNC110 - nobody reports single reads
            hub.engine.reading(id) and link.queued_bytes <= hub.config.high_bytes
        ):
            await anyio.sleep(_READS_SECONDS)
        if hub.messages == others:
            return 0
        guard, took = self.config.guard, hub.env.clock.now().monotonic - began
        return min(guard.scan_rest * took, guard.scan_rest_max_seconds)

    async def _catch_up(self, conn: WebSocketConn, link: GunLink, port: _GunPort) -> list[bytes]:
        """Wait for a peer that asks faster than it reads: its questions wait in its own socket.

        Returns what was read meanwhile. Raises LimitReached ``limit.unread`` when it takes nothing and asks
        for more.
        """
        guard, high = self.config.guard, self._hub.config.high_bytes
        early: list[bytes] = []
        size = insisted = 0
        port.wake()
        while link.queued_bytes > high:
            before = conn.writing_since
            port.drained = anyio.Event()
            with anyio.move_on_after(guard.unread_seconds) as patience:
                await port.drained.wait()
            if not patience.cancelled_caught or conn.writing_since != before:
                insisted = 0
                continue
            more = 0
            with anyio.move_on_after(_LOOK_SECONDS):
                while size < guard.unread_bytes_max:
                    frames = await conn.receive()
                    early += frames
                    more += sum(map(len, frames))
                    size += sum(map(len, frames))
            insisted = insisted + 1 if more or size >= guard.unread_bytes_max else 0
            if insisted == 2:
                raise LimitReached(
                    "this peer asks for more and does not read", code="limit.unread", fatal=True
                )
        return early

    async def _write(self, conn: WebSocketConn, link: GunLink, port: _GunPort, id: int) -> None:
        quiet = None if link.dialer else self.config.keep_alive_seconds
        try:
            while True:
                if port.over or (port.cut_by is not None and not link.waiting):
                    return
                if not link.waiting:
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
        except anyio.get_cancelled_exc_class() as end:
            # The task keeps the error, the error its frames, and they what is sent and to whom: see cut.
            raise end.with_traceback(None)  # noqa: B904 - it is the same error
        finally:
            del conn, link, port
