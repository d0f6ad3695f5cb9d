"""Who is not read from cannot send: no layer collects what nobody has asked for."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

import anyio
import anyio.to_thread
import pytest

from air.transport.tcp import TcpListener, TcpStream

pytestmark = [pytest.mark.hostile, pytest.mark.anyio]


@pytest.mark.parametrize("slowly", [True, False], ids=["read slowly", "not read"])
async def test_who_floods_from_the_first_byte_on_is_read_no_faster_than_he_is_served(slowly: bool) -> None:
    async with TcpListener.bind("127.0.0.1", 0) as listener, anyio.create_task_group() as tasks:

        async def serve(stream: TcpStream) -> None:
            await anyio.sleep(0.1)  # it is ahead of us from the start
            while slowly:
                await stream.receive()
                await anyio.sleep(0.01)
            with anyio.move_on_after(0.02):
                await stream.receive()
            await anyio.sleep_forever()

        tasks.start_soon(listener.serve, serve)
        sent = await anyio.to_thread.run_sync(_flood, listener.addresses[0])
        # What the kernel holds for both ends and what was taken, and no more.
        assert sent < 40_000_000
        tasks.cancel_scope.cancel()


def _flood(address: tuple[str, int]) -> int:
    """Bytes that a peer gets rid of in a second, from its first byte on."""
    sent, end = 0, time.monotonic() + 1.0
    with socket.create_connection(address, timeout=0.2) as flood:
        while time.monotonic() < end and sent < 400_000_000:
            with suppress(TimeoutError):
                sent += flood.send(b"x" * 262_144)
    return sent
