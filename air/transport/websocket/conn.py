"""One WebSocket on a byte stream: reading, writing in batches, goodbye. (shell)"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

import anyio

from air.base.clock import Clock, Now
from air.base.errors import Closed, Misuse
from air.transport.api import ByteStream
from air.transport.http import HttpResponse, Request
from air.transport.websocket.config import WebSocketConfig
from air.transport.websocket.core import Event, Opened, Text, WebSocketCore

__all__ = ["WebSocketConn"]

_CLOSE_PAUSE_SECONDS = 0.02
"""Between two reads from a peer that goes on sending although it was told the end."""


class WebSocketConn:
    """A connection that carries text messages. Made by ``WebSocketListener`` and ``dial_websocket``.

    One task may be in ``receive`` and any number in ``send``. An idle connection costs its stream and this
    object: no lock, no timer and no task of its own. ``attend`` has the listener, which also watches the
    deadlines, run ``tend`` soon in a task; where there is no listener, whoever reads runs it.
    """

    __slots__ = (
        "_attend",
        "_attended",
        "_clock",
        "_closed",
        "_config",
        "_core",
        "_early",
        "_over",
        "_reading",
        "_stream",
        "_writing_since",
        "_written",
        "headers",
        "path",
        "remote",
    )

    def __init__(
        self,
        stream: ByteStream,
        core: WebSocketCore,
        config: WebSocketConfig,
        clock: Clock,
        remote: str,
        *,
        attend: Callable[[WebSocketConn], None] | None,
    ) -> None:
        self._stream, self._core, self._config, self._clock = stream, core, config, clock
        self._attend = attend
        self._attended = False
        self._closed = False
        self._reading = False
        self._writing_since: float | None = None
        self._early: list[bytes] = []
        self._over: anyio.Event | None = None
        self._written: anyio.Event | None = None
        self.remote = remote
        """Address of the other side, ``host:port``; for a dialled connection its URL."""
        self.path = ""
        """What was asked for, with the query."""
        self.headers: Mapping[str, str] = {}
        """Headers of the request that became this connection; empty on the dialling side."""

    @property
    def close_code(self) -> int | None:
        """The close code of RFC 6455 once the connection has ended, 1006 when there was none."""
        return None if self._core.ended is None else self._core.ended.close_code

    @property
    def close_reason(self) -> str:
        """The words that came with the close code."""
        return "" if self._core.ended is None else self._core.ended.reason

    @property
    def binary_dropped(self) -> int:
        """Binary messages ignored so far."""
        return self._core.binary_dropped

    @property
    def writing_since(self) -> float | None:
        """Monotonic time at which the piece that is being written was begun; None when nothing is."""
        return self._writing_since

    # Messages

    async def receive(self) -> list[bytes]:
        """All text messages that have arrived, at least one. A cancelled call loses none.

        Raises Closed with code ``link.closed`` when the peer said goodbye; Reset with ``link.reset``,
        ``ws.too-big``, ``ws.protocol``, ``ws.dead``, ``ws.slow-reader`` … when it ended otherwise.
        """
        if self._early:
            messages, self._early = self._early, []
            return messages
        while True:
            if self._core.ended is not None:
                raise self._core.error()
            if messages := [event.data for event in await self._pull() if type(event) is Text]:
                return messages

    async def send(self, messages: Sequence[bytes]) -> None:
        """Send each as one text message, all in one write; return when the operating system has them.

        A cancelled call that had begun to write cuts the connection, because a part of a frame may be out.
        Raises Closed when the connection has ended.
        """
        while self._writing_since is not None:
            await self._wait_written()
        self._core.send(messages)
        await self._write()

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye, wait ``close_seconds`` at most for the answer, close. Shielded; may be repeated.

        Raises Misuse ``ws.bad-close-code``, and closes all the same, for a ``code`` that nobody may send.
        """
        if self._closed:
            return
        self._closed = True
        try:
            with anyio.move_on_after(self._config.close_seconds, shield=True):
                await self._goodbye(code, reason)
        except Closed:
            pass
        finally:
            self._core.abort("link.closed", "closed on this side")
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()
            self._finish()

    # For the listener and the dialler

    async def handshake(self) -> Request | None:
        """Read until the peer's request is complete, or on the dialling side until the connection is open."""
        while True:
            if self._core.has_output:
                await self._flush()
            if self._core.ended is not None:
                raise self._core.error()
            events = await self._pull()
            for event in events:
                if isinstance(event, Request):
                    self.path, self.headers = event.path, event.headers
                    return event
                if isinstance(event, Opened):
                    # A relay greets at once: its first messages often share a packet with its answer.
                    self._keep_early(events)
                    return None

    async def accept(self) -> None:
        """Complete the upgrade that was asked for. Raises Reset when it is refused."""
        self._keep_early(self._core.accept(self._clock.now()))
        await self._flush()
        if self._core.ended is not None and not self._early:
            raise self._core.error()

    async def respond(self, request: Request, response: HttpResponse) -> None:
        """Answer without an upgrade."""
        self._core.respond(request, response, self._clock.now())
        await self._flush()
        pieces = response.body
        if isinstance(pieces, bytes):
            return
        try:
            if self._core.answering:
                async for piece in pieces:
                    self._core.body(piece)
                    await self._flush()
                self._core.body_end()
                await self._flush()
        finally:
            # A generator that is left half-way keeps its file open until somebody collects it.
            if isinstance(pieces, AsyncGenerator):
                with anyio.CancelScope(shield=True):
                    await pieces.aclose()

    def overdue(self, now: Now) -> bool:
        """Whether ``tend`` has something to do."""
        since = self._writing_since
        if since is not None and now.monotonic - since >= self._config.write_seconds:
            return not self._core.done
        return self._core.overdue(now)

    async def tend(self) -> None:
        """Do what a passed deadline asks for: ping, or cut. Write what waits to be written."""
        self._attended = False
        now = self._clock.now()
        since = self._writing_since
        if since is not None and now.monotonic - since >= self._config.write_seconds:
            await self._cut("ws.slow-reader")
            return
        if self._core.tick(now) and self._core.ended is not None:
            await self._cut(self._core.ended.code)
        elif since is None:
            # A writer that is at work takes it along.
            try:
                await self._flush()
            except Closed:
                return

    # Reading

    async def _pull(self) -> list[Event]:
        """Read once and let the core see it; answer what has to be answered."""
        if self._reading:
            raise Misuse("another task is reading from this connection")
        self._reading = True
        try:
            data = await (
                self._stream.receive(self._config.receive_bytes)
                if self._attend is not None
                else self._receive_timed()
            )
        except Closed:
            events = self._core.receive_eof(self._clock.now())
        else:
            events = self._core.receive(data, self._clock.now()) if data else []
        finally:
            self._reading = False
        if self._core.has_output:
            try:
                await self._answer()
            except BaseException:
                self._keep_early(events)
                raise
        if self._core.ended is not None:
            self._finish()
        return events

    async def _answer(self) -> None:
        """Have pongs and goodbyes written. A reader may be cancelled at any time, and a write may not, so the
        reader does not write them itself if it can help it."""
        if self._attend is None:
            if self._writing_since is None:
                await self._tend_whole()
        elif self._writing_since is None and not self._attended:
            self._attended = True
            self._attend(self)
        # Reading goes on meanwhile, up to a limit: two peers that both write and wait for their pongs before
        # they read would otherwise wait for each other for ever.
        if self._core.pending_bytes() > self._config.pending_bytes_max:
            await self._wait_written()

    async def _receive_timed(self) -> bytes:
        """As the stream's ``receive``, but ``b""`` when the core had something to do at its deadline."""
        deadline = self._core.deadline
        if deadline is None:
            return await self._stream.receive(self._config.receive_bytes)
        data = b""
        with anyio.move_on_after(max(0.0, deadline - self._clock.now().monotonic)):
            data = await self._stream.receive(self._config.receive_bytes)
        if not data:
            await self._tend_whole()
        return data

    async def _tend_whole(self) -> None:
        """``tend`` for the reader, who may be cancelled half-way when only the goodbye is still to be had."""
        with anyio.CancelScope(shield=not self._closed):
            await self.tend()

    def _keep_early(self, events: Sequence[Event]) -> None:
        self._early += [event.data for event in events if isinstance(event, Text)]

    # Writing

    async def _flush(self) -> None:
        while self._writing_since is not None:
            await self._wait_written()
        await self._write()

    async def _write(self) -> None:
        """Write until the core has nothing left. Only one task is in here at a time."""
        core, limit = self._core, self._config.write_bytes
        data = b""
        try:
            while core.has_output:
                data = b"".join(core.take_output())
                for start in range(0, len(data), limit):
                    self._writing_since = self._clock.now().monotonic
                    await self._send(data if len(data) <= limit else data[start : start + limit])
        except Closed as error:
            core.abort(error.code, str(error))
            raise core.error() from error
        except BaseException:
            # Cancelled between the bytes of a frame, perhaps: whatever followed would be read as its rest.
            core.abort("link.reset", "cut in the middle of a write")
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()
            raise
        finally:
            # An exception keeps this frame, and a peer that was cut while it did not read left much of it.
            data = b""
            self._writing_since = None
            if self._written is not None:
                self._written.set()
                self._written = None

    async def _send(self, data: bytes) -> None:
        if self._attend is not None:
            await self._stream.send(data)
            return
        with anyio.move_on_after(self._config.write_seconds) as scope:
            await self._stream.send(data)
        if scope.cancelled_caught:
            await self._cut("ws.slow-reader")
            raise self._core.error()

    async def _wait_written(self) -> None:
        if self._written is None:
            self._written = anyio.Event()
        await self._written.wait()

    # The end

    async def _goodbye(self, code: int, reason: str) -> None:
        core = self._core
        core.close(code, reason, self._clock.now())
        await self._flush()
        said, read = False, 0
        # A close with unread bytes in the socket is a reset, which can overtake what was just written. So a
        # peer that was refused is told the end and read out, and only then the stream is closed.
        while not core.done:
            if core.ended is not None and not said:
                said = True
                await self._stream.send_eof()
            if self._reading:
                if self._over is None:
                    self._over = anyio.Event()
                await self._over.wait()
            else:
                await self._pull()
                read += 1
                if read > self._config.close_reads:
                    # Who floods us goes on doing so, and gets no more of our time than the goodbye needs.
                    await anyio.sleep(_CLOSE_PAUSE_SECONDS)

    async def _cut(self, code: str) -> None:
        self._core.abort(code, "cut on this side")
        with anyio.CancelScope(shield=True):
            await self._stream.aclose()
        self._finish()

    def _finish(self) -> None:
        """Wake whoever waits for something that will not happen any more."""
        for event in (self._over, self._written):
            if event is not None:
                event.set()
        self._over = self._written = None
