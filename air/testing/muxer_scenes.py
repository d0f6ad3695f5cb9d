"""What two joined ends of a muxer are put through by :func:`air.testing.check_muxer.check_muxer`. (shell)

Each scene is told two connections, either of them may be the one that dialled, and raises AssertionError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import anyio
from anyio.lowlevel import checkpoint

from air.base.errors import Closed, LimitReached, Misuse, Reset
from air.mux.api import MuxedConn, MuxedStream, Priority
from air.testing.muxer_streams import (
    echo_all,
    expect_closed,
    expect_reset,
    noise,
    pair_of_streams,
    read_all,
)
from air.testing.running import cancel_as_bytes_come

__all__ = ["SCENES", "Scene"]

Scene = Callable[[MuxedConn, MuxedConn], Awaitable[None]]

MIB: Final = 1024 * 1024


async def streams_go_both_ways(a: MuxedConn, b: MuxedConn) -> None:
    """Either side opens; bytes go in both directions; the first word may come from the accepting side."""
    for opener, accepter in ((a, b), (b, a)):
        near, far = await pair_of_streams(opener, accepter)
        assert near.outbound
        assert not far.outbound
        await far.send(b"hello")
        assert await near.receive() == b"hello"
        await near.aclose()
        await far.aclose()
        silent = await opener.open()
        spoken = await accepter.accept()
        await spoken.send(b"first")
        assert await silent.receive() == b"first"
        await silent.aclose()
        await spoken.aclose()


async def receive_gives_at_most_what_was_asked_for(a: MuxedConn, b: MuxedConn) -> None:
    """Bytes come in order whatever sizes they were sent and are asked for in."""
    near, far = await pair_of_streams(a, b)
    sizes = [1, 2, 3, 700, 1, 1, 65_536, 5, 100_000, 1] + [3] * 2000
    data = noise(sum(sizes), "sizes")

    async def write() -> None:
        position = 0
        for size in sizes:
            await near.send(data[position : position + size])
            position += size
        await near.send_eof()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        parts, wanted = [], 1
        while True:
            try:
                part = await far.receive(wanted)
            except Closed:
                break
            assert 0 < len(part) <= wanted, f"asked for {wanted} bytes, got {len(part)}"
            parts.append(part)
            wanted = wanted * 7 % 10_007
    assert b"".join(parts) == data, "bytes were changed"


async def a_hundred_streams_echo_at_once(a: MuxedConn, b: MuxedConn) -> None:
    async def one(index: int) -> None:
        stream = await a.open()
        data = noise(index * 997 % 40_000 + 1, index)
        async with anyio.create_task_group() as both:

            async def write() -> None:
                for start in range(0, len(data), 5000):
                    await stream.send(data[start : start + 5000])
                await stream.send_eof()

            both.start_soon(write)
            assert await read_all(stream) == data, f"stream {index} came back changed"
        await stream.aclose()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(echo_all, b)
        async with anyio.create_task_group() as all_of_them:
            for index in range(100):
                all_of_them.start_soon(one, index)
        tasks.cancel_scope.cancel()


async def half_close_leaves_the_other_half(a: MuxedConn, b: MuxedConn) -> None:
    """After one side's end the other may send as much as it likes."""
    near, far = await pair_of_streams(a, b)
    await near.send(b"question")
    await near.send_eof()
    await near.send_eof()
    assert await read_all(far) == b"question"
    try:
        await near.send(b"more")
    except (Misuse, Closed):
        pass
    else:
        raise AssertionError("a stream took data after its end")
    answer = noise(MIB, "answer")
    async with anyio.create_task_group() as tasks:

        async def write() -> None:
            await far.send(answer)
            await far.send_eof()

        tasks.start_soon(write)
        assert await read_all(near) == answer
    try:
        await near.receive()
    except Reset as error:
        raise AssertionError("the end was taken for a reset") from error
    except Closed:
        pass
    await near.aclose()
    await far.aclose()


async def what_has_ended_is_forgotten(a: MuxedConn, b: MuxedConn) -> None:
    """Streams open at a time have different ids; once both sides have ended one, it counts no more."""
    opened: list[MuxedStream] = []
    accepted: list[MuxedStream] = []
    for opener, accepter in ((a, b), (b, a)) * 10:
        near, far = await pair_of_streams(opener, accepter)
        near.priority = Priority.BULK
        opened += [near, far]
        accepted.append(far)
    mine = [stream for stream in opened if stream not in accepted]
    for conn, streams in ((a, mine[::2] + accepted[1::2]), (b, mine[1::2] + accepted[::2])):
        assert len({stream.id for stream in streams}) == 20, "two open streams have the same id"
        assert conn.streams == 20, f"{conn.streams} streams are counted, and 20 are open"
    for number, stream in enumerate(opened):
        if number % 8 == 0:
            await stream.reset()
        else:
            await stream.send_eof()
    for stream in opened:
        with suppress(Reset):
            await read_all(stream)
        await stream.aclose()
    for _ in range(1000):
        if not a.streams and not b.streams:
            break
        await anyio.sleep(0.005)
    assert a.streams == b.streams == 0, f"all is closed, and {a.streams} and {b.streams} streams are counted"


async def resets_are_seen(a: MuxedConn, b: MuxedConn) -> None:
    """By both sides, in both directions, by readers that wait, and by nobody else."""
    other_near, other_far = await pair_of_streams(a, b)
    for resetter in (0, 1):
        ends = await pair_of_streams(a, b)
        mine, theirs = ends[resetter], ends[1 - resetter]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(expect_reset, theirs.receive, "the peer's waiting reader")
            await anyio.wait_all_tasks_blocked()
            await mine.reset()
        await mine.reset()
        await expect_reset(mine.receive, "reading after a reset")
        await expect_reset(lambda mine=mine: mine.send(b"x"), "writing after a reset")  # type: ignore[misc]
        await expect_reset(lambda theirs=theirs: theirs.send(b"x"), "writing to a stream the peer has reset")  # type: ignore[misc]
        await mine.aclose()
        await theirs.aclose()
    await other_near.send(b"still here")
    assert await other_far.receive() == b"still here", "a reset hit another stream"
    await other_near.aclose()
    await other_far.aclose()


async def a_stream_that_nobody_reads_stops_only_itself(a: MuxedConn, b: MuxedConn) -> None:
    near, _far = await pair_of_streams(a, b)
    block, limit, sent = bytes(65_536), 128 * MIB, 0

    async def fill() -> None:
        nonlocal sent
        try:
            while sent < limit:
                await near.send(block)
                sent += len(block)
        except Reset:
            # Without flow control a muxer has no other way than to give the stream up.
            return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fill)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(echo_all, b)
        for index in range(10):
            stream = await a.open()
            await stream.send(b"are you there?")
            await stream.send_eof()
            assert await read_all(stream) == b"are you there?", f"stream {index} came back changed"
            await stream.aclose()
        tasks.cancel_scope.cancel()
    await near.reset()
    assert sent < limit, "nobody read, and yet everything was taken"


async def both_sides_may_leave_a_stream_unread(a: MuxedConn, b: MuxedConn) -> None:
    """And still use others: neither waits for the other to read first."""
    stuck = [(await pair_of_streams(opener, other))[0] for opener, other in ((a, b), (b, a))]

    async def fill(stream: MuxedStream) -> None:
        try:
            for _ in range(128 * 16):
                await stream.send(bytes(65_536))
        except Reset:
            # As above.
            return

    async with anyio.create_task_group() as tasks:
        for stream in stuck:
            tasks.start_soon(fill, stream)
        await anyio.wait_all_tasks_blocked()
        for opener, other in ((a, b), (b, a)):
            near, far = await pair_of_streams(opener, other)
            await far.send(b"!")
            assert await near.receive() == b"!"
            await near.aclose()
            await far.aclose()
        tasks.cancel_scope.cancel()
    for stream in stuck:
        await stream.reset()


async def four_mebibytes_go_each_way(a: MuxedConn, b: MuxedConn) -> None:
    near, far = await pair_of_streams(a, b)
    there, back = noise(4 * MIB, "there"), noise(4 * MIB, "back")

    async def write(stream: MuxedStream, data: bytes, step: int) -> None:
        for start in range(0, len(data), step):
            await stream.send(data[start : start + step])
        await stream.send_eof()

    async def read(stream: MuxedStream, expected: bytes) -> None:
        assert await read_all(stream, 200_000) == expected, "a large transfer came out changed"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, near, there, 4 * MIB)
        tasks.start_soon(write, far, back, 30_000)
        tasks.start_soon(read, far, there)
        tasks.start_soon(read, near, back)


async def close_sends_what_was_accepted(a: MuxedConn, b: MuxedConn) -> None:
    """``aclose`` right after ``send`` loses nothing, of the stream or of the connection."""
    for size in (1, 100_000, MIB):
        near, far = await pair_of_streams(a, b)
        data = noise(size, size)
        async with anyio.create_task_group() as tasks:

            async def write(near: MuxedStream = near, data: bytes = data) -> None:
                await near.send(data)
                await near.aclose()
                await near.aclose()

            tasks.start_soon(write)
            assert await read_all(far) == data, "data was lost by closing"
        await expect_reset(near.receive, "reading after aclose")
        await far.aclose()
    near, far = await pair_of_streams(a, b)
    data = noise(200_000, "last words")
    await near.send(data)
    await near.send_eof()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(a.aclose)
        assert await read_all(far) == data, "data was lost by closing the connection"


async def streams_have_a_ceiling(a: MuxedConn, b: MuxedConn) -> None:
    """Opening without end waits or is refused; afterwards the connection is as good as before."""
    opened: list[MuxedStream] = []
    with anyio.move_on_after(0.25):
        while len(opened) < 5000:
            try:
                opened.append(await a.open())
            except LimitReached:
                break
    assert len(opened) < 5000, "there is no limit to unaccepted streams"
    for stream in opened:
        await stream.reset()
    accepted = []
    with anyio.move_on_after(0.25):
        while True:
            accepted.append(await b.accept())
    assert len(accepted) <= len(opened)
    for stream in accepted:
        await stream.aclose()
    near, far = await pair_of_streams(a, b)
    await near.aclose()
    await far.aclose()


async def shutdown_is_clean(a: MuxedConn, b: MuxedConn) -> None:
    """The peer learns of an orderly end; what is open is cut; nothing new starts."""
    near, far = await pair_of_streams(a, b)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(expect_reset, far.receive, "a reader of an open stream at the end of the connection")
        tasks.start_soon(expect_closed, b.accept)
        await anyio.wait_all_tasks_blocked()
        await a.aclose()
    await a.aclose()
    await expect_reset(near.receive, "reading after the end")
    for conn in (a, b):
        await expect_closed(conn.open)
        await expect_closed(conn.accept)


async def an_abort_waits_for_nobody(a: MuxedConn, b: MuxedConn) -> None:
    """What is open is cut on both sides, although the peer reads nothing of what was sent."""
    near, far = await pair_of_streams(a, b)
    await near.send(noise(1000, "unread"))
    await a.abort()
    await a.abort()
    await expect_reset(near.receive, "reading after an abort")
    await expect_reset(far.receive, "reading after an abort of the peer")
    for conn in (a, b):
        await expect_closed(conn.accept)


async def a_cancelled_call_breaks_nothing(a: MuxedConn, b: MuxedConn) -> None:
    """Cancelled reads and accepts lose nothing; a cancelled small send sends nothing."""
    with anyio.move_on_after(0.01):
        await b.accept()
    near, far = await pair_of_streams(a, b)
    with anyio.move_on_after(0.01):
        await far.receive()
    await near.send(b"kept")
    assert await far.receive() == b"kept", "a cancelled read lost data"
    await cancel_as_bytes_come(near, far)
    for turn in range(8):
        await _cancel_as_a_stream_comes(a, b, turn)
    sent = 0
    block = noise(1500, "block")
    try:
        for _ in range(100_000):
            with anyio.fail_after(0.1):
                await near.send(block)
            sent += 1
    except TimeoutError:
        pass
    except Reset:
        return
    assert sent < 100_000, "nobody read, and yet everything was taken"
    async with anyio.create_task_group() as tasks:

        async def write() -> None:
            await near.send(b"end")
            await near.send_eof()

        tasks.start_soon(write)
        try:
            assert await read_all(far) == block * sent + b"end", "a cancelled send left something behind"
        except Reset:
            # Allowed where a protocol gives up a stream that nobody reads.
            tasks.cancel_scope.cancel()


async def _cancel_as_a_stream_comes(opener: MuxedConn, accepter: MuxedConn, turn: int) -> None:
    got: list[MuxedStream] = []
    scope = anyio.CancelScope()

    async def accept() -> None:
        with scope:
            got.append(await accepter.accept())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accept)
        await checkpoint()
        near = await opener.open()
        await near.send(b"?")
        for _ in range(turn * 2):
            await checkpoint()
        scope.cancel()
    with anyio.move_on_after(2):
        while not got:
            got.append(await accepter.accept())
    assert got, "a stream got lost with an accept that was cancelled as it came"
    for stream in (near, *got):
        await stream.aclose()


SCENES: Final[tuple[Scene, ...]] = (
    streams_go_both_ways,
    receive_gives_at_most_what_was_asked_for,
    a_hundred_streams_echo_at_once,
    half_close_leaves_the_other_half,
    what_has_ended_is_forgotten,
    resets_are_seen,
    a_stream_that_nobody_reads_stops_only_itself,
    both_sides_may_leave_a_stream_unread,
    four_mebibytes_go_each_way,
    close_sends_what_was_accepted,
    streams_have_a_ceiling,
    shutdown_is_clean,
    an_abort_waits_for_nobody,
    a_cancelled_call_breaks_nothing,
)
