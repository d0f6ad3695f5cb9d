"""Air's bare connections as load for a listener of any implementation. (shell)

No node around them: a connection is dialled, secured, multiplexed, used and closed, so that what is measured
at the other side is that side's work. Streams that the listener opens, such as its identify, are reset.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from air.base.address import Multiaddr
from air.base.env import Env
from air.base.errors import AirError, Closed, Reset
from air.base.keys import Identity
from air.mux.api import MuxedConn
from air.mux.yamux.conn import Yamux
from air.negotiate.multistream import MultistreamConfig
from air.negotiate.select import propose_lazily
from air.protocols.echo import PROTOCOL as ECHO
from air.security.noise import Noise
from air.swarm.upgrade import UpgradeConfig, Upgrader
from air.transport.api import ByteStream
from air.transport.tcp_transport import Tcp

__all__ = ["ask", "connected", "hold", "knock", "open_streams"]

ENV = Env()
SMALL = bytes(200)
ABREAST = 8
"""Connections or streams opened at a time: enough that the listener never waits for us."""

_MULTISTREAM = MultistreamConfig()


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[MuxedConn]:
    """A connection over tcp, noise and yamux, with a fresh identity."""
    where, peer = _target(address)
    raw = await Tcp().dial(where)
    upgrader = Upgrader(Identity.generate(), [Noise()], [Yamux()], ENV, UpgradeConfig())
    conn = (await upgrader.upgrade(raw, dialer=True, expected=peer)).muxed
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(conn.run)
        tasks.start_soon(_refuse, conn)
        try:
            yield conn
        finally:
            await conn.aclose()
            tasks.cancel_scope.cancel()


async def knock(address: str, seconds: float) -> float:
    """Connect and leave, several at a time; returns how many connections came about.

    A listener may cut some of them; what that cost it counts among the others. Raises what it did when
    it cuts nearly all.
    """
    count, cut, end = 0, 0, time.monotonic() + seconds

    async def one() -> None:
        nonlocal count, cut
        while time.monotonic() < end:
            try:
                async with connected(address) as conn:
                    # The dialler is done a message earlier: an answer shows that the listener is as well.
                    await _first_answer(conn)
                    count += 1
            except* AirError:
                cut += 1
                if cut > 3 * count + ABREAST:
                    raise

    async with anyio.create_task_group() as tasks:
        for _ in range(ABREAST):
            tasks.start_soon(one)
    if cut:
        print(f"{cut} of {cut + count} connections were cut", file=sys.stderr)
    return count


async def open_streams(address: str, seconds: float) -> float:
    """Open a stream, echo a byte through it, close it, several at a time; returns how many."""
    count = 0
    async with connected(address) as conn:
        end = time.monotonic() + seconds

        async def one() -> None:
            nonlocal count
            while time.monotonic() < end:
                stream = await _echo(conn)
                await stream.send(b"x")
                await stream.send_eof()
                await _to_the_end(stream)
                await stream.aclose()
                count += 1

        async with anyio.create_task_group() as tasks:
            for _ in range(ABREAST):
                tasks.start_soon(one)
    return count


def ask(streams: int) -> Callable[[str, float], Awaitable[float]]:
    """200 bytes there and 200 back, one question at a time on each of so many streams; returns how many."""

    async def work(address: str, seconds: float) -> float:
        count = 0
        async with connected(address) as conn:
            lines = [await _echo(conn) for _ in range(streams)]
            end = time.monotonic() + seconds

            async def one(stream: ByteStream) -> None:
                nonlocal count
                while time.monotonic() < end:
                    await stream.send(SMALL)
                    missing = len(SMALL)
                    while missing:
                        missing -= len(await stream.receive(missing))
                    count += 1

            async with anyio.create_task_group() as tasks:
                for stream in lines:
                    tasks.start_soon(one, stream)
        return count

    return work


@asynccontextmanager
async def hold(address: str, count: int) -> AsyncIterator[None]:
    """So many idle connections, each of another peer, as long as the block lasts."""
    async with anyio.create_task_group() as tasks:
        gate = anyio.Semaphore(ABREAST)

        async def one(*, task_status: anyio.abc.TaskStatus[None]) -> None:
            async with connected(address) as conn:
                await _first_answer(conn)
                task_status.started()
                await anyio.sleep_forever()

        async def start() -> None:
            async with gate:
                await tasks.start(one)

        async with anyio.create_task_group() as starting:
            for _ in range(count):
                starting.start_soon(start)
        yield
        tasks.cancel_scope.cancel()


def _target(address: str) -> tuple[Multiaddr, object]:
    whole = Multiaddr(address)
    return whole.bare or whole, whole.peer


async def _echo(conn: MuxedConn) -> ByteStream:
    return propose_lazily(await conn.open(), ECHO, env=ENV, config=_MULTISTREAM)


async def _first_answer(conn: MuxedConn) -> None:
    stream = await _echo(conn)
    await stream.send(b"x")
    await stream.receive()
    await stream.send_eof()
    await _to_the_end(stream)
    await stream.aclose()


async def _to_the_end(stream: ByteStream) -> None:
    try:
        while True:
            await stream.receive()
    except Reset:
        raise
    except Closed:
        return


async def _refuse(conn: MuxedConn) -> None:
    while True:
        try:
            stream = await conn.accept()
        except AirError:
            return
        await stream.reset()
