"""The stream of a socket on asyncio: bounded, cancellable, and honest about the end."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketStream

from air.base.errors import Closed, Reset
from air.transport.api import can_send_now
from air.transport.loop_stream import LoopStream, adopt, connect, lighter
from air.transport.tcp import TcpStream
from air.transport.tcp_transport import socket_address

pytestmark = pytest.mark.anyio


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both loops that asyncio may run on; trio has a stream of its own."""
    backend: tuple[str, dict[str, bool]] = request.param
    return backend


@asynccontextmanager
async def joined(*, greeting: bytes = b"") -> AsyncIterator[tuple[TcpStream, LoopStream, socket.socket]]:
    """A stream, what it stands on, and the plain socket at the other end."""
    with socket.create_server(("127.0.0.1", 0)) as server, anyio.fail_after(10):
        near = socket.create_connection(server.getsockname())
        near.setblocking(False)
        far, _ = server.accept()
        far.settimeout(5)
        with far:
            below = await SocketStream.from_socket(near)
            if greeting:
                far.sendall(greeting)
                await anyio.sleep(0.02)  # let anyio's own protocol read it
            inner = lighter(below)
            assert isinstance(inner, LoopStream)
            stream = TcpStream(inner, "far")
            yield stream, inner, far
            await stream.aclose()


async def test_a_stream_connects_to_an_address_or_a_name_and_is_made_of_an_accepted_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            near = await connect(host, port)
            accepted, _ = server.accept()
            accepted.setblocking(False)
            far = await adopt(accepted)
            assert isinstance(near, LoopStream)
            assert isinstance(far, LoopStream)
            await near.send(b"there")
            assert await far.receive() == b"there"
            await far.send(b"and back")
            assert await near.receive() == b"and back"
            await near.send_eof()
            with pytest.raises(anyio.EndOfStream):
                await far.receive()
            await far.aclose()
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await near.receive()
            await near.aclose()
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await connect("127.0.0.1", port)


async def test_a_connect_that_is_given_up_leaves_no_socket() -> None:
    # Nobody accepts and the backlog is full: a further connection waits for ever.
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(server.getsockname())
            counts = []
            for _ in range(3):
                with anyio.move_on_after(0.05) as scope:
                    await connect(*server.getsockname())
                assert scope.cancelled_caught
                await anyio.sleep(0.01)
                counts.append(len(os.listdir("/proc/self/fd")))
            # The loop itself may have opened something for the first one.
            assert counts[1:] == counts[:1] * 2
        finally:
            for one in waiting:
                one.close()


async def take(stream: TcpStream, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        got += await stream.receive(size - len(got))
    return bytes(got)


async def test_what_nobody_asks_for_is_not_read_beyond_one_piece() -> None:
    data = bytes(range(256)) * 32 * 1024
    async with joined() as (stream, inner, far):
        far.setblocking(False)
        sent = 0
        for _ in range(20):
            await anyio.sleep(0.01)
            try:
                while sent < len(data):
                    sent += far.send(data[sent : sent + 65536])
            except BlockingIOError:
                continue
        assert sent < len(data), "everything was taken although nobody asked for it"
        assert sum(map(len, inner._chunks)) <= 512 * 1024
        got = bytearray()
        while len(got) < len(data):
            got += await stream.receive(100_000)
            try:
                sent += far.send(data[sent : sent + 262144])
            except BlockingIOError:
                continue
        assert got == data


async def test_what_came_before_the_stream_was_taken_over_is_not_lost() -> None:
    async with joined(greeting=b"hello") as (stream, _, far):
        far.sendall(b" again")
        assert await take(stream, 11) == b"hello again"


async def test_a_receive_that_is_cancelled_loses_nothing() -> None:
    async with joined() as (stream, _, far):
        for number in range(50):
            with anyio.move_on_after(0.0005 * (number % 4)):
                far.sendall(b"%02d" % number)
                assert await stream.receive(2) == b"%02d" % number
                continue
            assert await take(stream, 2) == b"%02d" % number


async def test_the_end_is_told_after_what_came_before_it_and_the_other_way_stays_open() -> None:
    async with joined() as (stream, _, far):
        far.sendall(b"last words")
        far.shutdown(socket.SHUT_WR)
        assert await take(stream, 10) == b"last words"
        for _ in range(2):
            with pytest.raises(Closed) as caught:
                await stream.receive()
            assert type(caught.value) is Closed
        await stream.send(b"answer")
        await stream.send_eof()
        assert await anyio.to_thread.run_sync(far.recv, 100) == b"answer"
        assert await anyio.to_thread.run_sync(far.recv, 100) == b""


async def test_two_tasks_cannot_do_the_same_thing_at_once() -> None:
    async with joined() as (_, inner, _far), anyio.create_task_group() as tasks:
        tasks.start_soon(inner.receive)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await inner.receive()
        tasks.start_soon(inner.send, bytes(32 * 1024 * 1024))
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await inner.send(b"x")
        tasks.cancel_scope.cancel()


async def test_who_waits_learns_that_the_stream_was_closed_or_cut() -> None:
    async def fails(work: object) -> None:
        with pytest.raises(Reset):
            await work  # type: ignore[misc]

    for cut in (True, False):
        async with joined() as (stream, _, far):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fails, stream.receive())
                tasks.start_soon(fails, stream.send(bytes(32 * 1024 * 1024)))
                await anyio.wait_all_tasks_blocked()
                if cut:
                    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    far.close()
                else:
                    await stream.aclose()
            with pytest.raises(Reset):
                await stream.send(b"x")


async def test_a_stream_that_is_gone_can_still_be_asked_and_ended() -> None:
    async with joined() as (stream, _, far):
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        with pytest.raises(Reset):
            await stream.receive()
        await stream.send_eof()
        await stream.aclose()
        await stream.send_eof()
        assert socket_address(stream) is None


async def test_bytes_leave_at_once_while_nothing_else_waits_to_leave() -> None:
    async with joined() as (stream, _, far):
        assert can_send_now(stream)
        stream.send_now([b"one", b"two"])
        assert far.recv(100) in (b"one", b"onetwo")
        with anyio.move_on_after(0.05):
            await stream.send(bytes(32 * 1024 * 1024))
        assert not can_send_now(stream), "what the system has not taken would be overtaken"
        await stream.aclose()
        assert not can_send_now(stream)
