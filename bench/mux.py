"""How fast the multiplexers are, alone: both ends in one process over memory pipes. (root)

    .venv/bin/python -m bench.mux                 # Air's yamux and mplex on asyncio, uvloop and trio
    .venv/bin/python -m bench.mux --only yamux --seconds 3

Where ``libp2p`` from PyPI can be imported, its yamux runs the same work over the same pipes. Rates are per
second of this process's CPU time, because both ends share one thread and a busy machine would otherwise
measure itself; ``--wall`` takes the clock on the wall instead. ``-`` stands for work that came to no end.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio

from air.base.env import Env
from air.base.errors import Closed
from air.mux.mplex.conn import Mplex
from air.mux.yamux.conn import Yamux
from air.transport.memory import MemoryStream, memory_pair

KIB, MIB = 1024, 1024 * 1024
SMALL = bytes(200)


class Stream(Protocol):
    async def receive(self, max_bytes: int = ..., /) -> bytes: ...
    async def send(self, data: bytes, /) -> None: ...
    async def send_eof(self) -> None: ...
    async def aclose(self) -> None: ...


class Conn(Protocol):
    async def open(self) -> Any: ...
    async def accept(self) -> Any: ...


class Meter:
    """Counts until the time is up."""

    def __init__(self, seconds: float, wall: bool) -> None:
        self.clock = time.perf_counter if wall else time.process_time
        self.seconds = seconds
        self.count = 0
        self.start = self.clock()

    @property
    def running(self) -> bool:
        return self.clock() - self.start < self.seconds

    @property
    def rate(self) -> float:
        return self.count / (self.clock() - self.start)


# The work


async def bulk(a: Conn, b: Conn, meter: Meter) -> None:
    """Bytes through one stream, written 64 KiB at a time."""
    near, far = await a.open(), None
    block = bytes(64 * KIB)
    await near.send(b"?")
    far = await b.accept()
    await far.receive(1)

    async def write() -> None:
        while True:
            await near.send(block)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        while meter.running:
            for _ in range(64):
                meter.count += len(await far.receive(256 * KIB))
        tasks.cancel_scope.cancel()


async def opened(a: Conn, b: Conn, meter: Meter) -> None:
    """Streams opened, used for one byte and closed by both sides, 8 at a time."""

    async def near() -> None:
        while meter.running:
            stream = await a.open()
            await stream.send(b"x")
            await stream.send_eof()
            try:
                while True:
                    await stream.receive(10)
            except Closed:
                await stream.aclose()
            meter.count += 1

    async def far() -> None:
        while True:
            stream = await b.accept()
            await stream.receive(10)
            await stream.send_eof()
            await stream.aclose()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(far)
        async with anyio.create_task_group() as openers:
            for _ in range(8):
                openers.start_soon(near)
        tasks.cancel_scope.cancel()


def request_response(streams: int) -> Callable[[Conn, Conn, Meter], Awaitable[None]]:
    """200 bytes there and 200 back, one at a time on each stream."""

    async def work(a: Conn, b: Conn, meter: Meter) -> None:
        async def ask(stream: Stream) -> None:
            while meter.running:
                await stream.send(SMALL)
                missing = len(SMALL)
                while missing:
                    missing -= len(await stream.receive(missing))
                meter.count += 1

        async def answer(stream: Stream) -> None:
            while True:
                await stream.send(await stream.receive(KIB))

        async with anyio.create_task_group() as tasks:
            pairs = []
            for _ in range(streams):
                near = await a.open()
                await near.send(b"?")
                far = await b.accept()
                await far.receive(1)
                tasks.start_soon(answer, far)
                pairs.append(near)
            async with anyio.create_task_group() as asking:
                for near in pairs:
                    asking.start_soon(ask, near)
            tasks.cancel_scope.cancel()

    return work


WORK = {
    "bulk": bulk,
    "opened": opened,
    "ask-1": request_response(1),
    "ask-100": request_response(100),
}
UNITS = {"bulk": "MB/s", "opened": "streams/s", "ask-1": "round trips/s", "ask-100": "round trips/s"}


# Who does it


@asynccontextmanager
async def air(muxer: Yamux | Mplex) -> AsyncIterator[tuple[Conn, Conn]]:
    near, far = memory_pair()
    a, b = muxer.wrap(near, dialer=True, env=Env()), muxer.wrap(far, dialer=False, env=Env())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(a.run)
        tasks.start_soon(b.run)
        yield a, b
        tasks.cancel_scope.cancel()


class ForeignIo:
    """What libp2p's yamux asks of a connection."""

    def __init__(self, stream: MemoryStream, initiator: bool) -> None:
        self._stream, self.is_initiator = stream, initiator
        self._writing = anyio.Lock()

    async def read(self, n: int | None = None) -> bytes:
        try:
            return await self._stream.receive(65536 if n is None else n)
        except Closed:
            return b""

    async def write(self, data: bytes) -> None:
        async with self._writing:
            await self._stream.send(data)

    async def close(self) -> None:
        await self._stream.aclose()


class ForeignStream:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        from libp2p.stream_muxer.exceptions import MuxedStreamEOF

        try:
            data = await self.inner.read(max_bytes)
        except MuxedStreamEOF:
            raise Closed from None
        if not data:
            raise Closed
        return data

    async def send(self, data: bytes, /) -> None:
        await self.inner.write(data)

    async def send_eof(self) -> None:
        await self.inner.close()

    async def aclose(self) -> None:
        await self.inner.close()


class ForeignConn:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def open(self) -> ForeignStream:
        return ForeignStream(await self.inner.open_stream())

    async def accept(self) -> ForeignStream:
        return ForeignStream(await self.inner.accept_stream())


@asynccontextmanager
async def foreign() -> AsyncIterator[tuple[Conn, Conn]]:
    from libp2p.peer.id import ID
    from libp2p.stream_muxer.yamux.yamux import Yamux as ForeignYamux

    near, far = memory_pair()
    conns = [ForeignYamux(ForeignIo(s, i), ID(b"\x00" * 34), i) for s, i in ((near, True), (far, False))]
    async with anyio.create_task_group() as tasks:
        for conn in conns:
            tasks.start_soon(conn.start)
            await conn.event_started.wait()
        yield ForeignConn(conns[0]), ForeignConn(conns[1])
        tasks.cancel_scope.cancel()


def sides() -> dict[str, tuple[Callable[[], Any], str, dict[str, Any]]]:
    """name -> (connects both ends, backend, its options)"""
    found: dict[str, tuple[Callable[[], Any], str, dict[str, Any]]] = {
        "yamux asyncio": (lambda: air(Yamux()), "asyncio", {}),
        "yamux uvloop": (lambda: air(Yamux()), "asyncio", {"use_uvloop": True}),
        "yamux trio": (lambda: air(Yamux()), "trio", {}),
        "mplex asyncio": (lambda: air(Mplex()), "asyncio", {}),
        "mplex trio": (lambda: air(Mplex()), "trio", {}),
    }
    try:
        import libp2p.stream_muxer.yamux.yamux  # noqa: F401
    except ImportError:
        print("libp2p is not installed here: Air alone", file=sys.stderr)
    else:
        found["py-libp2p yamux trio"] = (foreign, "trio", {})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1.5, help="how long each number is measured")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many is printed")
    parser.add_argument("--only", default="", help="sides whose name contains this")
    parser.add_argument("--wall", action="store_true", help="per second on the wall, not of CPU time")
    options = parser.parse_args()

    async def measure(connect: Callable[[], Any], name: str) -> float:
        async with connect() as (a, b):
            meter = Meter(options.seconds, options.wall)
            with anyio.move_on_after(options.seconds * 20):
                await WORK[name](a, b, meter)
                return meter.rate / (1e6 if name == "bulk" else 1)
            return 0.0

    print(f"{'':22}" + "".join(f"{name + ' ' + UNITS[name]:>22}" for name in WORK))
    for title, (connect, backend, backend_options) in sides().items():
        if options.only in title:
            cells = []
            for name in WORK:
                rates = [
                    anyio.run(measure, connect, name, backend=backend, backend_options=backend_options)
                    for _ in range(options.rounds)
                ]
                cells.append(f"{max(rates):>22,.0f}" if max(rates) else f"{'-':>22}")
            print(f"{title:22}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
