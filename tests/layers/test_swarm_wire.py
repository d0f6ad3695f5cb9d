"""The GUN wire against the public suite for wires, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from air.base.backoff import BackoffConfig
from air.sync.gun.session import GunWire
from air.sync.hub import Hub
from air.testing.check_wire import CHECKS, check_wire
from air.transport.websocket import WebSocketListener

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def join(dialler: Hub, listener: Hub) -> AsyncIterator[None]:
    async with WebSocketListener.bind("127.0.0.1", 0) as below, anyio.create_task_group() as tasks:
        near, far = GunWire(dialler), GunWire(listener)

        async def dial() -> None:
            await near.dial(below.urls[0], backoff=BackoffConfig(first_seconds=0.02, max_seconds=0.1))

        tasks.start_soon(below.serve, far.serve)
        tasks.start_soon(dial)
        yield
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("check", CHECKS)
async def test_the_gun_wire_passes_the_suite(check: str) -> None:
    await check_wire(join, only=check, seconds=20)
