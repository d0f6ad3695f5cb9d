"""Our WebSockets against somebody else's: the blocking client and server of the `websockets` package.

They share its framing with our core, but the order of opening and closing is their own.
"""

from __future__ import annotations

import threading

import anyio
import pytest
from anyio import to_thread
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from air.base.errors import Closed
from air.transport.websocket import WebSocketConfig, WebSocketConn, WebSocketListener, dial_websocket


async def echo(conn: WebSocketConn) -> None:
    while True:
        await conn.send(await conn.receive())


def talk(url: str) -> list[str]:
    """What the foreign client hears. It offers compression, cuts one message into fragments, and pings."""
    with connect(url) as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers
        client.send("one")
        client.send(b"binary is ignored")
        client.send(["frag", "men", "ted"])
        assert client.ping().wait(5)
        client.send("ü🌍" * 100_000)
        return [str(client.recv(timeout=10)) for _ in range(3)]


@pytest.mark.anyio
async def test_a_foreign_client_is_served() -> None:
    async def run() -> None:
        await listener.serve(echo)

    async with (
        WebSocketListener.bind("127.0.0.1", 0) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(run)
        heard = await to_thread.run_sync(talk, listener.urls[0])
        assert heard == ["one", "fragmented", "ü🌍" * 100_000]

        def refused() -> int:
            with pytest.raises(InvalidStatus) as caught:
                connect(listener.urls[0] + "x")
            return caught.value.response.status_code

        assert await to_thread.run_sync(refused) == 400
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_foreign_client_is_told_what_it_did_wrong() -> None:
    async def run() -> None:
        await listener.serve(echo)

    config = WebSocketConfig(frame_bytes_max=100)
    async with (
        WebSocketListener.bind("127.0.0.1", 0, config=config) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(run)

        def too_big() -> int | None:
            client: ClientConnection
            with connect(listener.urls[0]) as client:
                client.send("x" * 1_000_000)
                with pytest.raises(ConnectionClosed) as caught:
                    client.recv(timeout=5)
                return None if caught.value.rcvd is None else caught.value.rcvd.code

        assert await to_thread.run_sync(too_big) == 1009
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_foreign_server_is_dialled() -> None:
    def handler(server: ServerConnection) -> None:
        server.send("greeting")
        for message in server:
            if message == "leave":
                server.close(4001, "asked to")
                return
            server.send(message)

    with serve(handler, "127.0.0.1", 0, ping_interval=0.05) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            host, port = server.socket.getsockname()[:2]
            conn = await dial_websocket(f"ws://{host}:{port}/anything")
            got: list[bytes] = []
            await conn.send([b"a", b"b" * 70_000])
            with anyio.fail_after(10):
                while len(got) < 3:
                    got += await conn.receive()
                assert got == [b"greeting", b"a", b"b" * 70_000]
                # Through some pings of the other side.
                with anyio.move_on_after(0.15):
                    await conn.receive()
                await conn.send([b"leave"])
                with pytest.raises(Closed) as caught:
                    await conn.receive()
            assert caught.value.code == "link.closed"
            assert (conn.close_code, conn.close_reason) == (4001, "asked to")
            await conn.aclose()
        finally:
            server.shutdown()
            await to_thread.run_sync(thread.join)
