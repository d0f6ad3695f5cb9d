"""Both multiplexers pass the public suite, over memory and over TCP, on both event loops."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketAttribute

from air.base.clock import ManualClock
from air.base.env import Env
from air.base.errors import Closed, ConfigError, Misuse, Reset, Violation
from air.mux.api import MuxedStream, Muxer, Priority, ResetCode
from air.mux.conn import ConnConfig, CoreConn
from air.mux.mplex.config import MplexConfig
from air.mux.mplex.conn import Mplex
from air.mux.stream import CoreStream
from air.mux.yamux.config import YamuxConfig
from air.mux.yamux.conn import Yamux
from air.mux.yamux.frame import ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, WINDOW_UPDATE, encode_header
from air.testing.check_muxer import CHECKS, check_muxer
from air.transport.api import ByteStream, can_send_now
from air.transport.loop_stream import lighter
from air.transport.memory import MemoryStream, memory_pair
from air.transport.tcp import TcpStream

pytestmark = pytest.mark.anyio

MUXERS: dict[str, Muxer] = {
    "yamux": Yamux(),
    "yamux-narrow": Yamux(
        YamuxConfig(frame_bytes=1000, send_buffer_bytes=2000), ConnConfig(receive_bytes=777, write_bytes=1500)
    ),
    "yamux-wide": Yamux(YamuxConfig(window_bytes=1024 * 1024)),
    "mplex": Mplex(MplexConfig(stall_seconds=0.2, opens_max=1000)),
}


async def memory() -> tuple[ByteStream, ByteStream]:
    return memory_pair()


async def narrow_memory() -> tuple[ByteStream, ByteStream]:
    return memory_pair(100)


async def tcp() -> tuple[ByteStream, ByteStream]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = await anyio.connect_tcp(*server.getsockname())
        accepted, _ = server.accept()
    far = await anyio.abc.SocketStream.from_socket(accepted)
    near.extra(SocketAttribute.raw_socket).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return TcpStream(lighter(near), "near"), TcpStream(lighter(far), "far")


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("muxer", MUXERS)
async def test_over_memory(muxer: str, check: str) -> None:
    await check_muxer(MUXERS[muxer], memory, only=check, seconds=20)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("muxer", ["yamux", "mplex"])
async def test_over_tcp(muxer: str, check: str) -> None:
    await check_muxer(MUXERS[muxer], tcp, only=check, seconds=20)


async def test_a_failed_check_says_which_and_what() -> None:
    class Wrong(Mplex):
        """Its two sides do not speak the same protocol."""

        def wrap(self, conn: ByteStream, /, *, dialer: bool, env: Env) -> CoreConn:
            return (Yamux() if dialer else Mplex()).wrap(conn, dialer=dialer, env=env)

    with pytest.raises(AssertionError, match="streams_go_both_ways, the dialling side first: "):
        await check_muxer(Wrong(), memory, only="streams_go_both_ways")
    with pytest.raises(Misuse):
        await check_muxer(Yamux(), memory, only="no_such_check")


# What the suite cannot see from outside

OPEN = encode_header(0, WINDOW_UPDATE, SYN, 1, 0)


@asynccontextmanager
async def beside_raw_bytes(
    muxer: Yamux | Mplex, limit_bytes: int = 1024 * 1024
) -> AsyncIterator[tuple[CoreConn, MemoryStream]]:
    """A connection whose other end is written by hand."""
    near, far = memory_pair(limit_bytes)
    conn = muxer.wrap(near, dialer=False, env=Env())
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(conn.run)
            yield conn, far
            tasks.cancel_scope.cancel()


async def read_to_the_end(stream: ByteStream) -> bytes:
    parts = []
    with suppress(Closed):
        while True:
            parts.append(await stream.receive())
    return b"".join(parts)


async def test_a_violation_is_answered_before_the_connection_closes() -> None:
    async with beside_raw_bytes(Yamux()) as (conn, peer):
        await peer.send(OPEN + encode_header(0, DATA, 0, 1, 5) + b"hello")
        stream = await conn.accept()
        await peer.send(encode_header(0, 9, 0, 0, 0))
        heard = await read_to_the_end(peer)
        assert heard.endswith(encode_header(0, GO_AWAY, 0, 0, 1))
        await peer.aclose()
        with pytest.raises(Violation) as caught:
            await conn.accept()
        assert caught.value.code == "yamux.bad-type"
        assert await stream.receive() == b"hello", "what came before can still be read"
        with pytest.raises(Reset) as cut:
            await stream.receive()
        assert cut.value.code == "yamux.bad-type"


async def test_a_peer_that_answers_no_ping_is_lost() -> None:
    async with beside_raw_bytes(Yamux(YamuxConfig(answer_seconds=0.1))) as (conn, _peer):
        with pytest.raises(Reset) as caught:
            await conn.accept()
        assert caught.value.code == "yamux.keepalive"


async def test_a_peer_that_takes_nothing_is_cut() -> None:
    muxer = Yamux(YamuxConfig(ping_seconds=0.1), ConnConfig(write_seconds=0.2))
    async with beside_raw_bytes(muxer, 1000) as (conn, peer):
        assert await peer.receive() == encode_header(0, PING, SYN, 0, 1)
        await peer.send(OPEN + encode_header(0, PING, ACK, 0, 1))
        stream = await conn.accept()
        with pytest.raises(Reset) as caught:
            while True:
                await stream.send(bytes(10_000))
        assert caught.value.code == "mux.slow-peer"


async def test_a_peer_that_takes_nothing_does_not_hold_up_an_abort() -> None:
    """A close would wait for it twice, for data to leave and for the end to come."""
    async with beside_raw_bytes(Yamux(), 1000) as (conn, peer):
        await peer.send(OPEN)
        stream = await conn.accept()
        await stream.send(bytes(100_000))
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(ConnConfig().close_seconds / 2):
            await conn.abort()
            with pytest.raises(Reset):
                await stream.receive()
            with pytest.raises(Reset):
                await conn.accept()
            await read_to_the_end(peer)
        await conn.abort()
    unused = Yamux().wrap(memory_pair()[0], dialer=True, env=Env())
    await unused.abort()
    assert unused.error is not None


@pytest.mark.parametrize("flood", ["opens", "pings"])
async def test_a_flood_from_a_peer_that_reads_nothing_stops_being_read(flood: str) -> None:
    muxer = Yamux(YamuxConfig(inbound_max=1, streams_max=1, answer_seconds=60))
    async with beside_raw_bytes(muxer, 4096) as (conn, peer):
        sent = 0
        with anyio.move_on_after(0.5):
            for index in range(10**9):
                if flood == "pings":
                    await peer.send(encode_header(0, PING, SYN, 0, index) * 300)
                else:
                    opens = [
                        encode_header(0, WINDOW_UPDATE, SYN, 3 + 600 * index + 2 * n, 0) for n in range(300)
                    ]
                    await peer.send(b"".join(opens))
                sent += 3600
                await anyio.lowlevel.checkpoint()
        if flood == "opens":
            assert sent < 2 * 1024 * 1024, "answers piled up"
        assert len(conn.core._control) * 12 < 2 * 64 * 1024  # type: ignore[attr-defined]


async def test_open_waits_for_the_peer_to_accept() -> None:
    async with beside_raw_bytes(Yamux(YamuxConfig(backlog_max=1))) as (conn, peer):
        await conn.open()
        opened: list[MuxedStream] = []

        async def second() -> None:
            opened.append(await conn.open())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(second)
            await anyio.wait_all_tasks_blocked()
            assert not opened
            await peer.send(encode_header(0, WINDOW_UPDATE, ACK, 2, 0))
        assert opened


async def test_a_stream_refused_by_the_peer_says_why() -> None:
    async with beside_raw_bytes(Yamux()) as (conn, peer):
        stream = await conn.open()
        await peer.send(encode_header(0, WINDOW_UPDATE, RST, 2, ResetCode.RESOURCE_LIMIT))
        with pytest.raises(Reset) as caught:
            await stream.receive()
        assert caught.value.code == "stream.resource-limit"


async def test_a_stream_reset_before_it_was_accepted_is_not_handed_out() -> None:
    async with beside_raw_bytes(Yamux()) as (conn, peer):
        await peer.send(
            OPEN + encode_header(0, WINDOW_UPDATE, RST, 1, 0) + encode_header(0, WINDOW_UPDATE, SYN, 3, 0)
        )
        assert (await conn.accept()).id == 3


async def test_a_last_message_before_the_goodbye_is_handed_out() -> None:
    async with beside_raw_bytes(Yamux()) as (conn, peer):
        await peer.send(encode_header(0, DATA, SYN | FIN, 1, 3) + b"bye" + encode_header(0, GO_AWAY, 0, 0, 0))
        await peer.aclose()
        await anyio.wait_all_tasks_blocked()
        stream = await conn.accept()
        assert await read_to_the_end(stream) == b"bye"
        with pytest.raises(Closed):
            await conn.accept()


async def test_a_large_send_that_is_cancelled_half_way_resets_the_stream() -> None:
    async with beside_raw_bytes(Yamux(conn_config=ConnConfig(close_seconds=0.2))) as (conn, peer):
        await peer.send(OPEN)
        stream = await conn.accept()
        with anyio.move_on_after(0.05):
            await stream.send(bytes(10 * 1024 * 1024))
        with pytest.raises(Reset):
            await stream.send(b"x")
        await anyio.wait_all_tasks_blocked()
        await conn.aclose()
        assert encode_header(0, WINDOW_UPDATE, RST, 1, 0) in await read_to_the_end(peer)


async def test_a_closed_connection_that_never_ran_closes_its_stream() -> None:
    near, far = memory_pair()
    conn = Yamux().wrap(near, dialer=True, env=Env())
    await conn.aclose()
    with pytest.raises(Closed):
        await far.receive()
    with pytest.raises(Closed):
        await conn.open()
    with pytest.raises(Misuse):
        await conn.run()
        await conn.run()


async def test_a_fault_of_the_layer_below_is_how_the_connection_ends() -> None:
    class Forged(MemoryStream):
        async def receive(self, max_bytes: int = 65536, /) -> bytes:
            await super().receive(max_bytes)
            raise Violation("a forged frame", code="noise.decrypt", fatal=True)

    near, far = memory_pair()
    conn = Yamux().wrap(Forged(near._in, near._out), dialer=True, env=Env())
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(conn.run)
            await far.send(b"x")
            with pytest.raises(Violation):
                await conn.accept()
            await far.aclose()
    assert conn.error is not None
    assert conn.error.code == "noise.decrypt"


async def test_an_id_that_the_peer_gives_out_again_leaves_the_old_stream_behind() -> None:
    for end in (CoreStream.aclose, CoreStream.reset):
        async with beside_raw_bytes(Yamux()) as (conn, peer):
            await peer.send(encode_header(0, DATA, SYN | FIN, 1, 0))
            old = await conn.accept()
            assert await read_to_the_end(old) == b""
            await old.send_eof()
            await anyio.wait_all_tasks_blocked()
            await peer.send(encode_header(0, DATA, SYN, 1, 3) + b"new")
            new = await conn.accept()
            await end(old)
            await peer.send(encode_header(0, DATA, FIN, 1, 5) + b" life")
            assert await read_to_the_end(new) == b"new life"


async def test_an_end_wakes_a_send_that_waits_for_room() -> None:
    async with beside_raw_bytes(Yamux(YamuxConfig(send_buffer_bytes=1000))) as (conn, peer):
        await peer.send(encode_header(0, DATA, SYN | FIN, 1, 0))
        stream = await conn.accept()
        assert await read_to_the_end(stream) == b""
        with anyio.move_on_after(0.1):
            while True:
                await stream.send(bytes(1000))
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                with pytest.raises(Misuse):
                    await stream.send(b"late")

            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            await stream.send_eof()


async def test_a_close_does_not_wait_for_data_that_the_peer_does_not_want() -> None:
    muxer = Yamux(conn_config=ConnConfig(close_seconds=5))
    async with beside_raw_bytes(muxer) as (conn, peer):
        await peer.send(OPEN)
        stream = await conn.accept()
        await stream.send(bytes(256 * 1024))
        await stream.send(b"no credit is left for this")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(conn.aclose)
            await anyio.wait_all_tasks_blocked()
            await peer.send(encode_header(0, WINDOW_UPDATE, RST, 1, 0))
            with anyio.fail_after(2):
                assert (await read_to_the_end(peer)).endswith(encode_header(0, GO_AWAY, 0, 0, 0))
                await peer.aclose()


async def test_a_second_close_does_not_cut_the_first_one_short() -> None:
    gates = [anyio.Event(), anyio.Event()]

    class Gated(MemoryStream):
        """The next write is over when the next gate opens."""

        async def send(self, data: bytes, /) -> None:
            if gates:
                await gates[0].wait()
                del gates[0]
            await super().send(data)

    near, far = memory_pair()
    conn = Yamux(YamuxConfig(frame_bytes=1000), ConnConfig(write_bytes=1000, close_seconds=0.5)).wrap(
        Gated(near._in, near._out), dialer=False, env=Env()
    )
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(conn.run)
            await far.send(OPEN)
            stream = await conn.accept()
            await stream.send(bytes(1000))
            for _ in range(2):
                tasks.start_soon(conn.aclose)
            for gate in list(gates):
                await anyio.sleep(0.3)
                gate.set()
            heard = await read_to_the_end(far)
            assert heard.endswith(encode_header(0, GO_AWAY, 0, 0, 0))
            assert encode_header(0, DATA, 0, 1, 1000) in heard
            await far.aclose()


async def test_a_stream_below_that_fails_at_its_close_is_closed_all_the_same() -> None:
    class Failing(MemoryStream):
        async def aclose(self) -> None:
            await super().aclose()
            raise anyio.BrokenResourceError

    for before in (False, True):
        near, far = memory_pair()
        conn = Yamux().wrap(Failing(near._in, near._out), dialer=True, env=Env())
        async with anyio.create_task_group() as tasks:
            if not before:
                tasks.start_soon(conn.run)
                await anyio.wait_all_tasks_blocked()
                await far.aclose()
            with anyio.fail_after(ConnConfig().close_seconds / 2):
                await conn.aclose()
                await conn.abort()
        assert conn.error is not None


async def test_a_code_that_no_frame_can_carry_is_refused_and_the_connection_goes_on() -> None:
    async with beside_raw_bytes(Yamux()) as (conn, peer):
        for code in (-1, 2**32):
            with pytest.raises(Misuse):
                await conn.aclose(code)
        await peer.send(OPEN)
        await conn.accept()


async def test_a_stream_that_was_closed_here_is_reset_in_time() -> None:
    """Also when no deadline of the connection comes before."""
    async with beside_raw_bytes(Mplex(MplexConfig(linger_seconds=0.1))) as (conn, peer):
        await peer.send(bytes.fromhex("0000"))
        await (await conn.accept()).aclose()
        with anyio.fail_after(2):
            assert await peer.receive() == bytes.fromhex("0300")
            assert await peer.receive() == bytes.fromhex("0500")


async def test_a_slow_line_gets_small_pieces_and_a_fast_one_large_pieces() -> None:
    """Else a piece would take longer than a peer may that takes nothing, and a ping would wait for it."""
    clock = ManualClock()
    speed, sizes = 20_000.0, list[int]()

    class Line(MemoryStream):
        async def send(self, data: bytes, /) -> None:
            sizes.append(len(data))
            await super().send(data)
            clock.advance(len(data) / speed)

    near, far = memory_pair()
    muxer = Yamux(YamuxConfig(answer_seconds=1e9))
    conn = muxer.wrap(Line(near._in, near._out), dialer=False, env=Env(clock))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(conn.run)
            await far.send(encode_header(0, WINDOW_UPDATE, SYN, 1, 2**30))
            stream = await conn.accept()
            tasks.start_soon(read_to_the_end, far)

            async def carry(bytes_per_second: float) -> list[int]:
                nonlocal speed
                speed = bytes_per_second
                sizes.clear()
                for _ in range(8):
                    await stream.send(bytes(256 * 1024))
                await anyio.wait_all_tasks_blocked()
                return sizes

            assert max(await carry(20_000)) < 20_000 * ConnConfig().write_seconds
            assert max(await carry(100e6)) > 200 * 1024
            # That a line has become slow shows in the first piece.
            assert max((await carry(20_000))[1:]) < 20_000 * ConnConfig().write_seconds
            tasks.cancel_scope.cancel()


async def test_reading_goes_on_although_the_writer_never_rests() -> None:
    """mplex has no credit that would run out while nothing is read."""
    muxer = Mplex(MplexConfig(inbound_max=2, control_bytes_max=1000))
    async with beside_raw_bytes(muxer, 1000) as (conn, peer):
        await peer.send(bytes.fromhex("0000" + "0800"))
        one, two = await conn.accept(), await conn.accept()

        async def fill(stream: MuxedStream) -> None:
            while True:
                await stream.send(bytes(65_536))

        async def take() -> None:
            while True:
                await peer.receive()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fill, one)
            tasks.start_soon(fill, two)
            # Streams that are refused, until the answers are too many.
            with anyio.move_on_after(0.2):
                while True:
                    await peer.send(bytes.fromhex("1000") * 500)
            assert "reader waits for readers" in next(conn.tell_state())
            tasks.start_soon(take)
            await peer.send(bytes.fromhex("0201") + b"!")
            assert await one.receive() == b"!"
            tasks.cancel_scope.cancel()


def test_times_and_sizes_that_cannot_work_are_refused() -> None:
    for bad in ({"receive_bytes": 0}, {"write_bytes": 0}, {"write_seconds": -1.0}, {"close_seconds": 0}):
        with pytest.raises(ConfigError):
            ConnConfig(**bad)  # type: ignore[arg-type]


async def test_urgent_streams_overtake_a_bulk_transfer() -> None:
    near, far = memory_pair(64 * 1024)
    a, b = Yamux().wrap(near, dialer=True, env=Env()), Yamux().wrap(far, dialer=False, env=Env())
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(a.run)
            tasks.start_soon(b.run)
            bulk, talk = await a.open(Priority.BULK), await a.open()
            talk.priority = Priority.CONTROL
            bulk_far, talk_far = await b.accept(), await b.accept()
            read = 0

            async def drain() -> None:
                nonlocal read
                while True:
                    read += len(await bulk_far.receive(1024 * 1024))

            async def fill() -> None:
                while True:
                    await bulk.send(bytes(65_536))

            tasks.start_soon(drain)
            tasks.start_soon(fill)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
                before = read
                await talk.send(b"?")
                assert await talk_far.receive() == b"?"
                assert read - before < 1536 * 1024, "it waited behind the bulk"
            tasks.cancel_scope.cancel()


async def test_mplex_opens_the_next_stream_when_its_pace_allows() -> None:
    paced = Mplex(MplexConfig(opens_max=2, opens_seconds=0.2))
    near, far = memory_pair()
    one, two = paced.wrap(near, dialer=True, env=Env()), paced.wrap(far, dialer=False, env=Env())
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.run)
            tasks.start_soon(two.run)
            start = anyio.current_time()
            for number in range(5):
                await (await one.open()).send(b"%d" % number)
            # Two at once, two after a while, the fifth after another.
            assert anyio.current_time() - start >= 0.39
            assert [await (await two.accept()).receive() for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
            tasks.cancel_scope.cancel()


async def test_a_connection_tells_what_it_waits_for() -> None:
    for muxer in (Yamux(), Mplex()):
        near, far = memory_pair()
        one, two = muxer.wrap(near, dialer=True, env=Env()), muxer.wrap(far, dialer=False, env=Env())
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one.run)
                tasks.start_soon(two.run)
                stream = await one.open()
                await stream.send(b"hello")
                tasks.start_soon(stream.receive)
                await two.accept()
                await anyio.wait_all_tasks_blocked()
                told = "\n".join(one.tell_state())
                assert "writer waits for output" in told
                assert "waits for data" in told
                assert "unread 5" in "\n".join(two.tell_state())
                tasks.cancel_scope.cancel()


async def test_the_answer_to_a_lone_message_leaves_at_once_and_many_leave_together() -> None:
    """Which wakes nobody for the one, and makes no write of its own for each of the others."""
    at_once: list[int] = []
    together: list[int] = []

    class Watched(TcpStream):
        def send_now(self, pieces: Sequence[bytes], /) -> None:
            at_once.append(len(pieces))
            super().send_now(pieces)

        async def send_many(self, pieces: Sequence[bytes], /) -> None:
            together.append(len(pieces))
            await super().send_many(pieces)

    async def answer(stream: MuxedStream) -> None:
        while True:
            await stream.send(await stream.receive())

    near, far = await tcp()
    assert isinstance(far, TcpStream)
    one = Yamux().wrap(near, dialer=True, env=Env())
    two = Yamux().wrap(Watched(far.inner, far.remote), dialer=False, env=Env())
    with anyio.fail_after(10), suppress(Closed):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.run)
            tasks.start_soon(two.run)
            streams = [await one.open() for _ in range(50)]
            for stream in streams:
                await stream.send(b"x")
                tasks.start_soon(answer, await two.accept())
                assert await stream.receive() == b"x"
            at_once.clear()
            together.clear()
            for _ in range(20):
                await streams[0].send(b"ping")
                assert await streams[0].receive() == b"ping"
            if can_send_now(far):
                assert (at_once, together) == ([2] * 20, []), "a header and four bytes, each time"
            at_once.clear()
            together.clear()
            for stream in streams:
                await stream.send(b"all")
            for stream in streams:
                assert await stream.receive() == b"all"
            assert len(at_once) + len(together) <= 10
            tasks.cancel_scope.cancel()
