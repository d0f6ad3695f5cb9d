"""WebSockets over real sockets: our listener and dialler, with each other and with raw peers."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from websockets.utils import accept_key

from air.base.clock import SystemClock
from air.base.errors import Closed, Reset, Unreachable
from air.transport import tcp
from air.transport.http import HttpResponse, Request, plain
from air.transport.memory import memory_pair
from air.transport.websocket import (
    WebSocketConfig,
    WebSocketConn,
    WebSocketCore,
    WebSocketListener,
    dial_websocket,
)

ASK = (
    b"GET /gun HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
QUICK = WebSocketConfig(sweep_seconds=0.02, close_seconds=0.5)


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    with anyio.fail_after(seconds):
        while not condition():  # the conditions are counters, which ring no bell
            await anyio.sleep(0.005)


async def echo(conn: WebSocketConn) -> None:
    while True:
        await conn.send(await conn.receive())


@asynccontextmanager
async def serving(
    handler: Callable[[WebSocketConn], Awaitable[None]] = echo,
    *,
    config: WebSocketConfig = QUICK,
    http: Callable[[Request], Awaitable[HttpResponse]] | None = None,
) -> AsyncIterator[WebSocketListener]:
    async def serve() -> None:
        await listener.serve(handler, http=http)

    async with (
        WebSocketListener.bind("127.0.0.1", 0, config=config) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(serve)
        yield listener
        tasks.cancel_scope.cancel()


async def raw(listener: WebSocketListener, data: bytes = b"") -> tcp.TcpStream:
    stream = await tcp.dial(*listener.addresses[0])
    if data:
        await stream.send(data)
    return stream


async def upgraded(listener: WebSocketListener) -> tcp.TcpStream:
    stream = await raw(listener, ASK)
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive()
    assert head.startswith(b"HTTP/1.1 101 ")
    return stream


async def rest(stream: tcp.TcpStream) -> bytes:
    data = b""
    with anyio.fail_after(10):
        while True:
            try:
                data += await stream.receive()
            except Closed:
                await stream.aclose()
                return data


def text_frame(data: bytes, fin: bool = True, opcode: int = 1) -> bytes:
    assert len(data) < 65536
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack("!H", len(data))
    return bytes([opcode | (0x80 if fin else 0)]) + size + b"\0\0\0\0" + data


@pytest.mark.anyio
async def test_messages_come_back_in_order_and_whole() -> None:
    async with serving() as listener:
        conn = await dial_websocket(listener.urls[0])
        sent = [b"", b"a", "grüße 🌍".encode(), b"x" * 200, b"y" * 70_000, b"z" * 1_000_000]
        got: list[bytes] = []
        await conn.send(sent)
        while len(got) < len(sent):
            got += await conn.receive()
        assert got == sent
        await conn.aclose()
        assert conn.close_code == 1000
        with pytest.raises(Closed):
            await conn.send([b"x"])
        await until(lambda: listener.open == 0)


@pytest.mark.anyio
async def test_one_send_is_one_read_for_a_batch_that_fits() -> None:
    sizes: list[int] = []

    async def handler(conn: WebSocketConn) -> None:
        while True:
            sizes.append(len(await conn.receive()))

    async with serving(handler) as listener:
        conn = await dial_websocket(listener.urls[0])
        await conn.send([b"m"] * 1000)
        await until(lambda: sum(sizes) == 1000)
        assert len(sizes) <= 3
        await conn.aclose()


@pytest.mark.anyio
async def test_the_handler_sees_who_asked_for_what() -> None:
    seen: list[tuple[str, str, str]] = []

    async def handler(conn: WebSocketConn) -> None:
        seen.append((conn.remote, conn.path, conn.headers["host"]))
        await conn.send([b"hello"])

    async with serving(handler) as listener:
        conn = await dial_websocket(listener.urls[0].replace("ws://", "http://") + "?a=1")
        assert await conn.receive() == [b"hello"]
        with pytest.raises(Closed) as caught:
            await conn.receive()
        assert caught.value.code == "link.closed"
        assert conn.close_code == 1000
        await conn.aclose()
        ((remote, path, host),) = seen
        assert remote.startswith("127.0.0.1:")
        assert path == "/gun?a=1"
        assert host == tcp.spell_address(listener.addresses[0])


@pytest.mark.anyio
async def test_other_paths_and_plain_requests_are_answered() -> None:
    async with serving() as listener:
        base = listener.urls[0].removesuffix("/gun")
        for path in ("/", "/gun/", "/gunx", "/GUN"):
            with pytest.raises(Unreachable) as caught:
                await dial_websocket(base + path)
            assert "400" in caught.value.attempts[0][1]
        assert listener.counters.get("ws_refused", "ws.path") == 4
        for request, status in (
            (b"GET / HTTP/1.1\r\n\r\n", b"404"),
            (b"GET /gun HTTP/1.1\r\n\r\n", b"426"),
            (b"POST /gun HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100_000, b"405"),
            (b"nonsense\r\n\r\n", b"400"),
        ):
            answer = await rest(await raw(listener, request))
            assert answer.startswith(b"HTTP/1.1 " + status), request
        await until(lambda: listener.open == 0)


@pytest.mark.anyio
async def test_an_http_handler_answers_in_one_piece_or_many_and_may_fail() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"p" * 10_000

    async def http(request: Request) -> HttpResponse:
        if request.path == "/many":
            return HttpResponse(200, {"Content-Length": "500000"}, pieces())
        if request.path == "/chunked":
            return HttpResponse(200, {}, pieces())
        if request.path == "/crash":
            raise RuntimeError("a fault of the handler")
        return plain(200, request.path)

    async with serving(http=http) as listener:

        async def get(path: bytes) -> bytes:
            return await rest(await raw(listener, b"GET " + path + b" HTTP/1.1\r\n\r\n"))

        assert (await get(b"/hello")).endswith(b"\r\n\r\n/hello\n")
        assert (await get(b"/many")).partition(b"\r\n\r\n")[2] == b"p" * 500_000
        assert (await get(b"/chunked")).endswith(b"\r\n0\r\n\r\n")
        assert (await get(b"/crash")).startswith(b"HTTP/1.1 500 ")
        assert (await get(b"/hello")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.anyio
async def test_a_failing_handler_closes_its_connection_with_1011_and_no_other() -> None:
    async def handler(conn: WebSocketConn) -> None:
        for message in await conn.receive():
            if message == b"crash":
                raise RuntimeError("a fault of the handler")
        await echo(conn)

    async with serving(handler) as listener:
        good = await dial_websocket(listener.urls[0])
        await good.send([b"stay"])
        bad = await dial_websocket(listener.urls[0])
        await bad.send([b"crash"])
        with pytest.raises(Closed):
            await bad.receive()
        assert bad.close_code == 1011
        await bad.aclose()
        await good.send([b"1"])
        assert await good.receive() == [b"1"]
        await good.aclose()
        assert listener.counters.get("tcp_handler_failed", "tcp.handler-failed") == 1


@pytest.mark.anyio
async def test_a_listener_that_is_cancelled_tells_its_peers_that_it_goes_away() -> None:
    async with anyio.create_task_group() as tasks:

        async def watch(conn: WebSocketConn) -> None:
            with pytest.raises(Closed):
                await conn.receive()
            await conn.aclose()

        async with serving() as listener:
            conn = await dial_websocket(listener.urls[0])
            await conn.send([b"1"])
            assert await conn.receive() == [b"1"]
            tasks.start_soon(watch, conn)
    assert conn.close_code == 1001


@pytest.mark.anyio
async def test_a_message_that_is_too_big_is_answered_1009() -> None:
    config = WebSocketConfig(frame_bytes_max=1000, close_seconds=0.5)
    ended: list[str] = []

    async def handler(conn: WebSocketConn) -> None:
        try:
            await echo(conn)
        except Reset as error:
            ended.append(error.code)

    async with serving(handler, config=config) as listener:
        conn = await dial_websocket(listener.urls[0])
        # The sender is still writing when it is refused, and must find the reason all the same.
        try:
            await conn.send([b"x" * 5_000_000])
        except Reset:
            pytest.fail("the refusal was overtaken by a reset")
        with pytest.raises(Closed):
            await conn.receive()
        assert conn.close_code == 1009
        await conn.aclose()
        await until(lambda: ended == ["ws.too-big"])


@pytest.mark.anyio
async def test_fragments_without_end_are_stopped() -> None:
    config = WebSocketConfig(fragments_max=100, close_seconds=0.5)
    async with serving(config=config) as listener:
        stream = await upgraded(listener)
        await stream.send(text_frame(b"x", fin=False) + text_frame(b"", fin=False, opcode=0) * 150)
        answer = await rest(stream)
        assert answer[0] == 0x88
        assert struct.unpack("!H", answer[2:4]) == (1008,)
        await until(lambda: listener.open == 0)
        assert listener.counters.get("ws_refused", "ws.too-many-fragments") == 1


@pytest.mark.anyio
async def test_a_slow_handshake_is_cut() -> None:
    config = WebSocketConfig(handshake_seconds=0.1, sweep_seconds=0.02)
    async with serving(config=config) as listener:
        silent, slow = await raw(listener), await raw(listener, b"GET /gun HTTP/1.1\r\nX-")
        assert await rest(silent) == b""
        assert await rest(slow) == b""
        await until(lambda: listener.open == 0)
        assert listener.counters.get("ws_refused", "ws.handshake-slow") == 2


@pytest.mark.anyio
async def test_a_peer_that_answers_no_ping_is_dead_and_one_that_does_lives() -> None:
    config = WebSocketConfig(ping_seconds=0.1, dead_seconds=0.3, sweep_seconds=0.02, close_seconds=0.1)
    ended: list[str] = []

    async def handler(conn: WebSocketConn) -> None:
        try:
            await echo(conn)
        except Reset as error:
            ended.append(error.code)
            raise

    async with serving(handler, config=config) as listener, anyio.create_task_group() as tasks:
        # Our client reads, so it answers pings although it says nothing.
        alive = await dial_websocket(listener.urls[0])
        got: list[bytes] = []

        async def read() -> None:
            got.extend(await alive.receive())

        tasks.start_soon(read)
        dead = await upgraded(listener)
        said = await rest(dead)
        assert said.startswith(b"\x89\x00")
        assert ended == ["ws.dead"]
        await alive.send([b"still here"])
        await until(lambda: got == [b"still here"])
        await alive.aclose()


@pytest.mark.anyio
async def test_a_dialled_connection_finds_out_that_the_server_is_dead() -> None:
    config = WebSocketConfig(ping_seconds=0.05, dead_seconds=0.15)

    async def mute(stream: tcp.TcpStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive()
        key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        accept = f"Sec-WebSocket-Accept: {accept_key(key.decode())}\r\n\r\n"
        await stream.send((answer + accept).encode() + b"\x81\x05hello")
        await anyio.sleep_forever()

    async with tcp.TcpListener.bind("127.0.0.1", 0) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, mute)
        conn = await dial_websocket(f"ws://{tcp.spell_address(listener.addresses[0])}/gun", config=config)
        assert await conn.receive() == [b"hello"]
        with anyio.fail_after(5), pytest.raises(Reset) as caught:
            await conn.receive()
        assert caught.value.code == "ws.dead"
        await conn.aclose()
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_peer_that_reads_nothing_is_cut() -> None:
    config = WebSocketConfig(write_seconds=0.2, sweep_seconds=0.02, close_seconds=0.2)
    ended: list[str] = []

    async def handler(conn: WebSocketConn) -> None:
        try:
            while True:
                await conn.send([b"x" * 1_000_000] * 4)
        except Reset as error:
            ended.append(error.code)

    async with serving(handler, config=config) as listener:
        stream = await upgraded(listener)
        await until(lambda: ended == ["ws.slow-reader"])
        await until(lambda: listener.open == 0)
        await stream.aclose()


@pytest.mark.anyio
async def test_a_dialled_connection_is_cut_when_the_server_reads_nothing() -> None:
    async def sleeping(conn: WebSocketConn) -> None:
        await anyio.sleep_forever()

    async with serving(sleeping, config=WebSocketConfig(close_seconds=0.1)) as listener:
        conn = await dial_websocket(listener.urls[0], config=WebSocketConfig(write_seconds=0.2))
        with anyio.fail_after(10), pytest.raises(Reset) as caught:
            while True:
                await conn.send([b"x" * 1_000_000] * 4)
        assert caught.value.code == "ws.slow-reader"
        await conn.aclose()


@pytest.mark.anyio
async def test_pongs_are_written_although_the_application_says_nothing() -> None:
    async def listen_only(conn: WebSocketConn) -> None:
        while True:
            await conn.receive()

    async with serving(listen_only) as listener:
        stream = await upgraded(listener)
        await stream.send(text_frame(b"ping me", opcode=9))
        with anyio.fail_after(5):
            assert await stream.receive() == b"\x8a\x07ping me"
        await stream.aclose()


@pytest.mark.anyio
async def test_pongs_and_messages_of_several_senders_do_not_mix_their_bytes() -> None:
    async def handler(conn: WebSocketConn) -> None:
        async with anyio.create_task_group() as tasks:

            async def talk(mark: bytes) -> None:
                for size in range(60):
                    await conn.send([mark * (size * 997)] * 3)

            for mark in (b"a", b"b", b"c"):
                tasks.start_soon(talk, mark)
            count = 0
            while count < 200:
                count += len(await conn.receive())

    async with serving(handler, config=WebSocketConfig(close_seconds=2.0)) as listener:
        conn = await dial_websocket(
            listener.urls[0], config=WebSocketConfig(ping_seconds=0.001, dead_seconds=9.0)
        )
        got: list[bytes] = []

        async def write() -> None:
            for _ in range(200):
                await conn.send([b"w" * 500])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            with anyio.fail_after(30):
                while len(got) < 540:
                    got += await conn.receive()
        for mark in (b"a", b"b", b"c"):
            mine = [len(message) for message in got if message[:1] == mark]
            assert mine == [size * 997 for size in range(1, 60) for _ in range(3)]
        assert all(set(message) <= {message[0]} for message in got if message)
        await conn.aclose()


@pytest.mark.anyio
async def test_a_cancelled_receive_loses_nothing() -> None:
    async with serving() as listener:
        conn = await dial_websocket(listener.urls[0])
        got: list[bytes] = []
        sent = [b"%d" % number for number in range(100)]
        for at, message in enumerate(sent):
            await conn.send([message])
            with anyio.move_on_after(0.0002 * (at % 7)):
                got += await conn.receive()
        with anyio.fail_after(5):
            while len(got) < len(sent):
                got += await conn.receive()
        assert got == sent
        await conn.aclose()


@pytest.mark.anyio
async def test_a_read_cancelled_while_pongs_are_due_leaves_the_connection_whole() -> None:
    config = WebSocketConfig(ping_seconds=0.001, dead_seconds=9.0, sweep_seconds=0.001)
    async with serving(config=config) as listener:
        # Both sides ping all the time, so that many cancellations meet a pong.
        conn = await dial_websocket(listener.urls[0], config=config)
        for at in range(200):
            with anyio.move_on_after(0.0003 * (at % 5)):
                await conn.receive()
        await conn.send([b"whole"])
        with anyio.fail_after(5):
            assert await conn.receive() == [b"whole"]
        await conn.aclose()
        assert conn.close_code == 1000


@pytest.mark.anyio
async def test_a_handler_with_tasks_of_its_own_may_let_the_end_pass_through() -> None:
    async def handler(conn: WebSocketConn) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(echo, conn)

    async with serving(handler) as listener:
        conn = await dial_websocket(listener.urls[0])
        await conn.aclose()
        await until(lambda: listener.open == 0)
        assert conn.close_code == 1000
        assert not [sample for sample in listener.counters.samples() if sample.name == "tcp_handler_failed"]


@pytest.mark.anyio
async def test_a_page_that_is_not_read_is_cut_too() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000

    async def http(request: Request) -> HttpResponse:
        return HttpResponse(200, {}, endless())

    config = WebSocketConfig(write_seconds=0.2, sweep_seconds=0.02, close_seconds=0.2)
    async with serving(config=config, http=http) as listener:
        stream = await raw(listener, b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: listener.open == 1)
        await until(lambda: listener.open == 0)
        assert listener.counters.get("ws_refused", "ws.slow-reader") == 1
        await stream.aclose()


@pytest.mark.anyio
async def test_aclose_ends_a_reader_in_another_task() -> None:
    async with serving() as listener:
        conn = await dial_websocket(listener.urls[0])
        codes: list[str] = []

        async def read() -> None:
            with pytest.raises(Closed) as caught:
                await conn.receive()
            codes.append(caught.value.code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.sleep(0.01)
            with anyio.fail_after(5):
                await conn.aclose(1000, "done")
        assert codes == ["link.closed"]
        assert (conn.close_code, conn.close_reason) == (1000, "done")


@pytest.mark.anyio
async def test_closing_a_dialled_connection_takes_no_longer_because_the_server_pings() -> None:
    clock = SystemClock()
    config = WebSocketConfig(close_seconds=0.1, write_seconds=5)
    near, far = memory_pair(500)
    client = WebSocketCore(config, clock.now(), url="ws://here/gun")
    conn = WebSocketConn(near, client, config, clock, "here", attend=None)
    server = WebSocketCore(config, clock.now())

    async def flood() -> None:
        while not server.receive(await far.receive(), clock.now()):
            pass
        server.accept(clock.now())
        await far.send(b"".join(server.take_output()))
        try:
            while True:  # and reads nothing
                await far.send(b"\x89\x7d" + bytes(125))
        except Closed:
            return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(flood)
        await conn.handshake()
        began = anyio.current_time()
        await conn.aclose()
        assert anyio.current_time() - began < 2  # a time limit would not reach it: closing is shielded


@pytest.mark.anyio
async def test_a_peer_that_vanishes_is_a_reset() -> None:
    ended: list[str] = []

    async def handler(conn: WebSocketConn) -> None:
        try:
            await echo(conn)
        except Reset as error:
            ended.append(error.code)

    async with serving(handler) as listener:
        sock = socket.create_connection(listener.addresses[0])
        sock.sendall(ASK)
        # Linger 0: the close is a reset on the wire.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: listener.counters.get("ws_accepted") == 1)
        sock.close()
        await until(lambda: ended == ["link.reset"])


@pytest.mark.anyio
async def test_nobody_there_is_unreachable() -> None:
    async with tcp.TcpListener.bind("127.0.0.1", 0) as listener:
        url = f"ws://{tcp.spell_address(listener.addresses[0])}/gun"
    with pytest.raises(Unreachable) as caught:
        await dial_websocket(url)
    assert caught.value.attempts


@pytest.mark.anyio
async def test_a_server_that_never_answers_is_given_up() -> None:
    async def mute(stream: tcp.TcpStream) -> None:
        await anyio.sleep_forever()

    async with tcp.TcpListener.bind("127.0.0.1", 0) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, mute)
        with pytest.raises(Unreachable):
            await dial_websocket(f"ws://{tcp.spell_address(listener.addresses[0])}/gun", timeout=0.1)
        tasks.cancel_scope.cancel()
