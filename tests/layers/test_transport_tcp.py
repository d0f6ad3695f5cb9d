"""The TCP floor: dialling, the accept loop, and what it survives."""

from __future__ import annotations

import logging
import socket
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable

import anyio
import pytest
from anyio.abc import SocketStream

from air.base.errors import Closed, ConfigError, Denied, Reset, Unreachable
from air.transport import tcp


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    with anyio.fail_after(seconds):
        while not condition():  # the conditions are counters, which ring no bell
            await anyio.sleep(0.005)


async def echo(stream: tcp.TcpStream) -> None:
    while True:
        await stream.send(await stream.receive())


@pytest.mark.anyio
async def test_what_is_sent_comes_back_and_the_end_is_an_error_of_ours() -> None:
    async with tcp.TcpListener.bind("127.0.0.1", 0) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, echo)
        ((host, port),) = listener.addresses
        assert port != 0
        stream = await tcp.dial(host, port)
        assert stream.remote == f"{host}:{port}"
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"
        await stream.send(b"ab")
        assert await stream.receive(1) == b"a"
        await stream.send_eof()
        left = b""
        with pytest.raises(Closed) as caught:
            while True:
                left += await stream.receive()
        assert left == b"b"
        assert caught.value.code == "link.closed"
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(Reset):
            await stream.send(b"x")
        await until(lambda: listener.open == 0)
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_name_listens_on_all_its_addresses_with_one_port() -> None:
    async with tcp.TcpListener.bind("localhost", 0) as listener:
        assert len({port for _, port in listener.addresses}) == 1


@pytest.mark.anyio
async def test_nobody_there_is_unreachable_with_the_attempt() -> None:
    async with tcp.TcpListener.bind("127.0.0.1", 0) as listener:
        ((host, port),) = listener.addresses
    with pytest.raises(Unreachable) as caught:
        await tcp.dial(host, port)
    ((address, reason),) = caught.value.attempts
    assert address == f"{host}:{port}"
    assert reason


@pytest.mark.anyio
async def test_a_taken_port_is_a_configuration_error() -> None:
    async with tcp.TcpListener.bind("127.0.0.1", 0) as listener:
        ((host, port),) = listener.addresses
        with pytest.raises(ConfigError) as caught:
            async with tcp.TcpListener.bind(host, port):
                pass
    assert caught.value.code == "tcp.cannot-listen"


@pytest.mark.anyio
async def test_a_failing_handler_ends_its_connection_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(stream: tcp.TcpStream) -> None:
        first = await stream.receive()
        if first == b"crash":
            raise RuntimeError("a fault of the handler")
        if first == b"deny":
            raise Denied("no", code="test.denied")
        await stream.send(first)

    config = tcp.TcpConfig(failures_logged_max=2)
    with caplog.at_level(logging.ERROR, "air.transport.tcp"):
        async with (
            tcp.TcpListener.bind("127.0.0.1", 0, config=config) as listener,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(listener.serve, handler)
            ((host, port),) = listener.addresses
            for word in (b"crash", b"deny", b"crash", b"fine"):
                stream = await tcp.dial(host, port)
                await stream.send(word)
                if word == b"fine":
                    assert await stream.receive() == word
                else:
                    with pytest.raises(Closed):
                        await stream.receive()
                await stream.aclose()
            assert listener.counters.get("tcp_handler_failed", "tcp.handler-failed") == 2
            assert listener.counters.get("tcp_handler_failed", "test.denied") == 1
            tasks.cancel_scope.cancel()
    assert len(caplog.records) == 2
    assert "tcp.handler-failed" in caplog.text


@pytest.mark.anyio
async def test_connections_beyond_the_limit_wait_until_one_ends() -> None:
    config = tcp.TcpConfig(connections_max=2)
    async with (
        tcp.TcpListener.bind("127.0.0.1", 0, config=config) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, echo)
        ((host, port),) = listener.addresses
        first, second = await tcp.dial(host, port), await tcp.dial(host, port)
        await until(lambda: listener.open == 2)
        third = await tcp.dial(host, port)
        await third.send(b"3")
        with anyio.move_on_after(0.1) as scope:
            await third.receive()
        assert scope.cancelled_caught
        assert listener.open == 2
        await first.aclose()
        with anyio.fail_after(5):
            assert await third.receive() == b"3"
        await second.aclose()
        await third.aclose()
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_every_socket_of_a_full_listener_goes_on_when_there_is_room_again() -> None:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    for sock in sockets:
        sock.setblocking(False)
    listener = tcp.TcpListener(sockets, tcp.TcpConfig(connections_max=1))
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, echo)
            first, second = listener.addresses
            inside = await tcp.dial(*first)
            await inside.send(b"x")
            assert await inside.receive() == b"x"
            await anyio.wait_all_tasks_blocked()

            async def visit(stream: tcp.TcpStream) -> None:
                await stream.send(b"y")
                assert await stream.receive() == b"y"
                await stream.aclose()

            async with anyio.create_task_group() as visitors:
                for place in (second, first):
                    visitors.start_soon(visit, await tcp.dial(*place))
                await inside.aclose()
            last = await tcp.dial(*first)
            await last.send(b"z")
            assert await last.receive() == b"z"
            listener.close()
            await last.aclose()


@pytest.mark.anyio
async def test_a_connection_that_is_reset_at_once_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach = tcp.connect

        async def connect(host: str, port: int) -> SocketStream:
            stream = await reach(host, port)
            accepted, _ = server.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()
            with pytest.raises(anyio.BrokenResourceError):
                await stream.receive()
            return stream

        monkeypatch.setattr(tcp, "connect", connect)
        with pytest.raises(Unreachable) as caught:
            await tcp.dial(*server.getsockname())
        assert caught.value.attempts[0][1] == "reset at once"


@pytest.mark.anyio
async def test_a_closed_listener_lets_open_connections_finish() -> None:
    async with tcp.TcpListener.bind("127.0.0.1", 0) as listener:
        ((host, port),) = listener.addresses
        served = anyio.Event()

        async def serve() -> None:
            await listener.serve(echo)
            served.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            stream = await tcp.dial(host, port)
            await stream.send(b"1")
            assert await stream.receive() == b"1"
            listener.close()
            with pytest.raises(Unreachable):
                await tcp.dial(host, port)
            await stream.send(b"2")
            assert await stream.receive() == b"2"
            assert not served.is_set()
            await stream.aclose()
            with anyio.fail_after(5):
                await served.wait()


STARVED = """
    import resource, socket, sys
    import anyio
    from air.transport import tcp

    async def echo(stream):
        while True:
            await stream.send(await stream.receive())

    def connect(address):
        sock = socket.socket()
        sock.settimeout(5)
        sock.connect(address)
        return sock

    async def main():
        config = tcp.TcpConfig(pause_seconds=0.01)
        async with tcp.TcpListener.bind("127.0.0.1", 0, config=config) as listener, \\
                anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, echo)
            (address,) = listener.addresses
            # Clients take descriptors of the same process first; then there is none left to accept with.
            clients = [connect(address) for _ in range(8)]
            while listener.open < 8:
                await anyio.sleep(0.005)
            late = socket.socket()
            late.settimeout(5)
            while True:
                try:
                    spare = socket.socket()
                except OSError:
                    break
                clients.append(spare)
            late.connect(address)
            late.sendall(b"late")
            with anyio.fail_after(10):
                while listener.counters.get("tcp_accept_failed", "EMFILE") < 3:
                    await anyio.sleep(0.005)
            assert listener.open == 8
            for sock in clients:
                sock.close()
            answer = await anyio.to_thread.run_sync(late.recv, 10)
            assert answer == b"late", answer
            late.close()
            while listener.open:
                await anyio.sleep(0.005)
            tasks.cancel_scope.cancel()
        print("recovered")

    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    anyio.run(main, backend=sys.argv[1])
"""


def test_running_out_of_descriptors_is_survived(anyio_backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STARVED), anyio_backend],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "recovered\n"


@pytest.mark.anyio
async def test_many_pieces_arrive_in_order_and_are_out_when_the_call_returns() -> None:
    pieces = [bytes([number % 256]) * (number * 317 % 90_000 + 1) for number in range(60)]
    heard = bytearray()

    async def listen(stream: tcp.TcpStream) -> None:
        while True:
            heard.extend(await stream.receive())

    async with tcp.TcpListener.bind("127.0.0.1", 0) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, listen)
        stream = await tcp.dial(*listener.addresses[0])
        for start in range(0, len(pieces), 4):
            await stream.send_many(pieces[start : start + 4])
        transport = getattr(stream.inner, "_transport", None)
        assert transport is None or transport.get_write_buffer_size() == 0
        await until(lambda: len(heard) == sum(map(len, pieces)))
        assert heard == b"".join(pieces)
        await stream.aclose()
        with pytest.raises(Reset):
            await stream.send_many([b"one", b"two"])
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_peer_that_takes_nothing_holds_up_many_pieces_as_well() -> None:
    async def sleep(stream: tcp.TcpStream) -> None:
        await anyio.sleep_forever()

    async with tcp.TcpListener.bind("127.0.0.1", 0) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, sleep)
        stream = await tcp.dial(*listener.addresses[0])
        sent = 0
        with anyio.move_on_after(1.0):
            while sent < 1000:
                await stream.send_many([bytes(64 * 1024)] * 4)
                sent += 1
        assert sent < 1000, "what nobody takes was kept without end"
        await stream.aclose()
        tasks.cancel_scope.cancel()
