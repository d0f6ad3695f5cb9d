"""One WebSocket of the generator, below asyncio's streams. (shell)

Reads go to ``sink`` as whole unmasked text frames, many at a time; what they mean is the sink's business.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import orjson

from air.base.errors import Closed, Unreachable, Violation
from bench.framing import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    MessageReader,
    encode_frame,
    read_upgrade,
    scan,
    server_frame,
    upgrade_request,
)
from bench.messages import messages_in, random_ids

__all__ = ["Connection", "connect", "drop", "hold", "read_fields", "release", "wait_for"]

Sink = Callable[[bytes], None]


def drop(_: bytes) -> None:
    """Where reads go that nobody waits for."""


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


class Connection(asyncio.Protocol):
    """A client connection that has been upgraded once ``opened`` is done."""

    def __init__(self, host: str, path: str) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.sink: Sink = drop
        self.lost: Callable[[], None] | None = None
        """Called once when the connection is gone."""
        self.closed_by_peer = False
        self._request, self._accept = upgrade_request(host, path, os.urandom(16))
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._reader = MessageReader()
        self._greeted = False
        self._closing = False

    @property
    def is_open(self) -> bool:
        return self.opened.done() and not self.ended.done()

    def write(self, frames: bytes) -> None:
        """Send whole frames, already masked."""
        if self._transport is not None and not self._closing:
            self._transport.write(frames)

    def send(self, message: bytes) -> None:
        """Mask and send one text message."""
        self.write(encode_frame(message, os.urandom(4)))

    async def ask(self, message: dict[str, Any], wait_seconds: float) -> list[dict[str, Any]]:
        """Send a message with a new id and return its answers: the first one, and all that came with it.

        An empty list means that none came in time. Not for use while a load runs on this connection.
        """
        name = random_ids(1)[0].decode()
        answers: list[dict[str, Any]] = []
        arrived = asyncio.Event()

        def look(data: bytes) -> None:
            found = [one for one in messages_in(data) if one.get("@") == name]
            answers.extend(found)
            if found:
                arrived.set()

        before, self.sink = self.sink, look
        self.send(orjson.dumps({"#": name, **message}))
        await wait_for(arrived, wait_seconds)
        self.sink = before
        return answers

    async def aclose(self) -> None:
        """Say goodbye and wait a moment for the end."""
        if self._transport is None or self.ended.done():
            return
        self.write(encode_frame((1000).to_bytes(2, "big"), os.urandom(4), CLOSE))
        self._closing = True
        self._transport.close()
        try:
            async with asyncio.timeout(2):
                await asyncio.shield(self.ended)
        except TimeoutError:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        try:
            if not self.opened.done():
                start = read_upgrade(data, self._accept)
                if start is None:
                    self._rest = data
                    return
                self.opened.set_result(None)
                data = data[start:]
            end, plain = scan(data)
            self._rest = data[end:]
            if self._rest:
                data = data[:end]
            if not plain:
                data = self._sort_out(data)
        except Violation as error:
            self._fail(error)
            return
        if not self._greeted and b'"dam"' in data:
            self._greet(data)
        if data:
            self.sink(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(error or Closed("closed before the upgrade"))
        if not self.ended.done():
            self.closed_by_peer = not self._closing
            self.ended.set_result(None)
            if self.lost is not None:
                self.lost()

    def _sort_out(self, data: bytes) -> bytes:
        """Answer control frames and join fragments, so that only whole text frames are left."""
        texts = []
        for opcode, payload in self._reader.receive(data):
            if opcode == PING:
                self.write(encode_frame(payload, os.urandom(4), PONG))
            elif opcode == CLOSE:
                self.write(encode_frame(payload[:2], os.urandom(4), CLOSE))
                if self._transport is not None:
                    self._transport.close()
            elif opcode == TEXT:
                texts.append(server_frame(payload))
        return b"".join(texts)

    def _greet(self, data: bytes) -> None:
        """Answer the relay's question who we are, as every gun client does."""
        for one in messages_in(data):
            if one.get("dam") == "?" and "@" not in one:
                pid, name = (text.decode() for text in random_ids(2))
                self._greeted = True
                self.send(orjson.dumps({"dam": "?", "pid": pid, "@": one.get("#"), "#": name}))

    def _fail(self, error: Violation) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)
        if self._transport is not None:
            self._transport.abort()


async def connect(url: str, wait_seconds: float = 10.0) -> Connection:
    """Open a WebSocket to a ``ws://`` URL. Raises Unreachable when nothing answers in time."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(wait_seconds):
            _, connection = await loop.create_connection(
                lambda: Connection(f"{host}:{port}", parts.path or "/gun"), host, port
            )
            await connection.opened
    except (OSError, TimeoutError, Closed) as error:
        raise Unreachable(f"no WebSocket at {url}: {error!r}", [(url, repr(error))]) from error
    return connection


async def hold(url: str, count: int, connect_seconds: float = 10.0) -> list[Connection]:
    """Open ``count`` connections, 50 at a time. Raises Unreachable when any of them cannot be had."""
    held: list[Connection] = []
    while len(held) < count:
        step = min(50, count - len(held))
        made = await asyncio.gather(
            *(connect(url, connect_seconds) for _ in range(step)), return_exceptions=True
        )
        held += [one for one in made if isinstance(one, Connection)]
        failed = [one for one in made if isinstance(one, BaseException)]
        if failed:
            await release(held)
            raise Unreachable(f"{len(held)} of {count} sockets, then {failed[0]!r}") from failed[0]
    return held


async def release(connections: Sequence[Connection]) -> None:
    """Close many connections at once."""
    await asyncio.gather(*(one.aclose() for one in connections))


async def read_fields(
    connection: Connection, places: Sequence[tuple[bytes, bytes]], wait_seconds: float
) -> dict[tuple[bytes, bytes], object]:
    """Ask for each (soul, key) and return the values that came; a late value wins over "not found"."""
    asked = dict(zip((name.decode() for name in random_ids(len(places))), places, strict=True))
    values: dict[tuple[bytes, bytes], object] = {}
    complete = asyncio.Event()

    def look(data: bytes) -> None:
        for one in messages_in(data):
            place = asked.get(str(one.get("@")))
            node = (one.get("put") or {}).get(place[0].decode(), {}) if place else {}
            if place and place[1].decode() in node:
                values[place] = node[place[1].decode()]
        if len(values) == len(places):
            complete.set()

    connection.sink = look
    for name, (soul, key) in asked.items():
        connection.send(orjson.dumps({"#": name, "get": {"#": soul.decode(), ".": key.decode()}}))
    await wait_for(complete, wait_seconds)
    connection.sink = drop
    return values
