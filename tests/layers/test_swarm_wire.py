"""Both wires against the public suite for wires."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from air.base.backoff import BackoffConfig
from air.base.keys import Identity
from air.base.metrics import Counters
from air.node.config import NativeConfig
from air.node.native import Native
from air.sync.gun.session import GunWire
from air.sync.hub import Hub
from air.testing.check_wire import CHECKS, Join, check_wire
from air.transport.websocket import WebSocketListener

pytestmark = pytest.mark.anyio

QUICK = BackoffConfig(first_seconds=0.02, max_seconds=0.1)


@asynccontextmanager
async def gun(dialler: Hub, listener: Hub) -> AsyncIterator[None]:
    """Over real sockets."""
    async with WebSocketListener.bind("127.0.0.1", 0) as below, anyio.create_task_group() as tasks:
        near, far = GunWire(dialler), GunWire(listener)

        async def dial() -> None:
            await near.dial(below.urls[0], backoff=QUICK)

        tasks.start_soon(below.serve, far.serve)
        tasks.start_soon(dial)
        yield
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def native(dialler: Hub, listener: Hub) -> AsyncIterator[None]:
    """As a daemon has it: what was missed while there was no link is found by comparing."""

    def side(hub: Hub, config: NativeConfig) -> Native:
        return Native(hub, Identity.generate(), config, hub.env, Counters())

    async with (
        side(listener, NativeConfig(listen=("/ip4/127.0.0.1/tcp/0",))).running() as there,
        side(dialler, NativeConfig(listen=(), peers=tuple(there.addresses))).running(),
    ):
        yield


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("join", [gun, native])
async def test_a_wire_passes_the_suite(join: Join, check: str) -> None:
    await check_wire(join, only=check, seconds=20)
