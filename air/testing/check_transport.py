"""What every Transport has to do, as a suite that anybody can run against their own. (shell)

    await check_transport(Tcp(), "/ip4/127.0.0.1/tcp/0")

runs all of ``CHECKS``; with ``only="nothing_is_lost"`` one of them. Whatever goes wrong comes as an
AssertionError that names the check, what does not come to an end as a TimeoutError. Checks of a connection
run twice: the dialling side in the first role, then the accepting side.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio

from air.base.address import Multiaddr
from air.base.errors import Closed, ConfigError, Reset, Unreachable
from air.testing.running import cancel_as_bytes_come, run_checks
from air.transport.api import ByteStream, can_send_now
from air.transport.raw import RawConn, RawListener, Transport

__all__ = ["CHECKS", "check_transport"]

MIB: Final = 1024 * 1024

Check = Callable[[Transport, Multiaddr], Awaitable[None]]


async def check_transport(
    transport: Transport,
    address: str | Multiaddr,
    *,
    half_closes: bool = True,
    only: str | None = None,
    seconds: float = 60.0,
) -> None:
    """Run the suite. ``address`` is where to listen, with a port that the system picks; ``half_closes`` is
    False for a transport where the end of one direction is that of both, as it is for WebSocket."""
    where = Multiaddr(str(address))

    async def run(check: Check, swapped: bool) -> None:
        if half_closes or check is not CHECKS["one_end_leaves_the_other_direction"]:
            await check(transport, where)

    await run_checks(CHECKS, run, only=only, seconds=seconds, roles=("the transport",))


class _Scene:
    """A listener at work, and the connections that it has accepted."""

    def __init__(self, transport: Transport, listener: RawListener) -> None:
        self.transport, self.listener = transport, listener
        self.address = listener.addresses[0]
        self._send, self._receive = anyio.create_memory_object_stream[RawConn](256)
        self._done: dict[int, anyio.Event] = {}

    async def hold(self, conn: RawConn) -> None:
        done = self._done[id(conn)] = anyio.Event()
        await self._send.send(conn)
        await done.wait()

    async def pair(self) -> tuple[RawConn, RawConn]:
        near = await self.transport.dial(self.address)
        return near, await self._receive.receive()

    def release(self) -> None:
        """Let the handlers of all connections return."""
        for done in self._done.values():
            done.set()

    def close(self) -> None:
        self._send.close()
        self._receive.close()


@asynccontextmanager
async def _scene(transport: Transport, where: Multiaddr) -> AsyncIterator[_Scene]:
    async with transport.listen(where) as listener, anyio.create_task_group() as tasks:
        scene = _Scene(transport, listener)
        tasks.start_soon(listener.serve, scene.hold)
        yield scene
        scene.release()
        tasks.cancel_scope.cancel()
    scene.close()


Talk = Callable[[RawConn, RawConn], Awaitable[None]]


def _both_ways(talk: Talk) -> Check:
    async def check(transport: Transport, where: Multiaddr) -> None:
        async with _scene(transport, where) as scene:
            for swapped in (False, True):
                near, far = await scene.pair()
                await (talk(far, near) if swapped else talk(near, far))
                await near.aclose()
                await far.aclose()

    check.__name__ = talk.__name__.lstrip("_")
    return check


async def _take(stream: ByteStream, size: int, most: int = 65536) -> bytes:
    parts: list[bytes] = []
    missing = size
    while missing:
        data = await stream.receive(min(missing, most))
        assert data, "receive returned nothing, where the end is told by Closed"
        assert len(data) <= min(missing, most), "receive returned more than was asked for"
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


async def _take_all(stream: ByteStream) -> bytes:
    parts = []
    while True:
        try:
            parts.append(await stream.receive())
        except Closed:
            return b"".join(parts)
        assert parts[-1], "receive returned nothing, where the end is told by Closed"


# The checks


async def _bytes_go_both_ways(a: RawConn, b: RawConn) -> None:
    """In order, in pieces no larger than asked for."""
    await a.send(b"hello")
    assert await _take(b, 5, 2) == b"hello", "five bytes did not arrive as they were sent"
    await b.send(b"you too")
    assert await _take(a, 7) == b"you too", "the answer did not arrive as it was sent"
    await a.send(b"")
    await a.send(b"!")
    assert await _take(b, 1) == b"!", "an empty send disturbed the next"
    pieces = [b"one", memoryview(b"-two-"), bytearray(b"three")]
    if hasattr(b, "send_many"):
        await b.send_many(pieces)
        assert await _take(a, 13) == b"one-two-three", "the pieces of send_many did not arrive in order"
    if can_send_now(b):
        b.send_now(pieces)  # type: ignore[attr-defined]
        assert await _take(a, 13) == b"one-two-three", "the pieces of send_now did not arrive in order"


async def _nothing_is_lost(a: RawConn, b: RawConn) -> None:
    """Four MiB each way at once, in odd pieces, through readers of different speed."""
    there, back = (random.Random(seed).randbytes(4 * MIB) for seed in (1, 2))

    async def write(stream: RawConn, data: bytes) -> None:
        dice, at = random.Random(3), 0
        while at < len(data):
            size = dice.choice((1, 100, 5_000, 70_000, 300_000))
            await stream.send(data[at : at + size])
            at += size

    async def read(stream: RawConn, data: bytes, most: int) -> None:
        assert await _take(stream, len(data), most) == data, "bytes were changed, lost or swapped"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, a, there)
        tasks.start_soon(write, b, back)
        tasks.start_soon(read, b, there, 10_000)
        tasks.start_soon(read, a, back, 200_000)


async def _a_writer_waits_for_a_reader(a: RawConn, b: RawConn) -> None:
    """Memory does not grow with what is not read: at some point ``send`` waits."""
    piece, sent = bytes(256 * 1024), 0
    with anyio.move_on_after(1.0) as scope:
        while sent < 256 * MIB:
            await a.send(piece)
            sent += len(piece)
    assert scope.cancelled_caught, f"{sent} bytes were taken although nobody reads"


async def _a_cancelled_receive_loses_nothing(a: RawConn, b: RawConn) -> None:
    """The next call gets the bytes."""
    for number in range(20):
        with anyio.move_on_after(0.001 * (number % 3)):
            await b.receive()
            raise AssertionError("something was received that nobody has sent")
        await a.send(b"abc")
        assert await _take(b, 3) == b"abc", "bytes got lost with a cancelled receive"
    await cancel_as_bytes_come(a, b)


async def _the_end_comes_after_the_data(a: RawConn, b: RawConn) -> None:
    """Who ends lets the other side read what was sent, then Closed; who closes can do nothing any more."""
    data = bytes(100_000)
    await a.send(data)
    await a.send_eof()
    assert await _take(b, len(data)) == data, "data before the end was lost"
    try:
        await b.receive()
        raise AssertionError("bytes after the end")
    except Reset as error:
        raise AssertionError(f"an orderly end was reported as {error!r}") from error
    except Closed:
        pass
    await a.aclose()
    await a.aclose()
    for action in (a.receive, lambda: a.send(b"x")):
        try:
            await action()
            raise AssertionError("a closed stream still works")
        except Closed:
            pass
    try:
        # The first write after the peer has gone may still be taken by the system.
        for _ in range(1000):
            await b.send(bytes(65536))
        raise AssertionError("writing to a peer that has gone goes on for ever")
    except Closed:
        pass


async def _one_end_leaves_the_other_direction(a: RawConn, b: RawConn) -> None:
    """Who has said the end goes on reading."""
    await a.send_eof()
    assert await _take_all(b) == b""
    data = bytes(100_000)
    try:
        await b.send(data)
        assert await _take(a, len(data)) == data
    except Closed as error:
        raise AssertionError("send_eof has ended the other direction too") from error
    await b.send_eof()
    assert await _take_all(a) == b""


async def _closing_wakes_a_reader(a: RawConn, b: RawConn) -> None:
    """A task in ``receive`` gets Closed when its own side, or the other, closes."""
    for closer in (b, a):

        async def read() -> None:
            try:
                await a.receive()
            except Closed:
                return
            raise AssertionError("bytes out of nowhere")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await closer.aclose()


async def both_ends_have_addresses(transport: Transport, where: Multiaddr) -> None:
    """``handles`` agrees with ``listen``; the dialler sees what it dialled; a peer's name does no harm."""
    assert transport.handles(where), "the transport does not handle the address it is checked with"
    assert not transport.handles(Multiaddr("/ip4/127.0.0.1/sctp/1")), "it handles what it cannot know"
    named = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
    async with _scene(transport, where) as scene:
        address = scene.address
        assert transport.handles(address), "it does not handle the address it listens on"
        whole = address / f"/p2p/{named}"
        if whole.peer is None:
            whole = address  # a path takes all that follows
        assert transport.handles(whole), "a peer's name makes it refuse an address"
        assert address.peer is None, "a listener does not know the name of its peer"
        near, far = await scene.pair()
        assert near.remote_address == address, "the dialler sees another address than it has dialled"
        assert far.remote_address.parts, "the accepting side does not know where the connection comes from"
        for conn in (near, far):
            assert hasattr(conn, "local_address"), "a connection without local_address, which may be None"
        await near.aclose()
        again = await transport.dial(whole)
        assert again.remote_address.peer is None, "remote_address has a peer's name that nobody has checked"
        await again.aclose()


async def nobody_there_is_unreachable(transport: Transport, where: Multiaddr) -> None:
    """Dialling an address that was listened on before raises Unreachable, which says what was tried."""
    async with _scene(transport, where) as scene:
        address = scene.address
    await _expect_unreachable(transport, address)


async def _expect_unreachable(transport: Transport, address: Multiaddr) -> None:
    attempts: tuple[tuple[str, str], ...] = ()
    try:
        conn = await transport.dial(address)
        await conn.aclose()
        raise AssertionError("a dial succeeded although nobody listens")
    except Unreachable as error:
        attempts = error.attempts
    assert attempts, "Unreachable without attempts"


async def an_address_is_listened_on_once(transport: Transport, where: Multiaddr) -> None:
    """Whoever comes second gets a ConfigError, and does the first no harm."""
    async with _scene(transport, where) as scene:
        try:
            async with transport.listen(scene.address):
                raise AssertionError("an address was listened on twice")
        except ConfigError:
            pass
        near, far = await scene.pair()
        await near.send(b"still here")
        assert await _take(far, 10) == b"still here"
        await near.aclose()


async def many_connect_at_once(transport: Transport, where: Multiaddr) -> None:
    """Fifty connections at a time, none mixed up with another."""

    async def echo(conn: RawConn) -> None:
        await conn.send(await _take(conn, 4))
        await _take_all(conn)

    async def ask(number: int) -> None:
        conn = await transport.dial(listener.addresses[0])
        await conn.send(number.to_bytes(4, "big"))
        assert await _take(conn, 4) == number.to_bytes(4, "big"), "an answer to somebody else"
        await conn.aclose()

    async with transport.listen(where) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, echo)
        async with anyio.create_task_group() as askers:
            for number in range(50):
                askers.start_soon(ask, number)
        tasks.cancel_scope.cancel()


async def a_failing_handler_harms_nobody(transport: Transport, where: Multiaddr) -> None:
    """A handler that raises ends its connection; the listener goes on."""
    calls = 0

    async def serve(conn: RawConn) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Reset("this one fails")
        await conn.send(b"ok")
        await _take_all(conn)

    async with transport.listen(where) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        first = await transport.dial(listener.addresses[0])
        assert await _take_all(first) == b""
        second = await transport.dial(listener.addresses[0])
        assert await _take(second, 2) == b"ok"
        await first.aclose()
        await second.aclose()
        tasks.cancel_scope.cancel()


async def closing_a_listener_spares_connections(transport: Transport, where: Multiaddr) -> None:
    """After ``close`` nobody gets in, those inside stay, and ``serve`` returns with the last of them."""
    async with transport.listen(where) as listener:
        scene = _Scene(transport, listener)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, scene.hold)
            near, far = await scene.pair()
            listener.close()
            await anyio.wait_all_tasks_blocked()
            await _expect_unreachable(transport, scene.address)
            await near.send(b"still here")
            assert await _take(far, 10) == b"still here"
            await near.aclose()
            scene.release()
        scene.close()


CHECKS: Final[dict[str, Check]] = {
    check.__name__: check
    for check in (
        both_ends_have_addresses,
        nobody_there_is_unreachable,
        an_address_is_listened_on_once,
        many_connect_at_once,
        a_failing_handler_harms_nobody,
        closing_a_listener_spares_connections,
        *map(
            _both_ways,
            (
                _bytes_go_both_ways,
                _nothing_is_lost,
                _a_writer_waits_for_a_reader,
                _a_cancelled_receive_loses_nothing,
                _the_end_comes_after_the_data,
                _one_end_leaves_the_other_direction,
                _closing_wakes_a_reader,
            ),
        ),
    )
}
"""Name -> check, in the order in which they run."""
