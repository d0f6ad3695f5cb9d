"""Long answers of the admin interface: nodes of any size, and watches that never end. (shell)"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio.abc import TaskGroup
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from air.base.errors import AirError
from air.daemon.guard import error_json
from air.daemon.ports import Hub
from air.model.cell import Cell, Fields, Key, Soul, State
from air.model.value import Value, number_text, text_json, value_text

__all__ = ["NodeResponse", "WatchResponse"]

_JSON: Final = b"application/json"
_NDJSON: Final = b"application/x-ndjson"
_GOODBYE_SECONDS: Final = 1.0


def _field(key: Key, value: Value, state: State) -> str:
    return f'{text_json(key)}:{{"value":{value_text(value)},"state":{number_text(state)}}}'


class NodeResponse(Response):
    """The fields of a node, sent while they are read: memory does not grow with the node.

    ``first`` is the page that was read to see whether there is anything; ``rest`` are the others.
    """

    def __init__(self, soul: Soul, first: Fields, rest: AsyncIterator[Fields], limit: int | None) -> None:
        super().__init__()
        self._soul, self._first, self._rest, self._limit = soul, first, rest, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tail: bytes | None = None
        try:
            async with _while_connected(receive):
                tail = await self._parts(send)
        finally:
            close = getattr(self._rest, "aclose", None)
            if close is not None:
                with anyio.CancelScope(shield=True):
                    await close()
        if tail is not None:
            # Outside of the block: the server reports the end of the request as "disconnected" while it
            # still readies the connection for the next one, and must not be cancelled there.
            await send(_last(tail))

    async def _parts(self, send: Send) -> bytes:
        """Send all but the end, which is returned."""
        await send(_start(_JSON))
        text, left = _page(self._first, self._limit)
        text = f'{{"soul":{text_json(self._soul)},"fields":{{{text}'
        error = b""
        try:
            while left is None or left > 0:
                page = await anext(self._rest, None)
                if page is None:
                    break
                await send(_more(text.encode()))
                text, left = _page(page, left)
                text = f",{text}" if text else ""
        except AirError as failure:
            # The status is sent already; a reader must still be able to tell part from whole.
            error = b"," + error_json(failure.code, failure.message)[1:-1]
        return text.encode() + b"}" + error + b"}"


def _page(fields: Fields, left: int | None) -> tuple[str, int | None]:
    items = list(fields.items()) if left is None else list(fields.items())[:left]
    text = ",".join([_field(key, value, state) for key, (value, state) in items])
    return text, None if left is None else left - len(items)


class WatchResponse(Response):
    """One JSON object a line: each field as it is, then as it changes.

    ``closing`` ends the watch in good order. A line with a heartbeat goes out when nothing else did.
    """

    def __init__(
        self,
        hub: Hub,
        soul: Soul,
        key: Key | None,
        *,
        heartbeat_seconds: float,
        closing: anyio.Event,
        clock_ms: Callable[[], float],
        done: Callable[[], None],
    ) -> None:
        super().__init__()
        self._hub, self._soul, self._key = hub, soul, key
        self._heartbeat_seconds, self._closing = heartbeat_seconds, closing
        self._clock_ms, self._done = clock_ms, done
        self._lock = anyio.Lock()
        self._quiet = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._hub.watch(self._soul, self._key) as changes:
                await send(_start(_NDJSON))
                async with _while_connected(receive) as tasks:
                    tasks.start_soon(self._heartbeats, send)
                    tasks.start_soon(_cancel_after, self._closing.wait, tasks)
                    await self._changes(changes, send)
                with anyio.move_on_after(_GOODBYE_SECONDS, shield=True):
                    await send(_last(b""))
        finally:
            self._done()

    async def _changes(self, changes: AsyncIterator[list[Cell]], send: Send) -> None:
        try:
            async for cells in changes:
                await self._send("".join(map(_line, cells)).encode(), send)
        except AirError as error:
            await self._send(error_json(error.code, error.message) + b"\n", send)

    async def _heartbeats(self, send: Send) -> None:
        while True:
            self._quiet = True
            await anyio.sleep(self._heartbeat_seconds)
            if self._quiet:
                await self._send(b'{"heartbeat":%d}\n' % self._clock_ms(), send)

    async def _send(self, data: bytes, send: Send) -> None:
        async with self._lock:
            self._quiet = False
            await send(_more(data))


def _line(cell: Cell) -> str:
    return (
        f'{{"soul":{text_json(cell.soul)},"key":{text_json(cell.key)},'
        f'"value":{value_text(cell.value)},"state":{number_text(cell.state)}}}\n'
    )


@asynccontextmanager
async def _while_connected(receive: Receive) -> AsyncIterator[TaskGroup]:
    """Cancel the block when the client goes, and the helpers when the block ends."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_after, gone, tasks)
        yield tasks
        tasks.cancel_scope.cancel()


async def _cancel_after(wait: Callable[[], Awaitable[object]], tasks: TaskGroup) -> None:
    await wait()
    tasks.cancel_scope.cancel()


def _start(kind: bytes) -> dict[str, object]:
    headers = [(b"content-type", kind), (b"cache-control", b"no-store")]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _more(body: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": True}


def _last(body: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": False}
