"""TLS under the WebSocket: certificates made on the spot, refusals, slow handshakes."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from air.base.errors import Closed, ConfigError, Unreachable
from air.transport import tcp
from air.transport.http import HttpResponse, Request, plain
from air.transport.tls import client_context, secure_client, secure_server, server_context
from air.transport.websocket import WebSocketConfig, WebSocketConn, WebSocketListener, dial_websocket


async def echo(conn: WebSocketConn) -> None:
    while True:
        await conn.send(await conn.receive())


async def hello(request: Request) -> HttpResponse:
    return plain(200, "hello")


@asynccontextmanager
async def serving(
    certificate: tuple[Path, Path], config: WebSocketConfig | None = None
) -> AsyncIterator[WebSocketListener]:
    async def serve() -> None:
        await listener.serve(echo, http=hello)

    config = WebSocketConfig(sweep_seconds=0.02, close_seconds=0.5) if config is None else config
    context = server_context(*certificate)
    async with (
        WebSocketListener.bind("127.0.0.1", 0, config=config, tls=context) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(serve)
        yield listener
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_messages_cross_a_tls_connection(certificate: tuple[Path, Path], host: str) -> None:
    async with serving(certificate) as listener:
        (url,) = listener.urls
        assert url.startswith("wss://")
        for spelled in (url, url.replace("wss://", "https://")):
            trust = client_context(ca=certificate[0])
            conn = await dial_websocket(spelled.replace("127.0.0.1", host), tls=trust)
            sent = [b"a", b"x" * 300_000]
            got: list[bytes] = []
            await conn.send(sent)
            while len(got) < 2:
                got += await conn.receive()
            assert got == sent
            await conn.aclose()
            assert conn.close_code == 1000
        with anyio.fail_after(5):
            while listener.open:  # a counter rings no bell
                await anyio.sleep(0.005)


@pytest.mark.anyio
async def test_a_certificate_nobody_vouches_for_is_refused(certificate: tuple[Path, Path]) -> None:
    async with serving(certificate) as listener:
        with pytest.raises(Unreachable) as caught:
            await dial_websocket(listener.urls[0])
        ((_, reason),) = caught.value.attempts
        assert reason.startswith("tls.handshake: ")
        # The listener goes on.
        conn = await dial_websocket(listener.urls[0], tls=client_context(ca=certificate[0]))
        await conn.aclose()


@pytest.mark.anyio
async def test_a_silent_or_plain_peer_does_not_hold_up_others(certificate: tuple[Path, Path]) -> None:
    config = WebSocketConfig(handshake_seconds=0.2, sweep_seconds=0.02, close_seconds=0.2)
    async with serving(certificate, config) as listener:
        silent = await tcp.dial(*listener.addresses[0])
        plain_http = await tcp.dial(*listener.addresses[0])
        await plain_http.send(b"GET / HTTP/1.1\r\n\r\n")
        conn = await dial_websocket(listener.urls[0], tls=client_context(ca=certificate[0]))
        await conn.send([b"1"])
        assert await conn.receive() == [b"1"]
        await conn.aclose()
        with anyio.fail_after(5):
            for stream in (silent, plain_http):
                with pytest.raises(Closed):
                    while True:
                        await stream.receive()
                await stream.aclose()
            while listener.open:  # a counter rings no bell
                await anyio.sleep(0.005)
        assert listener.counters.get("ws_refused", "tls.handshake-slow") == 1
        assert listener.counters.get("ws_refused", "tls.handshake") == 1


@pytest.mark.anyio
@pytest.mark.skipif(shutil.which("openssl") is None, reason="only its client can be told to ask for new keys")
async def test_a_peer_may_ask_for_new_keys_while_it_is_written_to(certificate: tuple[Path, Path]) -> None:
    got: list[bytes | BaseException] = []
    done = anyio.Event()

    async def serve(stream: tcp.TcpStream) -> None:
        stream = await secure_server(stream, server_context(*certificate), timeout=5)

        async def write() -> None:
            while True:  # at work all the time
                await stream.send(bytes(16 * 1024 * 1024))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            try:
                got.append(await stream.receive())
            except Exception as error:
                got.append(error)
            done.set()
            tasks.cancel_scope.cancel()

    async with tcp.TcpListener.bind("127.0.0.1", 0) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        where = tcp.spell_address(listener.addresses[0])
        command = ["openssl", "s_client", "-tls1_3", "-connect", where]
        async with await anyio.open_process(command, stderr=subprocess.DEVNULL) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            output = client.stdout
            while b"\0" * 1024 not in await output.receive():
                pass

            async def drain() -> None:
                async for _ in output:
                    pass

            async with anyio.create_task_group() as reading:
                reading.start_soon(drain)
                # K is its word for: send new keys, and ask for some. It drops the rest of the read.
                with anyio.move_on_after(30), contextlib.suppress(anyio.BrokenResourceError):
                    for word in itertools.chain([b"K\n"] * 3, itertools.repeat(b"hello\n")):
                        if done.is_set():
                            break
                        await client.stdin.send(word)
                        await anyio.sleep(0.05)
                # It ends by itself once the server has left.
                with contextlib.suppress(ProcessLookupError):
                    client.kill()
        tasks.cancel_scope.cancel()
    assert [isinstance(one, bytes) and one[:6] for one in got] == [b"hello\n"]


@pytest.mark.anyio
async def test_a_page_is_served_over_tls(certificate: tuple[Path, Path]) -> None:
    async with serving(certificate) as listener:
        host, port = listener.addresses[0]
        stream = await secure_client(
            await tcp.dial(host, port), client_context(ca=certificate[0]), "localhost", timeout=5
        )
        await stream.send(b"GET / HTTP/1.1\r\n\r\n")
        answer = b""
        while not answer.endswith(b"hello\n"):
            answer += await stream.receive()
        assert answer.startswith(b"HTTP/1.1 200 ")
        await stream.aclose()


def test_files_that_hold_no_certificate_are_a_configuration_error(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    for make in (
        lambda: server_context(wrong, wrong),
        lambda: server_context(tmp_path / "missing.pem", wrong),
        lambda: client_context(ca=wrong),
    ):
        with pytest.raises(ConfigError) as caught:
            make()
        assert caught.value.code == "tls.bad-files"
