"""What the scenes of a muxer do with streams: open, read, echo, and see how they end. (shell)"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import anyio

from air.base.errors import Closed, Reset
from air.mux.api import MuxedConn, MuxedStream

__all__ = [
    "echo_all",
    "expect_closed",
    "expect_reset",
    "noise",
    "pair_of_streams",
    "read_all",
    "read_exactly",
]


def noise(size: int, seed: object) -> bytes:
    return random.Random(repr(seed)).randbytes(size)


async def read_all(stream: MuxedStream, max_bytes: int = 65536) -> bytes:
    parts = []
    while True:
        try:
            parts.append(await stream.receive(max_bytes))
        except Reset:
            raise
        except Closed:
            return b"".join(parts)
        assert parts[-1], "receive returned nothing, where the end is told by Closed"
        assert len(parts[-1]) <= max_bytes, "receive returned more than was asked for"


async def read_exactly(stream: MuxedStream, size: int) -> bytes:
    parts, missing = [], size
    while missing:
        parts.append(await stream.receive(min(missing, 65536)))
        assert parts[-1], "receive returned nothing, where the end is told by Closed"
        missing -= len(parts[-1])
    return b"".join(parts)


async def _echo(stream: MuxedStream) -> None:
    try:
        while True:
            data = await stream.receive(65536)
            assert data, "receive returned nothing, where the end is told by Closed"
            await stream.send(data)
    except Closed:
        await stream.send_eof()
    await stream.aclose()


async def echo_all(conn: MuxedConn) -> None:
    async with anyio.create_task_group() as tasks:
        try:
            while True:
                tasks.start_soon(_echo, await conn.accept())
        except Closed:
            return


async def pair_of_streams(opener: MuxedConn, accepter: MuxedConn) -> tuple[MuxedStream, MuxedStream]:
    near = await opener.open()
    await near.send(b"?")
    far = await accepter.accept()
    assert await far.receive() == b"?", "the first byte of a stream did not arrive"
    return near, far


async def expect_reset(action: Callable[[], Awaitable[object]], what: str) -> None:
    try:
        while True:
            await action()
    except Reset:
        return
    except Closed as error:
        raise AssertionError(f"{what}: an orderly end ({error!r}) instead of a reset") from error


# The scenes


async def expect_closed(action: Callable[[], Awaitable[object]]) -> None:
    try:
        await action()
    except Closed:
        return
    raise AssertionError("the connection has ended and goes on")
